"""What is told to whom and how often, as the TOML's sections want it.

Nothing is refused: a mistake is told by its place, and the default stands in its stead.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import time, timedelta
from difflib import get_close_matches
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

from billingwatch.model import SEVERITIES, Severity
from notify import interval
from notify.route import LABELS, Route, Span

T = TypeVar("T")
Wrong = dict[str, str]  # place in the file -> what is wrong there
Members = Mapping[str, Sequence[str]]  # a channel's name -> the single channels that it stands for

_SPAN = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,5})s)?", re.ASCII)
_ADDRESS = re.compile(r"'?\S*://\S*'?")
_CLOCK = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)", re.ASCII)


class Inhibition(Struct, frozen=True):
    """While an incident of `by` is open, those of `of` are attached to it: of the same account, or of all where the
    cause is about BillingWatch itself."""

    by: frozenset[str]
    of: frozenset[str]
    least: Severity = "low"  # of the cause


class DigestTimes(Struct, frozen=True):
    """When a digest is made, and for whom: of all accounts together, and of each of `accounts` by itself."""

    daily: time | None = None
    weekly: tuple[int, time] | None = None  # weekday, 0 for Monday
    channels: tuple[str, ...] = ()
    always: bool = False  # also when there is nothing to say
    accounts: tuple[str, ...] = ()


_ABSENT = frozenset({"volume_drop", "revenue_drop", "webhook_silence", "webhook_lag"})
INHIBITIONS = (
    Inhibition(frozenset({"pipeline_lag", "worker_missing", "redis_away"}), _ABSENT),
    Inhibition(frozenset({"redis_high"}), _ABSENT, "critical"),  # then webhooks are refused
    Inhibition(frozenset({"webhook_silence"}), frozenset({"volume_drop", "revenue_drop", "mrr_drop", "webhook_lag"})),
    Inhibition(frozenset({"failure_rate"}), frozenset({"volume_drop", "revenue_drop", "churn_spike"}), "high"),
)


class Policy(Struct, frozen=True, kw_only=True):
    """What is decided by. The last of the routes is the default one."""

    routes: tuple[Route, ...] = (Route(),)
    inhibitions: tuple[Inhibition, ...] = INHIBITIONS
    budget: int = 20  # messages an hour and channel
    templates: str = ""  # a folder with templates of one's own
    links: timedelta = timedelta(days=3)  # that signed links are good for
    digest: DigestTimes = DigestTimes()
    zone: str = "UTC"  # of accounts that have none of their own, and of BillingWatch itself

    @property
    def default(self) -> Route:
        return self.routes[-1]


def configure(sections: Mapping[str, Any], members: Members) -> tuple[Policy, Wrong]:
    """The policy of these sections, and what is wrong in them."""
    wrong: Wrong = {}
    reader = _Reader(members, wrong)
    reader.intervals(sections.get("intervals", {}))
    general = reader.table(sections.get("alerts", {}), "alerts", (*_COMMON, "budget", "templates", "links"))
    pattern = reader.route({key: general[key] for key in general if key in _COMMON}, "alerts", Route())
    default = reader.route(reader.table(sections.get("route", {}), "route", _DEFAULT), "route", pattern)
    if not default.channels:
        default = replace(default, channels=tuple(single for each in members.values() for single in each))
    routes = []
    for place, table in reader.tables(sections.get("routes", []), "routes", _ROUTE).items():
        routes.append(reader.route(table, place, pattern))
        if not routes[-1].channels:
            wrong.setdefault(f"{place}.channels", "names no channel")
    causes = reader.inhibitions(sections.get("inhibit", []))
    policy = Policy(
        routes=(*routes, replace(default, name=Route().name)),
        inhibitions=causes,
        budget=reader.get(general, "alerts", "budget", _whole(1, 10_000), Policy().budget),
        templates=reader.get(general, "alerts", "templates", _text, ""),
        links=reader.get(general, "alerts", "links", _span(60, 30 * 86_400), Policy().links),
        digest=reader.digest(sections.get("digest", {})),
    )
    return policy, wrong


_TIMING = ("group_wait", "group_interval", "repeat_interval", "escalate_after")
_COMMON = (*_TIMING, "quiet")  # of all routes, unless one says otherwise
_DEFAULT = (*_COMMON, "channels", "escalate")  # the default route matches everything, always
_ROUTE = (*_DEFAULT, *LABELS, "continue", "during")
_EVERY = ("*",)
_NOBODY: tuple[str, ...] = ()


class _Reader:
    """Reads tables; what is wrong is noted by its place, `"routes.2.channels"` of the second route."""

    def __init__(self, members: Members, wrong: Wrong) -> None:
        self.members = members
        self.wrong = wrong
        self.named: dict[str, Span] = {}

    def table(self, value: Any, place: str, known: Collection[str]) -> dict[str, Any]:
        """The table without unknown keys."""
        if not isinstance(value, Mapping):
            self.wrong[place] = "is no table"
            return {}
        for name in value:
            if name not in known:
                close = get_close_matches(name, known, 1)
                hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(sorted(known))}"
                self.wrong[f"{place}.{name}"] = f"unknown key ({hint})"
        return {name: each for name, each in value.items() if name in known}

    def tables(self, value: Any, place: str, known: Collection[str]) -> dict[str, dict[str, Any]]:
        """The tables of a list by their place, counted from 1."""
        if not isinstance(value, list) or not all(isinstance(each, Mapping) for each in value):
            self.wrong[place] = f"is no list of tables: write [[{place}]]"
            return {}
        places = [f"{place}.{number}" for number in range(1, len(value) + 1)]
        return {here: self.table(each, here, known) for here, each in zip(places, value, strict=True)}

    def get(self, table: Mapping[str, Any], place: str, name: str, read: Callable[[Any], T], default: T) -> T:
        """The value of a key of the table, the default where it is missing or wrong."""
        if name not in table:
            return default
        try:
            return read(table[name])
        except ValueError as error:
            self.wrong[f"{place}.{name}"] = str(error)
            return default

    def intervals(self, value: Any) -> None:
        """`NAME = "sat-sun"`, or a table with `times` and `zone`."""
        if not isinstance(value, Mapping):
            self.wrong["intervals"] = "is no table"
            return
        for name, each in value.items():
            place = f"intervals.{name}"
            table = self.table(each if isinstance(each, Mapping) else {"times": each}, place, ("times", "zone"))
            times = self.get(table, place, "times", _times, interval.Times())
            self.named[name] = Span(times, self.get(table, place, "zone", _zone, ""))

    def span(self, value: Any) -> Span:
        """An interval by its name, or parts of the week."""
        if isinstance(value, str) and value in self.named:
            return self.named[value]
        try:
            return Span(_times(value))
        except ValueError as error:
            known = f"; intervals are named {', '.join(self.named)}" if self.named else ""
            raise ValueError(f"{error}{known}") from None

    def channels(self, value: Any) -> tuple[str, ...]:
        """The single channels that these names stand for."""
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise ValueError("is no list of channels' names")
        strangers = [_shown(name) for name in names if name not in self.members]
        if strangers:
            raise ValueError(
                f"no channel is named {' or '.join(strangers)} (named: {', '.join(self.members) or 'none'})"
            )
        return tuple(dict.fromkeys(single for name in names for single in self.members[name]))

    def route(self, table: Mapping[str, Any], place: str, pattern: Route) -> Route:
        """The table's route; what it leaves out is as in the pattern."""

        def get(name: str, read: Callable[[Any], T], default: T) -> T:
            return self.get(table, place, name, read, default)

        nothing: Span | None = None
        return Route(
            name=place,
            matchers={label: get(label, _patterns(label), _EVERY) for label in LABELS if label in table},
            channels=get("channels", self.channels, pattern.channels),
            go_on=get("continue", _flag, False),
            during=get("during", self.span, nothing),
            quiet=get("quiet", self.span, pattern.quiet),
            escalate=get("escalate", self.channels, pattern.escalate),
            **{name: get(name, _span(0, 30 * 86_400), getattr(pattern, name)) for name in _TIMING},
        )

    def inhibitions(self, value: Any) -> tuple[Inhibition, ...]:
        """The shipped ones, and those of the list. Two that explain each other would both be told of nowhere."""
        found = list(INHIBITIONS)
        for place, table in self.tables(value, "inhibit", ("by", "of")).items():
            made = self.inhibition(table, place)
            back = next((each for each in (*found, made) if each.by & made.of and each.of & made.by), None)
            if back is None:
                found.append(made)
            else:
                pair = f"{min(made.by & back.of)} and {min(made.of & back.by)}"
                self.wrong.setdefault(place, f"{pair} would explain each other, and neither be told")
        return tuple(found)

    def inhibition(self, table: Mapping[str, Any], place: str) -> Inhibition:
        by, of = (frozenset(self.get(table, place, name, _names, _NOBODY)) for name in ("by", "of"))
        if not (by and of):
            self.wrong.setdefault(place, "wants `by` and `of`, names of detectors or rules")
        return Inhibition(by, of)

    def digest(self, value: Any) -> DigestTimes:
        table = self.table(value, "digest", ("daily", "weekly", "channels", "always", "accounts"))

        def get(name: str, read: Callable[[Any], T], default: T) -> T:
            return self.get(table, "digest", name, read, default)

        daily: time | None = None
        weekly: tuple[int, time] | None = None
        return DigestTimes(
            daily=get("daily", _clock, daily),
            weekly=get("weekly", _weekly, weekly),
            channels=get("channels", self.channels, _NOBODY),
            always=get("always", _flag, False),
            accounts=get("accounts", _names, _NOBODY),
        )


