"""What people mark is kept and taken back; an expected span opens and teaches nothing, a new normal starts afresh."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import Connection

from billingwatch.cli.mark import read_moment
from billingwatch.model import Bucket, Tenant
from billingwatch.store import accounts, audit, baselines, incidents, markers, rollups
from billingwatch.store.accounts import Account
from detectors import facts
from detectors.almanac import Almanac
from detectors.registry import configure
from notify.policy import Policy
from tests.factories import LIVE, NOON, TEST
from tests.pipeline import command
from tests.pipeline.command import isolate
from worker.evaluate import evaluate
from worker.learn import learn

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
PLAN = configure({})[0].of("default")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> None:
    """This test's database, no file in the working folder, and a wide terminal."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")


run, succeed = partial(command.run, "mark"), partial(command.succeed, "mark")


def said(*arguments: str) -> Any:
    """What the command says to programs."""
    return json.loads(succeed(*arguments, "--json"))


def iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


# --- times ------------------------------------------------------------------------------------------------------------

TIMES = [
    ("now", NOON),
    ("-2h", NOON - 2 * HOUR),
    ("+3d", NOON + 3 * DAY),
    ("+1w2d3h4m", NOON + 9 * DAY + 3 * HOUR + 4 * MINUTE),
    ("2026-11-27", datetime(2026, 11, 27, tzinfo=UTC)),
    ("2026-11-27T08:30", datetime(2026, 11, 27, 8, 30, tzinfo=UTC)),
    ("2026-11-27 08:30:15.75", datetime(2026, 11, 27, 8, 30, 15, tzinfo=UTC)),
    ("2026-11-27T08:30+01:00", datetime(2026, 11, 27, 7, 30, tzinfo=UTC)),
    ("2026-11-27T08:30Z", datetime(2026, 11, 27, 8, 30, tzinfo=UTC)),
]


@pytest.mark.parametrize(("text", "moment"), TIMES, ids=[text for text, _ in TIMES])
def test_time_is_read_in_utc_unless_it_says_otherwise(text: str, moment: datetime) -> None:
    assert read_moment(text, NOON.replace(microsecond=123_456)) == moment


@given(st.text(max_size=20) | st.from_regex(r"[+-]([0-9]{1,5}[mhdw]?){0,9}", fullmatch=True))
def test_text_is_a_whole_second_of_utc_or_no_time_at_all(text: str) -> None:
    try:
        moment = read_moment(text, NOON)
    except (ValueError, OverflowError):
        return
    assert (moment.microsecond, moment.tzinfo) == (0, UTC)


# --- usage ------------------------------------------------------------------------------------------------------------

WRONG = [
    ([], "one of: TEXT or a span to mark, --list, --remove ID"),
    (["v2", "--list"], "one of: TEXT"),
    (["--list", "--remove", "1"], "one of: TEXT"),
    (["sale", "--from", "tomorrow", "--until", "+3d"], "'tomorrow' is no time (now, -2h"),
    (["sale", "--from", "-" + "9999w" * 11], "is no time"),
    (["sale", "--from", "now"], "--from wants --until, or --new-normal"),
    (["sale", "--from", "+2h", "--until", "+1h"], "before it begins"),
    (["sale", "--from", "now", "--until", "now"], "before it begins"),
    (["sale", "--from", "2026-11-27", "--until", "2027-11-30"], "368 days are too long to expect (31 at most"),
    (["prices", "--new-normal", "--until", "+1d"], "a new normal has no end"),
    ([" "], "a deploy wants a TEXT"),
    (["two\nlines"], "TEXT is one line of at most 200 characters"),
    (["x" * 201], "TEXT is one line"),
    (["--remove", "first"], "not a valid integer"),
]


