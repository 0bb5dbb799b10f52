"""A console for tests: on a port of its own, with a clock that stands still, and asked as browsers ask."""

import threading
from collections.abc import Iterator
from datetime import datetime
from http.client import HTTPConnection, HTTPResponse
from secrets import token_hex
from urllib.parse import urlencode

import uvicorn
from msgspec import Struct
from psycopg import Connection

from billingwatch.cli.ingest import bind
from billingwatch.store import links
from console.app import build
from console.store import PATIENCE, Store
from notify.link import linker
from tests.factories import NOON
from tests.waiting import until


class Reply(Struct):
    """What the console answered."""

    status: int
    headers: dict[str, str]
    body: str


class Console(Struct):
    """A console on a port of its own, in whose world it is `now`."""

    port: int
    now: datetime

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            found: HTTPResponse = connection.getresponse()
            headers = {name.lower(): value for name, value in found.getheaders()}
            return Reply(found.status, headers, found.read().decode())
        finally:
            connection.close()

    def press(self, token: str, act: str | None = None) -> Reply:
        """As a browser sends the form; `act` is the button's."""
        body = urlencode({"act": act} if act is not None else {}).encode()
        return self.ask(f"/answer/{token}", "POST", body, content_type="application/x-www-form-urlencoded")

    def look(self, token: str) -> Reply:
        return self.ask(f"/answer/{token}")


def serving(database_url: str, now: datetime, patience: float = PATIENCE) -> Iterator[Console]:
    """A console on this database until the generator is closed."""
    listener = bind("127.0.0.1", 0)
    console = Console(listener.getsockname()[1], now)
    application = build(Store(database_url, patience), lambda: console.now)
    server = uvicorn.Server(uvicorn.Config(application, lifespan="on", log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        until(lambda: server.started)
        yield console
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def token(conn: Connection, id_: int, act: str = "", at: datetime = NOON, key: bytes = b"", nonce: str = "") -> str:
    """What stands at the end of a link to the incident in a message of its own, made `at` that time."""
    links_ = linker("", key or links.key(conn), nonce or token_hex(8), at)(id_)
    return (links_.acts[act] if act else links_.page).rpartition("/")[2]
