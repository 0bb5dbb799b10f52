"""Spans in which people do not want to be told of what matches; one that is over stays to be looked up."""

from collections.abc import Sequence
from datetime import datetime

from psycopg import Connection
from psycopg.types.json import Jsonb

from billingwatch.model import Silence

_FIELDS = "id, matchers, starts_at, ends_at, recurs, why, who"


def add(conn: Connection, silence: Silence) -> int:
    """Store it; its id."""
    (row,) = conn.execute(
        """
        INSERT INTO silences (matchers, starts_at, ends_at, recurs, why, who) VALUES (%s, %s, %s, %s, %s, %s)
        RETURNING id
        """,
        (
            Jsonb(silence.matchers),
            silence.starts_at,
            silence.ends_at,
            silence.recurs,
            silence.why,
            silence.who,
        ),
    ).fetchall()
    return int(row[0])


def end(conn: Connection, id_: int, at: datetime) -> Silence | None:
    """End it now, or before it began; as it is then, None where there is none or it was over."""
    rows = conn.execute(
        f"""
        UPDATE silences SET starts_at = least(starts_at, %(at)s), ends_at = %(at)s
        WHERE id = %(id)s AND (ends_at IS NULL OR ends_at > %(at)s) RETURNING {_FIELDS}
        """,
        {"id": id_, "at": at},
    ).fetchall()
    return _silence(rows[0]) if rows else None


def read_current(conn: Connection, at: datetime) -> list[Silence]:
    """Those that have begun and are not over, recurring ones in between too."""
    return _read(conn, "starts_at <= %s AND (ends_at IS NULL OR ends_at > %s)", (at, at))


def read_all(conn: Connection, limit: int = 100) -> list[Silence]:
    """All, the newest first."""
    return _read(conn, "true", (limit,), "ORDER BY id DESC LIMIT %s")


def _read(conn: Connection, where: str, values: Sequence[object], tail: str = "ORDER BY id") -> list[Silence]:
    # `where` and `tail` are constants of this module
    rows = conn.execute(f"SELECT {_FIELDS} FROM silences WHERE {where} {tail}", values)
    return [_silence(row) for row in rows]


def _silence(row: Sequence[object]) -> Silence:
    return Silence(**dict(zip(_FIELDS.split(", "), row, strict=True)))  # type: ignore[arg-type]
