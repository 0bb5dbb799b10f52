"""Deliver one message to one channel URL through Apprise, and say what became of it.

The only module that imports apprise, and it does so late: the first delivery pays about a second.
Refuses redirects, Apprise's own retries (the outbox is the only retry engine) and services that act on this
machine. Every text it returns is free of the URL's secrets.
"""

import difflib
import logging
import re
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterable, Sequence
from functools import cache
from http.client import responses
from typing import Any, TextIO
from urllib.parse import unquote_plus

from msgspec import Struct

CONSOLE = "console://"
MASKED = "****"

# They act on this machine instead of telling a person elsewhere, and some of them on a desktop that a server has not.
LOCAL = {
    "blink1": "a USB light",
    "dbus": "the desktop's message bus",
    "gio": "the desktop's message bus",
    "glib": "the desktop's message bus",
    "gnome": "the desktop",
    "kde": "the desktop's message bus",
    "macosx": "runs a program",
    "qt": "the desktop's message bus",
    "syslog": "this machine's log",
    "windows": "the desktop",
}

# Schemas whose host is always a server's name. Elsewhere it may be a token (slack://) or a secret topic (ntfy://).
# Each also with an s, for TLS.
_SERVED = (
    *("apprise", "form", "gotify", "hassio", "http", "irc", "json", "mailto", "mastodon", "mmost", "nctalk"),
    *("rocket", "signal", "synology", "xml"),
)
SERVERS = frozenset({*_SERVED, *(f"{schema}s" for schema in _SERVED)})

PERMANENT_HTTP = frozenset({400, 401, 403, 404, 410})
# Wrong login, unknown mailbox (RFC 5321, RFC 4954): trying again changes nothing.
PERMANENT_SMTP = frozenset({530, 534, 535, 550, 551, 553})

# They write URLs and headers, credentials included, at debug level, and urllib3 some at warning.
_CHATTY = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")

_SCHEMA = re.compile(r"\s*([a-z0-9]{1,32})://", re.IGNORECASE)  # as Apprise reads it
_SERVER = re.compile(r"(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?", re.IGNORECASE)
_STATUS = re.compile(r"\berror(?:=| code: )([1-5]\d\d)\b", re.IGNORECASE)
_SMTP = re.compile(r"was refused: (\d{3}) |Exception: .*?\((\d{3}), b['\"]", re.IGNORECASE)
_RAISED = re.compile(r"\bException: ")
_NETWORK = (
    (re.compile(r"timed? ?out", re.IGNORECASE), "timed out"),
    (re.compile(r"connection refused", re.IGNORECASE), "connection refused"),
    (re.compile(r"name or service|nodename|getaddrinfo|resolution|NameResolution|no address", re.I), "unknown host"),
    (re.compile(r"unreachable|no route", re.IGNORECASE), "host unreachable"),
    (re.compile(r"certificate", re.IGNORECASE), "certificate not trusted"),
    (re.compile(r"\bssl\b|SSLError|tls", re.IGNORECASE), "TLS failed"),
    (re.compile(r"reset|aborted|RemoteDisconnected|broken pipe|unexpectedly closed", re.I), "connection broken"),
)

# Whatever of these stands in a log line is struck out, be it in our URL or not.
_ADDRESS = re.compile(r"\w+://\S+|[^\s@<>\"']+@[^\s@<>\"']+")
_TOKEN = re.compile(r"(?=\S*\d)(?=\S*[^\W\d])[\w./+=-]{8,}|[\w+=-]{20,}")
_SPLITS = tuple(re.compile(pattern) for pattern in (r"[/?#&=@:,;\s]+", r"[/?#&=@\s]+", r"[/?#&@\s]+", r"[/?#]+"))

LINES = 50  # log lines kept of a delivery, newest last
LINE_LENGTH = 2000  # characters
ERROR_LENGTH = 160  # characters


class Delivery(Struct, frozen=True):
    """What became of one delivery. `permanent`: trying again is of no use. `error` is masked, "" when ok."""

    ok: bool
    permanent: bool = False
    error: str = ""


class Unusable(Exception):
    """The channel's URL cannot be used; the message says why, and holds nothing of the URL."""


class Heard(Struct, frozen=True):
    """One line that Apprise logged during a delivery."""

    level: int
    text: str


