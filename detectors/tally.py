"""From facts to what the rollups grow by. What was told before is left out; the caller remembers what was claimed."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec

from billingwatch.model import Bucket, Fact, Paid, RefundBook, Refunded, decimals
from detectors.facts import (
    ANY,
    ARRIVED,
    CARD,
    DUPLICATE,
    LATE,
    PAYMENT_FAILED,
    PAYMENT_SUCCEEDED,
    PEOPLE,
    REFUND,
    RETRY,
    SMALL_FAILED,
    Told,
)
from detectors.filter import Filter, answers

# Five dollars' worth in minor units, roughly and for years, where a unit is worth far less than a dollar.
_FIVE_DOLLARS = """
jpy 750 krw 7000 vnd 125000 idr 8000000 huf 180000 clp 4700 cop 2000000 inr 43000 php 28000 thb 17000 mxn 9000
zar 9000 try 20000 czk 11000 sek 5000 nok 5000 dkk 3400 twd 16000 hkd 3900 pln 2000 brl 2700 rub 45000
""".split()
FIVE_DOLLARS = dict(zip(_FIVE_DOLLARS[::2], map(int, _FIVE_DOLLARS[1::2]), strict=True))
FINE, COARSE = 300, 3600  # seconds, the grains of the rollups
TWICE = 600  # seconds within which the same payer pays the same amount by mistake
TARDY, STALE = 300, 6 * 3600  # seconds from `created` to arrival: late from, and too old for lag from, as a replay is

# (metric, stratum, currency, start of the finest bucket) -> count and amount
_Growth = defaultdict[tuple[str, str, str, int], list[int]]


class Growth(NamedTuple):
    """What a batch adds: to the rollups, to the book of refunds (whole, of the charges that changed), to the payers."""

    buckets: list[Bucket]
    refunds: dict[str, RefundBook]
    paid: dict[str, list[Paid]]


def claims(told: Iterable[Told], filters: Sequence[Filter] = ()) -> set[str]:
    """Every business object that these facts speak about, as the keys to claim."""
    asked = {each.asks for each in filters} - {""}
    keys = set()
    for each in told:
        if isinstance(each, Refunded):
            keys.add(_refund_claim(each))
            continue
        if each.claim:
            keys.add(each.claim)
        if each.undoes:
            keys.add(each.undoes)
        if each.attempt_of:
            keys.add(_try_claim(each))
            if each.metric == PAYMENT_SUCCEEDED and each.payer:
                keys.add(_payer_claim(each))
            for asks in asked:
                if answers(each, asks):
                    keys |= {f"{each.claim}:{asks}", f"{_try_claim(each)}:{asks}"}
    return keys


def charges(told: Iterable[Told]) -> set[str]:
    """The charges whose refunds these facts speak about."""
    return {each.charge for each in told if isinstance(each, Refunded)}


def payments(told: Iterable[Told], fresh: set[str]) -> dict[str, list[Paid]]:
    """The successes never told before by who paid how much: the keys that `tally` wants to know the `recent` of."""
    found: dict[str, list[Paid]] = {}
    for each in told:
        if (
            isinstance(each, Fact)
            and each.payer
            and each.metric == PAYMENT_SUCCEEDED
            and each.amount > 0
            and _payer_claim(each) in fresh
        ):
            key = f"{each.payer}|{each.currency}|{each.amount}"
            found.setdefault(key, []).append(Paid(each.created, each.attempt_of, each.invoiced))
    return found


def tally(
    told: Iterable[Told],
    fresh: set[str],
    book: Mapping[str, RefundBook],
    recent: Mapping[str, Sequence[Paid]] | None = None,
    filters: Sequence[Filter] = (),
) -> Growth:
    """What the rollups grow by, and what to remember.

    `fresh` are the claims never made before, `book` what is known of the charges' refunds, `recent` what is known
    of the payers of `payments`, from TWICE before the first to TWICE after the last of them. Of facts with the same
    claim the earliest by `created` counts, so the order of arrival within a batch changes nothing.
    """
    told = sorted(told, key=attrgetter("created"))
    growth: _Growth = defaultdict(lambda: [0, 0])
    later, paid = _pairs(payments(told, fresh), recent or {})
    for fact in later:
        _grow(growth, fact, "", filters)
    asking = [each for each in filters if each.asks]
    plain = [each for each in filters if not each.asks]
    if asking:
        _grow_asked(growth, told, fresh, asking)
    fresh = set(fresh)
    changed: dict[str, RefundBook] = {}
    pulses: dict[str, list[Fact]] = {}
    for each in told:
        if isinstance(each, Refunded):
            known = changed.get(each.charge) or book.get(each.charge) or RefundBook(each.currency)
            settled = changed[each.charge] = settle(known, each, _refund_claim(each) not in fresh)
            fresh.discard(_refund_claim(each))
            _grow_refund(growth, each, known, settled, filters)
            continue
        if each.claim and each.claim not in fresh:
            continue
        if each.metric == ANY:
            pulses.setdefault(each.claim, []).append(each)
            continue
        fresh.discard(each.claim)
        if each.undoes and each.undoes in fresh:
            fresh.discard(each.undoes)  # it was not told yet, and now it never counts
        elif each.attempt_of:
            stratum = each.stratum if _try_claim(each) in fresh else RETRY
            fresh.discard(_try_claim(each))
            for fact in _tellings(each):
                _grow(growth, fact, stratum, plain)
        else:
            _grow(growth, each, each.stratum, filters)
    for tellings in pulses.values():
        pulse = tellings[0] if len(tellings) == 1 else min(tellings, key=attrgetter("created", "received"))
        _grow(growth, pulse, pulse.stratum, filters)
        if pulse.stratum == PEOPLE:
            _arrive(growth, pulse)
    return Growth(_buckets(growth), changed, paid)


def small(fact: Fact) -> bool:
    """Whether the amount is one that card testers try: five dollars' worth at most."""
    usual: int = 5 * 10 ** decimals(fact.currency)
    return fact.amount <= FIVE_DOLLARS.get(fact.currency, usual)


