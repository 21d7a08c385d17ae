"""The seam to whatever chooses the tier of a call that asks for `auto`: one verb, one verdict."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from bursar.budget.errors import ConfigError
from bursar.runtime.config_problems import nearest, one_line
from bursar.runtime.models.provider import Message

__all__ = ["GROUP", "SUFFIX", "Classifier", "Verdict", "load_classifier"]

GROUP = "bursar.classifiers"
"""The entry points of classifiers."""

SUFFIX = ".npz"
"""How a file that `bursar route train` has made ends."""

_FACTORY = re.compile(r"[\w.]+:[\w.]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Which tier a call should go to."""

    tier: str | None
    """None for no evidence: whoever asked keeps the incumbent tier."""

    confidence: float
    """The calibrated probability that the tier named is right, from 0 to 1; 0 where none is named."""

    reason: str
    """Short, for the ledger: `auto: small at 0.93 (threshold 0.88, certified on 412 labels)`."""


@runtime_checkable
class Classifier(Protocol):
    """Whatever chooses a tier. It is asked before each call of `auto`, from any thread, and the call waits for it."""

    def classify(self, messages: Sequence[Message]) -> Verdict:
        """The tier that these messages need; never a cheap one for want of evidence."""

    @property
    def digest(self) -> str:
        """What it was trained to, in 16 hexadecimal digits, so that a decision can be traced to it."""


def load_classifier(reference: str, *, base: Path) -> Classifier:
    """The classifier that `reference` names: takes the time of a file or an import, so keep what it returns.

    A file ending in .npz, relative to `base`; `module:factory`; or the name of an entry point of `bursar.classifiers`.
    A factory is called with `base`. Raises ConfigError.
    """
    if reference.endswith(SUFFIX):
        return _trained(base / reference)
    factory = _imported(reference) if _FACTORY.fullmatch(reference) else _registered(reference)
    try:
        made = factory(base)
    except Exception as error:  # whatever code of others raises is a reason why there is no classifier
        raise ConfigError(f"classifier {reference}: {_said(error)}", key="auto.classifier") from error
    if not isinstance(made, Classifier):
        raise ConfigError(
            f"classifier {reference}: {type(made).__name__} has no classify or no digest",
            key="auto.classifier",
            next_step="see docs/routing.md",
        )
    return made


def _trained(path: Path) -> Classifier:
    try:
        from bursar.runtime.routing.trained_file import read_trained  # with numpy
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"{path}: a trained classifier needs {error.name}", next_step="pip install 'bursar[routing]'"
        ) from error
    return read_trained(path)


def _imported(reference: str) -> Callable[[Path], Any]:
    module, _, name = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs code of others
        raise ConfigError(
            f"classifier {reference}: {_said(error)}",
            key="auto.classifier",
            next_step="name a function that Python finds, as module:function",
        ) from error
    return _callable(reference, found)


def _registered(reference: str) -> Callable[[Path], Any]:
    points = entry_points(group=GROUP)
    if reference not in points.names:
        raise ConfigError(
            f"classifier {one_line(reference)!r}: expected a file ending in {SUFFIX}, module:function, or an entry "
            f"point of {GROUP}{nearest(reference, sorted(points.names))}",
            key="auto.classifier",
            next_step="bursar route train LABELS --out routes/auto.npz",
        )
    try:
        found = points[reference].load()
    except Exception as error:  # importing runs code of others
        raise ConfigError(f"classifier {reference}: {_said(error)}", key="auto.classifier") from error
    return _callable(reference, found)


def _callable(reference: str, found: Any) -> Callable[[Path], Any]:
    if not callable(found):
        raise ConfigError(
            f"classifier {reference}: expected a function of a folder, not {type(found).__name__}",
            key="auto.classifier",
        )
    return found  # type: ignore[no-any-return]  # what it takes shows when it is called


def _said(error: Exception) -> str:
    return one_line(f"{type(error).__name__}: {error}")
