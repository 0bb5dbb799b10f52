"""The rhythm of a simulated account: its volume, hours, weekdays, month, clock, noise and surprises."""

import random
import statistics
from collections import Counter
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.simulator import rhythm, surprise, world
from billingwatch.simulator.stream import simulate
from tests.pure.shop import DAY, HOUR, START, scenario, seen


@pytest.mark.parametrize(("volume", "days", "seeds"), [(5, 60, 3), (50, 14, 2), (500, 7, 1), (50_000, 0.02, 1)])
def test_volume_is_first_attempts_a_day(volume: float, days: float, seeds: int) -> None:
    # Without the first days of a month; the part of a day is one as busy as the whole.
    start = START + 5 * DAY + (16 * HOUR if days < 1 else 0)
    streams = [
        simulate(scenario(seed=seed, start=start, days=days, volume=volume, kind="food")) for seed in range(seeds)
    ]
    opened = sum(event["type"] == "payment_intent.created" for stream in streams for event in stream)
    assert 0.7 < opened / (volume * days * seeds) < 1.4


@pytest.mark.parametrize(
    ("kind", "busy", "quiet", "least"),
    [("b2c", 20, 3, 3.0), ("b2b", 10, 3, 4.0), ("food", 18, 15, 2.0), ("food", 12, 3, 10.0), ("global", 13, 2, 1.2)],
)
def test_each_kind_has_its_hours(kind: rhythm.Kind, busy: int, quiet: int, least: float) -> None:
    for seed in range(5):
        shape = rhythm.Shape(kind, random.Random(seed))
        week = [START + hour * HOUR for hour in range(7 * 24)]
        by_hour: Counter[int] = Counter()
        for at in week:
            by_hour[at // HOUR % 24] += shape.at(at + HOUR // 2)  # type: ignore[assignment]  # sums of weights
        assert by_hour[busy] > least * by_hour[quiet]


@pytest.mark.parametrize(
    ("kind", "busy", "quiet", "least"), [("b2b", 1, 6, 2.5), ("food", 5, 0, 1.3), ("b2c", 5, 1, 1.0)]
)
def test_each_kind_has_its_weekdays(kind: rhythm.Kind, busy: int, quiet: int, least: float) -> None:
    sunday = START
    for seed in range(5):
        shape = rhythm.Shape(kind, random.Random(seed))
        first, second = (shape.at(sunday + (1 + day) * DAY + 12 * HOUR) for day in (busy, quiet))
        assert first > least * second


@pytest.mark.parametrize("kind", rhythm.KINDS)
def test_a_week_is_as_busy_as_its_volume_says(kind: rhythm.Kind) -> None:
    for seed in range(5):
        shape = rhythm.Shape(kind, random.Random(seed))
        assert statistics.mean(shape.at(START + 900 * n) for n in range(7 * 96)) == pytest.approx(1, abs=0.02)


def test_two_accounts_of_a_kind_differ() -> None:
    one, other = (rhythm.Shape("b2c", random.Random(seed)) for seed in (1, 2))
    assert one.at(START) != other.at(START)


def test_usual_shares_are_usual() -> None:
    rates = set()
    for seed in range(3):
        events = list(simulate(scenario(seed=seed, days=7, start=START + 5 * DAY)))  # clear of the 1st to the 3rd
        intents = len(seen(events, "payment_intent.created"))
        first: set[str] = set()
        for event in events:
            if event["type"] == "payment_intent.payment_failed":
                first.add(event["data"]["object"]["id"])
        assert 0.7 * 7 * 300 < intents < 1.25 * 7 * 300
        rates.add(len(first) / intents)
    assert all(0.015 < rate < 0.14 for rate in rates)
    assert max(rates) > 1.15 * min(rates)


def test_b2b_rests_at_the_weekend_and_at_night() -> None:
    events = list(simulate(scenario(kind="b2b", days=14)))
    starts = [e["created"] for e in events if e["type"] == "payment_intent.created" and e["request"]["id"]]
    days = Counter(rhythm.weekday(at) for at in starts)
    hours = Counter(at % DAY // 3600 for at in starts)
    assert days[5] + days[6] < 0.5 * (days[1] + days[2])
    assert hours[3] < 0.4 * hours[10]


def test_people_live_by_the_clock_of_their_zone() -> None:
    quiet = {}
    for zone in ("UTC", "Asia/Tokyo"):
        events = simulate(scenario(kind="food", zone=zone, days=7, volume=400))
        hours = Counter(
            datetime.fromtimestamp(event["created"], ZoneInfo(zone)).hour
            for event in events
            if event["type"] == "payment_intent.created" and event["request"]["id"]
        )
        quiet[zone] = sum(hours[hour] for hour in range(6)) / hours.total()
        assert hours[12] > 4 * hours[15] / 2
    assert max(quiet.values()) < 0.08


def test_business_follows_the_change_of_the_clock() -> None:
    sunday = int(datetime(2026, 10, 25, tzinfo=UTC).timestamp())
    zone = rhythm.Zone("Europe/Berlin")
    noons = [zone.utc(zone.local(sunday + day * DAY) // DAY * DAY + 12 * HOUR) for day in (-1, 1)]
    assert noons[1] - noons[0] == 2 * DAY + HOUR
    shape = rhythm.Shape("food", random.Random(3))
    before, after = (shape.at(zone.local(noon)) for noon in noons)
    assert before / after == pytest.approx(rhythm_of(shape, 5) / rhythm_of(shape, 0))


def rhythm_of(shape: rhythm.Shape, weekday: int) -> float:
    """The weight of noon of a weekday, 0 for Monday."""
    return shape.at(START + (1 + weekday) * DAY + 12 * HOUR)


@given(
    st.integers(946_684_800, 4_000_000_000),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_local_time_and_back(at: int, name: str) -> None:
    zone = rhythm.Zone(name)
    local = zone.local(at)
    shown = datetime.fromtimestamp(at, ZoneInfo(name)).replace(tzinfo=UTC)
    assert local == int(shown.timestamp())
    assert abs(zone.utc(local) - at) <= HOUR
    assert zone.local(zone.utc(local)) == local


def test_renewals_crowd_the_first_of_the_month() -> None:
    events = list(simulate(scenario(days=30, volume=150, start=START + 2 * DAY)))
    days = Counter(rhythm.day_of_month(invoice["created"]) for invoice in seen(events, "invoice.created"))
    assert days[1] > 3 * days[20]
    assert days[15] > 1.5 * days[20]


def test_some_accounts_renew_much_of_a_month_in_the_first_hours_of_the_first() -> None:
    bursts: list[float] = []
    shares: list[float] = []
    for seed in range(12):
        habits = world.habits(random.Random(f"{seed}:habits"), "b2b")
        renewals = [
            invoice["created"]
            for invoice in seen(simulate(scenario(seed=seed, kind="b2b", days=30, volume=12)), "invoice.created")
            if invoice["billing_reason"] == "subscription_cycle"
        ]
        early = START + 2 * DAY
        share = sum(early <= at < early + habits.burst_span for at in renewals) / len(renewals)
        (bursts if habits.burst else shares).append(share)
        assert HOUR <= habits.burst_span <= 3 * HOUR
    assert min(bursts) > 0.15
    assert max(bursts) < 0.65
    assert max(shares) < 0.12


@pytest.mark.parametrize("field", ["hourly", "daily"])
def test_noise_is_of_three_to_twelve_percent(field: str) -> None:
    drawn = [getattr(world.habits(random.Random(n), "b2c"), field) for n in range(300)]
    assert 0.03 <= min(drawn) < 0.035
    assert 0.115 < max(drawn) <= 0.12


@pytest.mark.parametrize(
    ("hourly", "daily", "step", "memory"), [(0.1, 0.0, HOUR, 0.7), (0.0, 0.1, DAY, 0.4), (0.03, 0.0, HOUR, 0.7)]
)
def test_noise_remembers_the_hour_and_the_day_before(hourly: float, daily: float, step: int, memory: float) -> None:
    noise = rhythm.Noise(random.Random(4), hourly, daily)
    values = [noise.at(START + n * step) for n in range(4000)]
    assert statistics.stdev(values) == pytest.approx(hourly + daily, rel=0.1)
    assert statistics.correlation(values[:-1], values[1:]) == pytest.approx(memory, abs=0.06)


def test_failures_are_of_two_to_twelve_percent() -> None:
    drawn = [world.habits(random.Random(n), "b2c").failure for n in range(300)]
    assert 0.02 <= min(drawn) < 0.03
    assert 0.1 < max(drawn) <= 0.12


def test_a_third_of_failures_is_tried_again_mostly_in_vain() -> None:
    tries: dict[str, list[bool]] = {}
    for event in simulate(scenario(days=10, volume=1500)):
        intent = event["data"]["object"]
        if event["type"] in ("payment_intent.payment_failed", "payment_intent.succeeded") and event["request"]["id"]:
            tries.setdefault(intent["id"], []).append(event["type"] == "payment_intent.succeeded")
    failed = [tried for tried in tries.values() if not tried[0]]
    again = [tried[1] for tried in failed if len(tried) > 1]
    assert len(again) / len(failed) == pytest.approx(0.35, abs=0.06)
    assert again.count(False) / len(again) == pytest.approx(0.65, abs=0.08)


def test_refunds_come_in_sessions_and_disputes_in_banking_hours() -> None:
    events = list(simulate(scenario(days=14, volume=600, start=START + DAY)))
    refunds = Counter(refund["created"] // HOUR for refund in seen(events, "refund.created"))
    hourly = [refunds[START // HOUR + 24 + hour] for hour in range(14 * 24)]
    assert statistics.variance(hourly) > 2 * statistics.mean(hourly)
    disputes = seen(events, "charge.dispute.created")
    assert len(disputes) > 5
    for dispute in disputes:
        assert rhythm.weekday(dispute["created"]) < 5
        assert 13 <= dispute["created"] // HOUR % 24 < 21


def test_cancellations_double_on_the_first() -> None:
    days: Counter[int] = Counter()
    for seed in range(2):
        for event in simulate(scenario(seed=seed, kind="b2b", days=3, volume=1000, start=START + DAY)):
            if "cancel_at_period_end" in event["data"].get("previous_attributes", {}):
                days[rhythm.day_of_month(event["created"])] += 1
    usual = (days[31] + days[2]) / 2  # a Monday and a Wednesday around it
    assert 1.3 * usual < days[1] < 3 * usual


def test_surprises_are_rare_and_of_every_sort() -> None:
    days = [surprise.day(7, number) for number in range(3000)]
    sorts = {
        "holiday": [each.holiday for each in days if each.holiday < 1],
        "sale": [each.sale for each in days if each.sale],
        "step": [each.step for each in days if each.step != 1],
        "invoice": [each.invoice / HOUR for each in days if each.invoice],
        "outage": [each.outage[1] / 60 for each in days if each.outage[1]],
    }
    bounds = {"holiday": (0.45, 0.85), "sale": (0.5, 2), "step": (0.8, 1.3), "invoice": (9, 18), "outage": (10, 90)}
    for sort, (low, high) in bounds.items():
        assert 15 < len(sorts[sort]) < 150
        assert low <= min(sorts[sort]) < max(sorts[sort]) <= high


def test_a_sale_draws_for_three_days_and_a_step_stays() -> None:
    number = next(n for n in range(30, 3000) if alone(n) and surprise.day(7, n).sale)
    surprises = surprise.Surprises(7)
    before, *during, after = (surprises.factor(day * DAY) for day in range(number - 1, number + 4))
    pull = surprise.day(7, number).sale
    assert [each / before for each in during] == pytest.approx([1 + pull, 1 + 0.6 * pull, 1 + 0.3 * pull])
    assert after == before
    number = next(n for n in range(30, 3000) if alone(n) and surprise.day(7, n).step != 1)
    surprises = surprise.Surprises(7)
    before, *rest = (surprises.factor(day * DAY) for day in range(number - 1, number + 4))
    assert rest == pytest.approx([before * surprise.day(7, number).step] * 4)


def alone(number: int) -> bool:
    """Whether nothing touches business in the days around, but for that day itself."""
    around = [surprise.day(7, day) for day in range(number - 4, number + 5) if day != number]
    return all(day.holiday == 1 and not day.sale and day.step == 1 for day in around)


def test_an_enterprise_brings_days_of_revenue_in_one_invoice() -> None:
    number = next(n for n in range(START // DAY + 2, START // DAY + 400) if surprise.day(5, n).invoice)
    start = (number - 1) * DAY
    revenue = {}
    for surprises in (False, True):
        charges = seen(simulate(scenario(start=start, days=2, surprises=surprises)), "charge.succeeded")
        revenue[surprises] = [charge["amount"] for charge in charges]
    a_day = sum(revenue[False]) / 2
    assert max(revenue[True]) > 1.2 * a_day
    assert max(revenue[True]) > 3 * max(revenue[False])


@given(st.integers(0, 4_000_000_000), st.integers(1, 31), st.integers(-30, 30))
def test_month_later_keeps_anchor_and_second(at: int, anchor: int, months: int) -> None:
    then, now = (datetime.fromtimestamp(t, UTC) for t in (rhythm.month_later(at, anchor, months), at))
    assert then.time() == now.time()
    assert then.year * 12 + then.month == now.year * 12 + now.month + months
    assert then.day <= anchor
    assert then.day == anchor or (then.day >= 28 and rhythm.day_of_month(int(then.timestamp()) + DAY) == 1)
