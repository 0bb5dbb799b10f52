"""Who leaves or takes another plan: some subscriber, by chance or because a loss of recurring revenue was planted."""

from billingwatch.simulator import billing, people
from billingwatch.simulator.billing import Subscription
from billingwatch.simulator.objects import Json
from billingwatch.simulator.subscriptions import FEEDBACK, end, leave, meet, updated
from billingwatch.simulator.world import World

AT_PERIOD_END = 0.7  # of cancellations
DOWNGRADED = 0.4  # of planted losses


def _anyone(world: World) -> Subscription | None:
    """An active subscription that nobody has canceled yet; None when a few tries find none."""
    for _ in range(8):
        if not world.active:
            return None
        sub = people.pick(world.rng, world.active)
        if sub.status == "active" and not sub.cancel_at_period_end:
            meet(world, sub)
            return sub
    return None


def cancel(world: World, at: int) -> None:
    """Some subscriber has had enough."""
    sub = _anyone(world)
    if sub is None:
        return
    if world.rng.random() < AT_PERIOD_END:
        leave(world, at, sub)
    else:
        sub.feedback = FEEDBACK.draw(world.rng)
        end(world, at, sub, "cancellation_requested", asked=True)


def change(world: World, at: int) -> None:
    """Some subscriber takes another plan of the same interval, or more or fewer seats."""
    sub = _anyone(world)
    if sub is None:
        return
    before = _carried(world, sub)
    plan = world.catalogue.plans.draw(world.rng)
    if plan.interval == sub.plan.interval and plan != sub.plan:
        sub.plan = plan
    else:
        sub.quantity = sub.quantity - 1 if sub.quantity > 1 and world.rng.random() < 0.4 else sub.quantity + 1
    updated(world, at, sub, before, asked=True)


def _carried(world: World, sub: Subscription) -> Json:
    """The plan and seats as `previous_attributes` tells them."""
    before: Json = {"items": billing.items(world.account, sub)}
    if world.account.direct:
        whole = billing.subscription(world.account, sub)
        before |= {"plan": whole["plan"], "quantity": whole["quantity"]}
    return before


def shrink(world: World, at: int) -> None:
    """The largest of a few subscriptions is canceled or falls to the smallest plan, until the planted debt is paid."""
    if world.debt <= 0:
        return
    account = world.account
    seen = [sub for sub in (_anyone(world) for _ in range(6)) if sub]
    if not seen:
        return
    sub = max(seen, key=lambda each: people.monthly(account, each.plan, each.quantity))
    was = people.monthly(account, sub.plan, sub.quantity)
    smallest = min(
        (plan for plan in world.catalogue.plans.weights if plan.interval == sub.plan.interval),
        key=lambda plan: plan.cents,
    )
    if world.rng.random() < DOWNGRADED and people.monthly(account, smallest, 1) < was:
        before = _carried(world, sub)
        sub.plan, sub.quantity = smallest, 1
        updated(world, at, sub, before, asked=True)
        was -= people.monthly(account, smallest, 1)
    else:
        sub.feedback = FEEDBACK.draw(world.rng)
        end(world, at, sub, "cancellation_requested", asked=True)
    world.lost += round(was)
    world.debt -= was
    world.at(at + 1 + int(world.rng.random() * 20), shrink)