def settle(known: RefundBook, told: Refunded, told_before: bool) -> RefundBook:
    """What is known after this telling. `counted` grows by the refunds that it adds, `counted_amount` by the money."""
    if told_before or told.amount <= 0:
        return known
    if told.refund:
        now = msgspec.structs.replace(known, refunds=known.refunds + 1, refund_amount=known.refund_amount + told.amount)
    else:
        now = msgspec.structs.replace(known, totals=known.totals + 1, total_amount=max(known.total_amount, told.amount))
    return msgspec.structs.replace(
        now, counted=max(now.refunds, now.totals), counted_amount=max(now.refund_amount, now.total_amount)
    )


def _pairs(
    new: Mapping[str, Sequence[Paid]], recent: Mapping[str, Sequence[Paid]]
) -> tuple[list[Fact], dict[str, list[Paid]]]:
    """The later ones of two payments that should be one, and the payments to remember.

    What follows another payment with these and did not without them counts now: whichever of two is told first.
    """
    later = []
    remembered = {}
    for key, paid in new.items():
        known = {each.attempt: each for each in recent.get(key, ())}
        added: dict[str, Paid] = {}
        for each in sorted(paid):
            if each.attempt not in known:
                added.setdefault(each.attempt, each)
        if added:
            remembered[key] = [*added.values()]
        if len(known) + len(added) > 1:
            _, currency, amount = key.rsplit("|", 2)
            follow = _followers([*known.values(), *added.values()]) - _followers(known.values())
            later += [Fact(DUPLICATE, each.created, currency=currency, amount=int(amount)) for each in sorted(follow)]
    return later, remembered


def _followers(paid: Iterable[Paid]) -> set[Paid]:
    """The payments with another one shortly before them. Two invoices may well ask for the same amount at once."""
    found = set()
    newest = newest_of_none = float("-inf")  # of any payment, and of those that no invoice asked for
    for each in sorted(paid):
        if each.created - (newest_of_none if each.invoiced else newest) <= TWICE:
            found.add(each)
        newest = each.created
        if not each.invoiced:
            newest_of_none = each.created
    return found


