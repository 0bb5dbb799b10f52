"""Real servers on the loopback that messages are sent to, in good and bad moods."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote_plus

import pytest
from aiosmtpd.controller import Controller


class Moody(ThreadingHTTPServer):
    """Answers by the path's last part.

    A status (`?after=…` with that Retry-After, 3xx with a Location on this server), `hang` (says nothing), `drip`
    (a header that never ends), `trickle` (200, and a body that never ends), `noise` (no HTTP).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seen: list[tuple[str, dict[str, Any]]] = []  # of JSON
        self.posted: list[tuple[str, dict[str, str], bytes]] = []  # path, headers in lower case, body
        self.closing = threading.Event()

    def url(self, path: str, schema: str = "json", login: str = "", host: str = "127.0.0.1") -> str:
        return f"{schema}://{login}{host}:{self.server_port}/{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing: a client that does not trust the certificate has gone."""


class Answer(BaseHTTPRequestHandler):
    server: Moody

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.posted.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
        with suppress(ValueError):
            self.server.seen.append((self.path, json.loads(body)))
        path, _, query = self.path.partition("?")
        what = path.rpartition("/")[2]
        if what == "hang":
            self.server.closing.wait(60)
        elif what == "drip":
            self.drip(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        elif what == "trickle":
            self.drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        elif what == "noise":
            self.wfile.write(b"220 mail.example ESMTP\r\n")
            self.close_connection = True
        else:
            self.send_response(int(what) if what.isdigit() else 200)
            if what.startswith("3"):
                self.send_header("Location", "/elsewhere/200")
            if query.startswith("after="):
                self.send_header("Retry-After", unquote_plus(query.removeprefix("after=")))
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_GET = do_PUT = do_POST

    def drip(self, start: bytes) -> None:
        try:
            self.wfile.write(start)
            while not self.server.closing.wait(0.02):
                self.wfile.write(b"x")
        except OSError:
            self.close_connection = True  # the client has gone

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: tests read `seen`."""


@pytest.fixture
def moody() -> Iterator[Moody]:
    server = Moody()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def answering(moody: Moody, closed_port: int) -> tuple[Moody, int]:
    """A server that answers, and a port at which nobody does."""
    return moody, closed_port


class Mailbox:
    """Keeps what arrives; refuses the recipient `gone` for ever and `busy` for now."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("gone"):
            return f"550 no mailbox {address}"
        if address.startswith("busy"):
            return f"451 try again {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


@pytest.fixture
def smtp(closed_port: int) -> Iterator[tuple[str, Mailbox]]:
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=closed_port)
    controller.start()
    yield f"mailto://127.0.0.1:{closed_port}?from=bw@shop.example", mailbox
    controller.stop()
