"""Money, currency by currency: two currencies are never added, so each is judged on its own line."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import TypeVar

import msgspec
import numpy as np

from detectors.calendar import Bools, Floats
from detectors.drop import Drop
from detectors.excess import Excess
from detectors.signal import Signal, stronger
from detectors.strip import Strip

T = TypeVar("T", Drop, Excess)

SEVERAL = 5  # who must have a part in a loss


class CurrencyDrop(Drop, frozen=True):
    """A drop of any currency's line; the signal's scope is the currency."""

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The strongest signals by tick."""
        return _strongest({line: part.scan(strip, ends, floor) for line, part in self._parts(strip).items()})

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether every currency is back to normal, by tick."""
        return _all_gone([part.gone(strip, ends, bins) for part in self._parts(strip).values()], len(ends))

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Amounts and expectations by bin, in payments' worth, which all currencies share."""
        return _sum([part.curve(strip, start, end) for part in self._parts(strip).values()], end - start)

    def _parts(self, strip: Strip) -> dict[str, Drop]:
        return _of_each(self, Drop, strip)


class CurrencyExcess(Excess, frozen=True):
    """An excess of any currency's line, in which several had a part; the signal's scope is the currency.

    `several` names the line that counts what the money is of: a single large customer is no incident of the account.
    """

    several: str = ""

    def scan(self, strip: Strip, ends: Floats, floor: float = 0.0) -> dict[int, Signal]:
        """The strongest signals by tick."""
        found = {line: part.scan(strip, ends, floor) for line, part in self._parts(strip).items()}
        return _strongest(
            {
                line: {tick: signal for tick, signal in here.items() if self._several(strip, signal)}
                for line, here in found.items()
            }
        )

    def gone(self, strip: Strip, ends: Floats, bins: int) -> Bools:
        """Whether every currency is back to normal, by tick."""
        return _all_gone([part.gone(strip, ends, bins) for part in self._parts(strip).values()], len(ends))

    def curve(self, strip: Strip, start: int, end: int) -> tuple[Floats, Floats]:
        """Amounts and expectations by bin, in payments' worth, which all currencies share."""
        return _sum([part.curve(strip, start, end) for part in self._parts(strip).values()], end - start)

    def _parts(self, strip: Strip) -> dict[str, Excess]:
        return _of_each(self, Excess, strip)

    def _several(self, strip: Strip, signal: Signal) -> bool:
        if not self.several:
            return True
        count = strip.lines[self.several].count
        return float(count[ceil(signal.end - 1e-9)] - count[int(signal.start)]) >= SEVERAL


def lines(strip: Strip, family: str) -> list[str]:
    """The lines of this family that have something to be held against."""
    return sorted(name for name, line in strip.lines.items() if name.startswith(f"{family}.") and line.known)


def _of_each(detector: Drop | Excess, kind: type[T], strip: Strip) -> dict[str, T]:
    """The detector as it is of each currency's line, a plain one of this kind."""
    thresholds = {name: getattr(detector, name) for name in kind.__struct_fields__}
    return {line: kind(**thresholds | {"line": line}) for line in lines(strip, detector.line)}


def _strongest(found: Mapping[str, dict[int, Signal]]) -> dict[int, Signal]:
    """Of all lines' signals by tick; each says by its scope which currency it is of."""
    strongest: dict[int, Signal] = {}
    for line, here in found.items():
        currency = line.rpartition(".")[2]
        scoped = {tick: msgspec.structs.replace(signal, scope=currency) for tick, signal in here.items()}
        strongest = stronger(strongest, scoped)
    return strongest


def _all_gone(found: Sequence[Bools], ticks: int) -> Bools:
    return np.asarray(np.all(found, axis=0)) if found else np.ones(ticks, np.bool_)


def _sum(curves: Sequence[tuple[Floats, Floats]], bins: int) -> tuple[Floats, Floats]:
    nothing = np.zeros(bins)
    return sum((seen for seen, _ in curves), nothing), sum((expected for _, expected in curves), nothing)
