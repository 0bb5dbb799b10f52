"""`billingwatch replay`: sign the events of a file and send them to a receiver."""

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from billingwatch.replay import Sent, send

EPILOG = """\b
Examples:
  As fast as the receiver takes them:
    STRIPE_WEBHOOK_SECRET=whsec_… billingwatch replay week.jsonl --url http://localhost:8000/webhook
  A day in 24 minutes, with the pauses between the events kept:
    billingwatch replay day.jsonl --url http://localhost:8000/webhook --speed 60
  The same events again, as if they were new, 200 a second:
    billingwatch replay day.jsonl --url http://localhost:8000/webhook --new --rate 200
"""


@click.command(epilog=EPILOG)
@click.argument("file", type=click.File("rb"))
@click.option("--url", required=True, help="The receiver's address, as in http://localhost:8000/webhook.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="So many events a second.")
@click.option("--speed", type=click.FloatRange(0, min_open=True), help="So many times as fast as they happened.")
@click.option(
    "--secret",
    envvar="STRIPE_WEBHOOK_SECRET",
    required=True,
    help="Signing secret; better given in STRIPE_WEBHOOK_SECRET. Of several, comma separated, the first signs.",
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True, help="Requests at once.")
@click.option("--tries", type=click.IntRange(1, 50), default=8, show_default=True, help="Attempts for an event.")
@click.option(
    "--as-is/--new",
    default=True,
    show_default=True,
    help="Send the events' bytes as they stand; or under new ids, created at the moment of sending.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def replay(
    file: BinaryIO,
    url: str,
    rate: float | None,
    speed: float | None,
    secret: str,
    concurrency: int,
    tries: int,
    as_is: bool,
    as_json: bool,
) -> None:
    """Send a file of Stripe events, signed, to a receiver.

    FILE holds JSON Lines, '-' is stdin: a line is an event, or {"received_at": SECONDS, "event": {…}}. What is not
    answered 2xx is sent again, later and later, as Stripe does. Exit code 1 says that events were not taken or lines
    were malformed.
    """
    if rate and speed:
        raise click.UsageError("--rate and --speed exclude each other")

    def malformed(number: int, reason: str) -> None:
        click.echo(f"line {number}: {reason}", err=True)

    key = secret.partition(",")[0].strip()
    if not key:
        raise click.BadParameter("it is empty", param_hint="--secret")
    with ExitStack() as stack:
        lines = _watched(file, stack) if sys.stderr.isatty() else iter(file)
        try:
            sent = send(
                lines,
                url,
                key,
                concurrency=concurrency,
                rate=rate,
                speed=speed,
                tries=tries,
                new=not as_is,
                malformed=malformed,
            )
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--url") from None
    click.echo(_counts(sent) if as_json else _sentence(sent))
    if sent.failed or sent.malformed or sent.stopped:
        sys.exit(1)


def _watched(file: BinaryIO, stack: ExitStack) -> Iterator[bytes]:
    """The lines, with a bar that follows them: by bytes where the file's size is known."""
    try:
        size = os.fstat(file.fileno()).st_size or None
    except (OSError, ValueError):
        size = None
    columns = (TextColumn("replaying"), BarColumn(), TextColumn("{task.fields[lines]} lines"))
    bar = stack.enter_context(Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True))
    task = bar.add_task("", total=size, lines=0)

    def lines() -> Iterator[bytes]:
        done = 0
        for number, line in enumerate(file, 1):
            done += len(line)
            if number % 100 == 0:
                bar.update(task, completed=done, lines=number)
            yield line

    return lines()


def _counts(sent: Sent) -> str:
    counts = {**msgspec.structs.asdict(sent), "per_second": round(sent.per_second, 1)}
    return msgspec.json.encode(counts).decode()


def _sentence(sent: Sent) -> str:
    words = (
        f"{sent.sent} sent, {sent.retried} retried, {sent.failed} failed, {sent.malformed} malformed; "
        f"{sent.per_second:.0f} events/s, p50 {sent.p50_ms:g} ms, p99 {sent.p99_ms:g} ms"
    )
    if sent.statuses:
        words += "; refused: " + ", ".join(f"{count} × {status}" for status, count in sent.statuses.items())
    return words + (f"; stopped: {sent.stopped}" if sent.stopped else "")
