"""What became of a drill's account, and how nothing of it stays."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct
from psycopg import Connection, sql
from psycopg.rows import class_row

from billingwatch.model import DRILL, Tenant
from billingwatch.store import accounts, outbox

LOCK = 0x4472696C  # "Dril"; two drills would clean each other's accounts
# What is kept by account, and by incident; the incidents themselves go between the two.
BY_ACCOUNT = (
    *("accounts", "baselines", "charges", "claims", "deliveries", "digests", "events", "markers", "payers"),
    "rollups",
)
BY_INCIDENT = ("alerts", "feedback", "incident_log")


class Found(Struct, frozen=True):
    """An incident: since when it is one, and what its signals are, as its evidence has them."""

    id: int
    account: str
    opened_at: datetime
    signals: list[dict[str, Any]]

    @property
    def detectors(self) -> frozenset[str]:
        """Everyone who saw it."""
        return frozenset(each["detector"] for each in self.signals)


class Told(Struct, frozen=True):
    """What a channel heard of an incident first, or is to hear."""

    channel: str
    state: str
    verdict: str
    error: str
    staged_at: datetime
    next_try: datetime
    sent_at: datetime | None

    @property
    def over(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in ("sent", "given_up", "dropped")

    @property
    def wait(self) -> timedelta:
        """How long it is or was held back by what the outbox knows."""
        return self.next_try - self.staged_at


def begin(conn: Connection) -> bool:
    """Let nobody else drill for as long as the connection lasts; False where somebody does."""
    return conn.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone() == (True,)


def has_leader(conn: Connection, lock: int) -> bool:
    """Whether a clock holds its lock."""
    row = conn.execute(
        """
        SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database AS d ON d.oid = database
                       WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = %s::bigint::oid
                             AND d.datname = current_database())
        """,
        (lock,),
    ).fetchone()
    return row == (True,)


def incidents(conn: Connection, names: Iterable[str]) -> list[Found]:
    """The incidents of these accounts, oldest first."""
    with conn.cursor(row_factory=class_row(Found)) as cursor:
        cursor.execute(
            """
            SELECT id, account, opened_at, coalesce(evidence -> 'signals', '[]') AS signals
            FROM incidents WHERE account = ANY(%s) ORDER BY id
            """,
            (list(names),),
        )
        return cursor.fetchall()


def told(conn: Connection, incident: int) -> list[Told]:
    """What each channel hears of the incident first."""
    with conn.cursor(row_factory=class_row(Told)) as cursor:
        cursor.execute(
            """
            SELECT DISTINCT ON (channel) channel, state, verdict, coalesce(error, '') AS error, staged_at, next_try,
                   sent_at
            FROM alerts WHERE incident = %s ORDER BY channel, id
            """,
            (incident,),
        )
        return cursor.fetchall()


def stored(conn: Connection, name: str) -> int:
    """How many events of the account are stored."""
    row = conn.execute("SELECT count(*) FROM events WHERE account = %s", (name,)).fetchone()
    return int(row[0]) if row else 0


def leftovers(conn: Connection) -> list[str]:
    """The accounts that drills left behind."""
    rows = conn.execute(
        """
        SELECT account FROM accounts WHERE starts_with(account, %(drill)s)
        UNION SELECT account FROM incidents WHERE starts_with(account, %(drill)s) ORDER BY 1
        """,
        {"drill": DRILL},
    )
    return [account for (account,) in rows]


def clean(conn: Connection, names: Sequence[str]) -> int:
    """Delete everything of these accounts, in one transaction; how many events, incidents and messages that were.

    Raises ValueError where one of them is not a drill's.
    """
    strangers = [name for name in names if not name.startswith(DRILL)]
    if strangers:
        raise ValueError(f"not a drill's account: {', '.join(strangers)}")
    found = 0
    with conn.transaction():
        # Whoever judges them or sends of them ends first; later ones find nothing.
        for name in sorted(names):
            for livemode in (False, True):
                accounts.lock(conn, Tenant(name, livemode))
        ids = _ids(conn, "SELECT id FROM incidents WHERE account = ANY(%s) ORDER BY id FOR UPDATE", names)
        for (channel,) in conn.execute(
            "SELECT DISTINCT channel FROM alerts WHERE incident = ANY(%s) ORDER BY 1", (ids,)
        ).fetchall():
            outbox.lock(conn, channel)
        for table in BY_INCIDENT:
            _delete(conn, table, "incident", ids)
        _delete(conn, "audit", "subject", [f"incident {id_}" for id_ in ids])
        found += _delete(conn, "incidents", "id", ids)
        for table in BY_ACCOUNT:
            count = _delete(conn, table, "account", list(names))
            found += count if table in ("events", "deliveries") else 0
    return found


def _ids(conn: Connection, query: str, names: Sequence[str]) -> list[int]:
    # `query` is a constant of this module
    return [id_ for (id_,) in conn.execute(query, (list(names),)).fetchall()]


def _delete(conn: Connection, table: str, column: str, values: Sequence[object]) -> int:
    query = sql.SQL("DELETE FROM {} WHERE {} = ANY(%s)").format(sql.Identifier(table), sql.Identifier(column))
    return conn.execute(query, (list(values),)).rowcount
