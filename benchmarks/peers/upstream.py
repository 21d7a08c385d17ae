"""The provider that all sides call, in a process of its own; its bill is the truth."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Self

import httpx

from benchmarks.peers.cases import nanousd
from tests.support.processes import Child

__all__ = ["Upstream"]


class Upstream:
    """An OpenAI-compatible provider on a free port; leaving the context stops it."""

    def __enter__(self) -> Self:
        self._child = Child("-m", "tests.support.provider")
        self.url = self._child.line()
        self.api_base = f"{self.url}/v1"
        self._admin = httpx.Client(base_url=self.url, trust_env=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admin.close()
        self._child.kill()

    def reset(self, **behaviour: float) -> None:
        """Begin a new bill, and behave so from now on (see `tests.support.behaviour.Behaviour`)."""
        self._admin.post("/_reset").raise_for_status()
        self._admin.post("/_script", json=behaviour).raise_for_status()

    async def bill(self) -> tuple[int, int]:
        """How many calls were charged for and their nano-USD, once no request is unanswered any more."""
        while (bill := self._bill())["in_flight"]:  # noqa: ASYNC110 - another process, which sends no events
            await asyncio.sleep(0.1)
        return bill["calls"], nanousd(bill["input_tokens"], bill["output_tokens"])

    def _bill(self) -> dict[str, Any]:
        return dict(self._admin.get("/_bill").raise_for_status().json())
