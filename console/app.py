"""The console as an ASGI application: the pages of signed links, and its own health."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qs

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billingwatch.store.connection import StoreAwayError
from console import pages
from console.answer import Page, look, press
from console.store import Store

log = structlog.get_logger(__name__)

LARGEST = 1024  # bytes of body: one short field
FORM = "application/x-www-form-urlencoded"
RETRY_AFTER = "5"  # seconds


def build(store: Store, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Starlette:
    """The application; it opens the store and closes it."""

    async def healthz(request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def answer(request: Request) -> Response:
        token, now = request.path_params["token"], clock()
        act = await _act(request) if request.method == "POST" else None

        def work() -> Page:
            with store.transaction() as conn:
                return look(conn, token, now) if act is None else press(conn, token, act, now)

        page = await run_in_threadpool(work)
        if page.status == "done" and page.incident:
            log.info("answered", incident=page.incident.id, says=page.said)
        return _html(*pages.answer(page, now))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(store.open)
        yield
        await run_in_threadpool(store.close)

    app = Starlette(
        routes=[Route("/healthz", healthz), Route("/answer/{token}", answer, methods=["GET", "POST"])],
        middleware=[Middleware(Secured)],
        exception_handlers={HTTPException: _refused, StoreAwayError: _away, Exception: _failed},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class Secured:
    """Every answer, errors too, says what a browser may do with it: nothing but show it and send its form back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secure(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(pages.HEADERS)
            await send(message)

        await self._app(scope, receive, secure if scope["type"] == "http" else send)


async def _act(request: Request) -> str:
    """The button that was pressed, "" where the page had one that needs no name. Raises HTTPException."""
    if request.headers.get("content-type", FORM).partition(";")[0].strip().lower() != FORM:
        raise HTTPException(415)
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST:
            raise HTTPException(413, headers={"connection": "close"})  # the rest stays unread
    try:
        fields = parse_qs(body.decode("ascii"), strict_parsing=bool(body), max_num_fields=4)
    except ValueError:
        raise HTTPException(400) from None
    return fields.get("act", [""])[-1]


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - the handler of these alone
    return _html(error.status_code, pages.notice(error.status_code), dict(error.headers or {}))


async def _away(request: Request, error: Exception) -> Response:
    log.warning("store_away", error=str(error))
    return _html(503, pages.notice(503), {"retry-after": RETRY_AFTER})


async def _failed(request: Request, error: Exception) -> Response:
    # Errors beyond every handler are answered outside of the middleware.
    return _html(500, pages.notice(500), pages.HEADERS)


def _html(code: int, page: str, headers: dict[str, str] | None = None) -> Response:
    return Response(page, code, headers, media_type=pages.HTML)
