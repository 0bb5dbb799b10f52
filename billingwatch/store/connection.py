"""Open a connection, and tell what an error means: the data was refused, or the store is away."""

from typing import Any

import psycopg
from psycopg import Connection

APPLICATION = "billingwatch"
STATEMENT_TIMEOUT = 25_000  # milliseconds; below every job's own time limit
_CONNECT_TIMEOUT = 3  # seconds


class StoreAwayError(Exception):
    """Postgres does not answer or cannot work just now; the same call may succeed later."""


class RefusedError(Exception):
    """Postgres refuses the data itself; trying again cannot help."""


def connect(database_url: str, name: str) -> Connection:
    """An autocommit connection; `conn.transaction()` makes the transactions. Raises StoreAwayError."""
    try:
        return psycopg.connect(database_url, **parameters(name))
    except psycopg.OperationalError as error:
        raise away(error) from None


def parameters(name: str) -> dict[str, Any]:
    """How every connection of ours is made, for a pool that makes its own."""
    return {
        "autocommit": True,
        "connect_timeout": _CONNECT_TIMEOUT,
        "application_name": f"{APPLICATION} {name}",
        "options": f"-c statement_timeout={STATEMENT_TIMEOUT} -c idle_in_transaction_session_timeout=60000 "
        "-c timezone=UTC",
        # A vanished host is noticed in half a minute, not in the two hours of the kernel's default.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
    }


def refused(error: psycopg.Error) -> bool:
    """Whether the data itself is at fault (class 22, 23) or beyond a limit (54): trying again cannot help."""
    # What psycopg refuses before it is sent, such as NUL in text, is a DataError without a state.
    return isinstance(error, psycopg.DataError) or (error.sqlstate or "")[:2] in {"22", "23", "54"}


def away(error: psycopg.Error) -> StoreAwayError:
    """The error without its text, in which Postgres quotes rows and psycopg quotes addresses."""
    return StoreAwayError(f"{type(error).__name__} {error.sqlstate or ''}".strip())
