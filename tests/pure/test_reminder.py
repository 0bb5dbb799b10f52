"""Who is reminded of what nobody looks after, and when the next ones are told."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from msgspec import Struct

from billingwatch.model import Severity, State
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


def due(*rows: Told, severity: Severity = "critical", state: State = "open", at: datetime = NOON) -> list[Reminder]:
    changes: dict[str, Any] = {"severity": severity, "state": state}
    return remind(incident(id=1, **changes), rows, ROUTED, at)


def test_a_channel_is_told_again_when_the_interval_is_over() -> None:
    before = due(Told("ops", NOON - 4 * HOUR + MINUTE), severity="high")
    assert before == []
    again = due(Told("ops", NOON - 4 * HOUR), Told("mail", NOON - HOUR), severity="high")
    assert again == [Reminder("ops", "repeat", "routes.1 (severity critical)")]


def test_the_interval_counts_from_the_last_time_it_was_told() -> None:
    assert due(Told("ops", NOON - 9 * HOUR), Told("ops", NOON - HOUR), severity="low") == []


def test_nothing_is_repeated_where_something_waits_already() -> None:
    assert due(Told("ops", NOON - 9 * HOUR), Told("ops", None, waiting=True), severity="low") == []


def test_what_was_never_told_there_is_no_reminder() -> None:
    assert due(Told("ops", None), severity="low") == []


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
    assert due(Told("ops", None, waiting=True)) == []
    assert len(due(Told("mail", NOON - 12 * MINUTE), Told("ops", NOON - MINUTE))) == 1
