"""A streamed answer as the typed events of OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bursar.runtime.service.answered import Answered
from bursar.runtime.service.problems import Problem
from bursar.runtime.service.responses import Opening, completed, item_id, item_of, part_of
from bursar.runtime.service.segments import Change, Segment, Segments

__all__ = ["ResponseEvents"]

Event = dict[str, Any]

_NAMES = {
    "call": "response.function_call_arguments",
    "reasoning": "response.reasoning_text",
    "text": "response.output_text",
}
"""What the events of a segment's pieces and of its end are called, by its kind."""


class ResponseEvents:
    """Turns the deltas of one answer into events, each with its `type` and `sequence_number`."""

    def __init__(self, opening: Opening) -> None:
        self._opening = opening
        self._segments = Segments(opening.own)
        self._output: list[dict[str, Any]] = []
        self._sequence = 0

    def begin(self) -> Iterator[Event]:
        """The events before the answer."""
        for word in ("created", "in_progress"):
            yield self._event(f"response.{word}", response=self._opening.response("in_progress"))

    def add(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        """The events of a delta in the shape of chat completions; raises BadReply where it cannot follow the others."""
        for change in self._segments.add(delta):
            yield from self._told(change)

    def end(self, answer: Answered) -> Iterator[Event]:
        """The events of the answer's end."""
        for change in self._segments.end(answer.message):
            yield from self._told(change)
        response = completed(self._opening, self._output, answer)
        yield self._event(f"response.{response['status']}", response=response, bursar=answer.came_to())

    def fail(self, problem: Problem) -> Iterator[Event]:
        """The event of an answer that broke off."""
        error = {"code": "rate_limit_exceeded" if problem.status == 429 else "server_error", "message": problem.detail}
        yield self._event("response.failed", response=self._opening.response("failed", self._output) | {"error": error})

    def _told(self, change: Change) -> Iterator[Event]:
        segment, name = change.segment, _NAMES[change.segment.kind]
        match change.what:
            case "begin":
                yield from self._begun(segment)
            case "piece":
                yield self._event(f"{name}.delta", delta=change.piece, **self._where(segment), **_of_text(segment))
            case "end":
                said = {"text": segment.text}
                if segment.kind == "call":
                    said = {"name": segment.name, "arguments": segment.text}
                yield self._event(f"{name}.done", **said, **self._where(segment), **_of_text(segment))
                yield from self._ended(segment)

    def _begun(self, segment: Segment) -> Iterator[Event]:
        item = item_of(segment, self._opening.own, begun=True)
        yield self._event("response.output_item.added", output_index=segment.place, item=item)
        if segment.kind != "call":
            yield self._event("response.content_part.added", part=part_of(segment, ""), **self._where(segment))

    def _ended(self, segment: Segment) -> Iterator[Event]:
        item = item_of(segment, self._opening.own)
        self._output.append(item)
        if segment.kind != "call":
            part = part_of(segment, segment.text)
            yield self._event("response.content_part.done", part=part, **self._where(segment))
        yield self._event("response.output_item.done", output_index=segment.place, item=item)

    def _where(self, segment: Segment) -> dict[str, Any]:
        where = {"item_id": item_id(segment, self._opening.own), "output_index": segment.place}
        return where if segment.kind == "call" else where | {"content_index": 0}

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._sequence, **fields}
        self._sequence += 1
        return event


def _of_text(segment: Segment) -> dict[str, Any]:
    return {"logprobs": []} if segment.kind == "text" else {}
