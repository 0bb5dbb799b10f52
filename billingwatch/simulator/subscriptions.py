"""The life of subscriptions: sign-up, trial, renewal, dunning, end. Who leaves or changes, and when, is churn's."""

import random

from msgspec import Struct

from billingwatch.simulator import aftermath, billing, charges, claims, declines, intents, invoices, people, rhythm
from billingwatch.simulator.billing import Subscription
from billingwatch.simulator.checkout import FAILS_AGAIN, HOSTED, RETRIED
from billingwatch.simulator.objects import Json
from billingwatch.simulator.people import Card, Customer, Place, Weighted
from billingwatch.simulator.rhythm import DAY, HOUR
from billingwatch.simulator.world import World

MONTHLY = 0.85  # of subscriptions; the others renew once a year
TRIALS = 0.2  # of sign-ups
REGRETTED = 0.3  # of trials: canceled before they end
TRIAL = 14 * DAY
ALONE = 0.8  # of subscriptions; the others have 2 to 10 seats
DUNNING = (3 * DAY, 5 * DAY, 7 * DAY)  # after each failure; then the subscription is canceled

FEEDBACK: Weighted[str | None] = Weighted(
    {"too_expensive": 0.3, "unused": 0.25, "missing_features": 0.13, "switched_service": 0.12, None: 0.2}
)

_NOBODY = Customer(
    id="",
    name="",
    email="",
    place=Place("US", "", None, "", ""),
    card=Card("", "visa", "US", "credit", "", 1, 1970, ""),
    created=0,
)


class Bill(Struct):
    """An open invoice that is being collected."""

    sub: Subscription
    invoice: Json
    intent: Json
    description: str
    failures: int = 0


def months(sub: Subscription) -> int:
    """How long a period is."""
    return 12 if sub.plan.interval == "year" else 1


def found(world: World) -> None:
    """The subscriptions that exist at the stream's start, as many as their renewals are to be."""
    rng, habits = world.rng, world.habits
    a_day = MONTHLY / 30.44 + (1 - MONTHLY) / 365.25
    first = month_start(world.start)
    offset = world.zone.local(world.start) - world.start
    for _ in range(round(habits.renewals * world.volume / a_day)):
        plan = world.catalogue.plans.draw(rng)
        if rng.random() < habits.burst:  # all anchored to the 1st, whose day begins at Stripe's midnight, UTC
            anchor, second = 1, int(rng.random() * habits.burst_span)
        else:
            anchor, second = rhythm.renewal_day(rng), (world.shape.second_of_day(rng) - offset) % DAY
        sub = Subscription(
            id="", item="", customer=_NOBODY, plan=plan, quantity=_seats(rng), created=0, anchor=anchor, start=0, end=0
        )
        sub.end = rhythm.month_later(first + second, anchor, 0 if months(sub) == 1 else int(rng.random() * 12))
        if sub.end < world.start:
            sub.end = rhythm.month_later(sub.end, anchor, months(sub))
        world.welcome(sub)
        world.at(sub.end, renew, sub)


def meet(world: World, sub: Subscription) -> None:
    """Give a subscription from before the stream its ids, its subscriber and its past, now that it is told of."""
    if sub.id:
        return
    ids = world.ids
    sub.id, sub.item, sub.latest_invoice = ids.long("sub_1"), ids.short("si_"), ids.long("in_1")
    sub.start = rhythm.month_later(sub.end, sub.anchor, -months(sub))
    sub.invoices = 1 + int(world.rng.expovariate(1 / 10) / months(sub))
    sub.created = rhythm.month_later(sub.start, sub.anchor, -months(sub) * (sub.invoices - 1))
    sub.customer = people.customer(world.rng, ids, sub.created)


def month_start(at: int) -> int:
    """Midnight of the first of the month."""
    return at // DAY * DAY - (rhythm.day_of_month(at) - 1) * DAY


