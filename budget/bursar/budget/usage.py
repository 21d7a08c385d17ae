"""What a provider says a call used, in one record for every provider."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["TOKENS_MAX", "Usage"]

TOKENS_MAX = 10**12
"""The largest count that is believed: far above any context window, and the cost of many such calls can be booked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one model call.

    Raises ValueError for a count that is negative, no int or above TOKENS_MAX, or a part larger than its whole.
    """

    input_tokens: int
    """All tokens read by the model; *includes* `cache_read_tokens` and `cache_write_tokens`."""

    output_tokens: int
    """All tokens written by the model; *includes* `reasoning_tokens`."""

    cache_read_tokens: int = 0
    """Input tokens that came from the provider's prompt cache; included in `input_tokens`."""

    cache_write_tokens: int = 0
    """Input tokens that were written to the provider's prompt cache; included in `input_tokens`."""

    reasoning_tokens: int = 0
    """Output tokens that the model thought with; included in `output_tokens`."""

    def __post_init__(self) -> None:
        for field in fields(self):
            count = getattr(self, field.name)
            if type(count) is not int or not 0 <= count <= TOKENS_MAX:
                raise ValueError(
                    f"usage.{field.name} must be a whole number of tokens from 0 to {TOKENS_MAX}: {count!r}"
                )
        if self.cache_read_tokens + self.cache_write_tokens > self.input_tokens:
            raise ValueError(
                f"usage: cached tokens ({self.cache_read_tokens} read, {self.cache_write_tokens} written) "
                f"exceed input_tokens ({self.input_tokens}), which include them"
            )
        if self.reasoning_tokens > self.output_tokens:
            raise ValueError(
                f"usage: reasoning_tokens ({self.reasoning_tokens}) exceed output_tokens ({self.output_tokens}), "
                "which include them"
            )

    def to_record(self) -> dict[str, int]:
        """The counts as JSON, by name."""
        return {
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cache_read_tokens": self.cache_read_tokens,
            "cache_write_tokens": self.cache_write_tokens,
            "reasoning_tokens": self.reasoning_tokens,
        }

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens
