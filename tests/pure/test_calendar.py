"""Local hours: zones, the hour that comes twice, the hour that never comes; and the days on which nobody works."""

import subprocess
import sys
from datetime import UTC, date, datetime

import numpy as np
import pytest

from detectors.calendar import Calendar, UnknownCountryError, month_day, ordinal, public_holidays, weekday


def hours_of(day: date, zone: str) -> list[int]:
    """The local hours of day that the UTC hours around this local day fall in."""
    first = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) // 3600 - 24
    local = Calendar(zone).local(np.arange(first, first + 72))
    return [int(each) % 24 for each in local if each // 24 == ordinal(day)]


@pytest.mark.parametrize(
    ("day", "zone", "expected"),
    [
        (date(2026, 6, 1), "Europe/Berlin", list(range(24))),
        (date(2026, 6, 1), "Asia/Tokyo", list(range(24))),
        (date(2026, 3, 29), "Europe/Berlin", [0, 1, *range(3, 24)]),
        (date(2026, 10, 25), "Europe/Berlin", [0, 1, 2, 2, *range(3, 24)]),
        (date(2026, 11, 1), "America/New_York", [0, 1, 1, *range(2, 24)]),
    ],
)
def test_a_local_day_has_its_own_hours(day: date, zone: str, expected: list[int]) -> None:
    assert hours_of(day, zone) == expected


@pytest.mark.parametrize(
    ("day", "changed"), [(date(2026, 3, 28), False), (date(2026, 3, 30), True), (date(2026, 6, 10), False)]
)
def test_the_weeks_after_a_change_of_the_clocks_are_known(day: date, changed: bool) -> None:
    assert Calendar("Europe/Berlin").changed(ordinal(day)) is changed


def test_days_have_their_names() -> None:
    assert weekday(ordinal(date(2026, 11, 23))) == 0
    assert month_day(ordinal(date(2026, 11, 23))) == 23


@pytest.mark.parametrize(
    ("country", "day", "known"),
    [
        ("DE", date(2026, 10, 3), True),
        ("DE", date(2026, 11, 1), False),
        ("DE-BY", date(2026, 11, 1), True),
        ("DE-BY", date(2026, 11, 2), False),
        ("US", date(2026, 11, 26), True),
        ("GB-SCT", date(2026, 11, 30), True),
        ("GB-ENG", date(2026, 11, 30), False),
        ("JP", date(2009, 1, 1), True),
        ("US", date(2040, 7, 4), True),
        ("IN", date(2026, 1, 26), True),
    ],
)
def test_public_holidays_of_a_country_or_a_part_of_it(country: str, day: date, known: bool) -> None:
    assert (ordinal(day) in public_holidays(country)) is known


@pytest.mark.parametrize(
    ("country", "says"),
    [
        ("Germany", 'no country "Germany" (did you mean "DE"?)'),
        ("united kindom", 'no country "united kindom" (did you mean "GB"?)'),
        ("de", 'no country "de" (did you mean "DE"?)'),
        ("XX", 'no country "XX" (a code of ISO 3166, as "DE" or "DE-BY")'),
        ("GB-XX", 'GB has no part "XX" (there are ENG, NIR, SCT, WLS)'),
        ("JP-13", 'JP has no part "13" (JP stands for all of it)'),
        ("", 'no country "" (a code of ISO 3166, as "DE" or "DE-BY")'),
    ],
)
def test_an_unknown_country_is_told_with_what_comes_close(country: str, says: str) -> None:
    with pytest.raises(UnknownCountryError) as caught:
        public_holidays(country)
    assert str(caught.value) == says


def test_nothing_of_holidays_is_loaded_where_no_country_is_named() -> None:
    script = "import sys, detectors.registry as r; r.configure({}); print('holidays' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout == "False\n"
