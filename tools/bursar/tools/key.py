"""The idempotency key of the call that is being made, for whoever the tool asks to act."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from bursar.budget.errors import UsageError

__all__ = ["idempotency_key", "keyed"]

_key: ContextVar[str | None] = ContextVar("bursar_idempotency_key", default=None)


def idempotency_key() -> str:
    """The key of this call: no other call has it, and it stays the same when this one is made again.

    That is so after a retry, a resume and a crash, in every process. Hand it to whoever acts for the tool, so that they
    can tell a repetition. An async tool, its tasks and `asyncio.to_thread` have it, and so has a plain tool's thread; a
    thread that the tool starts by other means has to be given it. Raises UsageError outside of a call.
    """
    key = _key.get()
    if key is None:
        raise UsageError(
            "there is no idempotency key outside of a run's tool call",
            next_step='in a test: `with keyed("test-1"): ...`',
        )
    return key


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """Make this the key of all that is called within."""
    token = _key.set(key)
    try:
        yield
    finally:
        _key.reset(token)
