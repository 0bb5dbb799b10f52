"""The receiver as its own process on a loopback socket, and what a sender says to it."""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from msgspec import Struct

from billingwatch.signing import sign
from tests.waiting import PATIENCE, until

SECRET = "whsec_default"
ROLLED = "whsec_default_before"
SHOP = "whsec_shop"


class Answer(Struct, frozen=True):
    """An HTTP response; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Receiver(Struct, frozen=True):
    """A running receiver."""

    port: int
    process: subprocess.Popen[bytes]

    def post(self, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/webhook") -> Answer:
        """Post a body; signed with the default source's secret unless headers say otherwise."""
        return self.ask("POST", path, body, signed(body) if headers is None else headers)

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = {}) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body or None, dict(headers))
            return answer(connection.getresponse())
        finally:
            connection.close()

    def dial(self) -> socket.socket:
        """A bare connection, for what an HTTP client would never send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)


def answer(response: http.client.HTTPResponse) -> Answer:
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def read_answer(wire: socket.socket) -> Answer:
    """The next response on a bare connection."""
    response = http.client.HTTPResponse(wire)
    try:
        response.begin()
        return answer(response)
    finally:
        response.close()


def signed(body: bytes, secret: str = SECRET, at: float | None = None) -> dict[str, str]:
    return {"Stripe-Signature": sign(body, secret, int(time.time() if at is None else at))}


def request(body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A whole request as it goes over the wire."""
    lines = {"Host": "localhost", "Content-Length": str(len(body)), **(signed(body) if headers is None else headers)}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST /webhook HTTP/1.1\r\n{head}\r\n".encode() + body


def listens(port: int) -> bool:
    """Whether anybody accepts connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def receiving(redis_url: str) -> Iterator[Receiver]:
    """A receiver with two sources, one of them rolling its secret; stopped on the way out."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        environment = {
            **os.environ,
            "REDIS_URL": redis_url,
            "STRIPE_WEBHOOK_SECRET": f"{SECRET},{ROLLED}",
            "STRIPE_WEBHOOK_SECRET_SHOP": SHOP,
            "LOG_LEVEL": "warning",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "billingwatch", "ingest", "--fd", str(listener.fileno())],
            env=environment,
            pass_fds=[listener.fileno()],
        )
        receiver = Receiver(listener.getsockname()[1], process)
    try:
        until(lambda: receiver.ask("GET", "/readyz").status == 200)  # the kernel holds connections until it listens
        yield receiver
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
