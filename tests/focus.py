"""Shows an export to focus-validator, under every set of rules that it has: `python -m tests.focus`.

The validator needs older libraries than the ledger's reports, so it gets an environment of its own.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from bursar.budget import Usage
from bursar.budget.reports.export import write_csv
from bursar.budget.reports.focus import COLUMNS, focus_rows
from tests.support.spending import MIDNIGHT, a_past

HOME = Path(".focus")
PARTS = ("focus-validator==1.0.0", "multimethod<2")  # with the newest multimethod it cannot be imported

RULES: Mapping[str, Mapping[str, str]] = {
    "1.0": {},
    "1.0-preview": {
        "BilledCurrency": "{BillingCurrency}",
        "ChargeSubcategory": "On-Demand",
        "CommitmentDiscountCategory": "Usage",
        "PricingCategory": "On-Demand",
        "Region": "global",
        "UsageQuantity": "{ConsumedQuantity}",
        "UsageUnit": "{ConsumedUnit}",
    },
    "0.5": {"AmortizedCost": "{EffectiveCost}", "BilledCurrency": "{BillingCurrency}", "Region": "global"},
}
"""The sets of rules, and what the drafts among them want that contradicts 1.2, where columns were renamed or dropped.

1.0 gets the file as it is; a draft gets a copy in which these columns are filled in.
"""


def main() -> int:
    """Print what the validator says of each set of rules; 1 where one did not pass."""
    validator = _validator()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder).absolute() / "focus.csv"
        rows = _export(file)
        outcomes = {rules: _passes(validator, rules, _as_drafted(file, rules)) for rules in RULES}
    for rules, passed in outcomes.items():
        print(f"focus-validator {rules:12} {rows} rows  {'passed' if passed else 'FAILED'}")
    return 0 if all(outcomes.values()) else 1


def _validator() -> Path:
    """The validator's command, installed when it is first needed."""
    command = HOME.absolute() / "bin" / "focus-validator"
    if not command.exists():
        venv.create(HOME, clear=True, with_pip=True)
        subprocess.run([HOME / "bin" / "pip", "install", "--quiet", *PARTS], check=True)
    return command


def _export(file: Path) -> int:
    """A file with every kind of charge."""
    with tempfile.TemporaryDirectory() as folder, a_past(Path(folder)) as past:
        past.summed_up(MIDNIGHT - timedelta(days=400), calls=3, nanousd=777)
        past.attempt(nanousd=50_001)
        cached = Usage(input_tokens=1000, output_tokens=33, cache_read_tokens=500, reasoning_tokens=3)
        past.attempt(usage=cached, organisation="globex", team="red", user="dana")
        past.attempt(outcome="unknown", usage=None, nanousd=12_345, price_id=None)
        past.attempt(kind="tool", model="find_order", tier=None, price_id=None, usage=None, nanousd=0)
        return write_csv(file, COLUMNS, (row for charge in past.reports.charges() for row in focus_rows(charge)))


def _as_drafted(file: Path, rules: str) -> Path:
    if not RULES[rules]:
        return file
    drafted = file.with_stem(f"focus-{rules}")
    with file.open(newline="") as read, drafted.open("w", newline="") as written:
        rows = [
            row | {name: value.format_map(row) for name, value in RULES[rules].items()} for row in csv.DictReader(read)
        ]
        writer = csv.DictWriter(written, fieldnames=[*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    return drafted


def _passes(validator: Path, rules: str, file: Path) -> bool:
    # It looks for its table of currencies below the folder in which it is started.
    home = next(HOME.absolute().glob("lib/python*/site-packages"))
    asked = [str(validator), "--data-file", str(file), "--validate-version", rules]
    said = subprocess.run(asked, cwd=home, capture_output=True, text=True, check=False)
    passed = said.returncode == 0 and "Validation succeeded" in said.stdout
    if not passed:
        print(said.stdout, said.stderr, sep="\n")
    return passed


if __name__ == "__main__":
    sys.exit(main())
