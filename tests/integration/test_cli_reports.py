"""`bursar budget report`, `forecast` and `why` on a ledger with three days of calls."""

from __future__ import annotations

import csv
import os
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from pyarrow import parquet  # type: ignore[import-untyped]  # it comes without types

from bursar.budget import Call, Ledger, Limits, Refusal, Scope, Usage
from bursar.budget.reports.focus import COLUMNS
from bursar.budget.testing import PRICE, Clock, a_quote, reserved
from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project

NOW = datetime.now(UTC)


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a folder whose ledger has calls of six half days, an unknown one, and a stopped run."""
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    call = command(capsys)
    assert call("budget", "ls").code == Exit.OK  # opens the store, with the budgets of the configuration
    ledger = Ledger.open("sqlite:///bursar.db", clock=Clock(NOW - timedelta(days=3)))
    _fill(ledger)
    ledger.close()
    return call


def _fill(ledger: Ledger) -> None:
    clock = ledger._clock
    assert isinstance(clock, Clock)
    ledger.budgets.set("acme", limit={"nanousd": 10**9}, per="total", author="dana")
    for number in range(6):
        clock.now = NOW - timedelta(hours=12 * (5 - number), minutes=1)
        scope = Scope(tenant="acme", agents=("support",), run_id=f"run_{number}", team="red")
        ledger.gates.open(scope, Limits.unlimited())
        for tier, model in (("small", "mini"), ("frontier", "max")):
            call = Call(
                id=f"run_{number}:{tier}::0", scope=scope, epoch=0, node=tier, tier=tier, model=model, reason="a rule"
            )
            made = reserved(ledger, call, a_quote(500, 500))
            unknown = (number, tier) == (5, "small")
            usage = None if unknown else Usage(input_tokens=400, output_tokens=100)
            reply = None if unknown else "hello"
            ledger.settle(made, usage=usage, outcome="unknown" if unknown else "exact", reply=reply, note="so it was")
    refusal = Refusal(
        cause="limit", kind="run", path="acme/support/run_5", dimension="steps", limit=2, posted=2, needed=1
    )
    ledger.gates.stop("acme/support/run_5", refusal)


# --- report -----------------------------------------------------------------------------------------------------------


def test_a_report_sums_by_what_is_asked_for_and_says_what_was_waste(bursar: Command) -> None:
    said = bursar("budget", "report", "--by", "tier")
    assert said.code == Exit.OK
    rows = [line.split() for line in said.out.splitlines()]
    assert rows[0] == ["tier", "calls", "tokens", "cost"]
    assert rows[2:5] == [
        ["small", "6", "3,500", "$0.0035"],
        ["frontier", "6", "3,000", "$0.003"],
        ["in", "all", "12", "6,500", "$0.0065"],
    ]
    assert "unknown: $0.001 in 1 call, 15.4% of the cost" in said.out
    shares = [line.split() for line in bursar("budget", "report", "--by", "tier", "--waste").out.splitlines()]
    assert shares[0] == ["tier", "cost", "unknown"]
    assert shares[2] == ["small", "$0.0035", "28.6%"]


def test_a_report_as_json_has_every_line_and_the_exact_cost(bursar: Command) -> None:
    said = bursar("budget", "report", "--by", "run", "--by", "node", "--tenant", "acme", "--limit", "1", "--json").json
    assert said["where"] == {"tenant": "acme"}
    assert len(said["lines"]) == 12
    costs = [Decimal(line["cost_usd"]) for line in said["lines"]]
    assert sum(costs) == Decimal(said["total"]["cost_usd"]) == Decimal("0.0065")
    assert said["total"]["waste"]["unknown"] == {"calls": 1, "cost_usd": "0.001000000", "share": 0.153846}
    assert said["lines"][0].keys() == {"run", "node", "calls", "tokens", "tool_calls", "cost_usd", "waste"}


def test_a_report_of_a_stretch_has_its_calls_only(bursar: Command) -> None:
    assert bursar("budget", "report", "--since", "1d", "--json").json["total"]["calls"] == 4
    day = f"{NOW - timedelta(days=1):%Y-%m-%d}"
    [line] = bursar("budget", "report", "--by", "day", "--since", day, "--until", f"{NOW:%Y-%m-%d}", "--json").json[
        "lines"
    ]
    assert line["day"] == day
    assert bursar("budget", "report", "--team", "blue").out.startswith("nothing was spent since")


def test_a_table_that_is_cut_off_says_so(bursar: Command) -> None:
    said = bursar("budget", "report", "--by", "run", "--limit", "2").out
    assert said.count("run_") == 2
    assert "in all" in said
    assert "and more: --limit 20, or --csv FILE for all" in said


def test_files_have_all_lines_and_the_same_sum(bursar: Command) -> None:
    said = bursar("budget", "report", "--by", "run", "--limit", "1", "--csv", "a.csv", "--parquet", "a.parquet")
    assert "a.csv: 6 rows" in said.out
    with Path("a.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert sum(Decimal(row["cost_usd"]) for row in rows) == Decimal("0.0065")
    assert [row["run"] for row in rows] == parquet.read_table("a.parquet")["run"].to_pylist()
    assert parquet.read_table("a.parquet")["cost_usd"].to_pylist() == [Decimal(row["cost_usd"]) for row in rows]


def test_charges_are_exported_as_focus(bursar: Command) -> None:
    assert bursar("budget", "report", "--focus", "focus.csv").code == Exit.OK
    assert bursar("budget", "report", "--focus", "focus.parquet").code == Exit.OK
    with Path("focus.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert rows[0].keys() == COLUMNS.keys()
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.0065")
    assert parquet.read_table("focus.parquet").num_rows == len(rows) == 23


def test_a_picture_is_drawn_with_the_budget_and_without(bursar: Command) -> None:
    for name, chosen in (
        ("with.png", ["--tenant", "acme"]),
        ("without.png", ["--tier", "small"]),
        ("none.png", ["--team", "x"]),
    ):
        assert bursar("budget", "report", "--png", name, *chosen).code == Exit.OK
        assert Path(name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert Path("with.png").stat().st_size > Path("without.png").stat().st_size > Path("none.png").stat().st_size


def test_bars_are_as_wide_as_the_terminal_and_told_apart_without_colours(
    bursar: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for width in (40, 100):
        monkeypatch.setenv("COLUMNS", str(width))
        said = bursar("budget", "report", "--chart").out
        *days, _, legend = said.splitlines()
        amounts = [len(day.rpartition(" ")[2]) for day in days]
        # The longest bar need not stand beside the longest amount, for which every line leaves room.
        assert max(len(day) - amount for day, amount in zip(days, amounts, strict=True)) + max(amounts) == width
        assert legend == "█ small   ▓ frontier"
        assert "\x1b" not in said
        assert any("█▓" in day for day in days)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--since", "tomorrow"), "'tomorrow' is no time -> 30d, 12h, 2026-11-20 or 2026-11-20T14:30"),
        (("--until", "2026-13-01"), "'2026-13-01' is no time"),
        (("--since", "2099-01-01"), "nothing lies between --since 2099-01-01 and --until now -> --since 30d"),
        (("--zone", "Europe/Pariss"), "'Europe/Pariss' is no IANA time zone -> --zone Europe/Paris"),
        (("--csv", "nowhere/a.csv"), "cannot write nowhere/a.csv: No such file or directory"),
        (("--by", "colour"), 'Invalid value "colour"'),
    ],
)
def test_what_cannot_be_reported_says_why(bursar: Command, arguments: tuple[str, ...], says: str) -> None:
    said = bursar("budget", "report", *arguments)
    assert (said.code, said.out) == (Exit.USAGE, "")
    assert says in said.err


# --- forecast ---------------------------------------------------------------------------------------------------------


def test_a_forecast_says_when_a_budget_runs_out(bursar: Command) -> None:
    [total] = [one for one in bursar("budget", "forecast", "acme", "--json").json if one["per"] == "total"]
    assert total["dimension"] == "cost_usd"
    assert (total["limit"], total["spent"], total["expected"]) == ("1.000000000", "0.006500000", None)
    runs_out = datetime.fromisoformat(total["runs_out_at"])
    assert timedelta(days=300) < runs_out - NOW < timedelta(days=600)
    shown = bursar("budget", "forecast", "acme").out
    assert f"{runs_out:%b %Y}, uncertain" in shown
    assert bursar("budget", "forecast", "acme/nobody").out.startswith("no budgets")


# --- why --------------------------------------------------------------------------------------------------------------


def test_a_call_is_explained_from_its_scope_to_its_arithmetic(bursar: Command) -> None:
    said = bursar("budget", "why", "run_0:small::0").out
    for line in (
        r"scope     tenant acme > team red > agent support > run run_0 > node small",
        r"acme (total): $1.00",
        r"reserved  $0.001, 1,000 tokens, 1 step; at most 500 output tokens",
        f"price     {PRICE.id} ({PRICE.source})",
        "usage     400 input, 100 output",
        "input   400  x $1.00 per million       $0.0004",
        "posted    $0.000500000, 500 tokens, 1 step",
        "tier      small, model mini: a rule",
    ):
        assert line in said
    [found] = bursar("budget", "why", "run_0:small::0", "--json").json
    assert sum(Decimal(line["usd"]) for line in found["arithmetic"]) == Decimal(found["posted"]["cost_usd"])
    assert "acme" in {limit["path"] for limit in found["limits"]}
    assert bursar("budget", "why", str(found["id"])).out == said


def test_an_unknown_call_says_what_it_was_charged_at(bursar: Command) -> None:
    said = bursar("budget", "why", "run_5:small::0").out
    assert "all that was reserved, since nobody knows what it came to" in " ".join(said.split())
    assert "note      so it was" in said
    assert "usage" not in said


def test_a_refusal_is_found_by_its_path_and_by_its_number(bursar: Command) -> None:
    [stop] = bursar("budget", "why", "acme/support", "--json").json
    assert stop["run"] == "acme/support/run_5"
    assert stop["refused"]["dimension"] == "steps"
    assert (
        bursar("budget", "why", "acme", "--json").json == bursar("budget", "why", stop["id"], "--json").json == [stop]
    )
    said = bursar("budget", "why", stop["id"])
    assert "refused: run run_5 has 0 steps left of 2 steps; this call needs at least 1 step" in said.out
    assert said.nexts == [["budget", "why", "run_5"]]
    assert bursar("budget", "why", "rival/nobody").out == "no run was stopped there\n"


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("9" * 18, "the ledger knows no call"),
        ("9" * 30, "the ledger knows no call"),
        ("run_0:none::0", "the ledger knows no call run_0:none::0"),
        ("acme#999", "the journal has no refusal acme#999"),
        ("acme#1.5", "the journal has no refusal acme#1.5"),
        ("run_9", "the ledger knows no run run_9"),
    ],
)
def test_what_is_unknown_cannot_be_explained(bursar: Command, what: str, says: str) -> None:
    said = bursar("budget", "why", what)
    assert (said.code, said.out) == (Exit.ERROR, "")
    assert says in said.err


@pytest.mark.parametrize("option", ["--csv", "--parquet", "--focus", "--png"])
@pytest.mark.parametrize("name", [".", "folder", "pipe"])
def test_only_a_plain_file_is_ever_replaced_by_a_report(bursar: Command, option: str, name: str) -> None:
    Path("folder").mkdir()
    os.mkfifo("pipe")
    said = bursar("budget", "report", option, name)
    assert said.code == Exit.USAGE
    assert said.err.startswith(f"error: cannot write {name}: it is no plain file -> name a file")
    assert Path("pipe").is_fifo()
    assert Path("folder").is_dir()


def test_a_run_of_a_program_that_uses_the_ledger_alone_is_explained_too(bursar: Command) -> None:
    said = bursar("budget", "why", "run_5")
    assert said.code == Exit.OK
    assert said.out.startswith("run_5  acme/support")
    assert "equal" in said.out
    assert "run run_5 has 0 steps left of 2 steps" in said.out
    told = bursar("budget", "why", "run_5", "--json").json
    assert (told["run"], told["agent"], told["status"], told["stop_reason"]) == ("run_5", "support", None, None)
    assert told["cost"] == told["sum"]
