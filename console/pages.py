"""Pages as HTML: Jinja2 with everything escaped, one style in the page itself, no script and nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from billingwatch.model import Incident
from console.answer import Page, Status
from detectors import exhibit
from detectors.words import span
from notify.wording import clean, happened

FOLDER = Path(__file__).parent / "templates"
STYLE = (FOLDER / "style.css").read_text(encoding="utf-8")
HTML = "text/html; charset=utf-8"
POLICY = (
    "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    f"style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",  # the address is the permission
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
CODES: dict[Status, int] = {"offered": 200, "done": 200, "already": 200, "used": 409, "expired": 410, "unknown": 404}

# What is told where there is no incident to show: a title, and what to do.
_NOTICES: dict[int, tuple[str, str]] = {
    400: ("That was no answer", "Open the link again and use the buttons of its page."),
    404: (
        "Nothing is here",
        "Is the whole link there? Mail programs break long ones. Newer messages have newer links.",
    ),
    405: ("Not like this", "Open the link again and use the buttons of its page."),
    410: (
        "This link has expired",
        "Newer messages about the incident have newer links. The command does the same: billingwatch incidents.",
    ),
    413: ("That was too much", "Open the link again and use the buttons of its page."),
    415: ("That was no answer", "Open the link again and use the buttons of its page."),
    500: ("Something went wrong", "It stands in the log of the console. Nothing was done."),
    503: (
        "Try again in a moment",
        "The database does not answer just now. Nothing was done, and the link still works.",
    ),
}

_environment = Environment(
    loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def notice(code: int) -> str:
    """A page about nothing but what went wrong."""
    title, advice = _NOTICES.get(code, ("That did not work", "Open the link again."))
    return _environment.get_template("notice.html").render(style=STYLE, title=title, advice=advice)


def answer(page: Page, now: datetime) -> tuple[int, str]:
    """The HTTP status and the page of a signed link."""
    code = CODES[page.status]
    if page.incident is None:
        return code, notice(code)
    return code, _environment.get_template("answer.html").render(
        style=STYLE,
        page=page,
        incident=page.incident,
        why=clean(page.incident.why, 400),
        facts=list(_facts(page.incident, now).items()),
        evidence=[_indent(line) + clean(line, 400) for line in exhibit.signals(page.incident.evidence)],
        mostly=[clean(line, 200) for line in exhibit.contributors(page.incident.evidence)],
        deeds=[_deed(row) for row in page.deeds],
        log=[_step(row) for row in page.log],
    )


def _facts(incident: Incident, now: datetime) -> dict[str, str]:
    """What is known of it, by a word for it; in the order of a reader in a hurry."""
    end = incident.resolved_at or now
    lasted = span(max(0, int((end - incident.first_breach_at).total_seconds())))
    found = {
        "What": happened(incident),
        "State": {"open": "open, acknowledged by nobody", "acked": "acknowledged", "resolved": "over"}[incident.state],
        "Since": f"{_time(incident.first_breach_at)} ({lasted})",
        "Over": _time(incident.resolved_at) if incident.resolved_at else "",
        "At risk": " + ".join(map(str, incident.at_risk)),
        "Customers": str(incident.customers) if incident.customers else "",
        "Account": clean(incident.tenant.account) + ("" if incident.tenant.livemode else " (test mode)"),
        "Concerns": clean(incident.scope),
        "Detector": incident.detector,
    }
    return {word: said for word, said in found.items() if said}


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" "))]


def _step(row: Mapping[str, Any]) -> str:
    step = f"{row['from_state']} to {row['to_state']}" if row["from_state"] else row["to_state"]
    return f"{_time(row['at'])}: {step}, {clean(row['reason'])}, by {clean(row['who'])}"


def _deed(row: Mapping[str, Any]) -> str:
    """Who did what and when. What they wrote beside stands in the audit."""
    first = row["detail"].partition(";")[0].replace("_", " ")
    did = {"ack": "acknowledged", "resolve": "resolved", "snooze": f"snoozed {first}", "feedback": f"called {first}"}
    return f"{_time(row['at'])}: {did.get(row['act'], row['act'])}, by {clean(row['who'])}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"
