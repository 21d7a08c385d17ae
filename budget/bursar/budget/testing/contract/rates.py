"""Rates: what is taken in any span of time is at most a minute's worth more than the rate gives for its length."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from bursar.budget import Ledger
from bursar.budget.errors import UsageError
from bursar.budget.rates import RateWant
from bursar.budget.testing.contract.steps import Another
from bursar.budget.testing.plain import Clock

__all__ = ["RateRules"]

CLIENTS = 8


def want(amount: int, *, name: str = "acme requests", per_minute: int = 60) -> RateWant:
    """What is wanted of a rate of one a second."""
    return RateWant(name, per_minute, amount)


class RateRules:
    """What holds of rates."""

    def test_a_minutes_worth_is_had_at_once_and_then_what_the_rate_gives(self, ledger: Ledger, clock: Clock) -> None:
        assert [ledger.rates.take([want(20)]) for _ in range(4)] == [None, None, None, 20.0]
        clock.advance(seconds=19.5)
        assert ledger.rates.take([want(20)]) == 0.5
        clock.advance(seconds=0.5)
        assert ledger.rates.take([want(20)]) is None
        clock.advance(seconds=3600)
        assert [ledger.rates.take([want(30)]) for _ in range(3)] == [None, None, 30.0]

    def test_what_one_rate_refuses_is_taken_of_no_other(self, ledger: Ledger) -> None:
        ledger.rates.take([want(60, name="tokens")])
        assert ledger.rates.take([want(1), want(15, name="tokens")]) == 15.0
        assert ledger.rates.take([want(60)]) is None

    def test_the_longest_wait_is_told(self, ledger: Ledger) -> None:
        ledger.rates.take([want(60, name="a"), want(60, name="b")])
        assert ledger.rates.take([want(3, name="a"), want(7, name="b"), want(5, name="c")]) == 7.0

    def test_what_is_given_back_can_be_had_again(self, ledger: Ledger) -> None:
        ledger.rates.take([want(50)])
        ledger.rates.give_back("acme requests", 60, 45)
        assert ledger.rates.take([want(55)]) is None
        assert ledger.rates.take([want(1)]) == 1.0

    def test_what_was_used_beyond_what_was_taken_is_paid_off_before_more_is_had(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.rates.take([want(1)])
        ledger.rates.owe("acme requests", 60, 99)
        assert ledger.rates.take([want(1)]) == 41.0
        clock.advance(seconds=41)
        assert ledger.rates.take([want(1)]) is None

    def test_more_than_a_minutes_worth_waits_for_a_whole_minute_and_is_paid_off(
        self, ledger: Ledger, clock: Clock
    ) -> None:
        ledger.rates.take([want(1)])
        assert ledger.rates.take([want(150)]) == 1.0
        clock.advance(seconds=1)
        assert ledger.rates.take([want(150)]) is None
        assert ledger.rates.take([want(1)]) == 91.0

    def test_a_clock_that_goes_back_gives_nothing(self, ledger: Ledger, clock: Clock) -> None:
        ledger.rates.take([want(60)])
        clock.advance(seconds=-30)
        assert ledger.rates.take([want(1)]) == 31.0

    @pytest.mark.parametrize(("per_minute", "amount"), [(0, 1), (-5, 1), (60, -1), (60, 10**13), (60, True)])
    def test_a_rate_that_cannot_be_is_refused(self, ledger: Ledger, per_minute: int, amount: int) -> None:
        with pytest.raises(UsageError, match="expected a whole number"):
            ledger.rates.take([want(amount, per_minute=per_minute)])

    def test_processes_together_get_what_one_would_get(self, another: Another) -> None:
        """With the clock standing still, exactly a minute's worth; rates are asked for in any order."""
        names = ["requests", "tokens"]
        ledgers = [another() for _ in range(CLIENTS)]

        def take(number: int) -> int:
            order = names if number % 2 else names[::-1]
            wants = [want(1 + (name == "tokens"), name=name, per_minute=40) for name in order]
            return sum(ledgers[number].rates.take(wants) is None for _ in range(10))

        with ThreadPoolExecutor(CLIENTS) as clients:
            assert sum(clients.map(take, range(CLIENTS))) == 20
