"""What a provider says a call used, in one record for every provider."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

__all__ = ["SERVICE_TIERS", "TOKENS_MAX", "Parts", "ServiceTier", "Usage"]

TOKENS_MAX = 10**12
"""The largest count that is believed: far above any context window, and the cost of many such calls can be booked."""

ServiceTier = Literal[
    "standard",
    "batch",  # answered within hours, at a discount
    "flex",  # answered when there is room, at a discount
    "priority",  # answered first, at a premium
]
"""How a provider served a call, by the names of OpenAI's API; each may have prices of its own."""

SERVICE_TIERS: tuple[ServiceTier, ...] = get_args(ServiceTier)


class Parts(NamedTuple):
    """The tokens of a call by how they are billed: each token is in one part, and only there."""

    input: int
    cache_read: int
    cache_write: int
    cache_write_1h: int
    input_image: int
    input_audio: int
    cache_read_audio: int
    output: int
    reasoning: int
    output_image: int
    output_audio: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one model call.

    Raises ValueError for a count that is negative, no int or above TOKENS_MAX, a part larger than its whole, or an
    unknown service tier.
    """

    input_tokens: int
    """All tokens read by the model; *includes* every cached, image and audio token of the input."""

    output_tokens: int
    """All tokens written by the model; *includes* `reasoning_tokens` and every image and audio token of the output."""

    cache_read_tokens: int = 0
    """Input tokens that came from the provider's prompt cache; included in `input_tokens`."""

    cache_write_tokens: int = 0
    """Input tokens that were written to the provider's prompt cache; included in `input_tokens`."""

    reasoning_tokens: int = 0
    """Output tokens that the model thought with; included in `output_tokens`."""

    cache_write_1h_tokens: int = 0
    """Tokens that were written to be kept for an hour, not for minutes; included in `cache_write_tokens`."""

    input_image_tokens: int = 0
    """Input tokens of images; included in `input_tokens`, *not* in those read from or written to the cache."""

    input_audio_tokens: int = 0
    """Input tokens of audio; included in `input_tokens`, *not* in those read from or written to the cache."""

    cache_read_audio_tokens: int = 0
    """Tokens of audio that came from the cache; included in `cache_read_tokens`."""

    output_image_tokens: int = 0
    """Output tokens of images; included in `output_tokens`, *not* in `reasoning_tokens`."""

    output_audio_tokens: int = 0
    """Output tokens of audio; included in `output_tokens`, *not* in `reasoning_tokens`."""

    searches: int = 0
    """Searches that were billed by the piece, as rerank's are; each costs the price's fee, and they are no tokens."""

    service_tier: ServiceTier = "standard"
    """How the call was served."""

    parts: Parts = field(init=False, repr=False, compare=False)
    """The same tokens, each in one part."""

    def __post_init__(self) -> None:
        parts = Parts(
            self.input_tokens,
            self.cache_read_tokens,
            self.cache_write_tokens,
            self.cache_write_1h_tokens,
            self.input_image_tokens,
            self.input_audio_tokens,
            self.cache_read_audio_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.output_image_tokens,
            self.output_audio_tokens,
        )
        if set(map(type, parts)) != {int} or min(parts) < 0 or max(parts) > TOKENS_MAX:
            _refuse_counts(parts)
        if type(self.searches) is not int or not 0 <= self.searches <= TOKENS_MAX:
            raise ValueError(f"usage.searches must be a whole number from 0 to {TOKENS_MAX}: {self.searches!r}")
        if any(parts[1:7]):
            parts = parts._replace(**self._split_input())
        if any(parts[8:]):
            parts = parts._replace(output=self._plain_output())
        if self.service_tier not in SERVICE_TIERS:
            raise ValueError(f"usage.service_tier must be one of {', '.join(SERVICE_TIERS)}: {self.service_tier!r}")
        object.__setattr__(self, "parts", parts)

    def _split_input(self) -> dict[str, int]:
        read, written, hour = self.cache_read_tokens, self.cache_write_tokens, self.cache_write_1h_tokens
        if read + written > self.input_tokens:
            raise ValueError(
                f"usage: cached tokens ({read} read, {written} written) exceed input_tokens ({self.input_tokens}), "
                "which include them"
            )
        if hour > written:
            raise ValueError(
                f"usage: cache_write_1h_tokens ({hour}) exceed cache_write_tokens ({written}), which include them"
            )
        if self.cache_read_audio_tokens > read:
            raise ValueError(
                f"usage: cache_read_audio_tokens ({self.cache_read_audio_tokens}) exceed cache_read_tokens ({read}), "
                "which include them"
            )
        plain = self.input_tokens - read - written - self.input_image_tokens - self.input_audio_tokens
        if plain < 0:
            raise ValueError(
                f"usage: image and audio tokens ({self.input_image_tokens} and {self.input_audio_tokens}) exceed what "
                f"input_tokens ({self.input_tokens}) hold beside the cached tokens ({read + written})"
            )
        return {"input": plain, "cache_read": read - self.cache_read_audio_tokens, "cache_write": written - hour}

    def _plain_output(self) -> int:
        if self.reasoning_tokens > self.output_tokens:
            raise ValueError(
                f"usage: reasoning_tokens ({self.reasoning_tokens}) exceed output_tokens ({self.output_tokens}), "
                "which include them"
            )
        plain = self.output_tokens - self.reasoning_tokens - self.output_image_tokens - self.output_audio_tokens
        if plain < 0:
            raise ValueError(
                f"usage: image and audio tokens ({self.output_image_tokens} and {self.output_audio_tokens}) exceed "
                f"what output_tokens ({self.output_tokens}) hold beside the reasoning_tokens ({self.reasoning_tokens})"
            )
        return plain

    def to_record(self) -> dict[str, Any]:
        """The counts as JSON, by name, to be read by `Usage(**record)`; the rarer ones only where there are any."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _ALWAYS}
        record |= {name: count for name in _SELDOM if (count := getattr(self, name))}
        return record if self.service_tier == "standard" else {**record, "service_tier": self.service_tier}

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens


_ALWAYS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
_SELDOM = (
    "cache_write_1h_tokens",
    "input_image_tokens",
    "input_audio_tokens",
    "cache_read_audio_tokens",
    "output_image_tokens",
    "output_audio_tokens",
    "searches",
)


def _refuse_counts(counts: Parts) -> None:
    for name, count in zip(Parts._fields, counts, strict=True):
        if type(count) is not int or not 0 <= count <= TOKENS_MAX:
            raise ValueError(f"usage.{name}_tokens must be a whole number of tokens from 0 to {TOKENS_MAX}: {count!r}")
