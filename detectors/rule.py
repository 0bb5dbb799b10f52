"""A threshold rule of the TOML, `[rules.NAME]`: which metric may be asked for what, and what the section means.

A rule with a mistake is no rule: what is left of it could say something else than was meant.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from billingwatch.model import SEVERITIES
from detectors import facts
from detectors.catalogue import Source
from detectors.filter import RULE, Filter
from detectors.setting import (
    DAY,
    HOUR,
    Reader,
    Wrong,
    choice,
    meant,
    number,
    one_of,
    read,
    shown,
    span,
    spelled,
    text,
    texts,
)
from detectors.threshold import Threshold

WINDOW, PAST = HOUR, 7 * DAY  # bins
FARTHEST = 14 * DAY  # bins that window and past may cover together: 5-minute counts are read that far back


class Metric(Struct, frozen=True):
    """What a rule may ask of a metric: its strata, and what its facts tell besides that something happened."""

    strata: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()


class Rule(Struct, frozen=True):
    """The detector, the line that it judges, how facts are counted into that where rollups do not tell, and where
    it applies: for `account` "" everywhere.
    """

    threshold: Threshold
    source: Source
    filter: Filter | None
    account: str
    livemode: bool | Literal["both"]

    def applies(self, account: str, livemode: bool) -> bool:
        return self.account in ("", account) and self.livemode in ("both", livemode)


_ATTEMPTS = (facts.CHECKOUT, facts.RENEWAL, facts.RETRY)
METRICS = {
    facts.PAYMENT_SUCCEEDED: Metric(_ATTEMPTS, ("currency", "brand", "country", "price")),
    facts.PAYMENT_FAILED: Metric(_ATTEMPTS, ("currency", "brand", "country", "price")),
    facts.SMALL_FAILED: Metric(_ATTEMPTS, ("currency", "brand", "country", "price")),
    facts.DUPLICATE: Metric((), ("currency",)),
    facts.ACTION_REQUIRED: Metric((), ("currency",)),
    facts.REFUND: Metric((), ("currency", "brand", "country")),
    facts.DISPUTE: Metric((), ("currency", "brand")),
    facts.INQUIRY: Metric((), ("currency", "brand")),
    facts.FRAUD_WARNING: Metric(),
    facts.SUBSCRIBED: Metric((), ("price",)),
    facts.CANCELED: Metric((facts.VOLUNTARY, facts.INVOLUNTARY), ("currency", "price")),
    facts.TRIAL_CONVERTED: Metric((), ("price",)),
    facts.TRIAL_LAPSED: Metric((), ("price",)),
    facts.MRR: Metric((facts.GAINED, facts.LOST), ("currency", "price")),
    facts.DUE: Metric((), ("currency", "price")),
    facts.CHECKOUT_COMPLETED: Metric((), ("currency",)),
    facts.CHECKOUT_EXPIRED: Metric((), ("currency",)),
    facts.PAYOUT_FAILED: Metric((), ("currency",)),
    facts.CREDIT_NOTE: Metric((), ("currency",)),
    facts.ANY: Metric((facts.PEOPLE, facts.CLOCKWORK)),
    facts.ARRIVED: Metric(),
    facts.LATE: Metric(),
}

# The limit of `compare = "below"` where none is named: three times the average would always hold.
BELOW: dict[str, Any] = {"factor": 0.5, "plus": 0.0}

KEYS: dict[str, Reader] = {
    "enabled": choice(True, False),
    "metric": one_of(METRICS, "metric"),
    "stratum": texts,
    "window": span(FARTHEST),
    "factor": number(),
    "plus": number(),
    "past": span(FARTHEST),
    "compare": choice("above", "below"),
    "least": number(),
    "amounts": choice(True, False),
    "severity": choice(*SEVERITIES),
    "account": text(r"[^:\s]{1,255}", "acct_1ABC"),
    "currency": text("[A-Za-z]{3}", "usd"),
    "brand": text("[A-Za-z_]{2,20}", "visa"),
    "country": text("[A-Za-z]{2}", "DE"),
    "price": text(r"[^:\s]{1,255}", "price_1ABC"),
    "livemode": choice(True, False, "both"),
}
DIMENSIONS = ("brand", "country", "price")  # that rollups do not tell apart


def read_rule(name: str, table: Mapping[str, Any], wrong: Wrong) -> Rule | None:
    """The rule of this section; None where it is switched off or wrong."""
    place, before = f"rules.{name}", len(wrong)
    found = read(table, place, KEYS, wrong)
    if not re.fullmatch("[A-Za-z0-9_-]{1,60}", name):
        wrong[place] = 'no name for a rule (letters, digits, "_" and "-", 60 at most)'
    elif "metric" not in table:
        wrong[place] = f'names no metric (as metric = "{facts.REFUND}")'
    wrong.update({f"{place}.{key}": fault for key, fault in _contradictions(found)})
    if len(wrong) > before or not found.get("enabled", True):
        return None
    changed = (BELOW if found.get("compare") == "below" else {}) | found
    threshold = Threshold(name, RULE + name)
    threshold = replace(threshold, **{key: changed[key] for key in Threshold.__struct_fields__ if key in changed})
    metric, strata = found["metric"], found.get("stratum", ())
    currency, brand, country, price = (found.get(key, "") for key in ("currency", *DIMENSIONS))
    currency, brand, country = currency.lower(), brand.lower(), country.upper()  # as Stripe writes them
    amounts = found.get("amounts", False)
    threshold = replace(threshold, currency=currency if amounts else "")
    account, livemode = found.get("account", ""), found.get("livemode", "both")
    if brand or country or price:
        counted = Filter(name, metric, strata, currency, brand, country, price)
        return Rule(threshold, Source((counted.counted,), amounts=amounts), counted, account, livemode)
    return Rule(threshold, Source((metric,), strata, currency, amounts), None, account, livemode)


def _contradictions(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys that do not go with others, and why: what could never hold, or always would."""
    about = METRICS.get(found.get("metric", ""))
    if about:
        for stratum in found.get("stratum", ()):
            if stratum not in about.strata:
                known = f"there are {', '.join(about.strata)}" if about.strata else "it has none"
                hint = meant(stratum, about.strata) or known
                yield "stratum", f"{found['metric']} has no stratum {shown(stratum)} ({hint})"
        for key in ("currency", *DIMENSIONS):
            if found.get(key) and key not in about.tells:
                known = ", ".join(about.tells) or "nothing of the kind"
                yield key, f"events of {found['metric']} do not tell it (they tell {known})"
    if found.get("amounts") and not found.get("currency"):
        yield "amounts", 'needs a currency: two are never added (as currency = "usd")'
    window, past = found.get("window", WINDOW), found.get("past", PAST)
    if past < window:
        yield "past", f"is shorter than the window ({spelled(window)} at least)"
    elif window + past > FARTHEST:
        yield "past", f"reaches too far back (with the window {spelled(FARTHEST)} at most)"
    if found.get("compare") == "below" and found.get("factor", 0) >= 1:
        yield "factor", 'is always below it (with compare = "below" less than 1, as 0.5)'
