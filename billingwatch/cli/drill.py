"""`billingwatch drill`: plant an incident in the live pipeline, and time each message about it."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import NoReturn
from urllib.parse import urlsplit

import click
import msgspec
import psycopg
from psycopg import Connection
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from billingwatch.cli import running
from billingwatch.cli.exercise import Heard, Result, Stage, clean, play
from billingwatch.cli.start import begin, connect_redis, expect_redis, load_rules
from billingwatch.drill import DRILLS, Drill
from billingwatch.queues import QUEUES
from billingwatch.settings import DEFAULT_SOURCE, ConfigurationError, Environment, Problem, read_sources, read_stores
from billingwatch.store import drill as store
from billingwatch.store.connection import StoreAwayError, connect
from billingwatch.supervisor import stop_on_signals
from detectors.registry import Plans
from detectors.vitals import THRESHOLDS

PATIENCE = 120.0  # seconds from the first event to the last message
OWN = (*THRESHOLDS, "channel_broken")
OFF = "it is switched off in the configuration"

EPILOG = """\b
Examples:
  Does anybody hear of a card testing attack, and how soon?
    billingwatch drill card_testing
  Every built-in detector, side by side, in a minute or two:
    billingwatch drill --all
  See its incident in the console before it goes:
    billingwatch drill refund_spike --keep; billingwatch incidents list; billingwatch drill --clean
