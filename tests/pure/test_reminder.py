"""Who is reminded of what nobody looks after, and when the next ones are told."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from billingwatch.model import Reason, Severity, State
from notify.reminder import Reminder, remind
from notify.route import Route, Routed
from tests.factories import NOON, incident

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
ROUTE = Route(name="routes.1", escalate=("cto", "ceo"), escalate_after=10 * MINUTE, repeat_interval=4 * HOUR)
ROUTED = (Routed("ops", "routes.1 (severity critical)", ROUTE), Routed("mail", "default route"))


class Told(Struct, frozen=True):
    channel: str
    sent_at: datetime | None
    waiting: bool = False
    reason: Reason = "first"
    staged_at: datetime = NOON
    held: bool = False


def due(*rows: Told, severity: Severity = "critical", state: State = "open", at: datetime = NOON) -> list[Reminder]:
    changes: dict[str, Any] = {"severity": severity, "state": state}
    return remind(incident(id=1, **changes), rows, ROUTED, (ROUTE, Route()), at)


def test_a_channel_is_told_again_when_the_interval_is_over() -> None:
    before = due(Told("ops", NOON - 4 * HOUR + MINUTE), Told("mail", NOON), severity="high")
    assert before == []
    again = due(Told("ops", NOON - 4 * HOUR), Told("mail", NOON - HOUR), severity="high")
    assert again == [Reminder("ops", "repeat", "routes.1 (severity critical)")]


def test_the_interval_counts_from_the_last_time_it_was_told() -> None:
    assert due(Told("ops", NOON - 9 * HOUR), Told("ops", NOON - HOUR), severity="low") == []


def test_nothing_is_repeated_where_something_waits_already() -> None:
    assert due(Told("ops", NOON - 9 * HOUR), Told("ops", None, waiting=True), severity="low") == []


def test_what_was_held_back_there_is_no_reminder_of() -> None:
    held = Told("ops", None, held=True, staged_at=NOON - 9 * HOUR)
    assert due(held, severity="low") == []
    assert due(held) == []


def test_a_channel_that_gave_up_is_tried_again_and_holds_up_no_escalation() -> None:
    given_up = Told("ops", None, staged_at=NOON - 5 * HOUR)
    assert [(each.channel, each.reason) for each in due(given_up)] == [
        ("ops", "repeat"),
        ("cto", "escalate"),
        ("ceo", "escalate"),
    ]


def test_what_comes_back_begins_anew() -> None:
    """Who was told of it before it was over is told again in turn, counted from when it came back."""
    before = Told("ops", NOON - 9 * HOUR), Told("cto", NOON - 8 * HOUR, reason="escalate")
    over = Told("ops", NOON - 7 * HOUR, reason="resolved"), Told("cto", NOON - 7 * HOUR, reason="resolved")
    again = Told("ops", NOON - MINUTE)
    mail = Told("mail", NOON - MINUTE)
    assert due(*before, *over, again, mail) == []
    assert [each.channel for each in due(*before, *over, again, mail, at=NOON + 9 * MINUTE)] == ["cto"]


def test_who_is_routed_only_since_it_opened_hears_of_it_too() -> None:
    told = Told("ops", NOON)
    assert due(told, severity="low", at=NOON + MINUTE / 2) == []
    assert due(told, severity="low", at=NOON + MINUTE) == [Reminder("mail", "first", "default route")]
    assert due(told, Told("mail", None, waiting=True), severity="low", at=NOON + MINUTE) == []
    broken = incident(id=1, detector="channel_broken", scope="mail", severity="low")
    assert remind(broken, [told], ROUTED, (), NOON + MINUTE) == []


def test_every_route_that_matched_escalates_though_a_channel_is_anothers() -> None:
    second = Route(name="routes.2", channels=("ops",), escalate=("boss",), escalate_after=5 * MINUTE)
    about = incident(id=1, severity="critical")
    found = remind(about, [Told("ops", NOON - 5 * MINUTE)], ROUTED, (ROUTE, second), NOON)
    assert [(each.channel, each.route) for each in found] == [("boss", "escalation 1 of routes.2: not acknowledged")]


@pytest.mark.parametrize("state", ["acked", "resolved"])
def test_nobody_is_reminded_of_what_is_looked_after(state: State) -> None:
    assert due(Told("ops", NOON - 9 * HOUR), state=state) == []


@pytest.mark.parametrize(
    ("minutes", "channels"),
    [(9, []), (10, ["cto"]), (19, ["cto"]), (20, ["cto", "ceo"]), (200, ["cto", "ceo"])],
)
def test_each_step_of_an_escalation_has_its_time(minutes: int, channels: list[str]) -> None:
    found = due(Told("ops", NOON - minutes * MINUTE))
    assert [(each.channel, each.reason) for each in found] == [(channel, "escalate") for channel in channels]
    assert [each.route for each in found] == [
        f"escalation {level} of routes.1: not acknowledged" for level in range(1, len(channels) + 1)
    ]


def test_who_was_told_already_is_not_escalated_to() -> None:
    assert due(Told("ops", NOON - 15 * MINUTE), Told("cto", NOON - 5 * MINUTE)) == []
    assert due(Told("ops", NOON - 15 * MINUTE), Told("cto", None, waiting=True)) == []


def test_only_what_is_critical_is_escalated() -> None:
    assert due(Told("ops", NOON - 15 * MINUTE), severity="high") == []


def test_escalation_counts_from_the_first_alert_that_arrived() -> None:
    assert due(Told("ops", None, waiting=True)) == []  # it is on its way
    assert len(due(Told("mail", NOON - 12 * MINUTE), Told("ops", NOON - MINUTE))) == 1
