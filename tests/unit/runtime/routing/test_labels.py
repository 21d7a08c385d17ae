"""Labels: what a line may say, what is made of it, and how the runtime writes one."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bursar.budget.errors import ConfigError
from bursar.runtime.routing import labels as module
from bursar.runtime.routing.evidence import TEXT_MAX
from bursar.runtime.routing.labels import Label, Record, append, read_labels

TIERS = ("small", "standard", "frontier")
NOW = datetime(2026, 11, 20, tzinfo=UTC)

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*rows: Any) -> Path:
        file = tmp_path / "labels.jsonl"
        file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
        return file

    return write


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ({"tier": "standard"}, "standard"),
        ({"results": {"small": True, "frontier": True}}, "small"),
        ({"results": {"small": False, "frontier": True}}, "frontier"),
        ({"results": {"frontier": True, "standard": True, "small": False}}, "standard"),
        ({"results": {"frontier": True}}, "frontier"),  # nobody knows what a cheaper one would have done
        ({"results": {"small": False}}, "frontier"),  # none of those that were tried
    ],
)
def test_the_cheapest_tier_that_is_known_to_do_the_job_is_the_label(
    write: Write, said: dict[str, Any], tier: str
) -> None:
    assert read_labels([write({"text": "Hello", **said})], TIERS).rows == (Label("Hello", tier),)


def test_messages_are_read_as_the_classifier_will_read_them(write: Write) -> None:
    messages = [{"role": "system", "content": "Be terse."}, {"role": "user", "content": "Hello"}]
    assert read_labels([write({"messages": messages, "tier": "small"})], TIERS).rows == (Label("Hello", "small"),)
    [row] = read_labels([write({"text": "x" * 9 * TEXT_MAX, "tier": "small"})], TIERS).rows
    assert len(row.text) == TEXT_MAX


def test_a_text_counts_once_with_the_dearest_of_its_labels_and_lines_that_say_nothing_count_not_at_all(
    write: Write,
) -> None:
    read = read_labels(
        [
            write(
                {"text": "a", "tier": "small"},
                {"text": "a", "tier": "frontier"},
                {"text": "a", "tier": "standard"},
                "",
                {"text": "b"},
                {"text": "c", "results": {}},
                {"text": "  ", "tier": "small"},
            )
        ],
        TIERS,
    )
    assert read.rows == (Label("a", "frontier"),)
    assert (read.repeated, read.unlabelled) == (2, 3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "expected an object"),
        ({"tier": "small"}, "expected text, or messages"),
        ({"text": "a", "messages": [], "tier": "small"}, "expected text, or messages"),
        ({"text": 7, "tier": "small"}, "expected text, or messages"),
        ({"messages": ["a"], "tier": "small"}, "expected text, or messages"),
        ({"text": "a", "tier": "smal"}, "tier = 'smal': there is no such tier; did you mean small?"),
        ({"text": "a", "tier": ["small"]}, "there is no such tier"),
        ({"text": "a", "results": {"tiny": True}}, "results = 'tiny': there is no such tier"),
        ({"text": "a", "results": {"small": 1}}, "results: expected true or false for each tier"),
        ({"text": "a", "results": {}, "tier": "small"}, "expected tier or results, not both"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(write: Write, line: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=r"labels\.jsonl:2: ") as error:
        read_labels([write({"text": "fine", "tier": "small"}, line)], TIERS)
    assert said in str(error.value)


def test_bounds_keep_a_file_that_is_no_labels_from_filling_the_memory(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_labels([tmp_path], TIERS)
    monkeypatch.setattr(module, "LABELS_MAX", 2)
    with pytest.raises(ConfigError, match="expected at most 2 texts"):
        read_labels([write(*({"text": text, "tier": "small"} for text in "abc"))], TIERS)
    monkeypatch.setattr(module, "LINE_BYTES_MAX", 10)
    with pytest.raises(ConfigError, match=r":1: expected lines of at most"):
        read_labels([write({"text": "a", "tier": "small"})], TIERS)


def test_what_the_runtime_logs_is_what_training_reads_and_only_its_owner_can(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert append(log, Record(text="a", results={"small": False, "frontier": True}, at=NOW, run_id="run_1", node="n"))
    assert append(log, Record(text="b" * 3 * TEXT_MAX, at=NOW))
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    read = read_labels([log], TIERS)
    assert read.rows == (Label("a", "frontier"),)
    assert read.unlabelled == 1
    assert [len(json.loads(line)["text"]) for line in log.read_text().splitlines()] == [1, TEXT_MAX]


def test_lines_of_many_threads_do_not_mix(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    records = [Record(text=f"{i} \ud800 " + "é" * 1500, results={"small": True}, at=NOW) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda record: append(log, record), records))
    assert {int(row.text.split()[0]) for row in read_labels([log], TIERS).rows} == set(range(200))


def test_a_full_log_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOG_BYTES_MAX", 10)
    log = tmp_path / "log.jsonl"
    assert [append(log, Record(text="a", at=NOW)) for _ in range(2)] == [True, False]
    assert len(log.read_text().splitlines()) == 1
