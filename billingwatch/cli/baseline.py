"""`billingwatch baseline`: what is expected of an account, factor by factor, and the hours that it was learnt from.

It reads what the last night learnt, and learns and judges nothing itself.
"""

import json
import sys
from collections.abc import Iterable
from datetime import date, datetime, timedelta
from difflib import get_close_matches
from math import prod, sqrt
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import click
import numpy as np
from msgspec import Struct, to_builtins
from psycopg import Connection
from rich.console import Console
from rich.table import Table

from billingwatch.cli.mark import EVER, MOMENT
from billingwatch.cli.start import begin, load_rules, open_store
from billingwatch.model import Money, Tenant, decimals, iso, utc
from billingwatch.settings import DEFAULT_SOURCE
from billingwatch.store import accounts, baselines, markers
from detectors.almanac import Almanac
from detectors.baseline import DAYS, HALF_LIFE, LEAST, Baseline
from detectors.calendar import Calendar, month_day, weekday
from detectors.catalogue import GUARD, LINES, kind
from detectors.forecast import DAY, HOUR, MONTH_STARTERS, QUIET
from detectors.hull import HOLIDAY_LOW, MONTH_START_HIGH
from detectors.registry import Plan

WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
SETTLED = 14 * DAY  # hours of an account from which on the newest days are guarded
RIGHT = 0.005  # of a count: less of it was clipped than is shown
Spans = Iterable[tuple[datetime, datetime]]


class Hour(Struct, frozen=True):
    """An hour that a baseline was learnt from. `why` it counts for less than what was counted, "" where it does not."""

    at: datetime
    counted: float
    kept: float
    left_out: bool
    weight: float
    why: str


class Origin(Struct, frozen=True):
    """What is expected of one line in one hour: the product of `factors`, the level among them, and their hours."""

    line: str
    currency: str  # of all that is counted here, in minor units; "" where events are counted
    at: datetime
    factors: dict[str, float]
    expected: float
    low: float
    high: float
    holiday: bool
    hours: list[Hour]


class Learnt(Struct, frozen=True):
    """What was learnt of one line, and what is expected of a day by it."""

    line: str
    currency: str
    level: float
    days: float
    counted: float
    phi: float
    today: float


