"""The golden file: what providers sent, what it means and what it costs, checked against arithmetic written by hand.

A line holds the provider's answer, the price row as published, the usage it means, and the cost as
`tokens * USD per million tokens * 1000 + ...` in nano-USD, of which the sum is rounded up. Three ways to the same
figure must agree: the written arithmetic, the written result, and the code.
"""

from __future__ import annotations

import json
from collections import Counter
from decimal import ROUND_CEILING, Context, Decimal, localcontext
from pathlib import Path
from typing import Any, get_args

import pytest

from bursar.budget.pricing.prices import Price
from bursar.budget.pricing.usage_shapes import Shape, read_usage
from bursar.budget.usage import SERVICE_TIERS, Usage

LINES: list[dict[str, Any]] = [
    json.loads(line) for line in (Path(__file__).parents[2] / "golden" / "usage.jsonl").read_text().splitlines()
]
each = pytest.mark.parametrize("line", LINES, ids=[line["name"] for line in LINES])


def worked_out(arithmetic: str) -> int:
    """The value of products joined by +, rounded up."""
    with localcontext(Context(prec=60)):
        total = Decimal(0)
        for term in arithmetic.split(" + "):
            product = Decimal(1)
            for factor in term.split(" * "):
                product *= Decimal(factor)
            total += product
        return int(total.to_integral_value(rounding=ROUND_CEILING))


@each
def test_the_arithmetic_the_expected_cost_and_the_code_agree_to_the_nano_dollar(line: dict[str, Any]) -> None:
    usage = read_usage(line["shape"], line["answer"], service_tier=line.get("service_tier"))
    assert usage == Usage(**line["usage"])
    assert worked_out(line["arithmetic"]) == line["nanousd"]
    price = Price.from_record(line["price"])
    assert price.cost(usage) == line["nanousd"]
    if usage.searches <= 1:  # a call is sent as one search; a provider that counts more is booked in full
        assert price.cost(usage) <= price.worst_case(usage.input_tokens, usage.output_tokens)


@each
def test_every_token_of_a_usage_is_in_the_written_arithmetic_once(line: dict[str, Any]) -> None:
    terms = [term.split(" * ") for term in line["arithmetic"].split(" + ")]
    tokens = sum(int(term[0]) for term in terms if len(term) == 3)
    assert tokens == line["usage"]["input_tokens"] + line["usage"]["output_tokens"]


def test_the_file_has_200_answers_and_no_name_twice() -> None:
    assert len(LINES) >= 200
    assert max(Counter(line["name"] for line in LINES).values()) == 1


def test_the_file_covers_every_shape_every_tier_and_every_part_of_a_usage() -> None:
    assert set(get_args(Shape)) == {line["shape"] for line in LINES}
    assert {line["usage"].get("service_tier", "standard") for line in LINES} == set(SERVICE_TIERS)
    named = {name for line in LINES for name in line["usage"]}
    assert {f"{part}_tokens" for part in Usage(input_tokens=1, output_tokens=0).parts._fields} <= named
    assert any(len(line["price"].get("long_context", ())) > 1 for line in LINES), "several steps of input length"


@pytest.mark.parametrize(("issue", "usd"), [("issue 9812", "0.054399"), ("issue 14849", "0.184918125")])
def test_the_bills_that_others_got_wrong_are_right(issue: str, usd: str) -> None:
    found = [line for line in LINES if line["name"].endswith(issue)]
    assert found
    for line in found:
        assert Decimal(line["nanousd"]) / 10**9 == Decimal(usd)
