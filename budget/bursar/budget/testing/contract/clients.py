"""Many clients at once, each with a connection of its own: together they get what one would get."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from bursar.budget import Amounts, Ledger, Limits, Refusal, Replay, Reservation, Scope, Wait
from bursar.budget.errors import ConflictError
from bursar.budget.slices import Slice
from bursar.budget.testing.contract.steps import Another, posted
from bursar.budget.testing.plain import NANO_PER_TOKEN, SUPPORT, a_call, a_quote, tokens

__all__ = ["ClientRules"]

CLIENTS = 6
CALLS = 8
"""How many calls each client makes."""


def at_once(what: Callable[[int], int]) -> int:
    """What each client comes to, all set going at the same moment, in sum."""
    ready = threading.Barrier(CLIENTS)

    def run(number: int) -> int:
        ready.wait()
        return what(number)

    with ThreadPoolExecutor(CLIENTS) as clients:
        return sum(clients.map(run, range(CLIENTS)))


def spend(ledger: Ledger, scopes: Sequence[Scope], name: object) -> int:
    """Make calls until there are enough or one is refused; how many were made."""
    for number in range(CALLS):
        call = a_call(f"{name} {number}", scope=scopes[number % len(scopes)])
        while isinstance(made := ledger.reserve(call, a_quote(min_output_tokens=50)), Wait):
            continue  # one in flight is another client's, and over soon
        if isinstance(made, Refusal):
            return number
        if isinstance(made, Reservation):
            ledger.dispatch(made)
            ledger.settle(made, usage=tokens(50, 50), outcome="exact", reply="hello")
    return CALLS


class ClientRules:
    """What holds of clients that work side by side."""

    @pytest.mark.parametrize("shared", [True, False], ids=["one ledger", "a ledger each"])
    def test_clients_together_get_exactly_the_calls_that_a_budget_is_worth(
        self, ledger: Ledger, another: Another, shared: bool
    ) -> None:
        ledger.budgets.set("acme", limit={"nanousd": 20 * 100 * NANO_PER_TOKEN + 1}, author="dana")
        ledgers = [ledger if shared else another() for _ in range(CLIENTS)]
        assert at_once(lambda number: spend(ledgers[number], [SUPPORT], number)) == 20
        assert posted(ledger) == Amounts(20 * 100 * NANO_PER_TOKEN, 20 * 100, 20)

    def test_clients_of_several_tenants_of_an_organisation_share_what_it_has(
        self, ledger: Ledger, another: Another
    ) -> None:
        ledger.budgets.set("org:globex", limit={"steps": 15}, author="dana", oversubscribed=True)
        scopes = [
            Scope(organisation="globex", tenant=name, agents=("support",), run_id=f"run of {name}")
            for name in ("north", "south")
        ]
        for scope in scopes:
            ledger.budgets.set(scope.tenant, limit={"steps": 10}, author="dana", organisation="globex")
            ledger.gates.open(scope, Limits.unlimited())
        ledgers = [another() for _ in range(CLIENTS)]
        made = at_once(lambda number: spend(ledgers[number], scopes[number % 2 :] + scopes[: number % 2], number))
        used = {line.path: line.posted.steps for line in ledger.budgets.ls()}
        assert used["org:globex"] == used["north"] + used["south"] == made <= 15
        assert max(used["north"], used["south"]) <= 10

    def test_clients_that_change_limits_lose_no_change(self, ledger: Ledger, another: Another) -> None:
        ledger.budgets.set("acme", limit={"steps": 0}, author="dana")
        ledgers = [another() for _ in range(CLIENTS)]

        def grant(number: int) -> int:
            for key in range(3):
                amount = Amounts(steps=1)
                ledgers[number].budgets.grant("acme", amount, author="dana", note="", key=f"{number // 2} {key}")
            return 1

        at_once(grant)
        assert ledger.budgets.ls("acme")[0].limit["steps"] == 3 * CLIENTS // 2, "each key gave once"

    def test_one_client_of_many_takes_a_run(self, ledger: Ledger, another: Another) -> None:
        ledgers = [another() for _ in range(CLIENTS)]

        def take(number: int) -> int:
            try:
                return ledgers[number].gates.hold(SUPPORT.run_path, f"worker {number}", 60).epoch
            except ConflictError:
                return 0

        assert at_once(take) == 1

    def test_clients_of_one_slice_get_no_more_than_it_holds(self, ledger: Ledger) -> None:
        ledger.budgets.set("acme", limit={"nanousd": 10**9}, author="dana")
        amounts = Amounts(nanousd=20 * 100 * NANO_PER_TOKEN)
        taken = ledger.slices.open(SUPPORT, 0, amounts, seconds=60, batch=4)
        assert isinstance(taken, Slice)

        def use(number: int) -> int:
            for count in range(CALLS):
                made = taken.reserve(a_call(f"{number} {count}"), a_quote(min_output_tokens=50))
                if made is None:
                    return count
                assert not isinstance(made, Replay)
                taken.settle(made, usage=tokens(50, 50), outcome="exact", reply="hello")
            return CALLS

        assert at_once(use) == 20
        taken.close()
        assert posted(ledger).nanousd == amounts.nanousd
