"""Incidents and their log. A partial unique index allows one open incident a (tenant, detector, scope)."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from psycopg import Connection
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from billingwatch.model import OWN, Incident, Money, State, Tenant

_FIELDS = (
    "detector, metric, scope, state, severity, opened_at, first_breach_at, last_breach_at, clear_since, resolved_at, "
    'observed, expected, "limit", peak, told, "window", why, at_risk, customers, number, evidence'
)


def read_open(conn: Connection, tenant: Tenant) -> list[Incident]:
    """The tenant's incidents that are not resolved."""
    return _read(conn, "account = %s AND livemode = %s AND state <> 'resolved'", (tenant.account, tenant.livemode))


def read_recent(conn: Connection, tenant: Tenant, at: datetime) -> list[Incident]:
    """The tenant's incidents that are not resolved, and those that may come again: resolved within two hours."""
    where = "account = %s AND livemode = %s AND (state <> 'resolved' OR resolved_at > %s::timestamptz - interval '2 h')"
    return _read(conn, where, (tenant.account, tenant.livemode, at))


def read_one(conn: Connection, incident: int) -> Incident | None:
    found = _read(conn, "id = %s", (incident,))
    return found[0] if found else None


def read_some(conn: Connection, ids: Iterable[int]) -> list[Incident]:
    """These incidents, in the order of their ids."""
    return _read(conn, "id = ANY(%s)", (list(ids),))


def scopes(conn: Connection, tenant: Tenant, detector: str) -> list[str]:
    """What the tenant's incidents of this detector are about that are not resolved."""
    rows = conn.execute(
        "SELECT scope FROM incidents WHERE account = %s AND livemode = %s AND detector = %s AND state <> 'resolved'",
        (tenant.account, tenant.livemode, detector),
    )
    return [scope for (scope,) in rows]


def read_unanswered(conn: Connection) -> list[Incident]:
    """Those that nobody has acknowledged."""
    return _read(conn, "state = 'open'", ())


def lock(conn: Connection, incident: int) -> Incident | None:
    """The incident, which nobody else changes until the transaction ends; None where it is acknowledged or over."""
    found = _read(conn, "id = %s AND state = 'open'", (incident,), "FOR UPDATE")
    return found[0] if found else None


def read_causes(conn: Connection, incidents: Iterable[int], detectors: Iterable[str]) -> list[Incident]:
    """What is not resolved of these detectors, of the accounts of these incidents and of BillingWatch itself."""
    where = """
        state <> 'resolved' AND detector = ANY(%s) AND (account, livemode) IN
        (SELECT account, livemode FROM incidents WHERE id = ANY(%s) UNION SELECT %s::text, %s::bool)
    """
    return _read(conn, where, (list(detectors), list(incidents), OWN.account, OWN.livemode))


def read_all(
    conn: Connection,
    *,
    unresolved: bool = False,
    accounts: Sequence[str] = (),
    detectors: Sequence[str] = (),
    severities: Sequence[str] = (),
    states: Sequence[str] = (),
    limit: int = 100,
) -> list[Incident]:
    """The newest incidents first; of these accounts, detectors, severities and states, where any are named."""
    asked = {"account": accounts, "detector": detectors, "severity": severities, "state": states}
    named = {column: list(values) for column, values in asked.items() if values}
    where = " AND ".join(
        ["state <> 'resolved'" if unresolved else "true", *(f"{column} = ANY(%s)" for column in named)]
    )
    return _read(conn, where, tuple(named.values()), f"ORDER BY opened_at DESC, id DESC LIMIT {int(limit)}")


def open_incident(conn: Connection, incident: Incident) -> int | None:
    """Store a new incident; its id, or None where one is open already."""
    values = _values(incident)
    row = conn.execute(
        f"""
        INSERT INTO incidents (account, livemode, {_FIELDS}) VALUES ({", ".join(["%s"] * (len(values) + 2))})
        ON CONFLICT (account, livemode, detector, scope) WHERE state <> 'resolved' DO NOTHING RETURNING id
        """,
        (incident.tenant.account, incident.tenant.livemode, *values),
    ).fetchone()
    return int(row[0]) if row else None


def update(conn: Connection, incident: Incident, before: State) -> bool:
    """Write the incident as it is now; False where its state is no longer what it was `before`: a person changed it."""
    names = ", ".join(f"{field} = %s" for field in _FIELDS.split(", "))
    changed = conn.execute(
        f"UPDATE incidents SET {names} WHERE id = %s AND state = %s", (*_values(incident), incident.id, before)
    )
    return changed.rowcount == 1


def log(
    conn: Connection, incident: int, at: datetime, from_state: State | None, to_state: State, reason: str, who: str
) -> None:
    """Write one transition down; `from_state` is None at birth."""
    conn.execute(
        "INSERT INTO incident_log (incident, at, from_state, to_state, reason, who) VALUES (%s, %s, %s, %s, %s, %s)",
        (incident, at, from_state or "", to_state, reason, who),
    )


def read_log(conn: Connection, incident: int) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT at, from_state, to_state, reason, who FROM incident_log WHERE incident = %s ORDER BY id",
            (incident,),
        )
        return cursor.fetchall()


def set_state(conn: Connection, incident: int, states: Sequence[State], state: State, at: datetime) -> State | None:
    """A person's transition: from one of `states` to `state`; the state before, None where it was in no such state."""
    row = conn.execute(
        """
        UPDATE incidents AS now SET state = %(state)s,
            resolved_at = CASE WHEN %(state)s = 'resolved' THEN %(at)s::timestamptz END
        FROM (SELECT id, state FROM incidents WHERE id = %(id)s FOR UPDATE) AS before
        WHERE now.id = before.id AND before.state = ANY(%(states)s) RETURNING before.state
        """,
        {"state": state, "at": at, "id": incident, "states": list(states)},
    ).fetchone()
    return row[0] if row else None


def _read(conn: Connection, where: str, values: Sequence[object], tail: str = "ORDER BY id") -> list[Incident]:
    with conn.cursor(row_factory=dict_row) as cursor:
        # `where` and `tail` are constants of this module
        cursor.execute(f"SELECT id, account, livemode, {_FIELDS} FROM incidents WHERE {where} {tail}", values)
        return [_incident(row) for row in cursor]


def _incident(row: dict[str, Any]) -> Incident:
    tenant = Tenant(row.pop("account"), row.pop("livemode"))
    at_risk = tuple(msgspec.convert(money, Money) for money in row.pop("at_risk"))
    return Incident(tenant=tenant, at_risk=at_risk, **row)


def _values(incident: Incident) -> tuple[object, ...]:
    return (
        incident.detector,
        incident.metric,
        incident.scope,
        incident.state,
        incident.severity,
        incident.opened_at,
        incident.first_breach_at,
        incident.last_breach_at,
        incident.clear_since,
        incident.resolved_at,
        incident.observed,
        incident.expected,
        incident.limit,
        incident.peak,
        incident.told,
        incident.window,
        incident.why,
        Jsonb([msgspec.to_builtins(money) for money in incident.at_risk]),
        incident.customers,
        incident.number,
        Jsonb(incident.evidence),
    )
