"""A streamed answer as the events of Anthropic's Messages API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bursar.runtime.service.answered import Answered
from bursar.runtime.service.messages import block_of, error_of, opened, stop_of, usage_of
from bursar.runtime.service.problems import Problem
from bursar.runtime.service.segments import Change, Segment, Segments

__all__ = ["MessageEvents"]

Event = dict[str, Any]

_DELTAS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}
"""The type of a piece's delta and the name of what it holds, by the segment's kind."""


class MessageEvents:
    """Turns the deltas of one answer into events, each with its `type`."""

    def __init__(self, model: str, own: str) -> None:
        """`model` is who answers; `own` tells this answer from every other."""
        self._model, self._own = model, own
        self._segments = Segments(own)
        self._called = False

    def begin(self) -> Iterator[Event]:
        """The event before the answer."""
        yield {"type": "message_start", "message": opened(self._model, self._own)}

    def add(self, delta: Mapping[str, Any]) -> Iterator[Event]:
        """The events of a delta in the shape of chat completions; raises BadReply where it cannot follow the others."""
        for change in self._segments.add(delta):
            yield from self._told(change)

    def end(self, answer: Answered) -> Iterator[Event]:
        """The events of the answer's end."""
        for change in self._segments.end(answer.message):
            yield from self._told(change)
        stop = stop_of(answer.finish_reason, called=self._called)
        yield {"type": "message_delta", "delta": stop, "usage": usage_of(answer.usage), "bursar": answer.came_to()}
        yield {"type": "message_stop"}

    def fail(self, problem: Problem) -> Iterator[Event]:
        """The event of an answer that broke off."""
        yield error_of(problem)

    def _told(self, change: Change) -> Iterator[Event]:
        segment = change.segment
        match change.what:
            case "begin":
                self._called = self._called or segment.kind == "call"
                yield {"type": "content_block_start", "index": segment.place, "content_block": _begun(segment)}
            case "piece":
                yield _delta(segment, *_DELTAS[segment.kind], change.piece)
            case "end":
                if segment.signature:
                    yield _delta(segment, "signature_delta", "signature", segment.signature)
                yield {"type": "content_block_stop", "index": segment.place}


def _delta(segment: Segment, kind: str, name: str, piece: str) -> Event:
    return {"type": "content_block_delta", "index": segment.place, "delta": {"type": kind, name: piece}}


def _begun(segment: Segment) -> dict[str, Any]:
    """The block before its first piece."""
    return block_of(Segment(kind=segment.kind, place=segment.place, call_id=segment.call_id, name=segment.name))
