"""How a thread's values are kept small: bytes that only grow are stored once, in strands.

A strand is a string of bytes of one thread that is only ever appended to; each piece that was appended is a segment.
A list that grew is written as the list was before, with its new members behind it. So a value is kept as parts: its own
bytes, and beginnings of strands that it shares with older values, with other channels, or with what it is nested in.
What a strand holds is recognised by the length and the digest of all that it has grown to, without reading it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeAlias

import ormsgpack

__all__ = ["Beginning", "Part", "Strands", "digest_of", "joined"]

OWN_BYTES_MAX: Final = 512
"""A value, or the rest of one, of no more bytes than this stays where it is."""

TIPS_MAX: Final = 16
"""How many strands of a thread can be recognised; of more, those used last."""

HEAD_BYTES: Final = 64
"""By how many of its first bytes a strand is searched for."""

TRIES_MAX: Final = 8
"""How many places of a value that look like a strand's beginning are compared with it."""

DIGEST_BYTES: Final = 16


class Beginning(NamedTuple):
    """The first bytes of a strand."""

    strand: int
    length: int
    digest: bytes


Part: TypeAlias = bytes | Beginning


class Segment(NamedTuple):
    """What was appended to a strand at once."""

    strand: int
    start: int
    content: bytes


class _Tip(NamedTuple):
    """What a strand has grown to."""

    owner: str
    """The channel whose values it grows with; nothing else appends to it."""

    head: bytes
    whole: Beginning


class Strands:
    """The strands of one thread, as they are in one transaction."""

    def __init__(self, state: bytes | None) -> None:
        """`state` is what `state` gave when the thread was last written to."""
        self._next, tips = ormsgpack.unpackb(state) if state else (0, [])
        self._tips = [_Tip(owner, head, Beginning(*whole)) for owner, head, whole in tips]
        self.segments: list[Segment] = []
        """What has to be stored."""

    @property
    def state(self) -> bytes:
        """What has to be known when the thread is written to again."""
        return ormsgpack.packb((self._next, [(tip.owner, tip.head, tuple(tip.whole)) for tip in self._tips]))

    def cut(self, content: bytes) -> list[Part]:
        """The parts of a value that is written once, as pending writes are."""
        parts: list[Part] = [content]
        for tip in self._tips:
            parts = [piece for part in parts for piece in _split(part, tip)]
        return parts

    def keep(self, content: bytes, owner: str) -> list[Part]:
        """The parts of a channel's value; what is new in it grows the channel's strand, as the next version may."""
        if len(content) <= OWN_BYTES_MAX:
            return [content]
        own = next((tip for tip in self._tips if tip.owner == owner), None)
        start = _header_bytes(content)
        if own is not None and (hashed := _matched(content, start, own)):
            parts: list[Part] = [content[:start], self._grown(own, hashed, content[start + own.whole.length :])]
        else:
            parts = self._kept(content, start, owner, own)
        return [part for part in parts if part]

    def _kept(self, content: bytes, start: int, owner: str, own: _Tip | None) -> list[Part]:
        """What does not begin with its channel's strand: it may hold that, or others, further on."""
        *shared, tail = self.cut(content)
        if not shared:
            shared, tail = [content[:start]], content[start:]
        if isinstance(tail, Beginning):
            return [*shared, tail]
        if own is not None and shared[-1] == own.whole:
            hashed = _matched(content, len(content) - len(tail) - own.whole.length, own)
            return [*shared[:-1], self._grown(own, hashed, tail)]
        return [*shared, tail if len(tail) <= OWN_BYTES_MAX else self._begun(owner, tail)]

    def forget(self, used: Mapping[int, Beginning]) -> None:
        """Keep only what is in `used`, each strand up to that length."""
        self._tips = [tip._replace(whole=used[tip.whole.strand]) for tip in self._tips if tip.whole.strand in used]

    def _begun(self, owner: str, content: bytes) -> Beginning:
        self._next += 1
        self.segments.append(Segment(self._next, 0, content))
        return self._tipped(owner, content[:HEAD_BYTES], Beginning(self._next, len(content), digest_of(content)))

    def _grown(self, own: _Tip, hashed: Any, tail: bytes) -> Beginning:
        strand, length, _ = own.whole
        if tail:
            self.segments.append(Segment(strand, length, tail))
            hashed.update(tail)
        return self._tipped(own.owner, own.head, Beginning(strand, length + len(tail), _digest(hashed)))

    def _tipped(self, owner: str, head: bytes, whole: Beginning) -> Beginning:
        others = [tip for tip in self._tips if tip.owner != owner]
        self._tips = [_Tip(owner, head, whole), *others[: TIPS_MAX - 1]]
        return whole


def joined(parts: Sequence[Part], load: Callable[[Beginning], bytes]) -> bytes:
    """The value that was kept as these parts."""
    return b"".join(load(part) if isinstance(part, Beginning) else part for part in parts)


def digest_of(content: bytes) -> bytes:
    """By which the first bytes of a strand are known."""
    return _digest(sha256(content))


def _digest(hashed: Any) -> bytes:
    return bytes(hashed.digest()[:DIGEST_BYTES])


def _split(part: Part, tip: _Tip) -> list[Part]:
    """The part with the tip's strand in place of its bytes, wherever they are."""
    if isinstance(part, Beginning) or len(part) <= OWN_BYTES_MAX:
        return [part]
    pieces: list[Part] = []
    start = tries = 0
    at = part.find(tip.head)
    while at >= 0 and tries < TRIES_MAX:
        if _matched(part, at, tip):
            pieces += [part[start:at], tip.whole]
            start = at = at + tip.whole.length
        else:
            tries += 1
            at += 1
        at = part.find(tip.head, at)
    return [*pieces, part[start:]]


def _matched(content: bytes, at: int, tip: _Tip) -> Any:
    """The hash of the tip's strand, if that is what the content has there."""
    end = at + tip.whole.length
    if len(content) < end or not content.startswith(tip.head, at):
        return None
    hashed = sha256(memoryview(content)[at:end])
    return hashed if _digest(hashed) == tip.whole.digest else None


def _header_bytes(content: bytes) -> int:
    """How long the part of a msgpack list or mapping is that says how many members it has."""
    first = content[0]
    if 0x80 <= first <= 0x9F:
        return 1
    return {0xDC: 3, 0xDE: 3, 0xDD: 5, 0xDF: 5}.get(first, 0)
