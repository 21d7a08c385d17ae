"""`bursar config check | schema`."""

from __future__ import annotations

from bursar.runtime.cli.options import CONFIG_FILE, AsJson, ConfigFile
from bursar.runtime.cli.output import console, print_json
from bursar.runtime.cli.price_source import prices_of
from bursar.runtime.cli.words import counted, plain
from bursar.runtime.config import Config, config_schema, load_config

__all__ = ["check", "schema"]


def check(*, config: ConfigFile = CONFIG_FILE, as_json: AsJson = False) -> None:
    """Find every mistake in bursar.yaml at once."""
    from bursar.runtime.models.catalog import Catalog
    from bursar.runtime.models.scenario import load_scenario
    from bursar.runtime.tenants import require_prices

    read = load_config(config)
    with prices_of(read) as listed:
        require_prices(Catalog(read, prices=listed), read)
    for model in read.models.values():
        if model.scenario is not None:
            load_scenario(model.scenario, base=read.base)
    if as_json:
        return print_json({"ok": True, "file": str(config), **_counts(read)})
    counts = ", ".join(counted(count, name.removesuffix("s")) for name, count in _counts(read).items())
    return console().print(plain(f"{config} is fine: {counts}"), soft_wrap=True)


def schema(*, as_json: AsJson = True) -> None:
    """Print the JSON Schema of bursar.yaml."""
    del as_json  # a schema is JSON either way
    print_json(config_schema())


def _counts(config: Config) -> dict[str, int]:
    return {"models": len(config.models), "tiers": len(config.tiers), "tenants": len(config.tenants)}
