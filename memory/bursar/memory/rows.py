"""What the rows of checkpoints and pending writes hold, sealed: a row that was changed or moved is not read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, TypeAlias

import ormsgpack

from bursar.memory.errors import CheckpointRefused
from bursar.memory.strands import Beginning, Part

__all__ = ["Kept", "Row", "Version", "opened", "sealed"]

Version: TypeAlias = str | int | float

SEAL_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Kept:
    """A value as it is kept."""

    kind: str
    """The serializer's."""

    parts: Sequence[Part]

    def plain(self) -> tuple[Any, ...]:
        """As msgpack can write it."""
        return self.kind, [tuple(part) if isinstance(part, Beginning) else part for part in self.parts]

    @classmethod
    def of(cls, plain: Any) -> Kept:
        """Of what `plain` gave."""
        kind, parts = plain
        return cls(kind, [part if isinstance(part, bytes) else Beginning(*part) for part in parts])


@dataclass(frozen=True, slots=True)
class Row:
    """A checkpoint without its values."""

    parent: str | None
    said: bytes
    """The checkpoint and its metadata, as the serializer writes them."""

    values: Mapping[str, tuple[Version, Kept]]
    """By channel."""

    def version(self, channel: str) -> Version | None:
        """Of the value that is kept of a channel."""
        return self.values[channel][0] if channel in self.values else None

    def packed(self) -> bytes:
        """As it is stored, but for the seal."""
        values = {channel: (version, kept.plain()) for channel, (version, kept) in self.values.items()}
        return ormsgpack.packb((self.parent, self.said, values))

    @classmethod
    def unpacked(cls, content: bytes) -> Row:
        """Of what `packed` gave."""
        parent, said, values = ormsgpack.unpackb(content)
        return cls(parent, said, {name: (version, Kept.of(kept)) for name, (version, kept) in values.items()})


def sealed(content: bytes, *place: str | int) -> bytes:
    """The content with a seal on it and on its place: tenant, thread and whatever else names the row."""
    return _seal(content, place) + content


def opened(body: bytes, *place: str | int) -> bytes:
    """The content of a sealed row; raises CheckpointRefused where it is not what was put there."""
    if isinstance(body, bytes) and body[:SEAL_BYTES] == _seal(body[SEAL_BYTES:], place):
        return body[SEAL_BYTES:]
    raise CheckpointRefused(
        f"a row of thread {place[1]} is damaged, or belongs to another thread or tenant",
        next_step="restore the checkpoints from a backup, or start the run anew",
    )


def _seal(content: bytes, place: tuple[str | int, ...]) -> bytes:
    hashed = blake2b(ormsgpack.packb(place), digest_size=SEAL_BYTES)
    hashed.update(content)
    return hashed.digest()
