"""`bursar price import | check | gpu`: what they print and what they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar.budget import Ledger, Limits, Reservation
from bursar.budget.testing import SUPPORT, a_call, a_quote, tokens
from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command

CONFIG = """\
database: sqlite:///bursar.db
models:
  mini: {provider: openai, model: gpt-4.1-mini, api_key_env: OPENAI_API_KEY}
  house: {provider: openai_compatible, model: house-7b, api_base: "http://127.0.0.1:9/v1"}
  demo: {provider: sim, scenario: support}
tiers: {small: [demo], large: [mini, house]}
tenants: {acme: {tiers: [small]}}
"""
TABLE = """\
provider,model,input_usd_per_mtok,cache_read_usd_per_mtok,output_usd_per_mtok
openai_compatible,house-7b,0.10,,0.40
openai,gpt-4.1-mini,0.35,0.10,1.60
"""


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, called in a folder with a configuration and a table of prices."""
    (tmp_path / "bursar.yaml").write_text(CONFIG)
    (tmp_path / "prices.csv").write_text(TABLE)
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def test_an_import_shows_what_it_changes_and_a_dry_run_changes_nothing(bursar: Command) -> None:
    tried = bursar("price", "import", "prices.csv", "--dry-run")
    assert "2 prices would change; nothing was written" in tried.out
    assert "openai_compatible/house-7b" in tried.out
    assert bursar("price", "ls", "--json").json[1]["price"] is None

    done = bursar("price", "import", "prices.csv", "--by", "dana", "--reason", "the list of November", "--json").json
    assert {row["model"]: row["kind"] for row in done["changed"]} == {
        "openai/gpt-4.1-mini": "cheaper",
        "openai_compatible/house-7b": "new",
    }
    mine = {row["model"]: row["price"] for row in bursar("price", "ls", "--json").json}
    assert mine["house"]["id"].startswith("list:openai_compatible/house-7b@")
    assert mine["mini"]["input_usd_per_mtok"] == "0.35"
    assert "0 prices to list, 2 prices as before" in bursar("price", "import", "prices.csv").out


def test_prices_hold_from_the_day_that_is_named(bursar: Command) -> None:
    bursar("price", "import", "prices.csv", "--effective", "2999-01-01")
    assert bursar("price", "check").code == Exit.ERROR
    bursar("price", "import", "prices.csv", "--effective", "2026-01-01", "--only", "HOUSE")
    assert bursar("price", "check").code == Exit.OK
    assert bursar("price", "ls", "--json").json[0]["price"]["id"].startswith("book:")


def test_nothing_is_imported_where_anything_is_wrong(bursar: Command, tmp_path: Path) -> None:
    (tmp_path / "prices.csv").write_text(TABLE.replace("0.35", "cheap"))
    said = bursar("price", "import", "prices.csv")
    assert said.code == Exit.ERROR
    assert "prices.csv:3: input_usd_per_mtok = 'cheap': expected an amount of USD" in said.err
    assert not (tmp_path / "bursar.db").exists()
    (tmp_path / "prices.csv").write_text(TABLE)
    assert "no model of prices.csv has 'gpt-9'" in bursar("price", "import", "prices.csv", "--only", "gpt-9").err


def test_check_finds_what_is_unpriced_stale_or_differs(bursar: Command) -> None:
    said = bursar("price", "check")
    assert said.code == Exit.ERROR
    assert "model house has no price" in said.err
    assert "bursar price import FILE" in said.err
    against = bursar("price", "check", "prices.csv", "--json").json
    assert against["unpriced"] == ["house"]
    assert "prices.csv says $0.35 in, $1.60 out" in against["differing"]["mini"]

    bursar("price", "import", "prices.csv", "--effective", "2026-01-01")
    found = bursar("price", "check", "--days", "1", "--json")
    assert found.code == Exit.OK
    assert found.json["stale"].keys() == {"house", "mini"}
    assert found.json["stale"]["house"].startswith("its price is of 2026-01-01, ")
    assert "the book of" in found.json["differing"]["mini"]
    assert found.json["listed"]["openai/gpt-4.1-mini"].startswith("input 0.4 -> 0.35")
    assert "the store lists 1 price otherwise than the book: openai/gpt-4.1-mini" in bursar("price", "check").out


