"""bursar.yaml: whatever the text, it is a configuration or a ConfigError that points into it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.budget.errors import ConfigError
from bursar.runtime.config import (
    BudgetConfig,
    Config,
    ModelConfig,
    ModelPrice,
    TenantConfig,
    starter_config,
)
from tests.unit.runtime.config_texts import parse

# Any text


def answered(text: str) -> None:
    """The text is a configuration, or a ConfigError that points into it."""
    line = 1
    try:
        parse(text)
    except ConfigError as error:
        line = error.line or 0
    assert 1 <= line <= len(text.splitlines()) + 1


@settings(deadline=None)  # a busy machine is no property of the text
@given(st.text())
def test_no_text_raises_anything_but_a_config_error(text: str) -> None:
    answered(text)


@settings(deadline=None)  # a busy machine is no property of the text
@given(st.text(alphabet="{}[]:,#&*!|>'\"%@`-?~<.=0aé\n\t \\\ufeff\x85\u2028"))
def test_no_punctuation_raises_anything_but_a_config_error(text: str) -> None:
    answered(text)


@settings(deadline=None)  # a busy machine is no property of the text
@given(st.data())
def test_no_damage_to_a_good_file_raises_anything_but_a_config_error(data: st.DataObject) -> None:
    text = starter_config()
    at = data.draw(st.integers(0, len(text)))
    answered(text[:at] + data.draw(st.text(max_size=5)) + text[at + data.draw(st.integers(0, 40)) :])


KEYS = sorted(
    {key for section in (Config, ModelConfig, ModelPrice, TenantConfig, BudgetConfig) for key in section.model_fields}
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["sim", "free", "UTC", *KEYS])
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(), inner, max_size=5),
    max_leaves=20,
)


@settings(deadline=None)  # a busy machine is no property of the text
@given(st.dictionaries(st.sampled_from(sorted(Config.model_fields)), VALUES))
def test_no_value_at_any_key_raises_anything_but_a_config_error(data: dict[str, Any]) -> None:
    answered(json.dumps(data))
