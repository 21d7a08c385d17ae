"""Which models may answer a call, in order, and why: a pure function of what is asked, allowed, left and in flight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from bursar.agents.tier import AUTO
from bursar.budget.admission import MoneyLeft
from bursar.budget.money import format_usd
from bursar.runtime.models.causes import Failure
from bursar.runtime.models.provider import ContextTooLong
from bursar.runtime.routing.allow import Policy, forbidden
from bursar.runtime.routing.ladder import below, capped
from bursar.runtime.routing.session import is_open, priced

if TYPE_CHECKING:
    from bursar.budget.refusal import Refusal
    from bursar.runtime.ask import Ask
    from bursar.runtime.models.catalog import Catalog, Model
    from bursar.runtime.models.provider import Message

__all__ = ["USEFUL_OUTPUT_TOKENS", "Candidate", "Choice", "Chooser", "Obstacle", "Situation", "Stage", "choose"]

USEFUL_OUTPUT_TOKENS = 16
"""The least output that is worth paying the input for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What holds at the moment of a choice."""

    left: MoneyLeft | None = None
    """The budget in money of which the least share is left; None where that is not known, or nothing limits money."""

    in_flight: Mapping[str, int] = field(default_factory=dict)
    """How many slots of each model are taken."""

    cooling: Callable[[str], Failure | None] = lambda _: None
    """Why a model is not to be asked just now, and until when; None for one that may be."""

    author: str | None = None
    """The model that wrote the last answer in the messages, where that is known."""

    downgrades: bool = False
    """Whether lower tiers are asked at a limit."""

    auto: Callable[[Sequence[Message]], tuple[str, str]] | None = None
    """The tier for a call of `auto`, and why."""


class Obstacle(NamedTuple):
    """Why a model cannot take a call."""

    words: str
    failure: Failure | None = None
    """None where it is not allowed to."""

    @property
    def pause_s(self) -> float | None:
        """How long the model asked not to be asked, where it is but that."""
        pauses = self.failure is not None and self.failure.cause.cools == "asked"
        return self.failure.error.retry_after_s if self.failure is not None and pauses else None


@dataclass(frozen=True, slots=True)
class Stage:
    """A tier whose models are asked."""

    tier: str
    """Empty for a model that stands in no tier that may be used."""

    why: str = ""
    """Empty where it is the one that was asked for."""

    stepped: bool = False
    """Whether it is not the one that was asked for."""

    forced: bool = False
    """Whether what was asked before was refused: then nothing holds the call to one model."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be asked."""

    tier: str
    model: Model
    reason: str
    held: bool = False
    """Whether the call belongs to it, and waits for its slot before it goes to another."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Who may answer."""

    stage: Stage
    candidates: tuple[Candidate, ...]
    """In the order in which they are asked. Those without a free slot are among them; the next goes before them."""

    passed: tuple[Obstacle, ...]
    """Why others are not among them."""


def choose(ask: Ask, input_tokens: int, catalog: Catalog, policy: Policy, now: Situation) -> Choice:
    """Who may answer `ask`, whose input has so many tokens; raises UsageError for a tier or model that is none."""
    chooser = Chooser(ask, input_tokens, catalog, policy, now)
    return chooser.among(chooser.stage())