def test_config_check_knows_listed_prices(bursar: Command, tmp_path: Path) -> None:
    limited = CONFIG.replace("{tiers: [small]}", "{tiers: [large], budgets: [{usd: 5}]}")
    (tmp_path / "bursar.yaml").write_text(limited)
    assert "model house has no price" in bursar("config", "check").err
    bursar("price", "import", "prices.csv")
    assert bursar("config", "check").code == Exit.OK


def test_a_model_that_served_nothing_has_no_price_of_gpu_time(bursar: Command) -> None:
    said = bursar("price", "gpu", "house", "--usd-per-hour", "2.50")
    assert said.code != Exit.OK
    assert "openai_compatible/house-7b cannot be priced: no token was measured in this time" in said.err
    assert "there is no model 'nobody'" in bursar("price", "gpu", "nobody", "--usd-per-hour", "2.50").err
    assert "is no day" in bursar("price", "gpu", "house", "--usd-per-hour", "1", "--effective", "soon").err


def test_gpu_time_is_spread_over_what_the_ledger_measured(bursar: Command, tmp_path: Path) -> None:
    served = Ledger.open(f"sqlite:///{tmp_path / 'bursar.db'}")
    served.gates.open(SUPPORT, Limits.unlimited())
    made = served.reserve(a_call(model="house"), a_quote(price=None))
    assert isinstance(made, Reservation)
    served.dispatch(made)
    served.settle(made, usage=tokens(30, 10), outcome="exact", reply="{}")
    served.close()
    tried = bursar("price", "gpu", "house", "--usd-per-hour", "7", "--gpus", "2", "--since", "1h", "--dry-run")
    assert "measured: 1 call, 30 input and 10 output tokens" in tried.out
    assert "nothing was written" in tried.out
    done = bursar("price", "gpu", "house", "--usd-per-hour", "7", "--gpus", "2", "--since", "1h", "--json").json
    # $14 for 30 + 4 x 10 weighted tokens are $0.20 for each.
    assert done["price"]["input_usd_per_mtok"] == "200000"
    assert done["price"]["output_usd_per_mtok"] == "800000"
    assert done["price"]["id"].startswith("list:openai_compatible/house-7b@")
    assert bursar("price", "check").code == Exit.OK
    assert "bursar.yaml declares a price for demo" in bursar("price", "gpu", "demo", "--usd-per-hour", "7").err


def test_a_search_finds_what_was_imported_before_what_is_in_the_book(
    bursar: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    bursar("price", "import", "prices.csv", "--effective", "2026-01-01")
    found = bursar("price", "ls", "gpt-4.1-mini", "--json").json
    assert found[0]["model"] == "openai/gpt-4.1-mini"
    assert found[0]["price"]["input_usd_per_mtok"] == "0.35"
    assert len(found) > 1
    assert "from 2026-01-01" in bursar("price", "ls", "HOUSE").out
    assert bursar("price", "ls", "gpt-4.1-mini", "--config", "none.yaml").code == Exit.OK


def test_a_file_that_is_no_table_is_told_in_two_lines(bursar: Command) -> None:
    said = bursar("price", "import", "bursar.yaml")
    assert said.code == Exit.ERROR
    missing, unknown = said.err.splitlines()
    assert "bursar.yaml:1: missing columns: 'provider', 'model', 'input_usd_per_mtok', 'output_usd_per_mtok'" in missing
    assert "bursar.yaml:1: unknown columns: " in unknown
    assert "; expected provider, model, effective, " in unknown
