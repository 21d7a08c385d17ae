"""How far a provider's own count of a request lies above ours, learned per model from every settled call."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from bursar.budget.schema import token_margin
from bursar.budget.store import Store

__all__ = ["UNLEARNED_PPM", "Margins"]

UNLEARNED_PPM = 1_150_000
"""The margin of a model that was never called: 1.15 times our count."""

SLACK_PPM = 20_000
"""What is added to the highest ratio seen."""

FORGET = 50
"""Each lower sample moves the kept ratio by a fiftieth towards itself."""

_STEP_PPM = 5_000
_TRUST_SAMPLES = 3


class Margins:
    """The learned margins; read from memory, written only when they have moved."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, tuple[int, int]] = {}
        self._stored: dict[str, tuple[int, int]] = {}

    def bound(self, model: str, counted_tokens: int) -> int:
        """An upper bound on the input tokens that the provider of `model` will count for a request that we count so."""
        samples, ratio_ppm = self._known.get(model) or self._load(model)
        if samples < _TRUST_SAMPLES:
            ratio_ppm = max(ratio_ppm, UNLEARNED_PPM)
        return -(-counted_tokens * (ratio_ppm + SLACK_PPM) // 1_000_000) + 1

    def learn(self, connection: Connection, model: str, counted_tokens: int, billed_tokens: int) -> None:
        """Take one settled call into account, in the transaction of its settle."""
        samples, kept = self._known.get(model) or self._load(model, connection)
        seen = -(-billed_tokens * 1_000_000 // counted_tokens)
        ratio = seen if seen >= kept else kept - (kept - seen) // FORGET
        self._known[model] = (samples + 1, ratio)
        if samples < _TRUST_SAMPLES or abs(ratio - self._stored[model][1]) > _STEP_PPM:
            self._save(connection, model)

    def _load(self, model: str, connection: Connection | None = None) -> tuple[int, int]:
        if connection is None:
            with self._store.read() as connection:
                return self._load(model, connection)
        query = select(token_margin.c.samples, token_margin.c.ratio_ppm).where(token_margin.c.model == model)
        row = connection.execute(query).first()
        self._known[model] = self._stored[model] = (row.samples, row.ratio_ppm) if row else (0, 0)
        return self._known[model]

    def _save(self, connection: Connection, model: str) -> None:
        (samples, ratio), before = self._known[model], self._stored[model]
        stored = self._load(model, connection)
        if stored != before:  # another process learned too: the higher ratio is the safe one
            samples, ratio = max(samples, stored[0]), max(ratio, stored[1])
        self._known[model] = self._stored[model] = (samples, ratio)
        values = {"samples": samples, "ratio_ppm": ratio}
        if not connection.execute(update(token_margin).where(token_margin.c.model == model).values(values)).rowcount:
            connection.execute(insert(token_margin).values(model=model, **values))
