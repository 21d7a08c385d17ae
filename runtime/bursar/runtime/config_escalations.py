"""Escalations in `bursar.yaml`: who may decide what, until when, and what happens then."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bursar.runtime.config_fields import SECTION, Name, Text, Usd, UserName, ZoneName
from bursar.runtime.config_problems import KeyPath, Problem, Problems, nearest
from bursar.runtime.config_smtp import MailAddress
from bursar.runtime.escalations.hours import Hours
from bursar.runtime.escalations.records import Reason
from bursar.runtime.escalations.rule import OnExpiry

__all__ = [
    "EscalationsConfig",
    "HoursConfig",
    "LevelConfig",
    "People",
    "PersonConfig",
    "RuleConfig",
    "span",
    "wrong_policy",
]

WITHIN = timedelta(days=7)
"""How long a level has where its rule does not say."""

REMINDERS_MAX = 100
"""How many reminders a level may have."""

_SPAN = r"^[1-9][0-9]{0,3}[mhd]$"
_TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$"


def _span(value: str) -> str:
    if not re.fullmatch(_SPAN, value):
        raise ValueError("expected a time such as 30m, 4h or 7d")
    return value


def _time(value: str) -> str:
    if not re.fullmatch(_TIME, value):
        raise ValueError("expected a time of day such as 09:00, at most 24:00")
    return value


Span = Annotated[str, AfterValidator(_span), Field(json_schema_extra={"pattern": _SPAN})]
"""A length of time: minutes, hours or days of 24 hours, in working time where `hours` are declared."""

TimeOfDay = Annotated[str, AfterValidator(_time), Field(json_schema_extra={"pattern": _TIME})]
Names = Annotated[list[Name], Field(min_length=1)]
DayName = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class PersonConfig(BaseModel):
    """Somebody who may decide."""

    model_config = SECTION

    roles: list[Name] = []
    """What they are, by names of your own, such as `lead`."""

    teams: list[Name] = []
    """Where they belong, by names of your own."""

    ceiling_usd: Usd | None = None
    """The largest amount that they may approve or grant in one decision; without it there is no bound."""

    email: MailAddress | None = None
    """Where they are written to."""


People = Annotated[dict[UserName, PersonConfig], Field(json_schema_extra={"additionalProperties": False})]


class HoursConfig(BaseModel):
    """The hours in which people work."""

    model_config = ConfigDict(**SECTION, populate_by_name=True)

    days: Annotated[list[DayName], Field(min_length=1)] = ["mon", "tue", "wed", "thu", "fri"]
    """The days on which they work."""

    begin: Annotated[TimeOfDay, Field(alias="from")] = "09:00"
    """When their day begins, such as `09:00`."""

    end: Annotated[TimeOfDay, Field(alias="to")] = "17:00"
    """When it ends, at the latest `24:00`; after `from`."""

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        if _minute(self.end) <= _minute(self.begin):
            raise Problems([Problem(path=("to",), text=f"expected a time after from ({self.begin}), got {self.end}")])
        return self

    def in_zone(self, zone: str) -> Hours:
        """The same as a calculation needs it."""
        return Hours(zone=zone, days=self.days, begin_minute=_minute(self.begin), end_minute=_minute(self.end))


class LevelConfig(BaseModel):
    """Those who may decide from some moment on, beside those of the levels before."""

    model_config = SECTION

    roles: list[Name] = []
    """Whoever has one of these roles."""

    teams: list[Name] = []
    """Whoever is in one of these teams."""

    people: list[UserName] = []
    """These, by their names."""

    within: Span = "7d"
    """How long they have, such as `4h`; then the next level may decide, too, or the last is over."""

    remind: Span | None = None
    """How often they are reminded; without it never."""

    def who(self) -> str:
        """Who that is, as it is written: `role lead, team risk, dana`."""
        words = [*(f"role {name}" for name in self.roles), *(f"team {name}" for name in self.teams), *self.people]
        return ", ".join(words)

    def members(self, people: Mapping[str, PersonConfig]) -> list[str]:
        """The names of those who are meant."""
        return [
            name
            for name, person in people.items()
            if name in self.people or {*self.roles} & {*person.roles} or {*self.teams} & {*person.teams}
        ]


class RuleConfig(BaseModel):
    """Who decides on which escalations; of several rules the first that fits."""

    model_config = SECTION

    reasons: Annotated[list[Reason], Field(min_length=1)] | None = None
    """The reasons that it is for; without it all of them."""

    tools: Annotated[list[Text], Field(min_length=1)] | None = None
    """The tools that it is for."""

    agents: Names | None = None
    """The agents that it is for."""

    above_usd: Usd | None = None
    """It is for amounts above this one; an amount that nobody knows is above any."""

    amount: Text | None = None
    """The tools' argument that holds the amount in USD, where the tool does not say it itself."""

    levels: Annotated[list[LevelConfig], Field(min_length=1)]
    """Who may decide, and how long each level has; more come in, one after the other."""

    two_people: bool = False
    """Whether two different people must agree, neither of whom is the run's own user."""

    two_people_above_usd: Usd | None = None
    """Above which amount two people must agree, in the place of `two_people`."""

    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Higher comes first."""

    on_expiry: OnExpiry = "reject"
    """What happens where nobody decides in time: `reject`; `escalate`, through all levels and then reject; `downgrade`,
    for reason budget alone; or `keep` waiting."""


class EscalationsConfig(BaseModel):
    """Who is asked in this tenant, and when."""

    model_config = SECTION

    zone: ZoneName = "UTC"
    """The time zone of `hours`."""

    hours: HoursConfig | None = None
    """When people work; times of rules are counted in these hours alone. Without it they are counted round the
    clock."""

    rules: list[RuleConfig] = []
    """Of these the first that fits counts. Where none fits, everybody in `people` may decide, for seven days; then it
    is rejected."""


def span(text: str) -> timedelta:
    """A length of time such as `4h`."""
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[text[-1]]: int(text[:-1])})


def _minute(text: str) -> int:
    """The minute of the day."""
    return int(text[:2]) * 60 + int(text[3:])


def wrong_policy(people: Mapping[str, PersonConfig], escalations: EscalationsConfig) -> Iterator[Problem]:
    """What is wrong with a tenant's rules: names that nobody has, levels that nobody can decide."""
    for index, rule in enumerate(escalations.rules):
        path: KeyPath = ("escalations", "rules", index)
        yield from _wrong_levels((*path, "levels"), rule, people)
        yield from _wrong_two(path, rule, people)
        yield from _wrong_expiry(path, rule)


