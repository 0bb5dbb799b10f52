"""What to watch and whom to tell, from `billingwatch.toml`. Every mistake is told at once, with key and hint."""

import os
import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Struct

from billingwatch.model import Channel, Format
from billingwatch.settings import ConfigurationError, Environment, Problem

DEFAULT_PATH = "billingwatch.toml"
ENVIRONMENT_CHANNEL = "default"  # the channel that BILLINGWATCH_APPRISE_URLS makes


class Mistake(Problem, frozen=True):
    """A problem of the file, with its key, `"detectors.refund_spike.factor"`, and line, 0 where there is none."""

    file: str = ""
    line: int = 0
    key: str = ""


class File(Struct, frozen=True):
    """The TOML file, and the line in which each of its keys stands."""

    path: str = DEFAULT_PATH
    lines: dict[str, int] = {}

    def mistake(self, key: str, fault: str, hint: str = "") -> Mistake:
        """What is wrong with a key, placed in its line; one that is missing in that of its section."""
        line, where = 0, key
        while where and not line:
            line, where = self.lines.get(where, 0), where.rpartition(".")[0]
        place = f"{self.path}:{line}" if line else self.path
        return Mistake(f"{place}: {key}", fault, hint, self.path, line, key)


class Rules(Struct, frozen=True):
    """`channels` by name, secrets filled in; `sections` says what is to be watched, `alerting` whom to tell, as it is.

    A channel with several URLs is several channels, `ops-1`, `ops-2`: each is retried by itself, so that one that
    is broken repeats nothing on the others; `members` tells which single channels a name stands for. What is to be
    watched is the detectors' business (`detectors.registry.configure`), whom to tell that of `notify.policy.configure`.
    """

    channels: dict[str, Channel] = {}
    members: dict[str, tuple[str, ...]] = {}
    sections: dict[str, Any] = {}
    alerting: dict[str, Any] = {}
    retention_days: int = 400
    file: File = File()


SECTIONS = ("sensitivity", "time_zone", "holidays", "detectors", "rules", "accounts")  # the detectors'
ALERTING = ("alerts", "route", "routes", "intervals", "inhibit", "digest")
_KEYS = ("channels", "retention_days", *SECTIONS, *ALERTING)


def read_rules(env: Mapping[str, str]) -> Rules:
    """The rules of the file that the environment names; without a file, the defaults. Raises ConfigurationError."""
    problems: list[Problem] = []
    rules = find_rules(env, problems)
    if problems:
        raise ConfigurationError(problems)
    return rules


def find_rules(env: Mapping[str, str], problems: list[Problem]) -> Rules:
    """The same; what is wrong is added to `problems`, and the rest of the rules stands."""
    named = env.get("BILLINGWATCH_CONFIG", "").strip()
    path = Path(named or DEFAULT_PATH)
    text = ""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        if named:
            problems.append(Problem("BILLINGWATCH_CONFIG", f"{path} does not exist", "unset it to run on defaults"))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(Problem(str(path), f"cannot be read: {type(error).__name__}"))
    return parse_rules(text, env, str(path), problems)


