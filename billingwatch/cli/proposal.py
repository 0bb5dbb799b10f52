"""Rules as they are proposed: a TOML file, changed by `KEY=VALUE`, of some detectors only. No channel is looked at."""

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import Struct
from msgspec.structs import replace

from billingwatch.rules import SECTIONS, Mistake, Rules, find_rules
from billingwatch.settings import ConfigurationError, Problem
from detectors import setting
from detectors.registry import SHIPPED, Plans, configure

NOBODY_IS_TOLD = ("channels", "route")  # keys whose mistakes, such as a secret that is not set here, do no harm


class Change(Struct, frozen=True):
    """One key of the TOML, `"detectors.refund_spike.factor"`, as it is set on the command line."""

    text: str
    key: str
    table: dict[str, Any]  # down to the value

    def concerns(self, place: str) -> bool:
        return f"{place}.".startswith(f"{self.key}.") or f"{self.key}.".startswith(f"{place}.")


def propose(config: Path | None, changes: Sequence[str], names: Sequence[str]) -> Plans:
    """What is judged by the file, the environment's where none is given, with these changes; by the detectors and
    rules of these names where any are given.

    Raises ConfigurationError with every mistake, and click's usage errors.
    """
    problems: list[Problem] = []
    rules = find_rules(os.environ if config is None else {**os.environ, "BILLINGWATCH_CONFIG": str(config)}, problems)
    problems = [each for each in problems if not _harmless(each)]
    sections: Mapping[str, Any] = rules.sections
    made = [read_change(text) for text in changes]
    for change in made:
        sections = _merged(sections, change.table)
    plans, wrong = configure(sections)
    problems += [_problem(place, fault, made, rules) for place, fault in wrong.items()]
    if problems:
        raise ConfigurationError(problems)
    return _only(plans, names) if names else plans


def read_change(text: str) -> Change:
    """`KEY=VALUE`, the value as TOML writes it or a bare word; a detector's keys may stand without `detectors.`."""
    key, sign, value = text.partition("=")
    if not sign or not key.strip() or not value.strip():
        raise click.BadParameter(f"{text!r} is no KEY=VALUE, as in failure_rate.sensitivity=8", param_hint="--set")
    try:
        table = _parsed(key, value)
    except tomllib.TOMLDecodeError:
        raise click.BadParameter(f"{key.strip()!r} is no key", param_hint="--set") from None
    head = next(iter(table))
    if head in SHIPPED:
        table = {"detectors": table}
    elif head not in SECTIONS:
        known = (*SHIPPED, *SECTIONS)
        hint = setting.meant(head, known) or setting.listed(known)
        raise click.BadParameter(f"unknown key {head!r} ({hint})", param_hint="--set")
    return Change(text, ".".join(_path(table)), table)


def _parsed(key: str, value: str) -> dict[str, Any]:
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        return tomllib.loads(f"{key} = {json.dumps(value.strip())}")  # quiet, 15m: no TOML, and what one would type


def _path(table: Mapping[str, Any]) -> list[str]:
    name, value = next(iter(table.items()))
    return [name, *(_path(value) if isinstance(value, Mapping) and value else ())]


def _merged(table: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(table)
    for key, value in change.items():
        below = found.get(key)
        found[key] = _merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return found


def _harmless(problem: Problem) -> bool:
    return isinstance(problem, Mistake) and problem.key.partition(".")[0] in NOBODY_IS_TOLD


def _problem(place: str, fault: str, changes: Sequence[Change], rules: Rules) -> Problem:
    """A mistake where it was made: on the command line, or in a line of the file."""
    for change in changes:
        if change.concerns(place):
            return Problem(f"--set {change.text}", fault)
    return rules.file.mistake(place, fault)


def _only(plans: Plans, names: Sequence[str]) -> Plans:
    """As if all others were switched off."""
    known = {name for plan in plans.by_account.values() for name in plan.detectors} | SHIPPED.keys()
    for name in names:
        if name not in known:
            hint = setting.meant(name, known) or setting.listed(sorted(known))
            raise click.BadParameter(f"no detector {name!r} ({hint})", param_hint="--detector")
    kept = {
        key: replace(
            plan,
            detectors={name: each for name, each in plan.detectors.items() if name in names},
            silence=plan.silence if plan.silence and plan.silence.name in names else None,
        )
        for key, plan in plans.by_account.items()
    }
    return replace(plans, by_account=kept)
