"""Stories of wrong counts that cannot happen: payments told several times, refunds, currencies, inquiries, warnings."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from billingwatch.model import Money
from detectors.event import Event, read_event
from detectors.facts import (
    DISPUTE,
    FRAUD_WARNING,
    INQUIRY,
    PAYMENT_FAILED,
    PAYMENT_SUCCEEDED,
    REFUND,
    Told,
    read_facts,
)
from detectors.tally import claims, tally

OLD = "2024-06-20"
VERSIONS = (OLD, "2025-03-31.basil", "2026-10-28.endive")
PAYLOADS = Path(__file__).parents[1] / "payloads"


def charge(type: str, **fields: Any) -> Event:
    """An event about one charge, the envelope's fields among the others."""
    envelope = {"id": "evt_1", "object": "event", "type": type, "created": 1000}
    envelope |= {name: fields.pop(name) for name in ("livemode", "account") if name in fields}
    thing = {"id": "ch_1", "amount": 45000, "currency": "usd"} | fields
    return read_event(msgspec.json.encode(envelope | {"data": {"object": thing}}))


def read(*names: str, type: str | None = None) -> list[Told]:
    """What these payloads tell, taken for another type of event where one is given."""
    events = [read_event((PAYLOADS / f"{name}.json").read_bytes()) for name in names]
    if type:
        events = [msgspec.structs.replace(event, type=type) for event in events]
    return [each for event in events for each in read_facts(event)]


def count(told: Iterable[Told]) -> dict[str, dict[str, tuple[int, int]]]:
    """(count, amount) by metric and currency when all of it is told at once."""
    facts = list(told)
    grown = tally(facts, claims(facts), {}).buckets
    sums: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    for bucket in grown:
        if bucket.grain == 60:
            before = sums[bucket.metric].get(bucket.currency, (0, 0))
            sums[bucket.metric][bucket.currency] = (before[0] + bucket.count, before[1] + bucket.amount)
    return dict(sums)


@pytest.mark.parametrize("version", VERSIONS)
def test_one_subscription_payment_told_by_five_events_is_one_payment(version: str) -> None:
    tellings = [
        read(f"charge.succeeded-renewal.{version}"),
        read(f"payment_intent.succeeded-renewal.{version}"),
        read(f"invoice.paid.{version}"),
        read(f"invoice.paid.{version}", type="invoice.payment_succeeded"),
    ]
    if version != OLD:
        tellings.append(read(f"invoice_payment.paid.{version}"))
    for ordered in itertools.permutations(tellings):
        assert count(itertools.chain(*ordered))[PAYMENT_SUCCEEDED] == {"usd": (1, 8700)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("alone", ["charge.succeeded-renewal", "payment_intent.succeeded-renewal"])
def test_one_event_of_a_payment_is_enough(version: str, alone: str) -> None:
    assert count(read(f"{alone}.{version}"))[PAYMENT_SUCCEEDED] == {"usd": (1, 8700)}


@pytest.mark.parametrize("version", VERSIONS)
def test_one_failed_renewal_told_by_three_events_is_one_failure(version: str) -> None:
    names = ("charge.failed-renewal", "payment_intent.payment_failed-renewal", "invoice.payment_failed")
    told = read(*(f"{name}.{version}" for name in names))
    assert count(told)[PAYMENT_FAILED] == {"usd": (1, 8700)}


def test_five_partial_refunds_are_counted_by_their_deltas() -> None:
    told = []
    for refunded in range(9000, 45001, 9000):
        told += read_facts(charge("charge.refunded", amount_refunded=refunded))
    assert count(told)[REFUND] == {"usd": (5, 45000)}


@pytest.mark.parametrize("version", VERSIONS)
def test_currencies_are_never_added(version: str) -> None:
    told = read(*(f"charge.succeeded{kind}.{version}" for kind in ("", "-jpy", "-kwd")))
    assert count(told)[PAYMENT_SUCCEEDED] == {"usd": (1, 4900), "jpy": (1, 7900), "kwd": (1, 23700)}
    grown = tally(told, claims(told), {}).buckets
    paid = [each for each in grown if each.metric == PAYMENT_SUCCEEDED and each.grain == 5]
    money = tuple(sorted((Money(each.amount, each.currency) for each in paid), reverse=True))
    assert money == (Money(23700, "kwd"), Money(7900, "jpy"), Money(4900, "usd"))
    assert [str(each) for each in money] == ["23.700 KWD", "7,900 JPY", "49.00 USD"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_inquiry_is_no_dispute(version: str) -> None:
    counts = count(read(f"charge.dispute.created-inquiry.{version}"))
    assert DISPUTE not in counts
    assert counts[INQUIRY] == {"usd": (1, 1900)}


@pytest.mark.parametrize("livemode", [True, False])
@pytest.mark.parametrize("account", ["acct_1", "acct_2", None])
def test_mode_and_account_of_every_event_are_known(livemode: bool, account: str | None) -> None:
    event = charge("charge.failed", livemode=livemode, account=account)
    assert (event.livemode, event.account) == (livemode, account or "")


@pytest.mark.parametrize("version", VERSIONS)
def test_an_early_fraud_warning_counts_by_its_real_type_and_once(version: str) -> None:
    name = f"radar.early_fraud_warning.created.{version}"
    updated = read(name, type="radar.early_fraud_warning.updated")
    assert count(read(name) + updated)[FRAUD_WARNING] == {"": (1, 0)}
    assert FRAUD_WARNING not in count(updated)
