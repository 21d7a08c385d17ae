"""Why a reservation was refused, in the same words at every door: scope, need, what remains, what to do next."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any, Literal
from zoneinfo import ZoneInfo

from bursar.budget.money import format_usd, usd
from bursar.budget.scope import Kind
from bursar.budget.windows import Period, from_us

__all__ = ["Cause", "Refusal"]

Cause = Literal[
    "limit",  # posted amounts leave too little room
    "stopped",  # the run was stopped before and nothing was granted since
    "paused",  # a person holds the run up
    "cancelled",  # somebody cancelled the run
    "deadline",  # the run's working time is used up, or the moment is past by which it had to end
    "fenced",  # another worker has taken the run over
    "unpriced",  # the model has no price, and a money limit is in force
]

_UNITS = {"tokens": "tokens", "steps": "steps", "tool_calls": "tool calls"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A reservation that was not made, so that nothing was sent; or a call under way that may not go on."""

    cause: Cause
    kind: Kind
    path: str
    """The scope that refused: `acme`, `acme/support`, `acme/support/run_1`, ... (see `bursar.budget.scope`)."""

    dimension: str = ""
    """`nanousd | tokens | steps | tool_calls | seconds`; empty where no amount refused."""

    limit: int | None = None
    posted: int = 0
    held: int = 0
    needed: int = 0
    """The least that the call needs, in the unit of the dimension."""

    kept_back: int = 0
    """What must remain for the run's last answer, in the unit of the dimension."""

    worst: int = 0
    """What the call may come to at most, in the unit of the dimension."""

    per: Period = "total"
    window: str = ""
    resets_us: int | None = None
    zone: str = "UTC"
    detail: str = ""
    """The model without a price; the moment by which the run had to end; who paused it."""

    cut: bool = False
    """Whether a call that was under way was cut off for it."""

    @property
    def name(self) -> str:
        """The scope as people call it: `tenant acme`, `agent support of acme`, `run run_1`, `team red of acme`."""
        above, _, last = self.path.rpartition("/")
        if self.kind == "tenant":
            return f"tenant {last}"
        if self.kind == "run":
            return f"run {'/'.join(self.path.split('/')[2:])}"
        of = f" of {above.replace('team:', '')}" if above else ""
        return f"{self.kind} {last.partition(':')[2] or last}{of}"

    @property
    def remaining(self) -> int | None:
        """What is left under the limit, never below 0; None without a limit."""
        return None if self.limit is None else max(0, self.limit - self.posted)

    @property
    def is_overdue(self) -> bool:
        """Whether the run had to end by a moment that is past: more working time would not help it."""
        return self.cause == "deadline" and not self.dimension

    @property
    def next_step(self) -> str:
        """The command that lets the run go on."""
        run = self.path.split("/")[2] if self.kind == "run" else ""
        if self.cause == "unpriced":
            return "add `price: {input_usd_per_mtok: ..., output_usd_per_mtok: ...}` or `price: free` to the model"
        if self.cause == "paused":
            return f"bursar runs retune {run} --resume"
        if self.cause in ("fenced", "cancelled") or self.is_overdue:
            return f"bursar runs show {run}".rstrip()
        if self.dimension == "seconds" or self.cause == "deadline":
            return f"bursar runs resume {run} --seconds 600"
        flag, amount = {
            "nanousd": ("usd", "1"),
            "tokens": ("tokens", "100000"),
            "steps": ("steps", "20"),
            "tool_calls": ("tool-calls", "50"),
        }.get(self.dimension, ("usd", "1"))
        if run.startswith("run_"):  # any other is a gateway's key, or of a program that uses the ledger alone
            return f"bursar runs resume {run} --grant-{flag} {amount}"
        per = "" if self.per == "total" else f" --per {self.per}"
        more = "50" if flag == "usd" else amount
        if self.per.startswith("rolling"):  # has no window to give to
            limit = usd(self.limit or 0) if flag == "usd" else Decimal(self.limit or 0)
            return f"bursar budget set {shlex.quote(self.path)}{per} --{flag} {(limit + int(more)).normalize():f}"
        return f"bursar budget grant {shlex.quote(self.path)}{per} --{flag} {more}"

    def words(self, *, final: bool = False) -> str:
        """One sentence for people, ending in the next command; a run that gives its `final` answer cannot go on."""
        said = f"refused: {self._what()}. Nothing was sent."
        if self.cut:
            said = f"cut off: {self._what()}. What came of the answer stays charged."
        if final and self.kind == "run":
            return said
        resets = "" if self.resets_us is None else f"  |  {self._frees} {self._resets()}"
        return f"{said} -> {self.next_step}{resets}"

    def _what(self) -> str:
        if self.cause == "limit":
            per = f" ({self.window})" if self.window else ""
            if self.cut:
                used = self._show(self.posted + self.held)
                return f"{self.name} has spent and holds {used}, above its limit of {self._show(self.limit or 0)}{per}"
            upper = f" and may cost up to {self._show(self.worst)}" if self.worst > self.needed else ""
            kept_back = min(self.kept_back, self.remaining or 0)
            kept = f", {self._show(kept_back)} of it kept back for a last answer" if kept_back else ""
            left = self._show(self.remaining or 0, down=True)
            return (
                f"{self.name} has {left} left of {self._show(self.limit or 0)}{per}{kept}; "
                f"this call needs at least {self._show(self.needed)}{upper}"
            )
        if self.is_overdue:
            return f"{self.name} had to end by {self.detail}"
        return {
            "stopped": f"{self.name} was stopped at its limit and nothing was granted since",
            "cancelled": f"{self.name} was cancelled",
            "paused": f"{self.name} is paused by {self.detail}",
            "deadline": f"{self.name} has used its time{f' of {self.limit} s' if self.limit else ''}",
            "fenced": f"{self.name} was taken over by another worker",
            "unpriced": f"model {self.detail} has no price, and {self.name} has a limit in money",
        }[self.cause]

    def _show(self, amount: int, *, down: bool = False) -> str:
        if self.dimension == "nanousd":
            return format_usd(amount, down=down)
        return f"{amount:,} {_UNITS[self.dimension] if amount != 1 else _UNITS[self.dimension][:-1]}"

    @property
    def _frees(self) -> str:
        return "frees up from" if self.per.startswith("rolling") else "resets"

    def _resets(self) -> str:
        return from_us(self.resets_us or 0).astimezone(ZoneInfo(self.zone)).isoformat(timespec="minutes")

    def to_record(self) -> dict[str, Any]:
        """The refusal as JSON."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Refusal:
        """A refusal read back from JSON."""
        return cls(**record)
