"""Made-up accounts as 5-minute counts: rhythm, noise and planted incidents with their evidence. No events, so
thousands of account-weeks take minutes. Seeded; nothing here imports a detector.
"""

import math
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DAY = 288  # bins
WARM, TEST = 42, 14  # days
BIN = 300  # seconds
ENOUGH = 12.0  # nats: a test that may be wrong once in 80 weeks needs them
NOISE = {"refund": 0.5, "dispute": 0.1}  # squared relative noise of an hour, where it is not the usual one
USUAL_NOISE = 0.01
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Sydney", "America/Los_Angeles")
TIERS = (5, 50, 500, 5000, 50_000)  # charges a day

HOURS = {
    "office": "1 1 1 1 1 2 4 8 14 18 19 18 15 17 19 18 16 12 8 5 4 3 2 2",
    "evening": "6 4 3 2 2 3 5 7 9 11 12 12 13 12 12 12 13 14 16 18 19 18 14 10",
    "global": "8 7 7 7 8 8 9 10 10 11 11 11 11 11 11 11 11 11 10 10 10 9 9 8",
    "lunch": "1 1 1 1 1 1 2 4 6 8 14 26 30 20 9 7 10 20 30 26 14 6 3 1",
}
WEEKS = {
    "office": (1.25, 1.3, 1.28, 1.22, 1.05, 0.45, 0.45),
    "evening": (0.95, 0.93, 0.95, 0.98, 1.04, 1.1, 1.05),
    "global": (1.03, 1.03, 1.02, 1.01, 1.0, 0.95, 0.96),
    "lunch": (0.8, 0.85, 0.9, 1.0, 1.2, 1.3, 0.95),
}
KINDS = (
    *("failures x2", "failures x4", "failures x10", "card testing", "refunds", "cancels", "disputes"),
    *("drop -60%", "drop -100%", "silence", "lag", "duplicates"),
)


class Label(Struct, frozen=True):
    """A planted incident in bins since the stream's start.

    `evidence` in nats, as an oracle would weigh it who knows the true rates but not the noise to come; `oracle`
    is how many minutes it waits for 12 nats, 0 where they never come.
    """

    kind: str
    start: int
    end: int
    evidence: float
    oracle: int = 0
    release: int = 0  # of a silence: when the backfill comes; 0 where it never does


class Stream(Struct):
    """One account: counts by line, and what was planted into the test days."""

    seed: int
    tier: int
    zone: str
    start: int  # epoch seconds, a local midnight
    holidays: frozenset[int]  # local days since 1970-01-01 that the calendar knows
    lines: dict[str, Floats]
    labels: list[Label]


