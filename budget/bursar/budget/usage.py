"""What a provider says a call used, in one record for every provider."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["Usage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of one model call.

    Raises ValueError for a count that is negative or no int, or a part larger than its whole.
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
            if type(count) is not int or count < 0:
                raise ValueError(f"usage.{field.name} must be a whole number of tokens, 0 or more: {count!r}")
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

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens
