"""One account's counts of the last days by line and 5-minute bin. It adds up what it is given, and judges nothing."""

from collections.abc import Mapping

import numpy as np

from detectors.calendar import Floats, Ints
from detectors.catalogue import EACH, Source, routes
from detectors.strip import BIN

# Lines whose money is asked for when an incident is told: what failed, was refunded, disputed, doubled or cancelled.
PRICED = frozenset({"failure.checkout", "failure.renewal", "small", "refund", "dispute", "duplicate", "cancel"})
BINS = 3600 // BIN  # of an hour


class Sheet:
    """Bins begin with the UTC hour `first` (since the epoch) and cover `hours`; what lies outside is left out."""

    def __init__(self, lines: Mapping[str, Source], first: int, hours: int) -> None:
        self.lines = lines
        self.first = first
        self.size = hours * BINS
        self.bins: dict[str, Floats] = {
            name: np.zeros(self.size) for name, source in lines.items() if source.currency != EACH
        }
        self.money: dict[str, dict[str, Floats]] = {}  # minor units of a priced line, by currency
        self.changed: set[str] = set(self.bins)
        self._routes: dict[tuple[str, str, str], tuple[tuple[str, bool], ...]] = {}

    def add(
        self,
        metric: str,
        stratum: str,
        currency: str,
        starts: Ints | int,
        counts: Ints | int,
        amounts: Ints | int,
    ) -> None:
        """Grow by buckets that start at `starts` (epoch seconds, each once)."""
        places = starts // BIN - self.first * BINS
        if isinstance(places, int):
            if not 0 <= places < self.size:
                return
        else:
            inside = (places >= 0) & (places < self.size)
            places, counts, amounts = places[inside], np.asarray(counts)[inside], np.asarray(amounts)[inside]
        key = (metric, stratum, currency)
        if key not in self._routes:
            self._routes[key] = routes(self.lines, *key)
        for name, by_amount in self._routes[key]:
            if name not in self.bins:
                self.bins[name] = np.zeros(self.size)
            self.bins[name][places] += np.abs(amounts) if by_amount else counts
            self.changed.add(name)
            if name in PRICED and currency:
                found = self.money.setdefault(name, {})
                if currency not in found:
                    found[currency] = np.zeros(self.size)
                found[currency][places] += np.abs(amounts)

    def hours(self, name: str, first: int, last: int) -> tuple[Floats, Floats]:
        """Of each hour in [first, last): its sum, and the sum of the squares of its twelve bins."""
        bins = self.bins[name][(first - self.first) * BINS : (last - self.first) * BINS].reshape(-1, BINS)
        return bins.sum(1), (bins**2).sum(1)

    def amounts(self, name: str, start: int, end: int) -> dict[str, int]:
        """The money of a priced line in [start, end), epoch seconds on the grid of bins, by currency."""
        rows = slice(max(0, start // BIN - self.first * BINS), max(0, -(-end // BIN) - self.first * BINS))
        found = {currency: int(bins[rows].sum()) for currency, bins in self.money.get(name, {}).items()}
        return {currency: amount for currency, amount in found.items() if amount}

    def slide(self, first: int) -> None:
        """Begin with a later hour; what came before is forgotten."""
        by = (first - self.first) * BINS
        for counts in (*self.bins.values(), *(each for found in self.money.values() for each in found.values())):
            counts[:-by] = counts[by:].copy()
            counts[-by:] = 0.0
        self.first = first
