"""What is expected is told as the product it is, as evaluations reckon it, with the hours that it was learnt from."""

import json
import re
from datetime import UTC, datetime, timedelta
from functools import partial
from math import prod
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from psycopg import Connection

from billingwatch.cli.baseline import origin
from billingwatch.model import Tenant
from billingwatch.store import accounts, baselines, markers
from billingwatch.store.accounts import Account
from billingwatch.store.markers import Marker
from detectors import facts
from detectors.almanac import Almanac
from detectors.calendar import Calendar, ordinal
from detectors.catalogue import LINES
from detectors.forecast import AHEAD, BACK, draw
from detectors.sheet import BINS, Sheet
from tests.factories import LIVE, TEST
from tests.pipeline import command
from tests.pipeline.command import isolate

ZONE = "Europe/Berlin"
BERLIN = ZoneInfo(ZONE)
BEGIN = datetime(2026, 3, 2, tzinfo=BERLIN)  # a Monday, weeks before the clocks change
DAYS = 27
CLOSED = datetime(2026, 3, 29, tzinfo=BERLIN)  # a Sunday, at whose second hour they change
OUTAGE = datetime(2026, 3, 17, 10, tzinfo=BERLIN)  # a Tuesday
SALE = datetime(2026, 3, 10, 10, tzinfo=BERLIN)  # another
SPIKE = datetime(2026, 3, 24, 10, tzinfo=BERLIN)  # another
HOUR = timedelta(hours=1)
TOML = f'time_zone = "{ZONE}"\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> None:
    """This test's database, an account in Berlin, and a wide terminal."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "billingwatch.toml").write_text(TOML)


run, succeed = partial(command.run, "baseline"), partial(command.succeed, "baseline")


def said(*arguments: str) -> Any:
    """What the command says to programs."""
    return json.loads(succeed(*arguments, "--json"))


def hour_of(moment: datetime) -> int:
    return int(moment.timestamp()) // 3600


def counted(calendar: Calendar) -> Sheet:
    """Four weeks: refunds in working hours, cancellations by day, sales in yen and dinars around the clock."""
    first = hour_of(BEGIN)
    sheet = Sheet(LINES, first, hour_of(CLOSED) - first + BACK)
    hours = np.arange(first, hour_of(CLOSED))
    local = calendar.local(hours)
    busy = ((local // 24 + 3) % 7 < 5) & (local % 24 >= 9) & (local % 24 < 17)
    refunds = np.where(busy, 3, 0) + (hours % 5 == 0)
    refunds[hours == hour_of(SPIKE)] = 60
    day = np.where((local % 24 >= 8) & (local % 24 < 22), 2, 0)
    sheet.add(facts.REFUND, "", "usd", hours * 3600, refunds, refunds * 2900)
    sheet.add(facts.CANCELED, facts.VOLUNTARY, "", hours * 3600, day, day * 0)
    sales = 40 + hours % 3
    sheet.add(facts.PAYMENT_SUCCEEDED, facts.CHECKOUT, "jpy", hours * 3600, sales, sales * 5_000)
    sheet.add(facts.PAYMENT_SUCCEEDED, facts.CHECKOUT, "kwd", hours * 3600, sales, sales * 12_345)
    return sheet


def study(calendar: Calendar) -> Almanac:
    almanac, sheet = Almanac(calendar, hour_of(BEGIN)), counted(calendar)
    outage, sale = ((int(at.timestamp()), int((at + HOUR).timestamp())) for at in (OUTAGE, SALE))
    for day in range(1, DAYS + 1):
        almanac.close(hour_of(BEGIN) + 24 * day, sheet, (outage,), (sale,))
    return almanac


@pytest.fixture(scope="module")
def almanac() -> Almanac:
    """What was learnt of four weeks."""
    return study(Calendar(ZONE))


@pytest.fixture
def learnt(conn: Connection, almanac: Almanac) -> None:
    """The default account was learnt last night, and somebody had announced the sale."""
    accounts.touch(conn, Account(LIVE, BEGIN, CLOSED, CLOSED))
    forecast = msgspec.msgpack.encode(almanac.forecast())
    baselines.write(conn, LIVE, CLOSED, forecast, almanac.pack())
    markers.add(
        conn,
        Marker(tenant=LIVE, kind="expected", starts_at=SALE, ends_at=SALE + HOUR, text="sale", who="ada"),
    )


# --- the table --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("learnt")
def test_table_tells_what_each_line_was_learnt_from_and_what_the_day_will_bring() -> None:
    found = said("--at", "2026-03-28T12:00+01:00")
    assert found.items() >= {"account": "default", "livemode": True, "time_zone": ZONE, "day": "2026-03-28"}.items()
    assert (found["learnt_from"], found["learnt_until"]) == ("2026-03-01T23:00:00Z", "2026-03-28T23:00:00Z")
    lines = {each["line"]: each for each in found["lines"]}
    assert {"refund", "cancel", "revenue.jpy", "revenue.kwd"} <= lines.keys()
    cancel, yen = lines["cancel"], lines["revenue.jpy"]
    assert cancel["days"] == pytest.approx(DAYS - 1 - 2 / 24)  # the newest day is guarded, two hours are left out
    assert cancel["today"] == pytest.approx(28, rel=0.15)
    assert cancel["level"] == pytest.approx(28 / 24, rel=0.05)
    assert cancel["phi"] > 1
    assert (yen["currency"], cancel["currency"]) == ("jpy", "")
    assert yen["level"] == pytest.approx(41 * 5_000, rel=0.05)
    assert found["rates"]["checkout"] < 0.06
    shown = run("--at", "2026-03-28T12:00+01:00").stdout
    assert "Expected of default on Saturday 2026-03-28" in shown
    assert re.search(r"revenue\.kwd +12,[0-9.]{7} KWD +50[0-9]\.[0-9]{3} KWD", shown)
    assert re.search(r"revenue\.jpy +4,9[0-9,]{6} JPY +20[0-9],[0-9]{3} JPY", shown)
    assert "Learnt until 2026-03-29 00:00 CET." in shown


@pytest.mark.usefixtures("learnt")
def test_day_on_which_the_clocks_are_changed_has_an_hour_less() -> None:
    def today(at: str) -> float:
        lines = {each["line"]: each["today"] for each in said("--at", at)["lines"]}
        found: float = lines["revenue.jpy"]
        return found

    assert today("2026-03-29T12:00+02:00") / today("2026-04-05T12:00+02:00") == pytest.approx(23 / 24, rel=0.02)


# --- one hour ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["refund", "cancel", "revenue.jpy", "revenue.kwd", "any"])
@pytest.mark.usefixtures("learnt")
def test_equation_can_be_checked_by_hand(line: str) -> None:
    shown = run("default", line, "--at", "2026-03-31T10:20+02:00").stdout
    equation = re.search(r"^expected  ([0-9.,e-]+)(?: [A-Z]{3})? = (.*)$", shown, re.MULTILINE)
    assert equation
    numbers = [float(each.replace(",", "")) for each in re.findall(r"[0-9.,]+(?:e-[0-9]+)?", equation[2])]
    assert len(numbers) >= 5
    assert prod(numbers) == pytest.approx(float(equation[1].replace(",", "")), rel=3e-3)
    assert "Tuesday 2026-03-31 10:00 CEST" in shown


@pytest.mark.parametrize("line", ["refund", "cancel", "revenue.kwd", "success"])
def test_what_is_told_is_what_evaluations_hold_against(almanac: Almanac, line: str) -> None:
    last = hour_of(CLOSED) + AHEAD - 1
    strip = draw(almanac.forecast(), later(last), almanac.calendar, last, since=0)
    mid = strip.lines[line].mid[0]
    for hour in range(hour_of(CLOSED), last):
        place = (hour - strip.start // 3600) * BINS
        live = float(mid[place + BINS] - mid[place]) * strip.lines[line].unit
        assert origin(almanac, line, hour).expected == pytest.approx(live)


def later(last: int) -> Sheet:
    """The counts of the four days until this hour, in which hardly anything happened."""
    sheet = Sheet(LINES, last - 100, 101)
    for currency in ("jpy", "kwd"):
        sheet.add(facts.PAYMENT_SUCCEEDED, facts.CHECKOUT, currency, last * 3600, 1, 1)
    return sheet


@pytest.mark.usefixtures("learnt")
def test_hours_that_it_came_from_are_told_with_what_became_of_each() -> None:
    found = said("default", "refund", "--at", "2026-03-31T10:59+02:00")
    assert (found["at"], found["local"]) == ("2026-03-31T08:00:00Z", "2026-03-31T10:00:00+02:00")
    spike, outage, sale, plain = found["hours"]
    days = [datetime.fromisoformat(each["at"]).astimezone(BERLIN) for each in found["hours"]]
    assert days == [SPIKE, OUTAGE, SALE, datetime(2026, 3, 3, 10, tzinfo=BERLIN)]
    assert (spike["counted"], spike["left_out"], spike["why"]) == (60, False, "clipped")
    assert 3 < spike["kept"] < 30
    assert spike["weight"] == pytest.approx(2 ** (-5 / 28), abs=1e-3)
    assert (outage["left_out"], outage["weight"], outage["why"]) == (True, 0, "incident")
    assert (sale["left_out"], sale["weight"], sale["why"]) == (True, 0, "marked as expected")
    assert (plain["counted"], plain["kept"], plain["why"]) == (3, 3, "")
    shown = run("default", "refund", "--at", "2026-03-31T10:59+02:00").stdout
    assert re.search(r"Tue 2026-03-24 10:00 +60 +[0-9.]+ +0\.88 +clipped", shown)
    assert re.search(r"Tue 2026-03-17 10:00 +[34] +[0-9.]+ +0\.00 +left out: incident", shown)


@pytest.mark.usefixtures("learnt")
def test_newest_day_of_refunds_is_too_new_to_be_learnt_from() -> None:
    newest, *older = said("default", "refund", "--at", "2026-03-28T10:00+01:00")["hours"]
    assert (newest["weight"], newest["left_out"], newest["why"]) == (0, False, "too new")
    assert [each["weight"] > 0 for each in older] == [True] * 3
    assert said("default", "success", "--at", "2026-03-28T10:00+01:00")["hours"][0]["weight"] > 0


@pytest.mark.usefixtures("learnt")
def test_range_holds_what_is_expected_and_what_was_counted_on_most_such_hours() -> None:
    found = said("default", "cancel", "--at", "2026-03-25T12:00+01:00")
    assert found["low"] < found["expected"] < found["high"]
    assert all(found["low"] <= each["counted"] <= found["high"] for each in found["hours"])


@pytest.mark.usefixtures("learnt")
def test_first_days_of_a_month_are_a_factor_of_cancellations_alone() -> None:
    first, fourth = (said("default", "cancel", "--at", f"2026-04-0{day}T12:00+02:00") for day in (1, 4))
    assert first["factors"]["month"] == 2.2
    assert "month" not in fourth["factors"]
    assert "month" not in said("default", "refund", "--at", "2026-04-01T12:00+02:00")["factors"]
    assert "on the first three days of a month" in run("default", "cancel", "--at", "2026-04-01T12:00+02:00").stdout


def test_on_a_holiday_much_less_is_normal() -> None:
    friday = datetime(2026, 4, 3, 12, tzinfo=BERLIN)
    plain, kept = (
        origin(study(Calendar(ZONE, holidays)), "success", hour_of(friday))
        for holidays in (frozenset[int](), frozenset({ordinal(friday.date())}))
    )
    assert (plain.holiday, kept.holiday) == (False, True)
    assert kept.low < plain.low
    assert (kept.expected, kept.high) == pytest.approx((plain.expected, plain.high))


@pytest.mark.usefixtures("learnt")
def test_line_is_found_by_its_detector(almanac: Almanac) -> None:
    assert said("default", "refund_spike", "--at", "2026-03-31T10:00Z")["line"] == "refund"
    assert said("default", "webhook_silence", "--at", "2026-03-31T10:00Z")["line"] == "any"
    two = run("default", "revenue_drop")
    assert (two.exit_code, two.stderr) == (
        1,
        'No line "revenue_drop" has a baseline. There are revenue.jpy, revenue.kwd.\n',
    )


# --- nothing to tell --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("learnt")
def test_what_is_not_there_is_told_with_what_is() -> None:
    assert 'Did you mean "refund"?' in run("default", "refunds").stderr
    assert "refund is a line, not an account: billingwatch baseline default refund" in run("refund").stderr
    assert run("acct_9").stderr == "No event of acct_9 in live mode has come yet. Events came of: default.\n"
    assert "No event of default in test mode" in run("--test-mode").stderr
    assert [run(*each).exit_code for each in (["default", "refunds"], ["refund"], ["acct_9"])] == [1, 1, 1]
    assert run("default", "refund", "--at", "yesterday").exit_code == 2


def test_account_that_is_too_young_is_told_when_it_will_be_learnt(conn: Connection) -> None:
    accounts.touch(conn, Account(TEST, BEGIN, BEGIN, BEGIN))
    assert "Nothing was learnt of default in test mode yet" in run("--test-mode").stderr
    empty = Almanac(Calendar(ZONE), hour_of(BEGIN)).pack()
    baselines.write(conn, TEST, BEGIN, b"", empty)
    assert "Nothing was learnt of default in test mode yet" in run("--test-mode").stderr


def test_archive_of_another_release_is_told_apart(conn: Connection) -> None:
    tenant = Tenant("acct_1", True)
    accounts.touch(conn, Account(tenant, BEGIN, BEGIN, BEGIN))
    baselines.write(conn, tenant, datetime(2026, 3, 2, tzinfo=UTC), b"", b"of another release")
    result = run("acct_1")
    assert (result.exit_code, "is of another release" in result.stderr) == (1, True)
