"""Every cause of failure, whole and streamed, with another model at hand and without: what is done, charged and told.

Every cell is a run of its own, with models of its own, against a provider that keeps the true bill; all are made side
by side, once.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bursar.budget.reports.bill import Attempt
from bursar.budget.windows import utc_now
from bursar.runtime import Runtime
from bursar.runtime.ask import Ask, PaidReply
from bursar.runtime.context import current_run
from bursar.runtime.models.causes import CAUSES
from bursar.runtime.models.health import State
from bursar.runtime.models.sim import SimProvider
from bursar.runtime.stop import ModelCallFailed
from tests.acceptance.support import QUESTION, Texts, charged, fan_out, model_of, one_call, opened, write_config
from tests.support.provider import Answer, Behaviour, Fault, TrueProvider

RETRIES = 1
SIDE_BY_SIDE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is promised for a cause."""

    fault: Fault | None
    """None for a request that the adapter itself refuses."""

    status: int
    billed: bool = False
    """Whether each failed attempt stays charged."""

    alone: int = 1
    """Requests to the model where no other is at hand."""

    beside: int = 1
    """Requests to it where one is."""

    next_answers: bool = True
    cut: bool = False
    """Whether a part of the answer was passed on where it is streamed: then nothing is begun anew."""

    cools: bool = False
    """Whether one such failure makes other calls pass the model by."""


TWICE = RETRIES + 1
ROWS = {
    "rate_limit": Row(fault=Fault("rate_limit", retry_after_s=1), status=429, alone=TWICE, beside=TWICE, cools=True),
    "rate_limit, long": Row(fault=Fault("rate_limit", retry_after_s=90), status=429, alone=TWICE, cools=True),
    "overloaded": Row(fault=Fault("overloaded"), status=503, alone=TWICE),
    "quota": Row(fault=Fault("quota"), status=503, cools=True),
    "unavailable": Row(fault=Fault("server_error"), status=503, alone=TWICE, beside=TWICE),
    "timeout, no byte": Row(fault=Fault("billed_timeout"), status=504, billed=True, alone=TWICE),
    "timeout, half": Row(fault=Fault("stalled"), status=504, billed=True, alone=TWICE, cut=True),
    "broken_stream, no byte": Row(fault=Fault("drop_before"), status=502, billed=True, alone=TWICE),
    "broken_stream, half": Row(fault=Fault("broken_stream"), status=502, billed=True, alone=TWICE, cut=True),
    "bad_reply": Row(fault=Fault("html"), status=502, billed=True, alone=TWICE),
    "auth": Row(fault=Fault("unauthorized"), status=502, cools=True),
    "model_missing": Row(fault=Fault("model_missing"), status=502, cools=True),
    "context_too_long": Row(fault=Fault("context_length"), status=400),
    "content_filter": Row(fault=Fault("content_filter"), status=400, billed=True, next_answers=False),
    "bad_request": Row(fault=Fault("bad_request"), status=400, next_answers=False),
    "not_sent": Row(fault=None, status=400),
}


