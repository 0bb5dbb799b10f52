"""`billingwatch check`: is everything configured and reachable? Sends nothing, changes nothing."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from msgspec import Struct, to_builtins
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from billingwatch.cli.mark import MOMENT
from billingwatch.cli.running import beside
from billingwatch.cli.start import connect_redis, load_rules
from billingwatch.cli.way import print_way
from billingwatch.rules import DEFAULT_PATH, Mistake, Rules
from billingwatch.settings import (
    ConfigurationError,
    Problem,
    read_base_url,
    read_database,
    read_heartbeat_url,
    read_ingest,
    read_logs,
    read_redis,
)
from billingwatch.store.connection import StoreAwayError, connect
from detectors.registry import SHIPPED, Plan, Plans, settings
from detectors.setting import spelled
from detectors.threshold import Threshold
from notify.message import problems
from notify.template import Templates

NO_LINKS = "none: BILLINGWATCH_BASE_URL, the console's public address, is not set"
NO_HEARTBEAT = "none: BILLINGWATCH_HEARTBEAT_URL is not set, so nobody hears of this machine's own death"


class Finding(Struct, frozen=True, omit_defaults=True):
    """One thing looked at. `ok` None means that it was not asked for and is off. A mistake in a file has a place."""

    what: str
    ok: bool | None
    says: str
    file: str = ""
    line: int = 0
    key: str = ""
    hint: str = ""


@click.command()
@click.option("--route", "asked", metavar="LABEL=VALUE,…", help="Print the way of an alert with these labels, no more.")
@click.option("--at", type=MOMENT, help="The instant at which --route is asked; now, where it is not said.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def check(asked: str | None, at: datetime | None, as_json: bool) -> None:
    """Check the environment, billingwatch.toml, every channel's address, Postgres and Redis; say what will be judged.

    \b
    billingwatch check --route severity=critical,account=acct_1
    billingwatch check --route severity=low --at 2026-11-28T03:00

    Exit code 0 when all is well, 1 when a server does not answer or is not fit, 2 when the configuration is wrong.
    """
    if asked is not None:
        print_way(asked, at or datetime.now(UTC), as_json)
        return
    rules, plans, findings = _rules()
    configuration = [*_environment(), *findings, *_channels(rules), *_api()]
    connections = list(_connections())
    findings = [*configuration, *connections]
    if as_json:
        found = {"ok": all(finding.ok is not False for finding in findings), "findings": to_builtins(findings)}
        click.echo(json.dumps(found | ({"judged": judged(plans)} if plans else {})))
    else:
        for finding in findings:
            mark = {True: "ok  ", False: "FAIL", None: "off "}[finding.ok]
            click.echo(f"{mark}  {finding.what}: {finding.says}")
        if plans:
            _show(judged(plans))
    if any(finding.ok is False for finding in configuration):
        sys.exit(2)
    if any(finding.ok is False for finding in connections):
        sys.exit(1)


def judged(plans: Plans) -> dict[str, Any]:
    """What is judged of any account, and of each that the configuration names, with every value in force."""
    accounts = {account: _described(plans, account) for account in plans.accounts}
    return _described(plans, "") | {"accounts": accounts}


def _described(plans: Plans, account: str) -> dict[str, Any]:
    live, test = plans.of(account, True), plans.of(account, False)
    detectors = {name: {"enabled": True} | settings(each) for name, each in _built_in(live).items()}
    rules = {name: _rule(plans, live, name) for name in live.detectors if name in _thresholds(live)}
    rules |= {name: _rule(plans, test, name) for name in _thresholds(test) if name not in rules}
    for name, rule in rules.items():
        both = name in live.detectors and name in test.detectors
        rule["livemode"] = "both" if both else name in live.detectors
    return {
        "time_zone": live.calendar.zone,
        "holidays": live.calendar.country,
        "detectors": {name: detectors.get(name, {"enabled": False}) for name in SHIPPED},
        "rules": rules,
    }


def _built_in(plan: Plan) -> dict[str, Any]:
    found: dict[str, Any] = {name: each for name, each in plan.detectors.items() if not isinstance(each, Threshold)}
    return found | ({plan.silence.name: plan.silence} if plan.silence else {})


def _thresholds(plan: Plan) -> dict[str, Threshold]:
    return {name: each for name, each in plan.detectors.items() if isinstance(each, Threshold)}


def _rule(plans: Plans, plan: Plan, name: str) -> dict[str, Any]:
    """A rule's keys in force; what it does not narrow is left out."""
    threshold = _thresholds(plan)[name]
    source = plan.lines[threshold.line]
    counted = next((each for each in plans.filters if each.name == name), None)
    found = {
        "metric": counted.metric if counted else source.metrics[0],
        "stratum": list(counted.strata if counted else source.strata),
        "currency": counted.currency if counted else source.currency,
        "brand": counted.brand if counted else "",
        "country": counted.country if counted else "",
        "price": counted.price if counted else "",
        "amounts": source.amounts,
    }
    return {key: value for key, value in found.items() if value} | {
        "window": spelled(threshold.window),
        "compare": threshold.compare,
        "factor": threshold.factor,
        "past": spelled(threshold.past),
        "plus": threshold.plus,
        "least": threshold.least,
        "severity": threshold.severity,
    }


