"""`billingwatch mark`: say what happened, or what is to come, so that it is not mistaken. Judges and learns nothing."""

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from getpass import getuser
from typing import Any

import click
from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billingwatch.cli.start import begin, open_store
from billingwatch.model import Tenant, iso
from billingwatch.settings import DEFAULT_SOURCE
from billingwatch.store import accounts, audit, markers
from billingwatch.store.markers import Marker

LONGEST = timedelta(days=31)  # of an expected span: in one that ends a year late by a slip, nothing would be found
TEXT_LENGTH = 200  # characters
EVER = datetime(1, 1, 2, tzinfo=UTC)

_RELATIVE = re.compile(r"([+-])((?:[0-9]{1,4}[mhdw])+)")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Moment(click.ParamType[datetime]):
    """An instant: `now`, `-2h`, `+3d12h`, or ISO 8601, of UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return read_moment(value, datetime.now(UTC))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time (now, -2h, +3d12h, 2026-11-27, 2026-11-27T08:00+01:00)", param, ctx)


MOMENT = Moment()


def read_moment(text: str, now: datetime) -> datetime:
    """The instant that the text names, on the second, UTC. Raises ValueError or OverflowError."""
    now = now.replace(microsecond=0)
    if text == "now":
        return now
    relative = _RELATIVE.fullmatch(text)
    if relative:
        parts = re.findall(r"([0-9]+)([mhdw])", relative[2])
        span = sum((timedelta(**{_UNITS[unit]: int(count)}) for count, unit in parts), timedelta())
        return now + span if relative[1] == "+" else now - span
    moment = datetime.fromisoformat(text).replace(microsecond=0)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


@click.command()
@click.argument("text", required=False, default="")
@click.option("--from", "start", type=MOMENT, help="When it begins; now, where it is not said.")
@click.option("--until", "end", type=MOMENT, help="When it ends: between the two, the unusual is expected.")
@click.option("--new-normal", is_flag=True, help="From then on everything is different: learn it anew.")
@click.option("--account", help=f"Whose: a connected account or a source.  [default: {DEFAULT_SOURCE}]")
@click.option("--test-mode", is_flag=True, help="Its test mode, instead of live mode.")
@click.option("--who", default=getuser, help="Your name, for the list and the audit.")
@click.option("--list", "listing", is_flag=True, help="List what is marked, of all accounts or of one.")
@click.option("--remove", metavar="ID", type=int, help="Take a marker back, by its id in the list.")
@click.option("--json", "as_json", is_flag=True, help="The marker as a JSON object; the list as an array.")
def mark(
    text: str,
    start: datetime | None,
    end: datetime | None,
    new_normal: bool,
    account: str | None,
    test_mode: bool,
    who: str,
    listing: bool,
    remove: int | None,
    as_json: bool,
) -> None:
    """Say what happened, or what is to come.

    \b
    billingwatch mark "v2.31"                               a deploy, now
    billingwatch mark --from 2026-11-27 --until +5d "sale"  the unusual is expected
    billingwatch mark --until +2h "load test"               the same, from now on
    billingwatch mark --new-normal --from -3d "new prices"  what is normal has changed
    billingwatch mark --list
    billingwatch mark --remove 7

    A deploy changes nothing: it stands in the list beside what happened. In an expected span no incident opens, except
    for silence and lag of the webhooks, and no baseline learns from it, be it to come or long over. From a new normal
    on, every baseline of the account is learnt anew, as if the account began there.

    A time is "now", "-2h", "+3d12h" (m, h, d, w; before or after now), or ISO 8601, "2026-11-27T08:00+01:00", and of
    UTC where it names no zone.
    """
    begin()
    said = bool(text or start or end or new_normal)
    if said + listing + (remove is not None) != 1:
        raise click.UsageError("one of: TEXT or a span to mark, --list, --remove ID (see --help)")
    if remove is not None:
        _remove(remove, who, as_json)
    elif listing:
        _list(account, test_mode, as_json)
    else:
        tenant = Tenant(account or DEFAULT_SOURCE, not test_mode)
        _add(_marker(tenant, text, start, end, new_normal, who, datetime.now(UTC)), as_json)


def _marker(
    tenant: Tenant, text: str, start: datetime | None, end: datetime | None, new_normal: bool, who: str, now: datetime
) -> Marker:
    """What was said, if it makes sense. Raises UsageError."""
    text = text.strip()
    if not text.isprintable() or len(text) > TEXT_LENGTH:
        raise click.UsageError(f"TEXT is one line of at most {TEXT_LENGTH} characters")
    begins = start or now.replace(microsecond=0)
    if new_normal:
        if end:
            raise click.UsageError("a new normal has no end: leave --until away, or --new-normal")
        return Marker(tenant=tenant, kind="new_normal", starts_at=begins, ends_at=begins, text=text, who=who)
    if end is None:
        if start:
            raise click.UsageError("--from wants --until, or --new-normal")
        if not text:
            raise click.UsageError("a deploy wants a TEXT")
        return Marker(tenant=tenant, kind="deploy", starts_at=begins, ends_at=begins, text=text, who=who)
    if end <= begins:
        raise click.UsageError(f"it would end ({_told(end)}) before it begins ({_told(begins)})")
    if end - begins > LONGEST:
        raise click.UsageError(
            f"{(end - begins).days} days are too long to expect ({LONGEST.days} at most; --new-normal?)"
        )
    return Marker(tenant=tenant, kind="expected", starts_at=begins, ends_at=end, text=text, who=who)


def _add(marker: Marker, as_json: bool) -> None:
    with open_store() as conn:
        with conn.transaction():
            id_ = markers.add(conn, marker)
            (stored,) = [each for each in markers.read(conn, marker.tenant) if each.id == id_]
            audit.note(conn, datetime.now(UTC), marker.who, "mark.add", f"marker {id_}", _detail(stored))
        stranger = _stranger(conn, marker.tenant)
    if as_json:
        click.echo(json.dumps(described(stored), indent=2))
    else:
        click.echo(f"Marker {id_}: {_sentence(stored)}")
    if stranger:
        click.echo(stranger, err=True)


def _stranger(conn: Connection, tenant: Tenant) -> str:
    """What there is to say where nobody has heard of the tenant: a slip of the pen marks nothing."""
    known = accounts.active(conn, EVER)
    if tenant in known or not known:
        return ""
    return f"No event of {_whose(tenant)} has come yet. Events came of: {', '.join(map(_whose, known))}."


def _remove(id_: int, who: str, as_json: bool) -> None:
    with open_store() as conn, conn.transaction():
        removed = markers.remove(conn, id_)
        if removed:
            audit.note(conn, datetime.now(UTC), who, "mark.remove", f"marker {id_}", _detail(removed))
    if removed is None:
        click.echo(f"There is no marker {id_}.", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(described(removed), indent=2))
        return
    again = "" if removed.kind == "deploy" else " What is normal is learnt again without it."
    click.echo(f"Marker {id_} is gone.{again}")


def _list(account: str | None, test_mode: bool, as_json: bool) -> None:
    with open_store() as conn:
        found = [
            each
            for each in markers.read_all(conn)
            if account in (None, each.tenant.account) and not (test_mode and each.tenant.livemode)
        ]
    if as_json:
        click.echo(json.dumps([described(each) for each in found], indent=2))
        return
    if not found:
        click.echo("Nothing is marked.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("id", "what", "from", "until", "account", "who", "text"):
        table.add_column(title, overflow="fold", no_wrap=title != "text")
    for each in found:
        until = _told(each.ends_at) if each.kind == "expected" else ""
        words = (each.kind.replace("_", " "), _told(each.starts_at), until, _whose(each.tenant), each.who, each.text)
        table.add_row(str(each.id), *map(escape, words))
    Console(highlight=False).print(table)


def described(marker: Marker) -> dict[str, Any]:
    """The marker as JSON shows it."""
    return {
        "id": marker.id,
        "kind": marker.kind,
        "account": marker.tenant.account,
        "livemode": marker.tenant.livemode,
        "from": iso(marker.starts_at),
        "until": iso(marker.ends_at) if marker.kind == "expected" else None,
        "text": marker.text,
        "who": marker.who,
    }


def _detail(marker: Marker) -> str:
    return "; ".join(filter(None, (_sentence(marker).removesuffix("."), marker.text)))


def _sentence(marker: Marker) -> str:
    whose, begins, ends = _whose(marker.tenant), _told(marker.starts_at), _told(marker.ends_at)
    if marker.kind == "deploy":
        return f"a deploy of {whose} at {begins}."
    if marker.kind == "new_normal":
        return f"what was normal of {whose} before {begins} is forgotten, and learnt anew from then on."
    return f"from {begins} until {ends} nothing opens of {whose} but silence and lag, and nothing is learnt."


def _whose(tenant: Tenant) -> str:
    return tenant.account + ("" if tenant.livemode else " (test mode)")


def _told(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
