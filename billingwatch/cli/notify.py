"""`billingwatch notify`: try the channels, and see how they do."""

import importlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import click
import psycopg
from msgspec import Struct, to_builtins
from psycopg import Connection
from redis import Redis
from redis.exceptions import RedisError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn
from rich.table import Table

from billingwatch import queues
from billingwatch.cli import running
from billingwatch.cli.start import begin, connect_redis, load_rules
from billingwatch.model import OWN, Channel
from billingwatch.queues import ALERTS, Queue
from billingwatch.schema import pending
from billingwatch.settings import ConfigurationError, Problem, read_database, read_stores
from billingwatch.store import deliveries, incidents, trials
from billingwatch.store.connection import StoreAwayError, connect
from billingwatch.store.trials import Trial
from notify.breaker import Outcome, broken, opened
from notify.route import CONSOLE

PATIENCE = 60.0  # seconds; a try takes 20 at most, and a channel may be busy with another
LOOK = 0.1  # seconds between two looks
BROKEN = "channel_broken"


@click.group()
def notify() -> None:
    """Try the channels that alerts go to, and see how they do."""
    begin()


class Tried(Struct, frozen=True):
    """What became of a test: by the `worker`, as every alert goes, or `direct`."""

    channel: str
    ok: bool
    url: str
    error: str
    via: str
    seconds: float | None = None
    title: str = ""

    @property
    def words(self) -> str:
        """As a person reads it."""
        if not self.ok:
            return f"FAILED: {self.error}"
        return "sent" if self.seconds is None else f'sent in {self.seconds:.1f} s: "{self.title}"'


@notify.command()
@click.argument("channel", required=False)
@click.option("--direct", is_flag=True, help="From here, past outbox and worker, also where these run.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def test(channel: str | None, direct: bool, as_json: bool) -> None:
    """Send a marked sample to every channel, or to one, and report what became of each.

    It goes the way of every alert, through outbox, queue and alerts worker, where these run; otherwise, and that is
    said, straight from here. It is tried once. Exit code 1 where one failed.
    """
    chosen = _channels(channel)
    why_not = "as asked"
    tried: list[Tried] = []
    if not direct:
        with _pipeline() as (conn, redis, why_not):
            if conn is not None and redis is not None:
                tried = _by_worker(conn, redis, chosen)
    if not tried:
        if not direct:
            click.echo(f"Sent from here, past outbox and worker: {why_not}.", err=True)
        tried = list(_directly(chosen))
    if as_json:
        click.echo(json.dumps(to_builtins(tried), indent=2))
    else:
        for each in tried:
            click.echo(f"{each.channel}: {each.words}")
    if not all(each.ok for each in tried):
        sys.exit(1)


def _channels(name: str | None) -> dict[str, Channel]:
    """The channels that are meant, of a name that stands for several each of them."""
    from notify.send import CONSOLE as URL

    rules = load_rules().rules
    channels = dict(rules.channels) or {CONSOLE: Channel(URL)}
    if name is None:
        return channels
    members = rules.members.get(name, (name,) if name in channels else ())
    if not members:
        raise click.UsageError(f"no channel is named {name!r}; there are {', '.join(channels)}")
    return {each: channels[each] for each in members}


@contextmanager
def _pipeline() -> Iterator[tuple[Connection | None, Redis | None, str]]:
    """The stores where an alerts worker lives beside them; without, and why, where not."""
    from worker.health import live_workers

    environment = running.beside(os.environ)
    if not running.known(environment):
        yield None, None, "DATABASE_URL and REDIS_URL are not set, and no `billingwatch up` runs in the data folder"
        return
    stores = read_stores(environment)
    redis = connect_redis(stores.redis_url)
    try:
        alive = live_workers(redis, ALERTS, datetime.now(UTC))
        conn = connect(stores.database_url, "notify test")
    except RedisError as error:
        yield None, None, f"Redis does not answer ({type(error).__name__})"
        return
    except StoreAwayError as error:
        yield None, None, f"Postgres does not answer ({error})"
        return
    with conn, redis:
        if not alive:
            yield None, None, "no alerts worker is running"
        elif pending(conn):
            yield None, None, "the database's schema is not the newest"
        else:
            yield conn, redis, ""


def _by_worker(conn: Connection, redis: Redis, channels: Mapping[str, Channel]) -> list[Tried]:
    from notify.send import mask

    ids = trials.stage(conn, channels, datetime.now(UTC))
    try:
        found = _await(conn, redis, ids, channels)
    except (KeyboardInterrupt, psycopg.Error, RedisError):
        if not conn.closed:
            trials.withdraw(conn, ids)
        raise
    return [_tried(each, mask(channels[each.channel].url)) for each in found]


def _await(conn: Connection, redis: Redis, ids: Sequence[int], channels: Mapping[str, Channel]) -> list[Trial]:
    """Wake each channel and wait until its test is over."""
    queue = Queue(ALERTS, redis)
    for channel in channels:
        queues.enqueue_sending(queue, channel)
    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    end = time.monotonic() + PATIENCE
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=None)
        while waiting := [each.channel for each in trials.read(conn, ids) if not each.over]:
            progress.update(task, description=escape(f"waiting for {', '.join(waiting)}"))
            if time.monotonic() > end:
                trials.withdraw(conn, ids)
                break
            time.sleep(LOOK)
    return trials.read(conn, ids)


