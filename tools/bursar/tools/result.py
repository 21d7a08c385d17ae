"""What a tool hands back to the model: text within a cap, or an error that the model can act on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

__all__ = ["RESULT_LIMIT_BYTES", "ToolResult", "describe_error", "failed", "returned"]

RESULT_LIMIT_BYTES = 65_536
"""The largest result passed to the model, unless the tool declares another cap."""

_MESSAGE_LIMIT_CHARS = 1_000


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One answer to one tool call."""

    content: str
    """Text as the tool returned it, or JSON of anything else."""

    is_error: bool = False


def returned(value: object, limit_bytes: int) -> ToolResult:
    """The result for what a tool returned: text stays, anything else becomes JSON.

    An error result where JSON cannot hold the value, or where it is larger than `limit_bytes` of UTF-8.
    """
    if isinstance(value, str) and len(value) > limit_bytes:
        return _too_large(
            len(value), limit_bytes
        )  # not encoded: a second copy of a huge text would only be thrown away
    try:
        data = _encoded(value)
    except Exception as error:  # a team's object may fail in any way when it is read
        return ToolResult(f"The result cannot be passed on: {describe_error(error)}", is_error=True)
    return _too_large(len(data), limit_bytes) if len(data) > limit_bytes else ToolResult(data.decode())


def failed(error: BaseException) -> ToolResult:
    """The result for a tool that raised: class and message, no traceback."""
    return ToolResult(f"The tool failed: {describe_error(error)}", is_error=True)


def describe_error(error: BaseException) -> str:
    """Class and message of an error, capped, whatever its own `__str__` does."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # an error whose own message fails is still an error to report
        text = f"{type(error).__name__} (its message cannot be shown)"
    return text if len(text) <= _MESSAGE_LIMIT_CHARS else f"{text[:_MESSAGE_LIMIT_CHARS]}..."


def _encoded(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "replace")  # half a surrogate pair cannot be sent to any provider
    return to_json(value, inf_nan_mode="strings")


def _too_large(size: int, limit_bytes: int) -> ToolResult:
    return ToolResult(
        f"The result is too large: at least {size:,} bytes, and at most {limit_bytes:,} are passed on. "
        "Ask for less: fewer items, a narrower range, or one part at a time.",
        is_error=True,
    )
