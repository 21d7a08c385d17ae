"""What `POST /v1/responses` takes: OpenAI's Responses API as the body of a chat completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, ValidationInfo, field_validator

from bursar.runtime.service.shapes import Body, Many, Part

__all__ = ["ResponsesRequest", "chat_body"]

_STATEFUL = {
    "background": "nothing is answered in the background here; leave it out and stream",
    "context_management": "contexts are not compacted here; send the items that the model shall see",
    "conversation": "conversations are not kept here; send their items as input",
    "moderation": "there is no moderation here",
    "previous_response_id": "responses are not kept here; send the earlier items as input",
    "prompt": "prompts are not kept here; send instructions and input",
}
"""Parameters that need what a server keeps between calls, or that only OpenAI's has."""


class Text(Part):
    """Text, whoever wrote it."""

    type: Literal["input_text", "output_text"]
    text: str


class Refusal(Part):
    """A model's refusal, sent back."""

    type: Literal["refusal"]
    refusal: str


class Image(Part):
    """An image by its address, or in a `data:` URL."""

    type: Literal["input_image"]
    image_url: str
    detail: str | None = None


def _as_parts(content: object) -> object:
    return [{"type": "input_text", "text": content}] if isinstance(content, str) else content


Parts = Annotated[
    Many[Annotated[Text | Refusal | Image, Field(discriminator="type")]],
    BeforeValidator(_as_parts),
]


class Message(Part):
    """What somebody said."""

    role: Literal["user", "assistant", "system", "developer"]
    content: Parts


class FunctionCall(Part):
    """A tool that the model called."""

    call_id: str
    name: str
    arguments: str


class FunctionCallOutput(Part):
    """What a tool said."""

    call_id: str
    output: Parts


class ReasoningText(Part):
    """A piece of what the model thought."""

    text: str


class Reasoning(Part):
    """What the model thought, as it was answered here; OpenAI's own comes without text, and is let go."""

    content: Many[ReasoningText] | None = None
    encrypted_content: str | None = None
    """The signature of Claude's thoughts."""


def _kind(item: object) -> object:
    return item.get("type") or "message" if isinstance(item, Mapping) else getattr(item, "type", "message")


Item = Annotated[
    Annotated[Message, Tag("message")]
    | Annotated[FunctionCall, Tag("function_call")]
    | Annotated[FunctionCallOutput, Tag("function_call_output")]
    | Annotated[Reasoning, Tag("reasoning")],
    Discriminator(_kind),
]


def _as_items(given: object) -> object:
    return [{"role": "user", "content": given}] if isinstance(given, str) else given


class Function(Part):
    """A tool of the caller's own."""

    type: Literal["function"]
    name: str
    description: str | None = None
    parameters: Mapping[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Part):
    """The tool that must be called."""

    type: Literal["function"]
    name: str


class Effort(Part):
    """How much the model may think."""

    effort: str | None = None
    summary: str | None = None


class PlainText(Part):
    """An answer in words."""

    type: Literal["text"]


class JsonObject(Part):
    """An answer in JSON."""

    type: Literal["json_object"]


class JsonSchema(Part):
    """An answer in JSON of a schema."""

    type: Literal["json_schema"]
    name: str
    schema_: Mapping[str, Any] = Field(alias="schema")
    strict: bool | None = None
    description: str | None = None


class TextFormat(Part):
    """How the answer is written."""

    format: Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")] | None = None
    verbosity: str | None = None


class ResponsesRequest(Body):
    """A request to `POST /v1/responses`."""

    model: str
    input: Annotated[Many[Item], BeforeValidator(_as_items), Field(min_length=1)]
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    metadata: Mapping[str, str] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Effort | None = None
    store: bool | None = None
    """Accepted, and answered as false: nothing can be fetched later."""

    stream: bool | None = None
    stream_options: Any = None
    temperature: float | None = None
    text: TextFormat | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    tools: Many[Function] | None = None
    top_p: float | None = None
    truncation: Literal["disabled"] | None = None
    include: Any = None
    """Accepted: it asks for what built-in tools found, or for reasoning that only OpenAI can read."""

    max_tool_calls: Any = None
    """Accepted: it bounds built-in tools only."""

    prompt_cache_key: Any = None
    prompt_cache_retention: Any = None
    """Accepted, as the one before: caches are kept apart by tenants here, and kept as long as the provider likes."""

    safety_identifier: Any = None
    user: Any = None
    """Accepted, as the one before: the key says who calls, and no provider is told."""

    service_tier: Any = None
    """Accepted: the model's own service tier is what its price is for."""

    background: Any = None
    context_management: Any = None
    conversation: Any = None
    moderation: Any = None
    previous_response_id: Any = None
    prompt: Any = None

    @field_validator(*_STATEFUL)
    @classmethod
    def _refuse(cls, value: Any, info: ValidationInfo) -> None:
        if value:
            raise ValueError(_STATEFUL[info.field_name or ""])


