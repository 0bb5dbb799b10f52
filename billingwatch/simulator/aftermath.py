"""What follows a successful charge: refunds at the staff's desk, disputes, fraud warnings, the daily payout."""

import math

from billingwatch.simulator import charges, claims, intents, people, rhythm
from billingwatch.simulator.objects import Json
from billingwatch.simulator.people import Weighted
from billingwatch.simulator.rhythm import DAY, HOUR
from billingwatch.simulator.world import Sale, World

INQUIRIES = 0.15  # of disputes
BOUNCED = 0.003  # of payouts
PARTIAL = 0.25  # of refunds
RESUMED = 0.35  # of partial refunds: the next part follows some days later

REASONS = Weighted(
    {
        "fraudulent": 0.55,
        "product_not_received": 0.16,
        "subscription_canceled": 0.11,
        "product_unacceptable": 0.08,
        "general": 0.06,
        "duplicate": 0.04,
    }
)
FRAUDS = Weighted(
    {
        "unauthorized_use_of_card": 0.5,
        "made_with_stolen_card": 0.22,
        "misc": 0.16,
        "made_with_lost_card": 0.08,
        "card_never_received": 0.04,
    }
)
REFUND_REASONS: Weighted[str | None] = Weighted(
    {"requested_by_customer": 0.72, None: 0.2, "duplicate": 0.05, "fraudulent": 0.03}
)


def sold(world: World, at: int, charge: Json) -> None:
    """Decide what will follow this charge, and remember it for planted spikes."""
    rng, habits = world.rng, world.habits
    world.takings += charge["amount"]
    sale = Sale(charge)
    world.remember(sale)
    if rng.random() < habits.refund:
        world.at(_desk(world, at + _refund_delay(world)), refund, sale)
    if rng.random() < habits.warning:
        world.at(at + _warning_delay(world), warn, sale)
    if rng.random() < habits.dispute:
        world.at(rhythm.banking_hour(rng, at + _dispute_delay(world)), dispute, sale)


def inherit(world: World) -> None:
    """Put on the agenda what charges from before the stream's start still have to come."""
    for share, delay, step in (
        (world.habits.refund, _refund_delay, refund),
        (world.habits.warning, _warning_delay, warn),
        (world.habits.dispute, _dispute_delay, dispute),
    ):
        for _ in range(rhythm.poisson(world.rng, share * world.volume * 90)):
            age = int(world.rng.random() * 90 * DAY) + HOUR
            after = delay(world)
            if after <= age:
                continue
            due = world.start + after - age
            if step is refund:
                due = _desk(world, due)
            elif step is dispute:
                due = rhythm.banking_hour(world.rng, due)
            world.at(due, step, older(world, world.start - age))


def older(world: World, created: int) -> Sale:
    """A sale from before the stream's start: its events were never seen."""
    buyer = people.customer(world.rng, world.ids, created)
    amount = people.total(world.account, world.catalogue.products.draw(world.rng), 1)
    intent = intents.intent(world.account, world.ids, buyer, amount, created)
    return Sale(charges.charge(world.account, world.ids, intent, buyer, created))


def _refund_delay(world: World) -> int:
    return min(60 * DAY, int(math.exp(world.rng.gauss(0.7, 1.1)) * DAY))


def _warning_delay(world: World) -> int:
    return DAY + int(world.rng.random() * 13 * DAY)


def _dispute_delay(world: World) -> int:
    return 5 * DAY + min(80 * DAY, int(world.rng.expovariate(1 / 18) * DAY))


def _desk(world: World, at: int) -> int:
    """Three of four refunds wait for the staff; the others are made by the shop's software at once."""
    if world.rng.random() >= 0.75:
        return at
    return world.zone.utc(rhythm.office_hour(world.rng, world.zone.local(at), world.habits.desk))


def refund(world: World, at: int, sale: Sale) -> None:
    """Refund the sale, or a part of it and the next part some days later."""
    rng, charge = world.rng, sale.charge
    left = charge["amount"] - charge["amount_refunded"]
    if left <= 0 or charge["disputed"]:
        return
    amount = left
    if left > 100 and rng.random() < PARTIAL:
        amount = world.account.whole(left * rng.uniform(0.2, 0.7))
        if rng.random() < RESUMED:
            world.at(_desk(world, at + _refund_delay(world)), refund, sale)
    made = charges.refund(world.ids, charge, amount, at, REFUND_REASONS.draw(rng))
    sale.charge, previous = charges.refunded(world.ids, charge, amount)
    world.takings -= amount
    world.tell(at, "refund.created", made, asked=True)
    world.tell(at, "charge.refunded", sale.charge, previous, asked=True)


def warn(world: World, at: int, sale: Sale) -> None:
    """The issuer reports the charge as fraud."""
    fraud = FRAUDS.draw(world.rng)
    world.tell(
        at, "radar.early_fraud_warning.created", claims.warning(world.account, world.ids, sale.charge, at, fraud)
    )


def dispute(world: World, at: int, sale: Sale) -> None:
    """The cardholder disputes what was not refunded yet."""
    rng, charge = world.rng, sale.charge
    if charge["refunded"] or charge["disputed"]:
        return
    reason = REASONS.draw(rng)
    if reason == "subscription_canceled" and not charge["customer"]:
        reason = "product_not_received"
    made = claims.dispute(world.account, world.ids, charge, at, reason=reason, inquiry=rng.random() < INQUIRIES)
    sale.charge = {**charge, "disputed": True}
    world.tell(at, "charge.dispute.created", made)


def pay_out(world: World, at: int) -> None:
    """Send the takings to the bank, and again tomorrow."""
    world.at(at + DAY, pay_out)
    if world.takings <= 0:
        return
    made = claims.payout(world.account, world.ids, world.takings, at)
    world.takings = 0
    world.tell(at, "payout.created", made)
    world.at(made["arrival_date"] + 7 * HOUR, arrive, made)


def arrive(world: World, at: int, payout: Json) -> None:
    """The payout reaches the bank, which seldom refuses it."""
    if world.rng.random() < BOUNCED:
        world.tell(at, "payout.failed", claims.bounced(world.ids, payout))
    else:
        world.tell(at, "payout.paid", {**payout, "status": "paid"})
