"""Where alerts are sent to: an HTTP server that writes down when each message came, in a mood of its choice."""

import http.server
import threading
import time
from types import TracebackType
from typing import Self


class Sink:
    """An HTTP server that alerts are sent to. `heard` holds when each came and what it said.

    `status` is what it answers, after `delay` seconds, with `location` where it redirects.
    """

    def __init__(self, status: int = 200, delay: float = 0.0, location: str = "") -> None:
        self.heard: list[tuple[float, bytes]] = []
        heard = self.heard
        closing = self._closing = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append((time.perf_counter(), self.rfile.read(int(self.headers["content-length"]))))
                closing.wait(delay)
                self.send_response(status)
                if location:
                    self.send_header("location", location)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                """Who hung up while we let it wait is no error of ours."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="sink", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        """As a channel has it."""
        return f"json://127.0.0.1:{self.port}/"

    def when(self, text: bytes) -> float | None:
        """When the first message that holds this text came."""
        return next((moment for moment, body in self.heard if text in body), None)
