"""How far a provider's own count of a request lies above ours, learned per model from every settled call."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, select, update

from bursar.budget.alerts.outbox import insert_once
from bursar.budget.schema import token_margin
from bursar.budget.stores.store import Store

__all__ = ["UNLEARNED_PPM", "Margins"]

UNLEARNED_PPM = 1_150_000
"""The margin of a model that was never called: 1.15 times our count."""

SLACK_PPM = 20_000
"""What is added to the highest ratio seen."""

FORGET = 50
"""Each lower sample moves what is kept by a fiftieth towards itself."""

LONG_TOKENS = 1_000
"""From how long a request the ratio is learned; what shorter ones cost above our count is taken for a constant.

A provider that adds 350 tokens to each request counts 26 times our `hi`, which says nothing about a long one.
"""

_STEP_PPM = 5_000
_STEP_TOKENS = 16
_TRUST_SAMPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class _Margin:
    """What the provider of a model counts at most: our count times a ratio, and a constant."""

    samples: int = 0
    """How many long requests the ratio was learned from."""

    ratio_ppm: int = 0
    constant_tokens: int = 0

    @property
    def safe_ratio_ppm(self) -> int:
        """Never below our own count: of a request of which not all was sent on, less is billed than of the next."""
        return max(self.ratio_ppm, 1_000_000 if self.samples >= _TRUST_SAMPLES else UNLEARNED_PPM)

    def after(self, counted: int, billed: int) -> _Margin:
        """The margin that one more settled call teaches."""
        if counted >= LONG_TOKENS:
            seen = -(-billed * 1_000_000 // counted)
            return replace(self, samples=self.samples + 1, ratio_ppm=_towards(seen, self.ratio_ppm))
        # Against our count itself, not a higher ratio: what the ratio explains today, it may have forgotten tomorrow.
        return replace(self, constant_tokens=_towards(max(0, billed - counted), self.constant_tokens))

    def has_moved(self, stored: _Margin) -> bool:
        """Whether the difference is worth a write."""
        untrusted = stored.samples < _TRUST_SAMPLES and stored.samples != self.samples
        moved = abs(self.ratio_ppm - stored.ratio_ppm) > _STEP_PPM
        return untrusted or moved or abs(self.constant_tokens - stored.constant_tokens) > _STEP_TOKENS

    def or_higher(self, other: _Margin) -> _Margin:
        """The safe one of what two processes have learned."""
        return _Margin(
            samples=max(self.samples, other.samples),
            ratio_ppm=max(self.ratio_ppm, other.ratio_ppm),
            constant_tokens=max(self.constant_tokens, other.constant_tokens),
        )


class Margins:
    """The learned margins; read from memory, written only when they have moved."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, _Margin] = {}
        self._stored: dict[str, _Margin] = {}

    def bound(self, model: str, counted_tokens: int) -> int:
        """An upper bound on the input tokens that the provider of `model` will count for a request that we count so."""
        margin = self._known.get(model) or self._load(model)
        scaled = -(-counted_tokens * (margin.safe_ratio_ppm + SLACK_PPM) // 1_000_000)
        return scaled + margin.constant_tokens + 1

    def learn(self, connection: Connection, model: str, counted_tokens: int, billed_tokens: int) -> None:
        """Take one settled call into account, in the transaction of its settle."""
        kept = self._known.get(model) or self._load(model, connection)
        self._known[model] = kept.after(counted_tokens, billed_tokens)
        if self._known[model].has_moved(self._stored[model]):
            self._save(connection, model)

    def _load(self, model: str, connection: Connection | None = None) -> _Margin:
        if connection is None:
            with self._store.read() as connection:
                return self._load(model, connection)
        query = select(*(token_margin.c[name] for name in _COLUMNS)).where(token_margin.c.model == model)
        row = connection.execute(query).mappings().first()
        self._known[model] = self._stored[model] = _Margin(**row) if row else _Margin()
        return self._known[model]

    def _save(self, connection: Connection, model: str) -> None:
        margin, before = self._known[model], self._stored[model]
        insert_once(connection, token_margin, {"model": model, **asdict(_Margin())})  # unless another process just did
        stored = self._load(model, connection)
        if stored != before:  # another process learned too
            margin = margin.or_higher(stored)
        self._known[model] = self._stored[model] = margin
        values = {name: getattr(margin, name) for name in _COLUMNS}
        connection.execute(update(token_margin).where(token_margin.c.model == model).values(values))


_COLUMNS = ("samples", "ratio_ppm", "constant_tokens")


def _towards(seen: int, kept: int) -> int:
    """A higher sample is believed at once, a lower one by and by."""
    return seen if seen >= kept else kept - (kept - seen) // FORGET
