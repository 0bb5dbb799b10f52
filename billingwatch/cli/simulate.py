"""`billingwatch simulate`: write the events of made-up accounts to a file, with incidents planted and labelled.

A file appears when it is whole: what is interrupted leaves nothing behind.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from billingwatch.simulator import fleet, rhythm
from billingwatch.simulator.incidents import KINDS, Label, Planted, parse
from billingwatch.simulator.objects import CURRENT
from billingwatch.simulator.stream import Scenario, Stream

_KINDS = "\n".join(
    f"  {name:<17} {sort.meaning} ({sort.size:g}){' *' if sort.late else ''}" for name, sort in KINDS.items()
)

EPILOG = f"""\b
Kinds of incident, with what size means and its default; those with a * need --arrivals:
{_KINDS}

\b
Examples:
  A month of a small shop, ending now:
    billingwatch simulate --days 30 --seed 1 -o month.jsonl
  Refunds jump on the third day, and the labels to mark a detector by:
    billingwatch simulate --days 7 --incident refund_spike@+2d3h,size=20,for=90m -o week.jsonl --labels week.json
  An outage of payments at a fixed time, seen by a connected test account:
    billingwatch simulate --days 2 --start 2026-09-01 --test-mode --account acct_1Example \\
      --incident failed_payments@2026-09-02T12:00Z,size=0.8,for=2h -o -
  Three accounts through a change of the clock, the checkout of the second breaking, with times of arrival:
    billingwatch simulate --days 14 --start 2026-10-20 --accounts 3 --zone Europe/Berlin --arrivals \\
      --incident checkout_drop@+9d10h,on=2 --incident webhook_lag@+12d -o fleet.jsonl --labels fleet.json
  A large shop in yen, without sales, holidays and other surprises:
    billingwatch simulate --days 1 --volume 50000 --currency jpy --zone Asia/Tokyo --calm -o tokyo.jsonl
