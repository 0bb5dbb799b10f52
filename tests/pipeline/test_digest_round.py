"""Digests on a real store: what was recorded stands in them, each is staged once, and the picture is one."""

import json
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from msgspec.structs import replace
from psycopg import Connection
from redis import Redis

from billingwatch.cli.digest import digest as command
from billingwatch.model import OWN, Money
from billingwatch.picture import squeezed
from billingwatch.store import incidents
from detectors.registry import configure
from notify.digest import Digest, read, slots, span
from notify.policy import DigestTimes, Policy
from notify.route import Route
from tests.factories import arrived, failed, incident, paid, refunded
from tests.pipeline.command import isolate
from tests.pure.test_digest import BERLIN, DAY, FULL
from worker import digest
from worker.desk import Desk
from worker.digest_picture import LARGEST, digest_picture
from worker.process import Process
from worker.record import record

MIDNIGHT = datetime(2026, 3, 8, 23, tzinfo=UTC)  # of Monday the 9th in Berlin
MORNING = datetime(2026, 3, 10, 7, tzinfo=UTC)  # 08:00 of Tuesday
HOUR = timedelta(hours=1)
WEEK = timedelta(days=7)
ZONED = configure({"time_zone": "Europe/Berlin", "accounts": {"shop": {"time_zone": "Asia/Kolkata"}}})[0]
ROUTES = (Route(name="shop", matchers={"account": ("shop",)}, channels=("shop",)), Route(channels=("ops", "mail")))
DAILY = Policy(routes=ROUTES, digest=DigestTimes(daily=datetime(2026, 1, 1, 8).time(), accounts=("shop",)))  # noqa: DTZ001


def desk(policy: Policy = DAILY) -> Desk:
    return Desk({}, policy, ZONED)


def staged(conn: Connection) -> list[tuple[str, Digest]]:
    rows = conn.execute("SELECT channel, content FROM alerts WHERE reason = 'digest' AND incident IS NULL ORDER BY id")
    return [(channel, read(content)) for channel, content in rows]


def seconds(moment: datetime) -> int:
    return int(moment.timestamp())


@pytest.fixture
def monday(conn: Connection, process: Process) -> Connection:
    """A store with Monday's events in Berlin, some of the Monday before, and others beside them."""
    early, late = seconds(MIDNIGHT), seconds(MIDNIGHT + 23 * HOUR)
    told = [paid(early), paid(early + 60, amount=100), paid(late), failed(late), refunded(late)]
    told += [paid(early - 1), paid(seconds(MIDNIGHT + 24 * HOUR))]  # Sunday's and Tuesday's
    told += [paid(seconds(MIDNIGHT - WEEK)), refunded(seconds(MIDNIGHT - WEEK + 5 * HOUR))]
    record(conn, arrived(told), MORNING, process.plans.filters)
    return conn


def test_digest_counts_what_was_recorded_on_its_day_and_a_week_before(monday: Connection, redis: Redis) -> None:
    found = digest.collect(monday, "daily", DAY, "", BERLIN, MORNING, redis)
    figures = {each.name: each for each in found.figures}
    payments, refunds, rate = figures["payments"], figures["refunds"], figures["failed first attempts"]
    assert (payments.count, payments.amounts) == (3, (Money(5900, "usd"),))
    assert (payments.before, payments.amounts_before) == (1, (Money(2900, "usd"),))
    assert (refunds.count, refunds.before) == (1, 1)
    assert (rate.count, rate.out_of, rate.before, rate.out_of_before) == (1, 4, 0, 1)
    series = {each.name: each for each in found.series}
    assert series["payments"].values == (2.0, *[0.0] * 22, 1.0)
    assert series["failed first attempts"].values == (0.0, *[None] * 22, 0.5)
    assert series["refunds"].before == (*[0.0] * 5, 1.0, *[0.0] * 18)
    assert (found.watch.stored, found.watch.held, found.watch.away) == (5, 0, False)
    assert found.watch.missing == ("alerts", "evaluate", "events")
    assert digest.collect(monday, "daily", DAY, "", BERLIN, MORNING, redis, livemode=False).watch.stored == 0


def test_weekly_digest_counts_by_day_and_ends_before_today(monday: Connection) -> None:
    found = digest.collect(monday, "weekly", DAY, "", BERLIN, MORNING)
    payments = next(each for each in found.series if each.name == "payments")
    assert payments.values == (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 3.0)
    assert payments.before == (0.0,) * 6 + (1.0,)


def test_digest_lists_what_is_open_and_what_was_open_on_its_day(conn: Connection) -> None:
    def opened(scope: str, opened_at: datetime, **changes: Any) -> None:
        assert incidents.open_incident(conn, incident(scope=scope, opened_at=opened_at, **changes)) is not None

    over: dict[str, Any] = {"state": "resolved"}
    opened("old", MIDNIGHT - 5 * HOUR, resolved_at=MIDNIGHT - HOUR, **over)
    opened("ended", MIDNIGHT - 5 * HOUR, resolved_at=MIDNIGHT + HOUR, **over)
    opened("night", MIDNIGHT + 24 * HOUR, resolved_at=MIDNIGHT + 25 * HOUR, **over)
    opened("open", MIDNIGHT + 2 * HOUR)
    opened("new", MIDNIGHT + 26 * HOUR)
    opened("own", MIDNIGHT, tenant=OWN)
    conn.execute(
        "INSERT INTO accounts (account, livemode, first_event, newest_event, newest_received) "
        "VALUES ('default', true, %(at)s, %(at)s, %(at)s)",
        {"at": MIDNIGHT},
    )
    found = digest.collect(conn, "daily", DAY, "", BERLIN, MORNING)
    assert [each.scope for each in found.open] == ["own", "open", "new"]
    assert [each.scope for each in found.over] == ["ended"]
    assert (found.opened, found.open_count, found.over_count) == (2, 3, 1)
    alone = digest.collect(conn, "daily", DAY, "default", BERLIN, MORNING)
    assert [each.scope for each in alone.open] == ["open", "new"]