def _show(found: Mapping[str, Any]) -> None:
    """As tables: the detectors, the rules, and what is different in single accounts."""
    console = Console(highlight=False)
    holidays = f"the holidays of {found['holidays']} apart" if found["holidays"] else "no country's holidays apart"
    console.print(f"\nWhat is judged, in days of {found['time_zone']}, {holidays}:")
    table = _table("detector", "sensitivity", "severity", "windows", "thresholds")
    for name, each in found["detectors"].items():
        rest = {key: value for key, value in each.items() if key not in _COLUMNS}
        table.add_row(
            name,
            _plain(each.get("sensitivity", "-")) if each["enabled"] else "off",
            each.get("severity", ""),
            _plain(each.get("windows", [])),
            ", ".join(f"{key} {_plain(value)}" for key, value in rest.items()),
        )
    console.print(table)
    if found["rules"]:
        table = _table("rule", "severity", "holds when")
        for name, each in found["rules"].items():
            table.add_row(name, each["severity"], _sentence(each))
        console.print(table)
    if found["accounts"]:
        table = _table("account", "what", "here", "elsewhere")
        for account, own in found["accounts"].items():
            for row in _differences(found, own):
                table.add_row(account, *row)
        console.print(table)


_COLUMNS = frozenset({"enabled", "sensitivity", "severity", "windows"})


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title == titles[0])
    return table


def _sentence(rule: Mapping[str, Any]) -> str:
    """`"refund.created in 1h above 3 x the average of 7d + 1"`, and what it is narrowed to."""
    of = "money of " if rule.get("amounts") else ""
    said = f"{of}{rule['metric']} in {rule['window']} {rule['compare']} {rule['factor']:g} x the average of "
    said += f"{rule['past']} + {rule['plus']:g}"
    least = f"at least {rule['least']:g}" if rule["least"] else ""
    strata = " or ".join(rule.get("stratum", ()))
    mode = {"both": "", True: "live mode only", False: "test mode only"}[rule["livemode"]]
    narrowed = (rule.get(key, "") for key in ("currency", "brand", "country", "price"))
    return ", ".join(filter(None, (said, least, strata, *narrowed, mode)))


def _differences(general: Mapping[str, Any], own: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What of an account is not as elsewhere: key, value here and there. Detectors that differ alike are one row."""
    for key in ("time_zone", "holidays"):
        if own[key] != general[key]:
            yield key, own[key] or "none", general[key] or "none"
    alike: dict[tuple[str, str, str], list[str]] = {}
    for name, here in own["detectors"].items():
        there = general["detectors"][name]
        for key in here if here["enabled"] == there["enabled"] else ("enabled",):
            if here[key] != there[key]:
                alike.setdefault((key, _plain(here[key]), _plain(there[key])), []).append(name)
    for (key, mine, theirs), names in alike.items():
        yield f"{key} of {', '.join(names)}", mine, theirs
    for name, rule in own["rules"].items():
        if rule != general["rules"].get(name):
            yield f"rule {name}", _sentence(rule), "none"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return " ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else str(value)


def _rules() -> tuple[Rules, Plans | None, list[Finding]]:
    path = os.environ.get("BILLINGWATCH_CONFIG") or DEFAULT_PATH
    try:
        rules, plans, policy = load_rules()
    except ConfigurationError as error:
        return Rules(), None, [_fault("rules", problem) for problem in error.problems]
    where = path if Path(path).exists() else "defaults, no file"
    plan = plans.of("")
    built_in, own = (
        len(_built_in(plan)),
        len({name for each in plans.by_account.values() for name in _thresholds(each)}),
    )
    routes = f"{len(policy.routes) - 1} routes and the default one"
    found = [Finding("rules", True, f"{where}; {built_in} detectors, {own} rules; {routes}")]
    if policy.templates:
        faults = problems(Templates(Path(policy.templates)))
        found += [Finding("templates", False, fault) for fault in faults] or [
            Finding("templates", True, policy.templates)
        ]
    return rules, plans, found


def _fault(what: str, problem: Problem) -> Finding:
    if isinstance(problem, Mistake):
        return Finding(what, False, str(problem), problem.file, problem.line, problem.key, problem.hint)
    return Finding(what, False, str(problem), hint=problem.hint)


def _environment() -> Iterator[Finding]:
    yield from _read("logs", lambda: read_logs(os.environ).level)
    placeholder = {"REDIS_URL": "redis://placeholder"}
    yield from _read("receiver", lambda: _sources(read_ingest({**placeholder, **os.environ}).sources))
    yield from _read("links in alerts", lambda: read_base_url(os.environ) or NO_LINKS)
    yield from _read("heartbeat", lambda: "on" if read_heartbeat_url(os.environ) else NO_HEARTBEAT)


def _api() -> Iterator[Finding]:
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
    for name, channel in rules.channels.items():
        fault = problem(channel)
        yield Finding(f"channel {name}", fault is None, fault or mask(channel.url))


def _connections() -> Iterator[Finding]:
    """Of the servers that are named, or of those of the `up` that runs on this data folder."""
    environment = beside(os.environ)
    if environment.get("DATABASE_URL") or environment.get("DATABASE_URL_FILE"):
        yield from _read("Postgres", lambda: _postgres(environment))
    else:
        yield Finding("Postgres", None, "DATABASE_URL is not set; `billingwatch up` brings its own")
    if environment.get("REDIS_URL") or environment.get("REDIS_URL_FILE"):
        yield from _redis(environment)
    else:
        yield Finding("Redis", None, "REDIS_URL is not set; `billingwatch up` brings its own")


def _postgres(environment: Mapping[str, str]) -> str:
    from billingwatch.schema import pending

    try:
        with connect(read_database(environment), "check") as conn:
            version = conn.info.server_version // 10000
            if pending(conn):
                raise _UnfitError("the schema is not the newest; run `billingwatch migrate`")
            return f"version {version}, newest schema"
    except StoreAwayError as error:
        raise _UnfitError(f"does not answer ({error})") from None


def _redis(environment: Mapping[str, str]) -> Iterator[Finding]:
    from ingest.queue import durability_problems

    try:
        redis = connect_redis(read_redis(environment))
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
            yield _fault(what, problem)
    except _UnfitError as error:
        yield Finding(what, False, str(error))
