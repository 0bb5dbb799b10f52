"""Every verified event once: batches by COPY, duplicates told apart by the primary key, monthly partitions."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime

import psycopg
from msgspec import Struct
from psycopg import Connection, sql

from billingwatch.model import Tenant
from billingwatch.store.connection import refused

_COLUMNS = "account, livemode, id, type, created, api_version, object_id, customer, received_at, payload, raw"
_BATCH = 1000  # events that are fetched at once
_PARTITION_LOCK = 0x5061727  # any constant that only partition making uses


class NewEvent(Struct, frozen=True):
    """An event as it is stored. `created` and `received_at` are epoch seconds, `body` the verified bytes."""

    tenant: Tenant
    id: str
    type: str
    created: int
    api_version: str
    object_id: str
    customer: str
    received_at: float
    body: bytes

    @property
    def key(self) -> tuple[Tenant, str]:
        return self.tenant, self.id


class Stored(Struct, frozen=True):
    """An event as it lies in the store; `received_at` is epoch seconds."""

    tenant: Tenant
    received_at: float
    body: bytes


class Insertion(Struct, frozen=True):
    """What became of a batch: which keys are news, and what Postgres refused, each with the reason."""

    new: set[tuple[Tenant, str]]
    refused: list[tuple[NewEvent, str]]


def insert(conn: Connection, events: Sequence[NewEvent]) -> Insertion:
    """Store what was never stored. Bisects around rows that Postgres refuses: their neighbours are unharmed.

    A payload that jsonb refuses (NUL, lone surrogates) is kept as raw bytes; only what even that refuses is
    given back. Sorted by key, so that two workers with the same events wait for each other and never deadlock.
    """
    conn.execute(
        f"CREATE TEMP TABLE IF NOT EXISTS incoming ON COMMIT DELETE ROWS AS SELECT {_COLUMNS} FROM events LIMIT 0"
    )
    insertion = Insertion(new=set(), refused=[])
    _insert(conn, sorted(events, key=lambda event: event.key), insertion, raw=False)
    return insertion


def _insert(conn: Connection, events: Sequence[NewEvent], insertion: Insertion, *, raw: bool) -> None:
    if not events:
        return
    try:
        with conn.transaction():
            new = _copy(conn, events, raw=raw)
    except (psycopg.Error, UnicodeEncodeError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        if len(events) > 1:
            middle = len(events) // 2
            _insert(conn, events[:middle], insertion, raw=raw)
            _insert(conn, events[middle:], insertion, raw=raw)
        elif not raw:
            _insert(conn, events, insertion, raw=True)
        else:
            insertion.refused.append((events[0], reason))
    else:
        insertion.new.update(new)


def _copy(conn: Connection, events: Sequence[NewEvent], *, raw: bool) -> set[tuple[Tenant, str]]:
    with conn.cursor() as cursor:
        with cursor.copy(f"COPY incoming ({_COLUMNS}) FROM STDIN") as copy:
            for event in events:
                copy.write_row(
                    (
                        event.tenant.account,
                        event.tenant.livemode,
                        event.id,
                        event.type,
                        datetime.fromtimestamp(event.created, UTC),
                        event.api_version,
                        event.object_id,
                        event.customer,
                        datetime.fromtimestamp(event.received_at, UTC),
                        None if raw else event.body.decode(),
                        event.body if raw else None,
                    )
                )
        cursor.execute(
            f"""
            WITH taken AS (DELETE FROM incoming RETURNING *)
            INSERT INTO events ({_COLUMNS}) SELECT {_COLUMNS} FROM taken ORDER BY account, livemode, id
            ON CONFLICT DO NOTHING RETURNING account, livemode, id
            """
        )
        return {(Tenant(account, livemode), id_) for account, livemode, id_ in cursor}


def _reason(error: Exception) -> str | None:
    """Why the data was refused, without the data; None where the store is at fault."""
    if isinstance(error, psycopg.Error):
        return f"Postgres refuses it: {type(error).__name__}" if refused(error) else None
    return "its text cannot be encoded"


def ensure_months(conn: Connection, months: Iterable[date]) -> None:
    """Make the partitions of these months (their first days) where they lack; outside the caller's transaction.

    Attaching, unlike CREATE … PARTITION OF, lets other workers go on inserting meanwhile.
    """
    for month in sorted(set(months)):
        if conn.execute("SELECT to_regclass(%s)", (_partition(month),)).fetchone() != (None,):
            continue
        after = next_month(month)
        table = sql.Identifier(_partition(month))
        with conn.transaction():
            conn.execute("SELECT pg_advisory_xact_lock(%s)", (_PARTITION_LOCK,))
            conn.execute(sql.SQL("CREATE TABLE IF NOT EXISTS {} (LIKE events INCLUDING ALL)").format(table))
            attached = conn.execute(
                "SELECT 1 FROM pg_inherits WHERE inhrelid = to_regclass(%s)", (_partition(month),)
            ).fetchone()
            if not attached:
                conn.execute(
                    sql.SQL("ALTER TABLE events ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
                        table, sql.Literal(f"{month} 00:00+00"), sql.Literal(f"{after} 00:00+00")
                    )
                )


def drop_months_before(conn: Connection, cutoff: datetime) -> list[str]:
    """Drop the partitions whose every event is older than `cutoff`; their names. Outside any transaction.

    Detached first, since a plain DROP would hold up every worker that inserts.
    """
    partitions = conn.execute(
        """
        SELECT c.relname, i.inhrelid IS NOT NULL FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema::regnamespace
          AND c.relname ~ '^events_[0-9]{4}_[0-9]{2}$'
        ORDER BY 1
        """
    ).fetchall()
    dropped = []
    for name, attached in partitions:
        month = date(int(name[7:11]), int(name[12:14]), 1)
        if datetime.combine(next_month(month), datetime.min.time(), UTC) > cutoff:
            continue
        table = sql.Identifier(name)
        if attached:
            conn.execute(sql.SQL("ALTER TABLE events DETACH PARTITION {} CONCURRENTLY").format(table))
        conn.execute(sql.SQL("DROP TABLE {}").format(table))
        dropped.append(name)
    return dropped


def customers(conn: Connection, tenant: Tenant, types: Sequence[str], start: datetime, end: datetime) -> int:
    """How many customers the events of these types in [start, end) are about."""
    row = conn.execute(
        """
        SELECT count(DISTINCT customer) FROM events
        WHERE account = %s AND livemode = %s AND created >= %s AND created < %s AND type = ANY(%s) AND customer <> ''
        """,
        (tenant.account, tenant.livemode, start, end, list(types)),
    ).fetchone()
    return int(row[0]) if row else 0


def stream(conn: Connection) -> Iterator[Stored]:
    """Every event in the order in which they arrived, in a transaction that lasts as long as the reading does.

    Postgres sorts what it keeps on disk, and hands out some at a time: neither side holds them all in memory.
    """
    with conn.transaction(), conn.cursor("stream", binary=True) as cursor:
        # The sort of millions of events takes longer than any other query may, and who reads may take their time.
        conn.execute("SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0")
        cursor.itersize = _BATCH
        cursor.execute(
            """
            SELECT account, livemode, extract(epoch FROM received_at)::float8,
                   coalesce(convert_to(payload::text, 'UTF8'), raw)
            FROM (SELECT * FROM events ORDER BY received_at, account, livemode, id OFFSET 0) AS sorted
            """
        )
        for account, livemode, received_at, body in cursor:
            yield Stored(Tenant(account, livemode), received_at, bytes(body))


def next_month(month: date) -> date:
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def _partition(month: date) -> str:
    return f"events_{month:%Y_%m}"