@click.command()
@click.argument("account", default=DEFAULT_SOURCE)
@click.argument("line", required=False)
@click.option("--at", type=MOMENT, default="now", help="The hour (or the day) in question.  [default: now]")
@click.option("--test-mode", is_flag=True, help="The account's test mode, instead of live mode.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def baseline(account: str, line: str | None, at: datetime, test_mode: bool, as_json: bool) -> None:
    """Say what is expected of an account, and why.

    \b
    billingwatch baseline                                 every line of the default account
    billingwatch baseline default refund                  why so many refunds in this hour?
    billingwatch baseline acct_1 refund_spike --at -2d    of a detector's line, two days ago
    billingwatch baseline default any --at 2026-11-27T08:00+01:00

    Without LINE a table: what is expected of the day, the level an hour, the days and events it was learnt from, and
    phi (how much events come in clusters: 1 is pure chance). With LINE the hour's expectation as the product that
    it is: the level of the last two weeks, times the factors of the hour, the weekday, the part of the week and both
    together; the range in which 95 % of such hours lie; and the same hour of the last eight weeks. An hour's weight
    halves every 28 days. Days and hours are those of the account's time zone.

    It tells what was learnt last night. An evaluation moves it by how the last day has been running besides.
    """
    begin()
    plans = load_rules().plans
    tenant = Tenant(account, not test_mode)
    plan = plans.of(account, tenant.livemode)
    with open_store() as conn:
        packed = baselines.read_archive(conn, tenant)
        almanac = Almanac.unpack(plan.calendar, packed) if packed else None
        if almanac is None or not almanac.baselines:
            _refuse(_nothing(conn, tenant, packed is not None and almanac is None))
        said = [(each.starts_at, each.ends_at) for each in markers.read(conn, tenant) if each.kind == "expected"]
    hour = int(at.timestamp()) // HOUR
    if line is None:
        _show_lines(tenant, almanac, hour, as_json)
    else:
        _show_origin(tenant, origin(almanac, _found(line, almanac, plan), hour, said), plan.calendar, as_json)


def learnt(almanac: Almanac, line: str, hour: int) -> Learnt:
    """The line's baseline as numbers of the line itself: events, or minor units of its currency."""
    made, unit = almanac.baselines[line], almanac.units.get(line, 1.0)
    near = np.arange(hour - 2 * DAY, hour + 2 * DAY)
    local = almanac.calendar.local(near)
    today = near[local // DAY == local[2 * DAY] // DAY]
    return Learnt(
        line=line,
        currency=_currency(line),
        level=made.level * unit,
        days=made.days,
        counted=made.counted * unit,
        phi=made.dispersion.phi,
        today=sum(_expected(almanac, line, each)[0] for each in today.tolist()) * unit,
    )


def origin(almanac: Almanac, line: str, hour: int, said: Spans = ()) -> Origin:
    """Where what is expected in this UTC hour (since the epoch) comes from; `said` are the spans people marked."""
    made, unit = almanac.baselines[line], almanac.units.get(line, 1.0)
    mean, factors = _expected(almanac, line, hour)
    local = int(almanac.calendar.local(np.array([hour]))[0])
    holiday = local // DAY in almanac.calendar.holidays
    low, high = _range(made, mean, holiday)
    return Origin(
        line=line,
        currency=_currency(line),
        at=utc(hour * HOUR),
        factors=factors | {"level": made.level * unit},
        expected=mean * unit,
        low=low * unit,
        high=high * unit,
        holiday=holiday,
        hours=_hours(almanac, line, local % (7 * DAY), list(said)),
    )


def _expected(almanac: Almanac, line: str, hour: int) -> tuple[float, dict[str, float]]:
    """What is expected in the hour, in units of the line, and the factors that make it."""
    made = almanac.baselines[line]
    local = int(almanac.calendar.local(np.array([hour]))[0])
    day, clock = weekday(local // DAY), local % DAY
    factors = {
        "level": made.level,
        "hour": made.hour[clock],
        "weekday": made.weekday[day],
        "part": made.part[(DAY if day >= 5 else 0) + clock],
    }
    factors["cell"] = made.shape[day * DAY + clock] / (factors["hour"] * factors["weekday"] * factors["part"])
    if line.partition(".")[0] in MONTH_STARTERS and month_day(local // DAY) <= 3:
        factors["month"] = MONTH_START_HIGH
    mean = prod(factors.values())
    least = max(LEAST, QUIET * made.level)
    if mean < least:
        factors["least"] = least / mean
    return max(mean, least), factors


def _range(made: Baseline, mean: float, holiday: bool) -> tuple[float, float]:
    """Where 95 % of hours with this mean lie, as detectors reckon it; on a holiday much less is normal, too."""
    least = mean * (HOLIDAY_LOW if holiday else 1.0)
    down, up = (
        float(made.dispersion.variance(np.array(each), np.array(each**2), np.array(12.0), spread))
        + made.error * each**2
        for each, spread in ((least, made.dispersion.down), (mean, made.dispersion.up))
    )
    return max(0.0, least - 2 * sqrt(down)), mean + 2 * sqrt(up)


def _hours(almanac: Almanac, line: str, place: int, said: list[tuple[datetime, datetime]]) -> list[Hour]:
    """The hours at this place of the local week that the baseline was learnt from, the newest first."""
    made = almanac.baselines[line]
    guard = GUARD.get(kind(line), 0) if almanac.closed - almanac.since > SETTLED else 0
    hours, counts, kept, exposure = almanac.counted(line)
    local = almanac.calendar.local(hours)
    age = made.day - local // DAY
    found = []
    for row in np.nonzero((local % (7 * DAY) == place) & (age >= 1) & (age <= DAYS))[0][::-1].tolist():
        at, left_out, guarded = utc(int(hours[row]) * HOUR), exposure[row] == 0, age[row] <= guard
        marked = any(start < at + timedelta(hours=1) and at < end for start, end in said)
        clipped = abs(counts[row] - kept[row]) > RIGHT * max(1.0, counts[row])
        if left_out:
            why = "marked as expected" if marked else "incident"
        else:
            why = "too new" if guarded else "clipped" if clipped else ""
        weight = 0.0 if left_out or guarded else 2.0 ** (-float(age[row]) / HALF_LIFE)
        found.append(Hour(at, float(counts[row]), float(kept[row]), bool(left_out), weight, why))
    return found


def _found(line: str, almanac: Almanac, plan: Plan) -> str:
    """The line that is meant: by its name, or by that of the detector that judges it."""
    known = sorted(almanac.baselines)
    name = getattr(plan.detectors.get(line) or (plan.silence if line == "webhook_silence" else None), "line", line)
    if name in known:
        return name
    of_currencies = [each for each in known if kind(each) == name]
    if len(of_currencies) == 1:
        return of_currencies[0]
    close = get_close_matches(line, known, n=1)
    hint = (
        f'Did you mean "{close[0]}"?'
        if close and not of_currencies
        else f"There are {', '.join(of_currencies or known)}."
    )
    return _refuse(f'No line "{line}" has a baseline. {hint}')


def _nothing(conn: Connection, tenant: Tenant, unreadable: bool) -> str:
    """Why there is nothing to tell."""
    mode = "live" if tenant.livemode else "test"
    if unreadable:
        return f"What was learnt of {tenant.account} in {mode} mode is of another release; it is learnt anew tonight."
    known = accounts.active(conn, EVER)
    if tenant in known:
        when = "six hours after its first event at the latest, and at midnight after a new normal"
        return f"Nothing was learnt of {tenant.account} in {mode} mode yet. It is: {when}."
    if tenant.account in LINES:
        return f"{tenant.account} is a line, not an account: billingwatch baseline {DEFAULT_SOURCE} {tenant.account}"
    names = ", ".join(map(_whose, known))
    return f"No event of {tenant.account} in {mode} mode has come yet. Events came of: {names or 'nobody'}."


def _refuse(why: str) -> NoReturn:
    click.echo(why, err=True)
    sys.exit(1)


def _show_lines(tenant: Tenant, almanac: Almanac, hour: int, as_json: bool) -> None:
    found = [learnt(almanac, line, hour) for line in sorted(almanac.baselines)]
    calendar = almanac.calendar
    day = _day(calendar, hour)
    if as_json:
        said = _about(tenant, calendar) | {
            "learnt_from": iso(utc(max(almanac.since, almanac.first) * HOUR)),
            "learnt_until": iso(utc(almanac.closed * HOUR)),
            "day": day.isoformat(),
            "lines": to_builtins(found),
            "rates": {name: each.share for name, each in almanac.rates.items()},
        }
        click.echo(json.dumps(said, indent=2))
        return
    click.echo(f"Expected of {_whose(tenant)} on {WEEKDAYS[day.weekday()]} {day}, and what it was learnt from\n")
    table = Table(box=None, pad_edge=False)
    for title in ("line", "expected", "an hour", "days", "counted", "phi"):
        table.add_column(title, justify="left" if title == "line" else "right", no_wrap=True)
    for each in found:
        level, counted, today = (_told(value, each.currency) for value in (each.level, each.counted, each.today))
        table.add_row(each.line, today, level, f"{each.days:.1f}", counted, f"{each.phi:.2f}")
    Console(highlight=False).print(table)
    shares = ", ".join(f"{name} {_percent(each.share)}" for name, each in almanac.rates.items())
    until = utc(almanac.closed * HOUR).astimezone(ZoneInfo(calendar.zone))
    click.echo(f"\nUsual shares: {shares}.")
    click.echo(f"Learnt until {until:%Y-%m-%d %H:%M %Z}.")


def _show_origin(tenant: Tenant, found: Origin, calendar: Calendar, as_json: bool) -> None:
    local = found.at.astimezone(ZoneInfo(calendar.zone))
    if as_json:
        said = _about(tenant, calendar) | to_builtins(found) | {"at": iso(found.at), "local": local.isoformat()}
        said["hours"] = [to_builtins(each) | {"at": iso(each.at)} for each in found.hours]
        click.echo(json.dumps(said, indent=2))
        return
    click.echo(f"{found.line} of {_whose(tenant)}, {WEEKDAYS[local.weekday()]} {local:%Y-%m-%d %H:%M %Z}, one hour\n")
    level, rest = found.factors["level"], [value for name, value in found.factors.items() if name != "level"]
    terms = [_precise(level, found.currency), *(_precise(value, "") for value in rest)]
    click.echo(f"expected  {_precise(found.expected, found.currency)} = {' x '.join(terms)}")
    for name, term in zip(found.factors, terms, strict=True):
        click.echo(f"{term:>20}  {_factor_words(name, local)}")
    low, high = _told(found.low, found.currency), _told(found.high, found.currency)
    holiday = ", and less than usual: it is a public holiday" if found.holiday else ""
    click.echo(f"\nusually   {low} to {high} (95 % of such hours{holiday})\n")
    table = Table(box=None, pad_edge=False)
    for title in ("learnt from", "counted", "kept", "weight", ""):
        table.add_column(title, justify="left" if title in ("learnt from", "") else "right", no_wrap=True)
    for each in found.hours:
        at = each.at.astimezone(ZoneInfo(calendar.zone))
        counted, kept = (_told(value, found.currency) for value in (each.counted, each.kept))
        why = f"left out: {each.why}" if each.left_out else each.why
        table.add_row(f"{at:%a %Y-%m-%d %H:%M}", counted, kept, f"{each.weight:.2f}", why)
    if found.hours:
        Console(highlight=False).print(table)
    else:
        click.echo("No such hour was seen yet: the factors are what other hours tell.")


def _factor_words(name: str, local: datetime) -> str:
    part, day = "weekends" if local.weekday() >= 5 else "working days", WEEKDAYS[local.weekday()]
    return {
        "level": "an hour, the level of the last two weeks",
        "hour": f"at {local:%H:%M}, with the hours beside it",
        "weekday": f"on a {day}",
        "part": f"at {local:%H:%M} on {part}",
        "cell": f"at {local:%H:%M} on a {day}",
        "month": "on the first three days of a month",
        "least": "no hour is expected to be quieter",
    }[name]


def _whose(tenant: Tenant) -> str:
    return tenant.account + ("" if tenant.livemode else " (test mode)")


def _about(tenant: Tenant, calendar: Calendar) -> dict[str, Any]:
    return {"account": tenant.account, "livemode": tenant.livemode, "time_zone": calendar.zone}


def _day(calendar: Calendar, hour: int) -> date:
    return utc(hour * HOUR).astimezone(ZoneInfo(calendar.zone)).date()


def _currency(line: str) -> str:
    """The currency of a line that there is one of for each, else ""."""
    return line.rpartition(".")[2] if kind(line) != line else ""


def _told(value: float, currency: str) -> str:
    return str(Money(round(value), currency)) if currency else _digits(value)


def _precise(value: float, currency: str) -> str:
    """With four digits at least, so that the product can be checked."""
    value /= 10 ** decimals(currency) if currency else 1
    number = f"{value:.4g}" if value < 1000 else f"{value:,.0f}"
    return f"{number} {currency.upper()}" if currency else number


def _digits(value: float) -> str:
    """As many as mean something."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 1 else f"{value:.1f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
