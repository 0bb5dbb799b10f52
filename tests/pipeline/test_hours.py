"""What the picture of an incident is drawn from: the hours that the rollups hold, and the band its detector sees."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from math import isnan
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg import Connection

from billingwatch.picture import Hours, draw
from billingwatch.simulator.objects import Json
from billingwatch.simulator.stream import Scenario, simulate
from billingwatch.store import accounts, incidents
from billingwatch.store.connection import connect
from detectors.registry import Plans, configure
from notify.policy import Policy
from tests.factories import LIVE, NOON, TEST, arrived, failed, incident, paid, refunded
from worker.evaluate import evaluate
from worker.learn import learn
from worker.picture import SHOWN, read_hours
from worker.record import record

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
PLANS, _ = configure({})
NOW = NOON + timedelta(minutes=22)  # in the middle of an hour, and of 5 minutes


def epoch(moment: datetime) -> int:
    return int(moment.timestamp())


@pytest.fixture(scope="module")
def week() -> list[Json]:
    """Eight quiet days until noon."""
    return list(simulate(Scenario(seed=3, start=epoch(NOON - 8 * DAY), days=8, volume=40)))


def happened(conn: Connection, told: Sequence[Json], now: datetime = NOW, plans: Plans = PLANS) -> None:
    for start in range(0, len(told), 1000):
        record(conn, arrived(told[start : start + 1000]), now, plans.filters)


@pytest.fixture
def learnt(conn: Connection, week: list[Json]) -> None:
    """The account is known."""
    happened(conn, week)
    assert learn(conn, LIVE, NOON, PLANS.of("default"))


def hours_of(conn: Connection, now: datetime = NOW, plans: Plans = PLANS, **fields: Any) -> Hours | None:
    return read_hours(conn, incident(**fields), plans.of("default"), now)


def some(conn: Connection, now: datetime = NOW, plans: Plans = PLANS, **fields: Any) -> Hours:
    found = hours_of(conn, now, plans, **fields)
    assert found is not None
    assert len({len(each) for each in (found.counts, found.middle, found.low, found.high)} | {SHOWN}) == 1
    return found


# By line: the incident's fields, and what of the rollups it counts.
LINES: dict[str, tuple[dict[str, Any], str]] = {
    "refund": ({"detector": "refund_spike"}, "metric = 'refund.created'"),
    "failure": (
        {"detector": "failure_rate"},
        "metric = 'payment.failed' AND stratum IN ('checkout', 'renewal')",
    ),
    "failure.renewal": (
        {"detector": "failure_rate", "scope": "renewal"},
        "metric = 'payment.failed' AND stratum = 'renewal'",
    ),
    "attempt.checkout": (
        {"detector": "volume_drop"},
        "metric IN ('payment.failed', 'payment.succeeded') AND stratum = 'checkout'",
    ),
    "cancel": ({"detector": "churn_spike"}, "metric = 'subscription.canceled' AND stratum = 'voluntary'"),
    "any": ({"detector": "webhook_silence"}, "metric = 'object.any' AND stratum = 'people'"),
    "late": ({"detector": "webhook_lag"}, "metric = 'delivery.late'"),
    "revenue.usd": (
        {"detector": "revenue_drop", "scope": "usd"},
        "metric = 'payment.succeeded' AND stratum IN ('checkout', 'retry') AND currency = 'usd'",
    ),
}


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize("line", LINES)
def test_hours_are_what_the_rollups_hold(conn: Connection, line: str) -> None:
    fields, where = LINES[line]
    found = some(conn, **fields)
    assert (found.line, found.end) == (line, epoch(NOW))
    assert found.start + SHOWN * 3600 == epoch(NOON + timedelta(minutes=25))
    what = "sum(amount) / 100.0" if found.currency else "sum(count)"
    held = conn.execute(
        f"""
        SELECT (SELECT coalesce({what}, 0) FROM rollups
                WHERE account = %s AND livemode AND grain = 5 AND bucket >= to_timestamp(start)
                  AND bucket < to_timestamp(start + 3600) AND {where})
        FROM generate_series(%s, %s, 3600) AS start ORDER BY start
        """,  # noqa: S608 - of this module's constants
        (LIVE.account, found.start, found.start + SHOWN * 3600 - 1),
    ).fetchall()
    assert found.counts == pytest.approx([float(row[0]) for row in held])
    assert line in {"late", "failure.renewal"} or sum(found.counts) > 0
    assert (found.currency == "usd") == (line == "revenue.usd")


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize("line", LINES)
def test_band_holds_most_of_what_is_quiet(conn: Connection, line: str) -> None:
    found = some(conn, **LINES[line][0])
    assert not any(map(isnan, found.middle + found.low + found.high))
    assert all(low <= middle <= high for low, middle, high in zip(found.low, found.middle, found.high, strict=True))
    quiet = found.counts[:-1]  # at noon the week is over
    inside = [low <= count <= high for low, count, high in zip(found.low, quiet, found.high, strict=False)]
    assert sum(inside) >= 0.85 * len(quiet)


@pytest.mark.usefixtures("learnt")
def test_incident_of_the_pipeline_is_drawn_with_its_burst_above_the_band(conn: Connection) -> None:
    happened(conn, [refunded(epoch(NOON) - n * 45) for n in range(40)])
    assert evaluate(conn, LIVE, NOON, PLANS.of("default"), Policy()) == 1
    (opened,) = incidents.read_all(conn)
    assert opened.detector == "refund_spike"
    found = read_hours(conn, opened, PLANS.of("default"), NOON)
    assert found is not None
    assert found.start == epoch(NOON - 48 * HOUR)
    assert found.counts[-1] >= 39  # what happens at noon belongs to the next 5 minutes
    assert found.counts[-1] > 3 * found.high[-1]
    assert draw(opened, found, ZoneInfo("Europe/Berlin"))


@pytest.mark.usefixtures("learnt")
def test_running_hour_is_as_long_as_the_others(conn: Connection) -> None:
    """Five minutes into an hour a drop would be seen where there is none."""
    happened(conn, [paid(epoch(NOON) + n * 20) for n in range(-180, 15)])
    found = some(conn, NOON + timedelta(minutes=5), detector="volume_drop")
    assert found.counts[-1] >= 180
    assert found.middle[-1] == pytest.approx(some(conn, NOON, detector="volume_drop").middle[-1], rel=0.2)


@pytest.mark.usefixtures("learnt")
def test_events_after_now_are_not_in_the_picture(conn: Connection) -> None:
    before = some(conn, NOON)
    happened(conn, [refunded(epoch(NOON) + 60)])
    assert some(conn, NOON).counts == before.counts
    assert some(conn, NOON + timedelta(minutes=2)).counts[-1] == 1 + sum(before.counts[-1:])


@pytest.mark.usefixtures("learnt")
def test_late_arrivals_have_the_usual_share_of_what_arrives(conn: Connection) -> None:
    happened(conn, [paid(epoch(NOON) - n) for n in range(100)], NOON)
    usual = some(conn, NOON, detector="webhook_lag")
    assert usual.middle[-1] >= 100 * 0.002
    assert usual.high[-1] > usual.middle[-1]


def test_hours_before_the_account_began_are_unknown(conn: Connection) -> None:
    young = list(simulate(Scenario(seed=4, start=epoch(NOON - 30 * HOUR), days=2, volume=40)))
    happened(conn, [each for each in young if each["created"] < epoch(NOON)])
    assert learn(conn, LIVE, NOON, PLANS.of("default"))
    found = some(conn, NOON, detector="volume_drop")
    assert [isnan(each) for each in found.counts] == [True] * 18 + [False] * 30
    assert [isnan(each) for each in found.middle] == [True] * 18 + [False] * 30


def test_rule_is_drawn_by_its_own_line_and_average(conn: Connection, week: list[Json]) -> None:
    rule = {"metric": "payment.failed", "window": "30m", "factor": 3, "plus": 5}
    plans, wrong = configure({"rules": {"mine": rule, "lost": {**rule, "amounts": True, "currency": "usd"}}})
    assert wrong == {}
    happened(conn, week, plans=plans)
    happened(conn, [failed(epoch(NOON) - n) for n in range(20)], plans=plans)
    assert learn(conn, LIVE, NOON, plans.of("default"))
    names = [name for name in plans.of("default").detectors if name.endswith(("mine", "lost"))]
    mine, lost = (some(conn, NOON, plans, detector=name, expected=2.0, window=1800) for name in sorted(names)[::-1])
    assert (mine.currency, lost.currency) == ("", "usd")
    assert mine.counts[-1] >= 19
    assert lost.counts[-1] >= 19 * 29.0
    assert (mine.middle, lost.middle) == ([4.0] * SHOWN, [0.04] * SHOWN)
    assert all(isnan(each) for each in mine.high)


def test_account_of_which_nothing_is_known_or_learnt_has_no_hours(conn: Connection) -> None:
    assert hours_of(conn) is None
    happened(conn, [refunded(epoch(NOON))])
    assert hours_of(conn) is None


@pytest.mark.usefixtures("learnt")
@pytest.mark.parametrize(
    "fields",
    [{"tenant": TEST}, {"detector": "revenue_drop", "scope": "jpy"}, {"detector": "revenue_drop", "scope": ""}],
    ids=str,
)
def test_line_that_is_unknown_has_no_hours(conn: Connection, fields: dict[str, Any]) -> None:
    assert hours_of(conn, **fields) is None


@pytest.mark.usefixtures("learnt")
def test_judgement_that_goes_on_holds_no_picture_up(conn: Connection, database_url: str) -> None:
    with connect(database_url, "tests") as other, other.transaction():
        accounts.lock(other, LIVE)
        conn.execute("SET lock_timeout = '2s'")
        assert some(conn).line == "refund"


@pytest.mark.usefixtures("learnt")
def test_incident_of_a_detector_that_was_switched_off_has_no_hours(conn: Connection) -> None:
    plans, _ = configure({"detectors": {"refund_spike": {"enabled": False}}})
    assert hours_of(conn, plans=plans, detector="refund_spike") is None
