"""`GET /v1/models` and `/v1/models/{id}`: what the key may ask for."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp

from bursar.runtime.service.errors import UnknownModel
from bursar.runtime.service.gateway import Gateway, Incoming
from bursar.runtime.service.names import Offer

__all__ = ["list_models", "show_model"]


async def list_models(gateway: Gateway, request: Incoming) -> ASGIApp:
    """All tiers, models and agents that the key may name."""
    offers = gateway.names.offers(request.caller).values()
    return _json({"object": "list", "data": [_record(offer) for offer in offers]})


async def show_model(gateway: Gateway, request: Incoming) -> ASGIApp:
    """One of them."""
    name = request.path["model"]
    offer = gateway.names.offers(request.caller).get(name)
    if offer is None:
        raise UnknownModel(name, [])
    return _json(_record(offer))


def _record(offer: Offer) -> dict[str, Any]:
    kind = "agent" if offer.agent else "model" if offer.model else "tier"
    return {"id": offer.name, "object": "model", "created": 0, "owned_by": "bursar", "bursar": {"kind": kind}}


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")
