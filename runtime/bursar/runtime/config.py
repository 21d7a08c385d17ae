"""`bursar.yaml`: the models, tiers, tenants and budgets that a runtime opens with."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bursar.budget.alerts.endpoints import Endpoint, check_secret
from bursar.budget.alerts.mailboxes import Mailbox
from bursar.budget.errors import ConfigError
from bursar.runtime.config_budgets import (
    AgentBudgets,
    BudgetConfig,
    Budgets,
    OrganisationConfig,
    TeamBudgets,
    UserBudgets,
    Users,
    overdrawn,
    require_parts_fit,
)
from bursar.runtime.config_escalations import EscalationsConfig, People, wrong_policy
from bursar.runtime.config_fields import (
    SECTION,
    BaseUrl,
    DatabaseUrl,
    Named,
    Names,
    PositiveCount,
    ProviderName,
    Seconds,
    Text,
    VariableName,
)
from bursar.runtime.config_file import Document, read_file, read_yaml
from bursar.runtime.config_gateway import GatewayConfig
from bursar.runtime.config_ledger import LedgerConfig
from bursar.runtime.config_names import as_mapping, misnamed
from bursar.runtime.config_prices import SIM_PRICE, DeclaredPrice, GpuPrice, ModelPrice
from bursar.runtime.config_problems import Problem, Problems, explain
from bursar.runtime.config_retention import RetentionConfig
from bursar.runtime.config_routing import AutoConfig, DowngradeStep, RatesConfig
from bursar.runtime.config_smtp import SmtpConfig
from bursar.runtime.config_webhooks import Webhooks

__all__ = [
    "SIM_PRICE",
    "AgentBudgets",
    "BudgetConfig",
    "Config",
    "GpuPrice",
    "ModelConfig",
    "ModelPrice",
    "TenantConfig",
    "config_schema",
    "load_config",
    "parse_config",
    "starter_config",
]


class Section(BaseModel):
    """What the sections of this file have in common."""

    model_config = SECTION


class ModelConfig(Section):
    """One model: who serves it, what it is called there, what it costs."""

    provider: ProviderName
    """`sim` (scripted, metered, needs no key), `openai`, `vllm`, `openai_compatible`, or any provider that litellm
    knows by name: `anthropic`, `gemini`, `bedrock`, `azure`, `deepseek`, `mistral`, ..."""

    model: Text | None = None
    """The provider's own name of the model. Required, but for `sim`."""

    api_base: BaseUrl | None = None
    """Where the provider listens, such as `http://127.0.0.1:8000/v1`. Required for `vllm` and `openai_compatible`."""

    api_key_env: VariableName | None = None
    """The name of the environment variable that holds the key; never the key itself."""

    price: DeclaredPrice | None = None
    """`free`, prices of its own, or the time of its GPUs; without it the latest that was imported, else the price
    book's (for `sim`: input 0.40, output 1.60)."""

    service_tier: Literal["standard", "flex", "priority"] = "standard"
    """How the provider is asked to serve the model; `flex` waits and costs less, `priority` costs more."""

    context_window: PositiveCount | None = None
    """How many tokens the model can read and write in one call; without it what the price book says."""

    max_output_tokens: PositiveCount | None = None
    """How many tokens the model can write in one call; without it what the price book says."""

    kind: Literal["chat", "embedding", "rerank"] = "chat"
    """What it is asked for; only chat models stand in `tiers`."""

    local: bool | None = None
    """Whether it runs in the house, so that content under `data: local_only` may go to it; without it, whether
    `api_base` is an address of this machine."""

    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    """For a vLLM server with `--scheduling-policy priority`: the priority of calls of tenants without one of their own;
    lower goes first."""

    aborted_stream: Literal["charge_reserved", "charge_streamed"] | None = None
    """What a stream is charged that broke off before its usage came, and is marked `unknown`: all that was reserved, or
    the most that what was streamed can have come to, for a model that writes nothing out of sight. Without it
    `charge_streamed` for vllm and sim, `charge_reserved` for any other."""

    slots: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """How many calls of one process the model answers at once, the next go to the tier's next model; without it there
    is no bound."""

    timeout_s: Annotated[Seconds, Field(le=86_400)] = 60
    """How many seconds one attempt may take."""

    retries: Annotated[int, Field(ge=0, le=10)] = 2
    """How often a failed attempt is repeated, where its cause allows that."""

    scenario: Text | None = None
    """For `sim`, and required there: a built-in scenario's name, a YAML file relative to this one, or
    `module:function`."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """For `sim`: the seed of its latency and faults."""

    @field_validator("model", "api_base", "scenario")
    @classmethod
    def _fits_provider(cls, value: str | None, info: ValidationInfo) -> str | None:
        provider = info.data.get("provider", "")
        sim = provider == "sim"
        required = {"model": not sim, "api_base": provider in ("vllm", "openai_compatible"), "scenario": sim}
        if value is None and provider and required[info.field_name or ""]:
            raise ValueError(f"this key is required for provider {provider}")
        if value is not None and provider and info.field_name == "scenario" and not sim:
            raise ValueError(f"only provider sim has scenarios, not {provider}")
        return value

    @field_validator("price")
    @classmethod
    def _sim_is_metered(cls, value: DeclaredPrice | None, info: ValidationInfo) -> DeclaredPrice | None:
        return SIM_PRICE if value is None and info.data.get("provider") == "sim" else value

    @field_validator("max_output_tokens")
    @classmethod
    def _fits_window(cls, value: int | None, info: ValidationInfo) -> int | None:
        window = info.data.get("context_window")
        if value and window and value > window:
            raise ValueError(f"expected at most the context_window of {window}")
        return value


class TenantConfig(Section):
    """One tenant: what it may spend, and on which tiers."""

    budgets: Budgets = []
    """One budget for each window; all of them hold at once."""

    organisation: Text | None = None
    """The organisation that the tenant belongs to, one of `organisations`; its budgets hold too."""

    tiers: Names | None = None
    """The tiers that the tenant may use; without it all of them."""

    models: Names | None = None
    """The models that the tenant may use; without it all of them."""

    data: Literal["any", "local_only"] = "any"
    """`local_only`: the tenant's content goes to local models alone."""

    priority: Annotated[int, Field(ge=-1000, le=1000)] | None = None
    """The priority of the tenant's calls at vLLM servers that queue by it, in the place of the model's; lower goes
    first."""

    downgrade: list[DowngradeStep] = []
    """The tenant's ladder: which tier its calls get at most while a budget runs low."""

    rates: RatesConfig = Field(default_factory=RatesConfig)
    """How much the tenant may ask of the gateway in a minute."""

    on_limit: Literal["finalize", "escalate", "downgrade", "stop"] | None = None
    """What a run does at a limit where its agent does not say: give one last answer from what was kept back for it
    (the default), ask a person for more, ask the models of lower tiers before it gives a last answer, or stop."""

    agents: Named[AgentBudgets] = {}
    """Budgets of single agents, by the agent's name."""

    teams: Named[TeamBudgets] = {}
    """Budgets of teams, by a name of your own; a run names its team."""

    users: Users = {}
    """Budgets of users in all of their teams, by the user's name; a run names its user."""

    webhooks: Webhooks = []
    """Who is told of the tenant's alerts; they are in the log in any case."""

    people: People = {}
    """Who may decide on escalations; without it anybody may."""

    escalations: EscalationsConfig = Field(default_factory=EscalationsConfig)
    """Who is asked what, in which hours, and what happens where nobody answers."""

    retention: RetentionConfig = Field(default_factory=RetentionConfig)
    """How long the checkpoints of the tenant's runs are kept."""

    @model_validator(mode="after")
    def _people_can_decide(self) -> Self:
        if problems := [*wrong_policy(self.people, self.escalations)]:
            raise Problems(problems)
        return self

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        kinds: Mapping[str, Mapping[str, AgentBudgets | TeamBudgets | UserBudgets]] = {
            "teams": self.teams,
            "users": self.users,
            "agents": self.agents,
        }
        parts = ({f"{kind}.{name}": one.budgets for name, one in named.items()} for kind, named in kinds.items())
        require_parts_fit(self.budgets, *parts)
        return self

    unpriced: Literal["refuse", "ceiling_price", "allow_and_alert"] = "refuse"
    """What happens to a call of a model without a price: it is refused where money is limited, it costs what
    `ceiling_price` says, or it goes out at no cost and somebody is told."""

    ceiling_price: ModelPrice | None = None
    """What an unpriced model costs here; it belongs to `unpriced: ceiling_price`. Set it above any price you pay."""

    @model_validator(mode="after")
    def _ceiling_has_a_price(self) -> Self:
        if (self.unpriced == "ceiling_price") != (self.ceiling_price is not None):
            text = "expected it where unpriced is ceiling_price, and only there"
            raise Problems([Problem(path=("ceiling_price",), text=text)])
        return self