def _shown(value: Any) -> str:
    """As a mistake may quote it: an address may hold secrets."""
    return "an address" if _ADDRESS.search(str(value)) else repr(value)


def _span(least: int, most: int) -> Callable[[Any], timedelta]:
    """Of `least` to `most` seconds."""

    def read(value: Any) -> timedelta:
        found = _SPAN.fullmatch(value) if isinstance(value, str) and value else None
        if not found:
            raise ValueError(f"{_shown(value)} is no span (as 30s, 5m, 4h or 1d)")
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        span = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        if not least <= span.total_seconds() <= most:
            raise ValueError(f"{value} is not within {timedelta(seconds=least)} and {timedelta(seconds=most)}")
        return span

    return read


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise ValueError(f"{_shown(value)} is no whole number from {least} to {most}")
        return value

    return read


def _patterns(label: str) -> Callable[[Any], tuple[str, ...]]:
    def read(value: Any) -> tuple[str, ...]:
        if label == "livemode" and isinstance(value, bool):
            value = "live" if value else "test"
        found = _names(value)
        if label == "severity":
            for each in found:
                bare = each.removeprefix("!").removeprefix(">=")
                if bare not in SEVERITIES:
                    raise ValueError(f"{_shown(each)} is no severity ({', '.join(SEVERITIES)}, or as >=high)")
        if label == "livemode" and not {each.removeprefix("!") for each in found} <= {"live", "test"}:
            raise ValueError("is neither true, false, live nor test")
        return found

    return read


