"""`bursar route train | check | try`: what they print, what they write, and when they exit with 1."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bursar.runtime.cli.exits import Exit
from bursar.runtime.routing.labels import Label
from tests.support.processes import REPOSITORY
from tests.unit.runtime.cli_project import Command, command
from tests.unit.runtime.routing.corpus import corpus, shuffled

CONFIG = """\
database: sqlite:///bursar.db
models:
  mini: {provider: sim, scenario: support, price: {input_usd_per_mtok: "1", output_usd_per_mtok: "2"}}
  large: {provider: sim, scenario: support, price: {input_usd_per_mtok: "10", output_usd_per_mtok: "20"}}
tiers: {small: [mini], frontier: [large]}
tenants: {acme: {tiers: [small]}}
auto: {incumbent: frontier}
"""


def write(file: Path, labels: Sequence[Label]) -> None:
    file.write_text("".join(json.dumps({"text": label.text, "tier": label.tier}) + "\n" for label in labels))


@pytest.fixture
def bursar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in a folder with a configuration, enough labels, too few of them, and some that came later."""
    (tmp_path / "bursar.yaml").write_text(CONFIG)
    write(tmp_path / "labels.jsonl", corpus(2000, seed=0))
    write(tmp_path / "few.jsonl", corpus(100, seed=0))
    write(tmp_path / "later.jsonl", corpus(500, seed=1))
    monkeypatch.chdir(tmp_path)
    return command(capsys)


def test_training_says_what_was_certified_writes_the_file_and_how_it_is_used(bursar: Command, tmp_path: Path) -> None:
    said = bursar("route", "train", "labels.jsonl", "--out", "routes/auto.npz")
    assert said.code == Exit.OK, said.err
    assert "trained on 1,200 labels, tested on 800 others" in said.out
    assert "cheaper tiers are named from a probability of 0." in said.out
    assert "in bursar.yaml: auto: {classifier: routes/auto.npz, incumbent: frontier}" in said.out
    assert said.nexts == [["route", "check", "routes/auto.npz", "LABELS"]]
    assert (tmp_path / "routes" / "auto.npz").exists()


