"""At most one incident is open of a tenant, detector and scope, and every transition is written down."""

from collections.abc import Sequence
from datetime import timedelta

import msgspec
import pytest
from psycopg import Connection
from psycopg.errors import CheckViolation

from billingwatch.model import Incident, Money, State, Tenant
from billingwatch.store import incidents
from billingwatch.store.connection import connect
from tests.factories import LIVE, NOON, TEST, incident
from tests.waiting import together

MINUTE = timedelta(minutes=1)


def opened(conn: Connection, **changes: object) -> Incident:
    """A stored incident, with its id."""
    made = incident(**changes)
    id_ = incidents.open_incident(conn, made)
    assert id_ is not None
    return msgspec.structs.replace(made, id=id_)


def test_incident_comes_back_as_it_was_opened(conn: Connection) -> None:
    made = opened(
        conn,
        scope="price_1",
        at_risk=(Money(182300, "usd"), Money(5000, "jpy")),
        customers=31,
        observed=0.7069,
        clear_since=NOON,
        why="41 of 58 failed – é",
        number=7,
        evidence={
            "signals": [{"detector": "refund_spike", "window": [1, 2], "usual": [0.0, 2.5]}],
            "contributors": [{"dimension": "card brand", "value": "visa – é", "usual": None}],
        },
    )
    assert incidents.read_one(conn, made.id) == made
    assert incidents.read_open(conn, LIVE) == [made]
    assert incidents.read_one(conn, made.id + 1) is None


def test_second_incident_of_the_same_scope_is_not_opened_while_one_is_open_or_acked(conn: Connection) -> None:
    first = opened(conn)
    assert incidents.open_incident(conn, incident()) is None
    incidents.set_state(conn, first.id, ["open"], "acked", NOON)
    assert incidents.open_incident(conn, incident()) is None
    incidents.set_state(conn, first.id, ["acked"], "resolved", NOON)
    assert incidents.open_incident(conn, incident()) is not None
    assert [each.state for each in incidents.read_all(conn)] == ["open", "resolved"]


@pytest.mark.parametrize(
    "changes",
    [{"tenant": TEST}, {"tenant": Tenant("acct_1", True)}, {"detector": "churn_spike"}, {"scope": "price_1"}],
    ids=["mode", "account", "detector", "scope"],
)
def test_incident_of_another_key_opens_beside_it(conn: Connection, changes: dict[str, object]) -> None:
    opened(conn)
    assert incidents.open_incident(conn, incident(**changes)) is not None


def test_eight_who_open_the_same_incident_at_once_open_one(conn: Connection, database_url: str) -> None:
    def open_one() -> int | None:
        with connect(database_url, "tests") as own, own.transaction():
            return incidents.open_incident(own, incident())

    ids = together(*[open_one] * 8)
    (winner,) = [id_ for id_ in ids if id_ is not None]
    assert [each.id for each in incidents.read_all(conn)] == [winner]


def test_update_writes_everything_but_never_over_what_a_person_did_meanwhile(conn: Connection) -> None:
    made = opened(conn)
    worse = msgspec.structs.replace(
        made, severity="critical", peak=40.0, last_breach_at=NOON + MINUTE, customers=3, evidence={"signals": []}
    )
    assert incidents.update(conn, worse, "open")
    assert incidents.read_one(conn, made.id) == worse
    incidents.set_state(conn, made.id, ["open"], "acked", NOON + MINUTE)
    assert not incidents.update(conn, made, "open")
    incidents.set_state(conn, made.id, ["acked"], "resolved", NOON + MINUTE)
    assert not incidents.update(conn, made, "acked")
    found = incidents.read_one(conn, made.id)
    assert found is not None
    assert (found.state, found.severity) == ("resolved", "critical")


def test_incident_that_is_over_opens_again_where_nothing_happened_to_it_since(conn: Connection) -> None:
    over = opened(conn, state="resolved", resolved_at=NOON)
    again = msgspec.structs.replace(over, state="open", resolved_at=None)
    assert incidents.update(conn, again, "resolved")
    assert not incidents.update(conn, again, "resolved")
    assert incidents.read_open(conn, LIVE) == [again]