class Config(Section):
    """The configuration of a Bursar runtime."""

    model_config = ConfigDict(title="bursar.yaml")

    database: DatabaseUrl
    """`sqlite:///path`, where a relative path begins at this file's folder, or
    [`postgresql+psycopg://USER@HOST/DATABASE`](postgresql.md)."""

    database_password_env: VariableName | None = None
    """The environment variable that holds the password of a PostgreSQL database, where it asks for one."""

    models: Annotated[Named[ModelConfig], Field(min_length=1)]
    """The models, by a name of your own."""

    tiers: Annotated[Named[Names], Field(min_length=1)]
    """Ordered lists of models: the first that can take the call does, the others are its fallback."""

    auto: AutoConfig | None = None
    """Who chooses for `tier: auto`; without it no node may ask for that."""

    agents: Named[Text] = {}
    """The agents that the gateway offers as models `agent:NAME`: `file.py:name`, relative to this file."""

    smtp: SmtpConfig | None = None
    """The server that takes mail to `people`; without it nobody is told by e-mail."""

    gateway: GatewayConfig = Field(default_factory=GatewayConfig)
    """How `bursar serve` listens, and how many processes answer."""

    organisations: Named[OrganisationConfig] = {}
    """What tenants may spend together, by a name of your own; a tenant names its organisation."""

    tenants: Named[TenantConfig] = {}
    """Who runs agents here, by a name of your own."""

    unknown_tenants: Literal["refuse", "allow"] = "refuse"
    """What happens to a run of a tenant that has no section here; where it is allowed, it has no budgets."""

    lease_s: Annotated[Seconds, Field(le=3600)] = 10
    """How many seconds a run's holder may be silent before another process may take the run over."""

    ledger: LedgerConfig = Field(default_factory=LedgerConfig)
    """What runs do while the ledger's store cannot be used."""

    _document: Document = PrivateAttr(default_factory=Document)
    _path: Path | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _refers_to_what_exists(self) -> Self:
        sections = self.model_dump(include={"models", "tiers", "organisations", "tenants", "auto"})
        if problems := [*misnamed(sections), *self._over_their_organisation()]:
            raise Problems(problems)
        return self

    def _over_their_organisation(self) -> Iterator[Problem]:
        for name, organisation in self.organisations.items():
            tenants = {
                f"tenants.{tenant}": section.budgets
                for tenant, section in self.tenants.items()
                if section.organisation == name
            }
            for problem in overdrawn(organisation.budgets, tenants):
                yield replace(problem, path=("organisations", name, *problem.path))

    @property
    def path(self) -> Path | None:
        """The absolute path of the file that this was read from; None for a configuration made in Python."""
        return self._path

    @property
    def base(self) -> Path:
        """The folder at which relative paths begin: the file's, or the current one."""
        return self._path.parent if self._path else Path.cwd()

    @property
    def database_path(self) -> Path | None:
        """The absolute path of the SQLite file; None for a PostgreSQL database."""
        is_file = self.database.startswith("sqlite:///")
        return self.base / self.database.removeprefix("sqlite:///") if is_file else None

    def database_url(self, env: Mapping[str, str] = os.environ) -> str:
        """The store's URL with its password; raises ConfigError where the password's variable is not set."""
        if self.database_path is not None:
            return f"sqlite:///{self.database_path}"
        if self.database_password_env is None:
            return self.database
        from sqlalchemy.engine import make_url

        variable = self.database_password_env
        password = self._variable("database_password_env", name=variable, whose="the database", env=env)
        return make_url(self.database).set(password=password).render_as_string(hide_password=False)

    def checkpoints_url(self, env: Mapping[str, str] = os.environ) -> str:
        """The URL of the store of checkpoints: a file beside the ledger's, or the ledger's own database."""
        if self.database_path is None:
            return self.database_url(env)
        return f"sqlite:///{self.database_path.with_suffix('.checkpoints.db')}"

    def error(self, *key: str | int, text: str, next_step: str | None = None) -> ConfigError:
        """An error that points at a key of the file, for what shows only when the setting is used."""
        return self._document.error([Problem(path=key, text=text)], next_step=next_step)

    def secret(self, model: str, env: Mapping[str, str] = os.environ) -> str | None:
        """The key of a model, or None where it needs none; raises ConfigError where its variable is not set."""
        variable = self.models[model].api_key_env
        if variable is None:
            return None
        return self._variable(
            *("models", model, "api_key_env"),
            name=variable,
            whose=f"model {model} of provider {self.models[model].provider}",
            env=env,
            otherwise=", or use provider: sim, which needs no key",
        )

    def endpoints(self, env: Mapping[str, str] = os.environ) -> list[Endpoint | Mailbox]:
        """Who is told of alerts; raises ConfigError where a secret's variable is not set, or holds none."""
        sections = {("organisations", name): one.webhooks for name, one in self.organisations.items()}
        sections |= {("tenants", name): one.webhooks for name, one in self.tenants.items()}
        found: list[Endpoint | Mailbox] = []
        for (kind, name), webhooks in sections.items():
            for index, webhook in enumerate(webhooks):
                key = (kind, name, "webhooks", index, "secret_env")
                secret = self._variable(*key, name=webhook.secret_env, whose="the webhook", env=env)
                try:
                    check_secret(secret)
                except ConfigError as error:
                    text = f"the environment variable {webhook.secret_env} holds no secret: {error.message}"
                    raise self.error(*key, text=text, next_step=error.next_step) from None
                tenant = name if kind == "tenants" else f"org:{name}"
                found.append(Endpoint(url=webhook.url, secret=secret, tenant=tenant, kinds=webhook.kinds))
        return found + self._mailboxes(env)

    def _mailboxes(self, env: Mapping[str, str]) -> list[Endpoint | Mailbox]:
        if self.smtp is None:
            return []
        variable = self.smtp.password_env
        password = variable and self._variable("smtp", "password_env", name=variable, whose="the mail server", env=env)
        server = self.smtp.server(password)
        return [
            Mailbox(address=person.email, person=name, tenant=tenant, smtp=server)
            for tenant, section in self.tenants.items()
            for name, person in section.people.items()
            if person.email is not None
        ]

    def _variable(self, *key: str | int, name: str, whose: str, env: Mapping[str, str], otherwise: str = "") -> str:
        """A secret; this is the one place where Bursar reads one from the environment."""
        if secret := env.get(name, "").strip():
            return secret
        raise self.error(
            *key,
            text=f"the environment variable {name} is not set, and {whose} needs it",
            next_step=f"export {name}=...{otherwise}",
        )


