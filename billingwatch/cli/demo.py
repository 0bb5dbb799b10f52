"""`billingwatch demo`: real signed webhooks through the real pipeline, and the alerts that come out."""

import os
import secrets
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import click
from msgspec import Struct
from psycopg import Connection, sql
from redis import Redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from billingwatch import demo as plot
from billingwatch.cli.ingest import bind
from billingwatch.cli.migrate import bring_up_to_date
from billingwatch.cli.start import begin
from billingwatch.cli.up import commands, servers
from billingwatch.demo import Planting
from billingwatch.replay import Sent, send
from billingwatch.settings import DATA_DIR, DEFAULT_DATA_DIR
from billingwatch.store.connection import connect
from billingwatch.supervisor import Supervisor, stop_on_signals

CONFIG = """\
[channels]
console = "console://"
{more}
[alerts]
group_wait = "2s"  # half a minute where nobody watches

[detectors.webhook_silence]
settle = 15  # seconds; 10 minutes where nobody watches
"""
# Variables of the real installation, each also as …_FILE: the demo has its own.
REAL = (
    *("DATABASE_URL", "REDIS_URL", "STRIPE_WEBHOOK_SECRET", "BILLINGWATCH_APPRISE_URLS"),
    *("BILLINGWATCH_BASE_URL", "BILLINGWATCH_HEARTBEAT_URL", "BILLINGWATCH_CONSOLE_PASSWORD"),
)
EVERY = 5.0  # seconds between the clock's evaluations
PATIENCE = 90.0  # seconds after the last event until what was not alerted counts as missed


class Found(Struct, frozen=True):
    """What became of a planting: the detector that told it, and the seconds from its first event to the message."""

    planting: Planting
    detector: str = ""
    seconds: float = 0.0


@click.command()
@click.option("--exit", "leave", is_flag=True, help="Stop when the plot is over: 0 if all went well, else 1.")
@click.option("--port", type=click.IntRange(0, 65535), help="The receiver's port; any free one.")
@click.option("--to", "urls", multiple=True, help="An Apprise URL that gets the alerts too; may be repeated.")
def demo(leave: bool, port: int | None, urls: tuple[str, ...]) -> None:
    """Watch it work: a week of a simulated account's events, then half an hour of live traffic in which things
    go wrong, all as signed webhooks through the real receiver, Valkey, workers, Postgres, detectors and Apprise.

    Each alert is printed as it is delivered, and at the end what was planted, what was found, and how fast.
    Its servers and its data are its own (in BILLINGWATCH_DATA_DIR/demo).

    \b
    billingwatch demo --to "slack://..." see what an alert looks like where you will read it
    """
    os.environ.setdefault("LOG_LEVEL", "warning")
    begin()
    stop = stop_on_signals()
    screen = Console()
    folder = Path(os.environ.get(DATA_DIR) or DEFAULT_DATA_DIR) / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    secret = "whsec_" + secrets.token_hex(16)
    own = {name: value for name, value in os.environ.items() if not name.startswith(REAL)}
    screen.print(f"Starting Postgres and Valkey in {folder} ...")
    with servers(folder, own) as environment:
        _empty(environment)
        bring_up_to_date(environment)
        config = folder / "billingwatch.toml"
        config.write_text(CONFIG.format(more="".join(f"to{n} = {url!r}\n" for n, url in enumerate(urls, 1))))
        listener, console = bind("127.0.0.1", port or 0), bind("127.0.0.1", 0)
        address, pages = (f"http://127.0.0.1:{each.getsockname()[1]}" for each in (listener, console))
        environment |= {
            "STRIPE_WEBHOOK_SECRET": secret,
            "BILLINGWATCH_CONFIG": str(config.resolve()),
            "BILLINGWATCH_BASE_URL": pages,
        }
        supervisor = Supervisor(commands(listener.fileno(), console.fileno(), every=EVERY), environment)
        running = threading.Thread(target=supervisor.run, args=(stop,), name="supervisor")
        running.start()
        try:
            with connect(environment["DATABASE_URL"], "demo") as conn:
                good = _play(conn, f"{address}/webhook", secret, stop, screen)
            if not leave and not stop.is_set():
                screen.print(f"\nThe receiver stays up at {address} (health: /readyz), and the messages' links")
                screen.print("can be followed: see an incident, answer it. Ctrl-C ends the demo.")
                stop.wait()
        finally:
            stop.set()
            running.join()
    sys.exit(0 if good else 1)