"""


@click.command(epilog=EPILOG)
@click.argument("detectors", nargs=-1, metavar="[DETECTOR]...")
@click.option("--all", "everything", is_flag=True, help="Every built-in detector.")
@click.option("--url", help="The receiver's address; http://127.0.0.1:PORT/webhook.")
@click.option(
    "--timeout",
    type=click.FloatRange(1, 3600),
    default=PATIENCE,
    show_default=True,
    help="Seconds from an incident's first event to the last message about it.",
)
@click.option("--keep", is_flag=True, help="Leave everything as it is at the end, to look at it.")
@click.option("--clean", "only_clean", is_flag=True, help="Clean up what was kept, and do nothing else.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def drill(
    detectors: tuple[str, ...],
    everything: bool,
    url: str | None,
    timeout: float,
    keep: bool,
    only_clean: bool,
    as_json: bool,
) -> None:
    """Plant an incident for each DETECTOR in the pipeline that runs, and time each message about it.

    The events are made up, of an account of its own (drill_refund_spike), signed, and go through the receiver, the
    queues, the detectors and the routes like Stripe's; real messages reach your channels, marked as drill. At the end,
    or after Ctrl-C, nothing of it is left. Its past is written straight into the database.

    Exit code 1: an incident was not detected, or not told on a channel that was to hear of it.
    """
    begin()
    asked = [] if only_clean else _asked(detectors, everything)
    if only_clean and (detectors or everything):
        raise click.UsageError("--clean goes with no detector")
    with _servers() as (conn, redis):
        if not store.begin(conn):
            _fail("Another drill is under way.")
        left = store.leftovers(conn)
        if only_clean:
            store.clean(conn, left)
            click.echo(f"Cleaned up: {', '.join(left) or 'nothing was left'}")
            return
        results = _run(asked, _stage(conn, redis, url), left, timeout, keep)
    click.echo(msgspec.json.format(msgspec.json.encode(results)).decode()) if as_json else _report(results)
    if keep:
        click.echo("All of it is kept: `billingwatch drill --clean` removes it.", err=True)
    if not all(result.good or (everything and result.fault == OFF) for result in results):
        sys.exit(1)


def _asked(detectors: Sequence[str], everything: bool) -> list[Drill]:
    if bool(detectors) == everything:
        raise click.UsageError(f"name detectors, or --all; there are {', '.join(DRILLS)}")
    for name in detectors:
        if name in OWN:
            raise click.UsageError(f"{name} is about BillingWatch itself: it has no webhooks, and is not drilled")
        if name not in DRILLS:
            raise click.UsageError(
                f"no drill for {name!r}; there are {', '.join(DRILLS)} (rules of your own have none)"
            )
    return list(DRILLS.values()) if everything else [DRILLS[name] for name in dict.fromkeys(detectors)]


@contextmanager
def _servers() -> Iterator[tuple[Connection, Redis]]:
    """The stores of the running pipeline; the command ends with 1 where they do not answer."""
    environment = running.beside(os.environ)
    if not running.known(environment):
        hint = "no `billingwatch up` runs in BILLINGWATCH_DATA_DIR, and a drill wants a pipeline that runs"
        raise ConfigurationError([Problem("DATABASE_URL, REDIS_URL", "are not set", hint)])
    stores = read_stores(environment)
    redis = connect_redis(stores.redis_url)
    expect_redis(redis)
    try:
        conn = connect(stores.database_url, "drill")
    except StoreAwayError as error:
        _fail(f"Postgres does not answer ({error}). Is it running?")
    with conn, redis:
        yield conn, redis


def _stage(conn: Connection, redis: Redis, url: str | None) -> Stage:
    """Where it is played. Ends with 1 where something that it takes is missing."""
    from worker.clock import LEADER_LOCK
    from worker.health import live_workers

    reader = Environment(os.environ)
    address = url or f"http://127.0.0.1:{reader.port('PORT', 8000)}/webhook"
    sources = read_sources(reader)
    path = urlsplit(address).path.rstrip("/").rpartition("/")[2]
    secrets = sources.get(path) or sources.get(DEFAULT_SOURCE)
    if not secrets:
        reader.add("STRIPE_WEBHOOK_SECRET", "is not set", "the one that the receiver has: it signs the drill's events")
    reader.finish()
    configuration = load_rules()
    now = datetime.now(UTC)
    missing = [f"no worker on the queue {name}" for name in QUEUES if not live_workers(redis, name, now)]
    missing += [] if store.has_leader(conn, LEADER_LOCK) else ["no clock"]
    if missing:
        _fail(f"The pipeline does not run: {', '.join(missing)}. Start it with `billingwatch up`.")
    secret = secrets[0] if secrets else ""
    return Stage(conn, redis, address, secret, configuration.plans, configuration.policy)


def _run(drills: Sequence[Drill], stage: Stage, left: Sequence[str], timeout: float, keep: bool) -> list[Result]:
    """Play them and clean up, whatever happens meanwhile."""
    stop = stop_on_signals()
    if left:
        click.echo(f"Cleaning up after an earlier drill: {', '.join(left)}", err=True)
        clean(stage, left, sent=False)
    able = [each for each in drills if _enabled(each, stage.plans)]
    accounts = [each.tenant.account for each in able]
    try:
        with _progress(able) as watch:
            played = {each.detector: each for each in play(able, stage, timeout, stop, watch)}
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from None
    except (psycopg.Error, RedisError) as error:
        _fail(f"The stores went away ({type(error).__name__}). `billingwatch drill --clean` removes what is left.")
    finally:
        if not keep and not stage.conn.closed:
            _clean(stage, accounts)
    return [played.get(each.detector) or _off(each) for each in drills]


def _clean(stage: Stage, accounts: Sequence[str]) -> None:
    try:
        if clean(stage, accounts):
            return
        said = "Events of the drill still wait in the queue"
    except (psycopg.Error, RedisError) as error:
        said = f"Not cleaned up ({type(error).__name__})"
    click.echo(f"{said}: run `billingwatch drill --clean` later, or another drill.", err=True)


def _enabled(drill: Drill, plans: Plans) -> bool:
    return drill.detector in plans.of(drill.tenant.account, drill.tenant.livemode).judges


def _off(drill: Drill) -> Result:
    return Result(drill.detector, drill.tenant.account, drill.words, fault=OFF)


@contextmanager
def _progress(drills: Sequence[Drill]) -> Iterator[Callable[[Drill, str], None]]:
    """What hears how far each drill has come, and shows it on a terminal."""
    columns = (TextColumn("{task.description:<18}"), BarColumn(pulse_style="cyan"), TextColumn("{task.fields[words]}"))
    console = Console(stderr=True)
    with Progress(
        *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        tasks = {each.detector: bar.add_task(each.detector, total=None, words="") for each in drills}

        def watch(drill: Drill, words: str) -> None:
            bar.update(tasks[drill.detector], words=escape(words))

        yield watch


def _report(results: Sequence[Result]) -> None:
    table = Table(title="Seconds from an incident's first event", title_justify="left", box=None, pad_edge=False)
    table.add_column("planted")
    for title in ("detected by", "incident", "message", "group_wait"):
        table.add_column(title, no_wrap=True)
    for each in results:
        table.add_row(
            f"[bold]{each.detector}[/]: {each.planted}",
            "\n".join(each.detected_by) or "[red]-",
            "-" if each.seconds is None else f"{each.seconds:.1f}",
            "\n".join(map(_heard, each.heard)) or "-",
            "\n".join(f"{heard.group_wait:g}" for heard in each.heard) or "-",
        )
    console = Console()
    console.print(table)
    for each in results:
        if each.fault:
            console.print(f"[red]{each.detector}: {escape(each.fault)}", soft_wrap=True)
        for heard in each.heard:
            if heard.seconds is None:
                console.print(f"[red]{each.detector} on {escape(heard.channel)}: {escape(heard.why)}", soft_wrap=True)


def _heard(heard: Heard) -> str:
    return f"{escape(heard.channel)} " + (f"{heard.seconds:.1f}" if heard.seconds is not None else "[red]not told")


def _fail(words: str) -> NoReturn:
    click.echo(words, err=True)
    sys.exit(1)