def _grow(growth: _Growth, fact: Fact, stratum: str, filters: Iterable[Filter]) -> None:
    grown = growth[fact.metric, stratum, fact.currency, fact.created - fact.created % FINE]
    grown[0] += fact.count
    grown[1] += fact.amount
    if filters:
        _grow_rules(growth, fact, stratum, filters)


def _grow_rules(growth: _Growth, fact: Fact, stratum: str, filters: Iterable[Filter]) -> None:
    for each in filters:
        if each.matches(fact, stratum):
            _grow(growth, msgspec.structs.replace(fact, metric=each.counted), stratum, ())


def _grow_refund(
    growth: _Growth, told: Refunded, known: RefundBook, settled: RefundBook, filters: Sequence[Filter]
) -> None:
    count, amount = settled.counted - known.counted, settled.counted_amount - known.counted_amount
    fact = Fact(REFUND, told.created, currency=told.currency, count=count, amount=amount)
    if count or amount:
        _grow(growth, fact, "", [each for each in filters if not each.asks])
    if filters and settled.totals > known.totals:  # of refunds only the charge knows the card
        count, amount = settled.totals - known.totals, settled.total_amount - known.total_amount
        dims = {"brand": told.brand, "country": told.country}
        asking = [each for each in filters if each.asks]
        _grow_rules(growth, msgspec.structs.replace(fact, count=count, amount=amount, **dims), "", asking)


def _grow_asked(growth: _Growth, told: Iterable[Told], fresh: set[str], filters: Iterable[Filter]) -> None:
    """Count payments for the rules that ask for a card or a price.

    Not every telling of a payment knows them. Those that do are counted by claims of their own, so that it does
    not matter which telling came first.
    """
    fresh = set(fresh)
    asked: dict[str, list[Filter]] = defaultdict(list)
    for rule in filters:
        asked[rule.asks].append(rule)
    for each in told:
        if isinstance(each, Refunded) or not each.attempt_of:
            continue
        for asks, rules in asked.items():
            claim, first = f"{each.claim}:{asks}", f"{_try_claim(each)}:{asks}"
            if claim in fresh and answers(each, asks):
                stratum = each.stratum if first in fresh else RETRY
                fresh -= {claim, first}
                for fact in _tellings(each):
                    _grow_rules(growth, fact, stratum, rules)


def _arrive(growth: _Growth, pulse: Fact) -> None:
    start = pulse.received - pulse.received % FINE
    growth[ARRIVED, "", "", start][0] += 1
    if TARDY < pulse.received - pulse.created <= STALE:
        growth[LATE, "", "", start][0] += 1


def _buckets(growth: _Growth) -> list[Bucket]:
    """What grew, in both grains; what went up and down again is left out."""
    hours: _Growth = defaultdict(lambda: [0, 0])
    for (metric, stratum, currency, start), grown in growth.items():
        hour = hours[metric, stratum, currency, start - start % COARSE]
        hour[0] += grown[0]
        hour[1] += grown[1]
    return [
        Bucket(metric, stratum, currency, grain // 60, start, count, amount)
        for grain, grains in ((FINE, growth), (COARSE, hours))
        for (metric, stratum, currency, start), (count, amount) in grains.items()
        if count or amount
    ]


def _tellings(payment: Fact) -> tuple[Fact, ...]:
    """The payment, and once more as what it is besides."""
    if payment.metric == PAYMENT_FAILED and small(payment):
        return payment, msgspec.structs.replace(payment, metric=SMALL_FAILED)
    return (payment,)


def _refund_claim(told: Refunded) -> str:
    """A refund by its id; a charge's total by its amount, for totals arrive in any order and each is one refund."""
    return f"{told.refund or f'{told.charge}={told.amount}'}:{REFUND}"


def _try_claim(fact: Fact) -> str:
    return f"try:{fact.attempt_of}"


def _payer_claim(fact: Fact) -> str:
    """A customer is known to every telling of a payment; a card is not, and so it is claimed apart."""
    return f"{fact.claim}:card" if fact.payer.startswith(CARD) else fact.claim
