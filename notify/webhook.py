"""POST signed JSON to an address of the user's, and say what became of it.

Signed as https://www.standardwebhooks.com says: the receiver knows that it is ours, how old it is, and whether it had
it before. Refuses redirects, proxies that the environment names, certificates that are not trusted, and addresses that
`notify.guard` refuses; reads no more than a few kB of an answer, and nothing past the time limit, however it trickles.
Nothing it returns holds a part of the URL, of the secret, or of the answer.
"""

import base64
import binascii
import hashlib
import hmac
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from urllib.parse import unquote

from msgspec import Struct
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.util import make_headers, parse_url

from billingwatch.model import Channel, Format, utc
from notify.cause import Delivery, Unusable, lasts, status
from notify.guard import refusal
from notify.payload import payload
from notify.telling import Message

PREFIX = "whsec_"
LEAST_KEY = 24  # bytes, as the specification asks
ANSWER = 4096  # bytes of an answer that are read
COURTESY = 1.0  # seconds that are waited for them
NAME = "webhook"
LATE = "timed out"
LONGEST_WAIT = 86_400.0  # seconds of a Retry-After that are believed
Resolve = Callable[[str, int], Sequence[str]]  # a host's addresses


class _Target(Struct, frozen=True):
    """The URL, taken apart."""

    secure: bool
    host: str  # without brackets
    port: int
    path: str
    login: str  # "user:password"


def resolve(host: str, port: int) -> Sequence[str]:
    """The addresses of `host`, in the order in which the system would try them."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def problem(channel: Channel) -> str | None:
    """What is wrong with a webhook's URL or secret, without asking anything of the network; None if nothing is."""
    try:
        target = _target(channel.url)
        _keys(channel.secret)
    except Unusable as reason:
        return str(reason)
    if re.fullmatch(r"[0-9.]+|.*:.*", target.host):
        return refusal([target.host], channel.allow_private)
    return None


def sign(secret: str, id: str, timestamp: int, body: bytes) -> str:
    """The value of webhook-signature: one signature for each of the secrets, which stand apart by spaces."""
    content = f"{id}.{timestamp}.".encode() + body
    signed = (hmac.new(key, content, hashlib.sha256).digest() for key in _keys(secret))
    return " ".join(f"v1,{base64.b64encode(each).decode()}" for each in signed)


def notice(format: Format, message: Message, id: str) -> bytes:
    """The JSON of a message about no incident, told now."""
    return payload(format, (), message, utc(time.time()), id)


def post(channel: Channel, body: bytes, id: str, timeout: float, resolve: Resolve = resolve) -> Delivery:
    """POST `body` (JSON) as message `id`, the same for every try; `timeout` in seconds is for the whole exchange.

    Never raises on account of the channel. Only a name that takes too long to resolve cannot be stopped here.
    """
    end = time.monotonic() + timeout
    try:
        target = _target(channel.url)
        headers = _headers(channel, target, body, id)
    except Unusable as reason:
        return _failed(str(reason), permanent=True)
    try:
        addresses = resolve(target.host, target.port)
    except (OSError, UnicodeError):
        return _failed("unknown host")
    refused = refusal(addresses, channel.allow_private)
    if refused is not None:
        return _failed(refused, permanent=True)
    connection = _connection(target, addresses, end)
    # Bytes that trickle in keep every socket timeout from firing. Whoever waits at the socket then sees its end.
    watch = threading.Timer(max(0.0, end - time.monotonic()), connection.cut)
    watch.daemon = True
    watch.start()
    try:
        return _exchange(connection, target, headers, body)
    except (HTTPError, HTTPException, OSError, ValueError) as fault:
        words = _words(fault)
        late = words == LATE or time.monotonic() >= end
        return _failed(f"{LATE} after {timeout:g} s" if late else words)
    finally:
        watch.cancel()
        connection.close()


def _exchange(connection: "_Checked", target: _Target, headers: Mapping[str, str], body: bytes) -> Delivery:
    connection.request("POST", target.path, body=body, headers=headers, preload_content=False)
    with connection.getresponse() as response:
        if time.monotonic() >= connection.end:  # cut in the middle of its headers, which http.client takes for all
            raise TimeoutError
        # The status says all. A short answer is taken all the same, since some servers stop where nobody listens.
        with suppress(HTTPError, HTTPException, OSError):
            connection.hurry(COURTESY)
            response.read1(ANSWER, decode_content=False)
        if 200 <= response.status < 300:
            return Delivery(ok=True)
        after = _wait(response.headers.get("Retry-After"), response.headers.get("Date"))
        return _failed(status(response.status), permanent=lasts(response.status), retry_after=after)


def _failed(error: str, permanent: bool = False, retry_after: float | None = None) -> Delivery:
    return Delivery(ok=False, permanent=permanent, error=f"{NAME}: {error}", retry_after=retry_after)


