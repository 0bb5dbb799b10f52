"""Compare what was promised with what is kept: the acknowledged ids, the stored rows, and a recount of the rollups."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Tenant
from detectors.event import read_event
from detectors.facts import LATE, Told, UnknownShape, read_facts
from detectors.tally import claims, tally

# (account, livemode, metric, currency, grain in minutes). Which bucket and stratum a payment counts in depends on
# which of the events that tell it came first; its total does not.
Total = tuple[str, bool, str, str, int]


class Audit(Struct, frozen=True):
    """What is wrong with the store; every field is empty where nothing is."""

    lost: tuple[str, ...]  # acknowledged, and neither stored nor in quarantine
    twice: tuple[str, ...]  # stored more than once
    miscounted: dict[Total, tuple[tuple[int, int], tuple[int, int]]]  # (count, amount): counted, and recounted
    quarantined: int


CLEAN = Audit((), (), {}, 0)


def audit(conn: Connection, acked: Iterable[str]) -> Audit:
    """Judge the whole store against the ids that were acknowledged."""
    stored = Counter(id_ for (id_,) in conn.execute("SELECT id FROM events"))
    counted, recounted = _count(conn), _recount(conn)
    held = conn.execute("SELECT count(*) FROM quarantine").fetchone()
    return Audit(
        lost=tuple(sorted(set(acked) - stored.keys())),
        twice=tuple(sorted(id_ for id_, times in stored.items() if times > 1)),
        miscounted={
            key: (counted.get(key, (0, 0)), recounted.get(key, (0, 0)))
            for key in sorted(counted.keys() | recounted.keys())
            if counted.get(key, (0, 0)) != recounted.get(key, (0, 0))
        },
        quarantined=int(held[0]) if held else 0,
    )


def _count(conn: Connection) -> dict[Total, tuple[int, int]]:
    rows = conn.execute(
        """
        SELECT account, livemode, metric, currency, grain, sum(count)::bigint, sum(amount)::bigint FROM rollups
        WHERE metric <> %s GROUP BY account, livemode, metric, currency, grain
        """,
        (LATE,),  # how late an object came depends on which of its events came first
    )
    return {
        (account, livemode, metric, currency, grain): (count, amount)
        for account, livemode, metric, currency, grain, count, amount in rows
        if count or amount
    }


def _recount(conn: Connection) -> dict[Total, tuple[int, int]]:
    """What the rollups should be: every stored event read in one go, as if it had come in one batch."""
    told: dict[Tenant, list[Told]] = defaultdict(list)
    for account, livemode, payload, raw in conn.execute("SELECT account, livemode, payload::text, raw FROM events"):
        try:
            told[Tenant(account, livemode)] += read_facts(read_event(raw or payload.encode()))
        except UnknownShape:
            continue
    totals: dict[Total, tuple[int, int]] = {}
    for tenant, facts in told.items():
        for bucket in tally(facts, claims(facts), {})[0]:
            key = (tenant.account, tenant.livemode, bucket.metric, bucket.currency, bucket.grain)
            count, amount = totals.get(key, (0, 0))
            totals[key] = (count + bucket.count, amount + bucket.amount)
    return {key: total for key, total in totals.items() if any(total)}
