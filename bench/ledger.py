"""Whether the database holds what was sent: each event once, counted as an offline recount counts it, and how late."""

from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct
from psycopg import Connection

from bench.rig import number
from detectors.event import Unreadable, read_event
from detectors.facts import LATE, Told, UnknownShape, read_facts
from detectors.tally import claims, tally

_Totals = dict[tuple[int, str, str], tuple[int, int]]  # (grain, metric, currency) -> (count, amount)


class Delays(Struct, frozen=True):
    """Seconds from an event's verification to its commit. Needs a Postgres that tracks commit timestamps."""

    p50: float
    p99: float
    longest: float


def recount(bodies: Sequence[bytes]) -> _Totals:
    """What the rollups must add up to once each of these events is stored, in whatever order they came."""
    told: list[Told] = []
    for body in bodies:
        try:
            told += read_facts(read_event(body))
        except (Unreadable, UnknownShape):
            continue
    totals: dict[tuple[int, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for bucket in tally(told, claims(told), {})[0]:
        total = totals[bucket.grain, bucket.metric, bucket.currency]
        total[0] += bucket.count
        total[1] += bucket.amount
    return {key: (count, amount) for key, (count, amount) in totals.items()}


def differences(conn: Connection, bodies: Sequence[bytes]) -> int:
    """How many totals of the rollups differ from the recount."""
    # How late an object came depends on which of its events came first, and no recount knows.
    rows = conn.execute(
        "SELECT grain, metric, currency, sum(count), sum(amount) FROM rollups WHERE metric <> %s GROUP BY 1, 2, 3",
        (LATE,),
    )
    found = {(grain, metric, currency): (int(count), int(amount)) for grain, metric, currency, count, amount in rows}
    wanted = recount(bodies)
    return sum(found.get(key, (0, 0)) != wanted.get(key, (0, 0)) for key in found.keys() | wanted.keys())


def twice(conn: Connection) -> int:
    """Events that are stored more than once."""
    return number(conn, "SELECT count(*) - count(DISTINCT (account, livemode, id)) FROM events")


def ids(conn: Connection) -> set[str]:
    return {id_ for (id_,) in conn.execute("SELECT id FROM events")}


def delays(conn: Connection, since: float = 0.0) -> Delays:
    """Of the events received from `since` (epoch seconds) on."""
    row = conn.execute(
        """
        WITH way AS (
            SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - received_at)::float8 AS seconds
            FROM events WHERE received_at >= to_timestamp(%s)
        )
        SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds),
               percentile_cont(0.99) WITHIN GROUP (ORDER BY seconds), max(seconds)
        FROM way
        """,
        (since,),
    ).fetchone()
    return Delays(*(float(each or 0) for each in row or (0, 0, 0)))