def _target(url: str) -> _Target:
    """Raises Unusable."""
    if re.search(r"[\x00-\x20\x7f\\]", url.strip()):
        raise Unusable("not an address: it holds a blank, a backslash or a control character")
    try:
        parts = parse_url(url.strip())
    except LocationParseError:
        raise Unusable("not a complete http:// or https:// address") from None
    if parts.scheme not in ("http", "https") or not parts.host:
        raise Unusable("not a complete http:// or https:// address")
    secure = parts.scheme == "https"
    port = (443 if secure else 80) if parts.port is None else parts.port
    if port == 0:
        raise Unusable("port 0 is nobody's")
    return _Target(secure, parts.host.strip("[]"), port, parts.request_uri, unquote(parts.auth or ""))


def _keys(secret: str) -> list[bytes]:
    """The keys of one or several secrets. Raises Unusable."""
    if not secret.split():
        raise Unusable(f"a webhook needs a secret that signs what it is sent: {PREFIX} and base64 of {LEAST_KEY} bytes")
    keys = []
    for each in secret.split():
        if not each.startswith(PREFIX):
            raise Unusable(f"the secret does not begin with {PREFIX}")
        text = each.removeprefix(PREFIX)
        try:
            key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise Unusable(f"what follows {PREFIX} in the secret is not base64") from None
        if len(key) < LEAST_KEY:
            raise Unusable(f"the secret is too short: {len(key)} bytes, {LEAST_KEY} at least")
        keys.append(key)
    return keys


def _headers(channel: Channel, target: _Target, body: bytes, id: str) -> dict[str, str]:
    """Raises Unusable."""
    id = re.sub(r"[^\w-]", "_", id, flags=re.ASCII)  # a dot would move what is signed from one field into the next
    timestamp = int(time.time())  # of the attempt, not of the message: a receiver refuses what is minutes old
    login = make_headers(basic_auth=target.login) if target.login else {}
    return {
        "Content-Type": "application/json",
        "User-Agent": "BillingWatch",
        "Connection": "close",
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(channel.secret, id, timestamp, body),
        **login,
    }


class _Checked(HTTPConnection):
    """Connects to addresses that were judged, whatever the name says by now; Host and SNI keep the name."""

    addresses: Sequence[str] = ()
    end: float = 0.0  # on the monotonic clock
    wire: socket.socket | None = None  # kept here: the connection lets go of it once the headers are read

    def connect(self) -> None:
        super().connect()
        self.wire = self.sock

    def _new_conn(self) -> socket.socket:
        fault: OSError = OSError("no address")
        for address in self.addresses:
            try:
                connected = socket.create_connection((address, self.port), self._left())
            except OSError as refused:
                fault = refused
                continue
            connected.settimeout(self._left())
            return connected
        raise fault

    def _left(self) -> float:
        return max(0.001, self.end - time.monotonic())

    def hurry(self, most: float) -> None:
        """Wait at most that many seconds more for each byte."""
        if self.wire is not None:
            self.wire.settimeout(min(most, self._left()))

    def cut(self) -> None:
        """End the exchange, from another thread."""
        if self.wire is not None:
            with suppress(OSError):  # closed by now
                self.wire.shutdown(socket.SHUT_RDWR)


class _Secure(_Checked, HTTPSConnection):
    """The same with TLS."""


def _connection(target: _Target, addresses: Sequence[str], end: float) -> _Checked:
    left = max(0.001, end - time.monotonic())
    connection: _Checked
    if target.secure:
        connection = _Secure(target.host, target.port, timeout=left, ssl_context=ssl.create_default_context())
    else:
        connection = _Checked(target.host, target.port, timeout=left)
    connection.addresses, connection.end = addresses, end
    return connection


def _wait(after: str | None, now: str | None) -> float | None:
    """The seconds that a Retry-After asks for. A date is compared with the server's own, so that no clock matters."""
    if after is None:
        return None
    if re.fullmatch(r"\d{1,9}", after.strip()):
        return min(float(after), LONGEST_WAIT)
    try:
        asked = (parsedate_to_datetime(after) - parsedate_to_datetime(now or "")).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(0.0, asked), LONGEST_WAIT)


def _words(fault: Exception) -> str:
    """What happened, in words of our own: an exception's text names hosts and paths."""
    for kind, words in (
        (ssl.SSLCertVerificationError, "certificate not trusted"),
        (TimeoutError, LATE),
        (ssl.SSLError, "TLS failed"),
        (ConnectionRefusedError, "connection refused"),
        (ConnectionError, "connection broken"),
        (OSError, "host unreachable"),
    ):
        if isinstance(fault, kind):
            return words
    return "no HTTP answer"
