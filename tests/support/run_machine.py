"""Schedules of all that may be done to runs, by two processes that die and two people who decide, and what must hold.

Nothing is predicted: after each step the store is held against what was seen from outside, the provider's bill and what
the tools did; at the end a new process has to finish every run that was ever accepted.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from sqlalchemy import select

from bursar.agents import Agent
from bursar.budget import Limits, Store
from bursar.budget.errors import BursarError
from bursar.budget.schema import reservation
from bursar.budget.testing import Clock, audit, excesses
from bursar.budget.windows import to_us
from bursar.runtime import Runtime
from bursar.runtime.escalations.digest import action_digest
from bursar.runtime.escalations.escalations import Escalations
from bursar.runtime.models.provider import ModelRequest
from bursar.runtime.runs.schema import escalation, escalation_event, run
from bursar.tools import idempotency_key, tool
from tests.support.run_world import Died, Process, World, act, was_done

__all__ = ["CONFIG", "RunMachine", "answers"]

CONFIG = """
database: {database}
models:
  demo:
    provider: sim
    scenario: {scenario}
    price: {{input_usd_per_mtok: "1", output_usd_per_mtok: "100"}}
tiers: {{small: [demo]}}
lease_s: 10
tenants:
  acme:
    people: &people {{dana: {{}}, eli: {{}}}}
    escalations: {{rules: [{{levels: [{{people: [dana, eli], within: 1h}}], on_expiry: reject}}]}}
  north:
    people: *people
    escalations:
      rules: [{{levels: [{{people: [dana], within: 1h}}, {{people: [eli], within: 1h}}], on_expiry: escalate}}]
