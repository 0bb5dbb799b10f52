"""How every long-running command begins: logs, connections, rules, each problem told before anything starts."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import click
from msgspec.structs import replace
from psycopg import Connection
from redis import Redis
from redis.exceptions import RedisError

from billingwatch.cli.running import beside
from billingwatch.log import configure
from billingwatch.rules import Rules, find_rules
from billingwatch.settings import ConfigurationError, Problem, read_database, read_logs
from billingwatch.store.connection import StoreAwayError, connect
from billingwatch.supervisor import die_with_parent
from detectors.registry import Plans
from detectors.registry import configure as configure_detectors
from notify.policy import Policy
from notify.policy import configure as configure_policy


def begin() -> None:
    """Logs as the environment wants them; a supervised process ends with its supervisor."""
    configure(read_logs(os.environ))
    die_with_parent()


class Configuration(NamedTuple):
    """What stands in the TOML file: whom to tell by which address, what is judged, and what is told when."""

    rules: Rules
    plans: Plans
    policy: Policy


def load_rules() -> Configuration:
    """The file's rules, plans and policy. Raises ConfigurationError with every mistake of them all."""
    problems: list[Problem] = []
    rules = find_rules(os.environ, problems)
    plans, wrong = configure_detectors(rules.sections)
    policy, more = configure_policy(rules.alerting, rules.members)
    problems += [rules.file.mistake(key, fault) for key, fault in (wrong | more).items()]
    if problems:
        raise ConfigurationError(problems)
    return Configuration(rules, plans, replace(policy, zone=plans.of("").calendar.zone))


def connect_redis(url: str) -> Redis:
    """A client that gives up on a silent Redis after seconds. The address may be wrong: nothing is asked yet."""
    try:
        return Redis.from_url(url, socket_connect_timeout=3)
    except ValueError:
        raise ConfigurationError([Problem("REDIS_URL", "is no address", "redis://host:6379/0")]) from None


@contextmanager
def open_store() -> Iterator[Connection]:
    """A connection to the database for a command; without an answer the command ends with 1.

    Where none is named it is that of the `up` that runs on this data folder.
    """
    try:
        conn = connect(read_database(beside(os.environ)), "cli")
    except StoreAwayError as error:
        click.echo(f"Postgres does not answer at DATABASE_URL ({error}). Is it running?", err=True)
        sys.exit(1)
    with conn:
        yield conn


def expect_redis(redis: Redis) -> None:
    """End with 1 where Redis does not answer."""
    try:
        redis.ping()
    except RedisError as error:
        click.echo(f"Redis does not answer at REDIS_URL ({type(error).__name__}). Is it running?", err=True)
        sys.exit(1)
