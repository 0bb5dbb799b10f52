"""From facts to what the rollups grow by. What was told before is left out; the caller remembers what was claimed."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from billingwatch.model import Bucket, Fact, RefundBook, Refunded, decimals
from detectors.facts import PAYMENT_FAILED, REFUND, RETRY, SMALL_FAILED, Told

# Five dollars' worth in minor units, roughly and for years, where a unit is worth far less than a dollar.
_FIVE_DOLLARS = """
jpy 750 krw 7000 vnd 125000 idr 8000000 huf 180000 clp 4700 cop 2000000 inr 43000 php 28000 thb 17000 mxn 9000
zar 9000 try 20000 czk 11000 sek 5000 nok 5000 dkk 3400 twd 16000 hkd 3900 pln 2000 brl 2700 rub 45000
""".split()
FIVE_DOLLARS = dict(zip(_FIVE_DOLLARS[::2], map(int, _FIVE_DOLLARS[1::2]), strict=True))
GRAINS = (5, 60)  # minutes

_Growth = defaultdict[tuple[str, str, str, int, int], list[int]]  # a bucket's key -> its count and amount


def claims(told: Iterable[Told]) -> set[str]:
    """Every business object that these facts speak about, as the keys to claim."""
    keys = set()
    for each in told:
        if isinstance(each, Refunded):
            keys.add(_refund_claim(each))
            continue
        if each.claim:
            keys.add(each.claim)
        if each.attempt_of:
            keys.add(_try_claim(each))
    return keys


def charges(told: Iterable[Told]) -> set[str]:
    """The charges whose refunds these facts speak about."""
    return {each.charge for each in told if isinstance(each, Refunded)}


def tally(
    told: Iterable[Told], fresh: set[str], book: dict[str, RefundBook]
) -> tuple[list[Bucket], dict[str, RefundBook]]:
    """What the rollups grow by, and the book's changed charges.

    `fresh` are the claims never made before, `book` what is known of the charges' refunds. Of facts with the
    same claim the earliest by `created` counts, so the order of arrival within a batch changes nothing.
    """
    fresh = set(fresh)
    growth: _Growth = defaultdict(lambda: [0, 0])
    changed: dict[str, RefundBook] = {}
    for each in sorted(told, key=lambda fact: fact.created):
        if isinstance(each, Refunded):
            known = changed.get(each.charge) or book.get(each.charge) or RefundBook(each.currency)
            told_before = _refund_claim(each) not in fresh
            fresh.discard(_refund_claim(each))
            settled, count, amount = settle(known, each, told_before)
            changed[each.charge] = settled
            if count or amount:
                _grow(growth, Fact(REFUND, each.created, currency=each.currency, amount=amount), "", count)
            continue
        if each.claim:
            if each.claim not in fresh:
                continue
            fresh.discard(each.claim)
        stratum = each.stratum
        if each.attempt_of:
            stratum = each.stratum if _try_claim(each) in fresh else RETRY
            fresh.discard(_try_claim(each))
        _grow(growth, each, stratum, 1)
        if each.metric == PAYMENT_FAILED and small(each):
            _grow(growth, msgspec.structs.replace(each, metric=SMALL_FAILED), stratum, 1)
    return [Bucket(*key, *grown) for key, grown in growth.items()], changed


def small(fact: Fact) -> bool:
    """Whether the amount is one that card testers try: five dollars' worth at most."""
    usual: int = 5 * 10 ** decimals(fact.currency)
    return fact.amount <= FIVE_DOLLARS.get(fact.currency, usual)


def settle(known: RefundBook, told: Refunded, told_before: bool) -> tuple[RefundBook, int, int]:
    """What is known after this telling, and by how many refunds and how much money the count grows."""
    if told_before or told.amount <= 0:
        return known, 0, 0
    if told.refund:
        now = msgspec.structs.replace(known, refunds=known.refunds + 1, refund_amount=known.refund_amount + told.amount)
    else:
        now = msgspec.structs.replace(known, totals=known.totals + 1, total_amount=max(known.total_amount, told.amount))
    counted = max(now.refunds, now.totals)
    amount = max(now.refund_amount, now.total_amount)
    now = msgspec.structs.replace(now, counted=counted, counted_amount=amount)
    return now, counted - known.counted, amount - known.counted_amount


def _grow(growth: _Growth, fact: Fact, stratum: str, count: int) -> None:
    for grain in GRAINS:
        span = grain * 60
        grown = growth[fact.metric, stratum, fact.currency, grain, fact.created // span * span]
        grown[0] += count
        grown[1] += fact.amount


def _refund_claim(told: Refunded) -> str:
    """A refund by its id; a charge's total by its amount, for totals arrive in any order and each is one refund."""
    return f"{told.refund or f'{told.charge}={told.amount}'}:{REFUND}"


def _try_claim(fact: Fact) -> str:
    return f"try:{fact.attempt_of}"
