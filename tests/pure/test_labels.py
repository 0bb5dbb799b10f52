"""Labels of planted incidents: when, where, and how much evidence, against what can be counted."""

import math
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from billingwatch.simulator import evidence
from billingwatch.simulator.incidents import KINDS, Label
from billingwatch.simulator.stream import Stream
from tests.pure.shop import DAY, HOUR, START, doubles, scenario


def planted(wanted: Any) -> tuple[Label, ...]:
    """The labels of a stream that was read to its end."""
    stream = Stream(wanted)
    assert sum(1 for _ in stream.events()) > 0
    return stream.labels()


def test_labels_say_what_was_planted() -> None:
    wanted = scenario("webhook_silence@2026-09-03T00:00:00Z,for=90m", "refund_spike@+2d3h,size=20", livemode=False)
    first, second = planted(wanted)
    assert (first.kind, first.detector, first.account, first.livemode) == (
        "refund_spike",
        "refund_spike",
        "default",
        False,
    )
    assert (first.start, first.size) == (datetime(2026, 9, 1, 3, tzinfo=UTC), 20)
    assert (second.end - second.start).total_seconds() == 5400
    assert planted(scenario("refund_spike@+1d", account="acct_1Example"))[0].account == "acct_1Example"


def test_incident_is_cut_where_the_stream_ends() -> None:
    (label,) = planted(scenario("refund_spike@+5d23h,for=4h"))
    assert label.end == datetime.fromtimestamp(START + 6 * DAY, UTC)


# Evidence: the label's nats against those of what is counted in a busy stream with the incident and without it.

BEGIN, SPAN = 34 * HOUR, 3 * HOUR


