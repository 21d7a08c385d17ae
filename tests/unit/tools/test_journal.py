"""What a tool is about to do is written down before it acts, once, and only for a run that may go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import count

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from bursar.budget import Ledger, Limits, Store
from bursar.budget.refusal import Refusal
from bursar.budget.reservations import Call
from bursar.budget.scope import Scope
from bursar.budget.stores.migrate import migrate
from bursar.budget.testing.plain import Clock
from bursar.tools.effect_table import MIGRATIONS, effect, metadata
from bursar.tools.journal import Done, EffectId, EffectJournal, Fresh, InDoubt
from bursar.tools.result import ToolResult
from tests.support.ledger import new_store

IN_DOUBT = InDoubt("run_1:task::0:tool", "a", asked=False)
ASKED = InDoubt("run_1:task::0:tool", "a", asked=True)
PAID = ToolResult("paid \N{EURO SIGN}10\0")


def opened(ledger: Ledger, run_id: str) -> Call:
    """A call of a tool in a new run, which is held here."""
    call = refund(run_id)
    ledger.gates.open(call.scope, Limits.unlimited())
    ledger.gates.hold(call.scope.run_path, "here", 60)
    return call


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, Iterator[int]]]:
    """A ledger, and numbers for runs that it has not had."""
    with closing(new_store(tmp_path_factory.mktemp("journal"))) as store:
        migrate(store, scripts=MIGRATIONS, version_table="bursar_effects_version")
        yield Ledger(store, clock=Clock()), count()


@pytest.fixture
def ledger(store_url: str) -> Iterator[Ledger]:
    with closing(Store(store_url)) as store:
        migrate(store, scripts=MIGRATIONS, version_table="bursar_effects_version")
        ledger = Ledger(store, clock=Clock())
        for run_id in ("run_1", "run_2"):
            opened(ledger, run_id)
        yield ledger
        with store.write() as connection:
            connection.execute(delete(effect))


@pytest.fixture
def journal(ledger: Ledger) -> EffectJournal:
    return EffectJournal(ledger.store, Clock())


def refund(run_id: str = "run_1", *, epoch: int = 1, digest: str = "d1", task: str = "task") -> Call:
    scope = Scope(tenant="acme", agents=("support",), run_id=run_id)
    return Call(id=f"{run_id}:{task}::0:tool", scope=scope, epoch=epoch, node="tool", digest=digest)


ITS = EffectId.of(refund())


def state(journal: EffectJournal, run_id: str = "run_1") -> str:
    [entry] = journal.ls(run_id)
    return entry.state


def test_the_migration_makes_the_table_as_it_is_declared(ledger: Ledger) -> None:
    with ledger.store.read() as connection:
        context = MigrationContext.configure(connection)
        changes = [change for change in compare_metadata(context, metadata) if "effect" in repr(change)]
        assert [change for change in changes if change[0] != "remove_table"] == []


def test_a_first_beginning_is_fresh_and_names_its_key(journal: EffectJournal) -> None:
    assert journal.begin(refund(), "refund", attempt="a") == Fresh("run_1:task::0:tool")
    assert state(journal) == "intent"


def test_the_same_beginning_is_fresh_again(journal: EffectJournal) -> None:
    """A commit that was cut off is done again by the one who made it."""
    first = journal.begin(refund(), "refund", attempt="a")
    assert journal.begin(refund(), "refund", attempt="a") == first


def test_another_beginning_of_what_has_not_ended_is_in_doubt(journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    assert journal.begin(refund(), "refund", attempt="b") == IN_DOUBT


def test_what_is_done_is_not_done_again_and_its_result_is_kept(journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    assert journal.finish(ITS, PAID, attempt="a")
    assert journal.begin(refund(), "refund", attempt="b") == Done(PAID)
    [entry] = journal.ls("run_1", tenant="acme")
    assert (entry.tool, entry.result, entry.settled_by) == ("refund", PAID, "tool")
    assert journal.ls("run_1", tenant="other") == []


def test_only_the_attempt_that_acts_says_how_it_ended(journal: EffectJournal) -> None:
    """One that a person took for dead, and that was begun anew, writes nothing when it ends after all."""
    journal.begin(refund(), "refund", attempt="a")
    journal.settle(ITS, IN_DOUBT, result=None, by="check")
    assert isinstance(journal.begin(refund(), "refund", attempt="b"), Fresh)
    assert not journal.finish(ITS, PAID, attempt="a")
    assert state(journal) == "intent"


def test_what_ends_before_it_is_begun_anew_is_done_after_all(journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    journal.doubt(ITS, attempt="a")
    journal.settle(ITS, ASKED, result=None, by="dana")
    assert journal.finish(ITS, PAID, attempt="a")
    assert journal.begin(refund(), "refund", attempt="b") == Done(PAID)


@pytest.mark.parametrize("happened", [True, False])
def test_a_person_settles_a_doubt_once(happened: bool, journal: EffectJournal) -> None:
    """And what is asked of a person is no more the check's to settle."""
    journal.begin(refund(), "refund", attempt="a")
    journal.doubt(ITS, attempt="a")
    assert journal.begin(refund(), "refund", attempt="b") == ASKED
    assert not journal.settle(ITS, IN_DOUBT, result=PAID, by="check")
    assert journal.settle(ITS, ASKED, result=PAID if happened else None, by="dana")
    assert not journal.settle(ITS, ASKED, result=None if happened else PAID, by="eve")
    again = journal.begin(refund(), "refund", attempt="b")
    assert again == (Done(PAID) if happened else Fresh("run_1:task::0:tool"))


