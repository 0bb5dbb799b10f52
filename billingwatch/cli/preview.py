"""`billingwatch notify preview`: what a message would look like, with the templates in force. Sends nothing."""

import sys
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import cast
from zoneinfo import ZoneInfo

import click
from msgspec.structs import replace

from billingwatch.cli.start import load_rules, open_store
from billingwatch.model import Incident, Reason
from billingwatch.store import incidents
from detectors.registry import Plans
from notify.link import linker
from notify.message import EXAMPLE, compose, problems, summarise
from notify.telling import Message, Telling
from notify.template import SHIPPED, Templates

REASONS = ("first", "worse", "repeat", "escalate", "resolved")
FORMS = ("text", "markdown", "html")
CROWD = 40  # incidents of a summary


@click.command()
@click.argument("incident", type=int, required=False)
@click.option("--reason", type=click.Choice(REASONS), default="first", show_default=True, help="Why it is told.")
@click.option("--summary", is_flag=True, help="The message that stands for many, when a channel's budget is used up.")
@click.option("--format", "form", type=click.Choice(FORMS), default="text", show_default=True)
@click.option("--templates", type=click.Path(file_okay=False, path_type=Path), help="A folder; that of [alerts] else.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the body there.")
def preview(
    incident: int | None, reason: str, summary: bool, form: str, templates: Path | None, output: Path | None
) -> None:
    """Show the message about an incident of the database, or, without one, about an example.

    \b
    billingwatch notify preview
    billingwatch notify preview 12 --reason resolved --format html -o message.html
    billingwatch notify preview --summary --templates my-templates

    Its links are examples that lead nowhere. Exit code 1 where a template of yours fails: the shipped one stands in.
    """
    rules, plans, policy = load_rules()
    folder = templates or (Path(policy.templates) if policy.templates else None)
    own = Templates(folder) if folder else SHIPPED
    faults = problems(own)
    found, zone = _incident(incident, plans) if incident is not None else (EXAMPLE, cast(tzinfo, UTC))
    at = found.resolved_at or max(found.last_breach_at, found.opened_at)
    if reason == "resolved" and found.resolved_at is None:
        at = found.last_breach_at + timedelta(minutes=35)
        found = replace(found, state="resolved", resolved_at=at)
    message = _message(found, cast(Reason, reason), at, zone, own, summary=summary)
    body = getattr(message, form)
    if output:
        output.write_text(f"{body}\n", encoding="utf-8")
        click.echo(f"{message.title}\nWritten to {output}.")
    else:
        click.echo(f"{message.title}\n\n{body}")
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        sys.exit(1)


def _message(
    found: Incident, reason: Reason, at: datetime, zone: tzinfo, templates: Templates, *, summary: bool
) -> Message:
    links = linker("https://billingwatch.example.com", b"preview", "preview", at)
    if summary:
        crowd = [Telling(incident=replace(found, id=found.id + number), reason="first") for number in range(CROWD)]
        return summarise(crowd, at, zone, linker=links, templates=templates)
    telling = Telling(incident=found, reason=reason, told=found.told if reason == "worse" else None)
    return compose([telling], at, zone, linker=links, templates=templates)


def _incident(id_: int, plans: Plans) -> tuple[Incident, tzinfo]:
    with open_store() as conn:
        found = incidents.read_one(conn, id_)
    if found is None:
        click.echo(f"There is no incident {id_}.", err=True)
        sys.exit(1)
    return found, ZoneInfo(plans.of(found.tenant.account, found.tenant.livemode).calendar.zone)
