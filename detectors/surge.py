"""The article's rule: the last hour against the hourly average of the seven days before it."""

from math import floor

from msgspec import Struct

from billingwatch.model import Severity, Verdict, utc
from detectors.series import BUCKET, DAY, HOUR, MINUTE, Reading, grid
from detectors.words import amount_of, last

LOOKBACK = 7 * DAY


class Surge(Struct, frozen=True, forbid_unknown_fields=True):
    """The last hour may hold at most `factor` times the 7-day hourly average, plus `plus`, and at least `least`."""

    metric: str
    noun: str  # "refunds"
    factor: float = 3.0
    plus: float = 1.0
    least: int = 5
    severity: Severity = "high"
    recovery: int = 30 * MINUTE  # seconds

    @property
    def metrics(self) -> tuple[str, ...]:
        return (self.metric,)

    def __call__(self, reading: Reading, /) -> Verdict | None:
        """None for the first day of an account's history: an average of less says nothing."""
        series, end = reading.series, grid(reading.at)
        start = end - HOUR
        known = min(LOOKBACK, start - int(reading.since.timestamp()))
        if known < DAY:
            return None
        now = series.window(self.metric, start, end)
        past = series.window(self.metric, start - LOOKBACK, start)
        average = past.count / (known / HOUR)
        limit = max(self.least - 1, self.factor * average + self.plus)
        return Verdict(
            breached=now.count > limit,
            recovered=now.count <= max(1, limit / 2),
            observed=now.count,
            expected=round(average, 2),
            limit=limit,
            window=HOUR,
            severity="critical" if now.count > 3 * limit else self.severity,
            first_breach_at=utc(series.onset(self.metric, start, end, average * BUCKET / HOUR)),
            at_risk=series.money(self.metric, start, end),
            why=f"{now.count} {self.noun} in {last(HOUR)}; usually {amount_of(average)} an hour, "
            f"and more than {floor(limit)} is unusual",
        )
