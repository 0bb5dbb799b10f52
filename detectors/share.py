"""Payments that fail more often than usual: first attempts only, since retries repeat an old failure."""

import numpy as np
from msgspec import Struct

from billingwatch.model import Severity
from detectors.calendar import Bools, Floats
from detectors.excess import STILL
from detectors.signal import Side, Signal, distant, needed, signals, spans, stronger
from detectors.strip import Rate, Strip, View

HALF_LIFE = 14.0  # days
DAYS = 28
PRIOR_ATTEMPTS = 20.0
TAU_FLOOR, TAU_PRIOR = 0.12, 0.25
PRIOR_BLOCKS = 4.0  # blocks' worth of well-measured wandering that the prior of tau is worth
STRATA = {"checkout": 0.06, "renewal": 0.08}  # with the rate before anything was seen


class FailureShare(Struct, frozen=True, forbid_unknown_fields=True):
    """A signal when more first attempts fail than the account's rates explain: of checkouts, renewals or both."""

    name: str = "failure_rate"
    windows: tuple[int, ...] = (1, 3, 6, 12, 24, 36, 72, 144, 288, 864)  # bins
    factor: float = 1.5
    points: float = 0.015
    least: float = 4.0
    shift: float = 0.2
    sensitivity: float = 7.2
    severity: Severity = "medium"

    @property
    def side(self) -> Side:
        return "up"

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The signals by tick."""
        if len(ends) == 1 and self._calm(strip, float(ends[0]), floor):
            return {}
        view = View(ends, self.windows, floor)
        parts = [self._part(strip, view, stratum) for stratum in STRATA]
        limits = needed(self.sensitivity, self.shift, view.windows)
        found: dict[int, Signal] = {}
        both = tuple(sum(column) for column in zip(*parts, strict=True))
        for scope, part in zip((*STRATA, ""), (*parts, both), strict=True):
            failed, tried, mean, recent, recent_mean, chance, wander = part
            gate: Bools = (failed >= self.factor * mean) & (failed - mean >= self.least)
            gate &= (failed >= mean + self.points * tried) & (recent > STILL * recent_mean)
            if gate.any():
                variance = chance + wander**2
                here = signals(self.name, "up", view, failed, mean, variance, limits, gate, scope=scope, out_of=tried)
                found = stronger(found, here)
        return found

    def _calm(self, strip: Strip, end: float, floor: float) -> bool:
        """Whether no window of any stratum, nor of both, can be a signal."""
        starts, tops = zip(*spans(end, self.windows, floor), strict=True)
        top, first = tops[0], list(starts)
        parts = []
        for stratum in STRATA:
            failure, attempt = strip.lines[f"failure.{stratum}"].count, strip.lines[f"attempt.{stratum}"].count
            failed, tried = (failure[top] - failure[first]).tolist(), (attempt[top] - attempt[first]).tolist()
            parts.append((strip.rates[stratum], failed, tried))
        for window in range(len(first)):
            sums = (0.0, 0.0, 0.0, 0.0)
            for known, failed, tried in parts:
                mean = tried[window] * known.share
                part = (failed[window], mean, mean * (1 - known.share), mean * known.tau)
                if self._may(*part):
                    return False
                sums = (sums[0] + part[0], sums[1] + part[1], sums[2] + part[2], sums[3] + part[3])
            if self._may(*sums):
                return False
        return True

    def _may(self, failed: float, mean: float, chance: float, wander: float) -> bool:
        above = failed - mean
        return failed >= self.factor * mean and above >= self.least and distant(above, chance + wander**2, "up")

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether the newest `bins` are back to normal in every stratum, by tick."""
        view = View(ends, (bins,))
        found = np.ones(len(ends), np.bool_)
        for stratum in STRATA:
            failed, _, mean, _, _, chance, wander = self._part(strip, view, stratum)
            found &= ((failed < STILL * mean) | (failed <= mean + 2 * np.sqrt(chance + wander**2)))[0]
        return found

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Failures and expected ones by bin."""
        failed, mean = np.zeros(end - start), np.zeros(end - start)
        for stratum in STRATA:
            failed = failed + strip.lines[f"failure.{stratum}"].counts[start:end]
            mean = mean + strip.lines[f"attempt.{stratum}"].counts[start:end] * strip.rates[stratum].share
        return failed, mean

    def _part(self, strip: Strip, view: View, stratum: str) -> tuple[Floats, ...]:
        """Failures, attempts and usual failures, failures and usual ones of late, and how these vary: a variance by
        chance, a deviation because the rate wanders. Both strata's add up: what makes rates wander, a bank that
        declines more, concerns both.
        """
        rate = strip.rates[stratum]
        failure, attempt = strip.lines[f"failure.{stratum}"], strip.lines[f"attempt.{stratum}"]
        tried = view.count(attempt)
        mean = tried * rate.share
        recent_mean = view.recent(attempt) * rate.share
        chance, wander = mean * (1 - rate.share), rate.tau * mean
        return view.count(failure), tried, mean, view.recent(failure), recent_mean, chance, wander


def rate(failed: Floats, tried: Floats, prior: float, *, worth: float = PRIOR_ATTEMPTS, blocks: int = 4) -> Rate:
    """The share that fails, from days of hours [days, 24], the newest day last; hours left out hold zeros.

    Newer days weigh more; a day's failures are clipped to what the rate before explains plus three standard
    deviations. Its wandering is measured on blocks of six hours.
    """
    failed, tried = failed[-DAYS:], tried[-DAYS:]
    weight = 2.0 ** (-np.arange(len(failed), 0, -1) / HALF_LIFE)
    k, n = failed.sum(1), tried.sum(1)
    share, tau = prior, TAU_PRIOR
    for _ in range(2):
        mean = n * share
        kept = np.minimum(k, mean + 3 * np.sqrt(mean * (1 - share) + (tau * mean) ** 2 + 0.25))
        share = float((prior * worth + (weight * kept).sum()) / (worth + (weight * n).sum()))
        tau = _wander(failed.reshape(-1, 24 // blocks).sum(1), tried.reshape(-1, 24 // blocks).sum(1), share)
    return Rate(share, tau, float(n.sum()))


def _wander(failed: Floats, tried: Floats, share: float) -> float:
    mean = tried * share
    some = mean > 0
    failed, mean = failed[some], mean[some]
    known = mean * (1 - share)
    v = known + (TAU_PRIOR * mean) ** 2
    weight = mean**4 / (2 * v**2)
    excess = (np.minimum((failed - mean) ** 2, 16 * v) - known) / np.maximum(mean, 1e-9) ** 2
    prior = PRIOR_BLOCKS / (2 * TAU_PRIOR**4)
    tau2 = (TAU_PRIOR**2 * prior + float((weight * excess).sum())) / (prior + float(weight.sum()))
    return float(max(TAU_FLOOR, max(tau2, 0.0) ** 0.5))
