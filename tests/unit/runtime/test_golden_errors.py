"""The golden files: what providers say when they refuse, and the row of the table of causes that each is."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.runtime.models.causes import CAUSES, cause_of
from bursar.runtime.models.refusals import Refused, read_refusal

GOLDEN = Path(__file__).parents[2] / "golden"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
VLLM = {
    "the prompt alone is longer than the window": "context_too_long",
    "max_tokens alone is larger than the window": "context_too_long",
    "--max-num-queued-reqs is reached": "overloaded",
    "--max-num-queued-tokens is reached": "overloaded",
    "no such model or adapter": "model_missing",
    "a wrong key, with --api-key": "auth",
    "the engine's process has died": "unavailable",
}
"""What is not named here is a bad request."""


def lines(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (GOLDEN / file).read_text().splitlines()]


def read(line: dict[str, Any]) -> Refused:
    return read_refusal(line["status"], line["headers"], line["body"], NOW)


PROVIDERS = lines("provider_errors.jsonl")
SERVED = [line for line in lines("vllm_errors.jsonl") if line["status"] != 200]


@pytest.mark.parametrize("line", PROVIDERS, ids=[f"{line['provider']}: {line['what']}" for line in PROVIDERS])
def test_a_refusal_is_of_the_cause_that_its_status_and_its_codes_say(line: dict[str, Any]) -> None:
    found = read(line)
    assert (cause_of(found.kind("")).name, found.kind.billed) == (line["error"], line["billed"])
    assert found.retry_after_s == line["retry_after_s"]


@pytest.mark.parametrize("line", SERVED, ids=[line["what"] for line in SERVED])
def test_a_refusal_of_a_real_vllm_is_of_its_cause(line: dict[str, Any]) -> None:
    assert cause_of(read(line).kind("")).name == VLLM.get(line["what"], "bad_request")


def test_every_cause_that_a_provider_can_say_is_in_the_golden_file() -> None:
    ours = {"broken_stream"}
    assert {line["error"] for line in PROVIDERS} == {cause.name for cause in CAUSES} - ours


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=12), inner, max_size=5),
    max_leaves=20,
)


@given(
    status=st.integers(300, 599),
    body=st.text(max_size=200) | st.builds(json.dumps, JSON) | st.builds(lambda of: json.dumps({"error": of}), JSON),
    headers=st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "x-amzn-errortype"]), st.text()),
)
def test_whatever_a_provider_answers_is_of_one_cause(status: int, body: str, headers: dict[str, str]) -> None:
    found = read_refusal(status, headers, body, NOW)
    assert cause_of(found.kind("")) in CAUSES
    assert found.retry_after_s is None or found.retry_after_s >= 0


def test_a_body_of_any_depth_is_read_in_its_first_levels() -> None:
    assert read_refusal(400, {}, "[" * 100_000, NOW).kind.billed == "no"
    deep = json.dumps({"error": {"message": "no"}}).replace('"no"', "[" * 500 + '"insufficient_quota"' + "]" * 500)
    assert cause_of(read_refusal(400, {}, deep, NOW).kind("")).name == "bad_request"
