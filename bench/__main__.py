"""`python -m bench [NAME…]`: run benchmarks, print their tables, and record them when asked to."""

import shlex
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime

import click
from rich.console import Console

from bench import (
    backtest,
    burst,
    channels,
    day,
    detection,
    growth,
    judge,
    kills,
    latency,
    machine,
    memory,
    outage,
    receiver,
    senders,
    shop,
    store,
    storm,
    sustained,
)
from bench.report import Report, display, record
from billingwatch.log import configure
from billingwatch.settings import Logs

BENCHMARKS: dict[str, Callable[[bool], Report]] = {
    "receiver": receiver.run,
    "sustained": sustained.run,
    "burst": burst.run,
    "store": store.run,
    "latency": latency.run,
    "storm": storm.run,
    "channels": channels.run,
    "memory": memory.run,
    "growth": growth.run,
    "judge": judge.run,
    "day": day.run,
    "backtest": backtest.run,
    "detection": detection.run,
    "shop": shop.run,
    "outage": outage.run,
    "kills": kills.run,
    "senders": senders.run,
}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", metavar="[NAME]...", nargs=-1, type=click.Choice(list(BENCHMARKS)))
@click.option("--quick", is_flag=True, help="Small loads, to see that everything works: their figures mean little.")
@click.option("--record", "recorded", is_flag=True, help="Write the tables to bench/RESULTS.md.")
def main(names: tuple[str, ...], quick: bool, recorded: bool) -> None:
    """Run the benchmarks, all of them or those named, on servers of their own."""
    if quick and recorded:
        raise click.UsageError("what --quick measures is not worth recording")
    configure(Logs(level="warning"))
    console = Console(width=None if sys.stdout.isatty() else 150)
    circumstances = machine.describe()
    console.print("; ".join(circumstances.values()))
    for name in names or tuple(BENCHMARKS):
        began = time.monotonic()
        report = BENCHMARKS[name](quick)
        display(name, report, time.monotonic() - began, console)
        if recorded:
            command = shlex.join(["python", "-m", "bench", *sys.argv[1:]])
            now = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            record(name, report, {**circumstances, "command": f"`{command}`", "date": now}, list(BENCHMARKS))


if __name__ == "__main__":
    main()