_INSTALLATION = ("database", "models", "tiers")
"""What a file of other budgets leaves as it is."""


def load_config(path: str | Path, *, rest: Config | None = None) -> Config:
    """The configuration in a file; raises ConfigError with every problem of the file, each at its line and column.

    A file without database, models and tiers takes them from `rest`, where that is given.
    """
    return parse_config(read_file(Path(path)), file=path, rest=rest)


def parse_config(text: str, *, file: str | Path, rest: Config | None = None) -> Config:
    """The configuration in a text that came from `file`; raises ConfigError as `load_config` does."""
    document = read_yaml(text, file=Path(file))
    if document.data is None and rest is not None:
        raise ConfigError(
            "the file is empty; a policy needs tenants or organisations",
            file=file,
            line=1,
            column=1,
            next_step="write the budgets that you have in mind, as in bursar.yaml",
        )
    if document.data is None:
        raise ConfigError(
            "the file is empty; it needs at least database, one of models and one of tiers",
            file=file,
            line=1,
            column=1,
            next_step="bursar init",
        )
    data, problems = document.data, list(document.problems)
    if rest is not None and isinstance(data, dict) and data.keys().isdisjoint(_INSTALLATION):
        data = {**{key: getattr(rest, key) for key in _INSTALLATION}, **data}
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        problems += explain(error, written=document.places, schema=config_schema())
        problems += misnamed(as_mapping(data))
    if problems:
        raise document.error(problems)
    config._document, config._path = document, Path(file).absolute()
    return config


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of `bursar.yaml`, for editors and other tools."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def starter_config() -> str:
    """The commented `bursar.yaml` that `bursar init` writes; it runs without a key."""
    return _STARTER


