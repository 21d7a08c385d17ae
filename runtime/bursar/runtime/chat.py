"""`chat_model(tier)`: a LangChain chat model whose every call is reserved, paid and settled by the run around it."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails, UsageMetadata
from langchain_core.messages.tool import invalid_tool_call, tool_call
from langchain_core.output_parsers.openai_tools import parse_tool_call
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from bursar.budget.errors import UsageError
from bursar.runtime.attempt import Ask, PaidReply
from bursar.runtime.context import RunContext, current_run, digest_of, node_name

__all__ = ["BursarChatModel", "chat_model"]

_PASSED_THROUGH = frozenset(
    {"top_p", "seed", "presence_penalty", "frequency_penalty", "parallel_tool_calls", "reasoning_effort", "logit_bias"}
)
"""Parameters that are sent on; any other could make a call cost more than was reserved for it."""


def chat_model(
    tier: str = "small", *, max_output_tokens: int | None = None, temperature: float | None = None
) -> BursarChatModel:
    """A LangChain chat model of a tier.

    It may be made anywhere, at import too. Calling it needs a run around it (`Runtime.run`); without one it raises
    NoRunError and sends nothing. At a limit it raises LimitReached, which stops the run; where the run's policy is to
    escalate, a person is asked then, and after a grant the node is run again.
    """
    return BursarChatModel(tier=tier, max_output_tokens=max_output_tokens, temperature=temperature)


class BursarChatModel(BaseChatModel):
    """See `chat_model`."""

    tier: str
    """The tier whose models answer."""

    max_output_tokens: int | None = None
    """The most that a call may write; None leaves it to the run."""

    temperature: float | None = None
    """Sampling temperature; None leaves it to the provider."""

    @property
    def _llm_type(self) -> str:
        return "bursar"

    @property
    def _identifying_params(self) -> Mapping[str, Any]:
        return {"tier": self.tier, "max_output_tokens": self.max_output_tokens, "temperature": self.temperature}

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
        content: dict[str, Any] = {
            "tier": self.tier,
            "messages": convert_to_openai_messages(messages),
            "tools": given.get("tools") or (),
            "tool_choice": given.get("tool_choice"),
            "response_format": given.get("response_format"),
            "stop": stop,
            "temperature": given.get("temperature", self.temperature),
            "max_output_tokens": given.get("max_tokens", self.max_output_tokens),
            "extra": {key: value for key, value in given.items() if key in _PASSED_THROUGH},
        }
        digest = digest_of(content)
        return run, Ask(node=node_name(), digest=digest, **content), run.call_id(digest)


_NAMED = frozenset(
    {"tools", "tool_choice", "response_format", "temperature", "max_tokens", "ls_structured_output_format", "strict"}
)


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
    """Usage and cost; for a replay, which streams nothing, the whole message."""
    if not paid.replayed:
        empty = AIMessageChunk(content="", usage_metadata=_usage(paid), response_metadata=_metadata(paid))
        return ChatGenerationChunk(message=empty)
    calls = [{**call, "index": place} for place, call in enumerate(paid.message.get("tool_calls") or ())]
    chunk = _chunk({**paid.message, "tool_calls": calls})
    chunk.message.response_metadata = _metadata(paid)
    return chunk


def _metadata(paid: PaidReply) -> dict[str, Any]:
    return {
        "model_name": paid.model,
        "finish_reason": paid.finish_reason,
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