def _tried(trial: Trial, url: str) -> Tried:
    seconds = None if trial.seconds is None else round(trial.seconds, 2)
    ok = trial.state == "sent"
    error = "" if ok else trial.error or trial.verdict or f"it is still {trial.state} after {PATIENCE:g} s"
    if "not configured" in error:
        error = "the running alerts worker does not know this channel: restart it with the configuration of today"
    return Tried(trial.channel, ok, url, error, "worker", seconds if ok else None, trial.title if ok else "")


def _directly(channels: Mapping[str, Channel]) -> Iterator[Tried]:
    from notify.message import sample
    from notify.send import mask, send

    for name, channel in channels.items():
        delivery = send(channel, sample())
        yield Tried(name, delivery.ok, mask(channel.url), delivery.error, "direct")


class State(Struct, frozen=True):
    """How a channel does. `failures` are those in a row without a success, as far back as 50 deliveries."""

    channel: str
    url: str
    configured: bool = True
    last: datetime | None = None
    outcome: str = ""
    error: str = ""
    failures: int = 0
    paused_until: datetime | None = None  # the breaker is open
    broken: str = ""  # why people are to be told of it
    incident: int | None = None  # that tells them


@notify.command()
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def channels(as_json: bool) -> None:
    """List the channels: the last delivery to each, failures since it worked, whether it is paused or broken."""
    environment = running.beside(os.environ)
    if not running.known(environment):
        problem = Problem("DATABASE_URL", "is not set", "and no `billingwatch up` runs in the data folder")
        raise ConfigurationError([problem])
    try:
        with connect(read_database(environment), "notify channels") as conn:
            states = _states(conn, _channels(None), datetime.now(UTC))
    except StoreAwayError as error:
        click.echo(f"Postgres does not answer at DATABASE_URL ({error}). Is it running?", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(to_builtins(states), indent=2))
        return
    table = Table(box=None, pad_edge=False)
    for title in ("channel", "address", "last delivery", "failures", "state"):
        table.add_column(title, overflow="fold", no_wrap=title == "channel")
    for each in states:
        last = f"{each.outcome} {each.last:%Y-%m-%d %H:%M} UTC" if each.last else "none"
        table.add_row(escape(each.channel), escape(each.url), last, str(each.failures or "-"), escape(_state(each)))
    Console().print(table)


def _states(conn: Connection, channels: Mapping[str, Channel], now: datetime) -> list[State]:
    from notify.send import mask

    told = {each.scope: each.id for each in incidents.read_open(conn, OWN) if each.detector == BROKEN}
    found = []
    for name, channel in channels.items():
        ended = deliveries.ended(conn, name)
        outcomes = [Outcome(each.ended_at, each.outcome, each.error) for each in ended]
        newest = ended[-1] if ended else None
        found.append(
            State(
                channel=name,
                url=mask(channel.url),
                last=newest.ended_at if newest else None,
                outcome=newest.outcome if newest else "",
                error=newest.error if newest else "",
                failures=_failures(outcomes),
                paused_until=opened(outcomes, now),
                broken=broken(outcomes, now) or "",
                incident=told.get(name),
            )
        )
    # One that is not configured any more may be broken for ever: nothing arrives there that would end it.
    return found + [State(name, "", False, incident=id_) for name, id_ in sorted(told.items()) if name not in channels]


def _failures(outcomes: Sequence[Outcome]) -> int:
    count = 0
    for each in reversed(outcomes):
        if each.result == "sent":
            break
        count += each.result != "unknown"
    return count


def _state(each: State) -> str:
    parts = [
        "" if each.configured else "not configured any more",
        f"paused until {each.paused_until:%H:%M:%S} UTC" if each.paused_until else "",
        f"broken: {each.broken}" if each.broken else each.error,
        f"incident {each.incident} is open" if each.incident else "",
    ]
    return "; ".join(part for part in parts if part) or ("well" if each.last else "never tried")


def _add(module: str, command: str) -> None:
    """A subcommand of another module, where there is one."""
    if importlib.util.find_spec(module) is not None:
        found: Any = importlib.import_module(module)
        notify.add_command(getattr(found, command))


_add("billingwatch.cli.preview", "preview")