def _seats(rng: random.Random) -> int:
    return 1 if rng.random() < ALONE else 2 + int(rng.random() * 9)


def _sign(world: World, plan: people.Plan, at: int, quantity: int) -> Subscription:
    rng, ids = world.rng, world.ids
    return Subscription(
        id=ids.long("sub_1"),
        item=ids.short("si_"),
        customer=people.customer(rng, ids, at),
        plan=plan,
        quantity=quantity,
        created=at,
        anchor=rhythm.day_of_month(at),
        start=at,
        end=at,
    )


def sign_up(world: World, at: int) -> None:
    """Somebody new subscribes: with a trial, or paying the first invoice at once."""
    rng, account = world.rng, world.account
    sub = _sign(world, world.catalogue.plans.draw(rng), at, _seats(rng))
    world.tell(at, "customer.created", billing.customer(account, sub.customer), asked=True)
    session = None
    if rng.random() < HOSTED:
        amount = people.total(account, sub.plan, sub.quantity)
        session = claims.session(account, world.ids, sub.customer, amount, at - 90, subscribing=True)
    if rng.random() < TRIALS:
        world.at(at + 1, try_out, sub)
        return
    sub.end = rhythm.month_later(at, sub.anchor, months(sub))
    world.at(at + 2 + int(rng.random() * 40), buy, sub, session)


def try_out(world: World, at: int, sub: Subscription) -> None:
    """A trial begins, with an invoice over nothing; almost a third of them are canceled before they end."""
    rng, account = world.rng, world.account
    sub.status = "trialing"
    sub.created = sub.start = at
    sub.end = sub.trial_end = at + TRIAL
    sub.anchor = rhythm.day_of_month(sub.end)
    draft = _draft(world, at, sub, 0, "subscription_create")
    world.tell(at, "customer.subscription.created", billing.subscription(account, sub), asked=True)
    _free(world, at, sub, draft)
    world.welcome(sub)
    world.at(sub.end - 3 * DAY, remind, sub)
    world.at(sub.end, renew, sub)
    if rng.random() < REGRETTED:
        world.at(at + int(rng.random() * TRIAL), leave, sub)


def remind(world: World, at: int, sub: Subscription) -> None:
    """The trial ends in three days."""
    if sub.status == "trialing":
        world.tell(at, "customer.subscription.trial_will_end", billing.subscription(world.account, sub))


def buy(world: World, at: int, sub: Subscription, session: Json | None) -> None:
    """The first invoice is collected while the subscriber waits."""
    account = world.account
    draft = _draft(world, at, sub, world.total(at, sub.plan, sub.quantity), "subscription_create")
    bill = _open(world, at, sub, draft, "Subscription creation")
    if world.rng.random() < world.failure(at):
        sub.status = "incomplete"
        world.tell(at, "customer.subscription.created", billing.subscription(account, sub), asked=True)
        _decline(world, at, bill, None, declines.CHECKOUT)
        if world.rng.random() < RETRIED:
            world.at(at + 30 + int(world.rng.random() * 300), buy_again, bill, session)
        else:
            world.at(at + 23 * HOUR, give_up, sub)
        return
    world.tell(at, "customer.subscription.created", billing.subscription(account, sub), asked=True)
    _started(world, at, bill, session)


def _started(world: World, at: int, bill: Bill, session: Json | None) -> None:
    sub = bill.sub
    _settle(world, at, bill)
    if session:
        world.tell(at, "checkout.session.completed", claims.completed(session, sub.customer, None, sub.id))
    world.welcome(sub)
    world.at(sub.end, renew, sub)


def buy_again(world: World, at: int, bill: Bill, session: Json | None) -> None:
    """The subscriber tries another time, the last."""
    if world.rng.random() < max(FAILS_AGAIN, world.failure(at)):
        _decline(world, at, bill, None, declines.CHECKOUT)
        world.at(at + 23 * HOUR, give_up, bill.sub)
        return
    bill.sub.status = "active"
    updated(world, at, bill.sub, {"status": "incomplete"})
    _started(world, at, bill, session)


