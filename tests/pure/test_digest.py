"""When a digest is due in any zone and over changed clocks, whether it has anything to say, and how it reads."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from billingwatch.model import OWN, Money
from notify import digest as digests
from notify.digest import (
    LISTED,
    Digest,
    Figure,
    Listed,
    Noise,
    Series,
    Told,
    Watch,
    channels,
    due,
    listed,
    slots,
    span,
    worth_telling,
)
from notify.digest_words import title, view
from notify.policy import DigestTimes, Policy
from notify.route import Route
from notify.template import SHIPPED, Templates
from tests.factories import incident

BERLIN = ZoneInfo("Europe/Berlin")
DAY = date(2026, 3, 10)  # a Tuesday
EIGHT = DigestTimes(daily=time(8, 0))
WATCH = Watch(
    stored=12403,
    last_event=datetime(2026, 3, 10, 6, 59, tzinfo=UTC),
    held=0,
    held_new=0,
    depth=0,
    waiting=0.0,
    missing=(),
)


def told(**changes: Any) -> Listed:
    fields: dict[str, Any] = {
        "id": 12,
        "account": "acct_1",
        "detector": "refund_spike",
        "scope": "",
        "state": "open",
        "severity": "high",
        "opened_at": datetime(2026, 3, 9, 12, 5, tzinfo=UTC),
        "resolved_at": None,
        "why": "12 refunds in the last hour; usually 0.5",
        "at_risk": (Money(182300, "usd"), Money(5000, "jpy")),
        "customers": 31,
    }
    return Listed(**(fields | changes))


def made(**changes: Any) -> Digest:
    """A digest of Monday the 9th of an account in Berlin, on which nothing happened."""
    fields: dict[str, Any] = {
        "kind": "daily",
        "account": "",
        "zone": "Europe/Berlin",
        "span": span("daily", DAY, BERLIN),
        "made_at": datetime(2026, 3, 10, 7, 0, tzinfo=UTC),
        "opened": 0,
        "watch": WATCH,
    }
    return Digest(**(fields | changes))


# (zone, times, instant in UTC, the digests that are due)
TIMES = [
    ("UTC", EIGHT, "2026-03-10 07:59:59", []),
    ("UTC", EIGHT, "2026-03-10 08:00", [("daily", 10)]),
    ("UTC", EIGHT, "2026-03-10 19:59", [("daily", 10)]),
    ("UTC", EIGHT, "2026-03-10 20:00", []),
    ("Europe/Berlin", EIGHT, "2026-03-10 07:00", [("daily", 10)]),
    ("Asia/Kolkata", EIGHT, "2026-03-10 02:29", []),
    ("Asia/Kolkata", EIGHT, "2026-03-10 02:30", [("daily", 10)]),
    ("Pacific/Auckland", EIGHT, "2026-03-09 19:00", [("daily", 10)]),
    ("UTC", DigestTimes(daily=time(23, 59)), "2026-03-10 00:01", [("daily", 9)]),
    ("UTC", DigestTimes(weekly=(1, time(8))), "2026-03-10 08:00", [("weekly", 10)]),
    ("UTC", DigestTimes(weekly=(0, time(8))), "2026-03-10 08:00", []),
    ("UTC", DigestTimes(time(8), (1, time(9))), "2026-03-10 09:30", [("daily", 10), ("weekly", 10)]),
    ("UTC", DigestTimes(), "2026-03-10 09:30", []),
    # 02:30 does not exist on 29 March in Berlin, where 01:59 is followed by 03:00.
    ("Europe/Berlin", DigestTimes(daily=time(2, 30)), "2026-03-29 01:29", []),
    ("Europe/Berlin", DigestTimes(daily=time(2, 30)), "2026-03-29 01:30", [("daily", 29)]),
    # 02:30 comes twice on 25 October, at 00:30 and at 01:30 UTC.
    ("Europe/Berlin", DigestTimes(daily=time(2, 30)), "2026-10-25 00:29", []),
    ("Europe/Berlin", DigestTimes(daily=time(2, 30)), "2026-10-25 00:30", [("daily", 25)]),
    ("Europe/Berlin", DigestTimes(daily=time(2, 30)), "2026-10-25 01:30", [("daily", 25)]),
]


@pytest.mark.parametrize(("zone", "times", "at", "expected"), TIMES)
def test_digest_is_due_by_the_accounts_own_clock(
    zone: str, times: DigestTimes, at: str, expected: list[tuple[str, int]]
) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert [(each.kind, each.day.day) for each in due(times, ZoneInfo(zone), moment)] == expected


@given(
    st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Africa/Cairo"]
    ),
    st.times(),
    st.integers(0, 500_000).map(lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)),
    st.integers(20, 600),
)
def test_every_local_day_is_due_whatever_the_clocks_do(zone: str, clock: time, start: datetime, minutes: int) -> None:
    """Looked at every few minutes or hours, no day is left out, and none but those that are past."""
    clock, local = clock.replace(second=0, microsecond=0), ZoneInfo(zone)
    first, found = start, set[date]()
    looks = 4 * 24 * 60 // minutes
    for step in range(looks):
        moment = first + timedelta(minutes=minutes * step)
        days = {each.day for each in due(DigestTimes(daily=clock), local, moment)}
        assert all(day <= moment.astimezone(local).date() for day in days)
        found |= days
    last = (first + timedelta(minutes=minutes * (looks - 1))).astimezone(local).date()
    begun = first.astimezone(local).date()
    whole = {begun + timedelta(days=n) for n in range(1, (last - begun).days)}
    assert whole <= found


def test_span_is_of_whole_local_days_and_the_same_days_a_week_before() -> None:
    assert span("daily", date(2026, 3, 30), BERLIN) == digests.Span(
        datetime(2026, 3, 28, 23, tzinfo=UTC),
        datetime(2026, 3, 29, 22, tzinfo=UTC),  # a day of 23 hours
        datetime(2026, 3, 21, 23, tzinfo=UTC),
        datetime(2026, 3, 22, 23, tzinfo=UTC),
    )
    weekly = span("weekly", date(2026, 10, 26), BERLIN)
    assert (weekly.end - weekly.start, weekly.before_end) == (timedelta(days=7, hours=1), weekly.start)


def test_slots_are_hours_or_days() -> None:
    assert slots("daily", DAY)[::23] == ("00", "23")
    assert slots("weekly", DAY) == tuple(f"2026-03-{day:02}" for day in range(3, 10))


# (changes, whether it is worth telling)
WORTH: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"noise": (Noise("refund_spike", 4, 1),)}, False),
    ({"channels": (Told("ops", 9, 0, 0),)}, False),
    ({"figures": (Figure("payments", 9, 9),)}, False),
    ({"kind": "weekly", "figures": (Figure("payments", 9, 9),)}, True),
    ({"kind": "weekly", "figures": (Figure("payments"),)}, False),
    ({"open_count": 1}, True),
    ({"over_count": 1}, True),
    ({"opened": 1}, True),
    ({"channels": (Told("ops", 9, 1, 0),)}, True),
    ({"channels": (Told("ops", 9, 0, 1),)}, True),
    ({"channels": (Told("ops", 9, 0, 0, "401"),)}, True),
    ({"watch": replace(WATCH, held_new=1, held=1)}, True),
    ({"watch": replace(WATCH, held=1)}, False),
    ({"watch": replace(WATCH, missing=("events",))}, True),
    ({"watch": replace(WATCH, depth=None, waiting=None, missing=None, away=True)}, True),
]


@pytest.mark.parametrize(("changes", "worth"), WORTH)
def test_nothing_to_say_is_not_said(changes: dict[str, Any], worth: bool) -> None:
    assert worth_telling(made(**changes)) is worth


OWN_ROUTE = Route(name="shop", matchers={"account": ("acct_1",)}, channels=("shop",))
REST = Route(channels=("ops", "mail"))


@pytest.mark.parametrize(
    ("policy", "account", "expected"),
    [
        (Policy(routes=(OWN_ROUTE, REST)), "acct_1", ["shop"]),
        (Policy(routes=(OWN_ROUTE, REST)), "acct_2", ["ops", "mail"]),
        (Policy(routes=(OWN_ROUTE, REST)), "", ["ops", "mail"]),
        (Policy(routes=(OWN_ROUTE, REST), digest=DigestTimes(channels=("mail",))), "", ["mail"]),
        (Policy(routes=(OWN_ROUTE, REST), digest=DigestTimes(channels=("mail",))), "acct_2", ["mail"]),
        (Policy(), "", ["console"]),
    ],
)
def test_digest_goes_to_the_accounts_own_route_else_where_digests_go(
    policy: Policy, account: str, expected: list[str]
) -> None:
    assert [channel for channel, _ in channels(policy, account)] == expected


def test_long_lists_end_and_counts_do_not() -> None:
    many = [incident(id=n) for n in range(LISTED + 3)]
    assert [each.id for each in listed(many)] == list(range(LISTED))
    full = made(open=listed(many), open_count=len(many))
    assert "- and 3 more" in digests.words(full, SHIPPED).text


FULL = made(
    opened=2,
    open=(told(),),
    open_count=1,
    over=(
        told(
            account=OWN.account,
            detector="worker_missing",
            scope="alerts",
            state="resolved",
            resolved_at=datetime(2026, 3, 9, 12, 9, tzinfo=UTC),
            at_risk=(),
            customers=0,
        ),
    ),
    over_count=1,
    noise=(Noise("churn_spike", 3, 2),),
    channels=(Told("mail", 12, 3, 1, "401; trying again is of no use"), Told("ops", 1, 0, 0)),
    figures=(
        Figure("payments", 1204, 1075, (Money(3420100, "usd"), Money(500000, "jpy")), (Money(3011200, "usd"),)),
        Figure("failed first attempts", 73, 62, out_of=1204, out_of_before=1070),
        Figure("refunds", 24, 30, (Money(40000, "usd"),), (Money(52000, "usd"),)),
        Figure("disputes"),
        Figure("cancellations", 3, 1),
        Figure("MRR lost", 3, 2, (Money(-12000, "usd"),), (Money(-9000, "usd"),)),
    ),
    watch=replace(WATCH, held=3, held_new=1, depth=4, waiting=130.0, missing=("alerts",)),
    slots=slots("daily", DAY),
    series=(Series("refunds", (1.0, None), (0.0, 2.0)),),
)
TEXT = """\
Mon 9 March 2026, Europe/Berlin time; in brackets: a week before.