@dataclass(frozen=True, slots=True)
class Chooser:
    """One choice, of a tier and then of the models in it."""

    ask: Ask
    input_tokens: int
    catalog: Catalog
    policy: Policy
    now: Situation

    def stage(self) -> Stage:
        """The tier that is asked first: the one asked for, at most the ladder's, at least the node's `min_tier`."""
        ask = self.ask
        self.catalog.require("model", *([ask.model] if ask.model else []), *(ask.models or ()))
        self.catalog.require("tier", *([ask.min_tier] if ask.min_tier else []))
        asked, why = self._asked()
        if asked not in self.catalog.tiers:
            return Stage(asked, why)
        order, lowest = self._order, ask.min_tier
        tier, step = capped(asked, order, self.policy, self.now.left)
        why = step or why
        if lowest is not None and order.index(tier) < order.index(lowest):
            why = f"{step}, but not below {lowest}" if step else f"{tier} asked, not below {lowest}"
            tier = lowest
        return Stage(tier, why, stepped=tier != asked)

    def after(self, stage: Stage, refusal: Refusal) -> Iterator[Stage]:
        """The tiers that are asked when the ledger has refused this one for money, the highest first.

        Where lower tiers are asked at a limit, all that are below; else the one to which the ladder leads now.
        """
        if stage.tier not in self.catalog.tiers or refusal.dimension != "nanousd":
            return
        order, lowest = self._order, self.ask.min_tier
        left = MoneyLeft(refusal.path, refusal.per, refusal.limit or 0, refusal.remaining or 0)
        ladder, step = capped(stage.tier, order, self.policy, left)
        for tier in below(stage.tier, order, self.policy, lowest):
            if self.now.downgrades:
                yield Stage(tier, f"no money left for {stage.tier}", stepped=True, forced=True)
            elif tier == ladder:
                yield Stage(tier, step, stepped=True, forced=True)

    def among(self, stage: Stage) -> Choice:
        """Who of a tier may answer, beside the model with which the call stays."""
        named = self.ask.model if not (stage.stepped or stage.forced) else None
        models = self.catalog.tier(stage.tier) if named is None else (self.catalog.model(named),)
        obstacles = [(model, self._obstacle(model)) for model in models]
        passed = [obstacle for _, obstacle in obstacles if obstacle is not None]
        fit = [model for model, obstacle in obstacles if obstacle is None]
        if not fit and (pauses := [(wait, model) for model, one in obstacles if (wait := one and one.pause_s)]):
            fit = [min(pauses, key=itemgetter(0))[1]]  # nobody else is left, so it is waited for
        stays = None if named is not None or stage.forced else self._staying(stage, models, fit)
        if isinstance(stays, Obstacle):
            passed.insert(0, stays)
        if not isinstance(stays, Candidate):
            return Choice(stage, tuple(self._in_order(stage, fit, passed)), tuple(passed))
        name = stays.model.name
        rest = [model for model in fit if model.name != name]
        others = self._in_order(stage, rest, [*passed, Obstacle(f"after {name}")])
        return Choice(stage, (stays, *others), tuple(passed))

    @property
    def _order(self) -> list[str]:
        return list(self.catalog.tiers)

    def _asked(self) -> tuple[str, str]:
        """The tier that is asked for, and why where another than the node says so."""
        ask, now = self.ask, self.now
        if ask.model is not None:
            return self._home(ask.model) or "", f"{ask.model} was asked for"
        if ask.tier != AUTO or now.auto is None:
            return ask.tier, ask.why
        if now.author is not None and is_open(ask.messages) and (home := self._home(now.author)) is not None:
            return home, "auto: not asked in a tool exchange"
        tier, why = now.auto(ask.messages)
        allowed = self._allowed(tier)
        return allowed, why if allowed == tier else f"{why}, which {self.policy.tenant} may not use"

    def _allowed(self, tier: str) -> str:
        """The tier, or where the tenant may not use it, the next higher one that it may; else the highest."""
        may = [name for name in self._order if self.policy.tiers is None or name in self.policy.tiers]
        rank = self._order.index
        return next((name for name in may if rank(name) >= rank(tier)), may[-1] if may else tier)

    def _home(self, name: str) -> str | None:
        """The lowest tier with this model that the tenant and the node allow."""
        order, lowest, tiers = self._order, self.ask.min_tier, self.policy.tiers
        allowed = order[order.index(lowest) :] if lowest is not None else order
        return next((t for t in allowed if name in self.catalog.tiers[t] and (tiers is None or t in tiers)), None)

    def _obstacle(self, model: Model) -> Obstacle | None:
        """Why a model cannot take the call; None where it can."""
        if (reason := forbidden(model, self.policy, self.ask.models, self.ask.data)) is not None:
            return Obstacle(reason)
        if model.context_window is not None and self.input_tokens + USEFUL_OUTPUT_TOKENS > model.context_window:
            words = f"holds {model.context_window} tokens"
            return Obstacle(
                f"{model.name} {words}", Failure(model.name, ContextTooLong(words), "next_larger", attempts=0)
            )
        cooling = self.now.cooling(model.name)
        return None if cooling is None else Obstacle(f"{model.name} cools down ({cooling.cause.name})", cooling)

    def _busy(self, model: Model) -> str | None:
        taken = self.now.in_flight.get(model.name, 0)
        if model.slots is None or taken < model.slots:
            return None
        return f"{model.name} busy ({taken} of {model.slots} slots)"

    def _in_order(self, stage: Stage, models: Sequence[Model], passed: Sequence[Obstacle]) -> Iterator[Candidate]:
        """Models in the tier's order, each with what stands in the way of those before it."""
        of = f"tier {stage.tier}" if stage.tier else "no tier"
        why, before = f"{stage.why}; " if stage.why else "", [obstacle.words for obstacle in passed]
        for model in models:
            place = f"{', '.join(before)}, next of" if before else "first of"
            yield Candidate(stage.tier, model, f"{why}{place} {of}")
            before.append(self._busy(model) or f"after {model.name}")

    def _staying(self, stage: Stage, models: Sequence[Model], fit: Sequence[Model]) -> Candidate | Obstacle | None:
        """The model that wrote the last answer, where the call stays with it, or why it leaves it in an exchange."""
        name = self.now.author
        tier = stage.tier if any(model.name == name for model in models) else self._earlier(stage)
        if name is None or tier is None:
            return None
        author = self.catalog.model(name)
        obstacle = self._obstacle(author)
        if is_open(self.ask.messages):
            if obstacle is None:
                return Candidate(tier, author, f"stays on {name}, which called the tools", held=True)
            return Obstacle(f"leaves {name} in a tool exchange: {obstacle.words}", obstacle.failure)
        is_lower = tier != stage.tier and self._order.index(tier) < self._order.index(stage.tier)
        if is_lower or obstacle is not None or self._busy(author) or not fit or fit[0] is author:
            return None
        return self._unless_it_pays(tier, author, fit[0])

    def _earlier(self, stage: Stage) -> str | None:
        """The tier of the model that wrote the last answer, where a call like this one may have been given to it.

        A node that names a tier gets that tier: another node may have written the messages. But a ladder and a
        downgrade lead below it, and `auto` anywhere.
        """
        home = self._home(self.now.author) if self.now.author is not None else None
        if home is None or self.ask.tier == AUTO:
            return home
        asked = self.ask.tier if self.ask.tier in self.catalog.tiers else stage.tier
        led_down = bool(self.policy.ladder) or self.now.downgrades
        rank = self._order.index
        return home if led_down and rank(home) <= rank(asked) else None

    def _unless_it_pays(self, tier: str, author: Model, other: Model) -> Candidate | None:
        """The author, where another model of no higher tier would cost more than its warm cache."""
        text = self.ask.messages
        stay, go = author.price_for(text), other.price_for(text)
        if stay is None or go is None:
            return None
        switch = priced(stay, go, text, self.input_tokens)
        if switch.pays:
            return None
        cost, instead = format_usd(switch.go_nanousd), format_usd(switch.stay_nanousd)
        return Candidate(tier, author, f"stays on {author.name}: about {instead} from its cache, {other.name} {cost}")
