"""The simulated model: metered like a real one, and the same again for the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, get_args

import pytest

from bursar.budget.usage import Usage
from bursar.runtime.models.causes import CAUSES, cause_of
from bursar.runtime.models.provider import (
    CallTimeout,
    ModelReply,
    ModelRequest,
    ProviderError,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from bursar.runtime.models.scenario import Fault, FaultKind, Latency
from bursar.runtime.models.sim import Bill, SimProvider
from bursar.runtime.models.tokens import TokenCounter

COUNTER = TokenCounter()
TOOLS = [{"type": "function", "function": {"name": "search", "parameters": {"type": "object"}}}]
SLOW = Latency(min=10, max=1000)


def request(text: str = "hi", *, turn: int = 1, **changes: Any) -> ModelRequest:
    messages = [{"role": "user", "content": text}, *[{"role": "assistant", "content": "x"}] * (turn - 1)]
    return ModelRequest(**{"model": "m", "messages": messages, "max_output_tokens": 1000, "timeout_s": 60, **changes})


async def streamed(provider: SimProvider, asked: ModelRequest) -> list[Mapping[str, Any] | ModelReply]:
    return [part async for part in provider.stream(asked)]


class Slept:
    """A sleep that takes no time and remembers how long it should have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class TestAnswers:
    async def test_a_list_of_texts_is_a_model(self) -> None:
        provider = SimProvider.of(answers=["one", "two"])
        assert (await provider.complete(request())).message == {"role": "assistant", "content": "one"}
        assert (await provider.complete(request(turn=2))).message["content"] == "two"

    async def test_a_function_is_a_model(self) -> None:
        provider = SimProvider.of(lambda asked: {"text": asked.messages[-1]["content"].upper()})
        assert (await provider.complete(request("hi"))).message["content"] == "HI"

    async def test_a_function_that_answers_nonsense_is_told_so(self) -> None:
        with pytest.raises(RequestRefused, match="not 42"):
            await SimProvider.of(lambda _: 42).complete(request())  # type: ignore[arg-type, return-value]  # on purpose

    async def test_tool_calls_have_the_shape_of_openais(self) -> None:
        calls = [{"name": "search", "arguments": {"q": 1}}, {"name": "search", "arguments": "{broken"}]
        reply = await SimProvider.of([{"tool_calls": calls}]).complete(request(tools=TOOLS))
        made = reply.message["tool_calls"]
        assert [call["function"] for call in made] == [
            {"name": "search", "arguments": '{"q": 1}'},
            {"name": "search", "arguments": "{broken"},
        ]
        assert reply.finish_reason == "tool_calls"
        assert made[0]["id"] != made[1]["id"]

    async def test_a_restart_changes_nothing(self) -> None:
        """The conversation alone decides, so another process goes on where the first one ended."""
        first, second = (SimProvider.of(["one", "two"], latency_ms=SLOW, sleep=Slept()) for _ in range(2))
        await first.complete(request())
        assert await first.complete(request(turn=2)) == await second.complete(request(turn=2))


class TestMeter:
    async def test_usage_is_counted_and_not_made_up(self) -> None:
        asked = request("How are you?", tools=TOOLS)
        reply = await SimProvider.of(["Fine, thank you."]).complete(asked)
        assert reply.usage == Usage(
            input_tokens=COUNTER.count_request(asked.messages, TOOLS),
            output_tokens=COUNTER.count_text("Fine, thank you."),
        )

    @pytest.mark.parametrize("text", ["", "Well. "])
    async def test_an_answer_is_padded_to_the_length_asked_for(self, text: str) -> None:
        reply = await SimProvider.of([{"text": text, "tokens": 500}]).complete(request())
        assert reply.usage
        assert reply.usage.output_tokens == pytest.approx(500, abs=1)

    async def test_an_answer_is_cut_at_the_bound_of_the_request(self) -> None:
        provider = SimProvider.of([{"tokens": 500}])
        reply = await provider.complete(request(max_output_tokens=7))
        assert reply.finish_reason == "length"
        assert COUNTER.count_text(reply.message["content"]) == 7
        assert provider.bill.output_tokens == 7

    async def test_tool_calls_that_do_not_fit_are_left_out(self) -> None:
        answer = {"text": "I look.", "tool_calls": [{"name": "search", "arguments": {"query": "word " * 50}}]}
        reply = await SimProvider.of([answer]).complete(request(max_output_tokens=20, tools=TOOLS))
        assert reply.message == {"role": "assistant", "content": "I look."}
        assert (reply.finish_reason, reply.usage and reply.usage.output_tokens) == ("length", 20)

    async def test_the_bill_is_the_sum_of_what_was_used(self) -> None:
        provider = SimProvider.of(["some answer"])
        replies = [await provider.complete(request(text)) for text in ("a", "b", "a longer one")]
        used = [reply.usage for reply in replies if reply.usage]
        assert provider.bill == Bill(
            calls=3,
            input_tokens=sum(usage.input_tokens for usage in used),
            output_tokens=sum(usage.output_tokens for usage in used),
        )

    async def test_a_call_that_nobody_waits_for_is_billed(self) -> None:
        provider = SimProvider.of(["answer"], latency_ms=Latency(min=60_000, max=60_000))
        call = asyncio.ensure_future(provider.complete(request()))
        await asyncio.sleep(0)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert provider.bill.calls == 1