def test_recent_are_the_tenants_open_ones_and_those_that_ended_within_two_hours(conn: Connection) -> None:
    hour = timedelta(hours=1)
    still = opened(conn, scope="still", opened_at=NOON - 48 * hour)
    fresh = opened(conn, scope="fresh", state="resolved", resolved_at=NOON - 2 * hour + MINUTE)
    opened(conn, scope="old", state="resolved", resolved_at=NOON - 2 * hour)
    opened(conn, tenant=TEST)
    assert incidents.read_recent(conn, LIVE, NOON) == [still, fresh]
    assert incidents.read_open(conn, LIVE) == [still]


# (from, allowed, to, the state before or None)
TRANSITIONS: list[tuple[State, Sequence[State], State, State | None]] = [
    ("open", ("open",), "acked", "open"),
    ("acked", ("open",), "acked", None),
    ("open", ("open", "acked"), "resolved", "open"),
    ("acked", ("open", "acked"), "resolved", "acked"),
    ("resolved", ("open", "acked"), "resolved", None),
    ("resolved", ("open",), "acked", None),
]


@pytest.mark.parametrize(("start", "allowed", "to", "before"), TRANSITIONS)
def test_people_move_an_incident_only_from_the_states_they_may(
    conn: Connection, start: State, allowed: Sequence[State], to: State, before: State | None
) -> None:
    resolved_at = NOON if start == "resolved" else None
    made = opened(conn, state=start, resolved_at=resolved_at)
    assert incidents.set_state(conn, made.id, allowed, to, NOON + MINUTE) == before
    found = incidents.read_one(conn, made.id)
    assert found is not None
    if before is None:
        assert found == made
    else:
        assert (found.state, found.resolved_at) == (to, NOON + MINUTE if to == "resolved" else None)


def test_nobody_moves_an_incident_that_is_not_there(conn: Connection) -> None:
    assert incidents.set_state(conn, 404, ["open"], "acked", NOON) is None


def test_of_two_who_acknowledge_at_once_one_is_told_that_it_was_done(conn: Connection, database_url: str) -> None:
    made = opened(conn)

    def acknowledge() -> State | None:
        with connect(database_url, "tests") as own:
            return incidents.set_state(own, made.id, ["open"], "acked", NOON)

    assert sorted(together(acknowledge, acknowledge), key=str) == [None, "open"]


def test_resolved_without_a_time_cannot_be_stored(conn: Connection) -> None:
    with pytest.raises(CheckViolation):
        incidents.open_incident(conn, incident(state="resolved"))


def test_log_keeps_every_transition_in_order(conn: Connection) -> None:
    made, other = opened(conn), opened(conn, scope="price_1")
    incidents.log(conn, made.id, NOON, None, "open", "first", "billingwatch")
    incidents.log(conn, other.id, NOON, None, "open", "first", "billingwatch")
    incidents.log(conn, made.id, NOON, "open", "acked", "by hand", "ada")
    assert incidents.read_log(conn, made.id) == [
        {"at": NOON, "from_state": "", "to_state": "open", "reason": "first", "who": "billingwatch"},
        {"at": NOON, "from_state": "open", "to_state": "acked", "reason": "by hand", "who": "ada"},
    ]


def test_newest_incidents_are_read_first_and_no_more_than_asked_for(conn: Connection) -> None:
    for n in range(4):
        opened(conn, scope=f"price_{n}", opened_at=NOON + n * MINUTE)
    newest = incidents.read_all(conn, limit=2)
    assert [each.scope for each in newest] == ["price_3", "price_2"]
    incidents.set_state(conn, newest[0].id, ["open"], "resolved", NOON)
    assert [each.scope for each in incidents.read_all(conn, unresolved=True)] == ["price_2", "price_1", "price_0"]
