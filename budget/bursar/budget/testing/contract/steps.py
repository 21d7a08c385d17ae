"""What the rules of the contract are written in."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import select

from bursar.budget import Amounts, Call, Ledger, Refusal, Reservation
from bursar.budget.schema import entry
from bursar.budget.testing.plain import NANO_PER_TOKEN, SUPPORT, a_quote, reserved, tokens

__all__ = ["ONE_CALL", "Another", "held", "journaled", "posted", "refused", "settled", "stop"]

Another = Callable[[], Ledger]

ONE_CALL = Amounts(100 * NANO_PER_TOKEN, 100, 1)
"""What the call of `a_quote()` is held at."""


def settled(ledger: Ledger, call: Call, *, input_tokens: int = 40, output_tokens: int = 10) -> Reservation:
    """A call that was admitted, sent and answered."""
    made = reserved(ledger, call)
    ledger.dispatch(made)
    ledger.settle(made, usage=tokens(input_tokens, output_tokens), outcome="exact", reply="hello")
    return made


def posted(ledger: Ledger, run_id: str = "run_1") -> Amounts:
    """What a run was charged."""
    return ledger.reports.bill(run_id).posted


def held(ledger: Ledger, run_id: str = "run_1") -> Amounts:
    """What a run's calls in flight may come to."""
    return ledger.reports.bill(run_id).held


def journaled(ledger: Ledger) -> list[str]:
    """The kinds of the entries of acme, in order."""
    with ledger.store.read() as connection:
        return list(
            connection.execute(select(entry.c.kind).where(entry.c.chain == "acme").order_by(entry.c.number)).scalars()
        )


def refused(ledger: Ledger, call: Call, *, final: bool = False) -> Refusal:
    """Reserve what must be refused."""
    refusal = ledger.reserve(call, a_quote(), final=final)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def stop(ledger: Ledger, *, by: str = SUPPORT.run_path, path: str = SUPPORT.run_path) -> None:
    """Stop a run at a limit of itself or of a scope above it."""
    kind = "tenant" if "/" not in by else "run"
    ledger.gates.stop(path, Refusal(cause="limit", kind=kind, path=by, dimension="steps", limit=1))  # type: ignore[arg-type]
