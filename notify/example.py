"""Made-up incidents that show what messages look like, and that templates of one's own are tried with. Pure."""

from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec import Struct

from billingwatch.model import Incident, Money, Severity, Tenant

SHOP = Tenant("acct_1NExample", True)
NIGHT = datetime(2026, 3, 2, 1, 40, tzinfo=UTC)  # the incidents open


class _Sort(Struct, frozen=True, kw_only=True):
    """What one incident has of its own: how much of what, over how long, and what is known of it."""

    metric: str
    scope: str = ""
    severity: Severity = "critical"
    began: int  # minutes before it opened
    window: int  # minutes
    observed: float
    expected: float
    told: float = 0.0  # the value before it got worse
    why: str
    at_risk: tuple[Money, ...] = ()
    customers: int = 0
    shared: tuple[tuple[str, str, int, int], ...] = ()  # dimension, value, count, of how many
    objects: tuple[str, ...] = ()
    changed: tuple[tuple[int, str, str, str], ...] = ()  # minutes before it began, what, name, how


_SORTS = {
    "card_testing": _Sort(
        metric="payment.failed",
        began=8,
        window=15,
        observed=214,
        expected=0.4,
        told=31,
        why="214 small payments failed in 15 min, normally 0-3 (expected 0.4); by normal variation once in 10 trillion",
        at_risk=(Money(21_400, "usd"),),
        customers=3,
        shared=(("decline code", "incorrect_cvc", 171, 214), ("card country", "BR", 160, 214)),
        objects=("ch_3NExampleTested1", "ch_3NExampleTested2", "ch_3NExampleTested3"),
    ),
    "failure_rate": _Sort(
        metric="payment.failed",
        scope="checkout",
        began=12,
        window=30,
        observed=0.41,
        expected=0.06,
        told=0.22,
        why="24 of 58 checkout payments failed in 30 min (41%); usually 6%; by normal variation once in 2 trillion",
        at_risk=(Money(66_700, "usd"), Money(14_500, "eur")),
        customers=19,
        shared=(("decline code", "do_not_honor", 20, 24), ("card brand", "visa", 22, 24)),
        objects=("ch_3NExampleFailed1", "ch_3NExampleFailed2", "ch_3NExampleFailed3"),
        changed=((12, "deploy", "v2.31", ""),),
    ),
    "duplicate_charges": _Sort(
        metric="payment.duplicate",
        severity="high",
        began=20,
        window=60,
        observed=17,
        expected=0.1,
        told=6,
        why="17 payments were taken twice in 1 h, normally 0-2 (expected 0.1); by normal variation once in 4 million",
        at_risk=(Money(498_000, "jpy"),),
        customers=16,
        shared=(("payment method", "card", 17, 17), ("API version", "2026-10-28.endive", 17, 17)),
        objects=("ch_3NExampleTwice1", "ch_3NExampleTwice2", "ch_3NExampleTwice3"),
        changed=((4, "deploy", "retry-checkout", ""),),
    ),
    "webhook_silence": _Sort(
        metric="webhook.silence",
        began=42,
        window=42,
        observed=0,
        expected=38,
        why="nothing from Stripe for 42 min, where 38 payments and other things were to be expected; "
        "by normal variation once in 30 trillion",
    ),
    "mrr_drop": _Sort(
        metric="mrr.changed",
        scope="eur",
        severity="high",
        began=300,
        window=1440,
        observed=412_000,
        expected=38_000,
        told=190_000,
        why="4,120.00 EUR of MRR lost in 24 h, normally 0.00 EUR to 980.00 EUR; by normal variation once in 7 million",
        at_risk=(Money(374_000, "eur"),),
        customers=84,
        shared=(("reason", "too_expensive", 61, 84), ("price", "price_1NExamplePro", 79, 84)),
        objects=("sub_1NExampleOne", "sub_1NExampleTwo", "sub_1NExampleThree"),
        changed=((95, "price", "price_1NExamplePro", "updated"),),
    ),
}


def _incident(id_: int, detector: str, sort: _Sort) -> Incident:
    onset = NIGHT - timedelta(minutes=sort.began)
    evidence: dict[str, Any] = {
        "contributors": [
            {"dimension": dimension, "value": value, "count": count, "total": total, "share": 0.0, "usual": None}
            for dimension, value, count, total in sort.shared
        ],
        "objects": [
            {"kind": "subscription" if each.startswith("sub_") else "payment", "id": each} for each in sort.objects
        ],
        "changes": [
            {"at": int((onset - timedelta(minutes=before)).timestamp()), "what": what, "name": name, "how": how}
            for before, what, name, how in sort.changed
        ],
    }
    return Incident(
        id=id_,
        tenant=SHOP,
        detector=detector,
        metric=sort.metric,
        scope=sort.scope,
        severity=sort.severity,
        opened_at=NIGHT,
        first_breach_at=onset,
        last_breach_at=NIGHT,
        observed=sort.observed,
        expected=sort.expected,
        limit=sort.expected,
        peak=sort.observed,
        told=sort.told,
        window=sort.window * 60,
        why=sort.why,
        at_risk=sort.at_risk,
        customers=sort.customers,
        evidence=evidence,
    )


# The five worst by detector: what one is woken for.
EXAMPLES = {name: _incident(number, name, sort) for number, (name, sort) in enumerate(_SORTS.items(), 1)}