def _play(conn: Connection, url: str, secret: str, stop: threading.Event, screen: Console) -> bool:
    """Send everything, wait for the alerts, print the table. Whether all was found and nothing lost."""
    end = int(time.time())
    posted: dict[Planting, float] = {}
    plantings = plot.plantings(end)
    silent = _send_history(plot.silent_history(end), url, secret, stop, screen)
    posted[plantings[0]] = time.time()  # nothing announces a silence: it is told when it could be
    history = _send_history(plot.history(end), url, secret, stop, screen)
    screen.print(
        f"Now the last {plot.LIVE // 60} minutes as live traffic, {plot.SPEED} times as fast. "
        f"Planted: {', '.join(planting.kind for planting in plantings)}.\n"
    )
    live = send(
        _noting(plot.live(end), plantings, posted), url, secret, speed=plot.SPEED, halt=stop, malformed=_unreadable
    )
    sent = silent.sent + history.sent + live.sent
    found = _await(conn, plantings, posted, sent, stop)
    lost = sent + silent.failed + history.failed + live.failed - _stored(conn)
    _report(conn, screen, found, sent, lost)
    return lost == 0 and all(each.detector for each in found) and not stop.is_set()


def _send_history(events: Iterable[bytes], url: str, secret: str, stop: threading.Event, screen: Console) -> Sent:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    with Progress(*columns, console=screen, transient=True) as progress:
        task = progress.add_task(f"{plot.DAYS} days of events", total=None)

        def lines() -> Iterator[bytes]:
            for line in events:
                progress.advance(task)
                yield line

        sent = send(lines(), url, secret, halt=stop, tries=30, malformed=_unreadable)
    screen.print(f"{sent.sent:,} events of {plot.DAYS} days sent, {sent.per_second:,.0f} a second.")
    return sent


def _noting(
    live: Iterable[tuple[int, bytes]], plantings: Iterable[Planting], posted: dict[Planting, float]
) -> Iterator[bytes]:
    """The lines, and when the stream reached each planting."""
    waiting = [planting for planting in plantings if planting not in posted]
    for created, line in live:
        for planting in [each for each in waiting if each.start <= created]:
            posted[planting] = time.time()
            waiting.remove(planting)
        yield line


def _await(
    conn: Connection, plantings: Iterable[Planting], posted: dict[Planting, float], sent: int, stop: threading.Event
) -> list[Found]:
    """Wait until every planting was alerted and every event stored, PATIENCE at most."""
    until = time.monotonic() + PATIENCE
    while True:
        found = [_find(conn, planting, posted.get(planting)) for planting in plantings]
        done = all(each.detector for each in found) and _stored(conn) >= sent
        if done or stop.is_set() or time.monotonic() > until:
            return found
        stop.wait(0.5)


def _find(conn: Connection, planting: Planting, posted: float | None) -> Found:
    row: tuple[str, datetime] | None = conn.execute(
        """
        SELECT i.detector, min(a.sent_at) FROM incidents i JOIN alerts a ON a.incident = i.id
        WHERE i.account = %s AND i.detector = ANY(%s) AND a.reason = 'first' AND a.state = 'sent'
          AND a.sent_at >= to_timestamp(%s)
        GROUP BY i.detector ORDER BY 2 LIMIT 1
        """,
        (planting.account, list(planting.detectors), posted),
    ).fetchone()
    if row is None or posted is None:
        return Found(planting)
    return Found(planting, row[0], row[1].timestamp() - posted)


def _report(conn: Connection, screen: Console, found: list[Found], sent: int, lost: int) -> None:
    table = Table(title="Planted and detected", title_justify="left")
    for title in ("planted", "account", "detected by", "seconds to the message"):
        table.add_column(title, no_wrap=title == "account", overflow="fold")
    for each in found:
        detected = [each.detector, f"{each.seconds:.1f}"] if each.detector else ["[red]missed", "-"]
        table.add_row(each.planting.kind, each.planting.account, *detected)
    screen.print(table)
    screen.print(f"{sent:,} events acknowledged, {lost} lost, {_count(conn, 'quarantine')} in quarantine.")


def _stored(conn: Connection) -> int:
    return _count(conn, "events") + _count(conn, "quarantine")


def _count(conn: Connection, table: str) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    return int(row[0]) if row else 0


def _empty(environment: dict[str, str]) -> None:
    """Leave nothing of the last demo."""
    with connect(environment["DATABASE_URL"], "demo") as conn:
        conn.execute("DROP SCHEMA public CASCADE")
        conn.execute("CREATE SCHEMA public")
    with Redis.from_url(environment["REDIS_URL"]) as redis:
        redis.flushall()


def _unreadable(number: int, reason: str) -> None:
    raise RuntimeError(f"the simulator made a bad event {number}: {reason}")
