"""How a classifier did, in words and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bursar.runtime.cli.output import Column, console, print_table
from bursar.runtime.cli.route_setting import Setting
from bursar.runtime.cli.words import plain

if TYPE_CHECKING:
    from bursar.runtime.routing.certify import Certification
    from bursar.runtime.routing.evaluation import Evaluation

__all__ = [
    "certification_json",
    "evaluation_json",
    "percent",
    "print_certification",
    "print_evaluation",
    "print_wrong_rate",
]

_COLUMNS: Sequence[Column] = (
    ("tier", "whole"),
    ("requests", "right"),
    ("share", "right"),
    ("wrongly", "right"),
    "",
)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{share * 100:.3g} %"


def evaluation_json(evaluation: Evaluation, setting: Setting) -> dict[str, Any]:
    """What went where, how much of it wrongly, and what it costs against the incumbent."""
    return {
        "requests": evaluation.requests,
        "sent": dict(evaluation.sent),
        "wrong": dict(evaluation.wrong),
        "no_evidence": evaluation.no_evidence,
        "wrong_rate": evaluation.wrong_away / evaluation.away if evaluation.away else None,
        "wrong_between": evaluation.wrong_between,
        "cost_ratio": setting.cost_ratio(evaluation),
    }


def print_evaluation(evaluation: Evaluation, setting: Setting) -> None:
    """A table of what each tier gets, and what that costs against the incumbent."""
    rows = []
    for tier, count in evaluation.sent.items():
        share = percent(count / evaluation.requests) if evaluation.requests else "-"
        kept = f"the incumbent; {evaluation.no_evidence:,} without evidence"
        is_kept = tier == evaluation.incumbent
        rows.append((tier, f"{count:,}", share, "-" if is_kept else f"{evaluation.wrong[tier]:,}", kept * is_kept))
    print_table(_COLUMNS, rows)
    if (ratio := setting.cost_ratio(evaluation)) is not None:
        text = f"costs {percent(ratio)} of what {evaluation.incumbent} alone costs, for as many tokens"
        console().print(plain(text), soft_wrap=True)


def print_wrong_rate(evaluation: Evaluation) -> None:
    """How often the classifier is wrong, here and in general; nothing where it never leaves the incumbent."""
    if evaluation.wrong_between:
        low, high = map(percent, evaluation.wrong_between)
        rate = percent(evaluation.wrong_away / evaluation.away)
        said = f"wrong on {rate} of what it sends away here; in general on {low} to {high}, with 95 % confidence"
        console().print(said, soft_wrap=True)


def certification_json(certification: Certification | None) -> dict[str, Any] | None:
    """Every threshold that was tested, and the one that may be followed."""
    if certification is None:
        return None
    certified = certification.certified
    return {
        "certified": asdict(certified) if certified else None,
        "tested": [asdict(trial) for trial in certification.trials],
    }


def print_certification(which: str, certification: Certification, confidence: float) -> None:
    """From which probability on tiers of this direction are named."""
    certified = certification.certified
    if certified is None:
        text = f"{which} tiers are never named"
    else:
        text = (
            f"{which} tiers are named from a probability of {certified.threshold:.2f} on: {certified.wrong:,} of "
            f"{certified.routed:,} wrong, so in general at most {percent(certified.bound)}, with "
            f"{percent(confidence)} confidence"
        )
    console().print(text, soft_wrap=True)
