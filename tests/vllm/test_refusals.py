"""What a real vLLM refuses, in the words that tests/golden keeps, and where its calls go then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bursar.runtime import chat_model
from tests.acceptance.support import Texts, charged, fan_out, opened, write_config
from tests.acceptance.support import model_of as cloud_of
from tests.support.processes import REPOSITORY
from tests.support.provider import TrueProvider
from tests.vllm.answers import STORY_WISH
from tests.vllm.server import VLLMServer
from tests.vllm.support import attempts, model_of, paid, run_node

GOLDEN = {
    line["what"]: line
    for line in map(json.loads, (REPOSITORY / "tests/golden/vllm_errors.jsonl").read_text().splitlines())
}

ASKED: dict[str, Mapping[str, Any]] = {
    "the prompt alone is longer than the window": {"messages": [{"role": "user", "content": "order " * 1500}]},
    "max_tokens alone is larger than the window": {"max_tokens": 5000},
    "no such model or adapter": {"model": "nope"},
    "a temperature below zero": {"temperature": -1},
    "tool_choice without tools": {"tool_choice": "required"},
    "no messages": {"messages": None, "max_tokens": None},
    "an image for a model that reads text": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}
        ]
    },
}

FULL = "--max-num-queued-reqs is reached"
CALLS = 12
"""Three times what the server lets in."""


@pytest.mark.parametrize("what", ASKED)
def test_the_server_refuses_in_the_words_that_are_kept_of_it(what: str, server: VLLMServer) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 60, **ASKED[what]}
    answer = server.post("/v1/chat/completions", **{key: value for key, value in body.items() if value is not None})
    assert (answer.status_code, answer.text) == (GOLDEN[what]["status"], GOLDEN[what]["body"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_full_server_says_so_with_a_status_or_under_status_200_in_the_stream(
    stream: bool, server: VLLMServer
) -> None:
    story = {"model": "tiny", "messages": [{"role": "user", "content": STORY_WISH}], "max_tokens": 200}
    with ThreadPoolExecutor(CALLS) as pool:
        answers = [*pool.map(lambda _: server.post("/v1/chat/completions", stream=stream, **story), range(CALLS))]
    said = {(answer.status_code, answer.text) for answer in answers if "choices" not in answer.text}
    kept = [GOLDEN[FULL]] + ([GOLDEN[f"{FULL}, in a stream"]] if stream else [])
    assert said
    assert said <= {(line["status"], line["body"]) for line in kept}


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_that_a_full_server_refuses_cost_nothing_there_and_are_answered_by_the_next_model(
    stream: bool, server: VLLMServer, true_provider: TrueProvider, tmp_path: Path
) -> None:
    async def ask(_: Texts) -> Texts:
        model = chat_model(max_output_tokens=100)
        pieces = [piece async for piece in model.astream(STORY_WISH)] if stream else [await model.ainvoke(STORY_WISH)]
        return {"texts": ["".join(piece.text for piece in pieces)]}

    config = write_config(tmp_path, {"tiny": model_of(server), "cloud": cloud_of(true_provider)})
    async with opened(config) as runtime:
        with paid(server, true_provider) as runs:
            runs.append(run := await runtime.run(fan_out(CALLS, node=ask), {"question": ""}, tenant="acme"))
    answers = attempts(tmp_path, run)
    assert run.status == "succeeded"
    assert all(run.value["texts"])
    assert {answer.outcome for answer in answers if answer.state == "settled"} == {"exact"}
    refused = [answer for answer in answers if answer.state == "released"]
    assert true_provider.bill.calls == len(refused) > 0
    assert all("currently busy" in (answer.note or "") for answer in refused)


async def test_a_prompt_that_the_server_finds_too_long_goes_to_a_model_with_a_larger_window(
    server: VLLMServer, true_provider: TrueProvider, tmp_path: Path
) -> None:
    models = {"tiny": model_of(server, context_window=16_384), "cloud": cloud_of(true_provider)}
    async with opened(write_config(tmp_path, models)) as runtime:
        run, _ = await run_node(runtime, lambda: chat_model().ainvoke("order " * 1500))
    refused, answered = attempts(tmp_path, run)
    assert (refused.model, refused.state, refused.posted.nanousd) == ("tiny", "released", 0)
    assert "maximum context length is 1024" in (refused.note or "")
    assert (answered.model, answered.posted.nanousd) == ("cloud", charged(true_provider.bill))
