"""Signed links: the key that signs them, and which were used. Each works once for each act."""

import secrets
from datetime import datetime

from psycopg import Connection

NAME = "links"
LENGTH = 32  # bytes


def key(conn: Connection) -> bytes:
    """The key that signs links, made at random when it is first asked for; two who ask at once get the same."""
    known = _key(conn)
    if known is None:
        conn.execute(
            "INSERT INTO keys (name, value) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING",
            (NAME, secrets.token_bytes(LENGTH)),
        )
        known = _key(conn)
    if known is None:
        raise LookupError("the key is gone again")
    return known


def _key(conn: Connection) -> bytes | None:
    row = conn.execute("SELECT value FROM keys WHERE name = %s", (NAME,)).fetchone()
    return bytes(row[0]) if row else None


def use(conn: Connection, nonce: str, act: str, at: datetime) -> bool:
    """Use it up, in the transaction of the act; False where it was used before."""
    used = conn.execute(
        "INSERT INTO used_links (nonce, act, used_at) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (nonce, act, at)
    )
    return used.rowcount == 1


def used(conn: Connection, nonce: str) -> dict[str, datetime]:
    """The acts for which it was used, and when."""
    return dict(conn.execute("SELECT act, used_at FROM used_links WHERE nonce = %s", (nonce,)).fetchall())


def forget(conn: Connection, before: datetime) -> int:
    """Forget what was used before this instant, where links have expired since; how many."""
    return conn.execute("DELETE FROM used_links WHERE used_at < %s", (before,)).rowcount
