"""Everything that people did, whichever way: who, when, what, on what. Rows are added and never changed."""

from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row


def note(conn: Connection, at: datetime, who: str, act: str, subject: str, detail: str = "") -> None:
    """Write it down, in the transaction that does it. `subject` is as `"incident 12"`, `"silence 3"`, `"marker 7"`."""
    conn.execute(
        "INSERT INTO audit (at, who, act, subject, detail) VALUES (%s, %s, %s, %s, %s)",
        (at, who, act, subject, detail),
    )


def read(conn: Connection, limit: int = 100) -> list[dict[str, Any]]:
    """What was done lately, the newest first."""
    return _read(conn, "true ORDER BY id DESC LIMIT %s", limit)


def read_for(conn: Connection, subject: str) -> list[dict[str, Any]]:
    """What was done to one thing, oldest first."""
    return _read(conn, "subject = %s ORDER BY id", subject)


def _read(conn: Connection, where: str, value: object) -> list[dict[str, Any]]:
    with conn.cursor(row_factory=dict_row) as cursor:
        # `where` is a constant of this module
        cursor.execute(f"SELECT at, who, act, subject, detail FROM audit WHERE {where}", (value,))
        return cursor.fetchall()
