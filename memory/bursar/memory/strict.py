"""A serializer for checkpoints that rebuilds only the types it was told of and refuses everything else.

LangGraph writes an object as a msgpack extension that names a module, a type and its arguments, and reads it by
importing and calling what the row names: whoever can write to the file can run code. Its own allow-list prevents the
call, but then puts the bare arguments where the object was, and the run goes on with a state that nobody wrote.
Here the rows, which stay LangGraph's byte for byte, are read by a walk that ends at the first thing it may not or
cannot rebuild; and what such a walk would not get through is refused when it is written. The wire format has no
public names in LangGraph, so some private ones are imported; a test holds rows and values against LangGraph's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from importlib import import_module
from typing import Any, Final, NoReturn, TypeAlias

import ormsgpack
from langgraph.checkpoint.serde import jsonplus as wire
from langgraph.checkpoint.serde._msgpack import SAFE_MSGPACK_METHODS, SAFE_MSGPACK_TYPES
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import _DeltaSnapshot
from langgraph.types import Send
from pydantic import BaseModel

from bursar.budget.errors import UsageError
from bursar.memory.errors import CheckpointRefused

__all__ = ["AllowedType", "StrictSerializer"]

AllowedType: TypeAlias = type | tuple[str, ...]
"""A type, or its module and name: `Plan` or `("shop.plans", "Plan")`."""


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's serializer, failing closed.

    Messages, documents, LangGraph's own types and the standard library's values are always allowed; `allowed_types`
    adds those that a graph keeps besides. Threads may share it.
    """

    def __init__(self, allowed_types: Iterable[AllowedType] = ()) -> None:
        self._allowed = SAFE_MSGPACK_TYPES.union(map(_key, allowed_types))
        self._readable: set[type] = set()
        super().__init__(pickle_fallback=False, allowed_msgpack_modules=tuple(self._allowed))

    def with_msgpack_allowlist(self, extra_allowlist: Iterable[AllowedType]) -> StrictSerializer:
        """The same with more types allowed; LangGraph's way to add the types that a graph's state declares."""
        allowed = self._allowed.union(map(_key, extra_allowlist))
        return self if allowed == self._allowed else StrictSerializer(allowed)

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        """Encode an object as LangGraph does; raises CheckpointRefused for one that could not be read back."""
        if obj is None or isinstance(obj, (bytes, bytearray)):
            return super().dumps_typed(obj)
        return "msgpack", _Writer(self._allowed, self._readable).write(obj)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """Rebuild an object; raises CheckpointRefused where any part of it may not or cannot be rebuilt."""
        kind, content = data
        if kind in ("null", "bytes", "bytearray"):
            return super().loads_typed(data)
        if kind != "msgpack":
            raise _unreadable(f"it is of kind {kind!r}, which no graph writes here")
        return _Reader(self._allowed).read(content)


class _Pass:
    """One pass over one row. It keeps what its callback raised first, which msgpack forgets."""

    def __init__(self, allowed: Set[tuple[str, ...]]) -> None:
        self._allowed = allowed
        self._raised: BaseException | None = None

    def _fail(self, refused: Callable[[str], CheckpointRefused], error: Exception) -> NoReturn:
        cause = self._raised or error
        if isinstance(cause, CheckpointRefused) or not isinstance(cause, Exception):
            raise cause
        raise refused(f"{type(cause).__name__}: {cause}") from cause


class _Reader(_Pass):
    def read(self, row: bytes) -> Any:
        try:
            return self._unpack(row)
        except Exception as error:
            self._fail(_unreadable, error)

    def _unpack(self, data: bytes) -> Any:
        return ormsgpack.unpackb(data, ext_hook=self._extension, option=ormsgpack.OPT_NON_STR_KEYS)

    def _extension(self, code: int, data: bytes) -> Any:
        try:
            return self._rebuild(code, self._unpack(data))
        except BaseException as error:
            self._raised = self._raised or error
            raise

    def _rebuild(self, code: int, content: Any) -> Any:
        if code in _UNNAMED:
            return _UNNAMED[code](content)
        target = _target(self._allowed, code, content)
        try:
            return _NAMED[code](target, content[2])
        except Exception as error:
            raise CheckpointRefused(
                f"{content[0]}.{content[1]} cannot be rebuilt from its checkpoint: {type(error).__name__}: {error}",
                next_step="let the type accept what it was saved with, or start the run anew",
            ) from error


class _Check(_Reader):
    """A reader that rebuilds nothing and only says whether it could."""

    def _rebuild(self, code: int, content: Any) -> Any:
        if code not in _UNNAMED:
            _target(self._allowed, code, content)