def send(
    url: str,
    title: str,
    body: str,
    timeout: float = 20,
    *,
    allow_local: bool = False,
    stdout: TextIO | None = None,
) -> Delivery:
    """Deliver a plain-text message to `url`; never raises on account of the channel.

    `timeout` in seconds holds for the whole delivery: past it the attempt counts as failed, though its thread may
    still end well, so a message can arrive twice. A URL with several recipients is one delivery: when one of them
    fails, all are tried again. `console://` writes to `stdout`, the process's own unless given.
    """
    if _schema(url) == "console":
        return _print(title, body, stdout or sys.stdout)
    try:
        service = _open(url, allow_local)
    except Unusable as reason:
        return Delivery(ok=False, permanent=True, error=str(reason))
    service.redirects = False  # also where the URL asks for them
    service.socket_connect_timeout = service.socket_read_timeout = timeout / 2  # seconds; Apprise's own are 4

    outcome: list[Delivery] = []
    name = str(service.service_name)
    thread = threading.Thread(
        target=lambda: outcome.append(_notify(service, name, url, title, body)), name="notify", daemon=True
    )
    thread.start()
    thread.join(timeout)
    if outcome:
        return outcome[0]
    fault = f"timed out after {timeout:g} s" if thread.is_alive() else "ended without an answer"
    return Delivery(ok=False, error=f"{name}: {fault}")


def problem(url: str, allow_local: bool = False) -> str | None:
    """What is wrong with a channel's URL, without sending anything and without repeating it; None if nothing is."""
    if _schema(url) == "console":
        return None
    try:
        _open(url, allow_local)
    except Unusable as reason:
        return str(reason)
    return None


def mask(url: str) -> str:
    """The URL as logs and pages may show it: its schema, and its server where that surely is no secret.

    Apprise's own private form is not enough: it shows headers, paths, users and recipients in full.
    """
    schema = _schema(url)
    if schema == "console":
        return CONSOLE
    if not schema:
        return MASKED
    place, tail = _halves(url)
    server = place.rpartition("@")[2]
    # An "@" further on means that a password may have held a "/", and that what looks like the host is part of it.
    if schema in SERVERS and "@" not in tail and _SERVER.fullmatch(server):
        return f"{schema}://{server}/{MASKED}"
    return f"{schema}://{MASKED}"


@cache
def load() -> Any:
    """Import apprise and all its services (once; about a second and 30 MB), so that no delivery pays for it.

    A worker that forks for each job calls it before it forks. The libraries' logs are kept to ourselves from then on.
    """
    for name in _CHATTY:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())  # else Python prints warnings to stderr
    import apprise

    untyped: Any = apprise  # its types are half there
    logging.getLogger("apprise").setLevel(logging.DEBUG)  # the cause of a failure is told there only
    with warnings.catch_warnings():
        # Its mail service imports imghdr for its PGP library, deprecated until Python 3.13 dropped it.
        warnings.filterwarnings("ignore", "'imghdr' is deprecated", DeprecationWarning)
        untyped.NotificationManager().load_modules()
    return untyped


def _schema(url: str) -> str:
    found = _SCHEMA.match(url)
    return found[1].lower() if found else ""


def _halves(url: str) -> tuple[str, str]:
    """What stands between "://" and the first "/", "?" or "#", and what follows."""
    rest = url.strip().split("://", 1)[1]
    end = next((place for place, letter in enumerate(rest) if letter in "/?#"), len(rest))
    return rest[:end], rest[end:]


def _open(url: str, allow_local: bool) -> Any:
    """Apprise's service for the URL. Raises Unusable."""
    schema = _schema(url)
    if not schema:
        raise Unusable("not a channel URL: it starts with no schema, such as mailto:// or slack://")
    _refuse_local({schema}, allow_local)
    apprise = load()
    services = apprise.NotificationManager()
    if schema in services and not services[schema].enabled:
        raise Unusable(f"{schema}:// needs a library or a system that is not here")
    asset = apprise.AppriseAsset(
        app_id="BillingWatch",
        app_desc="BillingWatch alerts",
        secure_logging=True,
        http_redirects=False,
        async_mode=False,
        storage_mode=apprise.PersistentStoreMode.MEMORY,  # nothing on disk
        pgp_autogen=False,
        pem_autogen=False,
    )
    service = apprise.Apprise.instantiate(url.strip(), asset=asset)
    if service is None:
        raise Unusable(_unopened(schema, services))
    _refuse_local(service.schemas(), allow_local)
    return service


def _refuse_local(schemas: Iterable[str], allow_local: bool) -> None:
    for schema in schemas:
        if schema in LOCAL and not allow_local:
            raise Unusable(f"{schema}:// acts on this machine ({LOCAL[schema]}); it has to be allowed first")


