"""What a classifier is trained on: lines of JSON that say which tier did a request's job."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

from bursar.budget.errors import ConfigError
from bursar.runtime.config_problems import nearest, one_line
from bursar.runtime.routing.evidence import TEXT_MAX, text_of

__all__ = ["Label", "Labels", "Record", "append", "read_labels"]

LABELS_MAX = 50_000
LINE_BYTES_MAX = 4 * 2**20
LOG_BYTES_MAX = 256 * 2**20
"""A log that is full takes no more: nobody reads what nobody labels."""

_EXAMPLE = '{"text": "...", "tier": "small"} or {"text": "...", "results": {"small": false, "frontier": true}}'


@dataclass(frozen=True, slots=True)
class Label:
    """A request, as a classifier reads it, and the cheapest tier that does its job."""

    text: str
    tier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """What files of labels hold: each text once."""

    rows: tuple[Label, ...]
    repeated: int
    """Lines whose text stood in an earlier one; of differing labels the dearest tier counts."""

    unlabelled: int
    """Lines that say of no tier whether it did the job, and those without a text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request for the log, and what is known of the tiers that answered it."""

    text: str
    """As `text_of` reads it: at most TEXT_MAX characters."""

    results: Mapping[str, bool] = field(default_factory=dict)
    """Whether each tier that was tried did the job; empty where nobody has said."""

    at: datetime
    run_id: str | None = None
    node: str | None = None


def append(path: Path, record: Record) -> bool:
    """Add a line to a log, which only its owner can read; False where it is full.

    Any number of threads and processes may do so at once. Raises OSError.
    """
    line = {
        "at": record.at.isoformat(),
        "text": record.text[:TEXT_MAX],
        "results": dict(record.results) or None,
        "run_id": record.run_id,
        "node": record.node,
    }
    text = json.dumps({key: value for key, value in line.items() if value is not None})
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.fstat(file).st_size > LOG_BYTES_MAX:
            return False
        os.write(file, text.encode() + b"\n")  # one write: lines of several processes do not mix
        return True
    finally:
        os.close(file)


def read_labels(paths: Iterable[Path], tiers: Sequence[str]) -> Labels:
    """The labels of files of JSON lines; `tiers` are all there are, the cheapest first.

    A line has `text` or `messages`, and `tier`, the cheapest that does the job, or `results`, whether each tier that
    was tried did it: then the cheapest that did counts, and where none did, the dearest. Raises ConfigError.
    """
    rank = {tier: place for place, tier in enumerate(tiers)}
    dearest: dict[str, str] = {}
    lines = unlabelled = 0
    for path in paths:
        for number, line in _lines(path):
            label = _Line(path, number, line).label(tiers)
            if label is None:
                unlabelled += 1
                continue
            lines += 1
            known = dearest.setdefault(label.text, label.tier)
            dearest[label.text] = max(known, label.tier, key=rank.__getitem__)
            if len(dearest) > LABELS_MAX:
                raise ConfigError(
                    f"expected at most {LABELS_MAX:,} texts", file=path, next_step="train on the newest of them"
                )
    rows = tuple(Label(text, tier) for text, tier in dearest.items())
    return Labels(rows=rows, repeated=lines - len(rows), unlabelled=unlabelled)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES_MAX + 1):
                number += 1
                if len(line) > LINE_BYTES_MAX:
                    raise ConfigError(
                        f"expected lines of at most {LINE_BYTES_MAX // 2**20} MiB", file=path, line=number
                    )
                if line.strip():
                    yield number, line
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", file=path, next_step="name a file of labels as JSON lines"
        ) from None


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of a file of labels, and where it stands."""

    path: Path
    number: int
    content: bytes

    def label(self, tiers: Sequence[str]) -> Label | None:
        try:
            row = json.loads(self.content)
        except (ValueError, RecursionError) as error:
            self._fail(f"is no JSON: {error}")
        if not isinstance(row, dict):
            self._fail("expected an object")
        tier, text = self._tier(row, tiers), self._text(row)
        return Label(text, tier) if tier and text.strip() else None

    def _text(self, row: Mapping[str, Any]) -> str:
        """As the classifier will read it: what it never sees it must not learn from."""
        text, messages = row.get("text"), row.get("messages")
        if isinstance(text, str) and messages is None:
            return text_of([{"role": "user", "content": text}])
        if isinstance(messages, list) and text is None and all(isinstance(message, dict) for message in messages):
            return text_of(messages)
        self._fail("expected text, or messages as a list of objects")

    def _tier(self, row: Mapping[str, Any], tiers: Sequence[str]) -> str | None:
        tier, results = row.get("tier"), row.get("results")
        if tier is not None and results is not None:
            self._fail("expected tier or results, not both")
        if results is None:
            return None if tier is None else self._known(tier, "tier", tiers)
        if not isinstance(results, dict) or not all(isinstance(did, bool) for did in results.values()):
            self._fail("results: expected true or false for each tier")
        for name in results:
            self._known(name, "results", tiers)
        return next((tier for tier in tiers if results.get(tier)), tiers[-1]) if results else None

    def _known(self, tier: Any, key: str, tiers: Sequence[str]) -> str:
        if tier not in tiers:
            self._fail(f"{key} = {one_line(str(tier))!r}: there is no such tier{nearest(str(tier), tiers)}")
        return str(tier)

    def _fail(self, text: str) -> NoReturn:
        raise ConfigError(text, file=self.path, line=self.number, next_step=_EXAMPLE)
