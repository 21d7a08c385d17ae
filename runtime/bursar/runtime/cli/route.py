"""`bursar route check | try`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from bursar.budget.errors import UsageError
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import console, print_error, print_json, print_words
from bursar.runtime.cli.patience import patience
from bursar.runtime.cli.route_setting import Incumbent, LabelFiles, MaxWrong, Tiers, setting
from bursar.runtime.cli.route_words import evaluation_json, percent, print_evaluation, print_wrong_rate
from bursar.runtime.cli.words import counted, plain
from bursar.runtime.routing.classifier import Classifier, load_classifier

if TYPE_CHECKING:
    from bursar.runtime.routing.labels import Label

__all__ = ["check", "try_out"]

Reference = Annotated[
    str, Parameter(name="CLASSIFIER", help="A trained file, module:function, or an entry point's name.")
]


def check(
    classifier: Reference,
    labels: LabelFiles,
    /,
    *,
    tiers: Tiers = None,
    incumbent: Incumbent = None,
    max_wrong: MaxWrong = 0.05,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> int:
    """Say how a classifier does on labels that it was not trained on."""
    from bursar.runtime.routing.evaluation import evaluate
    from bursar.runtime.routing.labels import read_labels

    loaded = load_classifier(classifier, base=Path())
    between = setting(config, tiers or _own_tiers(loaded), incumbent or getattr(loaded, "incumbent", None))
    rows = read_labels(labels, between.tiers).rows
    unseen = _unseen(loaded, rows)
    with patience("checking") as tell:
        done = evaluate(loaded, unseen, tiers=between.tiers, incumbent=between.incumbent, tell=tell)
    if as_json:
        print_json({"digest": loaded.digest, "trained_on": len(rows) - len(unseen)} | evaluation_json(done, between))
    else:
        known = len(rows) - len(unseen)
        left_out = f"; left out: {known:,} that it was trained or certified on" if known else ""
        console().print(plain(f"{counted(len(unseen), 'label')}{left_out}"), soft_wrap=True)
        print_evaluation(done, between)
        print_wrong_rate(done)
    if done.wrong_between and done.wrong_between[0] > max_wrong:
        print_error(
            f"surely wrong on more than {percent(max_wrong)} of what it sends away: requests are not what they were",
            next_step=f"bursar route train LABELS --out {classifier}",
        )
        return Exit.ERROR
    return Exit.OK


def try_out(
    classifier: Reference,
    text: Annotated[str, Parameter(name="TEXT", help="What a user might ask for.")],
    /,
    *,
    as_json: AsJson = False,
) -> None:
    """Say which tier a request would go to, and why."""
    verdict = load_classifier(classifier, base=Path()).classify([{"role": "user", "content": text}])
    if as_json:
        return print_json(asdict(verdict))
    return print_words(verdict.reason)


def _own_tiers(classifier: Classifier) -> str | None:
    """Those that a trained file was made for, whatever bursar.yaml says today."""
    return ",".join(getattr(classifier, "tiers", ())) or None


def _unseen(classifier: Classifier, rows: Sequence[Label]) -> list[Label]:
    """Labels that a classifier learned from would flatter it."""
    has_seen = getattr(classifier, "has_seen", lambda text: False)
    unseen = [label for label in rows if not has_seen(label.text)]
    if not unseen:
        raise UsageError(
            "it was trained or certified on every one of these labels" if rows else "there are no labels here",
            next_step="check it on others",
        )
    return unseen
