"""What is learnt at midnight: when it is time to, what is left out, in which units, and that bytes hold all of it."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from detectors.almanac import Almanac, nights
from detectors.calendar import Calendar
from detectors.catalogue import LINES
from detectors.forecast import BACK, HOUR, draw
from detectors.sheet import BINS, Sheet
from detectors.strip import BIN

SINCE = 496_728  # 2026-09-01, midnight in UTC
DAY = 24
UTC = Calendar()


def hour(text: str, zone: str = "UTC") -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()) // HOUR


def counted(days: int, *, rate: float = 20.0, money: float = 2900.0, seed: int = 1) -> Sheet:
    """So many payments an hour by day, a fifth of it by night, at a mean price; a few renewals lost."""
    rng = np.random.default_rng(seed)
    sheet = Sheet(LINES, SINCE, days * DAY)
    hours = np.arange(days * DAY)
    rates = np.where((hours % DAY >= 8) & (hours % DAY < 20), rate, rate / 5) / BINS
    counts = rng.poisson(np.repeat(rates, BINS))
    amounts = np.array([int(rng.lognormal(np.log(money), 0.5, n).sum()) for n in counts])
    starts = SINCE * HOUR + np.arange(len(counts)) * BIN
    some = counts > 0
    for metric, stratum, currency in (("payment.succeeded", "checkout", "usd"), ("object.any", "people", "")):
        sheet.add(metric, stratum, currency, starts[some], counts[some], amounts[some])
    return sheet


def learnt(sheet: Sheet, days: int, **left_out: tuple[tuple[int, int], ...]) -> Almanac:
    almanac = Almanac(UTC, SINCE)
    for night in nights(UTC, SINCE, SINCE, SINCE + days * DAY):
        almanac.close(night, sheet, left_out.get("left_out", ()), left_out.get("unseen", ()))
    return almanac


@pytest.mark.parametrize(
    ("zone", "after", "until", "found"),
    [
        ("UTC", "2026-10-20T05", "2026-10-22T05", ["2026-10-21T00", "2026-10-22T00"]),
        ("America/New_York", "2026-10-20T05", "2026-10-21T05", ["2026-10-21T00"]),
        # The clocks go back on the 25th and a day has 25 hours; on 2026-03-29 one had 23.
        ("Europe/Berlin", "2026-10-24T12", "2026-10-26T12", ["2026-10-25T00", "2026-10-26T00"]),
        ("Europe/Berlin", "2026-03-28T12", "2026-03-30T12", ["2026-03-29T00", "2026-03-30T00"]),
        ("UTC", "2026-10-21T00", "2026-10-21T23", []),
    ],
)
def test_a_day_ends_at_the_account_s_own_midnight(zone: str, after: str, until: str, found: list[str]) -> None:
    due = nights(Calendar(zone), hour("2026-01-01"), hour(after, zone), hour(until, zone))
    assert due == [hour(each, zone) for each in found]


def test_a_new_account_is_learnt_every_six_hours_for_a_week() -> None:
    assert nights(UTC, SINCE, SINCE, SINCE + 24) == [SINCE + 6, SINCE + 12, SINCE + 18, SINCE + 24]
    assert nights(UTC, SINCE, SINCE + 7 * DAY, SINCE + 8 * DAY) == [SINCE + 8 * DAY]


def test_a_fortnight_tells_day_from_night() -> None:
    forecast = learnt(counted(14), 14).forecast()
    mid = np.array(forecast.lines["any"].mid)[BACK : BACK + DAY]
    assert mid[10:18].mean() == pytest.approx(20, rel=0.15)
    assert mid[0:6].mean() == pytest.approx(4, rel=0.4)
    assert (forecast.since, forecast.closed) == (SINCE, SINCE + 14 * DAY)


def test_what_is_left_out_teaches_nothing() -> None:
    sheet = counted(14)
    flood = (SINCE + 10 * DAY) * HOUR
    for place in range(6 * BINS):
        sheet.add("object.any", "people", "", flood + place * BIN, 50, 0)
    usual = learnt(counted(14), 14).forecast().lines["any"].level
    told = learnt(sheet, 14, left_out=((flood, flood + 6 * HOUR),)).forecast().lines["any"].level
    announced = learnt(sheet, 14, unseen=((flood, flood + 6 * HOUR),)).forecast().lines["any"].level
    assert told == pytest.approx(usual, rel=0.05)
    assert announced == pytest.approx(usual, rel=0.05)
    assert learnt(sheet, 14).forecast().lines["any"].level > 1.01 * usual  # clipped, and yet


@pytest.mark.parametrize("money", [290.0, 29_000.0, 2_900_000.0])
def test_money_is_measured_in_payments_whatever_a_payment_costs(money: float) -> None:
    almanac = learnt(counted(14, money=money), 14)
    line = almanac.forecast().lines["revenue.usd"]
    assert 0.8 * money < line.unit < 4 * money
    assert line.dispersion.phi < 2
    assert line.level * line.unit == pytest.approx(12 * money * 1.13, rel=0.25)


def test_bytes_hold_all_of_it() -> None:
    sheet = counted(12)
    almanac = learnt(sheet, 10)
    again = Almanac.unpack(UTC, almanac.pack())
    assert again is not None
    for each in (almanac, again):
        each.close(SINCE + 11 * DAY, sheet, ())
    assert again.forecast() == almanac.forecast()
    assert Almanac.unpack(UTC, b"something else") is None


def test_learning_the_same_hour_again_changes_nothing() -> None:
    sheet = counted(10)
    almanac = learnt(sheet, 10)
    before = almanac.forecast()
    assert almanac.close(SINCE + 10 * DAY, sheet, ()) == before


def test_the_hours_that_a_baseline_came_from_can_be_asked_for() -> None:
    sheet = counted(10)
    hours, counts, kept, exposure = learnt(sheet, 10).counted("any")
    assert (hours[0], hours[-1]) == (SINCE, SINCE + 10 * DAY - 1)
    assert counts.sum() == sheet.bins["any"].sum()
    assert (kept <= counts + 1e-9).mean() > 0.9
    assert exposure.all()


def test_a_strip_expects_what_was_foretold_and_little_before_the_account_was_there() -> None:
    almanac = learnt(counted(4), 3)
    now = SINCE + 3 * DAY + 12
    shown = Sheet(LINES, now - BACK, BACK + 1)
    strip = draw(almanac.forecast(), shown, UTC, now, since=SINCE)
    expected = np.diff(strip.lines["any"].mid[0]).reshape(-1, BINS).sum(1)
    assert strip.age == 3.5
    assert expected[: SINCE - shown.first].mean() < 0.5
    assert expected[-4:].mean() == pytest.approx(20, rel=0.3)
