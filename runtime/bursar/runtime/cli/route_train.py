"""`bursar route train`."""

from __future__ import annotations

import shlex
from os.path import relpath
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.errors import UsageError
from bursar.runtime.cli.exits import Exit
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, DryRun
from bursar.runtime.cli.output import console, print_error, print_json, print_next
from bursar.runtime.cli.patience import patience
from bursar.runtime.cli.route_setting import Incumbent, LabelFiles, MaxWrong, Setting, Tiers, setting
from bursar.runtime.cli.route_words import (
    certification_json,
    evaluation_json,
    percent,
    print_certification,
    print_evaluation,
)
from bursar.runtime.cli.words import counted, plain

if TYPE_CHECKING:
    from bursar.runtime.routing.evaluation import Evaluation
    from bursar.runtime.routing.labels import Labels
    from bursar.runtime.routing.training import Training

__all__ = ["train"]


def train(
    labels: LabelFiles,
    /,
    *,
    out: Annotated[Path, Parameter(help="The file to write; ends in .npz.")],
    tiers: Tiers = None,
    incumbent: Incumbent = None,
    max_wrong: MaxWrong = 0.05,
    confidence: Annotated[
        float, Parameter(help="How surely that holds, for requests like the labels.", validator=Number(gte=0.5, lt=1))
    ] = 0.95,
    seed: Annotated[int, Parameter(help="Of the split of the labels.", validator=Number(gte=0))] = 0,
    dry_run: DryRun = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> int:
    """Train what chooses the tier of `auto`, from requests of which it is known which tier does the job."""
    from bursar.runtime.routing.labels import read_labels

    if out.suffix != ".npz":
        raise UsageError(f"{out}: expected a name that ends in .npz", next_step="--out routes/auto.npz")
    between = setting(config, tiers, incumbent)
    read = read_labels(labels, between.tiers)
    trained, held_out = _trained(read, between, max_wrong, confidence, seed)
    if not dry_run:
        from bursar.runtime.routing.trained_file import write_trained

        write_trained(out, trained.classifier)
    if as_json:
        print_json(_json(out, read, trained, held_out, between) | {"dry_run": dry_run})
    else:
        _tell(read, trained, held_out, between, confidence)
        _tell_file(out, trained, config, dry_run=dry_run)
    missing = trained.labels_missing
    if missing != 0:
        print_error(_too_little(trained, missing, max_wrong), next_step="label more requests, and train again")
    return Exit.OK if missing == 0 else Exit.ERROR


def _trained(
    read: Labels, between: Setting, max_wrong: float, confidence: float, seed: int
) -> tuple[Training, Evaluation]:
    """The classifier, and how it does on what it has not learned from."""
    try:
        from bursar.runtime.routing.training import train as learn  # with numpy
    except ModuleNotFoundError as error:
        raise UsageError(f"training needs {error.name}", next_step="pip install 'bursar[routing]'") from error
    from bursar.runtime.routing.evaluation import evaluate

    with patience("training") as tell:
        trained = learn(
            read.rows,
            tiers=between.tiers,
            incumbent=between.incumbent,
            max_wrong=max_wrong,
            confidence=confidence,
            seed=seed,
            tell=tell,
        )
    held_out = evaluate(trained.classifier, trained.held, tiers=between.tiers, incumbent=between.incumbent)
    return trained, held_out


def _too_little(trained: Training, missing: int | None, max_wrong: float) -> str:
    kept = f"{trained.classifier.incumbent} always answers"
    if missing is not None:
        return f"not enough evidence: {kept}; at least about {missing:,} more labels like these are needed"
    return (
        f"not enough evidence: {kept}; even what it is surest of is wrong on more than {percent(max_wrong)}, which "
        "more labels change only if they tell the tiers apart better"
    )


def _tell(read: Labels, trained: Training, held_out: Evaluation, between: Setting, confidence: float) -> None:
    left_out = []
    if read.repeated:
        left_out.append(f"{counted(read.repeated, 'line')} with a text that stands in another")
    if read.unlabelled:
        left_out.append(f"{counted(read.unlabelled, 'line')} without a label or a text")
    text = f"trained on {counted(trained.fitted, 'label')}, tested on {len(trained.held):,} others"
    console().print("; left out: ".join(filter(None, (text, ", ".join(left_out)))), soft_wrap=True)
    print_evaluation(held_out, between)
    for which, certification in (("cheaper", trained.down), ("dearer", trained.up)):
        if certification:
            print_certification(which, certification, confidence)


def _tell_file(out: Path, trained: Training, config: Path, *, dry_run: bool) -> None:
    if dry_run:
        return console().print("nothing was written")
    size = f"{out.stat().st_size / 1000:,.0f} kB"
    console().print(plain(f"wrote {out}: {size}, digest {trained.classifier.digest}"), soft_wrap=True)
    section = f"auto: {{classifier: {relpath(out, config.parent)}, incumbent: {trained.classifier.incumbent}}}"
    console().print(plain(f"in {config.name}: {section}"), soft_wrap=True)
    return print_next([f"bursar route check {shlex.quote(str(out))} LABELS"])


def _json(out: Path, read: Labels, trained: Training, held_out: Evaluation, between: Setting) -> dict[str, object]:
    return {
        "file": str(out),
        "digest": trained.classifier.digest,
        "tiers": between.tiers,
        "incumbent": between.incumbent,
        "fitted": trained.fitted,
        "repeated": read.repeated,
        "unlabelled": read.unlabelled,
        "held_out": evaluation_json(held_out, between),
        "cheaper": certification_json(trained.down),
        "dearer": certification_json(trained.up),
        "labels_missing": trained.labels_missing,
    }
