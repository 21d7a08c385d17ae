"""A runtime as a gateway: the HTTP application on top of it, and the server that runs it."""

from __future__ import annotations

from fastapi import FastAPI

from bursar.budget.errors import LedgerError
from bursar.runtime.runtime import Runtime
from bursar.runtime.service.app import app_of
from bursar.runtime.service.callers import StandingCallers
from bursar.runtime.service.calls import Calls
from bursar.runtime.service.gateway import Gateway
from bursar.runtime.service.keys import Keys
from bursar.runtime.service.metrics import Metrics
from bursar.runtime.service.names import Names
from bursar.runtime.service.pace import Pace

__all__ = ["gateway_app"]


def gateway_app(runtime: Runtime, secret: bytes) -> FastAPI:
    """The application that answers the holders of the runtime's keys; `secret` is the one that they are hashed under.

    It belongs to the event loop on which the runtime was opened.
    """
    names = Names(runtime.config)
    gateway = Gateway(
        callers=StandingCallers(runtime, Keys(runtime.ledger, secret, clock=runtime.clock)),
        calls=Calls(names, Pace(runtime.config, runtime.ledger_thread)),
        names=names,
        metrics=Metrics(),
        body_bytes_max=runtime.config.gateway.body_bytes_max,
    )

    async def ready() -> bool:
        try:
            await runtime.ledger_thread.do(runtime.ledger.policies.ls)
        except LedgerError:
            return False
        return True

    return app_of(gateway, ready=ready)
