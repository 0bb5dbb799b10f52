"""Local hours: zones, the hour that comes twice, the hour that never comes."""

from datetime import UTC, date, datetime

import numpy as np
import pytest

from detectors.calendar import Calendar, month_day, ordinal, weekday


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
