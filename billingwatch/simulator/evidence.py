"""What a planted incident weighs: the Kullback-Leibler divergence of what was planted from what is usual, in nats.

A test that may be wrong once in a year of weeks needs about twelve of them, however clever it is. The usual is the
account's true rate at that hour, which no detector can know exactly: an upper bound of what there is to be seen.
"""

import math
from collections.abc import Callable

from msgspec import Struct

LATE = 0.002  # usual share of objects that arrive more than five minutes late
_LEAST = 1e-9  # keeps logarithms finite where nothing is usual


class Usual(Struct, frozen=True):
    """What a stretch of time usually holds: mean counts, and shares where it says so."""

    attempts: float  # first attempts to pay, renewals included
    failing: float  # share of them
    arriving: float  # first attempts of buyers who are there: no renewals
    small: float  # failed attempts at small amounts
    refunds: float
    disputes: float  # inquiries apart
    cancels: float
    twice: float  # buyers charged a second time within minutes
    objects: float  # independent business objects of all sorts
    sales: float  # charges of one size that would make revenue as uncertain as it is
    losses: float  # the same of monthly recurring revenue that is lost


def poisson(count: float, usual: float) -> float:
    """The nats of a mean count against the usual one."""
    usual = max(usual, _LEAST)
    return usual - count + (count * (math.log(count) - math.log(usual)) if count > 0 else 0.0)


def binomial(trials: float, share: float, usual: float) -> float:
    """The nats of a share of so many trials against the usual one."""
    usual = min(max(usual, _LEAST), 1 - _LEAST)
    parts = ((share, usual), (1 - share, 1 - usual))
    return trials * sum(now * (math.log(now) - math.log(before)) for now, before in parts if now > 0)


# By kind of incident, of (what is usual, what was planted): a share where the kind's size is one, else a mean count.
WEIGH: dict[str, Callable[[Usual, float], float]] = {
    "failed_payments": lambda usual, share: binomial(usual.attempts, share, usual.failing),
    "card_testing": lambda usual, more: poisson(usual.small + more, usual.small),
    "refund_spike": lambda usual, more: poisson(usual.refunds + more, usual.refunds),
    "cancel_spike": lambda usual, more: poisson(usual.cancels + more, usual.cancels),
    "dispute_spike": lambda usual, more: poisson(usual.disputes + more, usual.disputes),
    "checkout_drop": lambda usual, share: poisson(usual.arriving * (1 - share), usual.arriving),
    "duplicate_charges": lambda usual, share: poisson(_sold(usual) * share, usual.twice),
    "webhook_silence": lambda usual, _: poisson(0, usual.objects),
    "webhook_outage": lambda usual, _: poisson(0, usual.objects),
    "webhook_lag": lambda usual, share: binomial(usual.objects, share, LATE),
    "revenue_drop": lambda usual, share: poisson(usual.sales * (1 - share), usual.sales),
    "mrr_drop": lambda usual, more: poisson(usual.losses + more, usual.losses),
}


def _sold(usual: Usual) -> float:
    return usual.arriving * (1 - usual.failing)
