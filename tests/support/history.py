"""A ledger with a past: all that can happen to budgets and calls, in an order that a seed decides."""

from __future__ import annotations

from random import Random

from bursar.budget import Amounts, Ledger, Limits, Refusal, Reservation, Scope, ToolQuote
from bursar.budget.pricing.book import ModelFacts
from bursar.budget.testing import FREE, PRICE, Clock, a_call, a_quote, tokens

__all__ = ["RUNS", "make_history"]

RUNS = (
    Scope(tenant="acme", organisation="globex", team="red", user="dana", agents=("support",), run_id="run_1"),
    Scope(tenant="acme", organisation="globex", agents=("support",), run_id="run_2"),
    Scope(tenant="zeta", agents=("clerk",), run_id="run_3"),
)


def make_history(ledger: Ledger, clock: Clock, seed: int, *, calls: int = 30) -> None:
    """Set budgets, open the runs and make calls that end in every way; the clock moves on by days.

    Of the last of the runs, every call is known to be over.
    """
    random = Random(seed)
    _set_budgets(ledger)
    for scope in RUNS:
        ledger.gates.open(scope, Limits(steps=500, tokens=100_000, cost_usd=None, seconds=None, tool_calls=None))
    for number in range(calls):
        _call(ledger, random, RUNS[number % len(RUNS)], f"call {number}")
        if random.random() < 0.3:
            clock.advance(hours=random.randint(1, 40))
            _change_something(ledger, clock, random)


def _set_budgets(ledger: Ledger) -> None:
    budgets = ledger.budgets
    budgets.set("org:globex", per="month", limit={"nanousd": 10**9}, author="ada")
    budgets.set("acme", organisation="globex", limit={"nanousd": 10**8}, author="ada", alerts=[50, 90])
    budgets.set("acme", per="day", zone="Europe/Paris", rollover_percent=50, limit={"tokens": 5_000}, author="ada")
    budgets.set("acme/team:red", per="rolling-24h", limit={"steps": 400}, author="ada", note="red's share")
    ledger.policies.set("acme", unpriced="ceiling_price", ceiling=PRICE, author="ada")
    facts = ModelFacts(price=PRICE, context_window=8_000, max_output_tokens=None)
    ledger.prices.add({"openai/small-1": facts}, author="ada", note="the contract")
    budgets.set("zeta", per="week", mode="soft", limit={"nanousd": None, "steps": 3}, author="bob")


def _call(ledger: Ledger, random: Random, scope: Scope, id: str) -> None:
    call = a_call(id, scope=scope)
    if random.random() < 0.15:
        ledger.charge(call, ToolQuote())
        return
    made = ledger.reserve(call, a_quote(random.randint(0, 40), 40, price=random.choice([PRICE, FREE])))
    leave = random.random() < 0.1 and scope is not RUNS[-1]
    if not isinstance(made, Reservation) or leave:
        return
    if random.random() < 0.1:
        return ledger.release(made, note="not needed")
    ledger.dispatch(made)
    _settle(ledger, random.choice([0, 1, 2, 3, 3, 3] if scope is not RUNS[-1] else [1, 2, 3, 3, 3]), made, random)
    return None


def _settle(ledger: Ledger, how: int, made: Reservation, random: Random) -> None:
    used = tokens(random.randint(0, 40), random.randint(1, 30))
    match how:
        case 0:
            ledger.settle(made, usage=None, outcome="unknown")
        case 1:
            ledger.settle(made, usage=None, outcome="unknown")
            ledger.settle(made, usage=used, outcome="exact", reply="late")
        case 2:
            ledger.settle(made, usage=tokens(90, 90), outcome="exact", reply="above its bound")
        case _:
            ledger.settle(made, usage=used, outcome="exact", reply="hello")


def _change_something(ledger: Ledger, clock: Clock, random: Random) -> None:
    budgets, run = ledger.budgets, random.choice(RUNS).run_path
    match random.randrange(6):
        case 0:
            budgets.set("acme", limit={"nanousd": random.randint(10**7, 10**8)}, author="ada", note="a new quarter")
        case 1:
            granted = Amounts(tokens=random.randint(1, 500))
            budgets.grant(
                "acme", granted, per="day", author="bob", note="the launch", expires_at=clock.now.replace(year=2030)
            )
        case 2:
            for line in budgets.grants()[:1]:
                if line.ended_at is None:
                    budgets.revoke(line.id, author="bob", note="not needed after all")
        case 3:
            ledger.gates.stop(run, Refusal(cause="stopped", kind="run", path=run))
            ledger.gates.reopen(run, author="bob")
        case 4:
            budgets.grant(run, Amounts(steps=5), author="bob", note="go on", key=f"decision {random.random()}")
        case 5:
            ledger.reap()