def parse_rules(text: str, env: Mapping[str, str], path: str, problems: list[Problem]) -> Rules:
    """The rules in this text; what is wrong is added to `problems`, and the default stands in its place."""
    try:
        found = tomllib.loads(text)
        file = File(path, dict(_lines(text)))
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"at line (\d+)", str(error))
        line = int(at[1]) if at else 0
        place = f"{path}:{line}" if line else path
        problems.append(Mistake(place, str(error), "TOML: https://toml.io", path, line))
        found, file = {}, File(path)
    for key in sorted(found.keys() - set(_KEYS)):
        close = get_close_matches(key, _KEYS, n=1)
        hint = f'did you mean "{close[0]}"?' if close else f"known: {', '.join(_KEYS)}"
        problems.append(file.mistake(key, "unknown key", hint))
        del found[key]
    named_channels = _channels(found.get("channels", {}), env, file, problems)
    reader = Environment(env)
    urls = reader.text("BILLINGWATCH_APPRISE_URLS").split()
    problems += reader.problems
    if urls and ENVIRONMENT_CHANNEL in named_channels:
        key = f"channels.{ENVIRONMENT_CHANNEL}"
        hint = "name it otherwise, or unset those"
        problems.append(file.mistake(key, "is the name of BILLINGWATCH_APPRISE_URLS", hint))
    elif urls:
        named_channels[ENVIRONMENT_CHANNEL] = [Channel(url) for url in urls]
    channels, members = _split(named_channels, file, problems)
    days = _convert(found.get("retention_days", 400), int, "retention_days", file, problems)
    if days is not None and days < 31:
        hint = "31 days at least: baselines need them"
        problems.append(file.mistake("retention_days", f"{days} is too few", hint))
    return Rules(
        channels=channels,
        members=members,
        sections={key: found[key] for key in SECTIONS if key in found},
        alerting={key: found[key] for key in ALERTING if key in found},
        retention_days=days or 400,
        file=file,
    )


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Each key of a TOML text without mistakes, and the line in which it is first named; tables of a list have numbers.

    Statement by statement: as many lines as it takes to make TOML by themselves, under the header before them.
    """
    seen: set[str] = set()
    lists: Counter[str] = Counter()
    header: tuple[str, ...] = ()
    statement, first = "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += f"{line}\n"
        try:
            found: Any = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue  # of several lines
        if statement.lstrip().startswith("["):
            header = ()
            while found:
                name, found = next(iter(found.items()))
                header = (*header, name)
                if isinstance(found, list):
                    lists[name] += 1
                    header, found = (*header, str(lists[name])), found[0]
            keys = [header[:size] for size in range(1, len(header) + 1)]
        else:
            keys = [(*header, *key) for key in _paths(found)]
        for key in map(".".join, keys):
            if key not in seen:
                yield key, first
                seen.add(key)
        statement, first = "", number + 1


def _paths(table: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, value in table.items():
        yield (name,)
        if isinstance(value, Mapping):
            yield from ((name, *path) for path in _paths(value))


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    """A channel as the file may write it, where an address alone does not say enough."""

    url: str | list[str]
    secret: str = ""
    format: Format = "billingwatch"
    allow_private: bool = False
    budget: Annotated[int, msgspec.Meta(ge=1)] | None = None


def _channels(
    sections: object, env: Mapping[str, str], file: File, problems: list[Problem]
) -> dict[str, list[Channel]]:
    """`NAME = "URL"`, a list of them, or a table; `env:NAME` and `file:PATH` stand for a secret kept elsewhere."""
    found = _convert(sections, dict[str, str | list[str] | dict[str, Any]], "channels", file, problems) or {}
    channels: dict[str, list[Channel]] = {}
    for name, value in found.items():
        key = f"channels.{name}"
        table = _convert(value if isinstance(value, dict) else {"url": value}, _Table, key, file, problems)
        if table is None:
            channels[name] = []
            continue
        if not table.url:
            problems.append(file.mistake(key, "has no address", "an Apprise URL or a list of them"))
        urls = [table.url] if isinstance(table.url, str) else table.url
        secret = " ".join(_secret(each, env, f"{key}.secret", file, problems) for each in table.secret.split())
        channels[name] = [
            Channel(read, secret, table.format, table.allow_private, table.budget)
            for url in urls
            if (read := _secret(url, env, key, file, problems))
        ]
    return channels


def _split(
    named: Mapping[str, list[Channel]], file: File, problems: list[Problem]
) -> tuple[dict[str, Channel], dict[str, tuple[str, ...]]]:
    """The single channels by name, and which of them each name stands for."""
    channels: dict[str, Channel] = {}
    members = {}
    for name, urls in named.items():
        split = {name: urls[0]} if len(urls) == 1 else {f"{name}-{n}": url for n, url in enumerate(urls, 1)}
        for twice in sorted(split.keys() & channels.keys()):
            hint = "several addresses of NAME are NAME-1, NAME-2, …"
            problems.append(file.mistake(f"channels.{twice}", "names two channels", hint))
        channels |= split
        members[name] = tuple(split)
    return channels, members


def _secret(url: str, env: Mapping[str, str], key: str, file: File, problems: list[Problem]) -> str:
    kind, _, name = url.partition(":")
    if kind == "env":
        value = env.get(name, "").strip()
        if not value:
            problems.append(file.mistake(key, f"the variable {name} is not set"))
        return value
    if kind == "file" and not name.startswith("//"):
        try:
            return Path(os.path.expanduser(name)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(file.mistake(key, f"{name} cannot be read: {type(error).__name__}"))
            return ""
    return url


def _convert(value: object, shape: Any, key: str, file: File, problems: list[Problem]) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        # It quotes what it does not know, which may be an address.
        problems.append(file.mistake(key, re.sub(r"'[^']*:[^']*'", "an address", str(error))))
        return None
