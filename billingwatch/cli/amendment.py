"""What follows from a false alarm for billingwatch.toml: a difference to accept, and what it would change."""

import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from billingwatch.model import Incident
from billingwatch.rules import Rules, find_rules
from detectors.amendment import Amendment, amend
from detectors.registry import Plans, configure
from detectors.threshold import Threshold


class Proposal(Struct, frozen=True):
    """The change of the file as lines of a difference, and the command that shows what else it would change."""

    file: str
    difference: tuple[str, ...]
    command: str

    @property
    def lines(self) -> tuple[str, ...]:
        """As it is shown to people."""
        return (
            f"These thresholds would not have told it (a difference to accept in {self.file}):",
            *(f"  {line}" for line in self.difference),
            "Another window may still tell the same, and something real may be told no more; that shows:",
            f"  {self.command}",
        )


def propose(incident: Incident) -> Proposal | None:
    """By the configuration as it is; None where no threshold would have helped, or today's would not tell it."""
    rules = find_rules(os.environ, [])  # what is wrong in it is told by other commands
    plans, _ = configure(rules.sections)
    tenant = incident.tenant
    changes = amend(incident.evidence, plans.of(tenant.account, tenant.livemode).judges)
    if not changes:
        return None
    lines, settings = [], []
    for change in changes:
        place = _place(change, incident, plans)
        lines += [f" [{place}]", f"-{_now(change, place, rules)}", f"+{change.key} = {change.after!r}"]
        key = f"{place.removeprefix('detectors.')}.{change.key}"
        settings.append(f"--set {shlex.quote(f'{key}={change.after:g}')}")
    return Proposal(rules.file.path, tuple(lines), f"billingwatch backtest {' '.join(settings)}")


def _place(change: Amendment, incident: Incident, plans: Plans) -> str:
    """The section where the value in force stands, or would."""
    tenant = incident.tenant
    if isinstance(plans.of(tenant.account, tenant.livemode).judges[change.detector], Threshold):
        return f"rules.{change.detector}"
    general = plans.of("", tenant.livemode).judges.get(change.detector)
    if tenant.account in plans.accounts and getattr(general, change.key, None) != change.before:
        return f"accounts.{_bare(tenant.account)}.detectors.{change.detector}"
    return f"detectors.{change.detector}"


def _now(change: Amendment, place: str, rules: Rules) -> str:
    """The line as it is; in a comment where the file does not have it."""
    table: Any = rules.sections
    for name in [part.strip('"') for part in re.findall(r'"[^"]*"|[^.]+', place)]:
        table = table.get(name, {}) if isinstance(table, Mapping) else {}
    if change.key in table:
        return f"{change.key} = {json.dumps(table[change.key], ensure_ascii=False)}"
    return f"#{change.key} = {change.before!r}"


def _bare(name: str) -> str:
    return name if re.fullmatch("[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