_STARTER = """\
# Bursar's configuration. Check it with `bursar config check`; every key: docs/configuration.md.
# Completion in editors: `bursar config schema > bursar.schema.json`, and as the first line of this file
# `# yaml-language-server: $schema=bursar.schema.json`.

database: sqlite:///bursar.db          # a relative path begins at this file's folder; or PostgreSQL: docs/postgresql.md

models:
  demo:                                # scripted and metered: real token counts at a declared price, no key, no network
    provider: sim
    scenario: support
  # mini:                              # a cloud model; its price comes from the dated price book
  #   provider: openai
  #   model: gpt-4.1-mini
  #   api_key_env: OPENAI_API_KEY      # the variable's name, never the key
  # llama:                             # a vLLM server of your own
  #   provider: vllm
  #   model: meta-llama/Llama-3.1-8B-Instruct
  #   api_base: http://127.0.0.1:8000/v1
  #   price: free
  #   slots: 8

tiers:
  small: [demo]                        # the first that can take the call does, the others are its fallback

tenants:
  acme:
    budgets:
      - {usd: "5", per: month, zone: UTC, alerts: [50, 80, 100]}
    tiers: [small]
    on_limit: finalize                 # finalize | escalate | downgrade | stop
    # webhooks:                        # alerts are in the log; and posted, signed, to whom it may concern
    #   - {url: "https://hooks.example.com/bursar", secret_env: ACME_WEBHOOK_SECRET}

# unknown_tenants: refuse              # or allow: a tenant without a section then has no budgets
"""


if __name__ == "__main__":
    sys.stdout.write(json.dumps(config_schema(), indent=2) + "\n")
