"""What counts as found, as noise and as changed: a table of cases, and what holds of any incidents and labels."""

import json
from datetime import timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from billingwatch.model import Tenant, utc
from billingwatch.simulator.incidents import Active, label
from detectors.backtest import Counts, Finding, Seen
from detectors.score import WEEK, Label, Ledger, Raised, delay, difference, score, touches, weeks
from tests.factories import LIVE, NOON, TEST, incident

AT = int(NOON.timestamp())
HOUR = 3600
RULE = "refunds_by_the_hour"


def raised(
    opened: int, resolved: int | None, detector: str = "refund_spike", *, tenant: Tenant = LIVE, **joined: int
) -> Raised:
    """An incident; instants are seconds from noon."""
    metric = "refund.created" if detector in {"refund_spike", RULE} else "payment.failed"
    end = None if resolved is None else utc(AT + resolved)
    found = incident(
        tenant=tenant, detector=detector, metric=metric, opened_at=utc(AT + opened), resolved_at=end, number=opened
    )
    return Raised(found, {detector: AT + opened} | {name: AT + at for name, at in joined.items()})


def planted(start: int = 0, end: int = HOUR, detector: str = "refund_spike", *, nats: float | None = None) -> Label:
    return Label(detector, "default", utc(AT + start), utc(AT + end), nats=nats)


@pytest.mark.parametrize(
    ("found", "minutes"),
    [
        (raised(0, HOUR), 0),
        (raised(600, HOUR), 10),
        (raised(2 * HOUR, None), 120),  # an hour after the end
        (raised(2 * HOUR + 1, None), None),
        (raised(-1, HOUR), None),  # it knew nothing of what was to come
        (raised(-HOUR, 2 * HOUR, "failure_rate", refund_spike=1200), 20),  # it joined what was open
        (raised(600, HOUR, "failure_rate"), None),
        (raised(600, HOUR, RULE), 10),  # a user's rule about the same metric
        (raised(600, HOUR, tenant=TEST), None),
        (raised(600, HOUR, tenant=Tenant("acct_1", True)), None),
    ],
    ids=str,
)
def test_a_label_is_found_by_the_first_sign_of_what_ought_to_find_it(found: Raised, minutes: float | None) -> None:
    assert delay(planted(), [found]) == minutes


@pytest.mark.parametrize(
    ("detector", "by"),
    [
        ("failure_rate", "card_testing"),
        ("card_testing", "failure_rate"),
        ("volume_drop", "webhook_silence"),
        ("webhook_silence", "volume_drop"),
    ],
)
def test_what_looks_alike_finds_each_other(detector: str, by: str) -> None:
    assert delay(planted(detector=detector), [raised(60, 120, by)]) == 1


@pytest.mark.parametrize(
    ("found", "touching"),
    [
        (raised(-HOUR, -1), False),
        (raised(-HOUR, 0), True),
        (raised(-HOUR, None), True),
        (raised(2 * HOUR, 3 * HOUR), True),
        (raised(2 * HOUR + 1, None), False),
        (raised(60, 120, "churn_spike"), True),  # noise is what nothing explains, and something happened here
        (raised(60, 120, tenant=TEST), False),
    ],
    ids=str,
)
def test_an_incident_touches_a_label_when_both_are_of_one_account_and_time(found: Raised, touching: bool) -> None:
    assert touches(found, planted()) is touching


def test_the_record_of_a_week_as_one_would_work_it_out_by_hand() -> None:
    labels = [
        planted(0, HOUR, nats=150),
        planted(50 * HOUR, 51 * HOUR, nats=30),
        planted(90 * HOUR, 91 * HOUR, nats=20),
        planted(20 * HOUR, 21 * HOUR, "failure_rate", nats=11),
    ]
    told = [
        raised(300, HOUR),
        raised(50 * HOUR + 1200, 52 * HOUR),
        raised(70 * HOUR, 71 * HOUR),
        raised(20 * HOUR + 60, 21 * HOUR, "failure_rate"),
    ]
    by_name, total = score(told, labels, 0.5)
    refunds = by_name["refund_spike"]
    assert (refunds.incidents, refunds.noise, refunds.a_week) == (3, 1, 2.0)
    assert (refunds.precision, refunds.recall) == (2 / 3, 2 / 3)
    assert refunds.by_evidence == {">100": (1, 1), "25–100": (1, 1), "12–25": (0, 1)}
    assert (refunds.median, refunds.p90) == (12.5, 20)
    assert by_name["failure_rate"].by_evidence == {}
    assert (total.incidents, total.noise, total.labels, total.found, total.median) == (4, 1, 4, 3, 5)


def test_without_labels_all_is_noise_and_nothing_is_said_of_recall() -> None:
    by_name, total = score([raised(0, 60)], [], 2)
    assert total == by_name["refund_spike"]
    assert (total.noise, total.a_week, total.precision, total.recall, total.p90) == (1, 0.5, 0, None, None)


