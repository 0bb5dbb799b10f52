"""What is judged of each account, as the TOML's sections want it: by which detectors and rules, in whose days.

Nothing is refused: a mistake is told by its place, and what was shipped stands in its stead.
"""

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from msgspec import Struct
from msgspec.structs import asdict, replace

from billingwatch.model import DRILL, SEVERITIES
from detectors import setting
from detectors.calendar import Calendar, public_holidays
from detectors.catalogue import DETECTORS, LINES, SILENCE, Source
from detectors.filter import Filter
from detectors.forecast import BACK
from detectors.judgement import Detector
from detectors.pulse import SETTLE, WebhookSilence
from detectors.rule import Rule, read_rule
from detectors.setting import Reader, Wrong, number, spelled

Sections = Mapping[str, Any]  # the TOML's `detectors`, `rules`, `accounts` and dials, as they are
T = TypeVar("T", Detector, WebhookSilence)

SHIPPED: dict[str, Detector | WebhookSilence] = {**DETECTORS, SILENCE.name: SILENCE}
LONGEST = 3 * setting.DAY  # bins: no baseline's variance was measured on longer windows
DIALS: dict[str, Reader] = {
    "sensitivity": setting.sensitivity,
    "time_zone": setting.zone,
    "holidays": setting.country,
}
# A detector's thresholds. Fields of other names say what it is about.
THRESHOLDS: dict[str, Reader] = {
    "sensitivity": setting.sensitivity,
    "windows": setting.spans(LONGEST),
    "factor": number(),
    "points": number(0, 1),
    "least": number(),
    "shift": number(-10, 10),
    "clusters": number(1, 12),
    "records": number(0, 10),
    "beyond": number(0, 100),
    "score": number(1, 50),
    "usual": number(0, 1),
    "settle": number(0, 86_400),  # seconds
    "days": number(0, 56),
    "severity": setting.choice(*SEVERITIES),
}


class Plan(Struct, frozen=True):
    """What is judged of one account: by which detectors, on which lines, in whose days."""

    detectors: dict[str, Detector]  # those that are enabled, threshold rules included
    silence: WebhookSilence | None
    lines: dict[str, Source]  # a line per threshold rule included
    calendar: Calendar
    back: int  # hours of 5-minute counts before the newest one

    @property
    def settle(self) -> int:
        """Seconds without an arrival after which an import is over."""
        return self.silence.settle if self.silence else SETTLE

    @property
    def judges(self) -> dict[str, Detector | WebhookSilence]:
        """Everyone who may open an incident."""
        return {**self.detectors, **({self.silence.name: self.silence} if self.silence else {})}


class Plans(Struct, frozen=True):
    """The plan of every account. `filters` are those of rules, by which facts are counted as metrics of their own."""

    by_account: dict[tuple[str, bool], Plan]  # and by livemode; "" stands for every account that is not named
    filters: tuple[Filter, ...] = ()

    def of(self, account: str, livemode: bool = True) -> Plan:
        """The plan that holds for the account. One that a drill made up keeps no public holidays: on them little is
        expected, so that nothing of what the drill leaves out would be missed.
        """
        plan = self.by_account.get((account, livemode)) or self.by_account["", livemode]
        if account.startswith(DRILL) and plan.calendar.holidays:
            return replace(plan, calendar=replace(plan.calendar, holidays=frozenset()))
        return plan

    @property
    def accounts(self) -> list[str]:
        """The accounts that the configuration names."""
        return sorted({account for account, _ in self.by_account if account})


class _Scope(Struct, frozen=True):
    """What the file says of all accounts, or of one: the dials, and each detector's settings."""

    dials: dict[str, Any]
    detectors: dict[str, dict[str, Any]]