class Seen(Struct):
    """What a stretch of a stream holds."""

    tried: int = 0  # first attempts
    failed: int = 0  # of them
    arrived: int = 0  # payments that somebody at the checkout began
    small: int = 0  # failed charges of small amounts
    refunds: int = 0
    disputes: int = 0
    cancels: int = 0
    expired: int = 0
    opened: int = 0  # payments
    sold: list[dict[str, Any]] = []

    def add(self, event: dict[str, Any], first: bool) -> None:
        """Count the event; `first` says that it tells of a payment's first attempt."""
        kind, thing = event["type"], event["data"]["object"]
        self.tried += first
        self.failed += first and kind == "payment_intent.payment_failed"
        self.opened += kind == "payment_intent.created"
        self.arrived += kind == "payment_intent.created" and thing["description"] != "Subscription update"
        self.expired += kind == "checkout.session.expired"
        self.small += kind == "charge.failed" and thing["amount"] <= 500
        self.refunds += kind == "refund.created"
        self.disputes += kind == "charge.dispute.created" and not thing["status"].startswith("warning_")
        self.cancels += "cancel_at_period_end" in event["data"].get("previous_attributes", {})
        if kind == "customer.subscription.deleted" and not thing["cancel_at_period_end"]:
            self.cancels += thing["cancellation_details"]["reason"] == "cancellation_requested"
        if kind == "charge.succeeded":
            self.sold.append(thing)

    @property
    def objects(self) -> int:
        """Independent business objects."""
        return self.opened + self.expired + self.refunds + self.disputes + self.cancels

    @property
    def sizes(self) -> float:
        """So many charges of one size would make revenue as uncertain as it is, one enterprise's left aside."""
        amounts: list[int] = sorted(charge["amount"] for charge in self.sold)[: -max(1, len(self.sold) // 1000)]
        return float(sum(amounts)) ** 2 / sum(amount**2 for amount in amounts)


def look(stream: Stream) -> tuple[Seen, Seen]:
    """What the incident's three hours hold, and what all the stream holds."""
    within, whole = Seen(), Seen()
    tried = set()
    for event in stream.events():
        thing = event["data"]["object"]["id"]
        first = event["type"] in {"payment_intent.payment_failed", "payment_intent.succeeded"} and thing not in tried
        if first:
            tried.add(thing)
        whole.add(event, first)
        if BEGIN <= event["created"] - BUSY < BEGIN + SPAN:
            within.add(event, first)
    return within, whole


BUSY = START + 5 * DAY


def busy(*incidents: str, days: float) -> Stream:
    """A shop of 2,000 charges a day, away from the first days of a month."""
    return Stream(scenario(*incidents, seed=8, start=BUSY, days=days, volume=2000, arrivals=True))


@cache
def quiet() -> tuple[Seen, Seen]:
    """The three hours without the incident, and a week."""
    return look(busy(days=7))


def against(usual: Callable[[Seen], float]) -> Callable[[Seen], float]:
    """The nats of a count against three hours of the quiet week."""
    return lambda seen: evidence.poisson(usual(seen), usual(quiet()[1]) / 56)


def failing(seen: Seen) -> float:
    usual = quiet()[1]
    return evidence.binomial(seen.tried, seen.failed / seen.tried, usual.failed / usual.tried)


def late(seen: Seen) -> float:
    return evidence.binomial(quiet()[0].objects, 0.5, 0.002)


def shrunk(seen: Seen) -> float:
    twin, week = quiet()
    sizes = len(twin.sold) * week.sizes / len(week.sold)
    return evidence.poisson(0.4 * sizes, sizes)


@pytest.mark.parametrize(
    ("incident", "weigh", "near"),
    [
        ("failed_payments@+34h,size=0.4,for=3h", failing, 0.2),
        ("card_testing@+34h,size=3,for=3h", against(lambda seen: seen.small), 0.2),
        ("refund_spike@+34h,size=8,for=3h", against(lambda seen: seen.refunds), 0.3),
        ("dispute_spike@+34h,size=20,for=3h", against(lambda seen: seen.disputes), 0.3),
        ("cancel_spike@+34h,size=30,for=3h", against(lambda seen: seen.cancels), 0.3),
        ("checkout_drop@+34h,size=0.7,for=3h", lambda seen: evidence.poisson(seen.arrived, quiet()[0].arrived), 0.2),
        ("duplicate_charges@+34h,size=0.3,for=3h", against(lambda seen: len(doubles(seen.sold))), 0.3),
        ("webhook_silence@+34h,for=3h", lambda _: quiet()[0].objects, 0.15),
        ("webhook_outage@+34h,for=3h", lambda _: quiet()[0].objects, 0.15),
        ("webhook_lag@+34h,size=0.5,for=3h", late, 0.15),
        ("revenue_drop@+34h,size=0.6,for=3h", shrunk, 0.4),
    ],
)
def test_labels_weigh_what_can_be_counted(incident: str, weigh: Callable[[Seen], float], near: float) -> None:
    stream = busy(incident, days=1.6)
    within, _ = look(stream)
    (label,) = stream.labels()
    assert label.nats == pytest.approx(weigh(within), rel=near)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [(kind, "0.1 0.3 0.9") for kind in ("failed_payments", "checkout_drop", "duplicate_charges")]
    + [(kind, "0.1 0.3 0.9") for kind in ("webhook_lag", "revenue_drop", "mrr_drop")]
    + [(kind, "2 10 50") for kind in ("card_testing", "refund_spike", "cancel_spike", "dispute_spike")],
)
def test_more_weighs_more(kind: str, sizes: str) -> None:
    nats = [
        planted(scenario(f"{kind}@+10h,size={size},for=2h", days=0.6, arrivals=True))[0].nats for size in sizes.split()
    ]
    assert nats == sorted(set(nats))
    assert nats[0] > 0


@pytest.mark.parametrize(
    ("nats", "expected"),
    [
        (evidence.binomial(1, 0.1, 0.05), 0.0207),
        (evidence.binomial(1, 0.2, 0.05), 0.140),
        (evidence.binomial(1, 0.5, 0.05), 0.83),
        (evidence.binomial(100, 1, 0.5), 100 * math.log(2)),
        (evidence.binomial(100, 0, 0.5), 100 * math.log(2)),
        (evidence.poisson(0.7, 1), 0.050),
        (evidence.poisson(0.4, 1), 0.23),
        (evidence.poisson(0, 12), 12),
        (evidence.poisson(20, 2), 20 * math.log(10) - 18),
    ],
)
def test_divergences_are_those_of_the_book(nats: float, expected: float) -> None:
    assert nats == pytest.approx(expected, rel=0.02)


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6), st.floats(0, 1), st.floats(0.001, 0.999))
def test_what_is_usual_weighs_nothing_and_nothing_weighs_less(x: float, mu: float, q: float, p: float) -> None:
    assert evidence.poisson(mu, mu) == evidence.binomial(mu, p, p) == 0
    assert evidence.poisson(x, mu) >= -1e-6 * (1 + x + mu)
    assert evidence.binomial(mu, q, p) >= -1e-6 * (1 + mu)


def test_every_kind_is_weighed() -> None:
    assert evidence.WEIGH.keys() == KINDS.keys()
