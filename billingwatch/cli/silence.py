"""`billingwatch silence`: what is not to be told for a while, or every weekend. It is judged and shown all the same."""

import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from fnmatch import fnmatchcase
from getpass import getuser
from typing import Any, Literal
from zoneinfo import ZoneInfo

import click
from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billingwatch.cli.mark import EVER, MOMENT, TEXT_LENGTH, read_moment
from billingwatch.cli.start import begin, open_store
from billingwatch.model import OWN, SEVERITIES, Incident, Silence, iso
from billingwatch.rules import find_rules
from billingwatch.store import accounts, audit, silences
from detectors import setting
from detectors.registry import SHIPPED, configure
from detectors.vitals import THRESHOLDS
from notify import interval
from notify.route import LABELS, labels, refusal

Stage = Literal["over", "future", "recurring", "current"]
KNOWN = (*LABELS, "incident")
MODES = ("live", "test")
CHANNEL_BROKEN = "channel_broken"  # of a channel that takes nothing; the one detector without a threshold
SHOWN = 1000  # the newest, of which those that are over are left out


@click.group(invoke_without_command=True)
@click.pass_context
def silence(context: click.Context) -> None:
    """List, add and end silences. Without a subcommand it lists.

    While a silence holds, no incident that it matches is told. It opens and is shown all the same, and what is still
    open when the silence ends is told then.
    """
    begin()
    if context.invoked_subcommand is None:
        context.invoke(list_)


