"""`billingwatch console`: the pages that messages link to, under uvicorn."""

import os
import signal
import socket

import click
import structlog

from billingwatch.cli.ingest import bind
from billingwatch.cli.start import begin
from billingwatch.settings import Environment, read_database

log = structlog.get_logger(__name__)

PORT = 8080
GRACE = 10  # seconds for requests in flight to be answered at shutdown


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help=f"The port; CONSOLE_PORT, or {PORT}.")
@click.option("--fd", type=int, hidden=True, help="Listen on this inherited socket.")
def console(host: str, port: int | None, fd: int | None) -> None:
    """Serve the pages of signed links: see an incident, acknowledge it, snooze it, say what it was.

    Messages link to it where BILLINGWATCH_BASE_URL is set, its address as people reach it: put a proxy with TLS in
    front. A link is a permission of its own, works once, and expires; there is no login yet and no other page.
    GET /healthz tells that it is there.
    """
    begin()
    reader = Environment(os.environ)
    number = reader.port("CONSOLE_PORT", PORT) if port is None else port
    reader.finish()
    database_url = read_database(os.environ)
    listener = socket.socket(fileno=fd) if fd is not None else bind(host, number)
    if fd is None:
        log.info("listening", address=f"http://{host}:{listener.getsockname()[1]}")
    serve(listener, database_url)


def serve(listener: socket.socket, database_url: str) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first."""
    import uvicorn

    from console.app import build
    from console.store import Store

    config = uvicorn.Config(
        build(Store(database_url)),
        lifespan="on",
        access_log=False,  # the address of a page is a permission
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it is done, for whoever was there before it: nobody.
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])
