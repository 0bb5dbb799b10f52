"""Test messages on their way: staged as every alert is, and looked after until they arrived or failed."""

from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct
from psycopg import Connection
from psycopg.rows import class_row

from billingwatch.store import outbox


class Trial(Struct, frozen=True):
    """A test message to one channel. `title` is what was sent, once a sender took it."""

    id: int
    channel: str
    state: str
    verdict: str
    error: str
    title: str
    staged_at: datetime
    ended_at: datetime | None

    @property
    def over(self) -> bool:
        return self.state not in ("staged", "sending")

    @property
    def seconds(self) -> float | None:
        """From staging to the end of its delivery."""
        return (self.ended_at - self.staged_at).total_seconds() if self.ended_at else None


def stage(conn: Connection, channels: Iterable[str], at: datetime) -> list[int]:
    """Write down a test for each channel, due at once; their ids."""
    with conn.transaction():
        return [outbox.stage(conn, None, each, "test", "notify test", at, at, content={}) for each in channels]


def read(conn: Connection, ids: Iterable[int]) -> list[Trial]:
    """How far they are, in the order of their ids."""
    with conn.cursor(row_factory=class_row(Trial)) as cursor:
        cursor.execute(
            """
            SELECT a.id, a.channel, a.state, a.verdict, coalesce(a.error, '') AS error, coalesce(d.title, '') AS title,
                   a.staged_at, d.ended_at
            FROM alerts AS a LEFT JOIN deliveries AS d ON d.id = a.delivery WHERE a.id = ANY(%s) ORDER BY a.id
            """,
            (list(ids),),
        )
        return cursor.fetchall()


def withdraw(conn: Connection, ids: Iterable[int]) -> int:
    """Take back those that no sender has taken: a test that arrives hours later tells nobody anything. How many."""
    return conn.execute(
        """
        UPDATE alerts SET state = 'dropped', verdict = 'dropped: nobody sent it'
        WHERE id = ANY(%s) AND state = 'staged'
        """,
        (list(ids),),
    ).rowcount
