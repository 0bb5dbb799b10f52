"""A few connections to Postgres, shared by requests. One that died is replaced; a store that is away is an error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import Connection
from psycopg_pool import ConnectionPool, PoolTimeout

from billingwatch.store.connection import StoreAwayError, away, parameters

LARGEST = 4  # connections
PATIENCE = 4.0  # seconds; below what a person waits for


class Store:
    """Connections to one database; `open()` and `close()` begin and end it."""

    def __init__(self, database_url: str, patience: float = PATIENCE) -> None:
        # It logs each failed attempt with psycopg's text, in which addresses stand.
        logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
        self._pool = ConnectionPool(
            database_url,
            kwargs=parameters("console"),
            min_size=1,
            max_size=LARGEST,
            timeout=patience,
            check=ConnectionPool.check_connection,
            open=False,
            name="console",
        )

    def open(self) -> None:
        self._pool.open()  # connects beside: a store that is away stops nobody from starting

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection in a transaction. Raises StoreAwayError."""
        try:
            with self._pool.connection() as conn, conn.transaction():
                yield conn
        except PoolTimeout:
            raise StoreAwayError("no connection in time") from None
        except psycopg.Error as error:
            raise away(error) from None
