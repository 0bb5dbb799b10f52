"""Why a delivery failed, and whether trying again is of use: from what Apprise logged. Pure.

Apprise itself says only yes or no. Of its 183 services (2.2), 159 log the HTTP status as `error=404` at warning, and
nearly all of these the answer at debug; e-mail logs SMTP's codes, at warning for a refused recipient and within an
exception's text at debug; a network fault is an exception's text at debug. The rest (IRC, MQTT, XMPP, AMQP, Lark, QQ
and a few more) say no more than that it failed: that counts as temporary. Headers are never logged, so a Retry-After
is known only where the answer repeats it, as Telegram and Discord do; and what Slack's bots are refused with HTTP 200
only by the answer's error word. Everything else of an answer is left alone, since it may repeat what was sent.
"""

import re
from collections.abc import Sequence
from http.client import responses
from urllib.parse import unquote_plus

from msgspec import Struct

MASKED = "****"
WARNING = 30  # logging's
ERROR_LENGTH = 160  # characters

# Of 4xx, what may end by itself: a timeout, a connection or record in use, too early, too many (RFC 9110, 4918, 8470,
# 6585). The rest says that the same request will never be taken.
TEMPORARY_HTTP = frozenset({408, 421, 423, 425, 429})
# Of 5yz, which RFC 5321 calls permanent: the mailbox is full (552), which ends when its owner tidies up.
TEMPORARY_SMTP = frozenset({552})
# Slack answers 200 and one of these: https://docs.slack.dev/reference/methods/chat.postMessage
PERMANENT_WORDS = frozenset(
    "account_inactive channel_not_found invalid_auth is_archived missing_scope no_permission not_authed not_in_channel "
    "token_expired token_revoked".split()
)

SCHEMA = re.compile(r"\s*([a-z0-9]{1,32})://", re.IGNORECASE)  # as Apprise reads it
_STATUS = re.compile(r"\berror(?:=| code: )([1-5]\d\d)\b", re.IGNORECASE)
_SMTP = re.compile(r"was refused: (\d{3}) |Exception: .*?\((\d{3}), b['\"]", re.IGNORECASE)
_RAISED = re.compile(r"\bException: ")
_ANSWER = re.compile(r"Response Details:", re.IGNORECASE)
_WORD = re.compile(r'"error":\s*"([a-z_]{3,40})"')
_AFTER = re.compile(r'"retry_after":\s*(\d{1,5}(?:\.\d{1,6})?)')  # seconds
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


class Delivery(Struct, frozen=True):
    """What became of one delivery. `permanent`: trying again is of no use. `error` is masked, "" when ok."""

    ok: bool
    permanent: bool = False
    error: str = ""
    retry_after: float | None = None  # seconds that the service asks to be left alone; None where it asks nothing


class Unusable(Exception):
    """The channel cannot be used; the message says why, and holds nothing of its URL and secret."""


class Heard(Struct, frozen=True):
    """One line that Apprise logged during a delivery."""

    level: int
    text: str


def cause(name: str, lines: Sequence[Heard], url: str) -> Delivery:
    """Why the service `name` failed, from what was logged.

    Debug lines hold URLs, headers and answers: of them only numbers and words of our own are taken.
    """
    told = [line.text for line in lines if line.level >= WARNING]
    raised = [line.text for line in lines if _RAISED.search(line.text)]
    answers = [line.text for line in lines if _ANSWER.match(line.text)]
    after = max((float(each) for text in answers for each in _AFTER.findall(text)), default=None)
    words = sorted(PERMANENT_WORDS.intersection(word for text in answers for word in _WORD.findall(text)))
    if name == "Slack" and words:
        return Delivery(ok=False, permanent=True, error=f"{name}: {', '.join(words)}")
    if codes := sorted({int(code) for text in told for code in _STATUS.findall(text)}):
        phrases = ", ".join(status(code) for code in codes)
        lasting = all(lasts(code) for code in codes)
        return Delivery(ok=False, permanent=lasting, error=f"{name}: {phrases}", retry_after=after)
    if codes := sorted({int(one or two) for text in told + raised for one, two in _SMTP.findall(text)}):
        lasting = all(code >= 500 and code not in TEMPORARY_SMTP for code in codes)
        return Delivery(ok=False, permanent=lasting, error=f"{name}: {', '.join(f'SMTP {code}' for code in codes)}")
    scrubbed = [_scrub(text, url) for text in raised]
    for pattern, phrase in _NETWORK:
        if any(pattern.search(text) for text in scrubbed):
            return Delivery(ok=False, error=f"{name}: {phrase}")
    last = _scrub(told[-1], url)[:ERROR_LENGTH] if told else "failed, no reason given"
    return Delivery(ok=False, error=f"{name}: {last}", retry_after=after)


def lasts(code: int) -> bool:
    """Whether an HTTP status will be the same next time: redirects, which are not followed, and most of 4xx."""
    return 300 <= code < 500 and code not in TEMPORARY_HTTP


def status(code: int) -> str:
    """`"HTTP 410 Gone"`."""
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
    rest = SCHEMA.sub("", url, count=1)
    raw = {piece for split in _SPLITS for piece in split.split(rest)} | {rest}
    return sorted({p for piece in raw for p in (piece, unquote_plus(piece)) if len(p) > 2}, key=lambda p: (-len(p), p))
