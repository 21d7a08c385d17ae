from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.budget.amounts import DIMENSIONS
from bursar.budget.refusal import Cause, Refusal
from bursar.budget.windows import to_us

MONTH_END = to_us(datetime(2026, 11, 30, 23, tzinfo=UTC))

refusals = st.builds(
    Refusal,
    cause=st.sampled_from(get_args(Cause)),
    kind=st.just("run"),
    path=st.just("acme/support/run_1"),
    dimension=st.sampled_from(["", "seconds"]),
    limit=st.none() | st.integers(0, 10**12),
    posted=st.integers(0, 10**12),
    needed=st.integers(0, 10**12),
    worst=st.integers(0, 10**12),
    resets_us=st.none() | st.just(MONTH_END),
    zone=st.sampled_from(["UTC", "Europe/Paris"]),
).map(lambda made: made if made.cause != "limit" else limited(limit=made.limit or 0, posted=made.posted))


def limited(**changes: Any) -> Refusal:
    about: dict[str, Any] = {
        "cause": "limit",
        "kind": "tenant",
        "path": "acme",
        "dimension": "nanousd",
        "limit": 400_000_000_000,
        "posted": 398_800_000_000,
        "needed": 1_250_000_000,
        "worst": 1_750_000_000,
        "per": "month",
        "window": "2026-11",
        "resets_us": MONTH_END,
        "zone": "Europe/Paris",
    }
    return Refusal(**{**about, **changes})


def test_a_limit_says_scope_rest_need_next_command_and_when_it_resets() -> None:
    assert limited().words() == (
        "refused: tenant acme has $1.20 left of $400.00 (2026-11); this call needs at least $1.25 and may cost up to "
        "$1.75. Nothing was sent. -> bursar budget grant acme --per month --usd 50  |  resets 2026-12-01T00:00+01:00"
    )


@pytest.mark.parametrize(
    ("dimension", "words", "flag"),
    [
        ("nanousd", "$0.00000001 left of $0.00000002; this call needs at least $0.000000011", "usd 1"),
        ("tokens", "10 tokens left of 20 tokens; this call needs at least 11 tokens", "tokens 100000"),
        ("steps", "10 steps left of 20 steps; this call needs at least 11 steps", "steps 20"),
        ("tool_calls", "10 tool calls left of 20 tool calls; this call needs at least 11 tool calls", "tool-calls 50"),
    ],
)
def test_every_dimension_is_said_in_its_own_unit_with_its_own_grant(dimension: str, words: str, flag: str) -> None:
    run = limited(
        kind="run",
        path="acme/support/run_1",
        dimension=dimension,
        limit=20,
        posted=10,
        needed=11,
        worst=11,
        window="",
        resets_us=None,
    )
    assert run.words() == (
        f"refused: run run_1 has {words}. Nothing was sent. -> bursar runs resume run_1 --grant-{flag}"
    )


def test_one_of_a_unit_is_said_in_the_singular() -> None:
    words = limited(dimension="steps", limit=1, posted=0, needed=2, worst=2).words()
    assert "has 1 step left of 1 step (2026-11); this call needs at least 2 steps." in words


@pytest.mark.parametrize(
    ("kind", "path", "name", "command"),
    [
        ("tenant", "acme", "tenant acme", "bursar budget grant acme --per month --usd 50"),
        ("agent", "acme/support", "agent support of acme", "bursar budget grant acme/support --per month --usd 50"),
        ("run", "acme/support/run_1", "run run_1", "bursar runs resume run_1 --grant-usd 1"),
        ("run", "acme/support/run_1/helper.2", "run run_1/helper.2", "bursar runs resume run_1 --grant-usd 1"),
    ],
)
def test_each_kind_of_scope_has_a_name_for_people_and_a_command(kind: str, path: str, name: str, command: str) -> None:
    refusal = limited(kind=kind, path=path)
    assert (refusal.name, refusal.next_step) == (name, command)


@pytest.mark.parametrize(
    ("cause", "words", "command"),
    [
        ("stopped", "was stopped at its limit and nothing was granted since", "runs resume run_1 --grant-steps 20"),
        ("cancelled", "was cancelled", "bursar runs show run_1"),
        ("deadline", "has used its time of 600 s", "bursar runs resume run_1 --seconds 600"),
        ("fenced", "was taken over by another worker", "bursar runs show run_1"),
        ("unpriced", "model house has no price, and run run_1 has a limit in money", "`price: free`"),
    ],
)
def test_every_cause_says_what_happened_and_what_to_do(cause: Cause, words: str, command: str) -> None:
    refusal = Refusal(
        cause=cause,
        kind="run",
        path="acme/support/run_1",
        dimension="seconds" if cause == "deadline" else "steps",
        limit=600,
        detail="house",
    )
    assert words in refusal.words()
    assert command in refusal.next_step


def test_a_run_that_gave_its_last_answer_is_told_no_way_to_go_on_and_its_tenant_is() -> None:
    run = limited(kind="run", path="acme/support/run_1")
    assert run.words(final=True) == run.words().split(" -> ")[0]
    assert limited().words(final=True) == limited().words()


@given(refusals)
def test_a_refusal_comes_back_from_json_and_always_has_words(refusal: Refusal) -> None:
    again = Refusal.from_record(json.loads(json.dumps(refusal.to_record())))
    assert again == refusal
    assert again.words().startswith("refused: ")
    assert "Nothing was sent. -> " in again.words()


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_what_is_left_is_never_below_nothing(dimension: str) -> None:
    assert limited(dimension=dimension, limit=100, posted=250).remaining == 0
    assert limited(limit=None).remaining is None
