"""Webhooks that stopped coming: nothing where the account's own rhythm expects a good deal."""

from msgspec import Struct

from billingwatch.model import Severity, Verdict, utc
from detectors.facts import ANY
from detectors.series import DAY, HOUR, MINUTE, Reading, Series
from detectors.tail import silence
from detectors.words import amount_of, span


class Silence(Struct, frozen=True, forbid_unknown_fields=True):
    """Breached when the newest event is so old that the hours since should have brought `least` and more.

    What a silent hour should have brought is the mean of the same hour of day in the days before, whose variance
    is taken as `clumping` times Poisson's plus a share `wander` of the mean. While anything arrived within
    `settle` seconds, be it a backfill of old events, webhooks are not silent.
    """

    sensitivity: float = 6.5
    least: float = 4.0
    settle: int = 10 * MINUTE
    clumping: float = 1.5
    wander: float = 0.25
    days: int = 7
    severity: Severity = "critical"
    recovery: int = 5 * MINUTE  # seconds
    metric: str = ANY

    @property
    def metrics(self) -> tuple[str, ...]:
        return (ANY,)

    def __call__(self, reading: Reading, /) -> Verdict | None:
        """None for the first two days of an account: it has no rhythm yet."""
        since, start, end = (int(moment.timestamp()) for moment in (reading.since, reading.newest, reading.at))
        if start - since < 2 * DAY:
            return None
        mean = self._expected(reading.series, start, end, since)
        variance = self.clumping * mean + (self.wander * mean) ** 2
        quiet = max(0, end - start)
        surprising = mean > self.least and silence(mean, variance) >= self.sensitivity
        settled = end - int(reading.received.timestamp()) >= self.settle
        return Verdict(
            breached=surprising and settled,
            recovered=not surprising,
            observed=0,
            expected=round(mean, 1),
            limit=self.least,
            window=quiet,
            severity=self.severity,
            first_breach_at=reading.newest,
            why=f"no event from Stripe for {span(quiet)}, where {amount_of(mean)} were to be expected; "
            f"the last one is of {utc(start):%Y-%m-%d %H:%M} UTC",
        )

    def _expected(self, series: Series, start: int, end: int, since: int) -> float:
        """Business objects expected in [start, end), by the same hours of the days before the silence."""
        total = 0.0
        for hour in range(start // HOUR * HOUR, end, HOUR):
            share = (min(end, hour + HOUR) - max(start, hour)) / HOUR
            past = [hour - day * DAY for day in range(1, 2 * self.days + 1)]
            past = [each for each in past if since <= each and each + HOUR <= start][: self.days]
            if past:
                total += share * sum(series.window(ANY, each, each + HOUR).count for each in past) / len(past)
        return total
