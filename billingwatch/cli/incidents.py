"""`billingwatch incidents`: what was found, and what people say to it."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from getpass import getuser
from typing import Any

import click
from msgspec import to_builtins
from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from billingwatch.cli.start import begin, open_store
from billingwatch.model import SEVERITIES, Feedback, described
from billingwatch.store import acts
from billingwatch.store import incidents as store
from billingwatch.store.acts import Outcome

STATES = ("open", "acked", "resolved")
TEXT_LENGTH = 200  # characters of a note
LONGEST = timedelta(days=31)  # of a snooze; what is to be quiet for longer wants a silence

IDS = click.argument("ids", nargs=-1, required=True, type=int, metavar="ID...")
WHO = click.option("--who", default=getuser, help="Your name, for the log.")
NOTE = click.option("--note", default="", help="A line for the audit.")
JSON = click.option("--json", "as_json", is_flag=True, help="What was done, as a JSON array.")


@click.group(invoke_without_command=True)
@click.pass_context
def incidents(context: click.Context) -> None:
    """List, show, acknowledge and resolve incidents; say what they were. Without a subcommand it lists."""
    begin()
    if context.invoked_subcommand is None:
        context.invoke(list_)


@incidents.command("list")
@click.option("--open", "unresolved", is_flag=True, help="Only those that are not resolved.")
@click.option("--account", "accounts", multiple=True, help="Only this account's; may be repeated, as all of these.")
@click.option("--detector", "detectors", multiple=True, metavar="NAME", help="Only of this detector or rule.")
@click.option("--severity", "severities", multiple=True, type=click.Choice(SEVERITIES), help="Only as severe as this.")
@click.option("--state", "states", multiple=True, type=click.Choice(STATES), help="Only in this state.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(
    unresolved: bool = False,
    accounts: tuple[str, ...] = (),
    detectors: tuple[str, ...] = (),
    severities: tuple[str, ...] = (),
    states: tuple[str, ...] = (),
    limit: int = 50,
    as_json: bool = False,
) -> None:
    """List incidents, the newest first."""
    with open_store() as conn:
        found = store.read_all(
            conn,
            unresolved=unresolved,
            accounts=accounts,
            detectors=detectors,
            severities=severities,
            states=states,
            limit=limit,
        )
    if as_json:
        click.echo(json.dumps([described(incident) for incident in found], indent=2))
        return
    if not found:
        click.echo("No incidents.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("id", "state", "severity", "opened", "account", "detector", "what"):
        table.add_column(title, overflow="fold", no_wrap=title not in {"what", "account"})
    for incident in found:
        table.add_row(
            str(incident.id),
            incident.state,
            incident.severity,
            f"{incident.opened_at:%Y-%m-%d %H:%M}",
            escape(incident.tenant.account) + ("" if incident.tenant.livemode else " (test)"),
            incident.detector,
            escape(incident.why),
        )
    Console().print(table)


@incidents.command()
@click.argument("incident", type=int, metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(incident: int, as_json: bool) -> None:
    """Show one incident: its evidence, every transition, every message and why it went where it went, what people said
    and did."""
    from billingwatch.cli import dossier

    with open_store() as conn:
        found = dossier.read(conn, incident, datetime.now(UTC))
    if found is None:
        click.echo(f"There is no incident {incident}.", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(dossier.as_json(found), indent=2))
        return
    for line in dossier.lines(found):
        click.echo(line)


@incidents.command()
@IDS
@WHO
@NOTE
@JSON
def ack(ids: tuple[int, ...], who: str, note: str, as_json: bool) -> None:
    """Say that somebody looks after it: it is told again only when it gets worse or is over."""
    _act(ids, note, as_json, lambda conn, incident, at: acts.ack(conn, incident, who, at, note))


@incidents.command()
@IDS
@WHO
@NOTE
@JSON
def resolve(ids: tuple[int, ...], who: str, note: str, as_json: bool) -> None:
    """Say that it is over. It opens anew if it breaches again."""
    _act(ids, note, as_json, lambda conn, incident, at: acts.resolve(conn, incident, who, at, note))


@incidents.command()
@click.argument("words", nargs=-1, required=True, metavar="ID... SPAN")
@WHO
@NOTE
@JSON
def snooze(words: tuple[str, ...], who: str, note: str, as_json: bool) -> None:
    """Hear nothing of it for a while; if it is still open then, it is told.

    \b
    billingwatch incidents snooze 12 1h
    billingwatch incidents snooze 12 13 1d
    billingwatch incidents snooze 12 until 2026-11-27T08:00+01:00
    """
    now = datetime.now(UTC)
    ids, span = _snoozed(words, now)
    _act(ids, note, as_json, lambda conn, incident, at: acts.snooze(conn, incident, span, who, now, note))


@incidents.command()
@IDS
@click.argument("verdict", type=click.Choice(tuple(acts.VERDICTS)))
@WHO
@NOTE
@JSON
def feedback(ids: tuple[int, ...], verdict: Feedback, who: str, note: str, as_json: bool) -> None:
    """Say what it was, and what follows of that.

    \b
    confirmed    it was real: acknowledged
    expected     no baseline learns from its span: acknowledged
    false_alarm  counted against the detector, and the thresholds that would have spared it are shown: acknowledged
    new_normal   from its beginning on all is learnt anew: resolved
    """
    _act(ids, note, as_json, lambda conn, incident, at: acts.feedback(conn, incident, verdict, who, at, note))


@incidents.command()
@click.option("--days", type=click.IntRange(1, 3650), default=90, show_default=True, help="Of incidents so far back.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def precision(days: int, as_json: bool) -> None:
    """How many incidents of each detector people called real, and how many false alarms."""
    from billingwatch.store import feedback as words

    with open_store() as conn:
        found = words.precision(conn, datetime.now(UTC) - timedelta(days=days))
    if as_json:
        click.echo(json.dumps(to_builtins(found), indent=2))
        return
    if not found:
        click.echo(f"No incidents in {days} days.")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("detector", "incidents", "confirmed", "false alarms", "precision"):
        table.add_column(title, justify="left" if title == "detector" else "right")
    for each in found:
        judged = each.confirmed + each.false_alarms
        share = f"{100 * each.confirmed / judged:.0f} %" if judged else "nobody said"
        counts = map(str, (each.incidents, each.confirmed, each.false_alarms))
        table.add_row(escape(each.detector), *counts, share)
    Console().print(table)


def _act(ids: tuple[int, ...], note: str, as_json: bool, act: Callable[[Connection, int, datetime], Outcome]) -> None:
    """Do it to each by itself; ends with 1 where to any of them nothing was done."""
    if not note.isprintable() or len(note) > TEXT_LENGTH:
        raise click.UsageError(f"--note is one line of at most {TEXT_LENGTH} characters")
    shown, failed = [], False
    with open_store() as conn:
        for id_ in ids:
            with conn.transaction():
                outcome = act(conn, id_, datetime.now(UTC))
            failed |= not outcome.done
            shown.append(_told(id_, outcome, as_json))
    if as_json:
        click.echo(json.dumps(shown, indent=2))
    if failed:
        sys.exit(1)


def _told(id_: int, outcome: Outcome, as_json: bool) -> dict[str, Any]:
    """What was done, told to people unless it is asked for as JSON."""
    from billingwatch.cli.amendment import propose

    said = f"Incident {id_} {outcome.said}." if outcome.incident else f"There is no incident {id_}."
    proposal = propose(outcome.incident) if outcome.incident and outcome.verdict == "false_alarm" else None
    if not as_json:
        click.echo(said, err=not outcome.done)
        for line in proposal.lines if proposal else ():
            click.echo(line)
    return {
        "incident": id_,
        "done": outcome.done,
        "says": said,
        "state": outcome.incident.state if outcome.incident else None,
        "silence": outcome.silence.id if outcome.silence else None,
        "marker": outcome.marker.id if outcome.marker else None,
        "proposal": to_builtins(proposal),
    }


def _snoozed(words: tuple[str, ...], now: datetime) -> tuple[tuple[int, ...], timedelta]:
    """Which, and for how long. Raises UsageError."""
    from billingwatch.cli.mark import read_moment

    ids = [int(word) for word in words if word.isascii() and word.isdigit()]
    said = words[len(ids) :]
    try:
        until = read_moment(said[1] if said[0] == "until" else f"+{said[0]}", now)
    except (IndexError, ValueError, OverflowError):
        raise click.UsageError("ID... and how long: 1h, 1d, or until 2026-11-27T08:00+01:00") from None
    if not ids or [*map(str, ids)] != [*words[: len(ids)]] or len(said) != 1 + (said[0] == "until"):
        raise click.UsageError("ID... and how long: 1h, 1d, or until 2026-11-27T08:00+01:00")
    span = until - now.replace(microsecond=0)
    if not timedelta() < span <= LONGEST:
        raise click.UsageError(f"a snooze is at most {LONGEST.days} days long and ends in the future (`silence add`?)")
    return tuple(ids), span
