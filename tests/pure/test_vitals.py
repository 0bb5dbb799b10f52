"""BillingWatch's own health: what is breached, what a person reads, and that nothing flaps."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from billingwatch.model import OWN, Incident
from detectors.vitals import GAP, MERGE, THRESHOLDS, Change, Memory, Vitals, judge, step
from ingest.queue import HIGH_WATER
from tests.factories import NOON

EVERY = timedelta(seconds=10)
WELL = Vitals(waiting=0.0, workers={"events": 1}, gone={"events": 0.0}, disk=0.4, redis_memory=0.1)

# (vitals, detector, scope, observed, severity, what the sentence says)
BREACHES = [
    (Vitals(waiting=240, depth=1203), "pipeline_lag", "", 240, "medium", "4 min in the queue (1,203 batches)"),
    (Vitals(waiting=240, depth=1), "pipeline_lag", "", 240, "medium", "(1 batch); is `worker events` running?"),
    (Vitals(waiting=400, workers={"events": 1}), "pipeline_lag", "", 400, "high", "1 `worker events` is at it"),
    (Vitals(waiting=1800, workers={"events": 2}), "pipeline_lag", "", 1800, "critical", "2 `worker events` are at it"),
    (Vitals(gone={"events": 31}), "worker_missing", "events", 31, "high", "for 31 s, so nothing is stored; start one"),
    (Vitals(gone={"alerts": 300}), "worker_missing", "alerts", 300, "critical", "nobody is told of anything"),
    (
        Vitals(quarantined=7, quarantined_lately=1),
        "quarantine_growing",
        "",
        1,
        "low",
        "1 event could not be stored within the last hour (7 held in all); `billingwatch quarantine list`",
    ),
    (Vitals(quarantined=90, quarantined_lately=10), "quarantine_growing", "", 10, "medium", "10 events"),
    (Vitals(quarantined=900, quarantined_lately=100), "quarantine_growing", "", 100, "high", "100 events"),
    (Vitals(disk=0.86, database=3_400_000_000), "disk_high", "", 0.86, "high", "86 % full (the database has 3.4 GB)"),
    (Vitals(disk=0.95), "disk_high", "", 0.95, "critical", "95 % full"),
    (Vitals(redis_memory=0.56, depth=9), "redis_high", "", 0.56, "high", "56 % of maxmemory; at 70 % webhooks"),
    (Vitals(redis_memory=0.7), "redis_high", "", 0.7, "critical", "70 % of maxmemory"),
    (Vitals(undelivered=301.0), "alerts_overdue", "", 301, "high", "an alert has been due for 5 min"),
    (Vitals(redis_evicted=3), "redis_evicting", "", 3, "critical", "threw away 3 keys"),
    (Vitals(redis_away=11), "redis_away", "", 11, "critical", "not answered for 11 s: webhooks are refused"),
]


@pytest.mark.parametrize(("vitals", "detector", "scope", "observed", "severity", "said"), BREACHES)
def test_breach_has_a_scope_a_severity_and_a_sentence_to_act_on(
    vitals: Vitals, detector: str, scope: str, observed: float, severity: str, said: str
) -> None:
    (found,) = [each for each in judge(vitals) if each.breached]
    assert (*found.key, found.reading.observed) == (detector, scope, observed)
    assert found.threshold.severity(observed) == severity
    assert said in found.reading.why


@pytest.mark.parametrize(
    "vitals",
    [
        WELL,
        Vitals(),
        Vitals(waiting=60),
        Vitals(gone={"events": 30}),
        Vitals(quarantined=4),
        Vitals(disk=0.85),
        Vitals(redis_memory=0.55),
        Vitals(redis_away=10),
    ],
)
def test_nothing_is_breached_at_the_limit_or_where_nothing_is_known(vitals: Vitals) -> None:
    assert not any(each.breached for each in judge(vitals))


def test_recovery_asks_for_less_than_the_limit_and_the_receiver_refuses_only_above_it() -> None:
    for name, threshold in THRESHOLDS.items():
        assert threshold.clear <= threshold.limit, name
        assert threshold.recovery >= threshold.hold, name
        assert threshold.severities[0][0] <= threshold.limit, name
        assert list(threshold.severities) == sorted(threshold.severities), name
    redis = THRESHOLDS["redis_high"]
    assert redis.limit < HIGH_WATER
    assert redis.severity(HIGH_WATER) == "critical"


class Story:
    """Rounds ten seconds apart; what is stored of them."""

    def __init__(self) -> None:
        self.at = NOON
        self.memory = Memory()
        self.known: dict[int, Incident] = {}
        self.told: list[tuple[datetime, str, Incident]] = []

    def round(self, vitals: Vitals) -> list[str]:
        self.at += EVERY
        self.memory, changes = step(list(self.known.values()), judge(vitals), self.memory, self.at)
        return [*self._store(changes)]

    def rounds(self, vitals: Vitals, seconds: int) -> list[str]:
        return [told for _ in range(seconds // 10) for told in self.round(vitals)]

    def only(self) -> Incident:
        (found,) = self.known.values()
        return found

    def _store(self, changes: Iterable[Change]) -> Iterable[str]:
        for change in changes:
            if change.before is None:
                assert not any(self._same(each, change.incident) for each in self.known.values()), "opened twice"
            id_ = change.incident.id or len(self.known) + 1
            self.known[id_] = replace(change.incident, id=id_)
            if change.reason:
                self.told.append((self.at, change.reason, self.known[id_]))
                yield change.reason

    @staticmethod
    def _same(one: Incident, other: Incident) -> bool:
        return one.state != "resolved" and (one.detector, one.scope) == (other.detector, other.scope)


LATE, NEARLY = replace(WELL, waiting=90.0), replace(WELL, waiting=40.0)


def test_lag_is_told_after_its_hold_and_over_after_its_recovery() -> None:
    story = Story()
    assert story.rounds(LATE, 60) == []  # the hold begins with the first look
    assert story.round(LATE) == ["first"]
    made = story.only()
    assert (made.tenant, made.detector, made.metric, made.number) == (OWN, "pipeline_lag", "pipeline_lag", 0)
    assert (made.first_breach_at, made.opened_at) == (NOON + EVERY, story.at)
    assert (made.observed, made.limit, made.told, made.window) == (90, 60, 90, 60)
    assert story.rounds(LATE, 600) == []
    assert story.rounds(WELL, 120) == []
    assert story.only().clear_since == story.at - timedelta(seconds=110)
    assert story.round(WELL) == ["resolved"]
    assert (story.only().state, story.only().resolved_at) == ("resolved", story.at)


def test_breach_shorter_than_its_hold_is_not_told_and_one_look_below_begins_it_anew() -> None:
    story = Story()
    for _ in range(5):
        assert story.rounds(LATE, 60) == []
        assert story.round(NEARLY) == []


def test_between_the_thresholds_an_open_incident_stays_and_its_recovery_begins_anew() -> None:
    story = Story()
    story.rounds(LATE, 70)
    assert story.rounds(NEARLY, 3600) == []
    for _ in range(5):
        assert story.rounds(WELL, 120) == []
        assert story.round(NEARLY) == []
    assert story.only().state == "open"


def test_what_cannot_be_measured_neither_opens_nor_ends_anything() -> None:
    story = Story()
    story.rounds(LATE, 70)
    assert story.rounds(replace(WELL, waiting=None), 3600) == []
    assert story.only().state == "open"


def test_worse_is_told_at_the_double_and_where_the_severity_rises() -> None:
    story = Story()
    story.rounds(LATE, 70)
    assert story.round(replace(WELL, waiting=179)) == []
    assert story.round(replace(WELL, waiting=209)) == []  # the double, but not by two minutes
    assert story.round(replace(WELL, waiting=210)) == ["worse"]
    assert story.round(replace(WELL, waiting=310)) == ["worse"]  # high by now
    assert (story.only().severity, story.only().told) == ("high", 310)
    assert story.round(replace(WELL, waiting=70)) == []
    assert (story.only().severity, story.only().peak, story.only().observed) == ("high", 310, 70)


def test_breach_soon_after_the_end_is_the_same_incident_and_later_another() -> None:
    story = Story()
    story.rounds(LATE, 70)
    story.rounds(WELL, 130)
    assert story.rounds(LATE, 70) == ["first"]
    assert (story.only().id, story.only().state, story.only().opened_at) == (1, "open", NOON + timedelta(seconds=70))
    story.rounds(WELL, int(MERGE.total_seconds()) + 140)
    assert story.rounds(LATE, 70) == ["first"]
    assert sorted(story.known) == [1, 2]


def test_what_a_person_called_over_is_not_told_again_unless_it_gets_more_severe() -> None:
    story = Story()
    bad = replace(WELL, quarantined=1, quarantined_lately=1)
    assert story.round(bad) == ["first"]
    story.known[1] = replace(story.only(), state="resolved", resolved_at=story.at)
    assert story.rounds(bad, 600) == []
    assert story.round(replace(WELL, quarantined=10, quarantined_lately=10)) == ["first"]


def test_acknowledged_incident_stays_so_until_it_is_over() -> None:
    story = Story()
    story.rounds(LATE, 70)
    story.known[1] = replace(story.only(), state="acked")
    assert story.round(replace(WELL, waiting=310)) == ["worse"]
    assert story.only().state == "acked"
    assert story.rounds(WELL, 130) == ["resolved"]


def test_queues_without_workers_are_incidents_of_their_own() -> None:
    story = Story()
    assert story.rounds(replace(WELL, gone={"events": 60.0, "alerts": 60.0, "evaluate": 0.0}), 40) == ["first", "first"]
    assert {each.scope for each in story.known.values()} == {"events", "alerts"}


def test_after_a_gap_between_looks_hold_and_recovery_begin_anew() -> None:
    story = Story()
    story.rounds(LATE, 60)
    story.at += GAP
    assert story.rounds(LATE, 60) == []
    assert story.round(LATE) == ["first"]
    story.rounds(WELL, 60)
    story.at += 10 * GAP
    assert story.rounds(WELL, 120) == []
    assert story.round(WELL) == ["resolved"]


_SECONDS = st.sampled_from([None, 0.0, 15.0, 16.0, 40.0, 60.0, 61.0, 200.0, 500.0, 4000.0])
_SHARES = st.sampled_from([None, 0.4, 0.45, 0.5, 0.55, 0.56, 0.72, 0.8, 0.84, 0.86, 0.97])
_VITALS = st.builds(
    Vitals,
    waiting=_SECONDS,
    gone=st.dictionaries(st.sampled_from(["events", "alerts"]), st.sampled_from([0.0, 20.0, 31.0, 400.0])),
    quarantined_lately=st.sampled_from([0, 1, 3, 12, 300]),
    disk=_SHARES,
    redis_memory=_SHARES,
    redis_evicted=st.sampled_from([0, 0, 5]),
    redis_away=st.sampled_from([0.0, 5.0, 30.0]),
)


@given(st.lists(st.tuples(_VITALS, st.integers(1, 40)), max_size=12))
def test_nothing_flaps_whatever_is_measured(spells: list[tuple[Vitals, int]]) -> None:
    story = Story()
    for vitals, rounds in spells:
        story.rounds(vitals, 10 * rounds)
    for key in {(each.detector, each.scope) for _, _, each in story.told}:
        threshold = THRESHOLDS[key[0]]
        told = [(at, reason, each.told) for at, reason, each in story.told if (each.detector, each.scope) == key]
        steps = [(at, reason) for at, reason, _ in told if reason != "worse"]
        assert [reason for _, reason in steps] == [("first", "resolved")[n % 2] for n in range(len(steps))]
        for (before, _), (at, reason) in pairwise(steps):
            assert at - before >= (threshold.recovery if reason == "resolved" else threshold.hold)


@given(st.lists(st.sampled_from([16.0, 40.0, 60.0]), max_size=60), st.booleans())
def test_what_moves_between_the_two_thresholds_changes_nothing(waits: list[float], opened: bool) -> None:
    story = Story()
    if opened:
        story.rounds(LATE, 70)
    before = len(story.told)
    for each in waits:
        story.round(replace(WELL, waiting=each))
    assert len(story.told) == before
