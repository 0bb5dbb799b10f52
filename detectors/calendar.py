"""Hours as people of an account live them: its time zone, days, weekdays, holidays. Knows no counts and no clock.

Rollups stand in hours of UTC. In zones that differ by half an hour a local hour begins at half past.
"""

import warnings
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

AFTER_CHANGE = 56  # days: until all that was learnt is of the new time, a rhythm may follow either
YEARS = range(2009, 2041)  # from before Stripe's first events; forecasts reach three days ahead


class UnknownCountryError(ValueError):
    """No public holidays are known for this code; the message says what comes close."""


class Calendar(Struct, frozen=True):
    """An account's time zone and the public holidays that it keeps, as days since 1970-01-01; `country` says whose."""

    zone: str = "UTC"
    holidays: frozenset[int] = frozenset()
    country: str = ""

    def local(self, hours: Ints) -> Ints:
        """UTC hours since the epoch, ascending, as local ones: // 24 is the local day, % 24 the hour of that day.

        The hour that comes twice in autumn comes twice here, the one that spring leaves out is missing.
        """
        if not len(hours):
            return hours
        first, last = int(hours[0]) // 24, int(hours[-1]) // 24
        offsets = np.concatenate([_offsets(self.zone, day) for day in range(first, last + 1)])
        found: Ints = hours + offsets[hours - first * 24]
        return found

    def changed(self, day: int) -> bool:
        """Whether the clocks were changed in the eight weeks before this local day."""
        return _offset(self.zone, day * 24) != _offset(self.zone, (day - AFTER_CHANGE) * 24)


@lru_cache(maxsize=64)
def public_holidays(country: str) -> frozenset[int]:
    """The public holidays of a country, `"DE"`, or a part of it, `"DE-BY"`, as days since 1970-01-01.

    Of the years from 2009 to 2040, as far as they are known: moon-sighted ones end earlier. Raises
    UnknownCountryError.
    """
    import holidays  # large, and needed only where a country is named

    code, _, part = country.partition("-")
    known = holidays.list_supported_countries(include_aliases=True)
    if code not in known:
        raise UnknownCountryError(f'no country "{code}" ({_nearest(code)})')
    if part and part not in known[code]:
        parts = f"there are {', '.join(known[code])}" if known[code] else f"{code} stands for all of it"
        raise UnknownCountryError(f'{code} has no part "{part}" ({parts})')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # years before a country's first or after its last known ones
        found = holidays.country_holidays(code, subdiv=part or None, years=YEARS)
    return frozenset(ordinal(day) for day in found)


def _nearest(code: str) -> str:
    """What may have been meant: people write a country's name, or its code in lower case."""
    from holidays.registry import COUNTRIES

    codes = {name.replace("_", " "): found[1] for name, found in COUNTRIES.items()}
    codes |= {found.lower(): found for found in codes.values()}
    close = get_close_matches(code.lower(), codes, n=1, cutoff=0.75)
    return f'did you mean "{codes[close[0]]}"?' if close else 'a code of ISO 3166, as "DE" or "DE-BY"'


def weekday(day: int) -> int:
    """0 for Monday; `day` counts from 1970-01-01, a Thursday."""
    return (day + 3) % 7


def weekdays(days: Ints) -> Ints:
    """The same for many days."""
    found: Ints = (days + 3) % 7
    return found


def month_day(day: int) -> int:
    """1 to 31."""
    return (date(1970, 1, 1) + timedelta(days=day)).day


def ordinal(moment: date) -> int:
    """Days since 1970-01-01."""
    return (moment - date(1970, 1, 1)).days


@lru_cache(maxsize=4096)
def _offsets(zone: str, day: int) -> Ints:
    """The zone's offset in whole hours at each of the 24 hours of a UTC day."""
    start, end = _offset(zone, day * 24), _offset(zone, day * 24 + 24)
    if start == end:
        return np.full(24, start, np.int64)
    return np.array([_offset(zone, day * 24 + hour) for hour in range(24)], np.int64)


def _offset(zone: str, hour: int) -> int:
    moment = datetime.fromtimestamp(hour * 3600, UTC)
    return int((moment.astimezone(ZoneInfo(zone)).utcoffset() or timedelta()) // timedelta(hours=1))