def chat_body(request: ResponsesRequest) -> dict[str, Any]:
    """The same request as the body of a chat completion."""
    text, reasoning = request.text or TextFormat(), request.reasoning or Effort()
    optional = {
        "tools": [_tool(one) for one in request.tools or ()] or None,
        "tool_choice": _tool_choice(request.tool_choice),
        "response_format": _response_format(text.format),
        "max_completion_tokens": request.max_output_tokens,
        "reasoning_effort": reasoning.effort,
        "verbosity": text.verbosity,
        "parallel_tool_calls": request.parallel_tool_calls,
        "stream": request.stream,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    body = {"model": request.model, "messages": _messages(request)}
    return body | {key: value for key, value in optional.items() if value is not None}


def _messages(request: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    for item in request.input:
        match item:
            case Message(role="assistant"):
                _say(messages, _content(item.content))
            case Message():
                role = "system" if item.role == "developer" else item.role  # which few servers but OpenAI's know
                messages.append({"role": role, "content": _content(item.content)})
            case Reasoning():
                _think(messages, item)
            case FunctionCall():
                _call(messages, item)
            case FunctionCallOutput():
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)})
    return [message for message in messages if message["content"] is not None or message.get("tool_calls")]


def _turn(messages: list[dict[str, Any]]) -> dict[str, Any]:
    """The message of the model's present turn, a new one where it has none."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": None})
    return messages[-1]


def _say(messages: list[dict[str, Any]], content: Any) -> None:
    """Add what the model said. Results must follow its calls, so what it said after them is put beside them."""
    turn = _turn(messages)
    if turn["content"] is None:
        turn["content"] = content
    elif turn.get("tool_calls"):
        turn["content"] = [*_as_list(turn["content"]), *_as_list(content)]
    else:
        messages.append({"role": "assistant", "content": content})


def _think(messages: list[dict[str, Any]], item: Reasoning) -> None:
    """Add what the model thought."""
    text = "".join(part.text for part in item.content or ())
    if not text:
        return
    turn = _turn(messages)
    turn["reasoning_content"] = turn.get("reasoning_content", "") + text
    if item.encrypted_content:
        thought = {"type": "thinking", "thinking": text, "signature": item.encrypted_content}
        turn.setdefault("thinking_blocks", []).append(thought)


def _call(messages: list[dict[str, Any]], item: FunctionCall) -> None:
    """Add a call that the model made."""
    function = {"name": item.name, "arguments": item.arguments}
    calls = _turn(messages).setdefault("tool_calls", [])
    calls.append({"id": item.call_id, "type": "function", "function": function})


def _as_list(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _content(parts: Sequence[Text | Refusal | Image]) -> str | list[dict[str, Any]]:
    """The parts in the shape of chat completions; a single text as it stands."""
    match parts:
        case [Text(text=text)] | [Refusal(refusal=text)]:
            return text
    return [_part(part) for part in parts]


def _part(part: Text | Refusal | Image) -> dict[str, Any]:
    if isinstance(part, Image):
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": part.image_url, **detail}}
    return {"type": "text", "text": part.text if isinstance(part, Text) else part.refusal}


def _tool(tool: Function) -> dict[str, Any]:
    return {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}


def _tool_choice(choice: str | NamedFunction | None) -> str | dict[str, Any] | None:
    if isinstance(choice, NamedFunction):
        return {"type": "function", "function": {"name": choice.name}}
    return choice


def _response_format(given: PlainText | JsonObject | JsonSchema | None) -> dict[str, Any] | None:
    if given is None or isinstance(given, PlainText):
        return None
    if isinstance(given, JsonObject):
        return {"type": "json_object"}
    schema = given.model_dump(exclude={"type"}, exclude_none=True, by_alias=True)
    return {"type": "json_schema", "json_schema": schema}
