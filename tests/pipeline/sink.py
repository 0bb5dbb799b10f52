"""A real HTTP server on the loopback that alerts are delivered to."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sink:
    """What was posted, and how the next post is answered."""

    def __init__(self) -> None:
        self.status = 200
        self.port = 0
        self.posted: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """The address as a channel has it."""
        return f"json://127.0.0.1:{self.port}/alerts"

    def titles(self) -> list[str]:
        return [message["title"] for message in self.posted]


@contextmanager
def listening() -> Iterator[Sink]:
    """A sink that answers 200 until told otherwise."""
    sink = Sink()

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sink.posted.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(sink.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the test asserts."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    sink.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