def configure(sections: Sections) -> tuple[Plans, Wrong]:
    """The plans as these sections change what is shipped, and what is wrong in them.

    Where a key is wrong the shipped value stands; a rule with a mistake is left out. What is said of an account
    wins over what is said of all.
    """
    wrong: Wrong = {}
    general = _scope({key: sections[key] for key in sections if key not in ("rules", "accounts")}, "", wrong)
    rules = _rules(sections.get("rules", {}), wrong)
    scopes = {"": [general]}
    for account, table in setting.tables(sections.get("accounts", {}), "accounts", wrong).items():
        scopes[account] = [general, _scope(table, f"accounts.{account}", wrong)]
    for rule in rules:
        scopes.setdefault(rule.account, [general])
    plans = {
        (account, livemode): _plan(found, [rule for rule in rules if rule.applies(account, livemode)])
        for account, found in scopes.items()
        for livemode in (True, False)
    }
    return Plans(plans, tuple(rule.filter for rule in rules if rule.filter)), wrong


def settings(detector: Detector | WebhookSilence) -> dict[str, Any]:
    """A detector's thresholds as the TOML writes them."""
    found = {key: getattr(detector, key) for key in THRESHOLDS if hasattr(detector, key)}
    if "windows" in found:
        found["windows"] = [spelled(window) for window in found["windows"]]
    return found


def _scope(table: Mapping[str, Any], place: str, wrong: Wrong) -> _Scope:
    """Of `detectors` under the place and the dials beside it."""
    dials = setting.read({key: table[key] for key in table if key != "detectors"}, place, DIALS, wrong)
    below = f"{place}.detectors" if place else "detectors"
    detectors = {}
    for name, section in setting.tables(table.get("detectors", {}), below, wrong).items():
        if name in SHIPPED:
            detectors[name] = setting.read(section, f"{below}.{name}", _readers(SHIPPED[name]), wrong)
        else:
            wrong[f"{below}.{name}"] = f"no such detector ({setting.meant(name, SHIPPED) or setting.listed(SHIPPED)})"
    return _Scope(dials, detectors)


def _readers(shipped: Detector | WebhookSilence) -> dict[str, Reader]:
    """What may be said of a detector. What it is about is no matter of taste."""
    found: dict[str, Reader] = dict.fromkeys(asdict(cast(Any, shipped)), _fixed)
    found |= {"enabled": setting.choice(True, False)}
    found |= {key: reader for key, reader in THRESHOLDS.items() if hasattr(shipped, key)}
    if "factor" in found:
        # No factor turns an excess into a drop, nor the other way round.
        found["factor"] = number(0, 1) if settings(shipped)["factor"] < 1 else number(1, 1000)
    return found


def _fixed(value: Any) -> Any:
    raise ValueError("cannot be changed: it is what the detector is about")


def _rules(value: Any, wrong: Wrong) -> list[Rule]:
    rules = []
    for name, table in setting.tables(value, "rules", wrong).items():
        if name in SHIPPED:
            wrong[f"rules.{name}"] = f"is the name of a detector (its thresholds stand in [detectors.{name}])"
            continue
        rule = read_rule(name, table, wrong)
        if rule:
            rules.append(rule)
    return rules


def _plan(scopes: list[_Scope], rules: list[Rule]) -> Plan:
    """The later a scope, the more it counts."""
    dials = {key: value for scope in scopes for key, value in scope.dials.items()}
    country = dials.get("holidays", "")
    calendar = Calendar(dials.get("time_zone", "UTC"), public_holidays(country) if country else frozenset(), country)
    detectors = {name: found for name, each in DETECTORS.items() if (found := _set(name, each, scopes))}
    detectors |= {rule.threshold.name: rule.threshold for rule in rules}
    hours = [-(-(rule.threshold.window + rule.threshold.past) // setting.HOUR) for rule in rules]
    return Plan(
        detectors=detectors,
        silence=_set(SILENCE.name, SILENCE, scopes),
        lines=LINES | {rule.threshold.line: rule.source for rule in rules},
        calendar=calendar,
        back=max([BACK, *hours]),
    )


def _set(name: str, shipped: T, scopes: list[_Scope]) -> T | None:
    """The detector with its settings; None where it is switched off."""
    found: dict[str, Any] = {}
    for scope in scopes:
        if "sensitivity" in scope.dials and "sensitivity" in settings(shipped):
            found["sensitivity"] = scope.dials["sensitivity"]
        found |= scope.detectors.get(name, {})
    if not found.pop("enabled", True):
        return None
    changed: T = replace(cast(Any, shipped), **found)
    return changed
