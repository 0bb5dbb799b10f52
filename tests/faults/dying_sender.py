"""An alerts worker that kills itself at a moment of its choice: `python -m tests.faults.dying_sender MOMENT`.

The moments are the windows between two steps of a delivery, in which the steps before are done and those after are not.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from billingwatch.cli.start import begin, connect_redis, load_rules
from billingwatch.queues import ALERTS
from billingwatch.settings import read_stores
from billingwatch.store import deliveries, outbox
from worker import deliver
from worker.jobs import send_in_lanes
from worker.process import Process, start
from worker.runner import run

DECIDING = "deciding"  # claimed, and not committed
CLAIMED = "claimed"  # committed, and not sent
SENT = "sent"  # arrived, and nothing of it written down
MARKING = "marking"  # written down, and not committed
MARKED = "marked"  # committed
MOMENTS = (DECIDING, CLAIMED, SENT, MARKING, MARKED)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def then_die(step: Callable[..., Any]) -> Callable[..., Any]:
    """The step, and after it the end."""

    def stepped(*arguments: Any, **options: Any) -> Any:
        step(*arguments, **options)
        die()

    return stepped


def main(moment: str) -> None:
    begin()
    rules, plans, policy = load_rules()
    stores = read_stores(os.environ)
    if moment == DECIDING:
        outbox.claim = then_die(outbox.claim)
    elif moment == CLAIMED:
        deliver.dispatch = die  # type: ignore[assignment]
    elif moment == SENT:
        deliver.dispatch = then_die(deliver.dispatch)
    elif moment == MARKING:
        deliveries.end = then_die(deliveries.end)
    else:
        deliver.finish = then_die(deliver.finish)
    process = Process(stores, connect_redis(stores.redis_url), rules, plans, "worker alerts", policy)
    start(process)
    with send_in_lanes(process):
        run(process.queue(ALERTS), process)


if __name__ == "__main__":
    main(sys.argv[1])
