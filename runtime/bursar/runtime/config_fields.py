"""The kinds of value that the settings of `bursar.yaml` are made of."""

from __future__ import annotations

import re
import zoneinfo
from decimal import Decimal
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from bursar.budget.money import NANO, NANOUSD_MAX
from bursar.runtime.config_problems import Problem, Problems, nearest

__all__ = [
    "SECTION",
    "AlertPercent",
    "BaseUrl",
    "Count",
    "DatabaseUrl",
    "Name",
    "Named",
    "Names",
    "NodeName",
    "Percent",
    "PeriodName",
    "PositiveCount",
    "ProviderName",
    "Seconds",
    "Text",
    "TokensPerSecond",
    "Usd",
    "UsdPerMtok",
    "UserName",
    "VariableName",
    "ZoneName",
]

COUNT_MAX = 10**15
"""The largest limit of tokens, steps or tool calls: exact in any JSON reader."""

SECTION = ConfigDict(
    extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=True
)
"""What every section has in common: unknown keys are errors, and nothing changes after it was read."""

_NAME = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
_PROVIDER = r"^[a-z0-9][a-z0-9_-]{0,62}$"
_FILE = r"sqlite:///[^?#\x00-\x1f]+"
_SERVER = r"postgresql(\+psycopg)?://([^\s:/@?#]+@)?[^\s/@?#]*/[^\s/@?#]+(\?[^\s#]+)?"
_DATABASE = f"^({_FILE}|{_SERVER})$"
_API_BASE = r"^https?://[^\s/@?#]+(/[^\s?#]*)?$"
_USER = r"^[A-Za-z0-9][A-Za-z0-9_.@+-]{0,126}$"
_NODE = r"^(?!org:|team:|user:|node:)[^/\x00-\x1f\x7f]{1,127}$"
_PERIOD = r"^(hour|day|week|month|total|rolling-[1-9][0-9]{0,3}[mhd])$"
_VARIABLE = r"^(?!AKIA|ASIA)[A-Z_][A-Z0-9_]{0,63}$"


def _name(value: str) -> str:
    if not re.fullmatch(_NAME, value):
        raise ValueError("expected a name of at most 63 of a-z, 0-9, _, . and -, that begins with a letter or digit")
    return value


def _user(value: str) -> str:
    if not re.fullmatch(_USER, value):
        raise ValueError(
            "expected a name of at most 127 letters, digits, _, ., @, + and -, that begins with a letter or digit"
        )
    return value


def _node(value: str) -> str:
    if not re.fullmatch(_NODE, value):
        raise ValueError("expected a node's name of at most 127 characters, without /")
    return value


def _period(value: str) -> str:
    if not re.fullmatch(_PERIOD, value):
        raise ValueError(
            "expected hour, day, week, month, total, or rolling such as rolling-24h, rolling-7d, rolling-30m"
        )
    return value


def _provider(value: str) -> str:
    if not re.fullmatch(_PROVIDER, value):
        raise ValueError("expected sim, openai, vllm, openai_compatible, or a provider that litellm knows")
    return value


def _database(value: str) -> str:
    if value.startswith("postgres"):
        if not re.fullmatch(_SERVER, value) or "password=" in value:
            raise ValueError(
                "expected postgresql+psycopg://USER@HOST/DATABASE, without a password: "
                "name the variable that holds it under database_password_env"
            )
        return value
    if not re.fullmatch(_FILE, value) or value.endswith(("/", ":memory:")):
        raise ValueError(
            "expected sqlite:///path, a file that several processes can open, or postgresql+psycopg://USER@HOST/DATABASE"
        )
    return value


def _api_base(value: str) -> str:
    if not re.fullmatch(_API_BASE, value):
        raise ValueError("expected a URL such as http://127.0.0.1:8000/v1, without user, password or query")
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(_VARIABLE, value):
        # Whatever stands here may be the key itself, so it is never shown.
        text = "expected the name of an environment variable such as OPENAI_API_KEY; never write the key itself here"
        raise Problems([Problem(path=(), text=text, at_key=True)])
    return value


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        zones = sorted(zoneinfo.available_timezones())
        cities = [zone for zone in zones if zone.rpartition("/")[2].lower() == value.lower()]
        hint = f"; did you mean {cities[0]}?" if cities else nearest(value, zones)
        raise ValueError(f"expected an IANA time zone such as Europe/Paris{hint}") from None
    return value


def _exact(value: object) -> object:
    if isinstance(value, (float, bool)):
        raise ValueError("expected an amount as text, Decimal or int: a float is not the amount that was written")
    return value


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
"""A name of the user's own; names are parts of account paths such as `acme/support/run_1`."""

UserName = Annotated[str, AfterValidator(_user), WithJsonSchema({"type": "string", "pattern": _USER})]
"""A user as the team that runs agents knows them: a name, an id, an address."""

NodeName = Annotated[str, AfterValidator(_node), WithJsonSchema({"type": "string", "pattern": _NODE})]
"""A node of a graph, as the graph names it."""

T = TypeVar("T")
Named = Annotated[dict[Name, T], Field(json_schema_extra={"additionalProperties": False})]
Names = Annotated[list[str], Field(min_length=1)]
Text = Annotated[str, Field(min_length=1)]
ProviderName = Annotated[str, AfterValidator(_provider), Field(json_schema_extra={"pattern": _PROVIDER})]
DatabaseUrl = Annotated[str, AfterValidator(_database), Field(json_schema_extra={"pattern": _DATABASE})]
BaseUrl = Annotated[str, AfterValidator(_api_base), Field(json_schema_extra={"pattern": _API_BASE})]
VariableName = Annotated[str, AfterValidator(_variable), Field(json_schema_extra={"pattern": _VARIABLE})]
ZoneName = Annotated[str, AfterValidator(_zone)]
PeriodName = Annotated[str, AfterValidator(_period), Field(json_schema_extra={"pattern": _PERIOD})]
Usd = Annotated[Decimal, Field(ge=0, le=NANOUSD_MAX // NANO, decimal_places=9), BeforeValidator(_exact)]
UsdPerMtok = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=9), BeforeValidator(_exact)]
TokensPerSecond = Annotated[Decimal, Field(gt=0, le=1_000_000_000), BeforeValidator(_exact)]
Count = Annotated[int, Field(ge=0, le=COUNT_MAX)]
Percent = Annotated[int, Field(ge=0, le=100)]
AlertPercent = Annotated[int, Field(ge=1, le=1000)]
PositiveCount = Annotated[int, Field(ge=1, le=COUNT_MAX)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