def _wrong_levels(path: KeyPath, rule: RuleConfig, people: Mapping[str, PersonConfig]) -> Iterator[Problem]:
    known = {
        "roles": {role for person in people.values() for role in person.roles},
        "teams": {team for person in people.values() for team in person.teams},
        "people": set(people),
    }
    for index, level in enumerate(rule.levels):
        at = (*path, index)
        if not level.who():
            yield Problem(path=at, text="expected roles, teams or people: nobody is named")
        for key, names in known.items():
            yield from _unknown((*at, key), key, getattr(level, key), sorted(names))
        if level.remind is not None:
            yield from _wrong_reminder((*at, "remind"), span(level.remind), level.within)
    yield from _too_low_ceilings(path, rule, people)


def _wrong_reminder(path: KeyPath, every: timedelta, within: str) -> Iterator[Problem]:
    if every >= span(within):
        yield Problem(path=path, text=f"expected less than within ({within}), or nobody is ever reminded")
    if span(within) / every > REMINDERS_MAX:
        yield Problem(path=path, text=f"expected at most {REMINDERS_MAX} reminders within {within}")


def _unknown(path: KeyPath, key: str, names: Sequence[str], known: Sequence[str]) -> Iterator[Problem]:
    noun = {"roles": "role", "teams": "team", "people": "person"}[key]
    for index, name in enumerate(names):
        if name not in known:
            yield Problem(path=(*path, index), text=f"nobody in people is such a {noun}{nearest(name, known)}")


def _too_low_ceilings(path: KeyPath, rule: RuleConfig, people: Mapping[str, PersonConfig]) -> Iterator[Problem]:
    """A rule for amounts that none of its people may approve."""
    members = {name for level in rule.levels for name in level.members(people)}
    highest = [people[name].ceiling_usd for name in members]
    ceilings = [one for one in highest if one is not None]
    if rule.above_usd is not None and ceilings and len(ceilings) == len(highest) and max(ceilings) <= rule.above_usd:
        text = f"nobody here may approve more than {max(ceilings)}, and the rule is for amounts above {rule.above_usd}"
        yield Problem(path=path, text=f"{text}; expected somebody with a higher ceiling_usd")


def _wrong_two(path: KeyPath, rule: RuleConfig, people: Mapping[str, PersonConfig]) -> Iterator[Problem]:
    members = {name for level in rule.levels for name in level.members(people)}
    key = "two_people" if rule.two_people else "two_people_above_usd"
    if rule.two_people and rule.two_people_above_usd is not None:
        yield Problem(path=(*path, "two_people_above_usd"), text="expected it only without two_people: true")
    if (rule.two_people or rule.two_people_above_usd is not None) and len(members) < 2:
        who = next(iter(members), "nobody")
        yield Problem(path=(*path, key), text=f"expected two people at least in levels, and there is {who}")


def _wrong_expiry(path: KeyPath, rule: RuleConfig) -> Iterator[Problem]:
    at = (*path, "on_expiry")
    if rule.on_expiry == "downgrade" and rule.reasons != ["budget"]:
        yield Problem(path=at, text="expected downgrade only in a rule for reasons: [budget]")
    if rule.on_expiry == "escalate" and len(rule.levels) < 2:
        yield Problem(path=at, text="expected escalate only where there is a second level")
    if rule.on_expiry == "keep" and "within" in rule.levels[-1].model_fields_set:
        yield Problem(path=at, text="expected no within at the last level, as keep waits for ever")
