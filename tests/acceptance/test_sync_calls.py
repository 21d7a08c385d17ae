"""A synchronous call never stops the event loop that another call needs to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bursar.runtime import chat_model
from tests.acceptance.support import QUESTION, Texts, fan_out, opened, write_config
from tests.support.provider import TrueProvider


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda: chat_model().invoke(QUESTION), id="invoke"),
        pytest.param(lambda: chat_model().batch([QUESTION]), id="batch of one"),
    ],
)
async def test_a_coroutine_that_calls_without_await_is_told_to_await_and_sends_nothing(
    call: Callable[[], Any], tmp_path: Path, true_provider: TrueProvider
) -> None:
    async def node(state: Texts) -> Texts:
        call()
        return {}

    async with opened(write_config(tmp_path, true_provider)) as runtime:
        run = await runtime.run(fan_out(1, node=node), {"question": QUESTION}, tenant="acme")
    assert run.status == "failed"
    assert "use `await model.ainvoke(...)`" in run.stop_reason
    assert (true_provider.bill.requests, run.steps) == (0, 0)
