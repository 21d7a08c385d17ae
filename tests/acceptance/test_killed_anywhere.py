"""A run that is killed anywhere is finished by another process: nothing is lost, paid, done or decided twice.

A few runs at every boundary in any test run, on either store; `BURSAR_KILLS=200` kills two hundred at each.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import func, select

from bursar.budget.ledger import Ledger
from bursar.budget.reports.report import Attempt
from bursar.budget.schema import account, grant, pot
from bursar.runtime.config import load_config
from bursar.runtime.opening import open_ledger
from bursar.runtime.runs.run import Run
from bursar.runtime.runs.schema import escalation, escalation_event
from tests.acceptance.crash_boundaries import BOUNDARIES
from tests.acceptance.crash_worker import GRANTED, WARM_UP, cases
from tests.acceptance.crash_works import EFFECTS, WORKS, Effect, Script, Work
from tests.acceptance.support import INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK, write_config
from tests.support.processes import Child
from tests.support.provider import Behaviour, Billed, TrueProvider

TRIALS = {store: int(os.environ.get("BURSAR_KILLS", few)) for store, few in (("sqlite", 2), ("postgresql", 1))}
"""At each boundary."""

TIME_S = 120 + max(TRIALS.values()) * len(BOUNDARIES)

pytestmark = pytest.mark.timeout(TIME_S)  # the first test waits for hundreds of processes

LEASE_S = 2.0  # longer than a busy machine lets a process wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run that was killed once and has ended."""

    label: str
    work: Work
    cut_off: bool
    """Whether a model call was in flight."""

    run: Run
    model_calls: Sequence[Attempt]
    held: bool
    billed: Sequence[Billed]
    effects: Sequence[Effect]
    decided: Sequence[int]
    """How often each of its escalations was decided."""

    granted: int
    """Steps."""


@pytest.fixture(scope="module", params=TRIALS)
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sequence[Trial]]:
    """Every boundary, on each store in turn."""
    folder, number = tmp_path_factory.mktemp("killed"), TRIALS[request.param]
    script, file = Script(), folder / "effects.txt"
    file.touch()
    with ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv(EFFECTS, str(file))
        sections: dict[str, Any] = {"tenants": {name: {} for name in (*BOUNDARIES, WARM_UP)}, "lease_s": LEASE_S}
        if request.param == "postgresql":
            server = request.getfixturevalue("postgres")
            sections["database"] = server.url(stack.enter_context(server.database()))
        provider = stack.enter_context(TrueProvider(Behaviour(script=script)))
        config = write_config(folder, provider, **sections)
        with Child("-m", "tests.acceptance.crash_worker", config, str(number)) as child:
            assert child.wait(timeout_s=TIME_S) == 0, child.stderr
        billed = defaultdict(list)
        for label, entry in zip(script.labels, provider.bill.entries, strict=True):
            billed[label].append(entry)
        ledger, records = open_ledger(load_config(config))
        stack.callback(ledger.close)
        runs = [run for tenant in BOUNDARIES for run in records.ls(tenant=tenant, limit=10 * number)]
        done = [Effect(*line.split()) for line in file.read_text().splitlines()]
        yield [_trial(ledger, run, billed, done) for run in runs]


def _trial(ledger: Ledger, run: Run, billed: Mapping[str, Sequence[Billed]], done: Sequence[Effect]) -> Trial:
    label = (run.output or "-").removeprefix("<").split()[0]
    bill = ledger.reports.bill(run.id)
    decisions = select(escalation_event.c.escalation_id).join(
        escalation, escalation.c.id == escalation_event.c.escalation_id
    )
    grants = (
        select(func.sum(grant.c.amount_steps))
        .select_from(grant)
        .join(account, grant.c.account_id == account.c.id)
        .join(pot)
    )
    with ledger.store.read() as connection:
        of_run = (escalation.c.run_id == run.id, escalation_event.c.kind == "decided")
        decided = Counter(connection.execute(decisions.where(*of_run)).scalars())
        granted = connection.execute(grants.where(pot.c.path == f"{run.tenant}/{run.agent}/{run.id}")).scalar()
    return Trial(
        label=label,
        work=WORKS[run.agent],
        cut_off=BOUNDARIES[run.tenant].cuts_off,
        run=run,
        model_calls=[attempt for attempt in bill.attempts if attempt.kind == "model"],
        held=bool(bill.held),
        billed=billed[label],
        effects=[effect for effect in done if effect.line.startswith(f"{label}/")],
        decided=list(decided.values()),
        granted=int(granted or 0),
    )


def _cost(billed: Sequence[Billed]) -> int:
    return sum(entry.nanousd(INPUT_USD_PER_MTOK, OUTPUT_USD_PER_MTOK) for entry in billed)


def _by_outcome(trial: Trial) -> tuple[list[Attempt], list[Attempt]]:
    known, unknown = (
        [attempt for attempt in trial.model_calls if attempt.outcome == outcome] for outcome in ("exact", "unknown")
    )
    return known, unknown


def test_no_run_is_lost(trials: Sequence[Trial], request: pytest.FixtureRequest) -> None:
    """Each run that was begun succeeds, with the answer that it would have given anyway."""
    store = request.node.callspec.params["trials"]
    assert sorted(trial.label for trial in trials) == sorted(cases(TRIALS[store]))
    assert {(trial.run.status, trial.run.stop_reason) for trial in trials} == {
        ("succeeded", "the agent gave its answer")
    }
    answers = {(trial.run.agent, str(trial.run.output).replace(trial.label, "")) for trial in trials}
    assert len(answers) == len(WORKS)


def test_no_call_is_paid_twice(trials: Sequence[Trial]) -> None:
    """What was sent a second time had been cut off before its reply was kept."""
    for trial in trials:
        known, unknown = _by_outcome(trial)
        assert len({attempt.call for attempt in known}) == len(known) == trial.work.model_calls, trial.label
        assert len(known) <= len(trial.billed) <= len(known) + len(unknown), trial.label
        assert trial.cut_off <= len(unknown) <= trial.work.in_flight_max, trial.label


def test_the_ledger_is_the_bill_and_what_is_unknown(trials: Sequence[Trial]) -> None:
    """Each known charge is one of the bill's; together with the unknown ones they cover all of it; nothing is held."""
    for trial in trials:
        known, unknown = _by_outcome(trial)
        posted, billed = [attempt.posted.nanousd for attempt in known], _cost(trial.billed)
        assert Counter(posted) <= Counter(_cost([entry]) for entry in trial.billed)
        assert sum(posted) + sum(attempt.posted.nanousd for attempt in unknown) == trial.run.spent.nanousd
        assert billed <= trial.run.spent.nanousd, trial.label
        assert billed == trial.run.spent.nanousd or unknown, trial.label
        assert not trial.held, trial.label


def test_no_effect_is_executed_twice(trials: Sequence[Trial]) -> None:
    """Each happened once, under a key of its own, and was charged once."""
    for trial in trials:
        assert len({effect.line for effect in trial.effects}) == len(trial.effects) == trial.work.tool_calls, trial
        assert len({effect.key for effect in trial.effects}) == trial.work.tool_calls, trial.label
        assert trial.run.spent.tool_calls == trial.work.tool_calls, trial.label


def test_no_decision_is_applied_twice(trials: Sequence[Trial]) -> None:
    """Each escalation was decided once, and what was granted was granted once."""
    for trial in trials:
        assert set(trial.decided) <= {1}, trial.label
        assert len(trial.decided) >= trial.work.asks, trial.label
        assert trial.granted == (GRANTED if trial.run.agent == "poor" else 0), trial.label