def _unopened(schema: str, services: Any) -> str:
    if schema in services:
        return f"not a complete {services[schema].service_name} URL"
    if schema in ("http", "https"):
        return "not an address of a service that Apprise knows; json:// or jsons:// posts JSON to any address"
    near = difflib.get_close_matches(schema, services.schemas(), 1)
    return "unknown schema" + (f"; is {near[0]}:// meant?" if near else "")


def _notify(service: Any, name: str, url: str, title: str, body: str) -> Delivery:
    """Runs in its own thread, which also tells this delivery's log lines from those of others."""
    apprise = load()
    ear = _Ear()
    logger = logging.getLogger("apprise")
    logger.disabled = False  # a later logging.config disables loggers that it does not know
    logger.addHandler(ear)
    try:
        # Not through Apprise.notify(): that adds retries, and threads which hold up the end of the process.
        done = bool(service.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT))
    except Exception as fault:  # noqa: BLE001 - a service may raise anything, and its text may hold secrets
        return Delivery(ok=False, error=f"{name}: {type(fault).__name__}")
    finally:
        logger.removeHandler(ear)
    if done:
        return Delivery(ok=True)
    return cause(name, list(ear.lines), url)


class _Ear(logging.Handler):
    """Keeps what the thread that made it logs."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.own = threading.get_ident()
        self.lines: deque[Heard] = deque(maxlen=LINES)

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self.own:
            return
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the format
            text = str(record.msg)
        self.lines.append(Heard(record.levelno, text[:LINE_LENGTH]))


def cause(name: str, lines: Sequence[Heard], url: str) -> Delivery:
    """Why the service `name` failed, from what was logged: Apprise itself says only yes or no. Pure.

    Debug lines hold URLs, headers and answers: of them only numbers and words of our own are taken.
    """
    told = [line.text for line in lines if line.level >= logging.WARNING]
    raised = [line.text for line in lines if _RAISED.search(line.text)]
    if codes := sorted({int(code) for text in told for code in _STATUS.findall(text)}):
        words = ", ".join(_status(code) for code in codes)
        return Delivery(ok=False, permanent=PERMANENT_HTTP.issuperset(codes), error=f"{name}: {words}")
    if codes := sorted({int(one or two) for text in told + raised for one, two in _SMTP.findall(text)}):
        words = ", ".join(f"SMTP {code}" for code in codes)
        return Delivery(ok=False, permanent=PERMANENT_SMTP.issuperset(codes), error=f"{name}: {words}")
    scrubbed = [_scrub(text, url) for text in raised]
    for pattern, words in _NETWORK:
        if any(pattern.search(text) for text in scrubbed):
            return Delivery(ok=False, error=f"{name}: {words}")
    last = _scrub(told[-1], url)[:ERROR_LENGTH] if told else "failed, no reason given"
    return Delivery(ok=False, error=f"{name}: {last}")


def _status(code: int) -> str:
    note = " (redirects are not followed)" if 300 <= code < 400 else ""
    return f"HTTP {code} {responses.get(code, '')}".rstrip() + note


def _scrub(line: str, url: str) -> str:
    """`line` without any part of `url`, addresses, and what looks like a token."""
    for piece in _pieces(url):
        line = re.sub(re.escape(piece), MASKED, line, flags=re.IGNORECASE)
    line = _TOKEN.sub(MASKED, _ADDRESS.sub(MASKED, line))
    return " ".join(line.split())


def _pieces(url: str) -> list[str]:
    """The parts of the URL, as written and decoded, longest first; those of one or two letters are no secrets."""
    rest = _SCHEMA.sub("", url, count=1)
    raw = {piece for split in _SPLITS for piece in split.split(rest)} | {rest}
    return sorted({p for piece in raw for p in (piece, unquote_plus(piece)) if len(p) > 2}, key=lambda p: (-len(p), p))


def _print(title: str, body: str, stdout: TextIO) -> Delivery:
    """A block of its own between other lines, in one write, without control characters."""
    rule = "-" * 72
    lines = ["".join(c if c.isprintable() else " " for c in line) for line in (title, *body.splitlines())]
    try:
        stdout.write("\n".join(["", rule, lines[0], "", *(f"  {line}" for line in lines[1:]), rule, ""]))
        stdout.flush()
    except (OSError, ValueError) as fault:  # a closed pipe, a closed file, an encoding without the letters
        return Delivery(ok=False, error=f"console: {type(fault).__name__}")
    return Delivery(ok=True)
