"""The on-session way of a payment: a buyer at the checkout pays, fails, tries again or leaves."""

from msgspec import Struct

from billingwatch.simulator import aftermath, billing, charges, claims, declines, intents, people
from billingwatch.simulator.objects import Json
from billingwatch.simulator.people import Customer
from billingwatch.simulator.rhythm import DAY
from billingwatch.simulator.world import World

RETRIED = 0.35  # of failed attempts that the buyer repeats
FAILS_AGAIN = 0.65  # of repeated attempts
MOST_ATTEMPTS = 6
HOSTED = 0.6  # of buyers who pay on Stripe's hosted page, whose session then has events
ABANDONED = 0.2  # sessions without any attempt, for each that has one
CHALLENGED = 0.5  # of European cards whose bank asks for 3D Secure

_CHANNELS = ("web", "web", "ios", "android")
_CAMPAIGNS = ("none", "spring_newsletter", "search_brand_exact", "partner_referral_program")


class Purchase(Struct):
    """A buyer on the way through the checkout."""

    buyer: Customer
    intent: Json
    session: Json | None
    attempts: int = 0
    secure: bool = False


def found(world: World) -> None:
    """The regulars from before the stream's start, so that its first buyers are not the same few."""
    for _ in range(min(world.crowd, round(20 * world.volume))):
        world.enroll(people.customer(world.rng, world.ids, world.start - DAY))


def arrive(world: World, at: int) -> None:
    """A buyer starts to pay for something."""
    rng, account, ids = world.rng, world.account, world.ids
    product = world.catalogue.products.draw(rng)
    quantity = 1 if rng.random() < 0.9 else 2 + int(rng.random() * 3)
    amount = world.total(at, product, quantity)
    buyer = _buyer(world, at)
    intent = intents.intent(account, ids, buyer, amount, at)
    order = int(rng.random() * 9e7) + 10_000_000
    intent["description"] = f"Order {order}: {quantity} × {product.name}"
    intent["metadata"] = {
        "order_id": str(order),
        "sku": product.product,
        "quantity": str(quantity),
        "channel": people.pick(rng, _CHANNELS),
        "cart": ids.key(),
        "campaign": people.pick(rng, _CAMPAIGNS),
    }
    intent["shipping"] = charges.shipping(buyer)
    session = claims.session(account, ids, buyer, amount, at - 60) if rng.random() < HOSTED else None
    purchase = Purchase(buyer, intent, session)
    world.tell(at, "payment_intent.created", intent, asked=True)
    if buyer.card.country in people.EUROPE and rng.random() < CHALLENGED:
        purchase.secure = True
        world.at(at + 1, challenge, purchase)
        world.at(at + 15 + int(rng.random() * 60), attempt, purchase)
    else:
        world.at(at + 1 + int(rng.random() * 3), attempt, purchase)
    if rng.random() < ABANDONED * HOSTED:
        world.at(at + DAY, abandon, amount)


def _buyer(world: World, at: int) -> Customer:
    """A guest, somebody new, or somebody who comes back."""
    rng = world.rng
    number = rng.random()
    if number < 0.35 and world.regulars:
        return people.pick(rng, world.regulars)
    buyer = people.customer(rng, world.ids, at, guest=number < 0.75)
    if buyer.id:
        world.tell(at, "customer.created", billing.customer(world.account, buyer), asked=True)
        world.enroll(buyer)
    return buyer


def challenge(world: World, at: int, purchase: Purchase) -> None:
    """The buyer's bank asks for 3D Secure."""
    world.tell(at, "payment_intent.requires_action", intents.challenged(purchase.intent, purchase.buyer), asked=True)