@pytest.mark.usefixtures("monday")
def test_digest_is_staged_once_for_each_channel_at_its_time(conn: Connection) -> None:
    incidents.open_incident(conn, incident(opened_at=MIDNIGHT))
    assert digest.run_once(conn, desk(), MORNING - timedelta(seconds=30)) == 0
    assert digest.run_once(conn, desk(), MORNING) == 2
    assert digest.run_once(conn, desk(), MORNING + timedelta(seconds=30)) == 0
    found = staged(conn)
    assert [channel for channel, _ in found] == ["ops", "mail"]
    assert found[0][1] == found[1][1]
    assert (found[0][1].zone, found[0][1].span) == ("Europe/Berlin", span("daily", DAY, BERLIN))
    incidents.open_incident(conn, incident(opened_at=MIDNIGHT, scope="x"))
    assert digest.run_once(conn, desk(), MORNING + 24 * HOUR) == 2


def test_account_has_a_digest_of_its_own_in_its_own_zone(conn: Connection) -> None:
    always = replace(DAILY, digest=replace(DAILY.digest, always=True))
    kolkata = datetime(2026, 3, 10, 2, 30, tzinfo=UTC)
    assert digest.run_once(conn, desk(always), kolkata - timedelta(seconds=1)) == 0
    assert digest.run_once(conn, desk(always), kolkata) == 1
    ((channel, found),) = staged(conn)
    assert (channel, found.account, found.zone) == ("shop", "shop", "Asia/Kolkata")
    assert found.span.start == datetime(2026, 3, 8, 18, 30, tzinfo=UTC)


def test_nothing_to_say_is_said_only_where_it_was_asked_for(conn: Connection) -> None:
    assert digest.run_once(conn, desk(), MORNING) == 0
    assert staged(conn) == []
    always = replace(DAILY, digest=replace(DAILY.digest, always=True, accounts=()))
    assert digest.run_once(conn, desk(always), MORNING) == 0  # that day's was looked at already
    assert digest.run_once(conn, desk(always), MORNING + 24 * HOUR) == 2


def test_redis_that_is_away_is_told_and_hinders_nothing(conn: Connection, closed_port: int) -> None:
    with Redis.from_url(f"redis://127.0.0.1:{closed_port}/0") as away:
        assert digest.run_once(conn, desk(), MORNING, away) == 3
    assert all(found.watch.away for _, found in staged(conn))


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack_from(">II", png, 16)
    return width, height


def test_picture_shows_what_was_counted_and_is_small() -> None:
    series = [replace(each, values=(1.0,) * 24, before=(2.0,) * 24) for each in FULL.series]
    three = replace(FULL, series=(*series, replace(series[0], name="payments"), replace(series[0], name="x")))
    png = digest_picture(three)
    assert png is not None
    assert len(png) < LARGEST
    width, height = size(png)
    assert width > 800
    assert height > 500
    assert png.endswith(b"IEND\xaeB`\x82")
    assert squeezed(png) == png  # it reads what it wrote
    week = digest_picture(replace(three, kind="weekly", slots=slots("weekly", DAY)))
    assert week is not None
    assert week != png


def test_nothing_is_drawn_of_nothing() -> None:
    assert digest_picture(replace(FULL, series=())) is None
    flat = tuple(replace(each, values=(0.0, None), before=(None, 0.0)) for each in FULL.series)
    assert digest_picture(replace(FULL, series=flat)) is None


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str, redis_url: str) -> Path:
    """A folder in which the command finds the test's servers and two channels."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    (tmp_path / "billingwatch.toml").write_text('[channels]\nops = "json://localhost"\n')
    return tmp_path


@pytest.mark.usefixtures("here")
def test_command_prints_the_digest_and_sends_nothing(conn: Connection) -> None:
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Daily digest, ")
    assert "No incidents." in result.stdout
    assert "BILLINGWATCH ITSELF: NOT WELL\n- 0 events stored, 0 lost; no event ever came" in result.stdout
    assert "no `worker events` runs" in result.stdout
    assert staged(conn) == []


@pytest.mark.usefixtures("here")
def test_command_sends_when_asked_and_prints_json(conn: Connection) -> None:
    result = CliRunner().invoke(command, ["--weekly", "--send", "--json"])
    assert result.exit_code == 0, result.output
    ((channel, found),) = staged(conn)
    assert (channel, found.kind) == ("ops", "weekly")
    assert read(json.loads(result.stdout)) == found
    assert result.stderr == "On its way to ops.\n"


def test_command_draws_the_picture_where_there_is_something(here: Path, conn: Connection, process: Process) -> None:
    assert CliRunner().invoke(command, ["--picture", "a.png"]).exit_code == 1
    yesterday = datetime.now(UTC).replace(hour=12) - timedelta(days=1)
    record(conn, arrived([paid(seconds(yesterday))]), yesterday, process.plans.filters)
    result = CliRunner().invoke(command, ["--picture", "a.png"])
    assert result.exit_code == 0, result.output
    assert size((here / "a.png").read_bytes())[0] > 800


@pytest.mark.usefixtures("here")
def test_command_knows_no_account_without_an_event() -> None:
    result = CliRunner().invoke(command, ["--account", "acct_9"])
    assert result.exit_code == 1
    assert "No event of 'acct_9' was ever stored." in result.stderr
