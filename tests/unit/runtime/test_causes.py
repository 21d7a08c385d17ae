"""The table of causes in docs/failures.md is the one that calls obey."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bursar.runtime.attempt import PATIENCE_S, RETRY_PAUSE_S, RETRY_PAUSE_S_MAX, WAITED_S_MAX
from bursar.runtime.models import health
from bursar.runtime.models.causes import CAUSES, Cause, Cools, Failure, Then, cause_of, chief
from bursar.runtime.models.provider import (
    AuthFailed,
    BadReply,
    ContentFiltered,
    ContextTooLong,
    ProviderError,
    RateLimited,
)
from bursar.runtime.sending import BrokenOff
from bursar.runtime.stop import ModelCallFailed

PAGE = (Path(__file__).parents[3] / "docs" / "failures.md").read_text()
THEN: dict[Then, str] = {"next": "next", "next_larger": "next larger", "stop": "stop"}
COOLS: dict[Cools, str] = {
    "asked": "as long as it asks",
    "failures": "after failures in a row",
    "quota": "until its renewal",
    "setup": "until it is mended",
    "no": "no",
}


def row_of(cause: Cause) -> list[str]:
    """A cause as the page shows it, without what the provider did."""
    return [f"`{cause.name}`", cause.billed, cause.again, THEN[cause.then], COOLS[cause.cools], str(cause.status)]


def test_the_documented_table_is_the_codes() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if "|" in line]
    documented = [[row[0], *row[2:]] for row in rows if len(row) == 7 and row[0].startswith("`")]
    assert documented == [row_of(cause) for cause in CAUSES]


@pytest.mark.parametrize(
    "words",
    [
        f"after {RETRY_PAUSE_S:g} s, then twice as long each time, at most {RETRY_PAUSE_S_MAX:g} s",
        f"only if that is at most {PATIENCE_S:g} s",
        f"or {WAITED_S_MAX:g} s where it has none",
        f"{health.FAILURES_MAX} in a row: {health.COOLED_S:g} s, then twice as long each time, at most "
        f"{health.COOLED_S_MAX / 60:g} min",
        f"else {health.QUOTA_S / 60:g} min",
        f"| until it is mended | {health.SETUP_S / 60:g} min |",
    ],
)
def test_the_documented_times_are_the_codes(words: str) -> None:
    assert words in re.sub(r"\s+", " ", PAGE)


def failed(error: ProviderError) -> Failure:
    return Failure("m", error, cause_of(error).then)


def test_of_several_causes_the_caller_is_told_the_one_that_waiting_helps_most() -> None:
    failures = [failed(AuthFailed("")), failed(RateLimited("", retry_after_s=9)), failed(ContextTooLong(""))]
    error = ModelCallFailed("", failures=failures)
    assert error.cause is cause_of(RateLimited(""))
    assert error.retry_after_s == 9


def test_what_stopped_a_call_is_what_the_caller_is_told() -> None:
    stopped = chief([failed(RateLimited("")), failed(ContentFiltered(""))])
    assert stopped is cause_of(ContentFiltered(""))


def test_an_error_of_a_subclass_is_of_the_cause_that_is_nearest() -> None:
    assert cause_of(BrokenOff("")).name == "broken_stream"
    assert cause_of(ContextTooLong("")).name == "context_too_long"


def test_a_call_that_no_model_was_asked_for_has_no_cause() -> None:
    error = ModelCallFailed("")
    assert (error.cause, error.retry_after_s) == (None, None)


def test_a_failure_says_how_often_it_was_tried() -> None:
    assert Failure("m", BadReply("no"), "next", attempts=3).words() == "m: no (3 attempts)"
