"""What people do to an incident. Each act is one transaction of the caller, and done once however often it is sent.

It changes the incident, with a row of its log where the state changes, and leaves a row in the audit. Under the
tenant's lock: who judges the tenant meanwhile neither overlooks the act nor writes over it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from msgspec import Struct
from psycopg import Connection

from billingwatch.model import OWN, Feedback, Incident, Silence, State
from billingwatch.store import accounts, audit, incidents, markers, outbox, silences
from billingwatch.store import feedback as words
from billingwatch.store.markers import Kind, Marker

VERDICTS: dict[Feedback, str] = {
    "confirmed": "a real incident",
    "expected": "expected",
    "false_alarm": "a false alarm",
    "new_normal": "the new normal",
}
SNOOZED = "snoozed"


class Outcome(Struct, frozen=True, kw_only=True):
    """What an act did, or why nothing: `said` goes on from `"Incident 12 "`. `incident` is as it is now, None where
    there is none.
    """

    done: bool
    said: str
    incident: Incident | None
    silence: Silence | None = None  # that was made
    marker: Marker | None = None  # that was made
    verdict: Feedback | None = None  # that was given


NOBODY = Outcome(done=False, said="does not exist", incident=None)


def ack(conn: Connection, incident: int, who: str, at: datetime, note: str = "") -> Outcome:
    """Somebody looks after it: it is not told again unless it gets worse or is over."""
    return _move(conn, incident, ("open",), "acked", who, at, note)


def resolve(conn: Connection, incident: int, who: str, at: datetime, note: str = "") -> Outcome:
    """It is over, whatever is counted; what it was about is evidence for nothing else."""
    return _move(conn, incident, ("open", "acked"), "resolved", who, at, note)


def snooze(conn: Connection, incident: int, span: timedelta, who: str, at: datetime, note: str = "") -> Outcome:
    """Nothing is told of it for so long; a snooze of it that holds already ends. Its state stays as it is."""
    found = _hold(conn, incident)
    if found is None:
        return NOBODY
    if found.state == "resolved":
        return Outcome(done=False, said="is resolved already", incident=found)
    matchers = {"incident": str(incident)}
    for each in silences.read_current(conn, at):
        if each.matchers == matchers and not each.recurs:
            silences.end(conn, each.id, at)
    made = Silence(matchers=matchers, starts_at=at, ends_at=at + span, why=note or SNOOZED, who=who)
    made = msgspec.structs.replace(made, id=silences.add(conn, made))
    until = f"until {at + span:%Y-%m-%d %H:%M} UTC"
    audit.note(conn, at, who, "snooze", f"incident {incident}", _joined(until, f"silence {made.id}", note))
    return Outcome(done=True, said=f"is snoozed {until}", incident=found, silence=made)


def feedback(conn: Connection, incident: int, verdict: Feedback, who: str, at: datetime, note: str = "") -> Outcome:
    """What it was, in somebody's eyes, and what follows: each acknowledges it, but a new normal resolves it.

    "expected" marks its span, so that no baseline learns from it; "new_normal" marks its beginning, from which on all
    is learnt anew. An earlier word about it is taken back together with its marker.
    """
    found = _hold(conn, incident)
    if found is None:
        return NOBODY
    if not words.add(conn, incident, words.Said(verdict, note, who, at)):
        return Outcome(done=False, said=f"was called {VERDICTS[verdict]} already", incident=found, verdict=verdict)
    details: list[str] = [verdict]
    for each in _marked(conn, found):
        markers.remove(conn, each.id)
        details.append(f"marker {each.id} taken back")
    marker = _mark(conn, found, verdict, who, at)
    if marker:
        details.append(f"marker {marker.id}")
    to: State = "resolved" if verdict == "new_normal" else "acked"
    before = incidents.set_state(conn, incident, _before(to), to, at)
    if before is not None:
        _transition(conn, incident, before, to, f"by hand: {VERDICTS[verdict]}", who, at)
        details.append(to)
    audit.note(conn, at, who, "feedback", f"incident {incident}", _joined(*details, note))
    said = f"is called {VERDICTS[verdict]}" + (f", and {to}" if before is not None else "")
    now = incidents.read_one(conn, incident)
    return Outcome(done=True, said=said, incident=now, marker=marker, verdict=verdict)


def _move(
    conn: Connection, incident: int, states: Sequence[State], to: State, who: str, at: datetime, note: str
) -> Outcome:
    found = _hold(conn, incident)
    if found is None:
        return NOBODY
    before = incidents.set_state(conn, incident, states, to, at)
    if before is None:
        return Outcome(done=False, said=f"is {found.state} already", incident=found)
    _transition(conn, incident, before, to, "by hand", who, at)
    audit.note(conn, at, who, "ack" if to == "acked" else "resolve", f"incident {incident}", note)
    return Outcome(done=True, said=f"is {to}", incident=incidents.read_one(conn, incident))


def _transition(conn: Connection, incident: int, before: State, to: State, why: str, who: str, at: datetime) -> None:
    """Write it down; that it is over is told to whoever was told of it."""
    incidents.log(conn, incident, at, before, to, why, who)
    if to == "resolved":
        for channel in outbox.channels_of(conn, incident):
            outbox.stage(conn, incident, channel, "resolved", "told of it before", at, at)


def _before(to: State) -> tuple[State, ...]:
    return ("open",) if to == "acked" else ("open", "acked")


def _hold(conn: Connection, incident: int) -> Incident | None:
    """The incident, which nobody else changes until the transaction ends."""
    found = incidents.read_one(conn, incident)
    if found is None:
        return None
    accounts.lock(conn, found.tenant)
    return incidents.read_one(conn, incident)


def _mark(conn: Connection, incident: Incident, verdict: Feedback, who: str, at: datetime) -> Marker | None:
    """The marker that the verdict asks for. What BillingWatch counts of itself is learnt by nobody."""
    if incident.tenant == OWN or verdict not in ("expected", "new_normal"):
        return None
    kind: Kind = "expected" if verdict == "expected" else "new_normal"
    start = incident.first_breach_at
    end = start if kind == "new_normal" else max(start, incident.resolved_at or at)
    text = _text(incident, kind)
    made = Marker(tenant=incident.tenant, kind=kind, starts_at=start, ends_at=end, text=text, who=who)
    return msgspec.structs.replace(made, id=markers.add(conn, made))


def _marked(conn: Connection, incident: Incident) -> list[Marker]:
    """The markers that earlier feedback about the incident made, told by their text."""
    return [each for each in markers.read(conn, incident.tenant) if each.text == _text(incident, each.kind)]


def _text(incident: Incident, kind: Kind) -> str:
    return f"incident {incident.id} was {'expected' if kind == 'expected' else 'the new normal'}"


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)
