from __future__ import annotations

import json
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, or_, select, update

from bursar.budget.alerts.thresholds import arm, fire, next_alerts, refused
from bursar.budget.amounts import DIMENSIONS
from bursar.budget.schema import FOREVER_US, account, alert, pot
from bursar.budget.stores.store import Store
from bursar.budget.testing import NOON
from bursar.budget.windows import to_us

CROSSINGS = {"quick": 1_000, "nightly": 10_000}[os.environ.get("BURSAR_SCHEDULES", "quick")]
NOW = to_us(NOON)
HOUR_US = 3_600_000_000
NO_LIMIT: dict[str, int | None] = dict.fromkeys(DIMENSIONS)

on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what has nothing to do with the kind of store."""


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    with closing(Store(store_url)) as store:
        yield store


def a_pot(connection: Connection, percents: list[int] | None, **columns: Any) -> int:
    plain = {"path": "acme", "kind": "tenant", "tenant": "acme", "per": "month", "source": "command", "set_by": "dana"}
    values = {**plain, "set_us": NOW, "alerts": json.dumps(percents) if percents else None, **columns}
    return int(connection.scalars(insert(pot).values(values).returning(pot.c.id)).one())


def a_window(
    connection: Connection, pot_id: int, limit: Mapping[str, int | None], *, name: str = "2026-11", **columns: Any
) -> int:
    limits = {f"limit_{dimension}": limit.get(dimension) for dimension in DIMENSIONS}
    values = {"pot_id": pot_id, "window": name, "starts_us": -FOREVER_US, "ends_us": FOREVER_US, **limits, **columns}
    made = int(connection.scalars(insert(account).values(values).returning(account.c.id)).one())
    arm(connection, made, columns.get("starts_us", NOW))
    return made


def post(connection: Connection, account_id: int, amount: int, *, dimension: str = "nanousd", now: int = NOW) -> bool:
    """What a settle does: one statement, and nothing more where no alert is due; whether one was."""
    changed = {f"posted_{dimension}": account.c[f"posted_{dimension}"] + amount}
    is_due = or_(*(account.c[f"alert_{name}"] <= account.c[f"posted_{name}"] for name in DIMENSIONS))
    update_ = update(account).where(account.c.id == account_id).values(changed).returning(account.c.id, is_due)
    if due := [row[0] for row in connection.execute(update_) if row[1]]:
        fire(connection, due, now, run_id="run_1")
    return bool(due)


def limited(connection: Connection, account_id: int, **limit: int | None) -> None:
    values = {f"limit_{dimension}": value for dimension, value in limit.items()}
    connection.execute(update(account).where(account.c.id == account_id).values(values))
    arm(connection, account_id, NOW)


def told(connection: Connection, path: str = "acme") -> list[tuple[str, int]]:
    """Dimension and percent of every alert, in the order in which they were written."""
    payloads = connection.scalars(select(alert.c.payload).where(alert.c.path == path).order_by(alert.c.id))
    return [(data["dimension"], data["percent"]) for data in (json.loads(one)["data"] for one in payloads)]


# --- Once for each percent, dimension and window ----------------------------------------------------------------------


@on_sqlite
def test_each_percent_is_told_once_when_what_is_posted_reaches_it(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [50, 80, 100]), {"nanousd": 1000})
        for amount, so_far in [
            (499, []),
            (1, [50]),
            (299, [50]),
            (1, [50, 80]),
            (200, [50, 80, 100]),
            (900, [50, 80, 100]),
        ]:
            post(connection, window, amount)
            assert told(connection) == [("usd", percent) for percent in so_far]


@on_sqlite
def test_one_call_that_passes_several_percents_tells_each_of_them(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [50, 80, 100]), {"nanousd": 1000})
        post(connection, window, 5000)
        assert told(connection) == [("usd", 50), ("usd", 80), ("usd", 100)]


@on_sqlite
def test_a_budget_without_alerts_or_without_a_limit_tells_nothing(store: Store) -> None:
    with store.write() as connection:
        for percents, limit in [(None, {"nanousd": 10}), ([80], {})]:
            post(connection, a_window(connection, a_pot(connection, percents, per=str(percents)), limit), 1000)
        assert told(connection) == []


@on_sqlite
def test_every_dimension_has_alerts_of_its_own(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [80]), {"nanousd": 1000, "steps": 10})
        post(connection, window, 9, dimension="steps")
        post(connection, window, 800)
        assert told(connection) == [("steps", 80), ("usd", 80)]


@on_sqlite
def test_a_new_window_tells_again(store: Store) -> None:
    with store.write() as connection:
        of = a_pot(connection, [80])
        for month in ("2026-11", "2026-12"):
            post(connection, a_window(connection, of, {"nanousd": 1000}, name=month), 900)
        assert told(connection) == [("usd", 80), ("usd", 80)]


@on_sqlite
def test_a_raised_limit_does_not_tell_the_same_percent_again(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [50, 80]), {"nanousd": 1000})
        post(connection, window, 600)
        limited(connection, window, nanousd=2000)
        post(connection, window, 400)
        assert told(connection) == [("usd", 50)]
        post(connection, window, 600)
        assert told(connection) == [("usd", 50), ("usd", 80)]


@on_sqlite
def test_a_limit_that_is_set_below_what_is_used_tells_at_once(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [50, 100]), {"nanousd": 1000})
        post(connection, window, 400)
        limited(connection, window, nanousd=300)
        assert told(connection) == [("usd", 50), ("usd", 100)]


@on_sqlite
def test_a_limit_of_nothing_tells_with_the_first_that_is_spent(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [100]), {"nanousd": 0})
        assert told(connection) == []
        post(connection, window, 1)
        assert told(connection) == [("usd", 100)]


@on_sqlite
def test_a_hard_limit_that_refuses_calls_counts_as_reached(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, [50, 100]), {"nanousd": 1000})
        post(connection, window, 980)
        assert refused(connection, window, "nanousd", NOW) == 1
        assert refused(connection, window, "nanousd", NOW) == 0
        post(connection, window, 20)
        assert told(connection) == [("usd", 50), ("usd", 100)]


# --- What it says -----------------------------------------------------------------------------------------------------


@on_sqlite
def test_an_alert_says_whose_limit_it_is_how_far_it_is_used_up_and_what_to_do(store: Store) -> None:
    with store.write() as connection:
        of = a_pot(connection, [80], mode="soft")
        window = a_window(connection, of, {"nanousd": 400_000_000_000}, ends_us=NOW + HOUR_US)
        post(connection, window, 320_010_000_000)
        row = connection.execute(select(alert)).mappings().one()
    assert (row["kind"], row["tenant"], row["path"], row["run_id"]) == ("limit.percent", "acme", "acme", "run_1")
    assert json.loads(row["payload"]) == {
        "type": "limit.percent",
        "timestamp": "2026-11-20T12:00:00+00:00",
        "data": {
            "scope": "acme",
            "run_id": "run_1",
            "message": "acme has used 80 %: $320.01 of $400.00 (2026-11)",
            "dimension": "usd",
            "limit": "400.000000000",
            "spent": "320.010000000",
            "held": "0.000000000",
            "mode": "soft",
            "per": "month",
            "window": "2026-11",
            "resets_at": "2026-11-20T13:00:00+00:00",
            "next": "bursar budget grant acme --per month --usd 50",
            "percent": 80,
        },
    }


# --- Nothing is missed, nothing is told twice -------------------------------------------------------------------------


@given(
    limit=st.dictionaries(st.sampled_from(DIMENSIONS), st.none() | st.integers(0, 2**62)),
    percents=st.lists(st.integers(1, 1000), max_size=5, unique=True),
    told=st.sets(st.tuples(st.sampled_from(DIMENSIONS), st.integers(1, 1000)), max_size=5),
)
def test_what_is_armed_is_the_least_amount_that_is_a_percent_nobody_was_told_of(
    limit: dict[str, int | None], percents: list[int], told: set[tuple[str, int]]
) -> None:
    for name, at in next_alerts(limit, percents, told).items():
        bound = limit.get(name)
        left = [percent for percent in percents if (name, percent) not in told]
        if bound is None or not left:
            assert at is None
            continue
        assert at is not None
        assert at * 100 >= bound * min(left)
        assert at == 1 or (at - 1) * 100 < bound * min(left)


class Model:
    """What somebody who looked after every change would have seen."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[str, str, int]] = Counter()
        self.limit: dict[str, int] = {}
        self.posted: dict[str, int] = dict.fromkeys(DIMENSIONS, 0)
        self.window = ""

    def look(self, percents: list[int]) -> None:
        for name, limit in self.limit.items():
            for percent in percents:
                if self.posted[name] >= max(1, -(-limit * percent // 100)):
                    self.seen[self.window, name, percent] = 1


def test_of_any_crossings_none_is_missed_and_none_is_told_twice(store: Store) -> None:
    """Under postings of any size, limits raised and lowered, grants, changed percents and new windows."""
    rng, model, window, of, number = random.Random(20261120), Model(), 0, 0, 0
    percents: list[int] = []
    while model.seen.total() < CROSSINGS:
        with store.write() as connection:
            for _ in range(200):
                if not window or rng.random() < 0.05:
                    number += 1
                    percents = rng.sample(range(1, 130), rng.randint(1, 6))
                    of = a_pot(connection, percents, per=str(number))
                    model.window, model.posted = str(number), dict.fromkeys(DIMENSIONS, 0)
                    model.limit = {name: rng.randint(0, 1000) for name in DIMENSIONS if rng.random() < 0.7}
                    window = a_window(connection, of, model.limit, name=model.window)
                name = rng.choice(DIMENSIONS)
                what = rng.random()
                if what < 0.75:
                    amount = rng.choice([0, 1, rng.randint(0, 50), rng.randint(0, 700)])
                    model.posted[name] += amount
                    post(connection, window, amount, dimension=name)
                elif what < 0.95 and name in model.limit:
                    model.limit[name] = max(0, model.limit[name] + rng.randint(-400, 400))
                    limited(connection, window, **{name: model.limit[name]})
                else:
                    percents = rng.sample(range(1, 130), rng.randint(0, 6))
                    connection.execute(update(pot).where(pot.c.id == of).values(alerts=json.dumps(percents)))
                    arm(connection, window, NOW)
                model.look(percents)
    assert told_by_window(store) == model.seen


def told_by_window(store: Store) -> Counter[tuple[str, str, int]]:
    with store.read() as connection:
        found = [json.loads(one)["data"] for one in connection.scalars(select(alert.c.payload))]
    names = {"usd": "nanousd"}
    return Counter((data["window"], names.get(data["dimension"], data["dimension"]), data["percent"]) for data in found)


def test_calls_that_are_settled_at_the_same_time_tell_each_percent_once(store: Store) -> None:
    with store.write() as connection:
        window = a_window(connection, a_pot(connection, list(range(1, 101))), {"nanousd": 400})
    together = threading.Barrier(4)

    def settle(_: int) -> None:
        with closing(Store(store.url)) as own:
            together.wait()
            for _ in range(100):
                with own.write() as connection:
                    post(connection, window, 1)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(settle, range(4)))
    with store.read() as connection:
        assert told(connection) == [("usd", percent) for percent in range(1, 101)]


# --- Rolling windows --------------------------------------------------------------------------------------------------

BUCKET_US = HOUR_US // 60


def a_bucket(connection: Connection, of: int, place: int, limit: int) -> int:
    starts = NOW + place * BUCKET_US
    span = {"starts_us": starts, "ends_us": starts + BUCKET_US}
    return a_window(connection, of, {"nanousd": limit}, name=f"bucket {place}", **span)


def test_a_rolling_window_tells_when_all_its_buckets_together_reach_a_percent(store: Store) -> None:
    with store.write() as connection:
        of = a_pot(connection, [80], per="rolling-1h")
        for place in range(8):
            post(connection, a_bucket(connection, of, place, 1000), 100, now=NOW + place * BUCKET_US)
            assert told(connection) == [("usd", 80)] * (place == 7)


def test_a_rolling_window_that_stays_above_a_percent_tells_it_again_only_after_its_whole_length(store: Store) -> None:
    with store.write() as connection:
        of = a_pot(connection, [50], per="rolling-1h")
        for place in range(180):  # 20 in each minute of three hours: 1200 in the hour, of 1000
            post(connection, a_bucket(connection, of, place, 1000), 20, now=NOW + place * BUCKET_US)
        at = list(connection.scalars(select(alert.c.at_us).order_by(alert.c.id)))
    assert [(one - NOW) // BUCKET_US for one in at] == [24, 84, 144]


@on_sqlite
def test_a_settle_in_a_rolling_window_seldom_has_to_look_at_it(store: Store) -> None:
    with store.write() as connection:
        of = a_pot(connection, [100], per="rolling-1h")
        for place in range(40):
            newest = a_bucket(connection, of, place, 2_000)
        looks = [post(connection, newest, 1, now=NOW + 40 * BUCKET_US) for _ in range(2_000)]
        assert told(connection) == [("usd", 100)]
        assert sum(looks) < 20


def test_a_rolling_window_misses_no_crossing_whatever_bucket_is_posted_to(store: Store) -> None:
    rng = random.Random(20261120)
    for number in range(20):
        path, spent, buckets = f"tenant{number}", 0, list[int]()
        with store.write() as connection:
            of = a_pot(connection, [30, 60, 90, 100], per="rolling-1h", path=path, tenant=path)
            while spent < 1000:
                if not buckets or (rng.random() < 0.2 and len(buckets) < 40):
                    buckets.append(a_bucket(connection, of, len(buckets), 1000))
                amount = rng.choice([1, 3, rng.randint(1, 120)])
                post(connection, rng.choice(buckets), amount, now=NOW + len(buckets) * BUCKET_US)
                spent += amount
                reached = [("usd", percent) for percent in (30, 60, 90, 100) if spent >= percent * 10]
                assert told(connection, path) == reached
