"""What `POST /v1/messages` takes: Anthropic's Messages API as the body of a chat completion."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bursar.runtime.service.shapes import Body, Many, Part

__all__ = ["CountRequest", "MessagesRequest", "chat_body", "chat_prompt"]

CacheControl = Mapping[str, Any]
"""`{"type": "ephemeral", "ttl": "5m" | "1h"}`: the prompt up to here is worth keeping in the provider's cache."""


class Text(Part):
    """Text, whoever wrote it."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class Base64Source(Part):
    """An image's bytes."""

    type: Literal["base64"]
    media_type: str
    data: str


class UrlSource(Part):
    """An image's address."""

    type: Literal["url"]
    url: str


class Image(Part):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]
    cache_control: CacheControl | None = None


class ToolUse(Part):
    """A tool that the model called."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: Mapping[str, Any]


class Thinking(Part):
    """What the model thought; without a signature it is not from Claude."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class RedactedThinking(Part):
    """What nobody may read; let go."""

    type: Literal["redacted_thinking"]


def _as_blocks(content: object) -> object:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Texts = Annotated[Many[Text], BeforeValidator(_as_blocks)]
Shown = Annotated[Many[Annotated[Text | Image, Field(discriminator="type")]], BeforeValidator(_as_blocks)]


class ToolResult(Part):
    """What a tool said."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: Shown = Field(default_factory=list)
    cache_control: CacheControl | None = None


Told = Annotated[Text | Image | ToolResult, Field(discriminator="type")]
Answered = Annotated[Text | ToolUse | Thinking | RedactedThinking, Field(discriminator="type")]


class UserMessage(Part):
    """What the user or the caller's program said."""

    role: Literal["user"]
    content: Annotated[Many[Told], BeforeValidator(_as_blocks)]


class AssistantMessage(Part):
    """What the model said."""

    role: Literal["assistant"]
    content: Annotated[Many[Answered], BeforeValidator(_as_blocks)]


class SystemMessage(Part):
    """Instructions that come in the course of the conversation."""

    role: Literal["system"]
    content: Texts


Message = Annotated[UserMessage | AssistantMessage | SystemMessage, Field(discriminator="role")]


class Tool(Part):
    """A tool of the caller's own."""

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: Mapping[str, Any]
    strict: bool | None = None
    cache_control: CacheControl | None = None


class Choice(Part):
    """Which tools may or must be called."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool = False


class NamedChoice(Part):
    """The tool that must be called."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool = False


class ThinkingConfig(Part):
    """Whether the model thinks first, and with how many tokens."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: Annotated[int, Field(ge=1)] | None = None


class JsonFormat(Part):
    """An answer in JSON of a schema."""

    type: Literal["json_schema"]
    schema_: Mapping[str, Any] = Field(alias="schema")


class OutputConfig(Part):
    """How the answer is written, and with how much effort."""

    effort: str | None = None
    format: JsonFormat | None = None


class CountRequest(Body):
    """A request to `POST /v1/messages/count_tokens`: all of a prompt."""

    model: str
    messages: Annotated[Many[Message], Field(min_length=1)]
    system: Texts = Field(default_factory=list)
    tools: Many[Tool] = Field(default_factory=list)
    tool_choice: Annotated[Choice | NamedChoice, Field(discriminator="type")] | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None
    """Marks the last part of the prompt that can be marked."""


class MessagesRequest(CountRequest):
    """A request to `POST /v1/messages`."""

    max_tokens: Annotated[int, Field(ge=1)]
    stop_sequences: Many[str] = Field(default_factory=list)
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    metadata: Any = None
    """Accepted: the user's id in it is nobody's here, since the key says who calls."""

    service_tier: Any = None
    """Accepted: the model's own service tier is what its price is for."""


