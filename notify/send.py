"""Deliver one message to one channel, and say what became of it.

The only module that imports apprise, and it does so late: the first delivery pays about a second. http(s):// goes to
`notify.webhook`, unless the address is one that Apprise knows as its own (https://hooks.slack.com/…) and no secret is
given. Refuses redirects, Apprise's own retries (the outbox is the only retry engine) and services that act on this
machine. Unlike a webhook's, the addresses of Apprise's services are not judged: the operator writes them, and ntfy,
Mattermost or a mail server often are in the own network. Every text it returns is free of the URL's secrets.
"""

import difflib
import html
import logging
import os
import re
import sys
import threading
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, TextIO
from uuid import uuid4

from billingwatch.model import Channel
from notify import webhook
from notify.cause import MASKED, SCHEMA, Delivery, Heard, Unusable, cause
from notify.telling import Message

__all__ = ["CONSOLE", "Delivery", "load", "mask", "problem", "send", "takes_pictures"]

CONSOLE = "console://"

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
_SERVED = "apprise form gotify hassio http irc json mailto mastodon mmost nctalk rocket signal synology xml".split()
SERVERS = frozenset({*_SERVED, *(f"{schema}s" for schema in _SERVED)})

# They carry any form, and a program reads it.
PLAIN = frozenset({"amqp", "amqps", "apprise", "apprises", "form", "forms", "json", "jsons", "xml", "xmls"})

# They write URLs and headers, credentials included, at debug level, and urllib3 some at warning.
_CHATTY = ("apprise", "urllib3", "requests_oauthlib", "oauthlib")

_SERVER = re.compile(r"(?:[a-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?", re.IGNORECASE)
# What a service says that does not take the picture, or too large a one; the words alone it may take.
_PICTURE = re.compile(r"HTTP (?:400|413|415|422)\b|attachment", re.IGNORECASE)
_MARKUP = re.compile(r"((?<!\w)_|_(?!\w)|[\\`*\[\]<>#~|])")

LINES = 50  # log lines kept of a delivery, newest last
LINE_LENGTH = 2000  # characters
LINGERING = 3  # threads that a channel's hanging service may hold
PICTURE = "chart.png"


_hanging: dict[str, list[threading.Thread]] = defaultdict(list)  # by channel URL, past their time limit
_lock = threading.Lock()
_plain = threading.local()  # .text: the plain part of the e-mail that this thread sends


def send(
    channel: Channel,
    message: Message,
    *,
    timeout: float = 20,
    allow_local: bool = False,
    stdout: TextIO | None = None,
    picture: bytes | None = None,
    payload: bytes | None = None,
    id: str = "",
) -> Delivery:
    """Deliver `message` in the richest form that the channel takes; never raises on account of the channel.

    `timeout` in seconds holds for the whole delivery: past it the attempt counts as failed, though its thread may
    still end well, so a message can arrive twice. A URL with several recipients is one delivery: when one of them
    fails, all are tried again. What is longer than a service takes is shortened, unless the URL's overflow= says else.

    `picture` (PNG) goes along where attachments are taken, out of memory (Linux only); a service that refuses it is
    sent the words alone. `payload` is the JSON for a webhook, a bare notice unless given, and `id` its message id, the
    same for every try. `console://` writes to `stdout`, the process's own unless given.
    """
    url = channel.url
    if _schema(url) == "console":
        return _print(message, stdout or sys.stdout)
    if _is_webhook(channel, allow_local):
        _hush()
        fault = webhook.problem(channel)
        if fault is not None:
            return Delivery(ok=False, permanent=True, error=fault)
        key = id or f"msg_{uuid4().hex}"
        body = webhook.notice(channel.format, message, key) if payload is None else payload
        return _within(timeout, url, webhook.NAME, lambda: webhook.post(channel, body, key, timeout))
    try:
        service = _open(url, allow_local)
    except Unusable as reason:
        return Delivery(ok=False, permanent=True, error=str(reason))
    service.redirects = False  # also where the URL asks for them
    service.socket_connect_timeout = service.socket_read_timeout = timeout / 2  # seconds; Apprise's own are 4
    name = str(service.service_name)
    return _within(timeout, url, name, lambda: _notify(service, name, url, message, picture))


