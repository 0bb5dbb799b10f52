"""An incident to tell of, as messages need it."""

import re
from datetime import UTC, datetime
from typing import Any

from billingwatch.model import Incident, Money, Tenant

AT = datetime(2026, 3, 2, 16, 10, tzinfo=UTC)
CARD_LIKE = re.compile(r"\d{13}")


def incident(**changes: Any) -> Incident:
    fields: dict[str, Any] = {
        "tenant": Tenant("default", True),
        "detector": "failure_rate",
        "metric": "payment.failed",
        "severity": "critical",
        "opened_at": datetime(2026, 3, 2, 14, 8, tzinfo=UTC),
        "first_breach_at": datetime(2026, 3, 2, 14, 5, tzinfo=UTC),
        "last_breach_at": AT,
        "observed": 0.7069,
        "expected": 0.06,
        "limit": 0.19,
        "peak": 0.7412,
        "window": 900,
        "why": "41 of 58 card payments failed in 15 min; usually 6 %",
        "at_risk": (Money(182300, "usd"),),
        "customers": 31,
    }
    return Incident(**(fields | changes))
