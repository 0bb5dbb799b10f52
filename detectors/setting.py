"""What a key of the TOML may hold: each kind of value as a reader, and tables of keys with their readers.

Every mistake is told by its place. No value is repeated that may be an address, since addresses hold secrets.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any
from zoneinfo import available_timezones

from detectors.calendar import public_holidays

Wrong = dict[str, str]  # what is wrong, with a hint, by place: "detectors.refund_spike.factor"
Reader = Callable[[Any], Any]  # what a value means; raises ValueError with what is wrong and a hint

SENSITIVITIES = {"notice": 6.5, "page": 7.2, "quiet": 8.0, "strict": 10.0}
HOUR, DAY = 12, 288  # bins of 5 minutes
_UNITS = {"m": 1 / 5, "h": HOUR, "d": DAY}


def read(table: Mapping[str, Any], place: str, readers: Mapping[str, Reader], wrong: Wrong) -> dict[str, Any]:
    """What the table sets, key by key; a key that is unknown or wrong is told and left out."""
    found = {}
    for key, value in table.items():
        where = f"{place}.{key}" if place else key
        if key not in readers:
            wrong[where] = f"unknown key ({meant(key, readers) or listed(readers)})"
            continue
        try:
            found[key] = readers[key](value)
        except ValueError as error:
            wrong[where] = str(error)
    return found


def tables(value: Any, place: str, wrong: Wrong) -> dict[str, Mapping[str, Any]]:
    """The sections `[place.NAME]` by name."""
    if not isinstance(value, Mapping):
        wrong[place] = f"expected sections, not {shown(value)} (as [{place}.NAME])"
        return {}
    found = {}
    for name, table in value.items():
        if isinstance(table, Mapping):
            found[name] = table
        else:
            wrong[f"{place}.{name}"] = f"expected a section, not {shown(table)} (as [{place}.{name}])"
    return found


def number(least: float = 0.0, most: float = inf) -> Reader:
    def reader(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
            raise ValueError(f"expected a number, not {shown(value)}")
        if not least <= value <= most:
            raise ValueError(
                f"{value:g} does not do ({least:g} to {most:g})" if most < inf else f"{value:g} is below 0"
            )
        return float(value)

    return reader


def sensitivity(value: Any) -> float:
    """A number, or the name of one."""
    names = ", ".join(f'"{name}" ({score:g})' for name, score in SENSITIVITIES.items())
    if isinstance(value, str):
        if value not in SENSITIVITIES:
            raise ValueError(f"no sensitivity {shown(value)} ({meant(value, SENSITIVITIES) or names})")
        return SENSITIVITIES[value]
    found: float = number(3, 50)(value)
    return found


def span(most: int) -> Reader:
    """Of time, as bins of 5 minutes."""

    def reader(value: Any) -> int:
        match = re.fullmatch(r"([0-9]{1,6})([mhd])", value) if isinstance(value, str) else None
        if not match:
            raise ValueError(f'expected a span, not {shown(value)} (as "15m", "1h" or "3d")')
        bins = int(match[1]) * _UNITS[match[2]]
        if not 1 <= bins <= most or (match[2] == "m" and int(match[1]) % 5):
            raise ValueError(f'"{value}" does not do (multiples of 5 minutes, {spelled(most)} at most)')
        return round(bins)

    return reader


def spans(most: int) -> Reader:
    """A list of them, as ascending bins."""

    def reader(value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not value:
            raise ValueError('expected a list of spans (as ["15m", "1h", "3d"])')
        return tuple(sorted({span(most)(each) for each in value}))

    return reader


def spelled(bins: int) -> str:
    """A span as it is written: `"15m"`, `"24h"`, `"3d"`."""
    if bins > DAY and bins % DAY == 0:
        return f"{bins // DAY}d"
    return f"{bins // HOUR}h" if bins % HOUR == 0 else f"{bins * 5}m"


def choice(*choices: str | bool) -> Reader:
    def reader(value: Any) -> Any:
        # 1 equals true, and 0 false, which nobody meant.
        if not any(type(value) is type(each) and value == each for each in choices):
            known = f"one of {', '.join(map(shown, choices))}"
            hint = meant(value, [each for each in choices if isinstance(each, str)]) or known
            raise ValueError(f"expected {known}, not {shown(value)} ({hint})" if hint != known else f"expected {known}")
        return value

    return reader


def text(pattern: str, example: str) -> Reader:
    """A text of this shape; "" stands for any."""

    def reader(value: Any) -> str:
        if not isinstance(value, str) or (value and not re.fullmatch(pattern, value)):
            raise ValueError(f'{shown(value)} does not do (as "{example}", or "" for any)')
        return value

    return reader


def texts(value: Any) -> tuple[str, ...]:
    """A text or a list of them; "" stands for any."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise ValueError('expected a text or a list of them (as "checkout")')
    return tuple(each for each in found if each)


def zone(value: Any) -> str:
    """A time zone of the IANA's list."""
    zones = available_timezones()
    if not isinstance(value, str) or value not in zones:
        raise ValueError(f"no time zone {shown(value)} ({meant(value, zones) or 'as Europe/Berlin'})")
    return value


def country(value: Any) -> str:
    """One whose holidays are known, `"DE"`, or a part of it, `"DE-BY"`; "" for none."""
    code: str = text("[^:]{2,40}", "DE-BY")(value)
    if code:
        public_holidays(code)
    return code


def one_of(known: Collection[str], what: str) -> Reader:
    """A text among many."""

    def reader(value: Any) -> str:
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"no {what} {shown(value)} ({meant(value, known) or listed(known)})")
        return value

    return reader


def meant(value: Any, known: Collection[str]) -> str:
    """A hint at what comes close, "" where nothing does."""
    close = get_close_matches(value, known, n=1) if isinstance(value, str) else []
    return f'did you mean "{close[0]}"?' if close else ""


def listed(known: Collection[str]) -> str:
    """The same where nothing comes close."""
    return f"known: {', '.join(known)}"


def shown(value: Any) -> str:
    """A value as it stands in the file; an address, a long text or a table only by what it is."""
    if isinstance(value, str):
        return "an address" if ":" in value else json.dumps(value, ensure_ascii=False) if len(value) < 60 else "a text"
    if isinstance(value, bool | int | float):
        return str(value).lower()
    return "a list" if isinstance(value, list) else "a section" if isinstance(value, Mapping) else "a date"
