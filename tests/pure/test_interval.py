"""Parts of the week: what they hold, when they are over, by the clocks of a zone that changes them."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify.interval import read

YEAR = datetime(2026, 1, 1)  # noqa: DTZ001 - hypothesis wants it naive
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


@pytest.mark.parametrize(
    ("text", "moment", "inside"),
    [
        ("22:00-07:00", "2026-11-25T21:59", False),
        ("22:00-07:00", "2026-11-25T22:00", True),
        ("22:00-07:00", "2026-11-26T06:59", True),
        ("22:00-07:00", "2026-11-26T07:00", False),
        ("fri 22:00-07:00", "2026-11-28T06:00", True),  # Saturday morning belongs to Friday
        ("fri 22:00-07:00", "2026-11-27T06:00", False),
        ("sat-sun", "2026-11-28T00:00", True),
        ("sat-sun", "2026-11-29T23:59", True),
        ("sat-sun", "2026-11-30T00:00", False),
        ("sun-mon", "2026-11-30T12:00", True),
        ("mon-fri 09:00-17:00, sat", "2026-11-28T20:00", True),
        ("MON 00:00-24:00", "2026-11-30T23:59", True),
    ],
)
def test_what_is_inside(text: str, moment: str, inside: bool) -> None:
    assert read(text).holds(at(moment), BERLIN) is inside


@pytest.mark.parametrize(
    ("text", "moment", "over"),
    [
        ("22:00-07:00", "2026-11-25T23:00", "2026-11-26T07:00"),
        ("sat-sun", "2026-11-28T12:00", "2026-11-30T00:00"),
        ("mon-fri 22:00-07:00, sat-sun", "2026-11-27T23:00", "2026-11-30T00:00"),
        ("sat-sun, mon 00:00-08:00", "2026-11-28T12:00", "2026-11-30T08:00"),
        ("00:00-04:00", "2026-10-25T01:00", "2026-10-25T04:00"),  # the clock is set back at 3
        ("22:00-03:30", "2026-03-29T01:00", "2026-03-29T03:30"),
        ("22:00-02:30", "2026-03-29T01:00", "2026-03-29T03:00"),  # there is no half past two
    ],
)
def test_when_it_is_over(text: str, moment: str, over: str) -> None:
    assert read(text).over(at(moment), BERLIN) == at(over).astimezone(UTC)


def test_what_is_always_so_is_never_over() -> None:
    assert read("mon-sun").over(at("2026-11-25T12:00"), BERLIN) is None


@given(
    st.sampled_from(["22:00-07:00", "sat-sun", "mon-fri 12:00-13:30", "sun 20:00-02:15", "fri-mon 23:00-01:00, wed"]),
    st.datetimes(YEAR, YEAR + timedelta(days=364)),
)
def test_it_is_over_at_the_first_minute_outside(text: str, moment: datetime) -> None:
    times, start = read(text), moment.replace(second=0, microsecond=0, tzinfo=UTC)
    end = times.over(start, BERLIN)
    assert end is not None
    minutes = (start + timedelta(minutes=step) for step in range(8 * 24 * 60))
    if times.holds(start, BERLIN):
        assert end == next(minute for minute in minutes if not times.holds(minute, BERLIN))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is no part of the week"),
        ("foo", "are no days"),
        ("mon-foo", "are no days"),
        ("mon 25:00-26:00", "00:00 to 24:00"),
        ("mon 22:00", "are no hours"),
        ("07:00-07:00", "begin when they end"),
        ("mon tue 10:00-11:00", "is no part of the week"),
    ],
)
def test_what_is_no_part_of_the_week_is_told(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        read(text)
