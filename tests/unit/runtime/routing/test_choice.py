"""Who answers a call, in which order, and why."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.agents.tier import Data
from bursar.budget.errors import UsageError
from bursar.budget.refusal import Refusal
from bursar.runtime.ask import Ask
from bursar.runtime.config_routing import DowngradeStep
from bursar.runtime.models.causes import Failure
from bursar.runtime.models.provider import QuotaExhausted
from bursar.runtime.routing.allow import Policy
from bursar.runtime.routing.choice import Choice, Chooser, Situation, choose
from tests.unit.runtime.routing.house import CATALOG, TIERS, asked, exchange, left

LADDER = (DowngradeStep(below_percent=50, tier="standard"), DowngradeStep(below_percent=20, tier="small"))
ACME = Policy(tenant="acme")
BROKE = Refusal(cause="limit", kind="tenant", path="acme", dimension="nanousd", limit=10**9, posted=10**9, needed=1)


def chosen(ask: Ask, *, policy: Policy = ACME, now: Situation | None = None, tokens: int = 100) -> Choice:
    return choose(ask, tokens, CATALOG, policy, now or Situation())


def names(choice: Choice) -> list[str]:
    return [candidate.model.name for candidate in choice.candidates]


def reasons(choice: Choice) -> list[str]:
    return [candidate.reason for candidate in choice.candidates]


def cooling(*cold: str) -> Any:
    error = QuotaExhausted("cools down until 2026-12-01 00:00:00 UTC: insufficient_quota")
    return lambda name: Failure(name, error, "next", attempts=0) if name in cold else None


def test_the_models_of_a_tier_are_asked_in_its_order() -> None:
    choice = chosen(asked("small"))
    assert names(choice) == ["llama", "mini"]
    assert reasons(choice) == ["first of tier small", "after llama, next of tier small"]


def test_a_model_whose_slots_are_taken_lets_the_next_one_go_first_and_the_reason_counts_them() -> None:
    choice = chosen(asked("small"), now=Situation(in_flight={"llama": 2}))
    assert reasons(choice)[1] == "llama busy (2 of 2 slots), next of tier small"


def test_a_call_that_does_not_fit_a_window_passes_the_model_by() -> None:
    choice = chosen(asked("small"), tokens=9_000)
    assert (names(choice), reasons(choice)) == (["mini"], ["llama holds 8192 tokens, next of tier small"])


def test_a_cooling_model_is_passed_by_with_what_it_failed_of() -> None:
    choice = chosen(asked("small"), now=Situation(cooling=cooling("llama")))
    assert reasons(choice) == ["llama cools down (quota), next of tier small"]
    nobody = chosen(asked("small"), now=Situation(cooling=cooling("llama", "mini")))
    assert nobody.candidates == ()
    assert [obstacle.failure.model for obstacle in nobody.passed if obstacle.failure] == ["llama", "mini"]


@pytest.mark.parametrize(("percent", "tier"), [(100, "frontier"), (50, "frontier"), (49, "standard"), (19, "small")])
def test_the_ladder_bounds_the_tier_by_the_share_that_is_left(percent: int, tier: str) -> None:
    choice = chosen(asked("frontier"), policy=Policy(tenant="acme", ladder=LADDER), now=Situation(left=left(percent)))
    assert choice.stage.tier == tier


def test_the_reason_names_the_ladder_the_share_and_what_was_asked_for() -> None:
    choice = chosen(asked("frontier"), policy=Policy(tenant="acme", ladder=LADDER), now=Situation(left=left(18)))
    assert reasons(choice)[0] == "acme's ladder, 18 % of $400.00 left (frontier asked); first of tier small"


def test_a_node_may_forbid_the_ladder_to_lead_below_a_tier() -> None:
    policy = Policy(tenant="acme", ladder=LADDER)
    choice = chosen(asked("frontier", min_tier="standard"), policy=policy, now=Situation(left=left(1)))
    assert choice.stage.tier == "standard"
    assert "but not below standard" in reasons(choice)[0]
    with pytest.raises(UsageError, match="there is no tier 'standart'"):
        chosen(asked("frontier", min_tier="standart"))


def test_data_that_may_not_leave_the_house_goes_to_local_models_alone() -> None:
    choice = chosen(asked("frontier", data="local_only"))
    assert names(choice) == ["own"]
    assert reasons(choice) == ["big is not local, mid is not local, next of tier frontier"]
    assert names(chosen(asked("frontier"), policy=Policy(tenant="acme", data="local_only"))) == ["own"]


def test_tenant_and_node_may_each_name_the_models_that_serve_them() -> None:
    policy = Policy(tenant="acme", models=["mini", "mid"])
    assert names(chosen(asked("standard"), policy=policy)) == ["mid", "mini"]
    assert names(chosen(asked("standard", models=["mini", "big"]), policy=policy)) == ["mini"]
    assert [o.words for o in chosen(asked("frontier", models=["big"]), policy=policy).passed] == [
        "big is not among acme's models",
        "mid is not among the node's models",
        "own is not among acme's models",
    ]


def test_a_model_that_was_asked_for_by_name_answers_alone() -> None:
    choice = chosen(asked(model="mid"))
    assert [(one.tier, one.model.name, one.reason) for one in choice.candidates] == [
        ("standard", "mid", "mid was asked for; first of tier standard")
    ]
    with pytest.raises(UsageError, match="there is no model 'mit'"):
        chosen(asked(model="mit"))


def test_auto_goes_where_the_classifier_says_and_never_where_the_tenant_may_not() -> None:
    now = Situation(auto=lambda _: ("small", "auto: small at 0.93"))
    assert reasons(chosen(asked("auto"), now=now))[0] == "auto: small at 0.93; first of tier small"
    choice = chosen(asked("auto"), now=now, policy=Policy(tenant="acme", tiers=["frontier"]))
    assert choice.stage.tier == "frontier"
    assert reasons(choice)[0] == "auto: small at 0.93, which acme may not use; first of tier frontier"


def test_a_tool_exchange_stays_with_the_model_that_called() -> None:
    for ask in (asked("small", messages=exchange("mini")), asked("auto", messages=exchange("mini"))):
        choice = chosen(ask, now=Situation(author="mini", auto=lambda _: ("frontier", "auto: frontier at 0.99")))
        assert reasons(choice)[0] == "stays on mini, which called the tools"
        assert choice.candidates[0].held
    stepped = chosen(
        asked("frontier", messages=exchange("big")),
        policy=Policy(tenant="acme", ladder=LADDER),
        now=Situation(author="big", left=left(1)),
    )
    assert names(stepped)[0] == "big"


def test_a_tool_exchange_leaves_a_model_that_cannot_be_had_and_says_so() -> None:
    now = Situation(author="mini", cooling=cooling("mini"))
    choice = chosen(asked("small", messages=exchange("mini")), now=now)
    assert names(choice) == ["llama"]
    assert reasons(choice)[0].startswith("leaves mini in a tool exchange: mini cools down (quota)")


def test_a_node_that_names_a_tier_gets_it_whoever_wrote_the_messages_before() -> None:
    assert names(chosen(asked("small", messages=exchange("big")), now=Situation(author="big"))) == ["llama", "mini"]


def test_a_ladder_that_was_raised_again_does_not_break_an_exchange_on_a_lower_tier() -> None:
    policy = Policy(tenant="acme", ladder=LADDER)
    now = Situation(author="mini", left=left(100))
    assert names(chosen(asked("frontier", messages=exchange("mini")), policy=policy, now=now))[0] == "mini"
    after = [*exchange("mini"), {"role": "assistant", "content": "It came.", "model": "mini"}]
    assert names(chosen(asked("frontier", messages=after), policy=policy, now=now))[0] == "big"


TALK = [
    {"role": "user", "content": "word " * 4_000},
    {"role": "assistant", "content": "Yes.", "model": "mid"},
    {"role": "user", "content": "And?"},
]


def test_a_switch_that_costs_more_than_it_saves_is_not_made_where_it_is_optional() -> None:
    choice = chosen(asked("standard", messages=TALK), now=Situation(author="mini"), tokens=4_000)
    assert reasons(choice)[0] == "stays on mini: about $0.0004019 from its cache, mid $0.004004"
    dear = chosen(
        asked("frontier", messages=TALK),
        policy=Policy(tenant="acme", ladder=LADDER),
        now=Situation(author="big", left=left(40)),
        tokens=4_000,
    )
    assert names(dear)[0] == "big"  # from its cache it costs $0.0012, and mid would cost $0.004
    free = chosen(asked("small", messages=TALK), now=Situation(author="mini"), tokens=4_000)
    assert names(free)[0] == "llama"


def test_auto_may_always_go_up() -> None:
    now = Situation(author="mini", auto=lambda _: ("frontier", "auto: frontier at 0.99"))
    assert names(chosen(asked("auto", messages=TALK), now=now, tokens=4_000))[0] == "big"


def lower(ask: Ask, policy: Policy, now: Situation) -> list[str]:
    chooser = Chooser(ask, 100, CATALOG, policy, now)
    return [stage.tier for stage in chooser.after(chooser.stage(), BROKE)]


def test_where_the_money_is_gone_lower_tiers_are_asked_as_the_policy_says() -> None:
    downgrades = Situation(downgrades=True)
    assert lower(asked("frontier"), ACME, Situation()) == []
    assert lower(asked("frontier"), ACME, downgrades) == ["standard", "small"]
    assert lower(asked("frontier", min_tier="standard"), ACME, downgrades) == ["standard"]
    assert lower(asked("frontier"), Policy(tenant="acme", tiers=["small", "frontier"]), downgrades) == ["small"]
    assert lower(asked("frontier"), Policy(tenant="acme", ladder=LADDER), Situation()) == ["small"]
    assert lower(asked("small"), ACME, downgrades) == []


MODELS = ("llama", "mini", "mid", "big", "own")
SOME = st.none() | st.sets(st.sampled_from(MODELS), min_size=1).map(sorted)
MESSAGES = st.sampled_from([exchange("mini"), exchange("big"), exchange(None), TALK])


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    verdict = draw(st.sampled_from(TIERS))
    cold = draw(st.sets(st.sampled_from(MODELS)))
    return Situation(
        left=draw(st.none() | st.integers(0, 100).map(left)),
        in_flight=draw(st.dictionaries(st.sampled_from(MODELS), st.integers(0, 3))),
        cooling=cooling(*cold),
        author=draw(st.none() | st.sampled_from(MODELS)),
        downgrades=draw(st.booleans()),
        auto=lambda _: (verdict, f"auto: {verdict}"),
    )


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    tiers = draw(st.none() | st.sets(st.sampled_from(TIERS), min_size=1))
    allowed = [tier for tier in TIERS if tiers is None or tier in tiers]
    steps = draw(st.lists(st.tuples(st.integers(1, 100), st.sampled_from(allowed)), max_size=3))
    ladder = [DowngradeStep(below_percent=percent, tier=tier) for percent, tier in steps]
    data: Data = draw(st.sampled_from(get_args(Data)))
    return Policy(tenant="acme", tiers=tiers and allowed, models=draw(SOME), data=data, ladder=ladder)


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    return asked(
        draw(st.sampled_from([*TIERS, "auto"])),
        messages=draw(MESSAGES),
        data=draw(st.sampled_from(["any", "local_only"])),
        models=draw(SOME),
        min_tier=draw(st.none() | st.sampled_from(TIERS)),
    )


def everyone(chooser: Chooser) -> list[Any]:
    """All candidates of a call, also of those asked after a refusal."""
    stage = chooser.stage()
    stages = [stage, *chooser.after(stage, BROKE)]
    return [candidate for one in stages for candidate in chooser.among(one).candidates]


@given(asks(), policies(), situations(), st.integers(0, 250_000))
def test_no_choice_ever_names_what_the_tenant_or_the_node_forbids(
    ask: Ask, policy: Policy, now: Situation, tokens: int
) -> None:
    chooser = Chooser(ask, tokens, CATALOG, policy, now)
    allowed = set(TIERS) if policy.tiers is None else set(policy.tiers)
    if ask.tier == "auto":
        assert chooser.stage().tier in allowed or ask.min_tier is not None
    for candidate in everyone(chooser):
        model = candidate.model
        assert policy.models is None or model.name in policy.models
        assert ask.models is None or model.name in ask.models
        assert model.local or "local_only" not in (policy.data, ask.data)
        assert model.context_window is None or tokens < model.context_window
        assert now.cooling(model.name) is None
        assert model.name in CATALOG.tiers[candidate.tier]
        assert ask.min_tier is None or TIERS.index(candidate.tier) >= TIERS.index(ask.min_tier)
        assert candidate.reason


@given(asks(), policies(), situations(), st.integers(0, 250_000))
def test_the_same_question_at_the_same_moment_has_the_same_answer(
    ask: Ask, policy: Policy, now: Situation, tokens: int
) -> None:
    first, second = (chosen(ask, policy=policy, now=now, tokens=tokens) for _ in range(2))
    assert (first.stage, first.candidates) == (second.stage, second.candidates)
    assert [obstacle.words for obstacle in first.passed] == [obstacle.words for obstacle in second.passed]


@given(asks(), policies(), situations())
def test_an_open_exchange_never_leaves_a_model_that_can_be_had(ask: Ask, policy: Policy, now: Situation) -> None:
    chooser = Chooser(ask, 100, CATALOG, policy, now)
    first = chooser.among(chooser.stage()).candidates[:1]
    could = {candidate.model.name for candidate in chooser.among(chooser.stage()).candidates}
    if ask.messages is not TALK and now.author in could:
        assert (first[0].model.name, first[0].held) == (now.author, True)


def _p99_us(times: Sequence[float]) -> float:
    return sorted(times)[len(times) * 99 // 100] * 1e6


def test_a_choice_takes_far_less_than_two_milliseconds() -> None:
    """The p99 of a call's whole choice, a long conversation on which a switch is priced included."""
    long: list[Mapping[str, Any]] = [*TALK * 30]
    ask = asked("standard", messages=long, models=["mini", "mid"])
    times = []
    for _ in range(500):
        start = time.thread_time()
        chosen(ask, now=Situation(author="mini"), tokens=100_000)
        times.append(time.thread_time() - start)
    assert _p99_us(times) < 2_000
