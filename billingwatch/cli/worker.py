"""`billingwatch worker`: processes that work on one queue each, supervised."""

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import click
import structlog
from redis.exceptions import RedisError

from billingwatch.cli.start import begin, connect_redis, load_rules
from billingwatch.queues import ALERTS, QUEUES
from billingwatch.settings import read_base_url, read_stores
from billingwatch.supervisor import Command, Supervisor, stop_on_signals
from notify.template import Templates

log = structlog.get_logger(__name__)


@click.command()
@click.argument("queue", type=click.Choice([*QUEUES, "all"]))
@click.option("--processes", "-n", type=click.IntRange(1), default=1, show_default=True, help="Workers a queue.")
@click.option("--in-process", is_flag=True, hidden=True, help="Be the worker, unsupervised.")
def worker(queue: str, processes: int, in_process: bool) -> None:
    """Work on a queue: `events` stores what was received (scale this one), `evaluate` runs the detectors,
    `alerts` sends messages; `all` is one worker a queue, each in a process of its own.

    A worker that dies is started again; its job comes again by itself. SIGTERM finishes the current jobs.

    \b
    billingwatch worker events --processes 2
    """
    begin()
    stores = read_stores(os.environ)
    rules, plans, policy = load_rules()
    base_url = read_base_url(os.environ)
    if in_process and queue != "all":
        from worker.jobs import send_in_lanes
        from worker.process import Process, start
        from worker.runner import run, wait_for_redis

        redis = connect_redis(stores.redis_url)
        templates = Templates(Path(policy.templates) if policy.templates else None)
        process = Process(stores, redis, rules, plans, f"worker {queue}", policy, base_url, templates=templates)
        process.stopping = stop_on_signals()  # until RQ listens to them itself
        start(process)
        with send_in_lanes(process) if queue == ALERTS else nullcontext():
            try:
                if wait_for_redis(process):
                    run(process.queue(queue), process)
            except RedisError as error:
                if process.stopping.is_set():
                    return  # it could not sign off, and its entry goes by itself
                log.error("redis_failed", error=type(error).__name__, hint="does it answer, has it room?")
                sys.exit(1)
        return
    Supervisor(commands([*QUEUES] if queue == "all" else [queue], processes), os.environ).run(stop_on_signals())


def commands(names: list[str], processes: int = 1) -> list[Command]:
    """One supervised worker process for each queue and count: never two queues in one."""
    return [Command(f"{name}-{n}", ("worker", name, "--in-process")) for name in names for n in range(1, processes + 1)]
