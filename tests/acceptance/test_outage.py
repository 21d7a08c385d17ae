"""The ledger's store goes away for five seconds in mid-load: nothing is sent unreserved, and nothing billed is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import pytest
from langgraph.graph import END, START, StateGraph

from bursar.budget import Ledger
from bursar.budget.audit.verify import verify
from bursar.budget.errors import LedgerUnavailable
from bursar.budget.stores.store import Store
from bursar.runtime import Runtime, chat_model
from bursar.runtime.events import Event
from bursar.runtime.runs.run import Run
from tests.acceptance.support import QUESTION, Texts, answers, charged, opened, write_config
from tests.support.bill import Bill
from tests.support.postgres import Postgres
from tests.support.provider import Behaviour, TrueProvider

AWAY_S = 5.0
RUNS = 8
CALLS = 6
"""Of each run, one after the other."""

LIMIT_USD = "4"
LEASE = {"when_unreachable": "lease", "lease": {"usd": "0.45", "tokens": 20_000, "steps": 6, "seconds": 30}}
"""Room for one call that is not bounded at all, and so for several that are."""

pytestmark = pytest.mark.timeout(90)


class Outages(Protocol):
    """A store that can be taken away."""

    url: str

    def begin(self) -> None: ...

    def end(self) -> None: ...


class LockedFile:
    """A file that another connection locks, for longer than anybody waits for it."""

    def __init__(self, folder: Path) -> None:
        self.url = f"sqlite:///{folder / 'bursar.db'}"
        self._file = folder / "bursar.db"
        self._other: sqlite3.Connection | None = None

    def begin(self) -> None:
        self._other = sqlite3.connect(self._file, isolation_level=None, timeout=5, check_same_thread=False)
        self._other.execute("BEGIN EXCLUSIVE")

    def end(self) -> None:
        if self._other is not None:
            self._other.close()


class StoppedServer:
    """A server that is shut down and started again."""

    def __init__(self, folder: Path) -> None:
        self._server = Postgres(folder)
        self.url = self._server.url("postgres")

    def begin(self) -> None:
        self._server.stop()

    def end(self) -> None:
        self._server.restart()

    def close(self) -> None:
        self._server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def outages(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outages]:
    """A store that can be taken away, of each kind; whoever waits for a lock gives up after a second."""
    patient = {"locked_s_max": 1.0}
    monkeypatch.setattr(Store.__init__, "__kwdefaults__", patient)
    if request.param == "sqlite":
        yield LockedFile(tmp_path)
        return
    with TemporaryDirectory(prefix="bursar-") as folder, closing(StoppedServer(Path(folder) / "data")) as server:
        yield server


def chain() -> StateGraph[Texts, None, Texts, Texts]:
    """A graph that asks so often, each time in a node of its own."""

    async def ask(state: Texts) -> Texts:
        said = len(state.get("texts") or [])
        answer = await chat_model(max_output_tokens=300).ainvoke(f"{said}. {state['question']}")
        return {"texts": [str(answer.text)]}

    graph = StateGraph(Texts)
    for number in range(CALLS):
        graph.add_node(f"ask {number}", ask)
        graph.add_edge(START if number == 0 else f"ask {number - 1}", f"ask {number}")
    graph.add_edge(f"ask {CALLS - 1}", END)
    return graph


def one_step() -> StateGraph[Texts, None, Texts, Texts]:
    """A graph that asks as often in one node: nothing is written between its calls but by the ledger."""

    async def ask(state: Texts) -> Texts:
        question = state["question"]
        said = [await chat_model(max_output_tokens=300).ainvoke(f"{number}. {question}") for number in range(CALLS)]
        return {"texts": [str(answer.text) for answer in said]}

    graph = StateGraph(Texts)
    graph.add_node("ask", ask)
    graph.add_edge(START, "ask")
    return graph


@dataclass(slots=True)
class Load:
    """Runs under way, and what they told."""

    runtime: Runtime
    events: list[Event]
    tasks: list[asyncio.Task[None]]
    ended: list[Run]

    async def end(self) -> None:
        """Wait until every run has ended; raises what one of them raised."""
        await asyncio.gather(*self.tasks)

    def told(self, kind: str) -> set[str]:
        """The runs that told of something."""
        return {event.run_id for event in self.events if event.kind == kind}


@asynccontextmanager
async def loaded(
    config: Path, provider: TrueProvider, graph: Callable[[], StateGraph[Texts, None, Texts, Texts]] = chain
) -> AsyncIterator[Load]:
    """So many runs, in mid-load."""
    provider.behaviour = Behaviour(script=answers(), latency_s=0.5, latency_sigma=0.3)
    async with opened(config) as runtime:
        load = Load(runtime, [], [], [])

        async def one(number: int) -> None:
            given = {"question": f"{number}: {QUESTION}"}
            async for event in runtime.stream(graph(), given, tenant="acme", name="asker"):
                load.events.append(event)
                if event.run is not None:
                    load.ended.append(event.run)

        load.tasks = [asyncio.create_task(one(number)) for number in range(RUNS)]
        await asyncio.to_thread(provider.bill.wait_until, lambda bill: bill.calls >= RUNS, 60)
        yield load


def config_of(folder: Path, provider: TrueProvider, url: str, ledger: Mapping[str, Any]) -> Path:
    tenants = {"acme": {"budgets": [{"usd": LIMIT_USD}]}}
    return write_config(folder, provider, database=url, tenants=tenants, ledger=ledger, lease_s=3)


def assert_nothing_was_lost(bill: Bill, url: str) -> None:
    """The ledger has what was billed, holds nothing more, and follows from its journal."""
    with closing(Ledger.open(url)) as ledger:
        [line] = ledger.budgets.ls("acme")
        assert line.posted.nanousd == charged(bill) <= 4_000_000_000
        assert line.posted.steps == bill.calls
        assert not line.held
        assert verify(ledger.store).findings == ()


async def test_runs_wait_while_the_ledger_is_away_and_then_go_on_by_themselves(
    outages: Outages, true_provider: TrueProvider, tmp_path: Path
) -> None:
    """Under `refuse`: what was in flight is booked when the ledger is back, and nothing is sent before."""
    config = config_of(tmp_path, true_provider, outages.url, {})
    async with loaded(config, true_provider) as load:
        await asyncio.to_thread(outages.begin)
        await asyncio.sleep(0.5)
        before = true_provider.bill.requests
        await asyncio.sleep(AWAY_S - 0.5)
        sent = true_provider.bill.requests - before
        with pytest.raises(LedgerUnavailable, match=r"the ledger .* nothing was reserved"):
            await load.runtime.run(chain(), {"question": QUESTION}, tenant="acme")
        await asyncio.to_thread(outages.end)
        await load.end()
    assert sent == 0
    assert [run.status for run in load.ended] == ["succeeded"] * RUNS
    assert load.told("away") == load.told("back") == {run.id for run in load.ended}
    assert true_provider.bill.requests == true_provider.bill.calls == RUNS * CALLS
    assert_nothing_was_lost(true_provider.bill, outages.url)


async def test_runs_with_a_lease_go_on_within_it_while_the_ledger_is_away(
    outages: Outages, true_provider: TrueProvider, tmp_path: Path
) -> None:
    """Under `lease`: calls go on out of what was held before, and are in the ledger when it is back.

    Within a step of the graph: the next begins once the last is in a checkpoint, and a server has these, too.
    """
    config = config_of(tmp_path, true_provider, outages.url, LEASE)
    async with loaded(config, true_provider, one_step) as load:
        await asyncio.to_thread(outages.begin)
        before = true_provider.bill.requests
        await asyncio.sleep(AWAY_S)
        went_on = true_provider.bill.requests - before
        await asyncio.to_thread(outages.end)
        await load.end()
    assert went_on > 0
    assert [run.status for run in load.ended] == ["succeeded"] * RUNS
    assert load.told("away") == load.told("back") == {run.id for run in load.ended}
    assert true_provider.bill.requests == true_provider.bill.calls == RUNS * CALLS
    assert_nothing_was_lost(true_provider.bill, outages.url)


@pytest.mark.parametrize("policy", [{}, LEASE], ids=["refuse", "lease"])
async def test_a_run_for_which_the_ledger_stays_away_is_interrupted_and_pays_nothing_twice(
    policy: Mapping[str, Any], outages: Outages, true_provider: TrueProvider, tmp_path: Path
) -> None:
    """What was billed is kept until it is written, so that the resume replays it."""
    config = config_of(tmp_path, true_provider, outages.url, {**policy, "wait_s": 1})
    async with loaded(config, true_provider) as load:
        await asyncio.to_thread(outages.begin)
        ended = await asyncio.gather(*load.tasks, return_exceptions=True)
        await asyncio.to_thread(outages.end)
        assert {type(one) for one in ended} == {LedgerUnavailable}
        resumed = [_resumed(load.runtime, run_id) for run_id in load.told("started")]
        assert [run.status for run in await asyncio.gather(*resumed)] == ["succeeded"] * RUNS
    assert true_provider.bill.requests == true_provider.bill.calls == RUNS * CALLS
    assert_nothing_was_lost(true_provider.bill, outages.url)


async def _resumed(runtime: Runtime, run_id: str) -> Run:
    """Resume a run, once it is written that the ledger was away for too long."""
    run = await runtime.get(run_id)
    while run.status == "running":
        await asyncio.sleep(0.05)
        run = await runtime.get(run_id)
    assert (run.status, run.stop_reason) == ("interrupted", "the ledger could not be used; resume it to go on")
    return await runtime.resume(run_id)
