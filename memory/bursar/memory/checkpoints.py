"""The saver of checkpoints, for a SQLite file and a PostgreSQL database."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from itertools import chain, islice
from typing import Any, Final

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
    get_checkpoint_id,
    get_checkpoint_metadata,
)
from sqlalchemy import Connection

from bursar.budget.errors import UsageError
from bursar.budget.stores.store import Store
from bursar.memory.copying import copy_thread
from bursar.memory.delta import delta_history
from bursar.memory.errors import CheckpointRefused
from bursar.memory.explained import explained
from bursar.memory.hops import Hops
from bursar.memory.pruning import STRATEGIES, delete_runs, give_back, threads_of, threads_of_runs
from bursar.memory.reading import TENANT_KEY, Wanted, as_tuple, config_of, pages
from bursar.memory.rows import Kept, Row
from bursar.memory.strict import StrictSerializer
from bursar.memory.threads import Held, Place, Rows, WriteRow

__all__ = ["EPOCH_KEY", "TENANT_KEY", "CheckpointSaver"]

EPOCH_KEY: Final = "bursar_epoch"
"""In a config's `configurable`: the epoch with which its writer holds the thread, for `CheckpointSaver.fence`."""


class CheckpointSaver(Hops):
    """LangGraph's contract on our own tables; the asynchronous half of it is in `Hops`.

    Safe to use from several threads and processes. Every method raises CheckpointsUnavailable where the store cannot
    be used, and every one that reads CheckpointRefused for what was damaged, moved or may not be rebuilt.
    """

    serde: StrictSerializer

    def __init__(self, store: Store, threads: Executor, serde: StrictSerializer, *, wait_s: float = 0) -> None:
        """`threads` are those in which the asynchronous methods wait for the store, where it is away for `wait_s`."""
        super().__init__(threads, serde, wait_s=wait_s)
        self._store = store
        self._tenant = ""

    def for_tenant(self, tenant: str) -> CheckpointSaver:
        """The same for the threads of one tenant, where a config does not name another under `TENANT_KEY`."""
        bound = copy.copy(self)
        bound._tenant = tenant
        return bound

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """The checkpoint that the config names, or the newest of its thread."""
        place = self._place(config)
        with self._reading() as connection:
            if (rows := Rows.of(connection, place)) is None:
                return None
            wanted = place.id or rows.newest(place.ns)
            row = rows.row(place.ns, wanted) if wanted else None
            return as_tuple(rows, place, row, self.serde) if row else None

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """The checkpoints of a thread, or of all threads of the tenant, newest first."""
        named = config["configurable"] if config else {}
        thread_id = named.get("thread_id")
        wanted = Wanted(
            tenant=str(named.get(TENANT_KEY, self._tenant)),
            thread_id=None if thread_id is None else str(thread_id),
            ns=named.get("checkpoint_ns"),
            id=named.get("checkpoint_id"),
            before=get_checkpoint_id(before) if before else None,
            facts=filter or {},
        )
        return islice(chain.from_iterable(self._pages(wanted)), limit)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Store a checkpoint; raises CheckpointFenced where another worker took the thread over."""
        place = self._place(config)
        facts = get_checkpoint_metadata(config, metadata)
        bare = {name: value for name, value in checkpoint.items() if name != "channel_values"}
        _, said = self.serde.dumps_typed((bare, facts))
        values = checkpoint["channel_values"]
        fresh = {name: self._dumped(name, values[name]) for name in new_versions if name in values}
        with self._writing(place) as held:
            before = held.row(place.ns, place.id) if place.id else None
            kept: dict[str, tuple[Any, Kept]] = {}
            for name, version in checkpoint["channel_versions"].items():
                if name not in new_versions and before and before.version(name) == version:
                    kept[name] = before.values[name]
                elif name in values:
                    kind, content = fresh.get(name) or self._dumped(name, values[name])
                    kept[name] = version, Kept(kind, held.strands.keep(content, f"{place.ns}:{name}"))
            run_id = facts.get("run_id")
            held.put(place.ns, checkpoint["id"], run_id and str(run_id), Row(place.id, said, kept))
            held.save()
        return config_of(place, checkpoint["id"])

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Store what a task of a checkpoint wrote; raises CheckpointFenced like `put`."""
        place = self._place(config)
        written = [(channel, *self._dumped(channel, value)) for channel, value in writes]
        with self._writing(place) as held:
            for number, (channel, kind, content) in enumerate(written):
                idx = WRITES_IDX_MAP.get(channel, number)
                value = Kept(kind, held.strands.cut(content))
                row = WriteRow(task=task_id, idx=idx, path=task_path, channel=channel, value=value)
                held.put_write(place.ns, str(place.id), row)

    def delete_thread(self, thread_id: str) -> None:
        """Delete all that is kept of a thread."""
        self.prune([thread_id], strategy="delete")

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata name one of these runs as `run_id`."""
        with self._reading() as connection:
            found = threads_of_runs(connection, self._tenant, run_ids)
        for thread_id in found:
            with self._writing(self._thread(thread_id)) as held:
                delete_runs(held, run_ids)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete all of these threads (`delete`), or all that going on with them does not need (`keep_latest`).

        Going on needs the newest checkpoint of each namespace with its pending writes, and, where the graph has
        DeltaChannels, those before it up to their last snapshots. Raises UsageError for another strategy.
        """
        if strategy not in STRATEGIES:
            raise UsageError(f"strategy {strategy!r}: expected one of {', '.join(STRATEGIES)}")
        with self._reading() as connection:
            found = [one for one in map(self._thread, thread_ids) if Rows.of(connection, one)]
        for place in found:
            with self._writing(place) as held:
                STRATEGIES[strategy](held)

    def threads(self, *, with_history: bool = False) -> Sequence[str]:
        """The tenant's threads that have checkpoints, or (`with_history`) more than one of a namespace."""
        with self._reading() as connection:
            return threads_of(connection, self._tenant, with_history=with_history)

    def give_back(self) -> None:
        """Give the disk back what a file of checkpoints has freed; it would be used again, too. A server sees to it.

        Others wait meanwhile, about a second for each 100 MB that are left.
        """
        with explained(self._store.name):
            give_back(self._store)

    def copy_thread(self, source_thread_id: str, target_thread_id: str, *, until: str | None = None) -> None:
        """Copy a thread; neither depends on the other afterwards. The target may not have any checkpoints yet.

        With `until`, the id of a checkpoint of the root namespace, what came after it is left out, and so are its own
        pending writes: a graph that goes on there executes its next tasks anew. Raises NotFoundError where there is no
        such thread or checkpoint, and ConflictError where the target has checkpoints.
        """
        with explained(self._store.name), self._store.write() as connection:
            copy_thread(connection, self._thread(source_thread_id), self._thread(target_thread_id), until)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str, *, until: str | None = None) -> None:
        """See `copy_thread`."""
        await self._hop(partial(self.copy_thread, until=until), source_thread_id, target_thread_id)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """As LangGraph's, without reading the values of other channels."""
        place = self._place(config)
        with self._reading() as connection:
            return delta_history(Rows.of(connection, place), place, channels, self.serde)

    def fence(self, thread_id: str, epoch: int) -> None:
        """From now on, refuse every write to the thread whose config names a lower epoch under `EPOCH_KEY`.

        The fence is never lowered, and holds for all processes. A config without the key is not compared. The write
        that is refused raises CheckpointFenced.
        """
        with self._writing(self._thread(thread_id)) as held:
            held.fence(epoch)

    async def afence(self, thread_id: str, epoch: int) -> None:
        """See `fence`."""
        await self._patiently(self.fence, thread_id, epoch)

    def _dumped(self, channel: str, value: Any) -> tuple[str, bytes]:
        try:
            return self.serde.dumps_typed(value)
        except CheckpointRefused as error:
            what = f"channel {channel!r}, of type {type(value).__name__}"
            raise CheckpointRefused(f"{what}: {error.message}", next_step=error.next_step) from error

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with explained(self._store.name), self._store.read() as connection:
            yield connection

    def _pages(self, wanted: Wanted) -> Iterator[Sequence[CheckpointTuple]]:
        with explained(self._store.name):
            yield from pages(self._store, self.serde, wanted)

    @contextmanager
    def _writing(self, place: Place) -> Iterator[Held]:
        with explained(self._store.name), self._store.write() as connection:
            yield Held(connection, place)

    def _thread(self, thread_id: str) -> Place:
        return Place(tenant=self._tenant, thread_id=thread_id)

    def _place(self, config: RunnableConfig) -> Place:
        named = config["configurable"]
        return Place(
            tenant=str(named.get(TENANT_KEY, self._tenant)),
            thread_id=str(named["thread_id"]),
            ns=named.get("checkpoint_ns", ""),
            id=named.get("checkpoint_id"),
            epoch=named.get(EPOCH_KEY),
        )