OPEN NOW: 1
- HIGH, refund spike on acct_1: for 18 h 55 min, since Mon 9 Mar 13:05; 1,823.00 USD + 5,000 JPY, 31 customers at risk
  12 refunds in the last hour; usually 0.5

OVER: 1
- HIGH, worker missing (alerts) of BillingWatch itself: Mon 9 Mar 13:05 to 13:09 (4 min)

BUSINESS
- payments: 1,204 for 34,201.00 USD + 500,000 JPY (1,075 for 30,112.00 USD), +12 %
- failed first attempts: 6.1 %, 73 of 1,204 (5.8 %, 62 of 1,070)
- refunds: 24 for 400.00 USD (30 for 520.00 USD), -23 %
- cancellations: 3 (1)
- MRR lost: 120.00 USD (90.00 USD)

FALSE ALARMS, four weeks
- churn spike: 2 of 3 incidents

BILLINGWATCH ITSELF: NOT WELL
- 12,403 events stored, 0 lost; the last event came Tue 10 Mar 07:59
- 3 events in quarantine, 1 of them new: `billingwatch quarantine list` says why
- 4 batches wait in the queue, the oldest for 2 min
- no `worker alerts` runs
- channel mail: 12 messages arrived, 3 tries failed, 1 alert given up, BROKEN: 401; trying again is of no use
- channel ops: 1 message arrived"""


def test_digest_as_plain_text() -> None:
    message = digests.words(FULL, SHIPPED)
    assert message.title == "Daily digest, Mon 9 Mar: 1 incident open, 1 over, BillingWatch is NOT WELL"
    assert message.text == TEXT


def test_quiet_day_says_that_all_is_well() -> None:
    message = digests.words(made(account="acct_1"), SHIPPED)
    assert message.title == "Daily digest of acct_1, Mon 9 Mar: no incidents"
    assert message.text == (
        "Mon 9 March 2026, Europe/Berlin time.\n\nNo incidents.\n\nBILLINGWATCH ITSELF: well\n"
        "- 12,403 events stored, 0 lost; the last event came Tue 10 Mar 07:59\n- the queue is empty"
    )


def test_every_form_says_the_same_and_none_can_be_broken_by_a_name() -> None:
    nasty = replace(FULL, open=(told(account="<b>*x*</b>", why="a <script>ada@example.com</script>_"),))
    message = digests.words(nasty, SHIPPED)
    for form in (message.text, message.markdown, message.html):
        assert "34,201.00 USD" in form
        assert "NOT WELL" in form
        assert "ada@example.com" not in form
    assert "<script>" not in message.html
    assert "&lt;b&gt;" in message.html
    assert "\\<b\\>\\*x\\*\\</b\\>" in message.markdown


def test_weekly_digest_names_its_days_and_the_change_is_told_only_of_many() -> None:
    weekly = made(kind="weekly", span=span("weekly", date(2026, 3, 2), BERLIN), livemode=False)
    assert title(weekly) == "Weekly digest (TEST MODE), Mon 23 Feb to Sun 1 Mar: no incidents"
    assert view(weekly)["when"] == "Mon 23 February 2026 to Sun 1 March 2026"
    few = replace(weekly, figures=(Figure("refunds", 19, 40), Figure("disputes", 40, 20)))
    assert [each["change"] for each in view(few)["figures"]] == ["", "+100 %"]


def test_digest_survives_its_way_through_json() -> None:
    assert digests.read(digests.content(FULL)) == FULL
    assert isinstance(digests.content(FULL)["made_at"], str)


def test_template_of_ones_own_wins_and_the_others_stay(tmp_path: Path) -> None:
    (tmp_path / "digest.txt").write_text("{{ open_count }} open")
    message = digests.words(FULL, Templates(tmp_path))
    assert message.text == "1 open"
    assert "NOT WELL" in message.html
