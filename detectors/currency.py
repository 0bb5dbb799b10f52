"""Money, currency by currency: two currencies are never added, so each is judged on its own line."""

from math import ceil

import msgspec
import numpy as np

from detectors.calendar import Bools, Floats
from detectors.drop import Drop
from detectors.excess import Excess
from detectors.signal import Signal, stronger
from detectors.strip import Strip

SEVERAL = 5


class CurrencyDrop(Drop, frozen=True):
    """A drop of any currency's line; the signal's scope is the currency."""

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The strongest signals by tick."""
        found: dict[int, Signal] = {}
        for line in lines(strip, self.line):
            here = Drop.scan(msgspec.structs.replace(self, line=line), strip, ends, floor)
            found = stronger(found, _scoped(here, line))
        return found

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether every currency is back to normal, by tick."""
        found = [
            Drop.gone(msgspec.structs.replace(self, line=line), strip, ends, bins) for line in lines(strip, self.line)
        ]
        return np.asarray(np.all(found, axis=0)) if found else np.ones(len(ends), np.bool_)

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Amounts and expectations by bin, in payments' worth, which all currencies share."""
        parts = [
            Drop.curve(msgspec.structs.replace(self, line=line), strip, start, end) for line in lines(strip, self.line)
        ]
        return sum((part[0] for part in parts), np.zeros(end - start)), sum(
            (part[1] for part in parts), np.zeros(end - start)
        )


class CurrencyExcess(Excess, frozen=True):
    """An excess of any currency's line, in which several had a part; the signal's scope is the currency.

    `several` names the line that counts what the money is of: a single large customer is no incident of the account.
    """

    several: str = ""

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The strongest signals by tick."""
        found: dict[int, Signal] = {}
        for line in lines(strip, self.line):
            here = Excess.scan(msgspec.structs.replace(self, line=line), strip, ends, floor)
            many = {tick: signal for tick, signal in here.items() if self._several(strip, signal)}
            found = stronger(found, _scoped(many, line))
        return found

    def _several(self, strip: Strip, signal: Signal) -> bool:
        if not self.several:
            return True
        count = strip.lines[self.several].count
        return float(count[ceil(signal.end - 1e-9)] - count[int(signal.start)]) >= SEVERAL

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether every currency is back to normal, by tick."""
        found = [
            Excess.gone(msgspec.structs.replace(self, line=line), strip, ends, bins) for line in lines(strip, self.line)
        ]
        return np.asarray(np.all(found, axis=0)) if found else np.ones(len(ends), np.bool_)

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Amounts and expectations by bin, in payments' worth, which all currencies share."""
        parts = [
            Excess.curve(msgspec.structs.replace(self, line=line), strip, start, end)
            for line in lines(strip, self.line)
        ]
        return sum((part[0] for part in parts), np.zeros(end - start)), sum(
            (part[1] for part in parts), np.zeros(end - start)
        )


def lines(strip: Strip, family: str) -> list[str]:
    """The lines of this family that have something to be held against."""
    return sorted(name for name, line in strip.lines.items() if name.startswith(f"{family}.") and line.known)


def _scoped(found: dict[int, Signal], line: str) -> dict[int, Signal]:
    currency = line.rpartition(".")[2]
    return {tick: msgspec.structs.replace(signal, scope=currency) for tick, signal in found.items()}
