"""LangGraph's cache of nodes, in which no tenant finds what was kept for another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langgraph.cache.base import BaseCache, FullKey, Namespace

from bursar.runtime.context import current_run

__all__ = ["TenantCache"]


class TenantCache(BaseCache[Any]):
    """A graph's own cache, used for the tenant of the run around each use; LangGraph's keys say nothing of tenants."""

    def __init__(self, cache: BaseCache[Any]) -> None:
        super().__init__(serde=cache.serde)
        self._cache = cache

    def get(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """The values that were kept for this tenant."""
        return _bare(self._cache.get(list(map(_own, keys))))

    async def aget(self, keys: Sequence[FullKey]) -> dict[FullKey, Any]:
        """See `get`."""
        return _bare(await self._cache.aget(list(map(_own, keys))))

    def set(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """Keep values, each for so many seconds."""
        self._cache.set({_own(key): value for key, value in pairs.items()})

    async def aset(self, pairs: Mapping[FullKey, tuple[Any, int | None]]) -> None:
        """See `set`."""
        await self._cache.aset({_own(key): value for key, value in pairs.items()})

    def clear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """Forget namespaces of this tenant, or all of every tenant."""
        self._cache.clear(None if namespaces is None else list(map(_own_namespace, namespaces)))

    async def aclear(self, namespaces: Sequence[Namespace] | None = None) -> None:
        """See `clear`."""
        await self._cache.aclear(None if namespaces is None else list(map(_own_namespace, namespaces)))


def _own(key: FullKey) -> FullKey:
    return _own_namespace(key[0]), key[1]


def _own_namespace(namespace: Namespace) -> Namespace:
    return (current_run().scope.tenant, *namespace)


def _bare(found: Mapping[FullKey, Any]) -> dict[FullKey, Any]:
    return {(namespace[1:], key): value for (namespace, key), value in found.items()}