def stream(seed: int, tier: int, incidents: bool = True) -> Stream:  # noqa: PLR0915 - one account, from top to end
    """The account of this seed at about `tier` charges a day."""
    rng = np.random.default_rng([seed, tier])
    zone = str(rng.choice(ZONES))
    start = _midnight(rng, zone)
    days = WARM + TEST
    size = days * DAY
    local = _local(start, zone, size)  # local bins: // 288 the local day since 1970, % 288 the bin of that day
    kind = str(rng.choice(list(HOURS)))
    volume = tier * rng.lognormal(0, 0.3)
    rhythm, holidays = _rhythm(rng, kind, local)
    renewal_share = float(rng.choice([0.0, 0.1, 0.3, 0.6]))
    phi = 1 + float(rng.exponential(0.25))
    base = volume / DAY
    truth: dict[str, Floats] = {"checkout": base * (1 - renewal_share) * rhythm}
    truth["renewal"] = base * renewal_share * _renewals(rng, local)
    wobble = _noise(rng, size, 72, 0.8, rng.uniform(0.05, 0.2)) * _noise(rng, size, DAY, 0.4, 0.08)
    fails = {"checkout": rng.uniform(0.02, 0.12), "renewal": rng.uniform(0.04, 0.12)}
    share = {name: np.minimum(0.95, rate * wobble) for name, rate in fails.items()}
    daily = volume * rng.uniform(0.01, 0.08)
    truth["refund"] = daily / DAY * _sessions(rng, local, daily)
    truth["dispute"] = volume * rng.uniform(0.001, 0.006) / DAY * _banking(start, size)
    day = np.unique(local // DAY, return_inverse=True)[1]
    first = np.array([_month_day(int(d)) == 1 for d in np.unique(local // DAY)])[day]
    calm = np.tile(rhythm.reshape(-1, 7 * DAY).mean(0), days // 7) ** 0.6 * _noise(rng, size, 12, 0.7, 0.1)
    truth["cancel"] = volume * rng.uniform(0.01, 0.04) / DAY * calm * _noise(rng, size, DAY, 0.4, 0.08)
    truth["cancel"] = truth["cancel"] * np.where(first, 2.0, 1.0)
    small = rng.uniform(0.01, 0.05)
    truth["duplicate"] = volume * rng.uniform(0.0001, 0.001) / DAY * rhythm
    plan = _plan(rng, size) if incidents else []
    labels: list[Label] = []
    extra = {name: np.zeros(size) for name in (*truth, "small", "card")}
    factor = {name: np.ones(size) for name in truth}
    lateness = np.full(size, 0.001)
    for what, begin, end in plan:
        where = slice(begin, end)
        by_bin = np.cumsum(_plant(rng, what, where, truth, share, small, extra, factor, lateness, base, phi))
        found = float(by_bin[-1])
        oracle = int(np.argmax(by_bin >= ENOUGH) + 1) * 5 if found >= ENOUGH else 0
        release = end + 1 if what == "silence" and rng.random() < 0.7 else 0
        labels.append(Label(what, begin, end, found, oracle, release))
    draw = {name: _counts(rng, truth[name] * factor[name] + extra[name], phi) for name in truth}
    card, small_extra = (_counts(rng, extra[name], 1.0) for name in ("card", "small"))
    lines: dict[str, Floats] = {}
    for name in ("checkout", "renewal"):
        lines[f"attempt.{name}"] = draw[name].copy()
        lines[f"failure.{name}"] = rng.binomial(draw[name].astype(np.int64), share[name]).astype(float)
    lines["small"] = rng.binomial(lines["failure.checkout"].astype(np.int64), small) + small_extra
    lines["attempt.checkout"] += small_extra + card
    lines["failure.checkout"] += small_extra
    failed = lines["failure.checkout"] + lines["failure.renewal"]
    retried = _later(rng, rng.binomial(failed.astype(np.int64), 0.35).astype(float), 12)
    lines["failure"] = failed + rng.binomial(retried.astype(np.int64), 0.65)
    lines["success"] = lines["attempt.checkout"] + lines["attempt.renewal"] - failed
    for name in ("refund", "dispute", "cancel", "duplicate"):
        lines[name] = draw[name]
    expired = rng.binomial(draw["checkout"].astype(np.int64), 0.2)
    lines["any"] = lines["attempt.checkout"] + lines["attempt.renewal"] + expired + draw["refund"]
    lines["any"] = lines["any"] + draw["dispute"] + draw["cancel"]
    lines["arrived"] = lines["any"].copy()
    lines["late"] = rng.binomial(lines["any"].astype(np.int64), lateness).astype(float)
    for label in labels:
        if label.kind == "silence":
            lines["arrived"][label.start : label.end] = lines["late"][label.start : label.end] = 0.0
            burst = lines["any"][label.start : label.end].sum()
            if label.release and label.release < size:
                lines["arrived"][label.release] += burst
                lines["late"][label.release] += burst
    return Stream(seed, tier, zone, start, holidays, lines, labels)


def visible(made: Stream, at: int) -> dict[str, Floats]:
    """The counts as known at bin `at`: a silence's events only after their release."""
    hidden = [each for each in made.labels if each.kind == "silence" and not (each.release and at >= each.release)]
    hidden = [each for each in hidden if at > each.start]
    if not hidden:
        return made.lines
    mask = np.ones(len(made.lines["any"]))
    for each in hidden:
        mask[each.start : each.end] = 0.0
    return {name: rows if name in ("arrived", "late") else rows * mask for name, rows in made.lines.items()}


def _plan(rng: np.random.Generator, size: int) -> list[tuple[str, int, int]]:
    """A few incidents, apart from each other by half a day at least."""
    taken: list[tuple[str, int, int]] = []
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.2, 0.3, 0.3, 0.2]))):
        what = str(rng.choice(KINDS))
        low, high = {"card testing": (0.25, 3), "lag": (0.5, 4), "duplicates": (0.25, 6)}.get(what, (0.5, 24))
        if what.startswith("drop"):
            low, high = 1, 48
        length = int(12 * math.exp(rng.uniform(math.log(low), math.log(high))))
        begin = int(rng.integers(WARM * DAY, size - length - 24))
        if all(begin > end + DAY // 2 or begin + length < start - DAY // 2 for _, start, end in taken):
            taken.append((what, begin, begin + length))
    return sorted(taken, key=lambda each: each[1])


def _plant(
    rng: np.random.Generator,
    what: str,
    where: slice,
    truth: dict[str, Floats],
    share: dict[str, Floats],
    small: float,
    extra: dict[str, Floats],
    factor: dict[str, Floats],
    lateness: Floats,
    base: float,
    phi: float,
) -> Floats:
    """Change the true rates; the evidence in nats by bin."""
    if what.startswith("failures"):
        times, total = float(what.split("x")[1]), np.zeros(where.stop - where.start)
        for name, shares in share.items():
            before = shares[where].copy()
            after = np.minimum(0.95, before * times)
            divergence = after * np.log(after / before) + (1 - after) * np.log((1 - after) / (1 - before))
            tried = truth[name][where]
            total += tried * divergence / (1 + 0.02 * 12 * tried * before)
            shares[where] = after
        return total
    if what == "card testing":
        rate: float = max(20 / 12, base * math.exp(rng.uniform(math.log(0.5), math.log(5))))
        before = truth["checkout"][where] * share["checkout"][where] * small
        extra["small"][where] = rate * 0.95
        extra["card"][where] = rate * 0.05
        return _evidence(before + rate * 0.95, before, 1.0)
    if what in ("refunds", "cancels", "disputes"):
        name = what[:-1]
        times = float(rng.choice([3, 6, 15]))
        usual = float(truth[name].mean())
        extra[name][where] = (times - 1) * usual
        noise = NOISE.get(name, USUAL_NOISE)
        return _evidence(truth[name][where] + extra[name][where], truth[name][where], phi, noise)
    if what == "duplicates":
        before = truth["duplicate"][where]
        after = before + truth["checkout"][where] * rng.uniform(0.02, 0.3)
        extra["duplicate"][where] = after - before
        return _evidence(after, before, phi)
    if what.startswith("drop"):
        left = 0.4 if "60" in what else 1e-6
        factor["checkout"][where] = left
        return _evidence(truth["checkout"][where] * left, truth["checkout"][where], phi)
    everything = np.sum([truth[name][where] for name in truth], axis=0) + 0.2 * truth["checkout"][where]
    if what == "silence":
        return _evidence(everything * 1e-9, everything, phi)
    late = float(rng.uniform(0.3, 0.8))
    lateness[where] = late
    weighed: Floats = everything * (late * math.log(late / 0.001) + (1 - late) * math.log((1 - late) / 0.999))
    return weighed


def _evidence(after: Floats, before: Floats, phi: float, noise: float = USUAL_NOISE) -> Floats:
    before = np.maximum(before, 1e-6)
    after = np.maximum(after, 1e-12)
    return (after * np.log(after / before) - after + before) / (phi + noise * 12 * before)


def _counts(rng: np.random.Generator, rates: Floats, phi: float) -> Floats:
    """Counts that come in clusters: variance phi times the mean."""
    if phi > 1.01:
        size = np.maximum(rates / (phi - 1), 1e-9)
        rates = rng.gamma(size, rates / size)
    return rng.poisson(rates).astype(float)


def _noise(rng: np.random.Generator, size: int, step: int, memory: float, sd: float) -> Floats:
    """A factor around 1 that remembers the step before."""
    steps = size // step + 2
    shocks = rng.normal(0, sd * math.sqrt(1 - memory**2), steps)
    value, found = float(rng.normal(0, sd)), np.empty(steps)
    for i, shock in enumerate(shocks):
        value = memory * value + shock
        found[i] = value
    return np.exp(np.repeat(found, step)[:size])


def _rhythm(rng: np.random.Generator, kind: str, local: Floats) -> tuple[Floats, frozenset[int]]:
    hours = np.array([float(each) for each in HOURS[kind].split()]) * rng.lognormal(0, 0.12, 24)
    hours /= hours.mean()
    week = np.array(WEEKS[kind]) * rng.lognormal(0, 0.04, 7)
    place = (local % DAY) / 12 - 0.5
    shape = np.interp(place, np.arange(-1, 25), np.concatenate([hours[-1:], hours, hours[:1]]))
    days, index = np.unique(local // DAY, return_inverse=True)
    byday = week[(days.astype(int) + 3) % 7] / week.mean()
    known = set()
    for _ in range(int(rng.integers(0, 2)) * (rng.random() < 0.6)):
        day = int(rng.integers(0, len(days)))
        byday[day] *= rng.uniform(0.45, 0.85)
        if rng.random() < 0.6:
            known.add(int(days[day]))
    if rng.random() < 0.3:  # a sale: a sharp start, days of decay
        day, size = int(rng.integers(0, len(days) - 3)), rng.uniform(0.5, 3)
        byday[day : day + 3] *= 1 + size * np.array([1, 0.6, 0.3])
    if rng.random() < 0.15:
        byday[int(rng.integers(0, len(days))) :] *= rng.uniform(0.8, 1.35)
    byday *= np.exp(np.linspace(0, rng.normal(0, 0.15), len(days)))
    size = len(local)
    hourly, daily, fine = rng.uniform(0.03, 0.12, 3) * (1, 1, 0.7)
    noise = _noise(rng, size, 12, 0.7, hourly) * _noise(rng, size, DAY, 0.4, daily) * _noise(rng, size, 1, 0.5, fine)
    return shape * byday[index] * noise, frozenset(known)


def _renewals(rng: np.random.Generator, local: Floats) -> Floats:
    """By day of month, with favourites; for some accounts much of the 1st comes in one to three hours."""
    burst = rng.random() < 0.4
    hour, hours, part = int(rng.integers(0, 6)), int(rng.integers(1, 4)), rng.uniform(0.3, 0.8)
    weights = {1: 7.0, 2: 3.0, 3: 2.4, 15: 4.5}
    days, index = np.unique(local // DAY, return_inverse=True)
    byday: Floats = np.array([weights.get(_month_day(int(day)), 0.6) for day in days])[index]
    shape = 0.4 + 1.2 * np.exp(-((((local % DAY) / 12 - 9) % 24) ** 2) / 60)
    found = byday * shape
    if burst:
        first = np.array([_month_day(int(day)) == 1 for day in days])[index]
        peak = first & ((local % DAY) // 12 >= hour) & ((local % DAY) // 12 < hour + hours)
        found = np.where(first, found * (1 - part), found)
        found = np.where(peak, 7.0 * part * 24 / hours, found)
    return found / 1.1


def _sessions(rng: np.random.Generator, local: Floats, daily: float) -> Floats:
    """Half of them at any time; the rest in sittings of staff on most working days, one to four hours long and of
    very different sizes, more of them where there is more to refund.
    """
    found = np.full(len(local), 0.5)
    days = np.unique(local // DAY)
    habit = int(rng.integers(9, 16))
    for day in days:
        if (int(day) + 3) % 7 > 4 or rng.random() < 0.1:
            continue
        sittings = 1 + int(rng.poisson(min(daily / 30, 20)))
        for _ in range(sittings):
            begin, length = day * DAY + 12 * (habit + rng.normal(0, 2.5)), int(rng.integers(12, 48))
            here = (local >= begin) & (local < begin + length)
            found[here] += 0.5 * DAY / length / sittings * 7 / 4.5 * rng.gamma(4, 0.25)
    return found


def _banking(start: int, size: int) -> Floats:
    at = start + np.arange(size) * BIN
    hour, day = at // 3600 % 24, (at // 86_400 + 3) % 7
    return np.where((hour >= 13) & (hour < 21) & (day < 5), 4.0, 0.05)


def _later(rng: np.random.Generator, counts: Floats, most: int) -> Floats:
    found = np.zeros(len(counts))
    for lag in range(most):
        part = rng.binomial(counts.astype(np.int64), 1 / (most - lag))
        counts = counts - part
        found[lag:] += part[: len(part) - lag]
    return found


def _midnight(rng: np.random.Generator, zone: str) -> int:
    day = datetime(2025, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(days=int(rng.integers(0, 365)))
    return int(day.astimezone(UTC).timestamp())


def _local(start: int, zone: str, size: int) -> Floats:
    hours = [
        datetime.fromtimestamp(start + hour * 3600, UTC).astimezone(ZoneInfo(zone)).utcoffset() or timedelta()
        for hour in range(size // 12)
    ]
    offsets = np.repeat([int(offset.total_seconds()) for offset in hours], 12)
    found: Floats = ((start + np.arange(size) * BIN + offsets) // BIN).astype(float)
    return found


def _month_day(day: int) -> int:
    return datetime.fromtimestamp(day * 86_400, UTC).day
