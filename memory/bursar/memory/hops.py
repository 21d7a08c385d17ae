"""The asynchronous half of LangGraph's contract: each method is one hop to a thread that does what its twin does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from bursar.memory.errors import CheckpointsUnavailable
from bursar.memory.strict import StrictSerializer

__all__ = ["Hops"]

T = TypeVar("T")


class Hops(BaseCheckpointSaver[int]):
    """What is begun is done whole, even where whoever waits for it is cancelled."""

    def __init__(self, threads: Executor, serde: StrictSerializer, *, wait_s: float = 0) -> None:
        """`wait_s` is how long a checkpoint waits for a store that is away."""
        super().__init__(serde=serde)
        self._threads = threads
        self._wait_s = wait_s

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `get_tuple`."""
        return await self._patiently(self.get_tuple, config)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """See `list`."""
        found = self.list(config, filter=filter, before=before, limit=limit)
        while (one := await self._hop(next, found, None)) is not None:
            yield one

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `put`."""
        return await self._patiently(self.put, config, checkpoint, metadata, new_versions)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """See `put_writes`."""
        await self._patiently(self.put_writes, config, writes, task_id, task_path)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `delete_thread`."""
        await self._hop(self.delete_thread, thread_id)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """See `delete_for_runs`."""
        await self._hop(self.delete_for_runs, run_ids)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """See `prune`."""
        await self._hop(partial(self.prune, strategy=strategy), thread_ids)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """See `get_delta_channel_history`."""
        return await self._hop(partial(self.get_delta_channel_history, config=config, channels=channels))

    async def _patiently(self, work: Callable[..., T], *arguments: Any) -> T:
        """Something that may be done twice, as after a commit that was cut off: done again until the store is back."""
        try:
            return await self._hop(work, *arguments)
        except CheckpointsUnavailable:
            if not self._wait_s:
                raise
            again = AsyncRetrying(
                retry=retry_if_exception_type(CheckpointsUnavailable),
                wait=wait_random_exponential(multiplier=0.1, max=1),
                stop=stop_after_delay(self._wait_s),
                reraise=True,
            )
            return await again(self._hop, work, *arguments)

    async def _hop(self, work: Callable[..., T], *arguments: Any) -> T:
        # A write that is cancelled before it began is lost, and one that is cut midway holds the store's lock.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments))
