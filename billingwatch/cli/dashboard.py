"""`billingwatch dashboard`: RQ's dashboard behind a password, told nothing of what the jobs carry."""

import base64
import binascii
import hmac
import os
from typing import Any

import click
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from billingwatch.cli.ingest import bind
from billingwatch.cli.start import begin, connect_redis, expect_redis
from billingwatch.queues import RECORD_JOB, MessagePack
from billingwatch.settings import Environment, read_redis

PASSWORD = "BILLINGWATCH_CONSOLE_PASSWORD"  # noqa: S105 - the variable's name
USER = "admin"


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=9181, show_default=True)
def dashboard(host: str, port: int) -> None:
    """Inspect queues, jobs and workers in RQ's dashboard; requeue what failed.

    The user is `admin`, the password BILLINGWATCH_CONSOLE_PASSWORD; without one it does not start.
    """
    import uvicorn

    begin()
    reader = Environment(os.environ)
    password = reader.text(PASSWORD, hint="the dashboard is never open to everyone")
    reader.finish()
    url = read_redis(os.environ)
    expect_redis(connect_redis(url))
    listener = bind(host, port)
    click.echo(f"RQ's dashboard: http://{host}:{listener.getsockname()[1]}/ (user {USER})", err=True)
    config = uvicorn.Config(build(url, password), log_config=None, access_log=False, lifespan="off")
    uvicorn.Server(config).run(sockets=[listener])


def build(redis_url: str, password: str) -> Starlette:
    """The dashboard as an application: rq-dashboard's Flask inside, the login around it."""
    from a2wsgi import WSGIMiddleware
    from flask import Flask
    from rq import serializers
    from rq_dashboard import blueprint
    from rq_dashboard.web import config, setup_rq_connection

    flask = Flask("rq_dashboard")
    flask.config |= {"RQ_DASHBOARD_REDIS_URL": redis_url, "RQ_DASHBOARD_POLL_INTERVAL": 2500}
    config.serializer = Redacted
    # Half of its pages name no serializer, and RQ's own choice is pickle: whoever may write to Redis could have
    # code run by whoever looks at a job.
    serializers.PickleSerializer = Redacted  # type: ignore[assignment]
    flask.register_blueprint(blueprint)
    setup_rq_connection(flask)
    return Starlette(
        routes=[Mount("/", WSGIMiddleware(flask))],  # type: ignore[arg-type]
        middleware=[Middleware(Login, password=password)],
    )


class Redacted(MessagePack):
    """Shows of a batch how many events it holds: their bodies are customers' data."""

    @staticmethod
    def loads(data: bytes) -> Any:
        found = MessagePack.loads(data)
        if isinstance(found, list) and found[:1] == [RECORD_JOB]:
            return [RECORD_JOB, None, [f"{len(found[2][0])} events"], {}]
        return found


class Login:
    """HTTP Basic, compared in constant time, and nothing asked for by other sites' pages."""

    def __init__(self, app: ASGIApp, password: str) -> None:
        self._app = app
        self._expected = f"{USER}:{password}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        if not hmac.compare_digest(_credentials(headers.get(b"authorization", b"")), self._expected):
            challenge = {"WWW-Authenticate": 'Basic realm="BillingWatch", charset="UTF-8"'}
            await PlainTextResponse("The password, please.", 401, challenge)(scope, receive, send)
        elif headers.get(b"sec-fetch-site", b"none") not in {b"none", b"same-origin"}:
            # Some of the dashboard's GETs change state.
            await PlainTextResponse("Not from another site.", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _credentials(header: bytes) -> bytes:
    scheme, _, value = header.partition(b" ")
    if scheme.lower() != b"basic":
        return b""
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        return b""
