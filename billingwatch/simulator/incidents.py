"""Incidents that are planted on purpose, so that a detector can be marked: parse them, time them, label them."""

import re
from datetime import UTC, datetime

from msgspec import Struct

from billingwatch.model import utc


class Sort(Struct, frozen=True):
    """What planting an incident of a kind means."""

    detector: str  # the detector that ought to find it
    size: float  # where none is given
    span: int  # seconds, where none is given
    meaning: str  # of size
    late: bool = False  # it shows in when events arrive and in nothing else


_TIMES = "times the usual rate (taken as one an hour at least)"
KINDS: dict[str, Sort] = {
    "failed_payments": Sort("failure_rate", 0.6, 7200, "share of payment attempts that fail, 0 to 1"),
    "card_testing": Sort(
        "card_testing", 8, 3600, "attempts as times the account's charges (taken as ten an hour at least)"
    ),
    "refund_spike": Sort("refund_spike", 15, 7200, _TIMES),
    "cancel_spike": Sort("churn_spike", 15, 7200, _TIMES),
    "dispute_spike": Sort("dispute_spike", 15, 14400, _TIMES),
    "checkout_drop": Sort("volume_drop", 0.8, 14400, "share of buyers and new subscribers that is missing, 0 to 1"),
    "duplicate_charges": Sort("duplicate_charges", 0.2, 7200, "share of buyers charged twice within minutes, 0 to 1"),
    "webhook_silence": Sort("webhook_silence", 1, 7200, "nothing; what happens then is never delivered"),
    "webhook_outage": Sort(
        "webhook_silence", 1, 3600, "nothing; what happens then is delivered afterwards, in a burst", late=True
    ),
    "webhook_lag": Sort("webhook_lag", 0.6, 7200, "share of events that come 6 to 60 minutes late, 0 to 1", late=True),
    "revenue_drop": Sort("revenue_drop", 0.6, 86_400, "share of each amount that is not charged, 0 to 1"),
    "mrr_drop": Sort("mrr_drop", 0.1, 21_600, "share of all recurring revenue that is lost, 0 to 1"),
}
_SHARES = {kind for kind, sort in KINDS.items() if sort.meaning.endswith("0 to 1")}

_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_LONGEST = 366 * 86_400
_SPAN = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)
_NUMBER = re.compile(r"\d{1,9}(?:\.\d{1,9})?", re.ASCII)


class Planted(Struct, frozen=True):
    """An incident as asked for: `when` is seconds after the stream's start, or epoch seconds if `absolute`."""

    kind: str
    when: int
    absolute: bool
    size: float
    span: int  # seconds
    on: int = 1  # which account of several, from 1


class Label(Struct, frozen=True):
    """An incident as planted, to hold detections against."""

    kind: str
    detector: str
    account: str
    livemode: bool
    start: datetime
    end: datetime
    size: float
    nats: float  # the evidence: how far what was planted is from the usual rates


def parse(text: str) -> Planted:
    """Read `KIND@WHEN[,size=NUMBER][,for=SPAN][,on=ACCOUNT]`; WHEN is ISO time (UTC where it does not say) or `+2d3h`.

    Raises ValueError that names the faulty part, and the kinds where the kind is unknown.
    """
    head, *options = text.split(",")
    kind, sign, when = head.partition("@")
    if kind not in KINDS:
        raise ValueError(f"{text!r}: unknown kind {kind!r}; the kinds are {', '.join(KINDS)}")
    if not sign or not when:
        raise ValueError(f"{text!r}: no time after {kind!r}; write {kind}@+2d3h or {kind}@2026-09-01T12:00:00Z")
    size, span, on = KINDS[kind].size, KINDS[kind].span, 1
    for option in options:
        name, _, value = option.partition("=")
        if name == "size":
            size = _size(text, kind, value)
        elif name == "for":
            span = _span(text, value)
        elif name == "on":
            on = _number(text, value)
        else:
            raise ValueError(f"{text!r}: unknown option {option!r}; the options are size=, for= and on=")
    if span == 0:
        raise ValueError(f"{text!r}: for= must be longer than nothing")
    if when.startswith("+"):
        return Planted(kind, _span(text, when[1:]), False, size, span, on)
    return Planted(kind, _moment(text, when), True, size, span, on)


def _size(text: str, kind: str, value: str) -> float:
    if not _NUMBER.fullmatch(value):
        raise ValueError(f"{text!r}: size={value!r} is not a number such as 10 or 0.5")
    size = float(value)
    if kind in _SHARES and size > 1:
        raise ValueError(f"{text!r}: size={value} is a share and cannot be above 1")
    return size


def _number(text: str, value: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", value, re.ASCII):
        raise ValueError(f"{text!r}: on={value!r} is not the number of an account such as 1 or 3")
    return int(value)


def _span(text: str, value: str) -> int:
    match = _SPAN.fullmatch(value)
    if not match or not value:
        raise ValueError(f"{text!r}: {value!r} is not a span such as 90m, 2h or 2d3h")
    seconds = sum(int(part) * unit for part, unit in zip(match.groups(default="0"), _UNITS.values(), strict=True))
    if seconds > _LONGEST:
        raise ValueError(f"{text!r}: {value!r} is longer than a year")
    return seconds


def _moment(text: str, value: str) -> int:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise ValueError(f"{text!r}: {value!r} is neither ISO time nor an offset such as +2d3h") from None
    if not 2000 <= moment.year < 2100:
        raise ValueError(f"{text!r}: the year {moment.year} is not of this century")
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


class Active(Struct, frozen=True):
    """An incident with its place in time, `[start, end)` in epoch seconds."""

    kind: str
    start: int
    end: int
    size: float

    def overlap(self, start: int, end: int) -> tuple[int, int] | None:
        """The part of `[start, end)` that the incident covers."""
        first, last = max(start, self.start), min(end, self.end)
        return (first, last) if first < last else None


def place(planted: Planted, start: int, end: int) -> Active:
    """Fix the incident in a stream of `[start, end)`; it is cut where the stream ends.

    Raises ValueError when it would begin outside.
    """
    begin = planted.when if planted.absolute else start + planted.when
    if not start <= begin < end:
        raise ValueError(
            f"{planted.kind} at {utc(begin):%Y-%m-%dT%H:%M:%SZ} is outside the stream, "
            f"{utc(start):%Y-%m-%dT%H:%M:%SZ} to {utc(end):%Y-%m-%dT%H:%M:%SZ}"
        )
    return Active(planted.kind, begin, min(begin + planted.span, end), planted.size)


def label(active: Active, account: str, livemode: bool, nats: float) -> Label:
    """What a detection is held against; `account` is the connected account's id or the source's name."""
    return Label(
        kind=active.kind,
        detector=KINDS[active.kind].detector,
        account=account,
        livemode=livemode,
        start=utc(active.start),
        end=utc(active.end),
        size=active.size,
        nats=round(nats, 2),
    )