@pytest.mark.parametrize(("arguments", "why"), WRONG)
def test_what_makes_no_sense_is_refused_with_its_reason(conn: Connection, arguments: list[str], why: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert why in " ".join(result.stderr.split())
    assert markers.read_all(conn) == []


# --- the list ---------------------------------------------------------------------------------------------------------


def test_marks_are_made_listed_and_taken_back(conn: Connection) -> None:
    deploy = said("v2.31 [rc]", "--who", "ada")
    sale = said("sale", "--from", "2026-11-27", "--until", "2026-12-01T00:00+01:00", "--who", "bob")
    normal = said("--new-normal", "--from", "2026-11-01T09:00", "--account", "acct_1", "--test-mode", "--who", "ada")
    assert deploy.items() >= {"kind": "deploy", "account": "default", "livemode": True, "until": None}.items()
    assert sale.items() >= {"kind": "expected", "from": "2026-11-27T00:00:00Z", "until": "2026-11-30T23:00:00Z"}.items()
    assert normal.items() >= {"kind": "new_normal", "account": "acct_1", "livemode": False, "text": ""}.items()
    listed = said("--list")
    assert sorted(listed, key=lambda each: each["id"]) == [deploy, sale, normal]
    assert [each["from"] for each in listed] == sorted(each["from"] for each in listed)
    assert said("--list", "--account", "acct_1") == said("--list", "--test-mode") == [normal]
    shown = run("--list").stdout
    for part in (
        "v2.31 [rc]",
        "2026-11-27 00:00 UTC",
        "2026-11-30 23:00 UTC",
        "new normal",
        "acct_1 (test mode)",
        "bob",
    ):
        assert part in shown
    assert said("--remove", str(sale["id"])) == sale
    assert {each.id for each in markers.read_all(conn)} == {deploy["id"], normal["id"]}
    again = run("--remove", str(sale["id"]))
    assert (again.exit_code, again.stderr) == (1, f"There is no marker {sale['id']}.\n")


def test_list_of_a_new_installation() -> None:
    assert run("--list").stdout == "Nothing is marked.\n"
    assert said("--list") == []


def test_span_without_a_beginning_begins_now(now: datetime) -> None:
    made = said("load test", "--until", "+2h")
    begins, ends = (datetime.fromisoformat(made[key]) for key in ("from", "until"))
    assert timedelta() <= begins - now.replace(microsecond=0) < MINUTE
    assert 2 * HOUR <= ends - begins < 2 * HOUR + MINUTE


def test_people_are_told_what_a_mark_does() -> None:
    assert "a deploy of default at " in run("v2").stdout
    span = run("sale", "--from", "2026-11-27", "--until", "2026-11-28").stdout
    assert "from 2026-11-27 00:00 UTC until 2026-11-28 00:00 UTC nothing opens" in span
    assert "learnt anew from then on" in run("--new-normal").stdout


def test_slip_in_the_accounts_name_is_told_and_the_mark_stands(conn: Connection) -> None:
    accounts.touch(conn, Account(TEST, NOON, NOON, NOON))
    slip = run("v2", "--account", "defualt")
    assert slip.exit_code == 0
    assert slip.stderr == "No event of defualt has come yet. Events came of: default (test mode).\n"
    assert run("v2", "--test-mode").stderr == ""


# --- what it changes --------------------------------------------------------------------------------------------------


def counted(conn: Connection, metric: str, stratum: str, counts: dict[datetime, int], tenant: Tenant = LIVE) -> None:
    """So much was counted in the 5 minutes from each instant on; the tenant is known of it."""
    rows = [Bucket(metric, stratum, "usd", 5, int(at.timestamp()), n, 2900 * n) for at, n in counts.items()]
    rollups.grow(conn, tenant, rows)
    accounts.touch(conn, Account(tenant, min(counts), max(counts), max(counts)))


def failing(conn: Connection, tenant: Tenant = LIVE) -> None:
    """Half of many payments fail in the ten minutes before noon, of an account that is a day old."""
    before = {NOON - DAY: 1, NOON - 10 * MINUTE: 20, NOON - 5 * MINUTE: 20}
    counted(conn, facts.PAYMENT_FAILED, facts.CHECKOUT, before, tenant)
    counted(conn, facts.PAYMENT_SUCCEEDED, facts.CHECKOUT, before, tenant)


# (what is marked, the detectors that open at noon)
SPANS: list[tuple[list[str], list[str]]] = [
    ([], ["failure_rate"]),
    (["load test", "--from", iso(NOON - HOUR), "--until", iso(NOON + HOUR)], []),
    (["load test", "--from", iso(NOON - HOUR), "--until", iso(NOON)], []),
    (["load test", "--from", iso(NOON - 3 * HOUR), "--until", iso(NOON - HOUR)], ["failure_rate"]),
    (["load test", "--from", iso(NOON + HOUR), "--until", iso(NOON + 2 * HOUR)], ["failure_rate"]),
    (["load test", "--from", iso(NOON - HOUR), "--until", iso(NOON + HOUR), "--test-mode"], ["failure_rate"]),
    (["v2"], ["failure_rate"]),
]


@pytest.mark.parametrize(("arguments", "opened"), SPANS)
def test_nothing_opens_in_an_expected_span_and_what_it_held_is_no_evidence_afterwards(
    conn: Connection, arguments: list[str], opened: list[str]
) -> None:
    failing(conn)
    if arguments:
        said(*arguments)
    evaluate(conn, LIVE, NOON, PLAN, Policy())
    assert [each.detector for each in incidents.read_all(conn)] == opened


def test_silence_opens_in_an_expected_span_all_the_same(conn: Connection) -> None:
    hours = {NOON - n * 5 * MINUTE: 5 for n in range(12, 12 * 24 * 4)}
    counted(conn, facts.ANY, facts.PEOPLE, hours)
    assert learn(conn, LIVE, NOON - HOUR, PLAN)
    said("sale", "--from", iso(NOON - 2 * DAY), "--until", iso(NOON + DAY))
    evaluate(conn, LIVE, NOON, PLAN, Policy())
    assert [each.detector for each in incidents.read_all(conn)] == ["webhook_silence"]


def refunds(conn: Connection) -> None:
    """Two an hour for five days, ten an hour for five days more; the last of them is known until noon."""
    first = {NOON - n * HOUR: 2 if n > 120 else 10 for n in range(1, 241)}
    counted(conn, facts.REFUND, "", first)
    assert learn(conn, LIVE, NOON, PLAN)


def almanac(conn: Connection) -> Almanac:
    packed = baselines.read_archive(conn, LIVE)
    assert packed
    found = Almanac.unpack(PLAN.calendar, packed)
    assert found
    return found


def test_expected_span_that_is_over_is_unlearnt_and_learnt_again_when_it_is_taken_back(conn: Connection) -> None:
    refunds(conn)
    before = almanac(conn).baselines["refund"]
    marked = said("a bot", "--from", iso(NOON - 120 * HOUR), "--until", iso(NOON))
    assert learn(conn, LIVE, NOON, PLAN)
    without = almanac(conn).baselines["refund"]
    assert without.level == pytest.approx(2.0, rel=0.1)
    assert without.level < before.level / 2
    assert without.days == pytest.approx(before.days - 4.5)
    assert not learn(conn, LIVE, NOON, PLAN)
    said("--remove", str(marked["id"]))
    assert learn(conn, LIVE, NOON, PLAN)
    assert almanac(conn).baselines["refund"] == before


def test_from_a_new_normal_on_all_is_learnt_as_of_a_new_account(conn: Connection) -> None:
    refunds(conn)
    said("new shop", "--new-normal", "--from", iso(NOON - 120 * HOUR))
    assert learn(conn, LIVE, NOON, PLAN)
    found = almanac(conn)
    assert found.since == int((NOON - 120 * HOUR).timestamp()) // 3600
    assert found.baselines["refund"].level == pytest.approx(10.0, rel=0.1)
    assert not learn(conn, LIVE, NOON, PLAN)


def test_of_a_new_normal_that_begins_now_nothing_is_known_until_midnight(conn: Connection) -> None:
    refunds(conn)
    said("new shop", "--new-normal", "--from", iso(NOON))
    assert learn(conn, LIVE, NOON, PLAN)
    assert almanac(conn).baselines == {}
    counted(conn, facts.REFUND, "", {NOON + n * HOUR: 10 for n in range(12)})
    assert learn(conn, LIVE, NOON + 12 * HOUR, PLAN)
    assert almanac(conn).baselines["refund"].counted == 120


def test_new_normal_that_is_announced_begins_when_it_is_there(conn: Connection) -> None:
    refunds(conn)
    before = almanac(conn)
    said("new shop", "--new-normal", "--from", iso(NOON + 18 * HOUR))
    assert learn(conn, LIVE, NOON, PLAN)
    assert (almanac(conn).since, almanac(conn).baselines) == (before.since, before.baselines)
    counted(conn, facts.REFUND, "", {NOON + n * HOUR: 30 for n in range(36)})
    assert learn(conn, LIVE, NOON + 12 * HOUR, PLAN)
    assert almanac(conn).since == before.since
    assert learn(conn, LIVE, NOON + 36 * HOUR, PLAN)
    assert almanac(conn).since == int((NOON + 18 * HOUR).timestamp()) // 3600


def test_old_account_is_not_learnt_from_its_beginning_every_night(conn: Connection) -> None:
    counted(conn, facts.REFUND, "", {NOON - n * HOUR: 2 for n in range(1, 70 * 24, 7)})
    assert learn(conn, LIVE, NOON, PLAN)
    since = almanac(conn).since
    counted(conn, facts.REFUND, "", {NOON + 11 * HOUR: 2})
    assert learn(conn, LIVE, NOON + 12 * HOUR, PLAN)
    assert almanac(conn).since == since


def test_each_marker_leaves_a_row_in_the_audit_when_it_comes_and_when_it_goes(conn: Connection) -> None:
    marked = said("v2.31", "--who", "ada")
    said("--remove", str(marked["id"]), "--who", "bob")
    done = [(row["who"], row["act"], row["subject"], row["detail"][-5:]) for row in reversed(audit.read(conn))]
    subject = f"marker {marked['id']}"
    assert done == [("ada", "mark.add", subject, "v2.31"), ("bob", "mark.remove", subject, "v2.31")]
