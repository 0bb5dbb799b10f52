"""What could not be stored, raw, with the reason. Nothing leaves but by being stored at last."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct
from psycopg import Connection


class Refusal(Struct, frozen=True):
    """A verified body that is no event, or that Postgres refuses. `received_at` is epoch seconds."""

    source: str
    received_at: float
    body: bytes
    reason: str


class Held(Struct, frozen=True):
    """A row of the quarantine, without its body."""

    id: int
    source: str
    received_at: datetime
    quarantined_at: datetime
    reason: str
    bytes: int


def hold(conn: Connection, refusals: Sequence[Refusal]) -> int:
    """Keep these; how many were not kept already (a job that runs twice brings them twice)."""
    kept = 0
    for refusal in refusals:
        kept += conn.execute(
            """
            INSERT INTO quarantine (source, received_at, reason, body) VALUES (%s, %s, %s, %s)
            ON CONFLICT (source, digest) DO NOTHING
            """,
            (refusal.source, datetime.fromtimestamp(refusal.received_at, UTC), refusal.reason, refusal.body),
        ).rowcount
    return kept


def read_all(conn: Connection, limit: int = 1000) -> list[Held]:
    rows = conn.execute(
        """
        SELECT id, source, received_at, quarantined_at, reason, length(body) FROM quarantine ORDER BY id LIMIT %s
        """,
        (limit,),
    )
    return [Held(*row) for row in rows]


def take(conn: Connection, ids: Sequence[int]) -> list[Refusal]:
    """Take these rows out, to try again in the same transaction; what is refused again is held again."""
    rows = conn.execute(
        """
        DELETE FROM quarantine WHERE id = ANY(%s)
        RETURNING source, extract(epoch FROM received_at)::float8, body, reason
        """,
        (list(ids),),
    )
    return [Refusal(source, received_at, bytes(body), reason) for source, received_at, body, reason in rows]
