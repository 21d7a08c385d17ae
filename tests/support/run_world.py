"""Runtimes that can be killed inside one process, and a world outside of them that keeps count.

What a killed runtime had written stays, and from that moment on it can neither write, nor read, nor ask a provider, nor
act: whatever its code still does while it is cleared away has no effect, as with SIGKILL.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock
from weakref import WeakKeyDictionary

from sqlalchemy import Connection

from bursar.budget import Store
from bursar.budget.usage import Usage
from bursar.runtime import Runtime
from bursar.runtime.models.provider import ModelReply, ModelRequest
from bursar.runtime.models.sim import SimProvider
from bursar.runtime.work import Source
from bursar.runtime.worker import Worker

__all__ = ["Died", "Effect", "Process", "World", "act", "mortal", "was_done"]


class Died(BaseException):
    """This process is dead."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a tool did."""

    tool: str
    label: str
    """Of the run, as its first message names it; its forks have the same."""

    line: str
    key: str
    at: datetime


@dataclass(slots=True)
class World:
    """What is outside of every process: the provider's bill, and what the tools did."""

    clock: Callable[[], datetime]
    bill: dict[str, list[Usage]] = field(default_factory=lambda: defaultdict(list))
    """By the conversation's first word."""

    effects: list[Effect] = field(default_factory=list)


_here: ContextVar[Process | None] = ContextVar("here", default=None)
"""The process on whose behalf something is executed."""


class Process:
    """A runtime that dies when its fuse is burnt: each thing that is written, asked or done takes two from it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fuse: int | None = None
        self.dead = False
        self.runtime: Runtime
        self.worker: Worker
        self._stack = AsyncExitStack()

    @contextmanager
    def here(self) -> Iterator[None]:
        """Do what is done within on behalf of this process."""
        token = _here.set(self)
        try:
            yield
        finally:
            _here.reset(token)

    async def open(self, config: Path, sources: Sequence[Source], monotonic: Callable[[], float]) -> None:
        """Start, with a worker that looks for runs when it is told to, and sees time go by on that clock."""
        with self.here():
            opened = Runtime.open(config, clock=self.world.clock, sleep=_at_once)
            self.runtime = runtime = await self._stack.enter_async_context(opened)
        runtime._known.give(sources)
        self.worker = runtime._worker(16, runtime._known.may_have, takes_over=True)
        self.worker._monotonic = self.worker._watch._monotonic = monotonic

    async def close(self) -> None:
        """End: as a process does that is told to, or without any effect where it is dead."""
        with contextlib.suppress(Died, Exception):
            await self._stack.aclose()

    def burn(self) -> None:
        """Come closer to the end; raises Died there, and ever after."""
        if self.fuse is not None and not self.dead:
            self.fuse -= 1
            self.dead = self.fuse < 0
        self.live()

    def live(self) -> None:
        """Raise Died once it is dead."""
        if self.dead:
            raise Died


async def _at_once(seconds: float) -> None:
    await asyncio.sleep(0)


def act(tool: str, label: str, line: str, key: str) -> str:
    """Have an effect on the world."""
    process = _process()
    process.burn()
    process.world.effects.append(Effect(tool, label, line, key, process.world.clock()))
    process.burn()
    return "done"


def was_done(key: str) -> str | None:
    """What a tool's own check finds."""
    return "done" if any(effect.key == key for effect in _process().world.effects) else None


def _process() -> Process:
    process = _here.get()
    assert process is not None, "outside of every process"
    return process


@contextmanager
def mortal() -> Iterator[None]:
    """Let the stores that a process opens, and the providers that it asks, die with it."""
    made, write, read, complete = Store.__init__, Store.write, Store.read, SimProvider.complete
    owners: WeakKeyDictionary[Store, Process] = WeakKeyDictionary()

    def opened(self: Store, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        if (process := _here.get()) is not None:
            owners[self] = process

    @contextmanager
    def writing(self: Store, *, durable: bool = False) -> Iterator[Connection]:
        if (process := owners.get(self)) is None:
            with write(self, durable=durable) as connection:
                yield connection
            return
        process.burn()
        with write(self, durable=durable) as connection:
            yield connection
            process.live()
        process.burn()

    @contextmanager
    def reading(self: Store) -> Iterator[Connection]:
        if (process := owners.get(self)) is not None:
            process.live()
        with read(self) as connection:
            yield connection

    async def answering(self: SimProvider, request: ModelRequest) -> ModelReply:
        process = _process()
        process.burn()
        reply = await complete(self, request)
        said = next(message["content"] for message in request.messages if message["role"] == "user")
        assert reply.usage is not None
        process.world.bill[said.split()[0]].append(reply.usage)
        process.burn()
        return reply

    with (
        mock.patch.object(Store, "__init__", opened),
        mock.patch.object(Store, "write", writing),
        mock.patch.object(Store, "read", reading),
        mock.patch.object(SimProvider, "complete", answering),
    ):
        yield