def chat_body(request: MessagesRequest) -> dict[str, Any]:
    """The same request as the body of a chat completion."""
    output = request.output_config or OutputConfig()
    choice = request.tool_choice
    optional = {
        "tool_choice": _tool_choice(choice),
        "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
        "response_format": _response_format(output.format),
        "reasoning_effort": output.effort,
        "max_reasoning_tokens": request.thinking.budget_tokens if request.thinking else None,
        "stop": list(request.stop_sequences) or None,
        "stream": request.stream or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
    }
    body = {"model": request.model, **chat_prompt(request), "max_completion_tokens": request.max_tokens}
    return body | {key: value for key, value in optional.items() if value is not None}


def chat_prompt(request: CountRequest) -> dict[str, Any]:
    """Messages and tools as a chat completion has them."""
    messages = [{"role": "system", "content": _content(request.system)}] if request.system else []
    for message in request.messages:
        match message:
            case UserMessage():
                messages += _asked(message)
            case AssistantMessage():
                messages.append(_answered(message))
            case SystemMessage():
                messages.append({"role": "system", "content": _content(message.content)})
    if request.cache_control is not None:
        _mark(messages[-1], request.cache_control)
    return {"messages": messages, **({"tools": [_tool(tool) for tool in request.tools]} if request.tools else {})}


def _asked(message: UserMessage) -> list[dict[str, Any]]:
    """Results of tools, each a message of its own, then what is said beside them."""
    results = [block for block in message.content if isinstance(block, ToolResult)]
    said = [block for block in message.content if not isinstance(block, ToolResult)]
    messages = [_result(block) for block in results]
    return [*messages, {"role": "user", "content": _content(said)}] if said or not results else messages


def _result(block: ToolResult) -> dict[str, Any]:
    message = {"role": "tool", "tool_call_id": block.tool_use_id, "content": _content(block.content)}
    if block.cache_control is not None:
        _mark(message, block.cache_control)
    return message


def _answered(message: AssistantMessage) -> dict[str, Any]:
    said = [block for block in message.content if isinstance(block, Text)]
    calls = [_call(block) for block in message.content if isinstance(block, ToolUse)]
    thoughts = [block for block in message.content if isinstance(block, Thinking)]
    found = {
        "reasoning_content": "".join(thought.thinking for thought in thoughts),
        "thinking_blocks": [thought.model_dump() for thought in thoughts if thought.signature],
        "tool_calls": calls,
    }
    answer = {"role": "assistant", "content": _content(said) if said or not calls else None}
    return answer | {key: value for key, value in found.items() if value}


def _call(block: ToolUse) -> dict[str, Any]:
    arguments = json.dumps(block.input, ensure_ascii=False)
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _content(blocks: Sequence[Text | Image]) -> str | list[dict[str, Any]]:
    """The blocks as parts of a chat completion's message; a single unmarked text as it stands, nothing as no text."""
    match blocks:
        case []:
            return ""
        case [Text(text=text, cache_control=None)]:
            return text
    return [_part(block) for block in blocks]


def _part(block: Text | Image) -> dict[str, Any]:
    marked = {"cache_control": block.cache_control} if block.cache_control is not None else {}
    if isinstance(block, Text):
        return {"type": "text", "text": block.text, **marked}
    source = block.source
    url = source.url if isinstance(source, UrlSource) else f"data:{source.media_type};base64,{source.data}"
    return {"type": "image_url", "image_url": {"url": url}, **marked}


def _mark(message: dict[str, Any], cache_control: CacheControl) -> None:
    """Mark the last part of a message, unless it holds none."""
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if parts:
        message["content"] = [*parts[:-1], {"cache_control": cache_control, **parts[-1]}]


def _tool(tool: Tool) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "strict": tool.strict}
    given = {key: value for key, value in function.items() if value is not None}
    marked = {"cache_control": tool.cache_control} if tool.cache_control is not None else {}
    return {"type": "function", "function": {**given, "parameters": tool.input_schema}, **marked}


def _tool_choice(choice: Choice | NamedChoice | None) -> str | dict[str, Any] | None:
    if isinstance(choice, NamedChoice):
        return {"type": "function", "function": {"name": choice.name}}
    return {"auto": "auto", "any": "required", "none": "none"}[choice.type] if choice else None


def _response_format(given: JsonFormat | None) -> dict[str, Any] | None:
    if given is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": given.schema_, "strict": True}}
