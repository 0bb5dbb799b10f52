"""What to watch and whom to tell, from `billingwatch.toml`. Every mistake is told at once, with key and hint."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from billingwatch.settings import ConfigurationError, Environment, Problem

DEFAULT_PATH = "billingwatch.toml"
ENVIRONMENT_CHANNEL = "default"  # the channel that BILLINGWATCH_APPRISE_URLS makes


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """Where messages go: the names of channels, in `Rules` those of single ones."""

    channels: tuple[str, ...] = ()


class Rules(Struct, frozen=True):
    """`channels` maps a name to its Apprise URL, secrets filled in; `detectors` holds the TOML's sections as they are.

    A channel with several URLs is several channels, `ops-1`, `ops-2`: each is retried by itself, so that one that
    is broken repeats nothing on the others. What a detector's keys mean is the detectors' business:
    `detectors.registry.configure` reads them.
    """

    channels: dict[str, str] = {}
    route: Route = Route()
    detectors: dict[str, dict[str, Any]] = {}
    retention_days: int = 400


_KEYS = ("channels", "route", "detectors", "retention_days")


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
    except tomllib.TOMLDecodeError as error:
        problems.append(Problem(path, str(error), "TOML: https://toml.io"))
        found = {}
    for key in sorted(found.keys() - set(_KEYS)):
        problems.append(Problem(f"{path}: {key}", "unknown key", f"known: {', '.join(_KEYS)}"))
        del found[key]
    named_channels = _channels(found.get("channels", {}), env, path, problems)
    reader = Environment(env)
    urls = reader.text("BILLINGWATCH_APPRISE_URLS").split()
    problems += reader.problems
    if urls and ENVIRONMENT_CHANNEL in named_channels:
        place = f"{path}: channels.{ENVIRONMENT_CHANNEL}"
        problems.append(Problem(place, "is the name of BILLINGWATCH_APPRISE_URLS", "name it otherwise, or unset those"))
    elif urls:
        named_channels[ENVIRONMENT_CHANNEL] = urls
    channels, members = _split(named_channels, path, problems)
    route = _convert(found.get("route", {}), Route, f"{path}: route", problems) or Route()
    for name in route.channels:
        if name not in members:
            known = ", ".join(members) or "none"
            shown = "an address" if ":" in name else repr(name)  # an address would show its secrets
            problems.append(Problem(f"{path}: route.channels", f"no channel is named {shown}", f"named: {known}"))
    chosen = [member for name in route.channels for member in members.get(name, ())]
    route = Route(channels=tuple(chosen or channels))
    days = _convert(found.get("retention_days", 400), int, f"{path}: retention_days", problems)
    if days is not None and days < 31:
        problems.append(
            Problem(f"{path}: retention_days", f"{days} is too few", "31 days at least: baselines need them")
        )
    detectors = _convert(found.get("detectors", {}), dict[str, dict[str, Any]], f"{path}: detectors", problems)
    return Rules(channels=channels, route=route, detectors=detectors or {}, retention_days=days or 400)


def _channels(sections: object, env: Mapping[str, str], path: str, problems: list[Problem]) -> dict[str, list[str]]:
    """`NAME = "URL"` or a list of them; `env:NAME` and `file:PATH` stand for a secret kept elsewhere."""
    found = _convert(sections, dict[str, str | list[str]], f"{path}: channels", problems) or {}
    channels = {}
    for name, value in found.items():
        place = f"{path}: channels.{name}"
        if not value:
            problems.append(Problem(place, "has no address", "an Apprise URL or a list of them"))
        urls = [_secret(url, env, place, problems) for url in ([value] if isinstance(value, str) else value)]
        channels[name] = [url for url in urls if url]
    return channels


def _split(
    named: Mapping[str, list[str]], path: str, problems: list[Problem]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """The single channels by name, and which of them each name stands for."""
    channels: dict[str, str] = {}
    members = {}
    for name, urls in named.items():
        split = {name: urls[0]} if len(urls) == 1 else {f"{name}-{n}": url for n, url in enumerate(urls, 1)}
        for twice in sorted(split.keys() & channels.keys()):
            place = f"{path}: channels.{twice}"
            problems.append(Problem(place, "names two channels", "several addresses of NAME are NAME-1, NAME-2, …"))
        channels |= split
        members[name] = tuple(split)
    return channels, members


def _secret(url: str, env: Mapping[str, str], place: str, problems: list[Problem]) -> str:
    kind, _, name = url.partition(":")
    if kind == "env":
        value = env.get(name, "").strip()
        if not value:
            problems.append(Problem(place, f"the variable {name} is not set"))
        return value
    if kind == "file" and not name.startswith("//"):
        try:
            return Path(os.path.expanduser(name)).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(place, f"{name} cannot be read: {type(error).__name__}"))
            return ""
    return url


def _convert(value: object, shape: Any, place: str, problems: list[Problem]) -> Any:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        problems.append(Problem(place, str(error)))
        return None