def test_the_commands_of_the_page_on_routing_work_as_they_are_printed(bursar: Command) -> None:
    lines = re.findall(r"^bursar (route .*)$", (REPOSITORY / "docs" / "routing.md").read_text(), re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["train", "check", "try"]
    for line in lines:
        said = bursar(*shlex.split(line, comments=True))
        assert said.code == Exit.OK, f"{line}: {said.err}"


def test_what_a_script_reads_has_every_threshold_that_was_tested_and_what_it_saves(bursar: Command) -> None:
    told = bursar("route", "train", "labels.jsonl", "--out", "auto.npz", "--json").json
    assert told["labels_missing"] == 0
    assert told["dearer"] is None
    certified = told["cheaper"]["certified"]
    assert certified in told["cheaper"]["tested"]
    held = told["held_out"]
    assert held["sent"]["small"] == certified["routed"]
    assert held["wrong"]["small"] == certified["wrong"]
    share = held["sent"]["small"] / held["requests"]
    assert held["cost_ratio"] == pytest.approx(1 - 0.9 * share)  # a small one costs a tenth


def test_a_dry_run_and_too_few_labels_are_told_and_only_one_of_them_writes(bursar: Command, tmp_path: Path) -> None:
    tried = bursar("route", "train", "few.jsonl", "--out", "auto.npz", "--dry-run")
    assert "nothing was written" in tried.out
    assert not (tmp_path / "auto.npz").exists()
    said = bursar("route", "train", "few.jsonl", "--out", "auto.npz")
    assert said.code == tried.code == Exit.ERROR
    assert "cheaper tiers are never named" in said.out
    assert "not enough evidence: frontier always answers; at least about" in said.err
    checked = bursar("route", "check", "auto.npz", "later.jsonl", "--json")
    assert checked.code == Exit.OK
    assert checked.json["sent"] == {"small": 0, "frontier": 500}
    assert checked.json["wrong_rate"] is checked.json["wrong_between"] is None


def test_labels_that_say_nothing_of_their_texts_are_not_asked_for_in_numbers(bursar: Command, tmp_path: Path) -> None:
    write(tmp_path / "noise.jsonl", shuffled(corpus(400, seed=2), 2))
    said = bursar("route", "train", "noise.jsonl", "--out", "auto.npz")
    assert said.code == Exit.ERROR
    assert "even what it is surest of is wrong on more than 5 %" in said.err


def test_a_check_is_made_on_labels_it_has_not_seen_and_fails_where_the_promise_is_surely_broken(
    bursar: Command, tmp_path: Path
) -> None:
    bursar("route", "train", "labels.jsonl", "--out", "auto.npz")
    said = bursar("route", "check", "auto.npz", "later.jsonl", "labels.jsonl")
    assert said.code == Exit.OK, said.err
    assert "500 labels; left out: 2,000 that it was trained or certified on" in said.out
    assert "of what it sends away here; in general on" in said.out
    assert "of what frontier alone costs, for as many tokens" in said.out
    assert "trained or certified on every one" in bursar("route", "check", "auto.npz", "labels.jsonl").err
    write(tmp_path / "changed.jsonl", shuffled(corpus(1000, seed=3), 3))
    changed = bursar("route", "check", "auto.npz", "changed.jsonl")
    assert changed.code == Exit.ERROR
    assert "surely wrong on more than 5 % of what it sends away" in changed.err


def test_one_request_can_be_tried(bursar: Command) -> None:
    bursar("route", "train", "labels.jsonl", "--out", "auto.npz")
    assert "auto: no evidence (0 % of its n-grams are known" in bursar("route", "try", "auto.npz", "全く新しい").out
    easy = next(label.text for label in corpus(50, seed=0) if label.tier == "small")
    told = bursar("route", "try", "auto.npz", easy, "--json").json
    assert told.keys() == {"tier", "confidence", "reason"}


def test_a_classifier_of_ones_own_is_checked_like_the_built_in_one(
    bursar: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "house.py").write_text(
        "from bursar.runtime.routing.classifier import Verdict\n"
        "class Bold:\n"
        "    digest = '0' * 16\n"
        "    def __init__(self, base): pass\n"
        "    def classify(self, messages): return Verdict(tier='small', confidence=1.0, reason='auto: small')\n"
        "class Lost(Bold):\n"
        "    def classify(self, messages): return Verdict(tier='tiny', confidence=1.0, reason='auto: tiny')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "house", raising=False)
    said = bursar("route", "check", "house:Bold", "later.jsonl", "--json")
    assert said.code == Exit.ERROR
    assert said.json["cost_ratio"] == pytest.approx(0.1)
    assert (
        "names tier 'tiny', expected one of small, frontier" in bursar("route", "check", "house:Lost", "few.jsonl").err
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("labels.jsonl", "--out", "auto.pkl"), "expected a name that ends in .npz"),
        (("labels.jsonl", "--out", "auto.npz", "--tiers", "small"), "expected two tiers or more"),
        (("labels.jsonl", "--out", "auto.npz", "--tiers", "small,,frontier"), "expected two tiers or more"),
        (("labels.jsonl", "--out", "auto.npz", "--incumbent", "standard"), "the incumbent 'standard' is no tier"),
        (("nowhere.jsonl", "--out", "auto.npz"), "nowhere.jsonl: cannot be read"),
        (
            ("labels.jsonl", "--out", "auto.npz", "--tiers", "frontier,other"),
            "labels.jsonl:3: tier = 'small': there is no such tier",
        ),
        (("labels.jsonl", "--out", "labels.jsonl/auto.npz"), "cannot be written"),
        (("labels.jsonl", "--out", "auto.npz", "--max-wrong", "1.5"), "--max-wrong"),
    ],
)
def test_a_mistake_is_named_with_what_mends_it(bursar: Command, arguments: tuple[str, ...], said: str) -> None:
    done = bursar("route", "train", *arguments)
    assert done.code in (Exit.ERROR, Exit.USAGE)
    assert said in done.err
    assert " -> " in done.err
    assert "Traceback" not in done.err


def test_without_a_configuration_the_tiers_are_named_and_nothing_is_said_of_cost(
    bursar: Command, tmp_path: Path
) -> None:
    (tmp_path / "bursar.yaml").unlink()
    assert "--tiers small,frontier" in bursar("route", "train", "few.jsonl", "--out", "auto.npz").err
    told = bursar("route", "train", "few.jsonl", "--out", "auto.npz", "--tiers", "small,frontier", "--json").json
    assert told["incumbent"] == "frontier"
    assert told["held_out"]["cost_ratio"] is None


def test_without_scikit_learn_training_says_what_to_install(bursar: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.calibration", None)
    assert "pip install 'bursar[routing]'" in bursar("route", "train", "few.jsonl", "--out", "auto.npz").err