@silence.command("list")
@click.option("--all", "everything", is_flag=True, help="Those that are over, too.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(everything: bool = False, as_json: bool = False) -> None:
    """List silences: current, recurring and future ones."""
    now = datetime.now(UTC)
    with open_store() as conn:
        found = [each for each in silences.read_all(conn, SHOWN) if everything or stage(each, now) != "over"]
    if as_json:
        click.echo(json.dumps([described(each, now) for each in found], indent=2))
        return
    if not found:
        click.echo("Nothing is silenced.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("id", "state", "from", "until", "recurs", "matches", "who", "why"):
        table.add_column(title, overflow="fold", no_wrap=title in {"id", "state", "from", "until"})
    for each in found:
        words = (stage(each, now), _told(each.starts_at), _told(each.ends_at), each.recurs, spoken(each.matchers))
        table.add_row(str(each.id), *map(escape, (*words, each.who, each.why)))
    Console(highlight=False).print(table)


@silence.command()
@click.argument("matchers", nargs=-1, required=True, metavar="LABEL=VALUE...")
@click.option("--for", "span", metavar="SPAN", help="How long, as 2h or 1d12h.")
@click.option("--from", "start", type=MOMENT, help="When it begins; now, where it is not said.")
@click.option("--until", "end", type=MOMENT, help="When it ends.")
@click.option("--weekly", metavar="TIMES", default="", help='Only then, as "sat-sun, mon-fri 22:00-06:00".')
@click.option("--why", default="", help="What for.")
@click.option("--who", default=getuser, help="Your name, for the list.")
@click.option("--json", "as_json", is_flag=True, help="The silence as a JSON object.")
def add(
    matchers: tuple[str, ...],
    span: str | None,
    start: datetime | None,
    end: datetime | None,
    weekly: str,
    why: str,
    who: str,
    as_json: bool,
) -> None:
    """Do not tell what matches every LABEL=VALUE.

    \b
    billingwatch silence add account=acct_1 detector=refund_spike --for 2h --why "load test"
    billingwatch silence add account='acct_*' livemode=test --weekly "sat-sun, mon-fri 22:00-06:00"
    billingwatch silence add severity=low --from 2026-11-27 --until +5d --why "sale"

    Labels are account, livemode (live or test), detector, scope, severity and incident. A value may be a pattern,
    "acct_*"; "!acct_1" is any but that one, ">=high" that severity and those above. TIMES are days and hours in the
    account's time zone; with them alone it holds until somebody ends it.
    """
    now = datetime.now(UTC)
    made = _silence(read_matchers(matchers), span, start, end, weekly, why, who, now)
    with open_store() as conn:
        with conn.transaction():
            id_ = silences.add(conn, made)
            detail = "; ".join(filter(None, (spoken(made.matchers), _span(made), why)))
            audit.note(conn, now, who, "silence.add", f"silence {id_}", detail)
        doubts = [each for each in (_stranger(conn, made.matchers), _nameless(made.matchers)) if each]
        (stored,) = [each for each in silences.read_all(conn, SHOWN) if each.id == id_]
    if as_json:
        click.echo(json.dumps(described(stored, now), indent=2))
    else:
        click.echo(f"Silence {id_}: {spoken(made.matchers)}, {_span(made)}.")
    for each in doubts:
        click.echo(each, err=True)


@silence.command()
@click.argument("ids", nargs=-1, required=True, type=int, metavar="ID...")
@click.option("--who", default=getuser, help="Your name, for the audit.")
@click.option("--json", "as_json", is_flag=True, help="The silences that ended, as a JSON array.")
def end(ids: tuple[int, ...], who: str, as_json: bool) -> None:
    """End silences now: what is still open of what they held back is told."""
    now = datetime.now(UTC)
    ended = []
    with open_store() as conn:
        for id_ in ids:
            with conn.transaction():
                found = silences.end(conn, id_, now)
                if found:
                    audit.note(conn, now, who, "silence.end", f"silence {id_}", spoken(found.matchers))
            if found is None:
                click.echo(f"There is no silence {id_} that is not over.", err=True)
                continue
            ended.append(found)
            if not as_json:
                click.echo(f"Silence {id_} is over.")
    if as_json:
        click.echo(json.dumps([described(each, now) for each in ended], indent=2))
    if len(ended) < len(ids):
        sys.exit(1)


def described(found: Silence, now: datetime) -> dict[str, Any]:
    """The silence as JSON shows it."""
    return {
        "id": found.id,
        "state": stage(found, now),
        "matchers": found.matchers,
        "from": iso(found.starts_at),
        "until": iso(found.ends_at),
        "recurs": found.recurs,
        "why": found.why,
        "who": found.who,
    }


def stage(found: Silence, now: datetime) -> Stage:
    """Whether it is to come, holds, holds now and then, or is over."""
    if found.ends_at is not None and found.ends_at <= now:
        return "over"
    if found.starts_at > now:
        return "future"
    return "recurring" if found.recurs else "current"


def holds(found: Silence, incident: Incident, at: datetime, zone: tzinfo) -> bool:
    """Whether it keeps the incident untold at `at`; `zone` is the account's."""
    if stage(found, at) in ("over", "future"):
        return False
    if refusal({label: (pattern,) for label, pattern in found.matchers.items()}, labels(incident)):
        return False
    return not found.recurs or interval.read(found.recurs).holds(at, zone)


def zone_of(account: str) -> tzinfo:
    """The account's time zone by the configuration, of which mistakes are not told here."""
    plans, _ = configure(find_rules(os.environ, []).sections)
    return ZoneInfo(plans.of(account).calendar.zone)


def read_matchers(texts: Sequence[str]) -> dict[str, str]:
    """`LABEL=VALUE`, each label once. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        label, sign, value = (part.strip() for part in text.partition("="))
        if not sign or not value:
            raise click.UsageError(f"{text!r} is no LABEL=VALUE, as in account=acct_1")
        if label not in KNOWN:
            hint = setting.meant(label, KNOWN) or setting.listed(KNOWN)
            raise click.UsageError(f"no label {label!r} ({hint})")
        if label in found:
            raise click.UsageError(f"{label} is named twice; a silence for each, or a pattern, does that")
        found[label] = {"true": "live", "false": "test"}.get(value, value) if label == "livemode" else value
    _expect(found, "livemode", MODES)
    _expect(found, "severity", SEVERITIES)
    if not found.get("incident", "1").isdigit():
        raise click.UsageError("incident is a number, as `billingwatch incidents` lists it")
    return found


def _expect(matchers: Mapping[str, str], label: str, known: Sequence[str]) -> None:
    """A value that nothing can have is a slip."""
    pattern = matchers.get(label, known[0]).removeprefix("!")
    if pattern.removeprefix(">=") not in known and not _any(pattern, known):
        hint = setting.meant(pattern, known) or setting.listed(known)
        raise click.UsageError(f"no {label} {pattern!r} ({hint})")


def _any(pattern: str, known: Collection[str]) -> bool:
    return any(fnmatchcase(each, pattern) for each in known)


def _silence(
    matchers: dict[str, str],
    span: str | None,
    start: datetime | None,
    end: datetime | None,
    weekly: str,
    why: str,
    who: str,
    now: datetime,
) -> Silence:
    """What was said, if it makes sense. Raises UsageError."""
    begins = start or now.replace(microsecond=0)
    if span and end:
        raise click.UsageError("--for or --until, not both")
    if span:
        try:
            end = read_moment(f"+{span}", begins)
        except (ValueError, OverflowError):
            raise click.UsageError(f"{span!r} is no span (as 2h or 1d12h)") from None
    if end is None and not weekly:
        raise click.UsageError("one of --for, --until, --weekly: nothing is silenced for ever by oversight")
    if end is not None and end <= max(begins, now.replace(microsecond=0)):
        raise click.UsageError(f"it would be over ({_told(end)}) before it holds")
    if weekly:
        try:
            interval.read(weekly)
        except ValueError as error:
            raise click.UsageError(f"--weekly: {error}") from None
    if not why.isprintable() or len(why) > TEXT_LENGTH:
        raise click.UsageError(f"--why is one line of at most {TEXT_LENGTH} characters")
    return Silence(matchers=matchers, starts_at=begins, ends_at=end, recurs=weekly, why=why, who=who)


def _stranger(conn: Connection, matchers: Mapping[str, str]) -> str:
    """What there is to say where nobody has heard of such an account."""
    pattern = matchers.get("account", "*")
    known = sorted({each.account for each in accounts.active(conn, EVER)})
    if pattern.startswith("!") or not known or _any(pattern, (*known, OWN.account)):
        return ""
    return f"No event of an account {pattern} has come yet. Events came of: {', '.join(known)}."


def _nameless(matchers: Mapping[str, str]) -> str:
    """The same where no detector or rule has such a name."""
    pattern = matchers.get("detector", "*")
    known = {*SHIPPED, *THRESHOLDS, CHANNEL_BROKEN, *find_rules(os.environ, []).sections.get("rules", {})}
    if pattern.startswith("!") or _any(pattern, known):
        return ""
    return (
        f"No detector or rule is called {pattern} ({setting.meant(pattern, known) or setting.listed(sorted(known))})."
    )


def spoken(matchers: Mapping[str, str]) -> str:
    return ", ".join(f"{label}={value}" for label, value in matchers.items())


def _span(found: Silence) -> str:
    said = f"from {_told(found.starts_at)} until {_told(found.ends_at) if found.ends_at else 'somebody ends it'}"
    return f"{said}, {found.recurs}" if found.recurs else said


def _told(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