"""

PEOPLE = ["dana", "eli"]
LEASE_S = 10.0
ENDED = {"succeeded", "stopped", "failed", "cancelled"}
IN, OUT = 1_000, 100_000
"""Nano-USD for a token."""
ROUNDS_MAX = 30
STEP_S_MAX = 10


@tool(effect="none")
async def look(label: str, line: str) -> str:
    """Read something; that may be done again."""
    return f"nothing at {line}"


@tool(effect="irreversible", approval="never", check=was_done)
async def note(label: str, line: str) -> str:
    """Write a line; in doubt it looks for itself."""
    return act("note", label, line, idempotency_key())


@tool(effect="irreversible", approval="always")
async def pay(label: str, line: str) -> str:
    """Pay, once a person has approved; in doubt, a person says whether it was done."""
    return act("pay", label, line, idempotency_key())


AGENT = Agent(name="clerk", instructions="Do it.", tools=[look, note, pay], final_output_tokens=16)


def answers(request: ModelRequest) -> dict[str, Any]:
    """Calls, turn after turn, the tools that the first message names: `r1 pay+note look`."""
    said = next(message["content"] for message in request.messages if message["role"] == "user")
    label, *turns = said.split()
    turn = sum(message["role"] == "assistant" for message in request.messages)
    if turn >= len(turns) or not request.tools:
        return {"text": f"{label} is done."}
    calls = [
        {"name": name, "arguments": {"label": label, "line": f"{turn}.{place}"}}
        for place, name in enumerate(turns[turn].split("+"))
    ]
    return {"tool_calls": calls}


turns = st.sampled_from(["look", "note", "pay", "pay+note", "pay+pay", "note+look"])
plans = st.lists(turns, min_size=1, max_size=3).map(" ".join)
fuses = st.none() | st.integers(0, 60)
"""How far a process comes before it dies, or that it does not."""

few = st.integers(0, 5)

What = Callable[[Process], Awaitable[None]]


class RunMachine(RuleBasedStateMachine):
    """Subclasses set `store`, an empty one of every room, and `config`, the file that names it."""

    store: Store
    config: Path

    @initialize(plans=st.lists(plans, min_size=1, max_size=2))
    def begin(self, plans: list[str]) -> None:
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda *_: None)  # what the dead leave behind
        self.clock = Clock()
        self.monotonic_s = 0.0
        self.world = World(self.clock)
        self.processes: list[Process | None] = [None, None]
        self.labels = 0
        self.accepted: set[str] = set()
        self.excess: dict[Any, int] = {}
        self.lowered = False
        for number, plan in enumerate(plans):
            self.start(0, "acme" if number else "north", plan, 5, "escalate", False, None)

    # --- What is done -------------------------------------------------------------------------------------------------

    @rule(
        place=st.integers(0, 1),
        tenant=st.sampled_from(["acme", "north"]),
        plan=plans,
        steps=st.integers(1, 6),
        on_limit=st.sampled_from(["stop", "finalize", "escalate"]),
        at_once=st.booleans(),
        fuse=fuses,
    )
    def start(
        self, place: int, tenant: str, plan: str, steps: int, on_limit: Any, at_once: bool, fuse: int | None
    ) -> None:
        self.labels += 1
        label = f"r{self.labels}"

        async def begin(process: Process) -> None:
            how: dict[str, Any] = {"tenant": tenant, "limits": Limits(steps=steps), "on_limit": on_limit}
            begun = process.runtime.run if at_once else process.runtime.submit
            self.accepted.add((await begun(AGENT, f"{label} {plan}", user=label, **how)).id)

        self.do(place, begin, fuse)

    @rule(place=st.integers(0, 1), fuse=fuses)
    def work(self, place: int, fuse: int | None) -> None:
        self.do(place, self._work, fuse)

    @rule(place=st.integers(0, 1), fuse=fuses)
    def take_over(self, place: int, fuse: int | None) -> None:
        self.do(place, self._take_over, fuse)

    @rule(fuse=st.tuples(fuses, fuses))
    def work_both(self, fuse: tuple[int | None, int | None]) -> None:
        self.do_both(lambda _: self._work, fuse)

    @rule(place=st.integers(0, 1))
    def crash(self, place: int) -> None:
        if (process := self.processes[place]) is not None:
            process.dead = True
            self.loop.run_until_complete(self._bury(place, process))

    @rule(
        place=st.integers(0, 1),
        number=few,
        by=st.sampled_from(PEOPLE),
        kind=st.sampled_from(
            ["approve", "approve", "edit", "reject", "respond", "grant", "grant", "stop", "downgrade"]
        ),
        stale=st.sampled_from([False, False, True]),
        fuse=fuses,
    )
    def decide(self, place: int, number: int, by: str, kind: str, stale: bool, fuse: int | None) -> None:
        """Any decision on any escalation, also one that is decided already, of this action or another."""
        rows = self.rows(
            select(escalation).order_by(escalation.c.status.desc(), escalation.c.id)
        )  # the open ones first
        if not rows:
            return
        asked = rows[number % len(rows)]
        decision: dict[str, Any] = {"type": kind}
        if kind == "edit":
            decision["args"] = {**json.loads(asked["payload"]).get("args", {}), "line": f"edited {asked['id']}"}
        if kind == "grant":
            decision["steps"] = 2
        if kind in ("reject", "respond"):
            decision["message"] = "because"
        if asked["reason"] == "in_doubt":
            decision = self.honest(asked)

        async def one(process: Process) -> None:
            digest = "0" * 64 if stale else asked["digest"]
            await process.runtime.escalations.decide(asked["id"], decision, by=by, digest=digest)

        self.do(place, one, fuse)

    @rule(number=few, kinds=st.tuples(*[st.sampled_from(["approve", "reject"])] * 2))
    def decide_both(self, number: int, kinds: tuple[str, str]) -> None:
        """Two people at once, in two processes."""
        rows = self.rows(select(escalation).where(escalation.c.status == "open", escalation.c.reason == "approval"))
        if not rows:
            return
        asked = rows[number % len(rows)]

        def one(place: int) -> What:
            async def decide(process: Process) -> None:
                await process.runtime.escalations.decide(asked["id"], {"type": kinds[place]}, by=PEOPLE[place])

            return decide

        self.do_both(one, (None, None))

    @rule(place=st.integers(0, 1), number=few, by=st.sampled_from(PEOPLE), release=st.booleans())
    def claim(self, place: int, number: int, by: str, release: bool) -> None:
        rows = self.rows(select(escalation.c.id).order_by(escalation.c.id.desc()))
        if rows:
            asked = rows[number % len(rows)]["id"]

            async def one(process: Process) -> None:
                room = process.runtime.escalations
                await (room.release if release else room.claim)(asked, by)

            self.do(place, one, None)

    @rule(place=st.integers(0, 1), number=few, seldom=st.integers(0, 2), fuse=fuses)
    def cancel(self, place: int, number: int, seldom: int, fuse: int | None) -> None:
        if not seldom:
            self.on_a_run(place, number, fuse, lambda runtime, run_id: runtime.cancel(run_id, by="ann"))

    @rule(
        place=st.integers(0, 1), number=few, change=st.sampled_from([1, 3, 8, "pause", "resume", "resume"]), fuse=fuses
    )
    def retune(self, place: int, number: int, change: int | str, fuse: int | None) -> None:
        how: dict[str, Any] = {change: True} if isinstance(change, str) else {"limits": Limits(steps=change)}
        self.lowered = isinstance(change, int)
        self.on_a_run(place, number, fuse, lambda runtime, run_id: runtime.retune(run_id, by="ann", **how))

    @rule(place=st.integers(0, 1), number=few, steps=st.integers(1, 6), fuse=fuses)
    def fork(self, place: int, number: int, steps: int, fuse: int | None) -> None:
        async def fork(runtime: Runtime, run_id: str) -> None:
            forked = await runtime.fork(run_id, by="ann", limits=Limits(steps=steps), source=AGENT)
            self.accepted.add(forked.id)

        self.on_a_run(place, number, fuse, fork)

    @rule(place=st.integers(0, 1), number=few, fuse=fuses)
    def resume(self, place: int, number: int, fuse: int | None) -> None:
        self.on_a_run(place, number, fuse, lambda runtime, run_id: runtime.resume(run_id, by="ann", source=AGENT))

    @rule(place=st.integers(0, 1), minutes=st.sampled_from([1, 20, 59, 61]))
    def wait(self, place: int, minutes: int) -> None:
        """Time goes by; then somebody looks at what is due."""
        self.clock.advance(minutes=minutes)
        self.do(place, self._due, None)

    # --- How it is done -----------------------------------------------------------------------------------------------

    def do(self, place: int, what: What, fuse: int | None) -> None:
        self.loop.run_until_complete(self._do(place, what, fuse))

    def do_both(self, what: Callable[[int], What], fuse: tuple[int | None, int | None]) -> None:
        async def both() -> None:
            await asyncio.gather(*(self._do(place, what(place), fuse[place]) for place in (0, 1)))

        self.loop.run_until_complete(both())

    async def _do(self, place: int, what: What, fuse: int | None) -> None:
        process = self.processes[place] or await self._started(place)
        process.fuse = fuse
        try:
            with process.here(), suppress(BursarError):  # it says what is wrong with what was asked
                async with asyncio.timeout(STEP_S_MAX):
                    await what(process)
            while process.runtime._engine._executing and not process.dead:  # noqa: ASYNC110 - it says nothing when it ends
                await asyncio.sleep(0)  # what it began by itself is ended, too: only a crash breaks anything off
        except Died:
            pass
        finally:
            process.fuse = None
            if process.dead:
                await self._bury(place, process)

    async def _started(self, place: int) -> Process:
        process = self.processes[place] = Process(self.world)
        await process.open(self.config, sources=[AGENT], monotonic=lambda: self.monotonic_s)
        return process

    async def _bury(self, place: int, process: Process) -> None:
        self.processes[place] = None
        await process.close()

    async def _work(self, process: Process) -> None:
        self.clock.advance(seconds=2 * LEASE_S)  # what somebody held who died before it was under way is free
        await process.worker.work(once=True)

    async def _take_over(self, process: Process) -> None:
        """Take up what is queued; then, a lease later, what the dead have left."""
        await self._work(process)
        for _ in range(4):  # a look each half of a lease: nobody is judged by a time without one
            self.monotonic_s += LEASE_S / 2
            await process.worker.work(once=True)

    async def _due(self, process: Process) -> None:
        room = Escalations(process.runtime.ledger, process.runtime.config, self.clock)
        await asyncio.to_thread(room.act_on_due)

    def on_a_run(
        self, place: int, number: int, fuse: int | None, what: Callable[[Runtime, str], Awaitable[Any]]
    ) -> None:
        rows = self.rows(select(run.c.id).order_by(run.c.created_us.desc(), run.c.id))
        if rows:
            self.do(place, lambda process: what(process.runtime, rows[number % len(rows)]["id"]), fuse)

    def honest(self, asked: Any) -> dict[str, Any]:
        """What somebody says who has looked whether it was done."""
        key = json.loads(asked["payload"])["idempotency_key"]
        if any(one.key == key for one in self.world.effects):
            return {"type": "respond", "message": "done"}
        return {"type": "approve"}

    def rows(self, query: Any) -> list[Any]:
        with self.store.read() as connection:
            return list(connection.execute(query).mappings().all())

    # --- What holds after every step ----------------------------------------------------------------------------------

    @invariant()
    def the_store_adds_up(self) -> None:
        audit(self.store)

    @invariant()
    def no_limit_is_exceeded(self) -> None:
        over = excesses(self.store)
        assert self.lowered or not {key for key, amount in over.items() if amount > self.excess.get(key, 0)}
        self.excess, self.lowered = over, False

    @invariant()
    def no_effect_happens_twice(self) -> None:
        """But where a run and its fork have inherited one doubt, and people told both that it did not happen."""
        told: Counter[str] = Counter()
        for row in self.rows(
            select(escalation).where(escalation.c.reason == "in_doubt", escalation.c.status == "decided")
        ):
            if json.loads(row["decision"])["type"] == "approve":
                told[json.loads(row["payload"])["idempotency_key"]] += 1
        for key, times in Counter(one.key for one in self.world.effects).items():
            assert times <= max(1, told[key]), key

    @invariant()
    def each_payment_has_an_approval_of_its_own(self) -> None:
        """Of exactly this payment, decided before it and in time; and no approval is used for two."""
        approved = self.approvals()
        for paid in self.world.effects:
            if paid.tool == "pay":
                digest = action_digest("pay", {"label": paid.label, "line": paid.line})
                fitting = [row for row in approved.get(digest, []) if row["decided_us"] <= to_us(paid.at)]
                assert fitting, f"{paid} was not approved"
                approved[digest].remove(fitting[0])

    def approvals(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for row in self.rows(
            select(escalation).where(escalation.c.reason == "approval", escalation.c.status == "decided")
        ):
            decision = json.loads(row["decision"])
            if decision["type"] in ("approve", "edit"):
                arguments = decision.get("args") or json.loads(row["payload"])["args"]
                found.setdefault(action_digest("pay", arguments), []).append(row)
                assert row["expires_us"] is None or row["decided_us"] < row["expires_us"], "approved too late"
        return found

    @invariant()
    def each_is_decided_once(self) -> None:
        told = select(escalation_event.c.escalation_id).where(escalation_event.c.kind.in_(["decided", "expired"]))
        times = Counter(row["escalation_id"] for row in self.rows(told))
        assert set(times.values()) <= {1}, times

    @invariant()
    def what_nobody_decided_in_time_is_rejected(self) -> None:
        for row in self.rows(select(escalation).where(escalation.c.status == "expired")):
            assert json.loads(row["decision"])["type"] in ("reject", "stop"), dict(row)
            assert row["expires_us"] <= to_us(self.clock()), dict(row)

    @invariant()
    def what_was_accepted_is_there(self) -> None:
        assert self.accepted <= {row["id"] for row in self.rows(select(run.c.id))}

    @invariant()
    def the_ledger_is_the_bill(self) -> None:
        """But for calls whose outcome nobody knows: they stay charged, or held, at the most that they can have cost."""
        known: Counter[str] = Counter()
        most: Counter[str] = Counter()
        labels = {row["id"]: row["user"] for row in self.rows(select(run.c.id, run.c.user))}
        for row in self.rows(select(reservation)):
            label, exact = labels[row["run_id"]], row["outcome"] == "exact"
            known[label] += row["posted_nanousd"] if exact else 0
            most[label] += row["posted_nanousd"] if row["state"] == "settled" else row["held_nanousd"]
        for label in labels.values():
            billed = sum(one.input_tokens * IN + one.output_tokens * OUT for one in self.world.bill[label])
            assert known[label] <= billed <= most[label], label

    # --- The end ------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.crash(0)
            self.crash(1)
            for _ in range(ROUNDS_MAX):
                if self.rows(select(run.c.id).where(run.c.status.not_in(ENDED))):
                    self.do(0, self._bring_to_an_end, None)
            left = {row["id"]: (row["status"], row["stop_reason"]) for row in self.rows(select(run))}
            assert {status for status, _ in left.values()} <= ENDED, left
            self.check()
        finally:
            self.crash(0)
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    async def _bring_to_an_end(self, process: Process) -> None:
        """A new process finishes what is left, with somebody who decides all that is asked."""
        await self._take_over(process)
        for asked in self.rows(select(escalation).where(escalation.c.status == "open")):
            decision = {"approval": {"type": "approve"}, "budget": {"type": "stop"}}.get(asked["reason"])
            with suppress(BursarError):
                await process.runtime.escalations.decide(asked["id"], decision or self.honest(asked), by="dana")
        self.clock.advance(minutes=61)  # a claim is over
        await self._due(process)
        for left in self.rows(select(run.c.id).where(run.c.status == "interrupted")):
            open_ = select(escalation.c.id).where(escalation.c.run_id == left["id"], escalation.c.status == "open")
            if not self.rows(open_):
                with suppress(BursarError):
                    await process.runtime.retune(left["id"], by="dana", resume=True)
                with suppress(BursarError):
                    await process.runtime.resume(left["id"], by="dana", source=AGENT)

    def check(self) -> None:
        """All that holds after every step."""
        self.the_store_adds_up()
        self.no_limit_is_exceeded()
        self.no_effect_happens_twice()
        self.each_payment_has_an_approval_of_its_own()
        self.the_ledger_is_the_bill()
