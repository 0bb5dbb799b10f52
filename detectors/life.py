"""The life of an account's incidents: one pure step from what is open and what was judged to what changes.

An incident may have several signals, one a detector. It is told once, told again when it gets worse, and told
when the last of its signals is gone. What it used as evidence is evidence for nothing else.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from billingwatch.model import Severity
from detectors.signal import Signal, recovery
from detectors.strip import BIN

MINUTE, HOUR = 60, 3600  # seconds
CLEAR = 30 * MINUTE  # of recovery on end
PULSE_CLEAR = 10 * MINUTE  # of deliveries, which need no proof beyond that they come
TOGETHER = HOUR  # opens this close are one incident
BACKFILL = 3 * HOUR  # after a silence, in which late events belong to it
STRONG = 3.0  # of score above what was needed
WORSE = 2.0  # times the intensity that was told last
MORE = 10.0  # events beyond those that the intensity which was told last would make
SETTLE = 10 * MINUTE  # after something was told: its first figures are small, and say little of its rate
EXPLODED = 4.0  # times what was told first, in that while
LEFT = 0.75  # times what was left of a drop that was told last
CONFIRMED = 4  # times the window that opened
SILENCE, LAG = "webhook_silence", "webhook_lag"
PULSES = frozenset({SILENCE, LAG})

SAME_EVIDENCE = frozenset({"failure_rate", "card_testing"})  # what one has told is no news for the other

LADDER: tuple[Severity, ...] = ("medium", "high", "critical")


class Open(Struct, frozen=True):
    """One detector's part of an open incident. Instants are epoch seconds."""

    incident: int
    opened: int
    onset: int
    window: int  # bins, of the signal that opened
    signal: Signal  # the strongest so far, or one that was told as worse since
    rank: int
    clear_since: int | None = None
    extreme: Signal | None = None  # the one with the largest effect so far, where it is not `signal`
    told: Signal | None = None  # what people were told; once that settled, its most intense
    heard: int = 0  # when it opened, or was told as worse
    settling: Signal | None = None  # the most intense since then, until it has settled

    @property
    def known(self) -> Signal:
        """What getting worse is held against."""
        return self.told or self.signal

    @property
    def worst(self) -> Signal:
        """The signal with the largest effect so far."""
        return self.extreme or self.signal


class Life(Struct, frozen=True):
    """What is open of one account, and what earlier incidents left behind."""

    open: dict[str, Open] = {}
    floors: dict[str, int] = {}  # by detector: where its windows begin, for what came before was used up
    hidden: tuple[tuple[int, int], ...] = ()  # spans in which absence is judged no more
    incident: int = 0  # the newest one's number
    stirred: int = 0  # the newest open
    silent_until: int = 0  # the close of the newest silence
    spent: tuple[tuple[int, int], ...] = ()  # spans of what ended, of which no baseline learns

    def parts(self, incident: int) -> tuple[Open, ...]:
        """What is open of the incident with this number."""
        return tuple(part for part in self.open.values() if part.incident == incident)

    def holds(self, signal: Signal, at: int, backlog: bool = False, expected: bool = False) -> bool:
        """Whether the signal means nothing now: something else explains it, or people said so."""
        if expected and signal.detector not in PULSES:
            return True
        if signal.detector == SILENCE:
            return backlog
        if signal.detector == LAG:
            return SILENCE in self.open or at - self.silent_until < BACKFILL
        return signal.side == "down" and (backlog or SILENCE in self.open or LAG in self.open)


Step = Literal["first", "joined", "reopened", "worse", "stronger", "eased", "resolved"]


class Change(Struct, frozen=True):
    """What happened to a detector's part of an incident: it opened one, joined an open one or one that was over,
    got worse by itself or only `stronger` in rank, or was gone, as one of several (`eased`) or as the last
    (`resolved`).
    """

    at: int
    detector: str
    reason: Step
    part: Open
    parts: tuple[Open, ...] = ()  # the incident's open ones from then on


