"""`billingwatch incidents`: what was found, and what people say to it."""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from getpass import getuser
from typing import Any

import click
from msgspec import convert, to_builtins
from rich.console import Console
from rich.table import Table

from billingwatch.cli.start import begin, open_store
from billingwatch.model import Incident, Money, State, utc
from billingwatch.store import incidents as store
from billingwatch.store import outbox


@click.group(invoke_without_command=True)
@click.pass_context
def incidents(context: click.Context) -> None:
    """List, show, acknowledge and resolve incidents. Without a subcommand it lists."""
    begin()
    if context.invoked_subcommand is None:
        context.invoke(list_)


@incidents.command("list")
@click.option("--open", "unresolved", is_flag=True, help="Only those that are not resolved.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="A JSON array.")
def list_(unresolved: bool = False, limit: int = 50, as_json: bool = False) -> None:
    """List incidents, the newest first."""
    with open_store() as conn:
        found = store.read_all(conn, unresolved=unresolved, limit=limit)
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
            incident.tenant.account + ("" if incident.tenant.livemode else " (test)"),
            incident.detector,
            incident.why,
        )
    Console().print(table)


@incidents.command()
@click.argument("incident", type=int)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def show(incident: int, as_json: bool) -> None:
    """Show one incident: its evidence, every transition, every message and why it went where it went."""
    with open_store() as conn:
        found = store.read_one(conn, incident)
        log, alerts = store.read_log(conn, incident), outbox.read_for(conn, incident)
    if found is None:
        click.echo(f"There is no incident {incident}.", err=True)
        sys.exit(1)
    if as_json:
        click.echo(json.dumps({**described(found), "log": _plain(log), "alerts": _plain(alerts)}, indent=2))
        return
    for name, value in described(found).items():
        if name != "evidence":
            click.echo(f"{name:>16}  {_said(value)}")
    _show_evidence(found.evidence)
    click.echo("\nTransitions")
    for row in log:
        step = f"{row['from_state'] or '-'} -> {row['to_state']}"
        click.echo(f"  {row['at']:%Y-%m-%d %H:%M:%S}  {step}  {row['reason']}  by {row['who']}")
    click.echo("\nMessages")
    for row in alerts:
        outcome = f"{row['state']} after {row['attempts']} tries" + (f": {row['error']}" if row["error"] else "")
        click.echo(f"  {row['channel']}: {row['reason']}, {outcome} ({row['route']})")


@incidents.command()
@click.argument("incident", type=int)
@click.option("--who", default=getuser, help="Your name, for the log.")
def ack(incident: int, who: str) -> None:
    """Say that somebody looks after it."""
    _transition(incident, ("open",), "acked", who)


@incidents.command()
@click.argument("incident", type=int)
@click.option("--who", default=getuser, help="Your name, for the log.")
def resolve(incident: int, who: str) -> None:
    """Say that it is over. It opens anew if it breaches again."""
    _transition(incident, ("open", "acked"), "resolved", who)


def described(incident: Incident) -> dict[str, Any]:
    """The incident as JSON shows it: the shape of the backtest's incidents, with its id, state and evidence."""
    return {
        "id": incident.id,
        "state": incident.state,
        "detector": incident.detector,
        "metric": incident.metric,
        "account": incident.tenant.account,
        "livemode": incident.tenant.livemode,
        "scope": incident.scope,
        "severity": incident.severity,
        "opened_at": iso(incident.opened_at),
        "first_breach_at": iso(incident.first_breach_at),
        "last_breach_at": iso(incident.last_breach_at),
        "resolved_at": iso(incident.resolved_at),
        "observed": incident.observed,
        "expected": incident.expected,
        "limit": incident.limit,
        "peak": incident.peak,
        "window": incident.window,
        "money_at_risk": to_builtins(incident.at_risk),
        "customers": incident.customers,
        "why": incident.why,
        "evidence": incident.evidence,
    }


def _transition(incident: int, states: Sequence[State], state: State, who: str) -> None:
    now = datetime.now(UTC)
    with open_store() as conn, conn.transaction():
        before = store.set_state(conn, incident, states, state, now)
        if before is not None:
            store.log(conn, incident, now, before, state, "by hand", who)
        found = store.read_one(conn, incident)
    if found is None:
        click.echo(f"There is no incident {incident}.", err=True)
        sys.exit(1)
    if before is None:
        click.echo(f"Incident {incident} is {found.state} already.", err=True)
        sys.exit(1)
    click.echo(f"Incident {incident} is {state}.")


def iso(moment: datetime | None) -> str | None:
    """As JSON shows it, `"2026-03-10T12:00:00Z"`."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _show_evidence(evidence: Mapping[str, Any]) -> None:
    """What each signal compared, and what the excess has in common; an incident of an older release has neither."""
    from detectors.contributors import Contributor

    if evidence.get("signals"):
        click.echo("\nEvidence")
    for signal in evidence.get("signals", ()):
        click.echo("\n".join(_signal_lines(signal)))
    if evidence.get("contributors"):
        click.echo("\nMostly")
    for each in evidence.get("contributors", ()):
        click.echo(f"  {convert(each, Contributor).sentence}")


def _signal_lines(signal: Mapping[str, Any]) -> Iterator[str]:
    from detectors.signal import odds
    from detectors.words import span

    start, end = signal["window"]
    scope = f" of {signal['scope']}" if signal["scope"] else ""
    day = "%Y-%m-%d %H:%M" if utc(start).date() != utc(end).date() else "%H:%M"
    window = f"{utc(start):%Y-%m-%d %H:%M} to {utc(end):{day}} UTC ({span(end - start)})"
    yield f"  {signal['detector']}{scope}: {window}, since {utc(signal['since']):%Y-%m-%d %H:%M}"
    low, high = (_figure(signal, each) for each in signal["usual"])
    observed, expected = _figure(signal, signal["observed"]), _figure(signal, signal["expected"])
    yield f"    observed {observed}, expected {expected}, usually {low} to {high}"
    # A rule that a user wrote asks for no odds.
    if signal["needed"]:
        needed = f"score {signal['score']:.1f}, {signal['needed']:.1f} needed"
        yield f"    by normal variation {odds(signal['score'])} ({needed})"


def _figure(signal: Mapping[str, Any], value: float) -> str:
    """Money where the scope is a currency, a share besides where one is judged, else a count."""
    if re.fullmatch("[a-z]{3}", signal["scope"]):
        return str(Money(round(value * signal["unit"]), signal["scope"]))
    count = f"{value:,.2f}".rstrip("0").rstrip(".")
    if signal["out_of"]:
        return f"{count} of {signal['out_of']:,.0f} ({100 * value / signal['out_of']:.1f} %)"
    return count


def _plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: iso(value) if isinstance(value, datetime) else value for key, value in row.items()} for row in rows]


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(Money(**each)) for each in value) or "-"
    return "-" if value in (None, "") else str(value)
