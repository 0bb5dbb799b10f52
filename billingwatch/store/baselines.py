"""What was learnt of each tenant: the forecast that evaluations read, and the archive the next night goes on from."""

from datetime import datetime

from psycopg import Connection

from billingwatch.model import Tenant


def read_forecast(conn: Connection, tenant: Tenant) -> bytes | None:
    """The packed forecast; None where nothing was learnt yet."""
    return _read(conn, tenant, "forecast")


def read_archive(conn: Connection, tenant: Tenant) -> bytes | None:
    """The packed almanac; None where nothing was learnt yet."""
    return _read(conn, tenant, "archive")


def write(conn: Connection, tenant: Tenant, learned_until: datetime, forecast: bytes, archive: bytes) -> None:
    conn.execute(
        """
        INSERT INTO baselines (account, livemode, learned_until, forecast, archive) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (account, livemode) DO UPDATE SET
            learned_until = excluded.learned_until, forecast = excluded.forecast, archive = excluded.archive
        """,
        (tenant.account, tenant.livemode, learned_until, forecast, archive),
    )


def forget(conn: Connection, tenant: Tenant) -> None:
    """Have the tenant learnt anew from all that was counted."""
    conn.execute("DELETE FROM baselines WHERE account = %s AND livemode = %s", (tenant.account, tenant.livemode))


def _read(conn: Connection, tenant: Tenant, column: str) -> bytes | None:
    row = conn.execute(
        # `column` is a constant of this module: the archive is large, and evaluations need only the forecast
        f"SELECT {column} FROM baselines WHERE account = %s AND livemode = %s",
        (tenant.account, tenant.livemode),
        binary=True,
    ).fetchone()
    return row[0] if row else None
