"""What a server of `tests.support.warm` imports once for all that it forks: the runtime, and what that needs later."""

from __future__ import annotations

import gc
import importlib

__all__: list[str] = []

LATE = (
    *("bursar.budget.stores.sqlite", "ruamel.yaml", "langchain_core.tracers.context"),
    *("openai", "httpcore", "h2.connection", "anyio._backends._asyncio"),
)
"""What a runtime imports only when it is opened, or with its first call."""

for name in ("tests.acceptance.support", "bursar.agents", *LATE):
    importlib.import_module(name)
gc.collect()
gc.freeze()  # a collection in a child would copy it all