def step(
    life: Life,
    at: int,
    signals: Mapping[str, Signal],
    gone: Collection[str],
    onsets: Mapping[str, int],
    *,
    backlog: bool = False,
    expected: bool = False,
) -> tuple[Life, list[Change]]:
    """What the signals of the instant `at` change. `gone` names open detectors whose effect is over for now.

    `onsets` says where each signal began. `backlog` says that our own queue is behind, so absence means nothing;
    `expected` that people announced something unusual for this instant, so nothing opens.
    """
    parts = dict(life.open)
    floors, hidden, stirred, silent = dict(life.floors), life.hidden, life.stirred, life.silent_until
    spent = life.spent
    incident, changes = life.incident, []
    for name in sorted(parts):
        part, signal = parts[name], signals.get(name)
        if signal is not None and name not in gone:
            parts[name] = grown = _grow(part, signal, at)
            if grown.heard > (part.heard or part.opened):
                changes.append(Change(at, name, "worse", grown))
            elif grown.rank > part.rank:
                changes.append(Change(at, name, "stronger", grown))
            continue
        if name not in gone:
            parts[name] = msgspec.structs.replace(part, clear_since=None)
            continue
        since = at if part.clear_since is None else part.clear_since
        parts[name] = part = msgspec.structs.replace(part, clear_since=since)
        if at - since < (PULSE_CLEAR if name == SILENCE else CLEAR):
            continue
        del parts[name]
        floors |= dict.fromkeys((name, *(SAME_EVIDENCE - parts.keys() if name in SAME_EVIDENCE else ())), at)
        spent = (*spent, (part.onset, at))
        if name == SILENCE:
            hidden, silent = (*hidden, (part.onset, since)), at
        last = all(other.incident != part.incident for other in parts.values())
        changes.append(Change(at, name, "resolved" if last else "eased", part))
    for name in sorted(signals.keys() - life.open.keys(), key=lambda each: (each != SILENCE, each)):
        # A silence that ends at this instant still explains what this instant's windows lack.
        now = msgspec.structs.replace(life, open=life.open | parts, silent_until=silent)
        if now.holds(signals[name], at, backlog, expected):
            continue
        reopened = not parts and incident > 0 and at - stirred <= TOGETHER
        if not parts and not reopened:
            incident += 1
        how: Step = "joined" if parts else "reopened" if reopened else "first"
        stirred = at
        number = max((part.incident for part in parts.values()), default=incident)
        signal = signals[name]
        parts[name] = Open(
            incident=number,
            opened=at,
            onset=min(at, onsets.get(name, at)),
            window=signal.window,
            signal=signal,
            rank=rank(signal),
            told=signal,
            heard=at,
            settling=signal,
        )
        changes.append(Change(at, name, how, parts[name]))
    after = Life(parts, floors, hidden, incident, stirred, silent, spent)
    return after, [msgspec.structs.replace(each, parts=after.parts(each.part.incident)) for each in changes]


def settle(life: Life, ended: Collection[int], at: int) -> Life:
    """The life after people resolved these incidents: what they were about is used up."""
    over = {name: part for name, part in life.open.items() if part.incident in ended}
    if not over:
        return life
    return msgspec.structs.replace(
        life,
        open={name: part for name, part in life.open.items() if name not in over},
        floors=life.floors | dict.fromkeys(over, at),
        spent=(*life.spent, *((part.onset, at) for part in over.values())),
    )


def forget(life: Life, before: int) -> Life:
    """Without the spans that ended before this instant, epoch seconds: no strip and no baseline reaches so far back."""
    return msgspec.structs.replace(
        life,
        hidden=tuple(span for span in life.hidden if span[1] >= before),
        spent=tuple(span for span in life.spent if span[1] >= before),
    )


def rank(signal: Signal, window: int = 0) -> int:
    """How far up the ladder of severities: by surprise, by the size of the effect, by a longer window's agreement.

    `window` is that of the signal that opened, 0 where this one does.
    """
    if signal.detector == SILENCE:
        return 2
    strong = signal.margin >= STRONG or (window > 0 and signal.window >= CONFIRMED * window)
    if signal.side == "up":
        large = (signal.effect >= 3) + (signal.effect >= 10)
    else:
        large = (signal.effect <= 0.4) + (signal.observed < 1)
    return min(2, strong + large)


def span(part: Open) -> int:
    """Bins over which the part's effect must be gone."""
    return recovery(part.window)


def intensity(signal: Signal, onset: int) -> float:
    """Events an hour beyond (or short of) what is expected, in the part of the window since the onset, epoch seconds.

    What goes on at the same rate has the same intensity all along, while its window fills up.
    """
    return _away(signal) / _hours(signal, onset)


def _away(signal: Signal) -> float:
    return abs(signal.observed - signal.expected)


def _hours(signal: Signal, onset: int) -> float:
    """The part of the window since the onset."""
    return max(MINUTE, min(signal.end - onset, signal.end - signal.start)) / HOUR


def _grow(part: Open, signal: Signal, at: int) -> Open:
    """The part as of this instant; `heard` is the instant where people are to hear that it got worse."""
    further = _further(signal, part.worst)
    stronger = signal.margin > part.signal.margin or (signal.margin == part.signal.margin and further)
    grown = msgspec.structs.replace(
        part,
        signal=signal if stronger else part.signal,
        rank=max(part.rank, rank(signal, part.window)),
        clear_since=None,
        extreme=signal if further else part.worst,
        told=part.known,
        heard=part.heard or part.opened,
    )
    most = None
    if grown.settling is not None:
        most = max(grown.settling, signal, key=lambda each: intensity(each, part.onset))
        if at - grown.heard < SETTLE:
            return msgspec.structs.replace(grown, settling=most)
    if _worse(grown, signal, EXPLODED if most else WORSE):
        return msgspec.structs.replace(grown, signal=signal, told=signal, heard=at, settling=signal)
    return msgspec.structs.replace(grown, told=most or grown.told, settling=None)


def _worse(part: Open, signal: Signal, times: float) -> bool:
    """Whether so many times as many an hour are too many (too few) as were told last, and by no small number."""
    if signal.side == "down" and signal.effect >= LEFT * part.known.effect:
        return False  # as much is left as before: more is missing since more is expected by day
    # The onset is known to a bin, so what was told may have come in as much less time.
    rate = intensity(part.known, part.onset + BIN)
    return intensity(signal, part.onset) > times * rate and _away(signal) - rate * _hours(signal, part.onset) >= MORE


def _further(one: Signal, other: Signal) -> bool:
    return one.effect > other.effect if one.side == "up" else one.effect < other.effect
