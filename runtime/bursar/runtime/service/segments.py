"""A streamed answer as segments, one after another: what the model thinks, what it says, each of its tool calls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bursar.runtime.models.provider import BadReply, Message

__all__ = ["Change", "Segment", "Segments"]


@dataclass(slots=True, kw_only=True, eq=False)
class Segment:
    """A part of an answer."""

    kind: Literal["reasoning", "text", "call"]
    place: int
    """Its place in the answer, from 0."""

    call_id: str = ""
    name: str = ""
    """The tool's, of a call."""

    signature: str = ""
    """Of a thought: its maker's, who refuses it without one on the next turn."""

    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All of it that has come; of a call its arguments."""
        return "".join(self.pieces)


class Change(NamedTuple):
    """What a delta did to a segment."""

    what: Literal["begin", "piece", "end"]
    segment: Segment
    piece: str = ""


class Segments:
    """Turns the deltas of a chat completion into changes of segments, of which one at most is open.

    What comes beside a call that is open is given out after it: no segment can be gone on with once it has ended.
    """

    def __init__(self, own: str) -> None:
        """`own` tells this answer from every other; ids of calls are made of it where the provider gives none."""
        self._own = own
        self._open: Segment | None = None
        self._calls: dict[int, Segment] = {}
        self._beside: list[tuple[Literal["reasoning", "text"], str]] = []
        self._count = 0

    def add(self, delta: Mapping[str, Any]) -> Iterator[Change]:
        """Take text, thoughts and tool calls; raises BadReply for a call that had ended."""
        if thoughts := delta.get("thinking_blocks"):
            for thought in thoughts:
                yield from self._thought(thought)
        elif thought := delta.get("reasoning_content"):
            yield from self._words("reasoning", thought)
        if said := delta.get("content"):
            yield from self._words("text", said)
        for part in delta.get("tool_calls") or ():
            yield from self._call(part)

    def end(self, message: Message) -> Iterator[Change]:
        """End the last segment; an answer of which nothing was streamed, such as a replay, comes whole."""
        if not self._count:
            calls = [{**call, "index": place} for place, call in enumerate(message.get("tool_calls") or ())]
            yield from self.add({**message, "tool_calls": calls})
        yield from self._close()

    def _thought(self, block: Mapping[str, Any]) -> Iterator[Change]:
        """A piece of one of Claude's thoughts, which ends with its signature; what is redacted is let go."""
        if piece := block.get("thinking"):
            yield from self._words("reasoning", piece)
        if (signature := block.get("signature")) and self._open is not None and self._open.kind == "reasoning":
            self._open.signature = signature
            yield from self._close()

    def _words(self, kind: Literal["reasoning", "text"], piece: str) -> Iterator[Change]:
        if self._open is not None and self._open.kind == "call":
            self._beside.append((kind, piece))
            return
        if self._open is None or self._open.kind != kind:
            yield from self._close()
            yield self._begin(Segment(kind=kind, place=self._count))
        yield from self._go_on(piece)

    def _call(self, part: Mapping[str, Any]) -> Iterator[Change]:
        function, index = part.get("function") or {}, self._index(part)
        if index not in self._calls:
            yield from self._close()
            call_id = part.get("id") or f"call_{self._own}_{index}"
            segment = Segment(kind="call", place=self._count, call_id=call_id, name=function.get("name") or "")
            self._calls[index] = segment
            yield self._begin(segment)
        elif self._calls[index] is not self._open:
            raise BadReply(f"the provider went back to tool call {index} after it had begun another")
        yield from self._go_on(function.get("arguments") or "")

    def _index(self, part: Mapping[str, Any]) -> int:
        # Some servers send no index: a part with an id begins a call then, and any other goes on with the last.
        index = part.get("index")
        if index is None:
            return len(self._calls) - (0 if part.get("id") or not self._calls else 1)
        return int(index)

    def _begin(self, segment: Segment) -> Change:
        self._open = segment
        self._count += 1
        return Change("begin", segment)

    def _go_on(self, piece: str) -> Iterator[Change]:
        if piece and self._open is not None:
            self._open.pieces.append(piece)
            yield Change("piece", self._open, piece)

    def _close(self) -> Iterator[Change]:
        ended, self._open = self._open, None
        if ended is None:
            return
        yield Change("end", ended)
        beside, self._beside = self._beside, []
        for kind, piece in beside:
            yield from self._words(kind, piece)
        yield from self._close()
