"""Redis dies, is away or hangs under load: 503 in time, never 200, and normal again without anybody's help."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.faults.audit import CLEAN
from tests.faults.rig import Rig
from tests.faults.sender import NO_ANSWER, Post, Stripe
from tests.waiting import until

RATE = 200  # events a second
TIMES = 5
ANSWERED_WITHIN = 2.0  # seconds
BACK_WITHIN = 5.0  # seconds
REFUSED = 20  # deliveries that must have met the fault before it ends

Fault = Callable[[Rig], AbstractContextManager[None]]


def test_killed_valkey_keeps_what_was_acknowledged(rig: Rig, posts: list[Post]) -> None:
    rig.up("--events-workers", "2")
    with rig.load(posts, RATE) as stripe:
        for turn in range(1, TIMES + 1):
            stripe.wait_for(turn * RATE)
            with rig.missing_valkey():
                until_refused(stripe, time.monotonic())
    assert stripe.statuses().keys() <= {200, 503, NO_ANSWER}
    rig.recover()
    assert rig.failed() == 0
    assert rig.audit(stripe.acked) == CLEAN


@pytest.mark.parametrize("fault", [Rig.missing_valkey, Rig.hanging_valkey])
def test_while_redis_is_away_every_delivery_hears_503_in_time(rig: Rig, posts: list[Post], fault: Fault) -> None:
    rig.up()
    with rig.load(posts, RATE, patience=ANSWERED_WITHIN) as stripe:
        stripe.wait_for(RATE)
        with fault(rig):
            began = time.monotonic()
            until_refused(stripe, began)
            ended = time.monotonic()
        back = time.monotonic()
        until(lambda: any(answer.status == 200 for answer in stripe.since(back)), BACK_WITHIN)
    met = [answer for answer in stripe.answers if answer.began > began and answer.ended < ended]
    assert {answer.status for answer in met} == {503}
    assert stripe.statuses().keys() == {200, 503}
    rig.recover()
    assert rig.audit(stripe.acked) == CLEAN


def until_refused(stripe: Stripe, moment: float) -> None:
    """Wait until enough deliveries that began after this monotonic moment met the fault."""
    until(lambda: sum(answer.status == 503 for answer in stripe.since(moment)) >= REFUSED)
