"""`bursar serve`: the gateway."""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from bursar.budget.errors import UsageError
from bursar.runtime.cli.books import Books, open_books
from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile, flag
from bursar.runtime.cli.output import console, opening, print_json, print_next
from bursar.runtime.cli.words import counted, plain

if TYPE_CHECKING:
    from bursar.runtime.config import Config

__all__ = ["serve"]


def serve(
    *,
    host: Annotated[str | None, Parameter(help="The address to listen at, in place of gateway.host.")] = None,
    port: Annotated[
        int | None, Parameter(help="The port, in place of gateway.port.", validator=Number(gte=0, lte=65_535))
    ] = None,
    workers: Annotated[
        int | None, Parameter(help="So many processes, in place of gateway.workers.", validator=Number(gte=1, lte=64))
    ] = None,
    worker: Annotated[bool, flag("--worker", "Execute runs that wait for a worker, too.")] = False,
    config: ConfigFile = CONFIG_FILE,
    as_json: AsJson = False,
) -> None:
    """Answer OpenAI's and Anthropic's clients within the limits of their keys, until Ctrl-C."""
    with opening():
        from bursar.runtime.service.key_secret import key_secret
        from bursar.runtime.service.serving import run_server

    with open_books(config) as books:
        key_secret(books.config, make=True)
        settings = books.config.gateway
        listener = _listening(host or settings.host, settings.port if port is None else port)
        if as_json:
            print_json({"url": _url(listener), **_offered(books.config)})
        else:
            _print_served(books, listener, config)
    with listener:
        run_server(config.absolute(), listener, workers=workers or settings.workers, works=worker)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {error.strerror}", next_step="bursar serve --port 0"
        ) from None


def _print_served(books: Books, listener: socket.socket, file: Path) -> None:
    from bursar.runtime.service.keys import Keys

    out, url = console(), _url(listener)
    offered = "; ".join(f"{kind} {', '.join(names)}" for kind, names in _offered(books.config).items() if names)
    out.print(f"serving {url}/v1: {plain(offered)}", soft_wrap=True)
    valid = [key for key in Keys(books.ledger, None).ls() if key.is_valid(datetime.now(UTC))]
    for key in valid[:5]:
        out.print(f"  {key.id} {key.hint}... {plain(key.terms.tenant)} {plain(key.terms.name or '')}".rstrip())
    if len(valid) > 5:
        out.print(f"  and {counted(len(valid) - 5, 'key')} more: bursar key ls")
    tier = next(iter(books.config.tiers))
    curl = (
        f'curl {url}/v1/chat/completions -H "Authorization: Bearer $BURSAR_KEY" -H "Content-Type: application/json" '
        f'-d \'{{"model": "{tier}", "messages": [{{"role": "user", "content": "Hello"}}]}}\''
    )
    print_next([*([] if valid else ["bursar key create --tenant TENANT"]), curl], file)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _offered(config: Config) -> dict[str, list[str]]:
    return {"tiers": [*config.tiers], "models": [*config.models], "agents": [*config.agents]}
