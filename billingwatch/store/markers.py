"""What people said about spans of time: a deploy, an event that was planned, the day from which all is different."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal

from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Tenant

Kind = Literal["deploy", "expected", "new_normal"]


class Marker(Struct, frozen=True, kw_only=True):
    """A deploy is an instant; an expected span opens nothing and teaches nothing; from a new normal on all is learnt
    anew.
    """

    tenant: Tenant
    kind: Kind
    starts_at: datetime
    ends_at: datetime
    text: str
    who: str
    id: int = 0


def add(conn: Connection, marker: Marker) -> int:
    """Store it, and have the tenant learnt anew where it changes what is normal; its id."""
    row = conn.execute(
        """
        INSERT INTO markers (account, livemode, kind, starts_at, ends_at, text, who)
        VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id
        """,
        (
            marker.tenant.account,
            marker.tenant.livemode,
            marker.kind,
            marker.starts_at,
            marker.ends_at,
            marker.text,
            marker.who,
        ),
    ).fetchone()
    if marker.kind != "deploy":
        _relearn(conn, marker.tenant)
    return int(row[0]) if row else 0


def remove(conn: Connection, id_: int) -> Marker | None:
    """Take it back; what it was, None where there is none."""
    found = _read(conn, "id = %s", (id_,))
    if not found:
        return None
    conn.execute("DELETE FROM markers WHERE id = %s", (id_,))
    if found[0].kind != "deploy":
        _relearn(conn, found[0].tenant)
    return found[0]


def read(conn: Connection, tenant: Tenant) -> list[Marker]:
    """All of the tenant's, in order of time."""
    return _read(conn, "account = %s AND livemode = %s", (tenant.account, tenant.livemode))


def read_all(conn: Connection) -> list[Marker]:
    return _read(conn, "true", ())


def expected(said: Iterable[Marker]) -> tuple[tuple[int, int], ...]:
    """The spans in which people expected something unusual, epoch seconds."""
    return tuple(
        (int(each.starts_at.timestamp()), int(each.ends_at.timestamp())) for each in said if each.kind == "expected"
    )


def _relearn(conn: Connection, tenant: Tenant) -> None:
    conn.execute(
        "UPDATE accounts SET rewritten_at = '-infinity' WHERE account = %s AND livemode = %s",
        (tenant.account, tenant.livemode),
    )


def _read(conn: Connection, where: str, values: Sequence[object]) -> list[Marker]:
    rows = conn.execute(
        # `where` is a constant of this module
        f"""
        SELECT account, livemode, kind, starts_at, ends_at, text, who, id FROM markers WHERE {where}
        ORDER BY starts_at, id
        """,
        values,
    )
    return [
        Marker(
            tenant=Tenant(account, livemode),
            kind=kind,
            starts_at=starts_at,
            ends_at=ends_at,
            text=text,
            who=who,
            id=id_,
        )
        for account, livemode, kind, starts_at, ends_at, text, who, id_ in rows
    ]
