"""`chat_model(tier)`: a LangChain chat model whose every call is reserved, paid and settled by the run around it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.output_parsers.openai_tools import parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import AliasChoices, Field, InstanceOf

from bursar.agents.tier import Cascade, Data, Tier
from bursar.budget.errors import UsageError
from bursar.runtime.ask import Ask, PaidReply, answering
from bursar.runtime.context import RunContext, current_run, digest_of, node_name
from bursar.runtime.routing.session import MADE_BY

__all__ = ["BursarChatModel", "chat_model"]

_PASSED_THROUGH = frozenset(
    {"top_p", "seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "logit_bias"}
)
"""Parameters that are sent on; any other could make a call cost more than was reserved for it."""


_THOUGHTS = ("reasoning_content", "thinking_blocks")
"""Keys of an answer beside its text, kept for the next turn."""


def chat_model(
    tier: Tier = "small",
    *,
    max_output_tokens: int | None = None,
    temperature: float | None = None,
    min_tier: str | None = None,
    models: Sequence[str] | None = None,
    data: Data = "any",
    reasoning_effort: str | None = None,
    max_reasoning_tokens: int | None = None,
) -> BursarChatModel:
    """A LangChain chat model of a tier, of `auto`, or of a Cascade.

    `min_tier`, `models` and `data` bound who may answer, as they do for an Agent. A cap on thinking is a part of
    `max_output_tokens`.

    It may be made anywhere, at import too. Calling it needs a run around it (`Runtime.run`); without one it raises
    NoRunError and sends nothing. At a limit it raises LimitReached, which stops the run; where the run's policy is to
    escalate, a person is asked then, and after a grant the node is run again.
    """
    return BursarChatModel(
        tier=tier,
        max_output_tokens=max_output_tokens,
        temperature=temperature,
        min_tier=min_tier,
        models=models,
        data=data,
        reasoning_effort=reasoning_effort,
        max_reasoning_tokens=max_reasoning_tokens,
    )


class BursarChatModel(BaseChatModel):
    """See `chat_model`."""

    tier: str | InstanceOf[Cascade]
    """The tier whose models answer, `auto`, or a Cascade."""

    max_output_tokens: int | None = Field(None, validation_alias=AliasChoices("max_output_tokens", "max_tokens"))
    """The most that a call may write; None leaves it to the run. `max_tokens`, as LangChain has it, is the same."""

    temperature: float | None = None
    """Sampling temperature; None leaves it to the provider."""

    min_tier: str | None = None
    """The lowest tier that may answer."""

    models: Sequence[str] | None = None
    """The models of bursar.yaml that may answer; None = all of the tier."""

    data: Data = "any"
    """Whether the messages may leave the house."""

    stop: list[str] | None = None
    """What ends an answer, where a call names nothing else."""

    reasoning_effort: str | None = None
    """How hard to think, in the provider's words; None leaves it to the provider."""

    max_reasoning_tokens: int | None = None
    """The most that a call may think with; None = no cap of its own."""

    @property
    def _llm_type(self) -> str:
        return "bursar"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        tier = answering(self.tier)[0]
        return {"tier": tier, "max_output_tokens": self.max_output_tokens, "temperature": self.temperature}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        """What traces say of a call; the model is the tier's to choose, so that its name is the tier's."""
        params = super()._get_ls_params(stop=stop, **kwargs)
        params.setdefault("ls_model_name", answering(self.tier)[0])
        if self.max_output_tokens is not None:
            params["ls_max_tokens"] = self.max_output_tokens
        return params | {"ls_provider": "bursar"}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools to the model; `tool_choice` is `auto`, `none`, `any` or a tool's name."""
        specs = [convert_to_openai_tool(one) for one in tools]
        names = [spec["function"]["name"] for spec in specs]
        return self.bind(tools=specs, tool_choice=_tool_choice(tool_choice, names), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run, ask, call_id = self._prepared(messages, stop, run_manager, kwargs)
        return _result(run.side_loop.run(run.calls.make(run, ask, call_id)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run, ask, call_id = self._prepared(messages, stop, run_manager, kwargs)
        return _result(await run.calls.make(run, ask, call_id))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        run, ask, call_id = self._prepared(messages, stop, run_manager, kwargs)
        parts: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        made = partial(run.calls.make, run, ask, call_id, parts.put)
        future = run.side_loop.soon(_ended(made, partial(parts.put, None)))
        try:
            yield from _told(map(_chunk, iter(parts.get, None)), run_manager)
            yield _last_chunk(future.result())
        finally:
            future.cancel()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        run, ask, call_id = self._prepared(messages, stop, run_manager, kwargs)
        parts: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        made = partial(run.calls.make, run, ask, call_id, parts.put_nowait)
        task = asyncio.ensure_future(_ended(made, partial(parts.put_nowait, None)))
        try:
            while (part := await parts.get()) is not None:
                chunk = _chunk(part)
                if run_manager is not None:
                    await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                yield chunk
            yield _last_chunk(await task)
        finally:
            task.cancel()

    def _prepared(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        given: dict[str, Any],
    ) -> tuple[RunContext, Ask, str]:
        """The run, what is asked, and the call's id: the same in every try of this call."""
        run = current_run(manager.metadata if manager is not None else None)
        unknown = [key for key in given if key not in _PASSED_THROUGH | _NAMED]
        if unknown:
            raise UsageError(
                f"chat_model does not pass {', '.join(sorted(unknown))} on: it could cost more than is reserved",
                next_step=f"leave it out; passed on are {', '.join(sorted(_PASSED_THROUGH))}",
            )
        tier, cascade = answering(self.tier)
        content: dict[str, Any] = {
            "tier": tier,
            "min_tier": self.min_tier,
            "models": self.models,
            "data": self.data,
            "reasoning_effort": given.get("reasoning_effort", self.reasoning_effort),
            "max_reasoning_tokens": self.max_reasoning_tokens,
            "messages": _openai_messages(messages),
            "tools": given.get("tools") or (),
            "tool_choice": given.get("tool_choice"),
            "response_format": given.get("response_format"),
            "stop": stop or self.stop or None,
            "temperature": given.get("temperature", self.temperature),
            "max_output_tokens": given.get("max_tokens", self.max_output_tokens),
            "extra": {key: value for key, value in given.items() if key in _PASSED_THROUGH},
        }
        digest = digest_of(content if cascade is None else content | {"cascade": cascade.words()})
        return run, Ask(node=node_name(), digest=digest, cascade=cascade, **content), run.call_id(digest)


_NAMED = frozenset(
    {
        *("tools", "tool_choice", "response_format", "temperature", "max_tokens", "reasoning_effort"),
        *("ls_structured_output_format", "strict"),
    }
)


def _openai_messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """The messages in OpenAI's shape, with who wrote an answer and what it thought beside it."""
    converted = convert_to_openai_messages(messages)
    if len(converted) == len(messages):  # blocks of tool results become messages of their own
        for given, message in zip(messages, converted, strict=True):
            if isinstance(given, AIMessage):
                message |= {key: value for key in _THOUGHTS if (value := given.additional_kwargs.get(key))}
                message |= {MADE_BY: name} if (name := given.response_metadata.get("model_name")) else {}
    return converted


async def _ended(call: Callable[[], Awaitable[PaidReply]], tell: Callable[[], None]) -> PaidReply:
    """The call's reply; its end is told in any case."""
    try:
        return await call()
    finally:
        tell()


def _told(
    chunks: Iterator[ChatGenerationChunk], manager: CallbackManagerForLLMRun | None
) -> Iterator[ChatGenerationChunk]:
    for chunk in chunks:
        if manager is not None:
            manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
        yield chunk


def _tool_choice(choice: str | None, names: Sequence[str]) -> str | dict[str, Any] | None:
    if choice in (None, "auto", "none", "required"):
        return choice
    if choice == "any":
        return "required"
    if choice not in names:
        raise UsageError(f"tool_choice {choice!r} is none of the tools offered", next_step=f"use {', '.join(names)}")
    return {"type": "function", "function": {"name": choice}}


def _result(paid: PaidReply) -> ChatResult:
    message = paid.message
    calls, invalid = [], []
    for call in message.get("tool_calls") or ():
        try:
            parsed = parse_tool_call(dict(call), return_id=True)
        except OutputParserException as error:
            function = call["function"]
            invalid.append(
                invalid_tool_call(name=function["name"], args=function["arguments"], id=call["id"], error=str(error))
            )
        else:
            if parsed is not None:
                calls.append(tool_call(name=parsed["name"], args=parsed["args"], id=parsed["id"]))
    answer = AIMessage(
        content=message.get("content") or "",
        tool_calls=calls,
        invalid_tool_calls=invalid,
        usage_metadata=_usage(paid),
        response_metadata=_metadata(paid),
        additional_kwargs=_thoughts(paid),
    )
    return ChatResult(generations=[ChatGeneration(message=answer)])


def _chunk(delta: Mapping[str, Any]) -> ChatGenerationChunk:
    calls = [
        {
            "name": call.get("function", {}).get("name"),
            "args": call.get("function", {}).get("arguments"),
            "id": call.get("id"),
            "index": call.get("index", 0),
            "type": "tool_call_chunk",
        }
        for call in delta.get("tool_calls") or ()
    ]
    return ChatGenerationChunk(
        message=AIMessageChunk(content=delta.get("content") or "", tool_call_chunks=calls)  # type: ignore[arg-type]
    )


def _last_chunk(paid: PaidReply) -> ChatGenerationChunk:
    """Usage, cost and thoughts; for a replay, which streams nothing, the whole message."""
    if not paid.replayed:
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=_usage(paid),
                response_metadata=_metadata(paid),
                additional_kwargs=_thoughts(paid),
            )
        )
    calls = [{**call, "index": place} for place, call in enumerate(paid.message.get("tool_calls") or ())]
    chunk = _chunk({**paid.message, "tool_calls": calls})
    chunk.message.response_metadata = _metadata(paid)
    chunk.message.additional_kwargs = _thoughts(paid)
    return chunk


def _thoughts(paid: PaidReply) -> dict[str, Any]:
    return {key: value for key in _THOUGHTS if (value := paid.message.get(key))}


def _metadata(paid: PaidReply) -> dict[str, Any]:
    return {
        "model_name": paid.model,
        "finish_reason": paid.finish_reason,
        "tier": paid.tier,
        "reason": paid.reason,
        "cost_nanousd": paid.posted.nanousd,
        "replayed": paid.replayed,
    }


def _usage(paid: PaidReply) -> UsageMetadata | None:
    usage = paid.usage
    if usage is None:
        return None
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        input_token_details=InputTokenDetails(
            cache_read=usage.cache_read_tokens, cache_creation=usage.cache_write_tokens
        ),
        output_token_details=OutputTokenDetails(reasoning=usage.reasoning_tokens),
    )
