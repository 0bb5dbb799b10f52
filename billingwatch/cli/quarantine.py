"""`billingwatch quarantine`: what could not be stored, and another try at it."""

import json
import os
import sys

import click
from msgspec import to_builtins
from rich.console import Console
from rich.table import Table

from billingwatch.cli.start import begin, connect_redis, expect_redis, open_store
from billingwatch.queues import EVENTS, Queue, Received, enqueue_events
from billingwatch.settings import read_redis
from billingwatch.store import quarantine as store

BATCH = 200  # events a job


@click.group(invoke_without_command=True)
@click.pass_context
def quarantine(context: click.Context) -> None:
    """What was received and could not be stored, raw and with the reason. Without a subcommand it lists."""
    begin()
    if context.invoked_subcommand is None:
        context.invoke(list_)


@quarantine.command("list")
@click.option("--limit", type=click.IntRange(1, 100_000), default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(limit: int = 1000, as_json: bool = False) -> None:
    """List what is held. Bodies are customers' data and are not shown."""
    with open_store() as conn:
        held = store.read_all(conn, limit)
    if as_json:
        click.echo(json.dumps(to_builtins(held), indent=2))
        return
    if not held:
        click.echo("The quarantine is empty.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("id", "source", "received", "bytes", "reason"):
        table.add_column(title)
    for row in held:
        table.add_row(str(row.id), row.source, f"{row.received_at:%Y-%m-%d %H:%M:%S}", str(row.bytes), row.reason)
    Console().print(table)


@quarantine.command()
@click.argument("ids", nargs=-1, type=int)
@click.option("--all", "everything", is_flag=True, help="Every row.")
def retry(ids: tuple[int, ...], everything: bool) -> None:
    """Send rows through the pipeline again. What is refused again comes back here."""
    if bool(ids) == everything:
        raise click.UsageError("name the rows by id, or give --all")
    redis = connect_redis(read_redis(os.environ))
    expect_redis(redis)
    queue = Queue(EVENTS, redis)
    with open_store() as conn:
        wanted = [row.id for row in store.read_all(conn, 1_000_000)] if everything else list(ids)
        tried = 0
        for start in range(0, len(wanted), BATCH):
            # Redis before the commit: a crash between them tries the rows twice and loses none.
            with conn.transaction():
                taken = store.take(conn, wanted[start : start + BATCH])
                if taken:
                    enqueue_events(queue, [Received(row.source, row.received_at, row.body) for row in taken])
            tried += len(taken)
    click.echo(f"{tried} of {len(wanted)} rows are on their way again.")
    if tried < len(wanted):
        sys.exit(1)
