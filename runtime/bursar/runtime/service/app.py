"""The gateway's HTTP application, and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from bursar.runtime.service.chat import chat_completions
from bursar.runtime.service.chat_request import ChatRequest
from bursar.runtime.service.embeddings import EmbeddingsRequest, create_embeddings
from bursar.runtime.service.gateway import Answer, Endpoint, Gateway
from bursar.runtime.service.messages_request import CountRequest, MessagesRequest
from bursar.runtime.service.models import list_models, show_model
from bursar.runtime.service.other_apis import count_tokens, messages, refused_message, responses
from bursar.runtime.service.problems import Problem, refused
from bursar.runtime.service.responses_request import ResponsesRequest
from bursar.runtime.service.shapes import Body

__all__ = ["Ready", "app_of"]

Ready = Callable[[], Awaitable[bool]]
"""Whether the ledger can be used."""


def app_of(gateway: Gateway, *, ready: Ready | None = None) -> FastAPI:
    """The application. Its paths are served without FastAPI's machinery, which only writes their documentation.

    Without `ready` it has none of the paths that need no key, such as `/metrics`, which names tenants.
    """
    app = FastAPI(title="Bursar", summary="Paid model calls within hard limits", docs_url=None, redoc_url=None)
    add = _Adding(app, gateway)
    add("POST", "/v1/chat/completions", chat_completions, ChatRequest)
    add("POST", "/v1/embeddings", create_embeddings, EmbeddingsRequest)
    add("POST", "/v1/responses", responses, ResponsesRequest)
    add("POST", "/v1/messages", messages, MessagesRequest, refuse=refused_message)
    add("POST", "/v1/messages/count_tokens", count_tokens, CountRequest, refuse=refused_message)
    add("GET", "/v1/models", list_models)
    add("GET", "/v1/models/{model:path}", show_model)
    if ready is not None:
        _add_for_operators(app, gateway, ready)
    app.add_exception_handler(HTTPException, _not_here)
    return app


def _add_for_operators(app: FastAPI, gateway: Gateway, ready: Ready) -> None:
    async def healthz(request: Request) -> Response:
        return Response("ok\n", media_type="text/plain")

    async def readyz(request: Request) -> Response:
        is_ready = await ready()
        return Response("ready\n" if is_ready else "the ledger cannot be used\n", 200 if is_ready else 503)

    async def metrics(request: Request) -> Response:
        return Response(gateway.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    for path, answer in (("/healthz", healthz), ("/readyz", readyz), ("/metrics", metrics)):
        app.add_route(path, answer)


class _Adding:
    """Adds paths to an application."""

    def __init__(self, app: FastAPI, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    def __call__(
        self,
        method: str,
        path: str,
        answer: Answer,
        body: type[Body] | None = None,
        *,
        refuse: Callable[[Problem], ASGIApp] = refused,
    ) -> None:
        """Serve a path, and document it with the body that it takes."""
        route = APIRoute(
            path,
            _documented,
            methods=[method],
            name=answer.__name__,
            summary=(answer.__doc__ or "").splitlines()[0],
            response_model=None,
            responses=_RESPONSES,
            openapi_extra=None if body is None else _body_of(body),
        )
        route.app = Endpoint(self._gateway, answer, name=path, refuse=refuse)
        self._app.router.routes.append(route)


async def _documented() -> Response:
    """Stands for an endpoint in the documentation; never called."""
    raise NotImplementedError


_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {"application/problem+json": {"schema": {"type": "object"}}}}
    for status, words in {
        400: "The request cannot be served as it is.",
        401: "The key is missing or not valid.",
        402: "A budget refused the call; nothing was sent.",
        404: "There is nothing of that name that this key may use.",
        429: "More than the rate of the key or of its tenant.",
        503: "The ledger or every model is away; nothing was sent.",
    }.items()
}


def _body_of(body: type[Body]) -> dict[str, Any]:
    schema = body.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}}


def _inlined(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its definitions in their places: OpenAPI keeps shared ones elsewhere."""
    definitions = schema.get("$defs", {})

    def placed(part: Any) -> Any:
        if isinstance(part, Mapping):
            if "$ref" in part:
                return placed(definitions[part["$ref"].rpartition("/")[2]])
            return {key: placed(value) for key, value in part.items() if key not in ("$defs", "discriminator")}
        return [placed(one) for one in part] if isinstance(part, list) else part

    return dict(placed(schema))


async def _not_here(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    code, detail = ("not_found", "there is no such path here") if status == 404 else ("not_allowed", "not done here")
    return refused(Problem(status=status, code=code, detail=detail, members={"next": "GET /openapi.json"}))
