"""`bursar budget policy`: what becomes of models without a price, by command."""

from __future__ import annotations

from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from tests.unit.runtime.cli_project import Command, command, make_project

MODEL = '  house: {provider: openai_compatible, model: house-7b, api_base: "http://127.0.0.1:9/v1", retries: 0}\n'
CEILING = ("--unpriced", "ceiling_price", "--input-usd-per-mtok", "20", "--output-usd-per-mtok", "100")
RUN = ("run", "agents.py:support", "Hello.", "--tenant", "acme")


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a folder whose only model has no price, and does not answer."""
    monkeypatch.chdir(make_project(tmp_path))
    file = tmp_path / "bursar.yaml"
    head, _, tenants = file.read_text().partition("tenants:")
    head = head.partition("models:")[0] + "models:\n" + MODEL + "tiers: {small: [house]}\n"
    file.write_text(f"{head}tenants:{tenants.partition('  poor:')[0]}")
    return command(capsys)


def test_a_model_without_a_price_is_refused_until_the_command_lets_it_go_out(bursar: Command) -> None:
    refused = bursar(*RUN)
    assert refused.code == Exit.ERROR
    assert "model house has no price" in refused.err
    said = bursar("budget", "policy", "acme", "--unpriced", "allow_and_alert", "--by", "dana", "--reason", "a trial")
    assert said.out == (
        "acme: a model without a price is called, nothing is posted for it, and somebody is told (allow_and_alert)\n"
    )
    tried = bursar(*RUN)
    assert "has no price" not in tried.err + tried.out
    assert "house" in tried.err + tried.out, "it was called, and nobody answered"
    [change] = [one for one in bursar("budget", "history", "--json").json if one["author"] == "dana"]
    assert (change["kind"], change["path"], change["note"]) == ("policy", "acme", "a trial")


def test_what_the_command_says_of_unpriced_models_goes_before_the_configuration(
    bursar: Command, tmp_path: Path
) -> None:
    file = tmp_path / "bursar.yaml"
    file.write_text(file.read_text().replace("acme: {", "acme: {unpriced: allow_and_alert, "))
    assert "has no price" not in bursar(*RUN).err
    assert bursar("budget", "policy", "acme", "--unpriced", "refuse").code == Exit.OK
    assert "model house has no price" in bursar(*RUN).err


def test_a_policy_is_shown_and_tried_without_being_changed(bursar: Command) -> None:
    shown = "acme: a model without a price is refused where money is limited (refuse)\n"
    assert bursar("budget", "policy", "acme").out == shown
    tried = bursar("budget", "policy", "acme", *CEILING, "--dry-run").out
    assert tried == f"would set acme to ceiling_price; nothing was changed\n{shown}"
    assert bursar("budget", "policy", "acme", *CEILING).out.endswith(
        "costs $20.00 in, $100.00 out per million tokens (ceiling_price)\n"
    )
    found = bursar("budget", "policy", "acme", "--json").json
    assert found["unpriced"] == "ceiling_price"
    assert found["ceiling_price"]["output_usd_per_mtok"] == "100"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("acme", "--unpriced", "hope"), 'Choose from: "refuse", "ceiling_price", "allow_and_alert"'),
        (
            ("acme", "--unpriced", "ceiling_price"),
            "a ceiling belongs to ceiling_price, and only to it -> bursar budget",
        ),
        (("acme", *CEILING[2:]), "belongs to ceiling_price -> bursar budget policy acme --unpriced ceiling_price"),
        (("acme", *CEILING[:4]), "has both input and output -> bursar budget policy acme --unpriced ceiling_price"),
        (("acme", "--input-usd-per-mtok", "-1"), "'-1' is no amount of USD"),
        (("nobody",), "tenant 'nobody' is not in the configuration (it has acme)"),
        (("acme/support", "--unpriced", "refuse"), "policy of 'acme/support': only a tenant has one"),
    ],
)
def test_a_mistake_in_a_policy_says_what_was_expected(bursar: Command, arguments: tuple[str, ...], error: str) -> None:
    said = bursar("budget", "policy", *arguments)
    assert said.code == Exit.USAGE
    assert error in said.err
