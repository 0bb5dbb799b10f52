"""`billingwatch clock`: the one clock."""

import os
from pathlib import Path

import click

from billingwatch.cli.start import begin, connect_redis, load_rules
from billingwatch.settings import DATA_DIR, DEFAULT_DATA_DIR, read_heartbeat_url, read_stores
from billingwatch.supervisor import stop_on_signals


@click.command()
@click.option(
    "--every", type=click.FloatRange(min=1), default=60.0, show_default=True, help="Seconds between evaluations."
)
def clock(every: float) -> None:
    """Tick: have every account judged each minute, alerts retried, partitions made, old data dropped.

    Several may run: one ticks, the others stand by and take over within seconds when it dies.
    """
    from worker.clock import run
    from worker.process import Process

    begin()
    stores = read_stores(os.environ)
    rules, plans, policy = load_rules()
    process = Process(
        stores,
        connect_redis(stores.redis_url),
        rules,
        plans,
        "clock",
        policy,
        folder=Path(os.environ.get(DATA_DIR) or DEFAULT_DATA_DIR),
        heartbeat_url=read_heartbeat_url(os.environ),
    )
    run(process, stop_on_signals(), evaluate_every=every)
