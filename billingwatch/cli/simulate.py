"""`billingwatch simulate`: write the events of a made-up account to a file, with incidents planted and labelled."""

import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import BinaryIO, Literal

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from billingwatch.simulator.incidents import KINDS, Planted, parse
from billingwatch.simulator.objects import CURRENT
from billingwatch.simulator.stream import Scenario, labels
from billingwatch.simulator.stream import simulate as stream

_KINDS = "\n".join(f"  {name:<16} {sort.meaning} ({sort.size:g})" for name, sort in KINDS.items())

EPILOG = f"""\b
Kinds of incident, with what size means and its default:
{_KINDS}

\b
Examples:
  A month of a small shop, ending now:
    billingwatch simulate --days 30 --seed 1 -o month.jsonl
  Refunds jump on the third day, and the labels to mark a detector by:
    billingwatch simulate --days 7 --incident refund_spike@+2d3h,size=20,for=90m -o week.jsonl --labels week.json
  An outage of payments at a fixed time, seen by a connected test account:
    billingwatch simulate --days 2 --start 2026-09-01 --test-mode --account acct_1Example
      --incident failed_payments@2026-09-02T12:00Z,size=0.8,for=2h -o -
"""


class Incident(click.ParamType[Planted]):
    """KIND@WHEN[,size=NUMBER][,for=SPAN]."""

    name = "KIND@WHEN"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Planted:
        """Read the incident; a fault becomes a usage error."""
        if isinstance(value, Planted):
            return value
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[int]):
    """ISO time, UTC unless it says otherwise, as epoch seconds."""

    name = "ISO"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the time; a fault becomes a usage error."""
        if isinstance(value, int):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not an ISO time such as 2026-09-01 or 2026-09-01T12:00:00Z", param, ctx)
        if not 2000 <= moment.year < 2100:
            self.fail(f"the year {moment.year} is not of this century", param, ctx)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


@click.command(epilog=EPILOG)
@click.option("--days", type=click.FloatRange(0, 3660, min_open=True), required=True, help="How long the stream is.")
@click.option("--seed", type=int, default=1, show_default=True, help="Same seed, same bytes.")
@click.option(
    "--volume",
    type=click.FloatRange(0, 1_000_000, min_open=True),
    default=200,
    show_default=True,
    help="Charges a day, retries apart.",
)
@click.option(
    "--incident",
    "incidents",
    type=Incident(),
    multiple=True,
    help="Plant an incident: KIND@WHEN[,size=NUMBER][,for=SPAN]; WHEN is ISO time or +2d3h after the start.",
)
@click.option("--start", type=Moment(), help="First moment of the stream.  [default: so that it ends now]")
@click.option("--currency", default="usd", show_default=True, help="Three letters, as in jpy or kwd.")
@click.option("--test-mode", is_flag=True, help="Make test-mode events.")
@click.option("--account", default="", help="Events of this connected account (acct_…).")
@click.option("--api-version", default=CURRENT, show_default=True, help="Shape of the objects, as in 2024-06-20.")
@click.option(
    "--kind",
    type=click.Choice(["b2c", "b2b"]),
    default="b2c",
    show_default=True,
    help="Whose hours it keeps: consumers' or offices'.",
)
@click.option("-o", "--output", type=click.File("wb"), required=True, help="File of JSON Lines; '-' is stdout.")
@click.option("--labels", "label_file", type=click.File("wb"), help="Write the planted incidents here, as JSON.")
def simulate(
    days: float,
    seed: int,
    volume: float,
    incidents: tuple[Planted, ...],
    start: int | None,
    currency: str,
    test_mode: bool,
    account: str,
    api_version: str,
    kind: Literal["b2b", "b2c"],
    output: BinaryIO,
    label_file: BinaryIO | None,
) -> None:
    """Make up an account and write the Stripe events it sends, one a line.

    The stream has hours and weekdays, renewals that crowd the start of the month, retries, refunds at the staff's
    desk, disputes weeks later: whole Stripe events with consistent ids, repeatable by their seed.
    """
    if account and not account.startswith("acct_"):
        raise click.BadParameter("a connected account's id begins with acct_", param_hint="--account")
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha():
        raise click.BadParameter("a currency has three letters", param_hint="--currency")
    try:
        datetime.fromisoformat(api_version[:10])
    except ValueError:
        raise click.BadParameter("an API version begins with a date", param_hint="--api-version") from None
    scenario = Scenario(
        seed=seed,
        start=int(time.time() - days * 86_400) if start is None else start,
        days=days,
        volume=volume,
        account=account,
        livemode=not test_mode,
        currency=currency.lower(),
        api_version=api_version,
        kind=kind,
        incidents=incidents,
    )
    try:
        planted = labels(scenario)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--incident") from None
    count = _write(scenario, output)
    if label_file:
        label_file.write(msgspec.json.format(msgspec.json.encode(planted), indent=2) + b"\n")
    click.echo(f"{count} events, {len(planted)} planted incidents", err=True)


def _write(scenario: Scenario, output: BinaryIO) -> int:
    """Write the stream, with a bar on a terminal; how many events it had."""
    encoder = msgspec.json.Encoder()
    console = Console(stderr=True)
    count = 0
    with ExitStack() as stack:
        bar = None
        if sys.stderr.isatty():
            columns = (TextColumn("simulating"), BarColumn(), TextColumn("{task.fields[events]} events"))
            bar = stack.enter_context(Progress(*columns, TimeRemainingColumn(), console=console, transient=True))
            task = bar.add_task("", total=scenario.end - scenario.start, events=0)
        for event in stream(scenario):
            output.write(encoder.encode(event) + b"\n")
            count += 1
            if bar and count % 1000 == 0:
                bar.update(task, completed=event["created"] - scenario.start, events=count)
    return count
