"""What is done at each cause of a provider's failure: one table, which docs/failures.md shows and every call obeys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from bursar.runtime.models.provider import (
    AuthFailed,
    BadReply,
    BrokenStream,
    CallTimeout,
    ContentFiltered,
    ContextTooLong,
    ModelMissing,
    NotSent,
    Overloaded,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    RequestRefused,
    Unavailable,
)

__all__ = ["CAUSES", "Again", "Cause", "Cools", "Failure", "Then", "cause_of", "chief"]

Again = Literal[
    "soon",  # the same model, after a pause; the next one where the pause is long and there is another
    "alone",  # the same model, but only where no other can take the call
    "never",
]

Then = Literal[
    "next",  # the next model
    "next_larger",  # the next model with a larger context window
    "stop",  # no model is asked any more
]

Cools = Literal[
    "asked",  # for as long as the provider asks; where it does not, it counts as a failure
    "failures",  # counts as a failure: so many in a row open the breaker
    "quota",  # until the provider's budget is renewed
    "setup",  # for a minute, or until somebody says that it was mended
    "no",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """A cause of failure and what is done about it."""

    name: str
    error: type[ProviderError]
    again: Again
    then: Then
    """After the last attempt at the model."""

    cools: Cools
    """For how long other calls pass the model by."""

    status: int
    """The HTTP status that the gateway answers where this ended the call."""

    @property
    def billed(self) -> Literal["no", "unknown"]:
        """Whether the failed attempt stays charged; a refusal is `no`, and what may have been billed is `unknown`."""
        return self.error.billed


CAUSES: tuple[Cause, ...] = (
    Cause(name="rate_limit", error=RateLimited, again="soon", then="next", cools="asked", status=429),
    Cause(name="overloaded", error=Overloaded, again="alone", then="next", cools="no", status=503),
    Cause(name="quota", error=QuotaExhausted, again="never", then="next", cools="quota", status=503),
    Cause(name="unavailable", error=Unavailable, again="soon", then="next", cools="failures", status=503),
    Cause(name="timeout", error=CallTimeout, again="alone", then="next", cools="failures", status=504),
    Cause(name="broken_stream", error=BrokenStream, again="alone", then="next", cools="failures", status=502),
    Cause(name="bad_reply", error=BadReply, again="alone", then="next", cools="failures", status=502),
    Cause(name="auth", error=AuthFailed, again="never", then="next", cools="setup", status=502),
    Cause(name="model_missing", error=ModelMissing, again="never", then="next", cools="setup", status=502),
    Cause(name="context_too_long", error=ContextTooLong, again="never", then="next_larger", cools="no", status=400),
    Cause(name="content_filter", error=ContentFiltered, again="never", then="stop", cools="no", status=400),
    Cause(name="bad_request", error=RequestRefused, again="never", then="stop", cools="no", status=400),
    Cause(name="not_sent", error=NotSent, again="never", then="next", cools="no", status=400),
)
"""What the caller can mend by waiting comes first, then what the operator can mend, then what only another request can.
Where models failed for several causes, the first of them is the one that the caller is told."""

_BY_ERROR = {cause.error: cause for cause in CAUSES}


def cause_of(error: ProviderError) -> Cause:
    """The row for an error, which may be of a subclass."""
    return next(_BY_ERROR[kind] for kind in type(error).__mro__ if kind in _BY_ERROR)


@dataclass(frozen=True, slots=True)
class Failure:
    """A model that gave no answer, and where the call goes from there."""

    model: str
    """Its name in bursar.yaml."""

    error: ProviderError
    """Why the last attempt at it failed."""

    then: Then
    attempts: int = field(default=1, kw_only=True)
    """Provider requests; 0 where it was passed by because it is cooling down."""

    @property
    def cause(self) -> Cause:
        """The row of the table for it."""
        return cause_of(self.error)

    def words(self) -> str:
        """The model and what it failed of."""
        many = f" ({self.attempts} attempts)" if self.attempts > 1 else ""
        return f"{self.model}: {self.error.message}{many}"


def chief(failures: Sequence[Failure]) -> Cause | None:
    """The cause that the caller is told: the one that stopped the call, else the first of the table among them."""
    if not failures:
        return None
    if failures[-1].then == "stop":
        return failures[-1].cause
    return min((failure.cause for failure in failures), key=CAUSES.index)