def _within(timeout: float, url: str, name: str, work: Callable[[], Delivery]) -> Delivery:
    """What `work` came to in a thread of its own, which is left behind when it takes longer; a few at most."""
    with _lock:
        _hanging[url] = [thread for thread in _hanging[url] if thread.is_alive()]
        if not _hanging[url]:
            del _hanging[url]
        elif len(_hanging[url]) >= LINGERING:
            return Delivery(ok=False, error=f"{name}: {LINGERING} earlier sends still hang")
    outcome: list[Delivery] = []

    def run() -> None:
        try:
            outcome.append(work())
        except Exception as fault:  # noqa: BLE001 - a service may raise anything, and its text may hold secrets
            outcome.append(Delivery(ok=False, error=f"{name}: {type(fault).__name__}"))

    thread = threading.Thread(target=run, name="notify", daemon=True)
    thread.start()
    thread.join(timeout)
    if outcome:
        return outcome[0]
    with _lock:
        _hanging[url].append(thread)
    return Delivery(ok=False, error=f"{name}: timed out after {timeout:g} s")


def problem(channel: Channel | str, allow_local: bool = False) -> str | None:
    """What is wrong with a channel, without sending anything and without repeating its URL; None if nothing is.

    A string is a channel of that URL and nothing else; a webhook so misses its secret.
    """
    channel = Channel(channel) if isinstance(channel, str) else channel
    if _schema(channel.url) == "console":
        return None
    if _is_webhook(channel, allow_local):
        return webhook.problem(channel)
    try:
        _open(channel.url, allow_local)
    except Unusable as reason:
        return str(reason)
    return None


def takes_pictures(channel: Channel, allow_local: bool = False) -> bool:
    """Whether a picture would go along: where it would not, none need be drawn."""
    if sys.platform != "linux" or _schema(channel.url) == "console" or _is_webhook(channel, allow_local):
        return False
    try:
        return bool(_open(channel.url, allow_local).attachment_support)
    except Unusable:
        return False


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
    _hush()
    import apprise
    import apprise.attachment.file

    untyped: Any = apprise  # its types are half there
    logging.getLogger("apprise").setLevel(logging.DEBUG)  # the cause of a failure is told there only
    with warnings.catch_warnings():
        # Its mail service imports imghdr for its PGP library, deprecated until Python 3.13 dropped it.
        warnings.filterwarnings("ignore", "'imghdr' is deprecated", DeprecationWarning)
        untyped.NotificationManager().load_modules()
    _use_our_plain_part(untyped)
    return untyped


def _use_our_plain_part(apprise: Any) -> None:
    """Apprise makes the plain part of an e-mail out of its HTML; ours is better, and there is no other way in."""
    mail = apprise.plugins.email.base
    convert, formats = mail.convert_between, (apprise.NotifyFormat.HTML, apprise.NotifyFormat.TEXT)

    def converted(source: Any, wanted: Any, body: str) -> Any:
        text = getattr(_plain, "text", "")
        return text if text and (source, wanted) == formats else convert(source, wanted, body)

    mail.convert_between = converted


@cache
def _hush() -> None:
    for name in _CHATTY:
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.addHandler(logging.NullHandler())  # else Python prints warnings to stderr


def _is_webhook(channel: Channel, allow_local: bool) -> bool:
    if _schema(channel.url) not in {"http", "https"}:
        return False
    if channel.secret:
        return True
    try:
        _open(channel.url, allow_local)
    except Unusable:
        return True
    return False


def _schema(url: str) -> str:
    found = SCHEMA.match(url)
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
        # Its icons, which chats would fetch from its repository.
        image_url_mask="",
        image_url_logo="",
        image_path_mask="",
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
    near = difflib.get_close_matches(schema, services.schemas(), 1)
    return "unknown schema" + (f"; is {near[0]}:// meant?" if near else "")


