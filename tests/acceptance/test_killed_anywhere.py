"""A run that is killed anywhere goes on in a new process, and no settled call is paid again.

A hundred runs in any test run, at every occasion of every boundary; `BURSAR_SCHEDULES=nightly` kills four hundred.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from bursar.budget.ledger import Ledger
from bursar.budget.reports.report import Attempt
from bursar.runtime.config import load_config
from bursar.runtime.opening import open_ledger
from bursar.runtime.runs.run import Run
from tests.acceptance.crash_worker import NOTES, WARM_UP, WORKS
from tests.acceptance.support import INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK, write_config
from tests.support.processes import Child
from tests.support.provider import Answer, Behaviour, Billed, TrueProvider

pytestmark = pytest.mark.timeout(600)  # the first test waits for hundreds of processes

LEASE_S = 0.3

MODEL_CALLS = {"agent": 3, "graph": 5, "signer": 3}
TOOL_CALLS = {"agent": 3, "graph": 0, "signer": 3}
IN_FLIGHT_MAX = {"agent": 1, "graph": 2, "signer": 1}


class Script:
    """Answers by the conversation alone, and remembers for which run each answer was."""

    def __init__(self) -> None:
        self.labels: list[str] = []

    def __call__(self, body: dict[str, Any], _: int) -> Answer:
        said = next(message["content"] for message in body["messages"] if message["role"] == "user")
        label = said.split()[0]
        self.labels.append(label)
        if not body.get("tools"):
            return Answer(text=f"<{said}>")
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        lines: Sequence[Sequence[str]] = [("a", "b"), ("c",), ()]
        tool = body["tools"][0 if turn == 0 else -1]["function"]["name"]
        calls = [(tool, {"line": f"{label}/{line}"}) for line in lines[turn]]
        return Answer(tool_calls=calls) if calls else Answer(text=f"{label} is written down.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """What is left when every run of one work was killed once and has ended."""

    work: str
    ledger: Ledger
    runs: Mapping[str, Run]
    """By what each was given: what it was and where it was killed, and the number of the trial."""

    billed: Mapping[str, Sequence[Billed]]
    """What the provider charges for each of them."""

    notes: Counter[str]
    """How often the tool was executed for each line."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    """Every work at every boundary, many times each."""
    folder = tmp_path_factory.mktemp("killed")
    tenants = [f"{name}.{kind}" for name, work in WORKS.items() for kind in work.boundaries]
    script, notes = Script(), folder / "notes.txt"
    notes.touch()
    with TrueProvider(Behaviour(script=script)) as provider:
        config = write_config(folder, provider, tenants={name: {} for name in (*tenants, WARM_UP)}, lease_s=LEASE_S)
        with Child("-m", "tests.acceptance.crash_worker", config, env={NOTES: str(notes)}) as child:
            assert child.wait(timeout_s=580) == 0, child.stderr
        billed = defaultdict(list)
        for label, entry in zip(script.labels, provider.bill.entries, strict=True):
            billed[label].append(entry)
    ledger, records = open_ledger(load_config(config))
    runs = {_label(run): run for tenant in tenants for run in records.ls(tenant=tenant)}
    lines = Counter(notes.read_text().split())
    yield Aftermath(work="", ledger=ledger, runs=runs, billed=billed, notes=lines)
    ledger.close()


@pytest.fixture(params=WORKS)
def aftermath(request: pytest.FixtureRequest, killed: Aftermath) -> Aftermath:
    """What concerns one work."""
    runs = {label: run for label, run in killed.runs.items() if label.startswith(f"{request.param}.")}
    return replace(killed, work=request.param, runs=runs)


def _label(run: Run) -> str:
    return (run.output or "-").removeprefix("<").split()[0]


def _cost(billed: Sequence[Billed]) -> int:
    return sum(entry.nanousd(INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK) for entry in billed)


def _model_calls(aftermath: Aftermath, run: Run, outcome: str) -> list[Attempt]:
    attempts = aftermath.ledger.reports.bill(run.id).attempts
    return [attempt for attempt in attempts if attempt.kind == "model" and attempt.outcome == outcome]


def test_it_ends_as_if_nothing_had_happened(aftermath: Aftermath) -> None:
    """Each run succeeds, with the answer that it would have given anyway."""
    work = WORKS[aftermath.work]
    assert aftermath.runs.keys() == {
        f"{aftermath.work}.{kind}/{trial}"
        for kind, boundary in work.boundaries.items()
        for trial in range(boundary.trials)
    }
    assert {run.status for run in aftermath.runs.values()} == {"succeeded"}
    assert len({str(run.output).replace(label, "") for label, run in aftermath.runs.items()}) == 1


def test_no_settled_call_is_sent_again(aftermath: Aftermath) -> None:
    """What was sent a second time had been cut off before its reply was kept."""
    for label, run in aftermath.runs.items():
        known, unknown = (_model_calls(aftermath, run, outcome) for outcome in ("exact", "unknown"))
        assert len({attempt.call for attempt in known}) == len(known) == MODEL_CALLS[aftermath.work], label
        assert len(known) <= len(aftermath.billed[label]) <= len(known) + len(unknown), label
        cut_off = any(kind in label for kind in ("after-dispatch", "after-the-reply"))
        assert cut_off <= len(unknown) <= IN_FLIGHT_MAX[aftermath.work], label


def test_the_ledger_is_the_bill_and_what_is_unknown(aftermath: Aftermath) -> None:
    """Each known charge is one of the bill's; together with the unknown ones they cover all of it; nothing is held."""
    for label, run in aftermath.runs.items():
        billed, bill = aftermath.billed[label], aftermath.ledger.reports.bill(run.id)
        known, unknown = (_model_calls(aftermath, run, outcome) for outcome in ("exact", "unknown"))
        assert Counter(attempt.posted.nanousd for attempt in known) <= Counter(_cost([entry]) for entry in billed)
        assert sum(attempt.posted.nanousd for attempt in known + unknown) == bill.posted.nanousd == run.spent.nanousd
        assert _cost(billed) <= bill.posted.nanousd, label
        assert _cost(billed) == bill.posted.nanousd or unknown, label
        assert not bill.held, label


def test_each_tool_call_is_executed_and_charged_once(aftermath: Aftermath) -> None:
    """None of these moments lies between a tool's effect and its checkpoint."""
    for label, run in aftermath.runs.items():
        lines = {line: times for line, times in aftermath.notes.items() if line.startswith(f"{label}/")}
        assert len(lines) == sum(lines.values()) == run.spent.tool_calls == TOOL_CALLS[aftermath.work], label
