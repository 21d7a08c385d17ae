"""bursar.yaml: every mistake is named with its line, its column, its key, its value and what was expected."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bursar.budget.errors import ConfigError
from bursar.runtime.config import Config, TenantConfig, load_config
from tests.unit.runtime.config_texts import MINIMAL, mistakes, model, parse

KEYS = ", ".join([*Config.model_fields][:12]) + ", ..."  # a list that is longer is cut short

# Mistakes in the whole


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    file = tmp_path / "bursar.yaml"
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value) == f"{file}: there is no configuration here -> bursar init"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{tmp_path}: cannot be read: Is a directory")):
        load_config(tmp_path)


def test_a_file_that_is_not_utf8_is_named_with_the_line(tmp_path: Path) -> None:
    file = tmp_path / "bursar.yaml"
    file.write_bytes(b"database: x\n# caf\xe9\n")
    with pytest.raises(ConfigError, match=re.escape(f"{file}:2: expected UTF-8 text")):
        load_config(file)


@pytest.mark.parametrize("text", ["", "\n# nothing yet\n", "~", "---\n"])
def test_an_empty_file_is_told_the_minimum(text: str) -> None:
    assert mistakes(text) == [
        "1:1: the file is empty; it needs at least database, one of models and one of tiers -> bursar init"
    ]


def test_every_mistake_is_reported_at_once_in_the_order_of_the_file() -> None:
    text = """\
colour: red
models:
  a: {provider: sim, retries: many}
  a: {provider: sim, scenario: support}
tiers:
  small: [b]
tenants:
  acme: {tiers: [tiny], budgets: [{usd: -1}]}
