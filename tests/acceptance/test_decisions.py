"""A person decides once: what was decided is what happens, and it happens once, wherever the run goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bursar.agents import Agent
from bursar.budget import Limits
from bursar.budget.errors import ConflictError, UsageError
from bursar.runtime import Runtime
from bursar.runtime.runs.run import Run
from bursar.tools import tool
from tests.acceptance.support import QUESTION, opened, write_config
from tests.support.provider import Answer, Behaviour, TrueProvider


class Desk:
    """A tool that a person must approve, what it did, and what the model was told of it."""

    def __init__(self, calls: int = 1) -> None:
        self.calls = calls
        self.paid: list[tuple[str, int]] = []
        self.told: list[str] = []

        @tool(effect="irreversible", approval="always")
        async def refund(order_id: str, amount_usd: int) -> str:
            """Pay an order back."""
            self.paid.append((order_id, amount_usd))
            return f"paid {amount_usd} for {order_id}"

        self.agent = Agent(name="support", instructions="Settle refunds.", tools=[refund])

    def script(self, body: dict[str, Any], _: int) -> Answer:
        """Asks for every refund at once, then is done."""
        self.told = [message["content"] for message in body["messages"] if message["role"] == "tool"]
        if self.told:
            return Answer(text="Settled.")
        return Answer(tool_calls=[("refund", {"order_id": str(n), "amount_usd": 10 + n}) for n in range(self.calls)])


@pytest.fixture
def config(tmp_path: Path, true_provider: TrueProvider) -> Path:
    return write_config(tmp_path, true_provider)


@pytest.fixture
async def runtime(config: Path) -> AsyncIterator[Runtime]:
    async with opened(config) as runtime:
        yield runtime


async def asked(runtime: Runtime, provider: TrueProvider, desk: Desk) -> Run:
    """A run that waits for its approvals."""
    provider.behaviour = Behaviour(script=desk.script)
    run = await runtime.run(desk.agent, QUESTION, tenant="acme")
    assert run.status == "interrupted"
    assert len(run.interrupts) == desk.calls
    assert not desk.paid
    return run


async def test_an_approved_call_is_made_as_it_was_shown(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk()
    run = await asked(runtime, true_provider, desk)
    assert run.interrupts[0].payload["args"] == {"order_id": "0", "amount_usd": 10}
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "approve"}}, by="dana")
    assert (run.status, desk.paid, desk.told) == ("succeeded", [("0", 10)], ["paid 10 for 0"])
    assert true_provider.bill.calls == run.steps == 2


async def test_a_rejection_is_told_to_the_model_and_the_tool_never_runs(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk()
    run = await asked(runtime, true_provider, desk)
    decision = {"type": "reject", "message": "it was delivered"}
    run = await runtime.resume(run.id, {run.interrupts[0].id: decision})
    assert run.status == "succeeded"
    assert desk.paid == []
    assert "rejected" in desk.told[0]
    assert "it was delivered" in desk.told[0]
    assert run.spent.tool_calls == 0


async def test_a_response_stands_in_for_the_tools_result(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk()
    run = await asked(runtime, true_provider, desk)
    run = await runtime.resume(run.id, {run.interrupts[0].id: {"type": "respond", "message": "paid by hand"}})
    assert (run.status, desk.paid, desk.told) == ("succeeded", [], ["paid by hand"])


@pytest.mark.parametrize(
    "args",
    [{"order_id": "0"}, {"order_id": "0", "amount_usd": "much"}, {"order_id": "0", "amount_usd": 1, "to": "me"}, None],
)
async def test_an_edit_must_fit_the_tools_schema(args: Any, runtime: Runtime, true_provider: TrueProvider) -> None:
    """What does not fit is refused, and the call still waits."""
    desk = Desk()
    run = await asked(runtime, true_provider, desk)
    with pytest.raises(UsageError, match="refund"):
        await runtime.resume(run.id, {run.interrupts[0].id: {"type": "edit", "args": args}})
    again = await runtime.get(run.id)
    assert (again.status, again.interrupts, desk.paid) == ("interrupted", run.interrupts, [])


async def test_an_edited_call_is_made_as_it_was_edited(runtime: Runtime, true_provider: TrueProvider) -> None:
    desk = Desk()
    run = await asked(runtime, true_provider, desk)
    edit = {"type": "edit", "args": {"order_id": "0", "amount_usd": 5}}
    run = await runtime.resume(run.id, {run.interrupts[0].id: edit})
    assert (run.status, desk.paid) == ("succeeded", [("0", 5)])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
async def test_each_of_several_calls_is_decided_on_its_own(
    order: Sequence[int], runtime: Runtime, true_provider: TrueProvider
) -> None:
    """In any order; those not decided yet go on waiting, and none is made twice."""
    desk = Desk(calls=3)
    run = await asked(runtime, true_provider, desk)
    by_order = {question.payload["args"]["order_id"]: question.id for question in run.interrupts}
    for done, number in enumerate(order, start=1):
        decision = {"type": "reject"} if number == 1 else {"type": "approve"}
        run = await runtime.resume(run.id, {by_order[str(number)]: decision})
        assert len(run.interrupts) == 3 - done
        assert len(desk.paid) == len(set(order[:done]) - {1})
    assert run.status == "succeeded"
    assert sorted(desk.paid) == [("0", 10), ("2", 12)]
    assert ["rejected" in told for told in desk.told] == [False, True, False]
    assert true_provider.bill.calls == 2


async def test_a_question_is_answered_once(runtime: Runtime, true_provider: TrueProvider) -> None:
    """The id of an answered question decides nothing any more."""
    desk = Desk(calls=2)
    run = await asked(runtime, true_provider, desk)
    first, second = run.interrupts
    await runtime.resume(run.id, {first.id: {"type": "reject"}})
    with pytest.raises(ConflictError, match="was decided by caller"):
        await runtime.resume(run.id, {first.id: {"type": "approve"}})
    await runtime.resume(run.id, {second.id: {"type": "approve"}})
    assert len(desk.paid) == 1
    with pytest.raises(ConflictError):
        await runtime.resume(run.id, {second.id: {"type": "approve"}})
    assert len(desk.paid) == 1


async def test_a_run_that_waits_says_so_when_it_is_resumed_without_a_decision(
    runtime: Runtime, true_provider: TrueProvider
) -> None:
    desk = Desk()
    run = await asked(runtime, true_provider, desk)
    with pytest.raises(UsageError, match="waits"):
        await runtime.resume(run.id)
    assert (await runtime.get(run.id)).interrupts == run.interrupts


@pytest.mark.parametrize("places", ["one runtime", "two runtimes"])
async def test_of_many_who_decide_at_once_one_wins(places: str, config: Path, true_provider: TrueProvider) -> None:
    """The others are told; the tool acts once, as the winner said, and nothing is paid twice."""
    desk = Desk()
    async with Runtime.open(config) as one, Runtime.open(config) as two:
        run = await asked(one, true_provider, desk)
        runtimes = [one, two if places == "two runtimes" else one]
        decisions = [{"type": "edit", "args": {"order_id": "0", "amount_usd": amount}} for amount in range(8)]
        ended = await asyncio.gather(
            *(
                runtimes[place % 2].resume(run.id, {run.interrupts[0].id: decision}, source=desk.agent)
                for place, decision in enumerate(decisions)
            ),
            return_exceptions=True,
        )
    won = [place for place, end in enumerate(ended) if isinstance(end, Run)]
    assert len(won) == 1
    assert all(isinstance(end, ConflictError) for place, end in enumerate(ended) if place not in won), ended
    assert desk.paid == [("0", won[0])]
    assert true_provider.bill.calls == 2


async def test_a_decision_on_what_has_changed_meanwhile_is_refused(
    config: Path, true_provider: TrueProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody decides; while that is on its way, somebody else decides and the run goes on, to its next question."""
    desk = Desk(calls=2)
    async with Runtime.open(config) as one, Runtime.open(config) as two:
        run = await asked(one, true_provider, desk)
        first, second = run.interrupts
        take, done = two._engine.resume, asyncio.Event()

        async def late(*args: Any) -> Run:
            await done.wait()
            return await take(*args)

        monkeypatch.setattr(two._engine, "resume", late)
        stale = asyncio.ensure_future(two.resume(run.id, {first.id: {"type": "approve"}}, source=desk.agent))
        await one.resume(run.id, {first.id: {"type": "reject"}})
        done.set()
        with pytest.raises(ConflictError, match="was decided by caller"):
            await stale
        run = await one.resume(run.id, {second.id: {"type": "approve"}})
    assert (run.status, desk.paid) == ("succeeded", [("1", 11)])


@pytest.mark.parametrize("places", ["one runtime", "two runtimes"])
async def test_of_many_who_grant_at_once_one_wins(places: str, config: Path, true_provider: TrueProvider) -> None:
    """More is granted once."""
    desk = Desk()
    true_provider.behaviour = Behaviour(script=desk.script)
    async with Runtime.open(config) as one, Runtime.open(config) as two:
        limits = Limits(steps=0)
        run = await one.run(desk.agent, QUESTION, tenant="acme", limits=limits, on_limit="escalate")
        runtimes = [one, two if places == "two runtimes" else one]
        grant = {run.interrupts[0].id: {"type": "grant", "steps": 1}}
        ended = await asyncio.gather(
            *(runtimes[place % 2].resume(run.id, grant, source=desk.agent) for place in range(8)),
            return_exceptions=True,
        )
        assert sorted(type(end).__name__ for end in ended) == ["ConflictError"] * 7 + ["Run"]
        assert one.ledger.reports.bill(run.id).limit["steps"] == 1
    assert true_provider.bill.calls == 1
