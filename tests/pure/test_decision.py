"""Whether what waits is told: a story for each rule, and what holds of any heap of alerts whatever."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from billingwatch.model import OWN, Alert, Incident, Reason, Severity, Silence, Tenant
from notify import interval
from notify.decision import AGAIN, HOUR, SUMMARY_WAIT, Drop, Hold, Pending, Scene, Verdicts, decide
from notify.policy import INHIBITIONS
from notify.route import Route, Span
from tests.factories import LIVE, NOON
from tests.factories import incident as make

MINUTE = timedelta(minutes=1)
PLAIN = Route()
QUIET = Route(quiet=Span(interval.read("12:00-14:00")))


def alert(id: int = 1, reason: Reason = "first", **changes: Any) -> Alert:
    return Alert(id=id, incident=1, channel="ops", reason=reason, staged_at=NOON, next_try=NOON, **changes)


def pending(incident: Incident, *reasons: Reason, told: datetime | None = None, route: Route = PLAIN) -> Pending:
    alerts = tuple(alert(number, reason) for number, reason in enumerate(reasons or ("first",), 1))
    return Pending(alerts=alerts, incident=incident, route=route, told=told)


def scene(**changes: Any) -> Scene:
    fields: dict[str, Any] = {"at": NOON, "zone": lambda tenant: UTC, "inhibitions": INHIBITIONS}
    return Scene(**(fields | changes))


def resolved(**changes: Any) -> Incident:
    return make(state="resolved", resolved_at=NOON, **changes)


def only(found: Verdicts) -> Hold | Drop:
    """The one answer, where nothing is sent."""
    assert found.bundles == ()
    ((_, answer),) = found.others
    return answer


def sent(found: Verdicts) -> list[list[int]]:
    return [[each.incident.id for each in bundle.pending] for bundle in found.bundles]


# Inhibit


def test_a_drop_is_attached_to_the_silence_that_explains_it() -> None:
    silence = make(id=7, detector="webhook_silence")
    found = decide([pending(make(id=8, detector="volume_drop"))], scene(causes=[silence]))
    assert only(found) == Hold("inhibited by incident 7 (webhook_silence)", NOON + AGAIN, 7)


def test_a_drop_that_ended_while_its_cause_was_open_is_not_told() -> None:
    silence = make(id=7, detector="webhook_silence")
    found = decide([pending(resolved(id=8, detector="volume_drop"), "first", "resolved")], scene(causes=[silence]))
    assert only(found) == Drop("inhibited by incident 7 (webhook_silence) until it was over")


def test_whoever_heard_that_it_began_hears_that_it_is_over_whatever_explains_it_now() -> None:
    silence = make(id=7, detector="webhook_silence")
    ended = pending(resolved(id=8, detector="volume_drop"), "resolved", told=NOON - HOUR)
    assert sent(decide([ended], scene(causes=[silence]))) == [[8]]


def test_no_incident_of_another_account_explains_anything_but_our_own_lag() -> None:
    drop = pending(make(id=8, detector="volume_drop"))
    other = make(id=7, detector="webhook_silence", tenant=Tenant("acct_2", True))
    assert sent(decide([drop], scene(causes=[other]))) == [[8]]
    assert isinstance(only(decide([drop], scene(causes=[make(id=7, detector="pipeline_lag", tenant=OWN)]))), Hold)


def test_failures_explain_missing_revenue_only_where_they_are_severe() -> None:
    drop = pending(make(id=8, detector="revenue_drop"))
    answers = {
        severity: sent(decide([drop], scene(causes=[make(id=7, detector="failure_rate", severity=severity)])))
        for severity in ("low", "medium", "high", "critical")
    }
    assert answers == {"low": [[8]], "medium": [[8]], "high": [], "critical": []}


def test_a_full_redis_explains_absence_only_once_it_refuses_webhooks() -> None:
    silence = pending(make(id=8, detector="webhook_silence", severity="critical"))
    told = {
        severity: sent(
            decide([silence], scene(causes=[make(id=7, detector="redis_high", tenant=OWN, severity=severity)]))
        )
        for severity in ("high", "critical")
    }
    assert told == {"high": [[8]], "critical": []}


def test_a_cause_that_is_over_explains_nothing() -> None:
    over = resolved(id=7, detector="webhook_silence")
    assert sent(decide([pending(make(id=8, detector="volume_drop"))], scene(causes=[over]))) == [[8]]


# Silence


def quiet(**changes: Any) -> Silence:
    fields: dict[str, Any] = {"id": 3, "matchers": {}, "starts_at": NOON - HOUR, "who": "ada", "why": "load test"}
    return Silence(**(fields | changes))


def test_what_a_silence_matches_is_held_until_its_end() -> None:
    silence = quiet(matchers={"account": "def*", "detector": "refund_spike"}, ends_at=NOON + timedelta(seconds=10))
    found = decide([pending(make(id=8))], scene(silences=[silence]))
    assert only(found) == Hold("silenced by 3 (load test)", NOON + timedelta(seconds=10))


def test_a_silence_that_somebody_may_end_early_is_looked_at_again() -> None:
    found = decide([pending(make(id=8))], scene(silences=[quiet(ends_at=NOON + HOUR)]))
    assert only(found) == Hold("silenced by 3 (load test)", NOON + AGAIN)


def test_what_is_still_open_when_the_silence_is_over_is_told_and_what_ended_in_it_is_not() -> None:
    silences = [quiet(ends_at=NOON)]
    assert sent(decide([pending(make(id=8))], scene(silences=silences))) == [[8]]
    ended = pending(resolved(id=8), "first", "resolved")
    found = only(decide([ended], scene(silences=[quiet(ends_at=NOON + HOUR)])))
    assert found == Drop("silenced by 3 (load test) until it was over")


def test_what_a_silence_does_not_match_is_told() -> None:
    for matchers in ({"account": "acct_2"}, {"severity": ">=critical"}, {"livemode": "test"}, {"incident": "9"}):
        assert sent(decide([pending(make(id=8))], scene(silences=[quiet(matchers=matchers)]))) == [[8]]


def test_a_snoozed_incident_is_held_and_its_end_told() -> None:
    snooze = quiet(matchers={"incident": "8"}, ends_at=NOON + HOUR)
    assert isinstance(only(decide([pending(make(id=8), "worse", told=NOON - HOUR)], scene(silences=[snooze]))), Hold)
    ended = pending(resolved(id=8), "resolved", told=NOON - HOUR)
    assert sent(decide([ended], scene(silences=[snooze]))) == [[8]]


def test_a_recurring_silence_holds_in_the_accounts_own_hours() -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    silence = quiet(recurs="20:00-22:00")  # it is 21:00 there
    assert isinstance(only(decide([pending(make(id=8))], scene(silences=[silence], zone=lambda t: tokyo))), Hold)
    assert sent(decide([pending(make(id=8))], scene(silences=[silence]))) == [[8]]


# Group


def test_an_accounts_incidents_are_one_message_the_worst_first() -> None:
    found = decide([pending(make(id=8)), pending(make(id=9, severity="critical"))], scene())
    assert sent(found) == [[9, 8]]
    assert found.bundles[0].why == "grouped: 2 incidents"


def test_two_accounts_are_two_messages() -> None:
    other = make(id=9, tenant=Tenant("acct_2", True), severity="critical")
    assert sent(decide([pending(make(id=8)), pending(other)], scene())) == [[9], [8]]


def test_an_update_waits_for_the_interval_and_news_do_not() -> None:
    updated = {LIVE: NOON - MINUTE}
    worse = pending(make(id=8), "worse", told=NOON - MINUTE)
    assert only(decide([worse], scene(updated=updated))) == Hold("grouped: updates every 5 min", NOON + 4 * MINUTE)
    assert sent(decide([pending(make(id=9))], scene(updated=updated))) == [[9]]
    assert sent(decide([worse], scene(updated={LIVE: NOON - 5 * MINUTE}))) == [[8]]


def test_what_a_channel_never_heard_of_is_news_to_it_however_it_went_on() -> None:
    assert pending(make(id=8), "first", "worse").reason == "first"
    assert pending(make(id=8), "worse").reason == "first"
    assert pending(make(id=8), "escalate").reason == "escalate"
    assert pending(make(id=8), "worse", told=NOON).reason == "worse"
    assert pending(resolved(id=8), "first", "resolved").reason == "resolved"


# Repeat and escalate


def test_a_reminder_of_what_was_acknowledged_meanwhile_is_dropped() -> None:
    for reason in ("repeat", "escalate"):
        found = decide([pending(make(id=8, state="acked"), reason, told=NOON - HOUR)], scene())
        assert only(found) == Drop("acked meanwhile")


def test_reminders_wait_for_no_interval() -> None:
    repeat = pending(make(id=8), "repeat", told=NOON - MINUTE)
    assert sent(decide([repeat], scene(updated={LIVE: NOON - MINUTE}))) == [[8]]


# Budget


def crowd(count: int, severity: Severity = "medium") -> list[Pending]:
    return [
        pending(make(id=number, tenant=Tenant(f"acct_{number}", True), severity=severity))
        for number in range(1, count + 1)
    ]


def test_what_is_beyond_the_budget_waits_for_the_summary() -> None:
    used = [NOON - HOUR + each * MINUTE for each in range(1, 4)]
    found = decide(crowd(3), scene(budget=4, sent=used))
    assert sent(found) == [[1]]
    assert [answer for _, answer in found.others] == [
        Hold("budget: 4 messages in an hour: in the summary", NOON + SUMMARY_WAIT)
    ] * 2


def test_a_minute_after_the_budget_was_used_up_all_the_rest_is_one_summary() -> None:
    used = [NOON - SUMMARY_WAIT] * 4
    found = decide(crowd(1000), scene(budget=4, sent=used))
    assert [(bundle.kind, len(bundle.pending)) for bundle in found.bundles] == [("summary", 1000)]


def test_after_the_summary_nothing_more_goes_out_until_the_hour_has_room() -> None:
    used = [NOON - HOUR / 2] * 4
    found = decide(crowd(2), scene(budget=4, sent=used, summaries=[NOON - MINUTE]))
    assert found.bundles == ()
    assert {answer for _, answer in found.others} == {
        Hold("budget: 4 messages in an hour, and a summary", NOON + HOUR / 2)
    }


def test_what_is_critical_is_told_whatever_the_budget() -> None:
    used = [NOON - MINUTE] * 4
    found = decide(crowd(9, "critical"), scene(budget=4, sent=used, summaries=[NOON - MINUTE]))
    assert len(found.bundles) == 9


# Quiet hours


def test_quiet_hours_hold_what_is_not_critical_until_they_are_over() -> None:
    held = only(decide([pending(make(id=8), route=QUIET)], scene()))
    assert held == Hold("quiet hours (12:00-14:00)", NOON + 2 * HOUR)
    critical = pending(make(id=8, severity="critical"), route=QUIET)
    assert sent(decide([critical], scene())) == [[8]]


def test_what_opened_and_ended_in_quiet_hours_is_told_when_they_are_over() -> None:
    ended = pending(resolved(id=8), "first", "resolved", route=QUIET)
    assert isinstance(only(decide([ended], scene())), Hold)
    assert sent(decide([ended], scene(at=NOON + 2 * HOUR))) == [[8]]


def test_what_sleeps_uses_up_no_budget() -> None:
    asleep = pending(make(id=1, tenant=Tenant("acct_1", True), severity="high"), route=QUIET)
    awake = pending(make(id=2, tenant=Tenant("acct_2", True)))
    assert sent(decide([asleep, awake], scene(budget=1))) == [[2]]


# A channel that fails


def test_nothing_is_tried_while_the_channel_rests() -> None:
    found = decide([pending(make(id=8, severity="critical"))], scene(blocked=(NOON + MINUTE, "it failed too often")))
    assert only(found) == Hold("it failed too often", NOON + MINUTE)


# Of any heap


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["acct_1", "acct_2", "acct_3", "acct_4"]),
            st.sampled_from(["low", "medium", "high", "critical"]),
            st.sampled_from(["open", "acked", "resolved"]),
            st.sampled_from(["first", "worse", "repeat", "escalate", "resolved"]),
            st.booleans(),
            st.booleans(),
        ),
        max_size=30,
    ),
    st.integers(1, 5),
    st.lists(st.integers(0, 3599), max_size=8),
    st.lists(st.integers(0, 3599), max_size=1),
)
def test_everything_is_told_held_or_dropped_and_never_more_than_the_budget(
    heap: list[tuple[str, Severity, Any, Reason, bool, bool]], budget: int, used: list[int], summaries: list[int]
) -> None:
    waiting = [
        pending(
            make(
                id=number,
                tenant=Tenant(account, True),
                severity=severity,
                state=state,
                resolved_at=NOON if state == "resolved" else None,
            ),
            reason,
            told=NOON - 2 * HOUR if told else None,
            route=QUIET if sleeps else Route(),
        )
        for number, (account, severity, state, reason, told, sleeps) in enumerate(heap)
    ]
    before = sorted(NOON - timedelta(seconds=each) for each in used)
    summed = [NOON - timedelta(seconds=each) for each in summaries]
    found = decide(waiting, scene(budget=budget, sent=before, summaries=summed))
    told = [each.incident.id for bundle in found.bundles for each in bundle.pending]
    assert sorted(told + [each.incident.id for each, _ in found.others]) == list(range(len(heap)))
    plain = [bundle for bundle in found.bundles if bundle.kind == "alert" and not bundle.urgent]
    assert len(plain) <= max(0, budget - len(before))
    assert sum(bundle.kind == "summary" for bundle in found.bundles) + len(summed) <= 1
    assert all(answer.until > NOON for _, answer in found.others if isinstance(answer, Hold))
    assert all(answer.why for _, answer in found.others)