def _notify(service: Any, name: str, url: str, message: Message, picture: bytes | None) -> Delivery:
    """Runs in its own thread, which also tells this delivery's log lines from those of others."""
    _plain.text = message.text
    if not picture or not service.attachment_support or sys.platform != "linux":  # no other has files in memory
        return _attempt(service, name, url, message, None)
    # Some services read an attachment from a path. This one has one, and is not on disk.
    file = os.memfd_create(PICTURE)
    try:
        os.write(file, picture)
        attachment = load().attachment.file.AttachFile(f"/proc/self/fd/{file}", name=PICTURE, mimetype="image/png")
        delivery = _attempt(service, name, url, message, attachment)
    except Exception:  # noqa: BLE001 - whatever stumbles over the picture is given the words alone
        return _attempt(service, name, url, message, None)
    finally:
        os.close(file)
    if delivery.ok or not _PICTURE.search(delivery.error):
        return delivery
    return _attempt(service, name, url, message, None)


def _attempt(service: Any, name: str, url: str, message: Message, attachment: Any) -> Delivery:
    ear = _Ear()
    logger = logging.getLogger("apprise")
    logger.disabled = False  # a later logging.config disables loggers that it does not know
    logger.addHandler(ear)
    title, body, form = _form(service, message)
    try:
        # Not through Apprise.notify(): that adds retries, and threads which hold up the end of the process.
        done = bool(service.notify(title=title, body=body, body_format=form, attach=attachment))
    finally:
        logger.removeHandler(ear)
    return Delivery(ok=True) if done else cause(name, list(ear.lines), url)


def _form(service: Any, message: Message) -> tuple[str, str, Any]:
    """Title, body and Apprise's name of their form: the richest that the service renders and that fits.

    Markdown first, which chats render best; services of e-mail take HTML only. A markup that is cut is broken, so
    what is too long is sent as text, shortened at the end of a line.
    """
    apprise = load()
    forms = apprise.NotifyFormat
    known = {forms.MARKDOWN: message.markdown, forms.HTML: message.html, forms.TEXT: message.text or message.title}
    order = [forms.MARKDOWN, forms.HTML, forms.TEXT]
    if PLAIN.intersection(service.schemas()):
        order = [forms.TEXT, forms.MARKDOWN, forms.HTML]
    asked = "overflow_mode" in vars(service)  # by the URL
    if not asked:
        service.overflow_mode = apprise.OverflowMode.TRUNCATE
    blended = service.title_maxlen <= 0  # the service has no titles: Apprise puts it above the body, as it is
    room = service.body_maxlen - (len(message.title) + 16 if blended else 0)  # characters
    for form in order:
        # A service of one form says that one to whatever it is asked, and so does one whose URL has format=.
        if service.resolve_format(form) != form or not known[form]:
            continue
        title = message.title
        if blended and form == forms.HTML:
            title = html.escape(title, quote=False)
        if blended and form == forms.MARKDOWN:
            title = _MARKUP.sub(r"\\\1", title)
        if asked or len(known[form]) + len(title) - len(message.title) <= room:
            return title, known[form], form
    text = known[forms.TEXT]
    return message.title, text if asked else _shortened(text, room), forms.TEXT


def _shortened(text: str, room: int) -> str:
    """`text` in at most `room` characters, whole lines where there are any."""
    if len(text) <= room or room < 2:
        return text
    kept = text[: room - 1]
    whole = kept.rpartition("\n")[0]
    return f"{whole}\n…"[:room] if whole else f"{kept}…"


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


def _print(message: Message, stdout: TextIO) -> Delivery:
    """A block of its own between other lines, in one write, without control characters."""
    rule = "-" * 72
    lines = [
        "".join(c if c.isprintable() else " " for c in line) for line in (message.title, *message.text.splitlines())
    ]
    try:
        stdout.write("\n".join(["", rule, lines[0], "", *(f"  {line}" for line in lines[1:]), rule, ""]))
        stdout.flush()
    except (OSError, ValueError) as fault:  # a closed pipe, a closed file, an encoding without the letters
        return Delivery(ok=False, error=f"console: {type(fault).__name__}")
    return Delivery(ok=True)
