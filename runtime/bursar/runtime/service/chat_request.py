"""What `POST /v1/chat/completions` takes, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from bursar.runtime.service.shapes import Body, Many, Part, read_body

__all__ = ["ChatRequest", "StreamOptions", "read_chat"]

_NOT_HERE: Mapping[str, str] = {
    "audio": "answers are text here",
    "function_call": "is the old name of tool_choice",
    "functions": "is the old name of tools",
    "logprobs": "log probabilities are not passed on; leave it out or set it to false",
    "prediction": "predicted outputs can be billed beyond what was reserved; leave it out",
    "top_logprobs": "log probabilities are not passed on; leave it out",
    "web_search_options": "a search is billed by the provider beyond what was reserved; leave it out",
}


class Text(Part):
    """Text, with a marker where the prompt up to here is worth keeping in the provider's cache."""

    type: Literal["text"]
    text: str


class ImageUrl(Part):
    """Where an image is: an address, or a `data:` URL."""

    url: str
    detail: str | None = None


class Image(Part):
    """An image."""

    type: Literal["image_url"]
    image_url: ImageUrl


class Refusal(Part):
    """A model's refusal, sent back."""

    type: Literal["refusal"]
    refusal: str


Shown = str | Many[Annotated[Text | Image, Field(discriminator="type")]]
Said = str | Many[Annotated[Text | Refusal, Field(discriminator="type")]]
Written = str | Many[Text]


class Function(Part):
    """A call of a function."""

    name: str
    arguments: str


class ToolCall(Part):
    """A tool that the model called."""

    id: str
    type: Literal["function"] = "function"
    function: Function


class Instructions(Part):
    """What the program tells the model."""

    role: Literal["system", "developer"]
    content: Written
    name: str | None = None


class User(Part):
    """What the user said."""

    role: Literal["user"]
    content: Shown
    name: str | None = None


class Thought(Part):
    """What Claude thought, sent back with its signature."""

    type: Literal["thinking", "redacted_thinking"]
    thinking: str = ""
    signature: str = ""
    data: str = ""


class Assistant(Part):
    """What the model said, and thought."""

    role: Literal["assistant"]
    content: Said | None = None
    tool_calls: Many[ToolCall] | None = None
    reasoning_content: str | None = None
    thinking_blocks: Many[Thought] | None = None
    name: str | None = None


class ToolResult(Part):
    """What a tool said."""

    role: Literal["tool"]
    content: Written
    tool_call_id: str


class Declared(Part):
    """A function that may be called."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Part):
    """A tool of the caller's own."""

    type: Literal["function"]
    function: Declared


class Named(Part):
    """A function by its name."""

    name: str


class ToolChoice(Part):
    """The tool that must be called."""

    type: Literal["function"]
    function: Named


class JsonSchema(Part):
    """The JSON Schema that the answer has to obey."""

    name: str
    schema_: Annotated[dict[str, Any] | None, Field(alias="schema")] = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(Part):
    """`text`, any JSON object, or JSON that obeys a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(Part):
    """`include_usage` asks for a last chunk with the usage."""

    include_usage: bool = False
    include_obfuscation: bool | None = None


Message = Annotated[Instructions | User | Assistant | ToolResult, Field(discriminator="role")]

Count = Annotated[int, Field(ge=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]


class ChatRequest(Body):
    """The body. What OpenAI takes and the gateway has no use for is accepted and let go; see docs/gateway.md."""

    model: Annotated[str, Field(min_length=1)]
    """A tier, `auto`, a model of bursar.yaml, or `agent:NAME`."""

    messages: Annotated[Many[Message], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Count | None = None
    max_tokens: Count | None = None
    tools: Many[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    stop: str | Annotated[Many[str], Field(max_length=4)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: int | None = None
    logit_bias: dict[str, float] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    modalities: Many[Literal["text"]] | None = None
    service_tier: Literal["auto", "default"] | None = None
    metadata: dict[str, str] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    user: str | None = None

    audio: None = None
    function_call: None = None
    functions: None = None
    prediction: None = None
    top_logprobs: None = None
    web_search_options: None = None

    @field_validator(*_NOT_HERE, mode="before")
    @classmethod
    def _not_here(cls, value: object, info: Any) -> object:
        if value is None or value is False:
            return value
        raise ValueError(_NOT_HERE[info.field_name])


_SENT_ON = {
    "system": frozenset(Instructions.model_fields),
    "developer": frozenset(Instructions.model_fields),
    "user": frozenset(User.model_fields),
    "assistant": frozenset(Assistant.model_fields),
    "tool": frozenset(ToolResult.model_fields),
}
"""What is sent on of a message: clients send back all that they were answered, and nobody counts what is not known."""


def read_chat(raw: object) -> dict[str, Any]:
    """A body as it is sent on; raises ParameterError for the first thing that is wrong with it."""
    read_body(ChatRequest, raw)
    body: dict[str, Any] = raw  # type: ignore[assignment]  # read_body has seen that it is one
    return {**body, "messages": [_sent_on(message) for message in body["messages"]]}


def _sent_on(message: Mapping[str, Any]) -> Mapping[str, Any]:
    known = _SENT_ON[message["role"]]
    return message if message.keys() <= known else {key: value for key, value in message.items() if key in known}