def give_up(world: World, at: int, sub: Subscription) -> None:
    """A subscription whose first invoice was never paid expires."""
    sub.status = "incomplete_expired"
    sub.ended_at = at
    updated(world, at, sub, {"ended_at": None, "status": "incomplete"})


def updated(world: World, at: int, sub: Subscription, previous: Json, *, asked: bool = False) -> None:
    """Say that the subscription changed."""
    world.tell(at, "customer.subscription.updated", billing.subscription(world.account, sub), previous, asked=asked)


def _draft(world: World, at: int, sub: Subscription, amount: int, reason: str) -> Json:
    made = invoices.invoice(world.account, world.ids, sub, amount, at, reason=reason)
    sub.latest_invoice = made["id"]
    sub.invoices += 1
    world.tell(at, "invoice.created", made)
    return made


def _free(world: World, at: int, sub: Subscription, draft: Json) -> None:
    """An invoice over nothing is paid by being finalized."""
    account = world.account
    made = invoices.finalized(account, world.ids, draft, at, number=sub.invoices, intent=None)
    world.tell(at, "invoice.finalized", made)
    made = invoices.settled(account, made, at, None)
    world.tell(at, "invoice.paid", made)
    world.tell(at, "invoice.payment_succeeded", made)


def _open(world: World, at: int, sub: Subscription, draft: Json, description: str) -> Bill:
    account, ids = world.account, world.ids
    intent = intents.intent(account, ids, sub.customer, draft["amount_due"], at, invoice=draft["id"])
    intent["description"] = description
    intent["setup_future_usage"] = "off_session"
    made = invoices.finalized(account, ids, draft, at, number=sub.invoices, intent=intent["id"])
    world.tell(at, "invoice.finalized", made)
    world.tell(at, "payment_intent.created", intent)
    return Bill(sub, made, intent, description)


def renew(world: World, at: int, sub: Subscription) -> None:
    """The period ends: the subscription too, if that was wished; otherwise the next one is invoiced."""
    if sub.slot < 0 or at != sub.end:
        return
    meet(world, sub)
    if sub.cancel_at_period_end:
        end(world, at, sub, "cancellation_requested")
        return
    before = {**billing.period(world.account, sub), "latest_invoice": sub.latest_invoice}
    if sub.status == "trialing":
        before["status"] = "trialing"
        sub.status = "active"
    sub.start = at
    sub.end = rhythm.month_later(at, sub.anchor, months(sub))
    amount = world.total(at, sub.plan, sub.quantity)
    draft = _draft(world, at, sub, amount, "subscription_cycle")
    updated(world, at, sub, before)
    # Stripe leaves a draft open for about an hour before it finalizes and collects it.
    world.at(at + HOUR + int(world.rng.random() * 180), finalize, sub, draft)
    world.at(sub.end, renew, sub)


def finalize(world: World, at: int, sub: Subscription, draft: Json) -> None:
    """The renewal's invoice becomes final; its collection starts."""
    if sub.slot < 0:
        return
    world.renewed += 1
    bill = _open(world, at, sub, draft, "Subscription update")
    world.at(at + 1 + int(world.rng.random() * 4), collect, bill)


def collect(world: World, at: int, bill: Bill) -> None:
    """Charge the card on file, off session; after a failure Stripe tries again some days later."""
    sub = bill.sub
    if sub.slot < 0:
        return
    likely = max(world.failure(at), FAILS_AGAIN) if bill.failures else world.failure(at)
    if world.rng.random() >= likely:
        _settle(world, at, bill)
        if sub.status == "past_due":
            sub.status = "active"
            updated(world, at, sub, {"status": "past_due"})
        return
    again = at + DUNNING[bill.failures] if bill.failures < len(DUNNING) else None
    _decline(world, at, bill, again, declines.RENEWAL)
    if again is None:
        end(world, at, sub, "payment_failed")
        return
    if sub.status == "active":
        sub.status = "past_due"
        updated(world, at, sub, {"status": "active"})
    world.at(again, collect, bill)


