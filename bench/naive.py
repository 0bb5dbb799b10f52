"""What a user would write without this project: the plain job that our worker is held against."""

import os

import psycopg

QUEUE = "naive"


def insert_event(payload: bytes) -> None:
    """One connection, one row. A connection cannot be shared over the fork that RQ makes for each job."""
    with psycopg.connect(os.environ["DATABASE_URL"]) as conn:
        conn.execute(
            """
            INSERT INTO naive_events (id, payload) SELECT payload ->> 'id', payload FROM (SELECT %s::jsonb AS payload)
            ON CONFLICT DO NOTHING
            """,
            (payload.decode(),),
        )
