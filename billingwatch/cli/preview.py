"""`billingwatch notify preview`: what a message would look like, with the templates in force. Sends nothing."""

import sys
from collections.abc import Sequence
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
from notify.example import EXAMPLES
from notify.link import linker
from notify.message import compose, problems, summarise
from notify.telling import Linker, Message, Telling
from notify.template import SHIPPED, Templates

REASONS = ("first", "worse", "repeat", "escalate", "resolved")
FORMS = ("text", "markdown", "html")
CROWD = 40  # incidents of a summary
RULE = "-" * 72


@click.command()
@click.argument("incident", type=int, required=False)
@click.option("--example", type=click.Choice([*EXAMPLES]), help="One example alone.")
@click.option("--reason", type=click.Choice(REASONS), default="first", show_default=True, help="Why it is told.")
@click.option("--summary", is_flag=True, help="The message that stands for many, when a channel's budget is used up.")
@click.option("--format", "form", type=click.Choice(FORMS), default="text", show_default=True)
@click.option("--templates", type=click.Path(file_okay=False, path_type=Path), help="A folder; that of [alerts] else.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the body there.")
def preview(
    incident: int | None,
    example: str | None,
    reason: str,
    summary: bool,
    form: str,
    templates: Path | None,
    output: Path | None,
) -> None:
    """Show the message about an incident of the database, or, without one, those about five examples.

    \b
    billingwatch notify preview
    billingwatch notify preview --example card_testing --reason worse
    billingwatch notify preview 12 --reason resolved --format html -o message.html
    billingwatch notify preview --summary --templates my-templates

    Its links are examples that lead nowhere. Exit code 1 where a template of yours fails: the shipped one stands in.
    """
    _, plans, policy = load_rules()
    folder = templates or (Path(policy.templates) if policy.templates else None)
    own = Templates(folder) if folder else SHIPPED
    faults = problems(own)
    if incident is not None:
        found, zone = _incident(incident, plans)
        about = [found]
    else:
        about, zone = [EXAMPLES[example]] if example else [*EXAMPLES.values()], UTC
    if summary:
        messages = [_summary(about, zone, own)]
    else:
        messages = [_message(each, cast(Reason, reason), zone, own) for each in about]
    if output:
        output.write_text("\n".join(f"{getattr(each, form)}\n" for each in messages), encoding="utf-8")
        click.echo("\n".join([*(each.title for each in messages), f"Written to {output}."]))
    else:
        click.echo(f"\n{RULE}\n".join(f"{each.title}\n\n{getattr(each, form)}\n" for each in messages), nl=False)
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        sys.exit(1)


def _message(found: Incident, reason: Reason, zone: tzinfo, templates: Templates) -> Message:
    at = found.resolved_at or max(found.last_breach_at, found.opened_at)
    if reason == "resolved" and found.resolved_at is None:
        at = found.last_breach_at + timedelta(minutes=35)
        found = replace(found, state="resolved", resolved_at=at)
    elif reason == "escalate":
        at = max(at, found.opened_at + timedelta(minutes=15))
    telling = Telling(incident=found, reason=reason, told=found.told if reason == "worse" else None)
    return compose([telling], at, zone, linker=_links(at), templates=templates)


def _summary(about: Sequence[Incident], zone: tzinfo, templates: Templates) -> Message:
    at = max(each.last_breach_at for each in about)
    crowd = [replace(about[n % len(about)], id=about[0].id + n) for n in range(CROWD)]
    tellings = [Telling(incident=each, reason="first") for each in crowd]
    return summarise(tellings, at, zone, linker=_links(at), templates=templates)


def _links(at: datetime) -> Linker:
    return linker("https://billingwatch.example.com", b"preview", "preview", at)


def _incident(id_: int, plans: Plans) -> tuple[Incident, tzinfo]:
    with open_store() as conn:
        found = incidents.read_one(conn, id_)
    if found is None:
        click.echo(f"There is no incident {id_}.", err=True)
        sys.exit(1)
    return found, ZoneInfo(plans.of(found.tenant.account, found.tenant.livemode).calendar.zone)
