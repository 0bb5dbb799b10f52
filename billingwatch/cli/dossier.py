"""All that is known of one incident, as `billingwatch incidents show` tells it to people and to programs."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct, to_builtins
from psycopg import Connection

from billingwatch.cli.amendment import Proposal, propose
from billingwatch.cli.silence import described as silence_as_json
from billingwatch.cli.silence import holds, spoken, zone_of
from billingwatch.model import Incident, Money, Silence, described, iso
from billingwatch.store import audit, deliveries, feedback, incidents, outbox, silences
from billingwatch.store.acts import VERDICTS
from billingwatch.store.feedback import Said
from detectors import exhibit

Rows = Sequence[dict[str, Any]]
SAID_ABOUT = "incident {}"


class Dossier(Struct, frozen=True, kw_only=True):
    """The incident, and every row that tells of it, oldest first. `silences` hold it at this moment."""

    incident: Incident
    log: Rows
    alerts: Rows
    deliveries: Rows
    feedback: Sequence[Said]
    silences: Sequence[Silence]
    audit: Rows
    proposal: Proposal | None
    at: datetime


def read(conn: Connection, id_: int, at: datetime) -> Dossier | None:
    """None where there is no such incident."""
    found = incidents.read_one(conn, id_)
    if found is None:
        return None
    said, zone = feedback.read_for(conn, id_), zone_of(found.tenant.account)
    return Dossier(
        incident=found,
        log=incidents.read_log(conn, id_),
        alerts=outbox.read_for(conn, id_),
        deliveries=deliveries.read_for(conn, id_),
        feedback=said,
        silences=[each for each in silences.read_current(conn, at) if holds(each, found, at, zone)],
        audit=audit.read_for(conn, SAID_ABOUT.format(id_)),
        proposal=propose(found) if said and said[-1].verdict == "false_alarm" else None,
        at=at,
    )


def as_json(found: Dossier) -> dict[str, Any]:
    return {
        **described(found.incident),
        "log": _plain(found.log),
        "alerts": _plain(found.alerts),
        "deliveries": _plain(found.deliveries),
        "feedback": _plain([to_builtins(each, builtin_types=(datetime,)) for each in found.feedback]),
        "silences": [silence_as_json(each, found.at) for each in found.silences],
        "audit": _plain(found.audit),
        "proposal": to_builtins(found.proposal),
    }


def lines(found: Dossier) -> Iterator[str]:
    """As people read it."""
    for name, value in described(found.incident).items():
        if name != "evidence":
            yield f"{name:>16}  {_said(value)}"
    for title, exhibited in (("Evidence", exhibit.signals), ("Mostly", exhibit.contributors)):
        shown = list(exhibited(found.incident.evidence))
        yield from ([f"\n{title}", *(f"  {line}" for line in shown)] if shown else ())
    yield "\nTransitions"
    for row in found.log:
        step = f"{row['from_state'] or '-'} -> {row['to_state']}"
        yield f"  {_time(row['at'])}  {step}  {row['reason']}  by {row['who']}"
    yield from _messages(found)
    if found.silences:
        yield "\nSilenced now"
    for silence in found.silences:
        until = f"until {_time(silence.ends_at)}" if silence.ends_at else "until somebody ends it"
        yield f"  silence {silence.id}: {spoken(silence.matchers)}, {until}, by {silence.who}: {silence.why or '-'}"
    if found.feedback:
        yield "\nFeedback"
    for said in found.feedback:
        note = f": {said.note}" if said.note else ""
        yield f"  {_time(said.at)}  {VERDICTS[said.verdict]}, says {said.who}{note}"
    if found.audit:
        yield "\nDone by people"
    for row in found.audit:
        yield f"  {_time(row['at'])}  {row['act']} by {row['who']}" + (f": {row['detail']}" if row["detail"] else "")
    if found.proposal:
        yield "\nProposed"
        yield from (f"  {line}" for line in found.proposal.lines)


def _messages(found: Dossier) -> Iterator[str]:
    """What was to be told, what was decided of each and why, and every attempt to send it."""
    yield "\nMessages"
    if not found.alerts:
        yield "  none"
    for row in found.alerts:
        outcome = f"{row['state']} after {row['attempts']} {'try' if row['attempts'] == 1 else 'tries'}"
        outcome += f": {row['error']}" if row["error"] else ""
        yield f"  {_time(row['staged_at'])}  {row['channel']}: {row['reason']}, {outcome} ({row['route']})"
        if row["verdict"]:
            yield f"    decided: {row['verdict']}"
        if row["state"] == "staged":
            yield f"    looked at again: {_time(row['next_try'])}"
        yield from (f"    {_attempt(each)}" for each in found.deliveries if row["id"] in each["alerts"])


def _attempt(row: Mapping[str, Any]) -> str:
    said = f"delivery {row['id']} ({row['kind']}), begun {_time(row['claimed_at'])}: {row['outcome'] or 'under way'}"
    if row["ended_at"]:
        said += f" after {(row['ended_at'] - row['claimed_at']).total_seconds():.1f} s"
    said += f": {row['error']}" if row["error"] else ""
    return said + (f"; may have arrived already as delivery {row['repeats']}" if row["repeats"] else "")


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _plain(rows: Rows) -> list[dict[str, Any]]:
    return [{key: iso(value) if isinstance(value, datetime) else value for key, value in row.items()} for row in rows]


def _said(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(Money(**each)) for each in value) or "-"
    return "-" if value in (None, "") else str(value)
