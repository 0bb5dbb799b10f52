"""`billingwatch digest`: the digest of the days before today, now. Printing it changes nothing."""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import click

from billingwatch.cli.start import begin, connect_redis, load_rules, open_store
from billingwatch.settings import read_redis

if TYPE_CHECKING:
    from notify.digest import Digest


@click.command()
@click.option("--daily", "kind", flag_value="daily", default="daily", help="Of yesterday (the default).")
@click.option("--weekly", "kind", flag_value="weekly", help="Of the last seven days.")
@click.option("--account", default="", help="Of one account alone, in its time zone.")
@click.option("--test-mode", is_flag=True, help="Of events in test mode.")
@click.option("--picture", type=click.Path(dir_okay=False, writable=True), help="Write the picture, a PNG, here.")
@click.option("--send", is_flag=True, help="Send it to the channels that digests go to, whether there is news or not.")
@click.option("--json", "as_json", is_flag=True, help="Everything that it says, as JSON.")
def digest(kind: str, account: str, test_mode: bool, picture: str | None, send: bool, as_json: bool) -> None:
    """Print the digest of the days before today: incidents, business, and whether BillingWatch itself is well.

    The clock sends it by itself where billingwatch.toml has a [digest] section.
    """
    from billingwatch.store import digests
    from notify.digest import Kind, content, words
    from notify.template import SHIPPED
    from worker.digest import collect, stage

    begin()
    _, plans, policy = load_rules()
    chosen: Kind = "weekly" if kind == "weekly" else "daily"
    now = datetime.now(UTC)
    zone = ZoneInfo(plans.of(account, not test_mode).calendar.zone)
    with open_store() as conn, connect_redis(read_redis(os.environ)) as redis:
        if account and account not in digests.accounts(conn, not test_mode):
            click.echo(f"No event of {account!r} was ever stored{' in test mode' if test_mode else ''}.", err=True)
            sys.exit(1)
        found = collect(conn, chosen, now.astimezone(zone).date(), account, zone, now, redis, livemode=not test_mode)
        if send:
            told = stage(conn, policy, found, now)
    if as_json:
        click.echo(json.dumps(content(found), indent=2))
    else:
        message = words(found, SHIPPED)
        click.echo(f"{message.title}\n\n{message.text}")
    if picture:
        _draw(picture, found)
    if send:
        click.echo(f"On its way to {', '.join(told)}.", err=True)


def _draw(path: str, found: "Digest") -> None:
    """Write the picture; without one the command ends with 1."""
    from worker.digest_picture import digest_picture

    png = digest_picture(found)
    if png is None:
        click.echo("Nothing to draw, or vl-convert-python is missing: pip install 'billingwatch[console]'.", err=True)
        sys.exit(1)
    Path(path).write_bytes(png)