class Cell(NamedTuple):
    """A case of the matrix."""

    row: str
    streamed: bool
    has_next: bool

    @property
    def tier(self) -> str:
        return f"t{[*ROWS].index(self.row)}{'s' * self.streamed}{'n' * self.has_next}"

    @property
    def cause(self) -> str:
        return self.row.partition(",")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of a case."""

    ended: PaidReply | ModelCallFailed
    attempts: list[Attempt]
    first_requests: int
    next_requests: int
    first_bill: int
    pauses: list[float]
    health: State


CELLS = [Cell(*case) for case in itertools.product(ROWS, [False, True], [False, True])]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Cell, Found]:
    with TrueProvider() as provider:
        return asyncio.run(every_cell(tmp_path_factory.mktemp("matrix"), provider))


async def every_cell(folder: Path, provider: TrueProvider) -> Mapping[Cell, Found]:
    requests: Counter[str] = Counter()
    faults = {cell.tier: ROWS[cell.row].fault for cell in CELLS}

    def fault(body: dict[str, Any], _: int) -> Fault | None:
        requests[body["model"]] += 1
        return faults.get(body["model"])

    provider.behaviour = Behaviour(script=[Answer(text="One two three four five six seven.")], faults=fault)
    models = dict(itertools.chain.from_iterable(models_of(cell, provider) for cell in CELLS))
    models["warm"] = model_of(provider, model="warm")
    tiers = {cell.tier: [cell.tier, f"{cell.tier}-next"][: 1 + cell.has_next] for cell in CELLS} | {"warm": ["warm"]}
    pauses: dict[str, list[float]] = {}
    few = asyncio.Semaphore(SIDE_BY_SIDE)

    async def at_once(pause_s: float) -> None:
        pauses.setdefault(current_run().scope.agents[-1], []).append(pause_s)

    now = utc_now()  # and it stays so, else a pause could be over before it is looked at
    async with opened(write_config(folder, models, tiers=tiers), sleep=at_once, clock=lambda: now) as runtime:

        async def found(cell: Cell) -> Found:
            ended: list[PaidReply | ModelCallFailed] = []
            async with few:
                graph = fan_out(1, node=asking(cell, ended))
                run = await runtime.run(graph, {"question": QUESTION}, tenant="acme", name=cell.tier)
            return Found(
                ended=ended[0],
                attempts=[*runtime.ledger.reports.bill(run.id).attempts],
                first_requests=requests[cell.tier],
                next_requests=requests[f"{cell.tier}-next"] + simulated_requests(runtime, f"{cell.tier}-next"),
                first_bill=charged(provider.bill, cell.tier),
                pauses=pauses.get(cell.tier, []),
                health=runtime.health.state(cell.tier),
            )

        # A first call of its own: what it has to import would use up the time of others.
        await runtime.run(one_call("warm"), {"question": QUESTION}, tenant="acme")
        return dict(zip(CELLS, await asyncio.gather(*map(found, CELLS)), strict=True))


def simulated_requests(runtime: Runtime, model: str) -> int:
    provider = runtime.catalog.model(model).provider
    return provider.bill.calls if isinstance(provider, SimProvider) else 0


def models_of(cell: Cell, provider: TrueProvider) -> Iterator[tuple[str, dict[str, Any]]]:
    timeout_s = 1.5 if cell.cause == "timeout" else 30
    yield cell.tier, model_of(provider, model=cell.tier, retries=RETRIES, timeout_s=timeout_s, context_window=8_192)
    name = f"{cell.tier}-next"
    simulated = {
        "provider": "sim",
        "scenario": "echo",
        "price": {"input_usd_per_mtok": "1", "output_usd_per_mtok": "1"},
    }
    # What the first adapter refuses to send, another of the same kind would refuse too.
    yield name, simulated if ROWS[cell.row].fault is None else model_of(provider, model=name, context_window=32_768)


def asking(cell: Cell, ended: list[PaidReply | ModelCallFailed]) -> Any:
    async def node(state: Texts) -> Texts:
        run = current_run()
        extra = {"n": 2} if ROWS[cell.row].fault is None else {}  # more answers than the reservation is for
        messages = [{"role": "user", "content": state["question"]}]
        ask = Ask(tier=cell.tier, node="ask", messages=messages, max_output_tokens=200, extra=extra)
        heard: list[Mapping[str, Any]] = []
        try:
            ended.append(await run.calls.make(run, ask, run.call_id(), heard.append if cell.streamed else None))
        except ModelCallFailed as error:
            ended.append(error)
        return {}

    return node


def glued(cell: Cell) -> bool:
    """Whether another answer would be taken for the rest of this one."""
    return cell.streamed and ROWS[cell.row].cut


def asked(cell: Cell) -> int:
    """Requests to the first model."""
    row = ROWS[cell.row]
    return 1 if glued(cell) else row.beside if cell.has_next else row.alone


def test_the_right_models_are_asked_so_often_as_the_table_says(matrix: Mapping[Cell, Found]) -> None:
    for cell, found in matrix.items():
        row = ROWS[cell.row]
        answered = cell.has_next and row.next_answers and not glued(cell)
        assert isinstance(found.ended, PaidReply) == answered, cell
        assert found.first_requests == (asked(cell) if row.fault else 0), cell
        assert found.next_requests == answered, cell


def test_each_request_has_a_reservation_of_its_own_that_is_closed_truthfully(matrix: Mapping[Cell, Found]) -> None:
    for cell, found in matrix.items():
        failed = [attempt for attempt in found.attempts if attempt.model == cell.tier]
        others = [attempt for attempt in found.attempts if attempt.model != cell.tier]
        assert (len(failed), len(others)) == (asked(cell), found.next_requests), cell
        assert all(attempt.outcome == "exact" for attempt in others), cell
        if ROWS[cell.row].billed:
            assert {attempt.outcome for attempt in failed} == {"unknown"}, cell
            assert found.first_bill <= sum(attempt.posted.nanousd for attempt in failed), cell
            assert all(0 < attempt.posted.nanousd <= attempt.held.nanousd for attempt in failed), cell
        else:
            assert {(attempt.state, attempt.posted.nanousd) for attempt in failed} == {("released", 0)}, cell
            assert found.first_bill == 0, cell


def test_an_answer_of_the_next_model_says_why_it_was_asked(matrix: Mapping[Cell, Found]) -> None:
    for cell, found in matrix.items():
        if isinstance(found.ended, PaidReply):
            assert (found.ended.model, found.ended.tier) == (f"{cell.tier}-next", cell.tier)
            assert found.ended.reason.startswith(f"after {cell.tier}, next of tier {cell.tier}; {cell.tier}: ")


def test_a_failed_call_tells_the_cause_the_status_and_when_to_try_again(matrix: Mapping[Cell, Found]) -> None:
    for cell, found in matrix.items():
        if isinstance(found.ended, PaidReply):
            continue
        row, [failure] = ROWS[cell.row], found.ended.failures
        cause, status = ("broken_stream", 502) if glued(cell) else (cell.cause, row.status)
        assert (failure.cause.name, failure.cause.status, failure.attempts) == (cause, status, asked(cell)), cell
        assert found.ended.cause is failure.cause
        assert found.ended.retry_after_s == (row.fault.retry_after_s if row.fault else None), cell


def test_one_failure_makes_others_pass_the_model_by_only_where_it_will_not_answer_them_either(
    matrix: Mapping[Cell, Found],
) -> None:
    for cell, found in matrix.items():
        assert found.health == ("open" if ROWS[cell.row].cools else "closed"), cell


def test_a_pause_is_as_long_as_the_provider_asks(matrix: Mapping[Cell, Found]) -> None:
    assert matrix[Cell("rate_limit", False, False)].pauses == [1]
    assert matrix[Cell("rate_limit, long", True, False)].pauses == [90]
    assert matrix[Cell("rate_limit, long", True, True)].pauses == []
    [pause] = matrix[Cell("unavailable", False, True)].pauses
    assert 0.25 <= pause <= 0.5


def test_every_cause_is_in_the_matrix() -> None:
    assert {cell.cause for cell in CELLS} == {cause.name for cause in CAUSES}


async def test_a_model_that_was_full_is_asked_again_before_a_call_fails(
    tmp_path: Path, true_provider: TrueProvider
) -> None:
    """The first was left for the next at once; the next cannot answer, so the first is waited for after all."""
    asked: Counter[str] = Counter()

    def faults(body: dict[str, Any], _: int) -> Fault | None:
        asked[body["model"]] += 1
        if body["model"] == "down":
            return Fault("server_error")
        return Fault("overloaded") if asked["full"] < TWICE else None

    async def at_once(_: float) -> None:
        await asyncio.sleep(0)

    true_provider.behaviour = Behaviour(faults=faults)
    models = {name: model_of(true_provider, model=name, retries=RETRIES) for name in ("full", "down")}
    async with opened(write_config(tmp_path, models), sleep=at_once) as runtime:
        run = await runtime.run(fan_out(1), {"question": QUESTION}, tenant="acme")
        attempts = runtime.ledger.reports.bill(run.id).attempts
    assert run.status == "succeeded", run.stop_reason
    assert asked == {"full": TWICE, "down": TWICE}
    assert [attempt.model for attempt in attempts] == ["full", "down", "down", "full"]
