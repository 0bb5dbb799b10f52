"""Payments that fail more often than usual: first attempts only, since retries repeat an old failure."""

from math import log10

from msgspec import Struct

from billingwatch.model import Severity, Verdict, Window, utc
from detectors.facts import CHECKOUT, PAYMENT_FAILED, PAYMENT_SUCCEEDED, RENEWAL
from detectors.series import BUCKET, DAY, HOUR, MINUTE, Reading, Series, grid
from detectors.tail import surprise
from detectors.words import last

LOOKBACK = 7 * DAY
FIRST = (CHECKOUT, RENEWAL)


class FailureRate(Struct, frozen=True, forbid_unknown_fields=True):
    """Breached when more first attempts fail than the account's own rate explains, in any of the windows.

    The expected failures are attempts x rate, with a prior worth `prior_attempts`; their variance allows the
    rate itself to wander by `wander`. `sensitivity` is -log10 of the probability at which a 5-minute window
    breaches; longer windows, which are looked at as often but change less, need a little less.
    """

    sensitivity: float = 7.1
    windows: tuple[int, ...] = (15 * MINUTE, 30 * MINUTE, HOUR, 3 * HOUR, 6 * HOUR, 24 * HOUR)  # seconds
    factor: float = 1.5
    points: float = 0.015
    least: float = 4.0  # failures beyond the expected ones
    prior: float = 0.06
    prior_attempts: float = 20.0
    wander: float = 0.25
    severity: Severity = "high"
    recovery: int = 30 * MINUTE  # seconds
    metric: str = PAYMENT_FAILED

    @property
    def metrics(self) -> tuple[str, ...]:
        return (PAYMENT_FAILED, PAYMENT_SUCCEEDED)

    def __call__(self, reading: Reading, /) -> Verdict | None:
        """Works from the first day on the prior; None until something was attempted."""
        end = grid(reading.at)
        verdicts = [self._judge(reading.series, end, window) for window in self.windows]
        breaches = [verdict for verdict in verdicts if verdict and verdict.breached]
        if breaches:
            return max(breaches, key=lambda verdict: verdict.observed - verdict.limit)
        return next((verdict for verdict in verdicts if verdict), None)

    def _judge(self, series: Series, end: int, window: int) -> Verdict | None:
        start = end - window
        failed, attempts = _failures(series, start, end)
        if not attempts:
            return None
        past_failed, past_attempts = _failures(series, start - LOOKBACK, start)
        rate = (self.prior * self.prior_attempts + past_failed.count) / (self.prior_attempts + past_attempts)
        mean = attempts * rate
        variance = mean * (1 - rate) + (self.wander * mean) ** 2
        needed = self.sensitivity - 0.8 * log10(window / BUCKET)
        observed = failed.count / attempts
        surprising = surprise(failed.count, mean, max(variance, mean)) >= needed
        large = failed.count >= self.factor * mean and observed >= rate + self.points
        enough = failed.count - mean >= self.least
        breached = surprising and large and enough and self._still(series, end, window, rate)
        return Verdict(
            breached=breached,
            recovered=not large or failed.count < 1.3 * mean,
            observed=round(observed, 4),
            expected=round(rate, 4),
            limit=round(max(self.factor * rate, rate + self.points, (mean + self.least) / attempts), 4),
            window=window,
            severity="critical" if observed >= 0.5 or observed >= 5 * rate else self.severity,
            first_breach_at=utc(series.onset(PAYMENT_FAILED, start, end, mean * BUCKET / window, FIRST)),
            at_risk=series.money(self.metric, start, end, FIRST),
            why=f"{failed.count} of {attempts} payments failed in {last(window)} ({observed:.0%}); usually {rate:.0%}",
        )

    def _still(self, series: Series, end: int, window: int, rate: float) -> bool:
        """The newest sixth of the window, 15 minutes at least, must show it too: nothing opens after it ended."""
        failed, attempts = _failures(series, end - max(15 * MINUTE, window // 6 // BUCKET * BUCKET), end)
        return failed.count > 1.3 * attempts * rate


def _failures(series: Series, start: int, end: int) -> tuple[Window, int]:
    failed = series.window(PAYMENT_FAILED, start, end, FIRST)
    return failed, failed.count + series.window(PAYMENT_SUCCEEDED, start, end, FIRST).count
