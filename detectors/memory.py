"""What a backtest remembers in place of the store: what was claimed, refunded and paid of late. It forgets with time.

Claims are kept as 64-bit hashes: a month of a large account is millions of them.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from billingwatch.model import DUE_CLAIM, Paid, RefundBook

DAY = 86_400  # seconds
BRIEF, LONG, LONGEST, PAID = 4 * DAY, 18 * DAY, 40 * DAY, DAY  # remembered for one to two times as long
TRY = "try:"  # how the claims of attempts begin: Stripe retries a renewal for weeks
WINDOW = 3 * DAY  # of the longest detector


class Generations:
    """A set of keys of which those that nobody added for one to two spans are forgotten."""

    def __init__(self, span: int) -> None:
        self._span = span
        self._born = 0
        self._young: set[int] = set()
        self._old: set[int] = set()

    def add(self, keys: Iterable[str], at: int) -> set[str]:
        """The keys that were not there, added now."""
        if at - self._born >= self._span:
            self._born, self._old, self._young = at, self._young, set()
        fresh = {key for key in keys if (hashed := hash(key)) not in self._young and hashed not in self._old}
        self._young.update(map(hash, fresh))
        return fresh


class Memory:
    """One tenant's."""

    def __init__(self) -> None:
        self._events = Generations(BRIEF)
        self._claims = Generations(BRIEF)
        self._tries = Generations(LONG)
        self._dues = Generations(LONGEST)
        self._refunds: tuple[dict[str, RefundBook], dict[str, RefundBook]] = ({}, {})
        self._paid: tuple[dict[str, list[Paid]], dict[str, list[Paid]]] = ({}, {})
        self._refunds_born = self._paid_born = 0

    def first_seen(self, event: str, at: int) -> bool:
        """Whether this event never came before."""
        return bool(self._events.add((event,), at))

    def claim(self, keys: Collection[str], at: int) -> set[str]:
        """The keys never claimed before, claimed now."""
        tries = {key for key in keys if key.startswith(TRY)}
        dues = {key for key in keys if key.startswith(DUE_CLAIM)}
        rest = set(keys) - tries - dues
        return self._tries.add(tries, at) | self._dues.add(dues, at) | self._claims.add(rest, at)

    def refunds(self, charges: Iterable[str]) -> dict[str, RefundBook]:
        """What is known of these charges' refunds."""
        young, old = self._refunds
        return {id_: young.get(id_) or old[id_] for id_ in charges if id_ in young or id_ in old}

    def paid(self, keys: Iterable[str]) -> dict[str, list[Paid]]:
        """What is known of who paid how much."""
        young, old = self._paid
        return {key: [*old.get(key, ()), *young.get(key, ())] for key in keys}

    def keep(self, refunds: Mapping[str, RefundBook], paid: Mapping[str, list[Paid]], at: int) -> None:
        if at - self._refunds_born >= LONG:
            self._refunds_born, self._refunds = at, ({}, self._refunds[0])
        if at - self._paid_born >= PAID:
            self._paid_born, self._paid = at, ({}, self._paid[0])
        self._refunds[0].update(refunds)
        for key, payments in paid.items():
            self._paid[0].setdefault(key, []).extend(payments)


class Crowd:
    """Whom the bad things of the last days happened to: customers by metric, to be counted."""

    def __init__(self) -> None:
        self._seen: dict[str, deque[tuple[int, str]]] = {}

    def add(self, metric: str, created: int, customer: str) -> None:
        seen = self._seen.setdefault(metric, deque())
        seen.append((created, customer))
        while seen and seen[0][0] < created - WINDOW:
            seen.popleft()

    def count(self, metric: str, start: int, end: int) -> int:
        """Different customers in [start, end), epoch seconds."""
        return len({customer for created, customer in self._seen.get(metric, ()) if start <= created < end})