"""
    assert mistakes(text) == [
        f"1:1: colour: unknown key; expected one of {KEYS}",
        "1:1: database: this key is required",
        "4:3: models.a: written twice; first on line 3",
        '6:11: tiers.small[0] = "b": there is no such model; expected one of a',
        '8:18: tenants.acme.tiers[0] = "tiny": there is no such tier; expected one of small',
        '8:41: tenants.acme.budgets[0].usd = "-1": expected at least 0',
    ]


def test_the_error_carries_the_first_mistakes_place_and_key() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"{MINIMAL}lease_s: soon\nunknown_tenants: no")
    error = caught.value
    assert (error.file, error.line, error.column, error.key) == (Path("bursar.yaml"), 4, 10, "lease_s")


def test_a_file_of_mistakes_is_cut_short() -> None:
    lines = mistakes(MINIMAL + "".join(f"key_{n}: 1\n" for n in range(100)))
    assert len(lines) == 21
    assert lines[-1] == "... and 80 more"


def test_what_a_terminal_would_obey_is_escaped() -> None:
    line = f"4:1: a\\x1b[2J\\nb: unknown key; expected one of {KEYS}"
    assert mistakes(MINIMAL + r'"a\e[2J\nb": 1') == [line]


def test_a_long_value_is_cut_short() -> None:
    assert mistakes(f"{MINIMAL}unknown_tenants: {'no ' * 50}") == [
        f"4:18: unknown_tenants = \"{('no ' * 50)[:61]}...\": expected 'refuse' or 'allow'"
    ]


# Mistakes in the text


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("a: [1", "1:6: not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("a: 1\nb: c: d", "2:5: not YAML: mapping values are not allowed here"),
        (
            "a:\n\tb: 1",
            "2:1: not YAML: while scanning for the next token, found character '\\t' that cannot start any token",
        ),
        ("a: *b", "1:4: not YAML: found undefined alias 'b'"),
        ("a: 1\n---\nb: 1", "2:1: not YAML: expected a single document in the stream, but found another document"),
        ("a: 1\nb: \x07", "2:4: not YAML: the character #x0007 is not allowed"),
        ('a: "\\UFFFFFFFF"', " not YAML: "),
        ("[" * 100_000, "1:17: nested deeper than 16"),
        ("a: &a [*a]", "1:4: nested deeper than 16, or more than 100000 values"),
        ("? [a]\n: b", "1:3: expected plain text as a key, not a list or mapping"),
        ("- a", "1:1: expected a mapping, not a list"),
        ("just words", "1:1: expected a mapping"),
        ("#" * 1_000_001, " expected at most 1000000 characters, not 1000001"),
    ],
)
def test_what_is_no_configuration_at_all_is_one_mistake_with_its_place(text: str, mistake: str) -> None:
    [line] = mistakes(text)
    assert line.startswith(mistake) if mistake.endswith(": ") else line == mistake


def test_aliases_cannot_blow_the_file_up() -> None:
    text = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9, 0]\n"
    text += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12))
    [line] = mistakes(text)
    assert "more than 100000 values" in line


def test_a_key_written_twice_names_both_lines_and_nothing_below_it() -> None:
    text = MINIMAL + "tenants:\n  acme: {budgets: [{usd: 1}]}\n  acme: {budgets: [{usd: 2}]}\n"
    assert mistakes(text) == ["6:3: tenants.acme: written twice; first on line 5"]


def test_a_tag_is_refused_and_never_acted_on() -> None:
    assert mistakes(f"{MINIMAL}lease_s: !!python/object:os.abort 5") == [
        "4:1: lease_s: expected no tag, not tag:yaml.org,2002:python/object:os.abort"
    ]


def test_a_merge_key_is_an_unknown_key() -> None:
    text = f"{MINIMAL}tenants: {{a: &a {{on_limit: stop}}, b: {{<<: *a}}}}"
    shown = ", ".join([*TenantConfig.model_fields][:12])
    assert mistakes(text) == [f"4:39: tenants.b.<<: unknown key; expected one of {shown}, ..."]


# Mistakes in a key


EITHER = "sqlite:///path, a file that several processes can open, or postgresql+psycopg://USER@HOST/DATABASE"
WITHOUT_PASSWORD = "without a password: name the variable that holds it under database_password_env"


@pytest.mark.parametrize(
    ("database", "mistake"),
    [
        ("postgresql+psycopg://bob:hunter2@db/bursar", WITHOUT_PASSWORD),
        ("postgresql://db/bursar?password=hunter2", WITHOUT_PASSWORD),
        ("postgresql+asyncpg://db/bursar", WITHOUT_PASSWORD),
        ("postgres://db/bursar", WITHOUT_PASSWORD),
        ("postgresql://db", WITHOUT_PASSWORD),
        ("bursar.db", EITHER),
        ("sqlite://", EITHER),
        ("sqlite:///:memory:", EITHER),
        ("sqlite:///data/", EITHER),
        ("sqlite:///bursar.db?mode=ro", EITHER),
        ("5", EITHER),
    ],
)
def test_a_database_is_a_file_or_a_server_without_a_password(database: str, mistake: str) -> None:
    [line] = mistakes(MINIMAL.replace("sqlite:///bursar.db", f'"{database}"'))
    assert line.startswith("1:11: database = ")
    assert line.endswith(mistake)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("fragment", "mistake"),
    [
        ("lease_s: 0", '4:10: lease_s = "0": expected more than 0'),
        ("lease_s: .inf", '4:10: lease_s = ".inf": expected a number'),
        ("lease_s: nan", '4:10: lease_s = "nan": expected a finite number'),
        ("lease_s: [5]", "4:1: lease_s: expected a number, not a list"),
        ("unknown_tenants: maybe", "4:18: unknown_tenants = \"maybe\": expected 'refuse' or 'allow'"),
        ("tenants:", "4:9: tenants = null: expected a mapping"),
        ("tenants: [acme]", "4:1: tenants: expected a mapping, not a list"),
        ("tenants: {acme: 5}", '4:17: tenants.acme = "5": expected a mapping'),
        (
            "tenants: {acme: {on_limit: crash}}",
            "4:28: tenants.acme.on_limit = \"crash\": expected 'finalize', 'escalate', 'downgrade' or 'stop'",
        ),
        ("tenants: {acme: {tiers: []}}", "4:18: tenants.acme.tiers: must not be empty"),
        (
            "tenants: {acme: {tiers: [smal]}}",
            '4:26: tenants.acme.tiers[0] = "smal": there is no such tier; did you mean small?',
        ),
        (
            "tenants: {acme: {agents: {support: {budget: [{usd: 1}], budgets: []}}}}",
            "4:37: tenants.acme.agents.support.budget: unknown key; did you mean budgets?",
        ),
    ],
)
def test_a_mistake_is_named_with_line_column_key_value_and_what_was_expected(fragment: str, mistake: str) -> None:
    assert mistakes(MINIMAL + fragment)[0] == mistake


@pytest.mark.parametrize(
    ("section", "mistake"),
    [
        ("{model: x}", "3:3: models.m.provider: this key is required"),
        ("{provider: openai}", "3:3: models.m.model: this key is required for provider openai"),
        ("{provider: sim}", "3:3: models.m.scenario: this key is required for provider sim"),
        ("{provider: vllm, model: x}", "3:3: models.m.api_base: this key is required for provider vllm"),
        (
            "{provider: openai_compatible, model: x}",
            "3:3: models.m.api_base: this key is required for provider openai_compatible",
        ),
        (
            "{provider: openai, model: x, scenario: support}",
            '3:45: models.m.scenario = "support": only provider sim has scenarios, not openai',
        ),
        (
            "{provider: Open AI, model: x}",
            '3:17: models.m.provider = "Open AI": expected sim, openai, vllm, openai_compatible, '
            "or a provider that litellm knows",
        ),
        (
            "{provider: vllm, model: x, api_base: localhost:8000}",
            '3:43: models.m.api_base = "localhost:8000": expected a URL such as http://127.0.0.1:8000/v1, '
            "without user, password or query",
        ),
        ('{provider: openai, model: ""}', '3:32: models.m.model = "": must not be empty'),
        ("{provider: sim, scenario: s, prise: free}", "3:35: models.m.prise: unknown key; did you mean price?"),
        ("{provider: sim, scenario: s, timeout_s: -1}", '3:46: models.m.timeout_s = "-1": expected more than 0'),
        ("{provider: sim, scenario: s, retries: 11}", '3:44: models.m.retries = "11": expected at most 10'),
        ("{provider: sim, scenario: s, retries: 1.5}", '3:44: models.m.retries = "1.5": expected a whole number'),
        ("{provider: sim, scenario: s, slots: true}", '3:42: models.m.slots = "true": expected a whole number'),
        (
            "{provider: sim, scenario: s, context_window: 100, max_output_tokens: 101}",
            '3:75: models.m.max_output_tokens = "101": expected at most the context_window of 100',
        ),
        (
            f"{{provider: sim, scenario: s, context_window: {10**15 + 1}}}",
            '3:51: models.m.context_window = "1000000000000001": expected at most 1000000000000000',
        ),
    ],
)
def test_a_model_says_what_its_provider_needs(section: str, mistake: str) -> None:
    assert mistakes(model(section)) == [mistake]


@pytest.mark.parametrize(
    ("price", "mistake"),
    [
        (
            "cheap",
            '42: models.m.price = "cheap": expected free, a mapping with input_usd_per_mtok and output_usd_per_mtok, '
            "or one with gpu_usd_per_hour",
        ),
        ("{input_usd_per_mtok: 1}", "35: models.m.price.output_usd_per_mtok: this key is required"),
        (
            "{input_usd_per_mtok: -1, output_usd_per_mtok: 1}",
            '63: models.m.price.input_usd_per_mtok = "-1": expected at least 0',
        ),
        (
            "{input_usd_per_mtok: 1, output_usd_per_mtok: .nan}",
            '87: models.m.price.output_usd_per_mtok = ".nan": expected a number',
        ),
        (
            "{input_usd_per_mtok: 1, output_usd_per_mtok: NaN}",
            '87: models.m.price.output_usd_per_mtok = "NaN": expected a finite number',
        ),
        (
            "{input_usd_per_mtok: 1e99, output_usd_per_mtok: 1}",
            '63: models.m.price.input_usd_per_mtok = "1e99": expected at most 1000000',
        ),
        (
            "{input_usd_per_mtok: 0.0000000001, output_usd_per_mtok: 1}",
            '63: models.m.price.input_usd_per_mtok = "0.0000000001": expected at most 9 digits after the point',
        ),
        (
            "{gpu_usd_per_hour: 1, input_tokens_per_second: 1, output_tokens_per_second: 0}",
            '118: models.m.price.output_tokens_per_second = "0": expected more than 0',
        ),
        (
            "{gpu_usd_per_hour: 1, input_tokens_per_second: 1, output_tokens_per_second: 1, gpu: 2}",
            "121: models.m.price.gpu: unknown key; did you mean gpus?",
        ),
        (
            "{input_usd_per_mtok: 1, output_usd_per_mtok: 1, reasoning_usd: 1}",
            "90: models.m.price.reasoning_usd: unknown key; did you mean reasoning_usd_per_mtok?",
        ),
    ],
)
def test_a_price_is_free_or_numbers_that_are_not_negative(price: str, mistake: str) -> None:
    assert mistakes(model(f"{{provider: openai, model: x, price: {price}}}")) == [f"3:{mistake}"]


@pytest.mark.parametrize(
    ("budget", "mistake"),
    [
        ("{per: day}", "4:28: tenants.acme.budgets[0]: expected at least one of usd, tokens, steps, tool_calls"),
        ("{usd: five}", '4:34: tenants.acme.budgets[0].usd = "five": expected a number'),
        ("{usd: -1}", '4:34: tenants.acme.budgets[0].usd = "-1": expected at least 0'),
        (
            "{usd: 0.0000000001}",
            '4:34: tenants.acme.budgets[0].usd = "0.0000000001": expected at most 9 digits after the point',
        ),
        ("{tokens: -1}", '4:37: tenants.acme.budgets[0].tokens = "-1": expected at least 0'),
        ("{steps: 1.5}", '4:36: tenants.acme.budgets[0].steps = "1.5": expected a whole number'),
        (
            "{usd: 1, per: year}",
            '4:42: tenants.acme.budgets[0].per = "year": expected hour, day, week, month, total, or rolling such as '
            "rolling-24h, rolling-7d, rolling-30m",
        ),
        (
            "{usd: 1, zone: Europe/Pariss}",
            '4:43: tenants.acme.budgets[0].zone = "Europe/Pariss": expected an IANA time zone such as Europe/Paris; '
            "did you mean Europe/Paris?",
        ),
        (
            "{usd: 1, zone: tokyo}",
            '4:43: tenants.acme.budgets[0].zone = "tokyo": expected an IANA time zone such as Europe/Paris; '
            "did you mean Asia/Tokyo?",
        ),
        (
            "{usd: 1}, {tokens: 5}",
            "4:38: tenants.acme.budgets[1]: per total is already in budget [0]; put both into one",
        ),
        (
            "{usd: 1, per: day}, {usd: 2, per: day, zone: Asia/Tokyo}",
            "4:48: tenants.acme.budgets[1]: per day is already in budget [0]; put both into one",
        ),
        ("{usd: 1, mode: gentle}", "4:43: tenants.acme.budgets[0].mode = \"gentle\": expected 'hard' or 'soft'"),
        (
            "{usd: 1, rollover_percent: 10}",
            '4:55: tenants.acme.budgets[0].rollover_percent = "10": a budget per total has no next window; expected 0, '
            "or per hour, day, week or month",
        ),
        (
            "{usd: 1, per: rolling-24h, overdraft_percent: 10}",
            '4:74: tenants.acme.budgets[0].overdraft_percent = "10": a budget per rolling-24h has no next window; '
            "expected 0, or per hour, day, week or month",
        ),
        (
            "{usd: 1, per: day, rollover_percent: 101}",
            '4:65: tenants.acme.budgets[0].rollover_percent = "101": expected at most 100',
        ),
        ("{usd: 1, alerts: [0]}", '4:46: tenants.acme.budgets[0].alerts[0] = "0": expected at least 1'),
    ],
)
def test_a_budget_limits_something_in_a_window_of_its_own(budget: str, mistake: str) -> None:
    assert mistakes(f"{MINIMAL}tenants: {{acme: {{budgets: [{budget}]}}}}") == [mistake]


def test_agents_of_a_tenant_have_budgets_under_the_same_rules() -> None:
    text = f"{MINIMAL}tenants: {{acme: {{agents: {{support: {{budgets: [{{usd: 1}}, {{usd: 2}}]}}}}}}}}"
    assert mistakes(text) == [
        "4:57: tenants.acme.agents.support.budgets[1]: per total is already in budget [0]; put both into one"
    ]


@pytest.mark.parametrize("zone", ['""', ".", "../etc/passwd", "/etc/localtime", "Europe", '"\\0"', "é" * 300])
def test_a_zone_never_reads_a_file_that_is_no_zone(zone: str) -> None:
    [line] = mistakes(f"{MINIMAL}tenants: {{acme: {{budgets: [{{usd: 1, zone: {zone}}}]}}}}")
    assert "expected an IANA time zone" in line


@pytest.mark.parametrize("name", ["Acme", "a b", "a/b", "_a", "é", '""', "a" * 64])
def test_a_name_fits_into_an_account_path(name: str) -> None:
    rule = "expected a name of at most 63 of a-z, 0-9, _, . and -, that begins with a letter or digit"
    for text in (
        f"{MINIMAL}tenants: {{{name}: {{}}}}",
        f"{MINIMAL}tenants: {{a: {{agents: {{{name}: {{budgets: [{{usd: 1}}]}}}}}}}}",
        MINIMAL.replace("small", name),
        MINIMAL.replace("demo", name),
    ):
        [line] = mistakes(text)
        assert line.endswith(f": {rule}")


@pytest.mark.parametrize("name", ["a", "0", "gpt-4.1-mini", "a" * 63])
def test_a_good_name_is_taken(name: str) -> None:
    assert name in parse(MINIMAL.replace("demo", name)).models


# Mistakes in who answers

TIERED = """\
database: sqlite:///bursar.db
models: {demo: {provider: sim, scenario: support}, vectors: {provider: sim, scenario: support, kind: embedding}}
tiers: {small: [demo], standard: [demo], frontier: [demo]}
"""


@pytest.mark.parametrize(
    ("fragment", "mistake"),
    [
        ("{below_percent: 50, tier: huge}", 'tier = "huge": there is no such tier; expected one of small, standard'),
        (
            "{below_percent: 20, tier: standard}, {below_percent: 20, tier: small}",
            'below_percent = "20": expected a smaller share than the step before it (20)',
        ),
        (
            "{below_percent: 50, tier: small}, {below_percent: 20, tier: standard}",
            'tier = "standard": expected a lower tier than the step before it (small)',
        ),
        ("{below_percent: 0, tier: small}", 'below_percent = "0": expected at least 1'),
    ],
)
def test_a_ladder_leads_down_over_tiers_that_there_are(fragment: str, mistake: str) -> None:
    [line] = mistakes(f"{TIERED}tenants: {{acme: {{downgrade: [{fragment}]}}}}")
    assert mistake in line


def test_a_ladder_leads_to_tiers_that_the_tenant_may_use() -> None:
    steps = "tiers: [frontier], downgrade: [{below_percent: 5, tier: small}]"
    [line] = mistakes(f"{TIERED}tenants: {{acme: {{{steps}}}}}")
    assert 'tier = "small": expected one of the tenant\'s tiers: frontier' in line


def test_only_chat_models_stand_in_tiers_and_none_is_called_auto() -> None:
    text = TIERED.replace("small: [demo]", "small: [demo, vectors], auto: [demo]")
    assert mistakes(f"{text}auto: {{incumbent: middle}}") == [
        '3:23: tiers.small[1] = "vectors": expected a chat model, and vectors is of kind embedding: '
        "calls name it, no tier does",
        "3:33: tiers.auto: this name is kept for the tier that `auto` chooses",
        '4:19: auto.incumbent = "middle": there is no such tier; expected one of small, auto, standard, frontier',
    ]
