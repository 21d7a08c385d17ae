"""The rules that a ledger keeps on every store; see docs/another-store.md for how to run them on yours."""

from __future__ import annotations

from bursar.budget.testing.contract.calls import CallRules
from bursar.budget.testing.contract.clients import ClientRules
from bursar.budget.testing.contract.leftovers import LeftoverRules
from bursar.budget.testing.contract.limits import LimitRules
from bursar.budget.testing.contract.mistakes import MistakeRules
from bursar.budget.testing.contract.rates import RateRules
from bursar.budget.testing.contract.runs import RunRules
from bursar.budget.testing.contract.slices import SliceRules
from bursar.budget.testing.contract.underway import UnderwayRules

__all__ = ["LedgerContract"]


class LedgerContract(
    CallRules, UnderwayRules, LeftoverRules, RunRules, LimitRules, SliceRules, RateRules, ClientRules, MistakeRules
):
    """A subclass whose name begins with `Test` runs them; needs the fixtures of `bursar.budget.testing.fixtures`."""
