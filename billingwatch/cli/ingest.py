"""`billingwatch ingest`: the receiver under uvicorn, in one process or several on one socket."""

import os
import shutil
import signal
import socket
import sys
import tempfile

import click
import structlog
from redis.exceptions import RedisError

from billingwatch.cli.start import begin, connect_redis
from billingwatch.settings import Environment, Ingest, read_ingest
from billingwatch.supervisor import Command, Supervisor, stop_on_signals

log = structlog.get_logger(__name__)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="The port; PORT, or 8000.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Receiver processes.")
@click.option("--strict", is_flag=True, help="Refuse to start where Redis could lose an acknowledged event.")
@click.option("--fd", type=int, hidden=True, help="Listen on this inherited socket.")
def ingest(host: str, port: int | None, workers: int, strict: bool, fd: int | None) -> None:
    """Receive Stripe's webhooks: verify, enqueue, answer.

    POST /webhook takes the default source's events (STRIPE_WEBHOOK_SECRET), POST /webhook/shop those signed
    with STRIPE_WEBHOOK_SECRET_SHOP. GET /healthz, /readyz and /metrics tell how it is.

    It answers 200 only after Redis has the event, and 503 while Redis is away or almost full: Stripe then
    sends it again for three days.
    """
    begin()
    settings = read_ingest(os.environ)
    if fd is not None:
        serve(socket.socket(fileno=fd))
        return
    judge_redis(settings, strict=strict)
    reader = Environment(os.environ)
    number = reader.port("PORT", 8000) if port is None else port
    reader.finish()
    listener = bind(host, number)
    log.info("listening", address=f"http://{host}:{listener.getsockname()[1]}", sources=sorted(settings.sources))
    if workers == 1:
        serve(listener)
        return
    shared = tempfile.mkdtemp(prefix="billingwatch-metrics-")
    try:
        command = ("ingest", "--fd", str(listener.fileno()))
        Supervisor(
            [Command(f"ingest-{n}", command, descriptors=(listener.fileno(),)) for n in range(workers)],
            {**os.environ, "PROMETHEUS_MULTIPROC_DIR": shared},
        ).run(stop_on_signals())
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; ends with 1 where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        click.echo(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with PORT or --port.", err=True)
        sys.exit(1)
    listener.listen(2048)
    listener.set_inheritable(True)
    return listener


def serve(listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered first."""
    import uvicorn

    from ingest.server import FACTORY, GRACE

    config = uvicorn.Config(
        FACTORY,
        factory=True,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,  # above the keep-alive of the proxies in front
        timeout_graceful_shutdown=GRACE,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn answers what is in flight and then raises the signal again, for whoever was there before it:
        # nobody, so that a receiver told to stop ends with 0.
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[listener])


def judge_redis(settings: Ingest, *, strict: bool) -> None:
    """Warn about a Redis that could lose events; with `strict` end with 2 instead."""
    from ingest.queue import durability_problems

    try:
        problems = durability_problems(connect_redis(settings.redis_url))
    except RedisError as error:
        problems = [f"Redis does not answer ({type(error).__name__}); every delivery gets 503 until it does"]
    for problem in problems:
        log.error("redis_not_durable", problem=problem)
    if strict and problems:
        click.echo("Refusing to start (--strict):", err=True)
        for problem in problems:
            click.echo(f"  REDIS_URL: {problem}", err=True)
        sys.exit(2)