def _settle(world: World, at: int, bill: Bill) -> None:
    """The invoice is paid."""
    account, ids, intent = world.account, world.ids, bill.intent
    id = bill.invoice["id"]
    charge = charges.charge(account, ids, intent, bill.sub.customer, at, invoice=id, description=bill.description)
    world.tell(at, "charge.succeeded", charge)
    world.tell(at, "payment_intent.succeeded", intents.paid(intent, charge))
    made = invoices.settled(account, bill.invoice, at, charge["id"])
    world.tell(at, "invoice.paid", made)
    world.tell(at, "invoice.payment_succeeded", made)
    if not account.direct:
        world.tell(at, "invoice_payment.paid", invoices.payment(account, ids, made, at, intent["id"]))
    aftermath.sold(world, at, charge)


def _decline(world: World, at: int, bill: Bill, again: int | None, mix: Weighted[declines.Decline]) -> None:
    """The invoice is not paid; the next attempt is at `again`."""
    account, who = world.account, bill.sub.customer
    id = bill.invoice["id"]
    decline = (declines.OUTAGE if world.outage(at) else mix).draw(world.rng)
    charge = charges.charge(
        account, world.ids, bill.intent, who, at, invoice=id, decline=decline, description=bill.description
    )
    bill.failures += 1
    bill.intent = intents.failed(bill.intent, charge, who, decline)
    bill.invoice = invoices.unpaid(account, bill.invoice, again, charge["id"])
    world.tell(at, "charge.failed", charge)
    world.tell(at, "payment_intent.payment_failed", bill.intent)
    world.tell(at, "invoice.payment_failed", bill.invoice)


def leave(world: World, at: int, sub: Subscription) -> None:
    """The subscription is to end with its period."""
    if sub.slot < 0 or sub.cancel_at_period_end:
        return
    before = {
        "cancel_at": None,
        "cancel_at_period_end": False,
        "canceled_at": None,
        "cancellation_details": {"comment": None, "feedback": None, "reason": None},
    }
    sub.cancel_at_period_end = True
    sub.canceled_at = at
    sub.reason = "cancellation_requested"
    sub.feedback = FEEDBACK.draw(world.rng)
    updated(world, at, sub, before, asked=True)


def end(world: World, at: int, sub: Subscription, reason: str, *, asked: bool = False) -> None:
    """The subscription is over: `cancellation_requested` or `payment_failed`."""
    sub.status = "canceled"
    sub.canceled_at = sub.canceled_at or at
    sub.ended_at = at
    sub.reason = reason
    world.dismiss(sub)
    world.tell(at, "customer.subscription.deleted", billing.subscription(world.account, sub), asked=asked)


def enterprise(world: World, at: int) -> None:
    """A large customer pays a year of many seats in advance: one invoice worth days of revenue.

    It is not among the subscriptions that chance cancels or renews.
    """
    rng = world.rng
    plan = max(world.catalogue.plans.weights, key=lambda each: each.cents)
    a_day = world.volume * people.mean(world.catalogue.products)
    sub = _sign(world, plan, at, max(1, round(a_day * rng.uniform(2, 6) / plan.cents)))
    sub.end = rhythm.month_later(at, sub.anchor, months(sub))
    world.tell(at, "customer.created", billing.customer(world.account, sub.customer), asked=True)
    draft = _draft(world, at, sub, people.total(world.account, sub.plan, sub.quantity), "subscription_create")
    bill = _open(world, at, sub, draft, "Subscription creation")
    world.tell(at, "customer.subscription.created", billing.subscription(world.account, sub), asked=True)
    _settle(world, at, bill)