def attempt(world: World, at: int, purchase: Purchase) -> None:
    """The buyer's card is charged, with luck."""
    rng = world.rng
    likely = world.failure(at)
    if purchase.attempts:
        likely = max(likely, FAILS_AGAIN)
    purchase.attempts += 1
    if rng.random() >= likely:
        succeed(world, at, purchase)
        return
    if purchase.secure and rng.random() < 0.4:
        purchase.intent = intents.unauthenticated(purchase.intent, purchase.buyer)
        world.tell(at, "payment_intent.payment_failed", purchase.intent, asked=True)
    else:
        decline = (declines.OUTAGE if world.outage(at) else declines.CHECKOUT).draw(rng)
        fail(world, at, purchase, decline)
    if rng.random() < RETRIED and purchase.attempts < MOST_ATTEMPTS:
        world.at(at + 15 + int(rng.expovariate(1 / 60)), attempt, purchase)
    elif purchase.session:
        world.at(purchase.session["expires_at"], expire, purchase.session)


def fail(world: World, at: int, purchase: Purchase, decline: declines.Decline) -> None:
    """The attempt fails by `decline`."""
    buyer, intent = purchase.buyer, purchase.intent
    charge = charges.charge(
        world.account, world.ids, intent, buyer, at, decline=decline, description=intent["description"]
    )
    purchase.intent = intents.failed(intent, charge, buyer, decline)
    world.tell(at, "charge.failed", charge, asked=True)
    world.tell(at, "payment_intent.payment_failed", purchase.intent, asked=True)


def succeed(world: World, at: int, purchase: Purchase) -> None:
    """The attempt succeeds, and the session completes."""
    buyer, intent = purchase.buyer, purchase.intent
    charge = charges.charge(
        world.account, world.ids, intent, buyer, at, secure=purchase.secure, description=intent["description"]
    )
    world.tell(at, "charge.succeeded", charge, asked=True)
    world.tell(at, "payment_intent.succeeded", intents.paid(intent, charge), asked=True)
    if purchase.session:
        world.tell(at, "checkout.session.completed", claims.completed(purchase.session, buyer, intent["id"]))
    aftermath.sold(world, at, charge)
    twice = world.planted("duplicate_charges", at)
    if world.rng.random() < (world.habits.twice if twice is None else twice):
        world.at(at + 8 + int(world.rng.random() * 240), repeat, purchase)


def repeat(world: World, at: int, purchase: Purchase) -> None:
    """The same buyer is charged for the same thing a second time, by another payment intent."""
    account, ids, buyer, first = world.account, world.ids, purchase.buyer, purchase.intent
    intent = intents.intent(account, ids, buyer, first["amount"], at)
    for field in ("description", "metadata", "shipping"):
        intent[field] = first[field]
    charge = charges.charge(account, ids, intent, buyer, at, description=intent["description"])
    world.tell(at, "payment_intent.created", intent, asked=True)
    world.tell(at, "charge.succeeded", charge, asked=True)
    world.tell(at, "payment_intent.succeeded", intents.paid(intent, charge), asked=True)
    aftermath.sold(world, at, charge)


def expire(world: World, at: int, session: Json) -> None:
    """A day has passed without payment."""
    world.tell(at, "checkout.session.expired", claims.expired(session))


def abandon(world: World, at: int, amount: int) -> None:
    """A session that nobody ever tried to pay ends."""
    nobody = people.customer(world.rng, world.ids, at - DAY, guest=True)
    session = claims.session(world.account, world.ids, nobody, amount, at - DAY)
    world.tell(at, "checkout.session.expired", claims.expired(session))


def probe(world: World, at: int) -> None:
    """A thief tries a stolen card with a tiny amount: card testing."""
    rng = world.rng
    thief = people.customer(rng, world.ids, at, guest=True)
    amount = world.account.price(50 + int(rng.random() * 100))
    intent = intents.intent(world.account, world.ids, thief, amount, at)
    purchase = Purchase(thief, intent, None, attempts=1)
    world.tell(at, "payment_intent.created", intent, asked=True)
    if rng.random() < 0.93:
        fail(world, at, purchase, declines.TESTING.draw(rng))
    else:
        succeed(world, at, purchase)