def _names(value: Any) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not found or not all(isinstance(each, str) and each for each in found):
        raise ValueError("is no text and no list of texts")
    return tuple(found)


def _times(value: Any) -> interval.Times:
    parts = [value] if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts or not all(isinstance(each, str) for each in parts):
        raise ValueError(f"is no part of the week ({interval.EXAMPLE})")
    try:
        return interval.read(", ".join(parts))
    except ValueError as error:
        raise ValueError(_ADDRESS.sub("an address", str(error))) from None


def _zone(value: Any) -> str:
    try:
        return str(ZoneInfo(value))
    except (KeyError, ValueError, TypeError, OSError):
        raise ValueError(f"{_shown(value)} is no time zone (as Europe/Berlin)") from None


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("is neither true nor false")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("is no text")
    return value


def _clock(value: Any) -> time:
    found = _CLOCK.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(f"{_shown(value)} is no time of the day (as 08:00)")
    return time(int(found[1]), int(found[2]))


def _weekly(value: Any) -> tuple[int, time]:
    day, _, clock = value.partition(" ") if isinstance(value, str) else ("", "", "")
    if day.lower() not in interval.DAYS or not clock:
        raise ValueError(f"{_shown(value)} is no day with a time (as mon 08:00)")
    return interval.DAYS.index(day.lower()), _clock(clock)