def test_an_answer_settles_one_doubt_only(journal: EffectJournal) -> None:
    """A call that is cut off once more is a new doubt."""
    journal.begin(refund(), "refund", attempt="a")
    journal.doubt(ITS, attempt="a")
    journal.settle(ITS, ASKED, result=None, by="dana")
    journal.begin(refund(), "refund", attempt="b")
    assert journal.begin(refund(), "refund", attempt="c") == InDoubt("run_1:task::0:tool", "b", asked=False)
    journal.doubt(ITS, attempt="b")
    assert not journal.settle(ITS, ASKED, result=None, by="dana")


def test_what_surely_did_not_happen_is_begun_anew(journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    journal.withdraw(ITS, attempt="a")
    assert state(journal) == "not_done"
    assert isinstance(journal.begin(refund(), "refund", attempt="b"), Fresh)


def test_what_is_done_is_not_withdrawn(journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    journal.finish(ITS, PAID, attempt="a")
    journal.withdraw(ITS, attempt="a")
    assert state(journal) == "done"


def test_a_worker_that_lost_its_run_begins_nothing(ledger: Ledger, journal: EffectJournal) -> None:
    ledger.gates.let_go("acme/support/run_1", 1)
    ledger.gates.hold("acme/support/run_1", "elsewhere", 60)
    refused = journal.begin(refund(epoch=1), "refund", attempt="a")
    assert isinstance(refused, Refusal)
    assert refused.cause == "fenced"
    assert journal.ls("run_1") == []
    assert isinstance(journal.begin(refund(epoch=2), "refund", attempt="b"), Fresh)


def test_a_cancelled_run_begins_nothing_and_still_hears_what_it_did(ledger: Ledger, journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    journal.finish(ITS, PAID, attempt="a")
    ledger.gates.cancel("acme/support/run_1", author="dana")
    refused = journal.begin(refund(task="next"), "refund", attempt="b")
    assert isinstance(refused, Refusal)
    assert refused.cause == "cancelled"
    assert journal.begin(refund(), "refund", attempt="b") == Done(PAID)


@pytest.mark.parametrize("ended", [True, False])
def test_a_fork_does_not_repeat_what_its_source_did(ended: bool, journal: EffectJournal) -> None:
    """Nor what its source may have done; it goes by the key that the tool was given then."""
    journal.begin(refund(), "refund", attempt="a")
    if ended:
        journal.finish(ITS, PAID, attempt="a")
    forked = journal.begin(refund("run_2"), "refund", attempt="b", forked_from=["run_1"])
    assert forked == (Done(PAID) if ended else IN_DOUBT)
    assert journal.begin(refund("run_2"), "refund", attempt="c", forked_from=["run_1"]) == forked


def test_a_fork_that_asks_for_something_else_is_free_to_do_it(journal: EffectJournal) -> None:
    journal.begin(refund(), "refund", attempt="a")
    journal.finish(ITS, PAID, attempt="a")
    other = refund("run_2", digest="d2")
    assert journal.begin(other, "refund", attempt="b", forked_from=["run_1"]) == Fresh("run_2:task::0:tool")


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["begin", "ends", "goes away", "check: no", "doubt", "person: no"]), max_size=12))
def test_whatever_happens_a_call_is_let_act_again_only_where_somebody_said_that_it_did_not_happen(
    steps: list[str], empty: tuple[Ledger, Iterator[int]]
) -> None:
    """And never after it has ended."""
    ledger, numbers = empty
    journal, number = EffectJournal(ledger.store, Clock()), next(numbers)
    call = opened(ledger, f"run_{number}")
    its, acting, ended, said_no = EffectId.of(call), "", False, True
    for attempt, step in enumerate(map(str, steps)):
        asked = InDoubt(":".join(its[1:]), acting, asked=step.startswith("person"))
        match step:
            case "begin":
                begun = journal.begin(call, "refund", attempt=str(attempt))
                assert isinstance(begun, Fresh) == (said_no and not ended)
                assert isinstance(begun, Done) == ended
                if isinstance(begun, Fresh):
                    acting, said_no = str(attempt), False
            case "ends":
                ended |= journal.finish(its, PAID, attempt=acting)
            case "goes away":
                journal.withdraw(its, attempt=acting)
                said_no |= bool(acting)
            case "doubt":
                journal.doubt(its, attempt=acting)
            case _:
                said_no |= journal.settle(its, asked, result=None, by="dana")
