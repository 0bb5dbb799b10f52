"""The receiver as an ASGI application: POST /webhook[/SOURCE], and its own health, readiness and metrics."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from billingwatch.queues import Received
from billingwatch.settings import DEFAULT_SOURCE
from ingest.commit import GroupCommit, UnavailableError
from ingest.metrics import Metrics
from ingest.queue import EventQueue
from ingest.signature import verify

LARGEST = 1 << 20  # bytes of body
RETRY_AFTER = "5"  # seconds
UNKNOWN_SOURCE = "unknown_source"


def build(
    sources: Mapping[str, tuple[str, ...]],
    queue: EventQueue,
    metrics: Metrics,
    clock: Callable[[], float] = time.time,
) -> Starlette:
    """The application. `sources` maps each source's name to its signing secrets."""
    commit = GroupCommit(queue.flush)
    webhook = Webhook(
        {name: tuple(secret.encode() for secret in secrets) for name, secrets in sources.items()},
        queue,
        commit,
        metrics,
        clock,
    )

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(request: Request) -> Response:
        health = queue.health
        if health.reason:
            return JSONResponse({"ready": False, "reason": health.reason, "hint": health.hint}, 503)
        return JSONResponse({"ready": True})

    async def scrape(request: Request) -> Response:
        return Response(metrics.render(queue.health, commit.waiting), media_type=CONTENT_TYPE_LATEST)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        queue.health = await queue.look()
        watcher = asyncio.create_task(queue.watch())
        yield
        await commit.drain()
        watcher.cancel()
        await queue.close()

    app = Starlette(
        routes=[
            # An ASGI application as endpoint costs no Request and no exception handling on the hot path.
            Route("/webhook", webhook, methods=None),
            Route("/webhook/{source}", webhook, methods=None),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", scrape),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # Stripe counts a redirect as a failure and follows none
    return app


class Webhook:
    """The endpoint. It answers 200 only after the event is durable in Redis, and never a 5xx but 503."""

    def __init__(
        self,
        sources: Mapping[str, tuple[bytes, ...]],
        queue: EventQueue,
        commit: GroupCommit,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._sources = sources
        self._queue = queue
        self._commit = commit
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        status, outcome, headers = await self._receive(scope, receive)
        if outcome == "gone":
            return
        body = _RECEIVED if status == 200 else b'{"error": "%s"}' % outcome.encode()
        self._metrics.answered(status, outcome, time.perf_counter() - began)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*_JSON, (b"content-length", str(len(body)).encode()), *headers],
            }
        )
        await send({"type": "http.response.body", "body": body})

    async def _receive(self, scope: Scope, receive: Receive) -> tuple[int, str, list[tuple[bytes, bytes]]]:
        """(status, reason, headers). The reason is the metric's label and the error code in the answer."""
        if scope["method"] != "POST":
            return 405, "method_not_allowed", [(b"allow", b"POST")]
        source = scope["path_params"].get("source", DEFAULT_SOURCE)
        secrets = self._sources.get(source)
        if secrets is None:
            return 404, UNKNOWN_SOURCE, []
        if self._queue.health.reason:
            return 503, self._queue.health.reason, _RETRY
        header, length = _headers(scope)
        if length > LARGEST:
            return 413, "too_large", _CLOSE
        body = await _read(receive)
        if body is None:
            return 413, "too_large", _CLOSE
        if body is _GONE:
            return 0, "gone", []
        now = self._clock()
        rejected = verify(body, header, secrets, now)
        if rejected:
            return 400, rejected.reason, []
        if not _looks_like_event(body):
            return 400, "unreadable_body", []
        try:
            await self._commit.put(Received(source, now, body))
        except UnavailableError:
            return 503, "redis_away", _RETRY
        return 200, "received", []


_RECEIVED = b'{"received": true}'
_JSON = [(b"content-type", b"application/json")]
_RETRY = [(b"retry-after", RETRY_AFTER.encode())]
_CLOSE = [(b"connection", b"close")]  # the rest of the body stays unread
_GONE = b"\0gone"


def _headers(scope: Scope) -> tuple[bytes, int]:
    """The signature header and the announced length; two signature headers are none."""
    signatures, length = [], 0
    for name, value in scope["headers"]:
        if name == b"stripe-signature":
            signatures.append(value)
        elif name == b"content-length":
            length = int(value) if value.isdigit() and len(value) < 20 else LARGEST + 1
    return (signatures[0] if len(signatures) == 1 else b""), length


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None once it is too large, `_GONE` when the sender hung up."""
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _GONE
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > LARGEST:
            return None
        chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _looks_like_event(body: bytes) -> bool:
    """Text that could be a JSON object. Whether it is a Stripe event is the worker's business."""
    stripped = body.strip()
    if not (stripped.startswith(b"{") and stripped.endswith(b"}")):
        return False
    if body.isascii():
        return True
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True
