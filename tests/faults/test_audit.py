"""The audit itself: on a clean store it finds nothing, and each thing that could be wrong it finds."""

from collections.abc import Callable
from datetime import datetime

import pytest
from psycopg import Connection

from billingwatch.queues import Received
from tests.faults.audit import CLEAN, Audit, audit
from tests.faults.sender import Post
from worker.record import record

FAULTS: dict[str, tuple[str, Callable[[Audit], object]]] = {
    "lost": ("DELETE FROM events WHERE id = %(id)s", lambda found: found.lost),
    "stored twice": (
        """
        INSERT INTO events SELECT account, livemode, id, type, created + interval '1 second', api_version, object_id,
            customer, received_at, payload, raw FROM events WHERE id = %(id)s
        """,
        lambda found: found.twice,
    ),
    "counted twice": (
        "UPDATE rollups SET count = count + 1 WHERE ctid = (SELECT min(ctid) FROM rollups)",
        lambda found: found.miscounted,
    ),
    "amount counted twice": (
        "UPDATE rollups SET amount = amount * 2 WHERE ctid = (SELECT min(ctid) FROM rollups WHERE amount > 0)",
        lambda found: found.miscounted,
    ),
    "never counted": (
        "DELETE FROM rollups WHERE ctid = (SELECT min(ctid) FROM rollups)",
        lambda found: found.miscounted,
    ),
    "refused": (
        "INSERT INTO quarantine (source, received_at, reason, body) VALUES ('default', now(), 'test', 'x')",
        lambda found: found.quarantined,
    ),
}


@pytest.fixture
def acked(conn: Connection, posts: list[Post], now: datetime) -> list[str]:
    """A store with some hundred events, recorded in several batches as workers do."""
    chosen = posts[:300]
    for start in range(0, len(chosen), 70):
        batch = [Received("default", now.timestamp(), post.body) for post in chosen[start : start + 70]]
        record(conn, batch, now)
    return [post.id for post in chosen]


def test_audit_of_a_sound_store_is_clean(conn: Connection, acked: list[str]) -> None:
    assert audit(conn, acked) == CLEAN


@pytest.mark.parametrize("fault", FAULTS)
def test_audit_finds(conn: Connection, acked: list[str], fault: str) -> None:
    change, finding = FAULTS[fault]
    conn.execute(change.encode(), {"id": acked[150]})
    assert finding(audit(conn, acked))
