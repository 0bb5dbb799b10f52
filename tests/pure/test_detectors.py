"""What the shipped detectors say: at their limits, too early, and of shapes that are no incident."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import Fact, Money, Verdict, utc
from detectors.facts import ANY, CHECKOUT, PAYMENT_FAILED, PAYMENT_SUCCEEDED, REFUND, RENEWAL, RETRY
from detectors.failure_rate import FailureRate
from detectors.registry import DETECTORS
from detectors.series import DAY, HOUR, MINUTE, Reading, Series
from detectors.silence import Silence
from detectors.surge import Surge
from detectors.tail import silence, surprise
from detectors.tally import tally

AT = 1_789_380_000 // DAY * DAY + 12 * HOUR - 1  # the last second of a bucket, an hour and a morning
END = AT + 1  # of every window that is judged at AT


def facts(metric: str, count: int, start: int, end: int, stratum: str = "", amount: int = 0) -> list[Fact]:
    """So many of them, spread evenly over [start, end)."""
    times = (start + n * (end - start) // count for n in range(count))
    return [Fact(metric, created, stratum=stratum, currency="usd", amount=amount) for created in times]


def reading(
    told: list[Fact], *, since: int = END - 30 * DAY, newest: int = AT, received: int = AT, at: int = AT
) -> Reading:
    series = Series(tally(told, set(), {})[0])
    return Reading(series, utc(at), utc(since), utc(newest), utc(received))


# Surge: the last hour against the hourly average of the seven days before

SURGE = Surge(metric=REFUND, noun="refunds")


def surged(now: int, week: int, surge: Surge = SURGE, since: int = END - 30 * DAY) -> Verdict:
    past = facts(REFUND, week, max(since, END - HOUR - 7 * DAY), END - HOUR, amount=100) if week else []
    verdict = surge(reading([*past, *facts(REFUND, now, END - HOUR, END, amount=100)] if now else past, since=since))
    assert verdict
    return verdict


@pytest.mark.parametrize(
    ("now", "week", "expected", "limit", "breached", "recovered", "severity"),
    [
        (0, 0, 0, 4, False, True, "high"),
        (4, 0, 0, 4, False, False, "high"),
        (5, 0, 0, 4, True, False, "high"),
        (12, 0, 0, 4, True, False, "high"),
        (13, 0, 0, 4, True, False, "critical"),
        (4, 168, 1, 4, False, False, "high"),
        (5, 168, 1, 4, True, False, "high"),
        (7, 336, 2, 7, False, False, "high"),
        (8, 336, 2, 7, True, False, "high"),
        (3, 336, 2, 7, False, True, "high"),
        (4, 336, 2, 7, False, False, "high"),
        (21, 336, 2, 7, True, False, "high"),
        (22, 336, 2, 7, True, False, "critical"),
        (31, 1680, 10, 31, False, False, "high"),
        (32, 1680, 10, 31, True, False, "high"),
    ],
)
def test_a_surge_is_more_than_three_times_the_average_plus_one_and_five_at_least(
    now: int, week: int, expected: float, limit: float, breached: bool, recovered: bool, severity: str
) -> None:
    verdict = surged(now, week)
    assert (verdict.expected, verdict.limit, verdict.observed) == (expected, limit, now)
    assert (verdict.breached, verdict.recovered, verdict.severity) == (breached, recovered, severity)


@pytest.mark.parametrize(("now", "breached"), [(2, False), (3, True)])
def test_the_least_is_the_smallest_count_that_may_breach(now: int, breached: bool) -> None:
    assert surged(now, 0, Surge(metric=REFUND, noun="refunds", least=3, plus=0.0)).breached is breached


def test_a_surge_says_what_it_saw_and_how_much_money_is_in_it() -> None:
    verdict = surged(8, 336)
    assert verdict.why == "8 refunds in the last hour; usually 2.0 an hour, and more than 7 is unusual"
    assert verdict.at_risk == (Money(800, "usd"),)


@pytest.mark.parametrize(("known", "judged"), [(DAY - 1, False), (DAY, True)])
def test_a_surge_says_nothing_on_the_first_day(known: int, judged: bool) -> None:
    burst = facts(REFUND, 50, END - HOUR, END)
    verdict = SURGE(reading(burst, since=END - HOUR - known))
    assert (verdict is not None) is judged


def test_a_short_history_is_averaged_over_what_there_is_of_it() -> None:
    verdict = surged(7, 96, since=END - HOUR - 2 * DAY)
    assert (verdict.expected, verdict.breached) == (2, False)


def test_a_surge_an_hour_ago_is_none_now() -> None:
    assert not surged(0, 0).breached
    told = facts(REFUND, 50, END - 2 * HOUR, END - HOUR)
    verdict = SURGE(reading(told))
    assert verdict
    assert (verdict.breached, verdict.observed) == (False, 0)


# Failure rate: first attempts that fail more often than this account's do

RATE = FailureRate()
WEEK = [
    *facts(PAYMENT_SUCCEEDED, 940 * 7, END - 7 * DAY - HOUR, END - HOUR, CHECKOUT),
    *facts(PAYMENT_FAILED, 60 * 7, END - 7 * DAY - HOUR, END - HOUR, CHECKOUT),
]
SPOTLESS = facts(PAYMENT_SUCCEEDED, 7000, END - 7 * DAY - HOUR, END - HOUR, CHECKOUT)


def attempts(failed: int, succeeded: int, stratum: str = CHECKOUT, ago: int = 0, span: int = 15 * MINUTE) -> list[Fact]:
    """Attempts of the last quarter of an hour, or of one that long ago."""
    start, end = END - ago - span, END - ago
    told = facts(PAYMENT_FAILED, failed, start, end, stratum, amount=1000) if failed else []
    return told + (facts(PAYMENT_SUCCEEDED, succeeded, start, end, stratum) if succeeded else [])


@pytest.mark.parametrize(
    ("told", "breached"),
    [
        pytest.param(attempts(1, 0), False, id="one attempt, failed"),
        pytest.param(attempts(3, 0), False, id="three attempts, all failed"),
        pytest.param(attempts(4, 0), False, id="four attempts, all failed"),
        pytest.param(attempts(2, 8), False, id="ten attempts, 20 % failed"),
        pytest.param(attempts(3, 17), False, id="twenty attempts, 15 % failed"),
        pytest.param(attempts(41, 17), True, id="41 of 58 failed, on the first day"),
        pytest.param(attempts(12, 0), True, id="twelve of twelve failed, on the first day"),
        pytest.param(attempts(41, 17, RENEWAL), True, id="renewals count as checkouts do"),
        pytest.param(attempts(500, 0, RETRY) + attempts(2, 30), False, id="retries of old failures are ignored"),
        pytest.param(WEEK + attempts(1, 9), False, id="as usual"),
        pytest.param(WEEK + attempts(3, 7), False, id="three of ten, usually 6 %"),
        pytest.param(WEEK + attempts(20, 20), True, id="half of forty, usually 6 %"),
        pytest.param(WEEK + attempts(200, 0, ago=30 * MINUTE), True, id="a wave of them, half an hour ago"),
        pytest.param(WEEK + attempts(200, 0, ago=5 * HOUR) + attempts(1, 15), False, id="a wave that has ended"),
        pytest.param(SPOTLESS + attempts(4, 0), False, id="four of four failed where nothing ever fails"),
        pytest.param(SPOTLESS + attempts(5, 0), True, id="five of five failed where nothing ever fails"),
        pytest.param(WEEK + attempts(0, 500), False, id="more successes than usual"),
        pytest.param(WEEK + attempts(60, 600, span=12 * HOUR), False, id="slowly, within what rates wander"),
        pytest.param(WEEK + attempts(400, 400, span=12 * HOUR), True, id="slowly, half of them over half a day"),
    ],
)
def test_when_failures_are_too_many(told: list[Fact], breached: bool) -> None:
    verdict = RATE(reading(told))
    assert verdict
    assert verdict.breached is breached


def test_nothing_attempted_is_nothing_judged() -> None:
    assert RATE(reading([])) is None
    assert RATE(reading(attempts(50, 0, RETRY))) is None


@given(st.integers(1, 4), st.integers(0, 60), st.booleans())
def test_four_failures_never_open_an_incident(failed: int, succeeded: int, known: bool) -> None:
    verdict = RATE(reading((WEEK if known else []) + attempts(failed, succeeded)))
    assert verdict
    assert not verdict.breached


def test_an_account_whose_payments_often_fail_is_judged_by_its_own_rate() -> None:
    rough = [
        *facts(PAYMENT_SUCCEEDED, 5600, END - 7 * DAY - HOUR, END - HOUR, CHECKOUT),
        *facts(PAYMENT_FAILED, 1400, END - 7 * DAY - HOUR, END - HOUR, CHECKOUT),
    ]
    usual, worse = RATE(reading(rough + attempts(10, 30))), RATE(reading(rough + attempts(60, 2)))
    assert usual
    assert worse
    assert (usual.breached, worse.breached) == (False, True)


def test_a_failure_rate_says_what_it_saw() -> None:
    verdict = RATE(reading(attempts(41, 17)))
    assert verdict
    assert verdict.why == "41 of 58 payments failed in the last 15 min (71%); usually 6%"
    assert (verdict.observed, verdict.window, verdict.severity) == (0.7069, 900, "critical")
    assert verdict.at_risk == (Money(41000, "usd"),)
    assert not verdict.recovered


# Silence: nothing where the account's own rhythm expects a good deal

QUIET = Silence()


def rhythm(hourly: int, days: int, hours: range = range(24), until: int = AT) -> list[Fact]:
    """So many business objects in each of these hours of the day, up to an instant."""
    first = END - 12 * HOUR - days * DAY  # a midnight
    told = []
    for day in range(days + 1):
        for hour in hours:
            start = first + day * DAY + hour * HOUR
            told += [fact for fact in facts(ANY, hourly, start, start + HOUR) if fact.created <= until]
    return told


def silent(told: list[Fact], received: int | None = None, at: int = AT) -> Verdict | None:
    newest = max(fact.created for fact in told)
    since = min(fact.created for fact in told)
    return QUIET(reading(told, since=since, newest=newest, received=received or newest, at=at))


@pytest.mark.parametrize(
    ("hourly", "quiet", "breached"),
    [
        (60, 5 * MINUTE, False),
        (60, 2 * HOUR, True),
        (1, 3 * HOUR, False),
        (2, 11 * HOUR, False),
        (3, 11 * HOUR, True),
        (600, 9 * MINUTE, False),  # not settled: deliveries may be late
        (600, 30 * MINUTE, True),
    ],
)
def test_webhooks_are_silent_where_so_long_a_pause_never_was(hourly: int, quiet: int, breached: bool) -> None:
    verdict = silent(rhythm(hourly, 5, until=AT - quiet))
    assert verdict
    assert verdict.breached is breached


def test_a_night_without_customers_is_no_silence_but_the_morning_after_it_is() -> None:
    told = rhythm(60, 5, range(8, 20), until=END - 12 * HOUR - 4 * HOUR)  # until eight in the evening before
    night = silent(told, at=END - 6 * HOUR)
    morning = silent(told, at=END - 2 * HOUR)
    assert night
    assert morning
    assert (night.breached, night.expected) == (False, 1)  # of the minute before eight
    assert (morning.breached, morning.expected) == (True, 121)


@pytest.mark.parametrize(("ago", "breached"), [(0, False), (9 * MINUTE, False), (10 * MINUTE, True)])
def test_nothing_is_silent_while_anything_arrives_and_nothing_has_recovered_either(ago: int, breached: bool) -> None:
    verdict = silent(rhythm(60, 5, until=AT - 5 * HOUR), received=AT - ago)  # a backfill of old events
    assert verdict
    assert (verdict.breached, verdict.recovered) == (breached, False)


def test_the_silence_is_over_when_a_new_event_came() -> None:
    verdict = silent([*rhythm(60, 5, until=AT - 5 * HOUR), Fact(ANY, AT - 20)])
    assert verdict
    assert (verdict.breached, verdict.recovered) == (False, True)


@pytest.mark.parametrize(("days", "judged"), [(1, False), (2, True)])
def test_an_account_of_two_days_has_no_rhythm_yet(days: int, judged: bool) -> None:
    verdict = silent(rhythm(60, days, until=AT - 3 * HOUR))
    assert (verdict is not None) is judged


# The tail


def tail(count: int, mean: float, variance: float) -> float:
    """-log10 of the probability of `count` or more, by adding up everything below it with 100 digits."""
    with localcontext(prec=100):
        mu, var = Decimal(mean), max(Decimal(variance), Decimal(mean) * Decimal("1.0001"))
        size = mu * mu / (var - mu)
        odds = mu / (mu + size)
        term, below = ((1 - odds).ln() * size).exp(), Decimal(0)
        for k in range(count):
            below += term
            term *= (k + size) / (k + 1) * odds
        return float(-max(1 - below, Decimal("1e-90")).log10())


@given(st.integers(1, 300), st.floats(0.05, 100), st.floats(0.5, 12))
def test_surprise_is_the_exact_tail(count: int, mean: float, spread: float) -> None:
    found = surprise(count, mean, mean * spread)
    exact = tail(count, mean, mean * spread)
    if count <= mean:
        assert found == 0
    elif exact < 40:
        assert found == pytest.approx(exact, rel=1e-6, abs=1e-6)
    else:
        assert found > 39


@given(st.integers(2, 400), st.floats(0.05, 100), st.floats(1, 12))
def test_more_is_more_surprising(count: int, mean: float, spread: float) -> None:
    assert surprise(count + 1, mean, mean * spread) >= surprise(count, mean, mean * spread) - 1e-9


@given(st.floats(0.01, 500), st.floats(1, 12))
def test_silence_is_the_probability_of_nothing(mean: float, spread: float) -> None:
    with localcontext(prec=60):
        mu = Decimal(mean)
        var = max(Decimal(mean * spread), mu * Decimal("1.0001"))
        size = mu * mu / (var - mu)
        exact = float(-((1 - mu / (mu + size)).ln() * size) / Decimal(10).ln())
    assert silence(mean, mean * spread) == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize(
    ("count", "mean", "expected"), [(0, 0.0, 0.0), (1, 0.0, 300.0), (0, 5.0, 0.0), (5, 5.0, 0.0), (10_000, 1.0, 300.0)]
)
def test_surprise_at_its_ends(count: int, mean: float, expected: float) -> None:
    assert surprise(count, mean, mean) == pytest.approx(expected)


# All of them


@pytest.mark.parametrize("name", DETECTORS)
def test_every_detector_is_quiet_on_an_empty_account_and_never_breached_and_recovered(name: str) -> None:
    detector = DETECTORS[name]
    for told in ([], WEEK, WEEK + attempts(60, 2), rhythm(60, 3, until=AT - 2 * HOUR)):
        newest = max((fact.created for fact in told), default=AT)
        verdict = detector(reading(told, newest=newest, received=newest))
        if verdict:
            assert not (verdict.breached and verdict.recovered)
            assert not (verdict.breached and not told)