"""


class Incident(click.ParamType[Planted]):
    """KIND@WHEN[,size=NUMBER][,for=SPAN][,on=ACCOUNT]."""

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
    help="Plant an incident: KIND@WHEN[,size=NUMBER][,for=SPAN][,on=ACCOUNT]; WHEN is ISO time or +2d3h after the "
    "start, ACCOUNT a number of --accounts.",
)
@click.option("--start", type=Moment(), help="First moment of the stream.  [default: so that it ends now]")
@click.option("--currency", default="usd", show_default=True, help="Three letters, as in jpy or kwd.")
@click.option("--test-mode", is_flag=True, help="Make test-mode events.")
@click.option("--account", default="", help="Events of this connected account (acct_…).")
@click.option(
    "--accounts",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="So many accounts; all but the first are connected ones of other kinds, sizes, zones and currencies.",
)
@click.option("--api-version", default=CURRENT, show_default=True, help="Shape of the objects, as in 2024-06-20.")
@click.option(
    "--kind",
    type=click.Choice(rhythm.KINDS),
    default="b2c",
    show_default=True,
    help="Whose hours it keeps: consumers', offices', the whole world's, or meals'.",
)
@click.option("--zone", default="UTC", show_default=True, help="Whose clock its people live by, as in Europe/Berlin.")
@click.option("--calm", is_flag=True, help="No sales, holidays, level steps, enterprise invoices or outages.")
@click.option(
    "--arrivals",
    is_flag=True,
    help='Lines of {"received_at": …, "event": …}, in order of arrival: some late, some twice, bursts after outages.',
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    required=True,
    help="File of JSON Lines; '-' is stdout.",
)
@click.option(
    "--labels",
    "label_file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="Write the planted incidents here, as JSON.",
)
def simulate(
    days: float,
    seed: int,
    volume: float,
    incidents: tuple[Planted, ...],
    start: int | None,
    currency: str,
    test_mode: bool,
    account: str,
    accounts: int,
    api_version: str,
    kind: rhythm.Kind,
    zone: str,
    calm: bool,
    arrivals: bool,
    output: Path,
    label_file: Path | None,
) -> None:
    """Make up an account, or several, and write the Stripe events they send, one a line.

    The stream has hours and weekdays, renewals that crowd the start of the month, retries, refunds at the staff's
    desk, disputes weeks later, and surprises: whole Stripe events with consistent ids, repeatable by their seed.
    """
    _check(account, currency, api_version, zone)
    if output == label_file:
        raise click.BadParameter("events and labels cannot go to the same place", param_hint="--labels")
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
        zone=zone,
        surprises=not calm,
        arrivals=arrivals,
        incidents=incidents,
    )
    try:
        streams = [Stream(each) for each in fleet.fleet(scenario, accounts)]
    except ValueError as error:
        hint = "; add --arrivals" if "no arrivals" in str(error) else ""
        raise click.BadParameter(f"{error}{hint}", param_hint="--incident") from None
    with ExitStack() as stack:
        events = stack.enter_context(_whole(output, "--output"))
        marks = stack.enter_context(_whole(label_file, "--labels")) if label_file else None
        count = _write(streams, scenario, events)
        labels = sorted((label for stream in streams for label in stream.labels()), key=_place)
        if marks:
            marks.write(msgspec.json.format(msgspec.json.encode(labels), indent=2) + b"\n")
    click.echo(f"{count} events, {len(labels)} planted incidents", err=True)


def _check(account: str, currency: str, api_version: str, zone: str) -> None:
    if account and not account.startswith("acct_"):
        raise click.BadParameter("a connected account's id begins with acct_", param_hint="--account")
    if len(currency) != 3 or not currency.isascii() or not currency.isalpha():
        raise click.BadParameter("a currency has three letters", param_hint="--currency")
    try:
        datetime.fromisoformat(api_version[:10])
    except ValueError:
        raise click.BadParameter("an API version begins with a date", param_hint="--api-version") from None
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):  # unknown, a path out of the database, a folder of it
        raise click.BadParameter(f"no time zone is called {zone!r}", param_hint="--zone") from None


def _place(label: Label) -> tuple[datetime, str, str]:
    return label.start, label.account, label.kind


@contextmanager
def _whole(path: Path, option: str) -> Iterator[BinaryIO]:
    """A file to write that appears under its name when all is written, and never otherwise."""
    if str(path) == "-":
        stdout = sys.stdout.buffer
        yield stdout
        stdout.flush()
        return
    path = path.resolve()
    # A device or a pipe is written to as it stands: it has no whole, and must not be replaced.
    part = path.with_name(f".{path.name}.{os.getpid()}.part") if path.is_file() or not path.exists() else path
    try:
        file = part.open("wb")
    except OSError as error:
        raise click.BadParameter(f"cannot write {path}: {error.strerror}", param_hint=option) from None
    try:
        with file:
            yield file
        if part != path:
            part.replace(path)
    finally:
        if part != path:
            part.unlink(missing_ok=True)


def _write(streams: Sequence[Stream], scenario: Scenario, output: BinaryIO) -> int:
    """Write the streams, with a bar on a terminal; how many lines there were."""
    count = 0
    with ExitStack() as stack:
        bar = None
        if sys.stderr.isatty():
            columns = (TextColumn("simulating"), BarColumn(), TextColumn("{task.fields[events]} events"))
            console = Console(stderr=True)
            bar = stack.enter_context(Progress(*columns, TimeRemainingColumn(), console=console, transient=True))
            task = bar.add_task("", total=scenario.end - scenario.start, events=0)
        for at, line in _lines(streams, arrivals=scenario.arrivals):
            output.write(line)
            count += 1
            if bar and count % 1000 == 0:
                bar.update(task, completed=at - scenario.start, events=count)
    return count


def _lines(streams: Sequence[Stream], *, arrivals: bool) -> Iterator[tuple[float, bytes]]:
    """The lines with the moment that each belongs to."""
    encode = msgspec.json.Encoder().encode
    if arrivals:
        for delivery in fleet.deliveries(streams):
            yield delivery.received_at, encode(delivery) + b"\n"
    else:
        for event in fleet.events(streams):
            yield event["created"], encode(event) + b"\n"
