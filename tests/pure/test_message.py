"""What a message says, and what never stands in one."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from billingwatch.model import Incident, Money, Reason, Tenant
from notify import message
from tests.pure.messages import AT, CARD_LIKE, incident

FAILED = "https://dashboard.stripe.com/payments?status%5B0%5D=failed"

MESSAGES: list[tuple[str, Incident, Reason, float | None, str, list[str]]] = [
    (
        "first",
        incident(),
        "first",
        None,
        "CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 1,823.00 USD, 31 customers",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "yen, dinars and dollars are told apart, test mode is marked, one customer is one",
        incident(
            tenant=Tenant("acct_1NvK3f", False),
            detector="surge",
            metric="refund.created",
            severity="high",
            observed=12,
            expected=1.1,
            why="12 refunds in 1 h; usually 1.1",
            at_risk=(Money(5000, "jpy"), Money(1250, "kwd"), Money(99, "usd"), Money(0, "eur")),
            customers=1,
            scope="price_1Nv",
        ),
        "first",
        None,
        "HIGH: surge of refunds on acct_1NvK3f (TEST MODE): 12, usually 1.1",
        [
            "12 refunds in 1 h; usually 1.1",
            "Since 14:05 UTC (2 h 5 min)",
            "Concerns price_1Nv",
            "At risk: 5,000 JPY + 1.250 KWD + 0.99 USD, 1 customer",
            "In Stripe: https://dashboard.stripe.com/acct_1NvK3f/test/payments?status%5B0%5D=refunded",
        ],
    ),
    (
        "worse says from and to",
        incident(at_risk=(), customers=0),
        "worse",
        0.4,
        "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: from 40 % to 71 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "worse without what was told before",
        incident(at_risk=(), customers=0),
        "worse",
        None,
        "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: now 71 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "repeat",
        incident(severity="medium", customers=0),
        "repeat",
        None,
        "STILL OPEN, MEDIUM: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "Nobody has acknowledged it yet.",
            "At risk: 1,823.00 USD",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "resolved says how long, peak and total",
        incident(state="resolved", resolved_at=datetime(2026, 3, 2, 15, 35, tzinfo=UTC)),
        "resolved",
        None,
        "RESOLVED: payments failing on default: peak 74 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Over after 1 h 30 min: 14:05 UTC to 15:35 UTC, peak 74 %",
            "In all: 1,823.00 USD, 31 customers",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "a silence is told by its length",
        incident(
            detector="webhook_silence", metric="any", observed=0, expected=41, why="nothing since 14:05", at_risk=()
        ),
        "first",
        None,
        "CRITICAL: no webhooks from Stripe on default: for 2 h 5 min",
        [
            "nothing since 14:05",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 31 customers",
            "In Stripe: https://dashboard.stripe.com/events",
        ],
    ),
    (
        "a test says so first",
        incident(severity="low", at_risk=(), customers=0),
        "test",
        None,
        "TEST, LOW: payments failing on default: 71 %, usually 6 %",
        [
            "This is a test: nothing is wrong.",
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "no number where the detector has none",
        incident(detector="surge", metric="dispute.created", observed=float("inf"), at_risk=(), customers=0),
        "first",
        None,
        "CRITICAL: surge of disputes on default",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "In Stripe: https://dashboard.stripe.com/disputes",
        ],
    ),
]


@pytest.mark.parametrize(
    ("about", "reason", "told", "title", "lines"),
    [case[1:] for case in MESSAGES],
    ids=[case[0] for case in MESSAGES],
)
def test_message(about: Incident, reason: Reason, told: float | None, title: str, lines: list[str]) -> None:
    composed = message.compose(about, reason, AT, told=told)
    assert composed.title == title
    assert composed.body.splitlines() == lines


def test_times_are_local_and_carry_their_date_on_another_day() -> None:
    body = message.compose(incident(), "first", AT, ZoneInfo("Asia/Tokyo")).body
    assert "Since 2026-03-02 23:05 JST (2 h 5 min)" in body  # it is 01:10 on the 3rd there
    assert "Since 15:05 CET" in message.compose(incident(), "first", AT, ZoneInfo("Europe/Berlin")).body


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_duration_in_words(seconds: int, words: str) -> None:
    assert message.spell(timedelta(seconds=seconds)) == words


def test_more_currencies_than_a_phone_shows_are_counted() -> None:
    money = tuple(Money(100, currency) for currency in ("aud", "cad", "eur", "gbp", "usd", "sek"))
    body = message.compose(incident(at_risk=money, customers=0), "first", AT).body
    assert "At risk: 1.00 AUD + 1.00 CAD + 1.00 EUR + 1.00 GBP and 2 more currencies" in body


@pytest.mark.parametrize(
    ("metric", "page"),
    [
        ("payment.failed", "payments?status%5B0%5D=failed"),
        ("fail_first", "payments?status%5B0%5D=failed"),
        ("payment.succeeded", "payments"),
        ("subscription.canceled", "subscriptions?status=canceled"),
        ("dispute", "disputes"),
        ("payout.failed", "payouts"),
        ("something new", "events"),
    ],
)
def test_link_lists_what_the_metric_counts(metric: str, page: str) -> None:
    assert message.link(Tenant("default", True), metric) == f"https://dashboard.stripe.com/{page}"
    assert message.link(Tenant("acct_9", False), metric) == f"https://dashboard.stripe.com/acct_9/test/{page}"


def test_account_that_is_no_account_id_stays_out_of_the_link() -> None:
    assert message.link(Tenant("acct_1/../../login?x=", True), "refund").startswith(
        "https://dashboard.stripe.com/payments"
    )


@pytest.mark.parametrize("reason", ["first", "repeat", "worse", "resolved", "test"])
@given(
    before=st.text(max_size=200),
    local=st.from_regex(r"[a-z0-9._+-]{1,20}", fullmatch=True),
    card=st.from_regex(r"\d{4}([ .-]?)\d{4}\1\d{4}\1\d{4}", fullmatch=True),
    place=st.sampled_from(["why", "scope", "account", "detector", "metric"]),
)
@settings(max_examples=40, deadline=None)
def test_no_address_and_no_card_number_stands_in_a_message(
    reason: Reason, before: str, local: str, card: str, place: str
) -> None:
    text = f"{before} {local}@shop.example, {card}"
    changes: dict[str, Any] = {"tenant": Tenant(text, True)} if place == "account" else {place: text}
    composed = message.compose(incident(**changes), reason, AT)
    told = f"{composed.title}\n{composed.body}"
    assert f"{local}@" not in told
    assert card not in told
    assert not CARD_LIKE.search(re.sub(r"[ .-]", "", told))
    assert "\n" not in composed.title
    assert len(composed.title) < 250
    assert len(composed.body) < 800
