"""A signed link: what it is about, what it offers, and what it does when it is pressed. Looking never acts.

Each works once for each act. Whoever holds the link may use it: it is sent to a channel, and the channel's readers
are those who may answer.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Feedback, Incident
from billingwatch.store import acts, audit, feedback, incidents, links
from billingwatch.store.acts import VERDICTS, Outcome
from notify.link import Answer, Expired, NotOurs, read

WHO = "link"  # in logs and the audit: of a link it is known to whom it was sent, not who pressed it
LONGEST = 2048  # characters of a token

Status = Literal["offered", "done", "already", "used", "expired", "unknown"]
Act = Callable[[Connection, int, datetime], Outcome]


class Offer(Struct, frozen=True):
    """One button: its words, and what pressing it does."""

    act: str
    label: str
    effect: str


class Page(Struct, frozen=True, kw_only=True):
    """What is shown. `said` is a sentence about the act; `offers` are the buttons that would do something now."""

    status: Status
    incident: Incident | None = None
    said: str = ""
    offers: tuple[Offer, ...] = ()
    log: tuple[dict[str, object], ...] = ()
    deeds: tuple[dict[str, object], ...] = ()  # of people
    whole: bool = False  # with evidence and log: the page of the incident, not of one act


OFFERS = {
    offer.act: offer
    for offer in (
        Offer(
            "ack",
            "Acknowledge",
            "Says that somebody looks after it. It is told again only if it gets worse, or is over.",
        ),
        Offer(
            "snooze_1h", "Snooze for 1 hour", "Nothing is told of it for an hour. If it is still open then, it is told."
        ),
        Offer(
            "snooze_1d", "Snooze for 1 day", "Nothing is told of it for a day. If it is still open then, it is told."
        ),
        Offer(
            "expected",
            "It was expected",
            "Acknowledges it. What is normal is learnt without what happened since it began.",
        ),
        Offer(
            "false_alarm",
            "False alarm",
            "Acknowledges it, and counts it against the detector, for which thresholds are proposed.",
        ),
    )
}
_SNOOZES = {"snooze_1h": timedelta(hours=1), "snooze_1d": timedelta(days=1)}
_VERDICTS: dict[str, Feedback] = {"expected": "expected", "false_alarm": "false_alarm"}

EXPIRED, UNKNOWN = Page(status="expired"), Page(status="unknown")


def look(conn: Connection, token: str, now: datetime) -> Page:
    """What the link is about. Changes nothing, however often it is asked: what previews links asks, too."""
    found = _read(conn, token, now)
    return found if isinstance(found, Page) else _page(conn, found)


def press(conn: Connection, token: str, act: str, now: datetime) -> Page:
    """Do it, in the caller's transaction, unless the link was used. `act` is the button's, "" of a link with one."""
    found = _read(conn, token, now)
    if isinstance(found, Page):
        return found
    chosen = act or found.act
    if chosen not in OFFERS or found.act not in ("", chosen):
        return UNKNOWN
    if not links.use(conn, _once(found), chosen, now):
        return _page(conn, found, "used")
    outcome = _perform(conn, chosen, found.incident, now)
    return _page(conn, found, "done" if outcome.done else "already", f"Incident {found.incident} {outcome.said}.")


def _read(conn: Connection, token: str, now: datetime) -> Answer | Page:
    if len(token) > LONGEST or not token.isascii():
        return UNKNOWN
    try:
        return read(token, links.key(conn), now)
    except Expired:
        return EXPIRED
    except NotOurs:
        return UNKNOWN


def _once(answer: Answer) -> str:
    """What is used up: the links of a message share a nonce, and it may be about several incidents."""
    return f"{answer.nonce} {answer.incident}"


def _perform(conn: Connection, act: str, incident: int, now: datetime) -> Outcome:
    if act == "ack":
        return acts.ack(conn, incident, WHO, now)
    if act in _SNOOZES:
        return acts.snooze(conn, incident, _SNOOZES[act], WHO, now)
    return acts.feedback(conn, incident, _VERDICTS[act], WHO, now)


def _page(conn: Connection, answer: Answer, status: Status = "offered", said: str = "") -> Page:
    incident = incidents.read_one(conn, answer.incident)
    if incident is None:
        return UNKNOWN
    latest = feedback.latest(conn, incident.id)
    used = links.used(conn, _once(answer))
    asked = [answer.act] if answer.act else [*OFFERS]
    hindered = {act: _hindrance(act, incident, latest.verdict if latest else None) for act in asked}
    if status == "offered" and answer.act:
        status = "used" if answer.act in used else "already" if hindered[answer.act] else "offered"
        said = f"Incident {incident.id} {hindered[answer.act]}." if status == "already" else ""
    return Page(
        status=status,
        incident=incident,
        said=said,
        offers=tuple(OFFERS[act] for act in asked if act not in used and not hindered[act]),
        log=tuple(incidents.read_log(conn, incident.id)),
        deeds=tuple(audit.read_for(conn, f"incident {incident.id}")),
        whole=not answer.act,
    )


def _hindrance(act: str, incident: Incident, verdict: Feedback | None) -> str:
    """Why the act would change nothing; "" where it would."""
    if act == "ack" and incident.state != "open":
        return f"is {incident.state} already"
    if act in _SNOOZES and incident.state == "resolved":
        return "is resolved already"
    if act in _VERDICTS and verdict == _VERDICTS[act]:
        return f"was called {VERDICTS[_VERDICTS[act]]} already"
    return ""