def test_a_detector_that_missed_its_label_has_a_row() -> None:
    by_name, _ = score([], [planted()], 1)
    assert (by_name["refund_spike"].recall, by_name["refund_spike"].precision) == (0, None)


def test_labels_are_read_as_the_simulator_writes_them_and_without_evidence() -> None:
    written = label(Active("refund_spike", AT, AT + HOUR, 15), "default", True, 33.333)
    assert msgspec.json.decode(msgspec.json.encode(written), type=Label) == planted(nats=33.33)
    plain = json.loads(msgspec.json.encode(written))
    del plain["nats"], plain["livemode"]
    assert msgspec.convert(plain, Label) == planted()
    with pytest.raises(msgspec.ValidationError, match="timezone"):
        msgspec.convert({**plain, "start": "2026-03-10T12:00:00"}, Label)


def test_accounts_count_for_as_long_as_their_events_go_on() -> None:
    counts = Counts(tenants={LIVE: Seen(AT, AT + WEEK), TEST: Seen(AT, AT + WEEK // 2)})
    assert weeks(counts) == 1.5
    assert weeks(Counts()) == 0


def test_the_ledger_keeps_each_incident_as_it_ended_and_when_each_detector_joined() -> None:
    first = incident(number=1, evidence={"signals": [{"detector": "refund_spike"}]})
    both = replace(first, evidence={"signals": [{"detector": "refund_spike"}, {"detector": "churn_spike"}]})
    over = replace(first, state="resolved", resolved_at=NOON + timedelta(hours=1))
    other = replace(first, tenant=TEST)
    ledger = Ledger()
    ledger.add([Finding(AT, first, "first"), Finding(AT + 60, both, None)])
    ledger.add([Finding(AT + 90, other, "first"), Finding(AT + HOUR, over, "resolved")])
    assert ledger.raised == [
        Raised(over, {"refund_spike": AT, "churn_spike": AT + 60}),
        Raised(other, {"refund_spike": AT + 90}),
    ]


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        (raised(0, 60), raised(30, None), True),
        (raised(0, 60), raised(60, 90), True),
        (raised(0, 60), raised(61, 90), False),
        (raised(0, 60), raised(0, 60, tenant=TEST), False),
        (raised(0, 60), raised(0, 60, "churn_spike"), False),
        (raised(0, 60), raised(0, 60, "churn_spike", refund_spike=30), True),
    ],
    ids=str,
)
def test_other_rules_add_and_remove_what_has_no_counterpart(before: Raised, after: Raised, same: bool) -> None:
    assert difference([before], [after]) == (([], []) if same else ([after], [before]))


# What holds of any incidents and labels

DETECTORS = st.sampled_from(["refund_spike", "failure_rate", "card_testing", RULE])
TENANTS = st.sampled_from([LIVE, TEST])
INCIDENTS = st.lists(
    st.builds(
        lambda start, span, detector, tenant: raised(start, span and start + span, detector, tenant=tenant),
        st.integers(0, 100_000),
        st.none() | st.integers(1, 20_000),
        DETECTORS,
        TENANTS,
    ),
    max_size=12,
)
LABELS = st.lists(
    st.builds(
        lambda start, span, detector, nats: planted(start, start + span, detector, nats=nats),
        st.integers(0, 100_000),
        st.integers(1, 20_000),
        DETECTORS,
        st.none() | st.floats(0, 1000),
    ),
    max_size=8,
)


@given(INCIDENTS, LABELS)
def test_detectors_add_up_to_the_total(told: list[Raised], labels: list[Label]) -> None:
    by_name, total = score(told, labels, 1)
    for field in ("incidents", "noise", "labels", "found"):
        assert sum(getattr(each, field) for each in by_name.values()) == getattr(total, field)
    assert 0 <= total.noise <= total.incidents == len(told)
    assert 0 <= total.found <= total.labels == len(labels)
    assert total.median is None or (total.p90 is not None and 0 <= total.median <= total.p90)


@given(INCIDENTS, LABELS)
def test_order_changes_nothing(told: list[Raised], labels: list[Label]) -> None:
    before = score(told, labels, 1)
    assert score(told[::-1], labels[::-1], 1) == before


@given(INCIDENTS, LABELS)
def test_another_label_makes_no_incident_noise(told: list[Raised], labels: list[Label]) -> None:
    for known in range(len(labels)):
        fewer, more = score(told, labels[:known], 1)[1], score(told, labels[: known + 1], 1)[1]
        assert more.noise <= fewer.noise


@given(INCIDENTS, INCIDENTS)
def test_what_one_side_adds_the_other_removes(before: list[Raised], after: list[Raised]) -> None:
    added, removed = difference(before, after)
    assert difference(after, before) == (removed, added)
    assert difference(before, before) == ([], [])
    assert all(each in after for each in added)
    assert difference(removed, added) == (added, removed)