class TestStream:
    async def test_the_deltas_add_up_to_the_reply_that_comes_last(self) -> None:
        answer = {"text": "Let me see what there is.", "tool_calls": [{"name": "search", "arguments": {"q": 1}}]}
        *deltas, reply = await streamed(SimProvider.of([answer]), request(tools=TOOLS))
        assert isinstance(reply, ModelReply)
        parts = [delta for delta in deltas if isinstance(delta, Mapping)]
        assert "".join(part.get("content", "") for part in parts) == reply.message["content"]
        assert parts[-1]["tool_calls"] == [{"index": 0, **reply.message["tool_calls"][0]}]

    async def test_a_streamed_answer_is_the_same_as_a_whole_one(self) -> None:
        provider = SimProvider.of(["answer"])
        assert (await streamed(provider, request()))[-1] == await provider.complete(request())


class TestSeed:
    async def latencies(self, seed: int, texts: str) -> list[float]:
        slept = Slept()
        provider = SimProvider.of(["x"], latency_ms=SLOW, seed=seed, sleep=slept)
        for text in texts:
            await provider.complete(request(text))
        return slept.seconds

    async def test_a_seed_replays_its_latencies(self) -> None:
        first = await self.latencies(1, "abca")
        assert first == await self.latencies(1, "abca")
        assert first != await self.latencies(2, "abca")
        assert len(set(first)) == 4, "another attempt at the same conversation is another throw of the dice"
        assert all(0.01 <= seconds <= 1 for seconds in first)

    async def test_other_conversations_in_between_change_nothing(self) -> None:
        assert (await self.latencies(1, "abc"))[2] == (await self.latencies(1, "cab"))[0]

    async def test_a_seed_replays_its_faults(self) -> None:
        async def failed() -> list[int]:
            provider = SimProvider.of(["x"], faults=[Fault(kind="unavailable", rate=0.2)], seed=3)
            outcomes = [provider.complete(request(str(n))) for n in range(200)]
            done = await asyncio.gather(*outcomes, return_exceptions=True)
            return [n for n, outcome in enumerate(done) if isinstance(outcome, Unavailable)]

        first = await failed()
        assert first == await failed()
        assert 20 <= len(first) <= 60


class TestFaults:
    @pytest.mark.parametrize("kind", get_args(FaultKind))
    async def test_a_fault_is_billed_like_the_real_thing(self, kind: FaultKind) -> None:
        provider = SimProvider.of(["answer"], faults=[Fault(kind=kind, retry_after_s=7)])
        with pytest.raises(ProviderError) as whole:
            await provider.complete(request())
        with pytest.raises(ProviderError) as in_pieces:
            await streamed(provider, request())
        cause = cause_of(whole.value)
        assert cause is cause_of(in_pieces.value)
        assert cause.name == ("timeout" if kind == "stalled" else kind)
        assert provider.bill.calls == (0 if cause.billed == "no" else 2)
        assert whole.value.retry_after_s == 7

    def test_every_cause_can_be_rehearsed_but_what_is_never_sent(self) -> None:
        assert {*get_args(FaultKind)} - {"stalled"} == {cause.name for cause in CAUSES} - {"not_sent"}

    async def test_an_unbilled_fault_does_not_ask_the_script(self) -> None:
        asked: list[ModelRequest] = []

        def script(one: ModelRequest) -> str:
            asked.append(one)
            return "answer"

        provider = SimProvider.of(script, faults=[Fault(kind="rate_limit", times=1)])
        with pytest.raises(RateLimited):
            await provider.complete(request())
        assert asked == []
        await provider.complete(request())
        assert len(asked) == 1

    async def test_a_fault_ends_when_its_times_are_used_up(self) -> None:
        provider = SimProvider.of(["answer"], faults=[Fault(kind="rate_limit", times=2)])
        for _ in range(2):
            with pytest.raises(RateLimited):
                await provider.complete(request())
        assert (await provider.complete(request())).message["content"] == "answer"

    async def test_a_fault_of_a_turn_spares_the_others(self) -> None:
        provider = SimProvider.of(["answer"], faults=[Fault(kind="unavailable", turn=2)])
        await provider.complete(request(turn=1))
        with pytest.raises(Unavailable):
            await provider.complete(request(turn=2))
        await provider.complete(request(turn=3))

    @pytest.mark.parametrize("kind", ["broken_stream", "stalled"])
    async def test_a_broken_stream_breaks_halfway(self, kind: FaultKind) -> None:
        provider = SimProvider.of(["one two three four"], faults=[Fault(kind=kind)])
        said: list[Any] = []

        async def listen() -> None:
            async for part in provider.stream(request()):
                said.append(part)  # noqa: PERF401  # what came before the error is to be kept

        with pytest.raises(ProviderError):
            await listen()
        text = "".join(part["content"] for part in said)
        assert text
        assert "one two three four".startswith(text)
        assert text != "one two three four"

    async def test_an_answer_slower_than_the_request_allows_is_a_timeout_and_billed(self) -> None:
        slept = Slept()
        provider = SimProvider.of(["answer"], latency_ms=Latency(min=3000, max=3000), sleep=slept)
        with pytest.raises(CallTimeout):
            await provider.complete(request(timeout_s=2))
        assert (slept.seconds, provider.bill.calls) == ([2], 1)
