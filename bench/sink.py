"""Where alerts are sent to: an HTTP server that writes down when each message came, and judges none."""

import http.server
import threading
import time
from types import TracebackType
from typing import Self


class Sink:
    """An HTTP server that alerts are sent to. `heard` holds when each came and what it said."""

    def __init__(self) -> None:
        self.heard: list[tuple[float, bytes]] = []
        heard = self.heard

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append((time.perf_counter(), self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, name="sink", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def when(self, text: bytes) -> float | None:
        """When the first message that holds this text came."""
        return next((moment for moment, body in self.heard if text in body), None)
