"""A gateway over real HTTP, in a thread with a loop of its own, on a ledger and models of the test's."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import uvicorn
from sqlalchemy import update

from bursar.budget.admission import ToolQuote
from bursar.budget.amounts import Amounts
from bursar.budget.reservations import Call, Reservation
from bursar.runtime.config import parse_config
from bursar.runtime.runs.schema import gateway_key
from bursar.runtime.runtime import Runtime
from bursar.runtime.service.keys import Key, Keys, KeyTerms
from bursar.runtime.service.serving import gateway_app, server_config
from bursar.runtime.tenants import organisation_of
from tests.support.ledger import new_runtime_file

__all__ = ["SECRET", "Gateway", "config_text"]

SECRET = b"a secret of the tests, long enough to be one"

_TIMEOUT_S = 20


def config_text(api_base: str, *, more: str = "", tenants: str = "  acme: {}\n", house: str = "") -> str:
    """A bursar.yaml with two tiers at one provider; `house` are more settings of the small tier's model."""
    price = '{input_usd_per_mtok: "1", output_usd_per_mtok: "100"}'
    common = f"provider: openai_compatible, api_base: {api_base}, api_key_env: HOUSE_KEY, retries: 0"
    return (
        "database: sqlite:///bursar.db\n"
        "models:\n"
        f"  house: {{{common}, model: house-7b, price: {price}, max_output_tokens: 256{house}}}\n"
        f"  large: {{{common}, model: house-70b, price: {price}, max_output_tokens: 256}}\n"
        f"  vectors: {{{common}, model: house-embed, kind: embedding, price: {price}}}\n"
        "tiers: {small: [house], frontier: [large]}\n"
        f"{more}"
        f"tenants:\n{tenants}"
    )


class Gateway:
    """Serves while entered; `url` is where, and `key` makes a key."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.config = parse_config(text, file=folder / "bursar.yaml")
        new_runtime_file(folder)
        self._begun = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway", daemon=True)
        self._thread.start()
        assert self._begun.wait(_TIMEOUT_S), "the gateway did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._thread.join(_TIMEOUT_S)
        assert not self._thread.is_alive(), "the gateway did not stop"

    def stop(self) -> None:
        """Tell the server to end, as SIGTERM does."""
        self._server.should_exit = True

    def key(self, tenant: str = "acme", **terms: Any) -> str:
        """The text of a new key."""
        return self.made_key(tenant, **terms)[1]

    def made_key(self, tenant: str = "acme", **terms: Any) -> tuple[Key, str]:
        """A new key with its text."""
        organisation = organisation_of(self.config, tenant)
        return self.keys.create(KeyTerms(tenant=tenant, **terms), organisation=organisation, by="dana")

    @contextmanager
    def under_way(self, idempotency_key: str) -> Iterator[None]:
        """Meanwhile another process is answering the same call by the newest key."""
        ledger, key = self.runtime.ledger, self.keys.ls()[0]
        scope = key.terms.scope(key.id, organisation_of(self.config, key.terms.tenant))
        call_id = f"{key.id}:idem_{hashlib.sha256(idempotency_key.encode()).hexdigest()[:24]}"
        made = ledger.reserve(Call(id=call_id, scope=scope, epoch=0, node="-"), ToolQuote())
        assert isinstance(made, Reservation)
        yield
        ledger.release(made, note="the other process is gone")

    def wait(self, seconds: float) -> None:
        """Let the gateway go on."""
        time.sleep(seconds)

    def expire(self, key: Key) -> None:
        """Let a key's time be over."""
        with self.runtime.ledger.store.write() as connection:
            connection.execute(update(gateway_key).where(gateway_key.c.id == key.id).values(expires_us=1))

    def grant(self, path: str, **amounts: int) -> None:
        """Give a budget, or a key's run, more."""
        self.runtime.ledger.budgets.grant(path, Amounts(**amounts), author="dana", note="")

    def spent(self, path: str) -> int:
        """What was posted to a path, in nano-USD."""
        return self.runtime.ledger.reports.spent(path).nanousd

    def forget_failures(self) -> None:
        """Let no model be passed by for what it failed of before."""
        for cooling in self.runtime.health.snapshot():
            self.runtime.health.answered(cooling.model, self.runtime.clock())

    def client(self, key: str | None = None, **headers: str) -> httpx.Client:
        """An HTTP client that shows the key."""
        shown = {} if key is None else {"authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self.url, headers={**shown, **headers}, timeout=_TIMEOUT_S, trust_env=False)

    async def _serve(self) -> None:
        try:
            async with Runtime.open(self.config, env={"HOUSE_KEY": "provider-secret-key"}) as self.runtime:
                self.keys = Keys(self.runtime.ledger, SECRET)
                app = gateway_app(self.runtime, SECRET)
                config = server_config(app)
                config.lifespan, config.timeout_graceful_shutdown = "off", 5
                self._server = uvicorn.Server(config)
                self._begun.set()
                await self._server.serve([self._listener])
        except BaseException as error:
            self._failure = error
            self._begun.set()
            raise
