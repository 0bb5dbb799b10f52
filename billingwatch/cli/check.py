"""`billingwatch check`: is everything configured and reachable? Sends nothing, changes nothing."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from msgspec import Struct, to_builtins
from redis.exceptions import RedisError

from billingwatch.cli.start import connect_redis, load_rules
from billingwatch.rules import DEFAULT_PATH, Rules
from billingwatch.settings import ConfigurationError, read_database, read_ingest, read_logs, read_redis
from billingwatch.store.connection import StoreAwayError, connect


class Finding(Struct, frozen=True):
    """One thing looked at. `ok` None means that it was not asked for and is off."""

    what: str
    ok: bool | None
    says: str


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(as_json: bool) -> None:
    """Check the environment, billingwatch.toml, every channel's address, Postgres and Redis.

    Exit code 0 when all is well, 1 when a server does not answer or is not fit, 2 when the configuration is wrong.
    """
    configuration = list(_configuration())
    connections = list(_connections())
    findings = [*configuration, *connections]
    if as_json:
        click.echo(json.dumps({"ok": all(f.ok is not False for f in findings), "findings": to_builtins(findings)}))
    else:
        for finding in findings:
            mark = {True: "ok  ", False: "FAIL", None: "off "}[finding.ok]
            click.echo(f"{mark}  {finding.what}: {finding.says}")
    if any(finding.ok is False for finding in configuration):
        sys.exit(2)
    if any(finding.ok is False for finding in connections):
        sys.exit(1)


def _configuration() -> Iterator[Finding]:
    yield from _read("logs", lambda: read_logs(os.environ).level)
    placeholder = {"REDIS_URL": "redis://placeholder"}
    yield from _read("receiver", lambda: _sources(read_ingest({**placeholder, **os.environ}).sources))
    path = os.environ.get("BILLINGWATCH_CONFIG") or DEFAULT_PATH
    rules = Rules()
    try:
        rules, detectors = load_rules()
        where = path if Path(path).exists() else "defaults, no file"
        yield Finding("rules", True, f"{where}; {len(detectors)} detectors: {', '.join(detectors)}")
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("rules", False, str(problem))
    yield from _channels(rules)
    if not (os.environ.get("STRIPE_SECRET_KEY") or os.environ.get("STRIPE_SECRET_KEY_FILE")):
        yield Finding("Stripe's API", None, "STRIPE_SECRET_KEY is not set; nothing here needs it yet")


def _sources(sources: dict[str, tuple[str, ...]]) -> str:
    return ", ".join(
        f"/webhook/{name} ({len(secrets)} secret{'s'[: len(secrets) - 1]})" for name, secrets in sources.items()
    )


def _channels(rules: Rules) -> Iterator[Finding]:
    from notify.send import mask, problem

    if not rules.channels:
        yield Finding("channels", None, "none; alerts go to the alerts worker's output")
    for name, url in rules.channels.items():
        fault = problem(url)
        yield Finding(f"channel {name}", fault is None, fault or mask(url))


def _connections() -> Iterator[Finding]:
    if os.environ.get("DATABASE_URL") or os.environ.get("DATABASE_URL_FILE"):
        yield from _read("Postgres", _postgres)
    else:
        yield Finding("Postgres", None, "DATABASE_URL is not set; `billingwatch up` brings its own")
    if os.environ.get("REDIS_URL") or os.environ.get("REDIS_URL_FILE"):
        yield from _redis()
    else:
        yield Finding("Redis", None, "REDIS_URL is not set; `billingwatch up` brings its own")


def _postgres() -> str:
    from billingwatch.schema import pending

    try:
        with connect(read_database(os.environ), "check") as conn:
            version = conn.info.server_version // 10000
            if pending(conn):
                raise _UnfitError("the schema is not the newest; run `billingwatch migrate`")
            return f"version {version}, newest schema"
    except StoreAwayError as error:
        raise _UnfitError(f"does not answer ({error})") from None


def _redis() -> Iterator[Finding]:
    from ingest.queue import durability_problems

    try:
        redis = connect_redis(read_redis(os.environ))
        version = redis.info("server")["redis_version"]
        problems = durability_problems(redis)
    except ConfigurationError as error:
        yield Finding("Redis", False, str(error))
        return
    except RedisError as error:
        yield Finding("Redis", False, f"does not answer ({type(error).__name__})")
        return
    if not problems:
        yield Finding("Redis", True, f"version {version}, durable")
    for problem in problems:
        yield Finding("Redis", False, problem)


class _UnfitError(Exception):
    """A server answers, or not, in a way that does not do."""


def _read(what: str, read: Callable[[], str]) -> Iterator[Finding]:
    try:
        yield Finding(what, True, read())
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding(what, False, str(problem))
    except _UnfitError as error:
        yield Finding(what, False, str(error))