class _Writer(_Pass):
    def __init__(self, allowed: Set[tuple[str, ...]], readable: set[type]) -> None:
        super().__init__(allowed)
        self._readable = readable

    def write(self, obj: Any) -> bytes:
        try:
            return self._pack(obj)
        except Exception as error:
            self._fail(_unwritable, error)

    def _pack(self, obj: Any) -> bytes:
        return ormsgpack.packb(obj, default=self._extension, option=wire._option)

    def _extension(self, obj: Any) -> Any:
        try:
            return self._model(obj) if isinstance(obj, BaseModel) else self._other(obj)
        except BaseException as error:
            self._raised = self._raised or error
            raise

    def _model(self, obj: BaseModel) -> ormsgpack.Ext:
        # Messages are models and most of every state: written here, so that checking them costs next to nothing.
        kind = type(obj)
        content = (kind.__module__, kind.__name__, obj.model_dump(), "model_validate_json")
        if kind not in self._readable:
            _target(self._allowed, wire.EXT_PYDANTIC_V2, content)
            self._readable.add(kind)
        return ormsgpack.Ext(wire.EXT_PYDANTIC_V2, self._pack(content))

    def _other(self, obj: Any) -> Any:
        _, row = _LANGGRAPH.dumps_typed(obj)
        _Check(self._allowed).read(row)
        return ormsgpack.unpackb(row, ext_hook=ormsgpack.Ext)


_LANGGRAPH: Final = JsonPlusSerializer(allowed_msgpack_modules=None)
"""Only ever written with."""


def _target(allowed: Set[tuple[str, ...]], code: int, content: Any) -> Any:
    """What an extension names, imported only once it is known to be allowed."""
    if code not in _NAMED:
        raise _unreadable(f"it has an extension of unknown code {code}")
    module, name = content[0], content[1]
    method = content[3] if code == wire.EXT_METHOD_SINGLE_ARG else None
    if method is not None and (module, name, method) not in SAFE_MSGPACK_METHODS:
        raise CheckpointRefused(
            f"{module}.{name}.{method} is not among the methods that a checkpoint may call",
            next_step="keep a plain datetime in its place",
        )
    if (module, name) not in allowed:
        raise CheckpointRefused(
            f"{module}.{name} is not among the types that a checkpoint may hold",
            next_step=f"allowed_types=[{(module, name)}], if a graph of yours keeps it",
        )
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise CheckpointRefused(
            f"{module}.{name} cannot be found by that name, so a checkpoint of it cannot be read",
            next_step="define the type at the top level of a module that can be imported",
        ) from error
    return found if method is None else getattr(found, method)


def _key(allowed: AllowedType) -> tuple[str, ...]:
    if isinstance(allowed, type):
        return allowed.__module__, allowed.__name__
    if isinstance(allowed, tuple) and len(allowed) == 2 and all(isinstance(part, str) for part in allowed):
        return allowed
    raise UsageError(
        f"allowed type {allowed!r}: expected a class, or its module and name", next_step='("shop.plans", "Plan")'
    )


def _unreadable(why: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"a checkpoint cannot be read: {why}", next_step="restore the file from a backup, or start the run anew"
    )


def _unwritable(why: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"the run's state cannot be kept: {why}",
        next_step="keep plain values, messages, dataclasses or pydantic models in it",
    )


def _positional(target: Callable[..., Any], arguments: Any) -> Any:
    if target is Send and len(arguments) > 2:  # its third is keyword-only
        return Send(arguments[0], arguments[1], timeout=arguments[2])
    return target(*arguments)


def _model(target: Any, fields: Any) -> Any:
    try:
        return target(**fields)
    except Exception:  # a model need not accept its own dump, so LangGraph skips validation then, and so do we
        construct = getattr(target, "model_construct", None) or target.construct
        return construct(**fields)


def _array(content: Any) -> Any:
    dtype, shape, order, data = content
    numpy = import_module("numpy")
    return numpy.frombuffer(data, dtype=numpy.dtype(dtype)).reshape(shape, order=order)


_NAMED: Final[Mapping[int, Callable[[Any, Any], Any]]] = {
    wire.EXT_CONSTRUCTOR_SINGLE_ARG: lambda target, argument: target(argument),
    wire.EXT_CONSTRUCTOR_POS_ARGS: _positional,
    wire.EXT_CONSTRUCTOR_KW_ARGS: lambda target, fields: target(**fields),
    wire.EXT_METHOD_SINGLE_ARG: lambda method, argument: method(argument),
    wire.EXT_PYDANTIC_V1: _model,
    wire.EXT_PYDANTIC_V2: _model,
}
"""How to rebuild what an extension names, by its code, from `(module, name, arguments, ...)`."""

_UNNAMED: Final[Mapping[int, Callable[[Any], Any]]] = {
    wire.EXT_NUMPY_ARRAY: _array,
    wire.EXT_DELTA_SNAPSHOT: _DeltaSnapshot,
}
"""How to rebuild the extensions that name nothing."""
