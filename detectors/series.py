"""What was counted, as detectors see it: sums over spans of event time, from 5-minute and hourly buckets."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from itertools import accumulate

from msgspec import Struct

from billingwatch.model import Bucket, Money, Window

MINUTE, HOUR, DAY = 60, 3600, 86400  # seconds
BUCKET = 5 * MINUTE  # the finest grain


class _Line:
    """The buckets of one grain in order of time, with prefix sums: a span's sum costs two look-ups."""

    def __init__(self, rows: Iterable[Bucket]) -> None:
        ordered = sorted(rows, key=lambda row: row.start)
        self.starts = [row.start for row in ordered]
        self.counts = [0, *accumulate(row.count for row in ordered)]
        self.amounts = [0, *accumulate(row.amount for row in ordered)]

    def sums(self, start: int, end: int) -> tuple[int, int]:
        first, last = bisect_left(self.starts, start), bisect_left(self.starts, end)
        return self.counts[last] - self.counts[first], self.amounts[last] - self.amounts[first]


class Series:
    """One tenant's rollups as read for one evaluation."""

    def __init__(self, rows: Iterable[Bucket]) -> None:
        lines: dict[tuple[str, str, str, int], list[Bucket]] = defaultdict(list)
        for row in rows:
            lines[row.metric, row.stratum, row.currency, row.grain * MINUTE].append(row)
        self._lines = {key: _Line(rows) for key, rows in lines.items()}

    def window(self, metric: str, start: int, end: int, strata: Collection[str] | None = None) -> Window:
        """Everything counted in [start, end), all currencies; whole hours are read from hourly buckets.

        `start` and `end` are epoch seconds on the 5-minute grid. The amount is 0 unless one currency was counted.
        """
        amounts = self.amounts(metric, start, end, strata)
        return Window(
            start=datetime.fromtimestamp(start, UTC),
            end=datetime.fromtimestamp(end, UTC),
            count=sum(count for count, _ in amounts.values()),
            amount=next(iter(amounts.values()))[1] if len(amounts) == 1 else 0,
        )

    def money(self, metric: str, start: int, end: int, strata: Collection[str] | None = None) -> tuple[Money, ...]:
        """The amounts counted in [start, end), one a currency, largest first."""
        found = self.amounts(metric, start, end, strata)
        money = (Money(amount, currency) for currency, (_, amount) in found.items() if amount and currency)
        return tuple(sorted(money, key=lambda each: -each.amount))

    def onset(self, metric: str, start: int, end: int, usual: float, strata: Collection[str] | None = None) -> int:
        """When the excess in [start, end) began: the start of the run that rises steepest above the usual.

        `usual` is the mean count of a 5-minute bucket. Epoch seconds, on the 5-minute grid.
        """
        counts = [self.window(metric, bucket, bucket + BUCKET, strata).count for bucket in range(start, end, BUCKET)]
        reference = (usual + sum(counts) / len(counts)) / 2
        best, rise, began = 0.0, 0.0, 0
        onset = 0
        for index, count in enumerate(counts):
            if rise <= 0:
                rise, began = 0.0, index
            rise += count - reference
            if rise > best:
                best, onset = rise, began
        return start + onset * BUCKET

    def amounts(
        self, metric: str, start: int, end: int, strata: Collection[str] | None = None
    ) -> dict[str, tuple[int, int]]:
        """(count, amount) by currency in [start, end); currencies with nothing counted are absent."""
        sums: dict[str, tuple[int, int]] = {}
        for (name, stratum, currency, span), line in self._lines.items():
            if name != metric or (strata is not None and stratum not in strata):
                continue
            for piece_start, piece_end in _pieces(start, end, span):
                count, amount = line.sums(piece_start, piece_end)
                if count:
                    before = sums.get(currency, (0, 0))
                    sums[currency] = (before[0] + count, before[1] + amount)
        return sums


class Reading(Struct, frozen=True):
    """What detectors are called with: one tenant's series and where it stands at the evaluation instant."""

    series: Series
    at: datetime
    since: datetime  # the tenant's oldest event, `created`
    newest: datetime  # the newest event, `created`
    received: datetime  # the arrival of the last one


def _pieces(start: int, end: int, span: int) -> list[tuple[int, int]]:
    """The part of [start, end) that buckets of this span answer for: hours the whole ones, 5 minutes the rest."""
    first, last = -(-start // HOUR) * HOUR, end // HOUR * HOUR
    if span == HOUR:
        return [(first, last)] if first < last else []
    if first >= last:
        return [(start, end)]
    return [(start, first), (last, end)]


def grid(at: datetime) -> int:
    """The end, in epoch seconds, of the 5-minute bucket that `at` falls in."""
    seconds = int(at.timestamp())
    return seconds // BUCKET * BUCKET + BUCKET
