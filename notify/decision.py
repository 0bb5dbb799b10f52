"""Whether what waits for a channel is told now, held back or dropped. Pure; every answer has its reason.

Asked in this order: inhibited, silenced, grouped, the budget, quiet hours. Routes have chosen the channel before;
reminders are staged by `notify.reminder` and judged here like everything else. What is held is looked at again.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Literal

from msgspec import Struct

from billingwatch.model import OWN, SEVERITIES, Alert, Incident, Reason, Silence, Tenant
from notify import interval
from notify.policy import Inhibition
from notify.route import Route, labels, refusal

AGAIN = timedelta(seconds=30)  # what other people or incidents hold back is looked at again after this, at the latest
HOUR = timedelta(hours=1)
SUMMARY_WAIT = timedelta(minutes=1)  # after the budget is used up, what comes together is told in one summary


class Pending(Struct, frozen=True, kw_only=True):
    """Everything staged about one incident for the channel, the newest last, with the incident as it is now."""

    alerts: tuple[Alert, ...]
    incident: Incident
    route: Route = Route()
    told: datetime | None = None  # when the channel last heard of it

    @property
    def newest(self) -> Alert:
        return self.alerts[-1]

    @property
    def over(self) -> bool:
        return self.incident.state == "resolved"

    @property
    def urgent(self) -> bool:
        return self.incident.severity == "critical"

    @property
    def reason(self) -> Reason:
        """Why the channel hears of it: what it never heard of is told as new, however it went on since.

        To whom it is escalated, it is new, too, and they are told why it comes to them.
        """
        if self.over:
            return "resolved"
        return self.newest.reason if self.told or self.newest.reason == "escalate" else "first"


class Scene(Struct, frozen=True, kw_only=True):
    """What else is so at the instant `at`, of one channel."""

    at: datetime
    zone: Callable[[Tenant], tzinfo]
    inhibitions: Sequence[Inhibition] = ()
    causes: Sequence[Incident] = ()  # what is open of the same accounts, and of BillingWatch itself
    silences: Sequence[Silence] = ()
    updated: Mapping[Tenant, datetime] = {}  # the channel's newest message about each account
    sent: Sequence[datetime] = ()  # its messages of the last hour, ascending, summaries apart
    summaries: Sequence[datetime] = ()  # those, too
    budget: int = 20  # messages an hour
    blocked: tuple[datetime, str] | None = None  # until when nothing is tried, and why


class Hold(Struct, frozen=True):
    """Not now: look again at `until`, and why. `cause` is the incident that explains this one."""

    why: str
    until: datetime
    cause: int | None = None


class Drop(Struct, frozen=True):
    """Not at all."""

    why: str


Kind = Literal["alert", "summary"]


class Bundle(Struct, frozen=True):
    """What goes out as one message; `why` holds for all of it."""

    kind: Kind
    pending: tuple[Pending, ...]
    why: str

    @property
    def urgent(self) -> bool:
        return any(each.urgent for each in self.pending)


Answer = Hold | Drop


class Verdicts(Struct, frozen=True):
    """What is decided of everything that waits: the messages to be sent, and what is not."""

    bundles: tuple[Bundle, ...]
    others: tuple[tuple[Pending, Answer], ...]


def decide(waiting: Iterable[Pending], scene: Scene) -> Verdicts:
    """Each of `waiting` is in a bundle or held or dropped. An account's are one message, the most severe first."""
    passed: dict[Tenant, list[Pending]] = defaultdict(list)
    others: list[tuple[Pending, Answer]] = []
    for each in waiting:
        answer = next((found for step in STEPS if (found := step(each, scene))), None)
        if answer is None:
            passed[each.incident.tenant].append(each)
        else:
            others.append((each, answer))
    bundles, held = _budgeted(sorted(map(_bundle, passed.values()), key=_place), scene)
    for bundle, answer in held:
        others += [(each, answer) for each in bundle.pending]
    quiet: list[Bundle] = []
    for bundle in bundles:
        answers = [(each, _quiet(each, scene)) for each in bundle.pending]
        others += [(each, answer) for each, answer in answers if answer]
        awake = tuple(each for each, answer in answers if not answer)
        if awake:
            quiet.append(Bundle(bundle.kind, awake, bundle.why))
    if scene.blocked:
        until, why = scene.blocked
        others += [(each, Hold(why, until)) for bundle in quiet for each in bundle.pending]
        quiet = []
    return Verdicts(tuple(quiet), tuple(others))


def _moot(each: Pending, scene: Scene) -> Answer | None:
    """A reminder of what was looked after meanwhile."""
    if each.newest.reason in ("repeat", "escalate") and each.incident.state != "open":
        return Drop(f"{each.incident.state} meanwhile")
    return None


def _inhibited(each: Pending, scene: Scene) -> Answer | None:
    """Its cause is open, too: attached to that instead of told on its own."""
    if each.over and each.told:
        return None  # whoever heard that it began hears that it is over
    cause = next((found for found in scene.causes if _explains(found, each.incident, scene.inhibitions)), None)
    if cause is None:
        return None
    why = f"inhibited by incident {cause.id} ({cause.detector})"
    return Drop(f"{why} until it was over") if each.over else Hold(why, scene.at + AGAIN, cause.id)


def _explains(cause: Incident, effect: Incident, inhibitions: Sequence[Inhibition]) -> bool:
    if cause.id == effect.id or cause.state == "resolved" or cause.tenant not in (effect.tenant, OWN):
        return False
    return any(
        cause.detector in each.by
        and effect.detector in each.of
        and SEVERITIES.index(cause.severity) >= SEVERITIES.index(each.least)
        for each in inhibitions
    )


def _silenced(each: Pending, scene: Scene) -> Answer | None:
    if each.over and each.told:
        return None
    asked, zone = labels(each.incident), scene.zone(each.incident.tenant)
    for silence in scene.silences:
        if silence.starts_at > scene.at or (silence.ends_at is not None and silence.ends_at <= scene.at):
            continue
        if refusal({label: (pattern,) for label, pattern in silence.matchers.items()}, asked):
            continue
        if silence.recurs and not interval.read(silence.recurs).holds(scene.at, zone):
            continue
        why = f"silenced by {silence.id} ({silence.why or silence.who})"
        if each.over:
            return Drop(f"{why} until it was over")
        # Somebody may end it early, so it is looked at before its end, too.
        return Hold(why, min(scene.at + AGAIN, silence.ends_at or scene.at + AGAIN))
    return None


def _grouped(each: Pending, scene: Scene) -> Answer | None:
    """What an account's message told is updated by another at most every `group_interval`."""
    updated = scene.updated.get(each.incident.tenant)
    if each.told is None or updated is None or each.newest.reason in ("repeat", "escalate"):
        return None
    after = updated + each.route.group_interval
    return Hold(f"grouped: updates every {_spell(each.route.group_interval)}", after) if after > scene.at else None


def _quiet(each: Pending, scene: Scene) -> Answer | None:
    quiet, zone = each.route.quiet, scene.zone(each.incident.tenant)
    if quiet is None or each.urgent or not quiet.holds(scene.at, zone):
        return None
    return Hold(f"quiet hours ({quiet.times.text})", quiet.over(scene.at, zone) or scene.at + HOUR)


Step = Callable[[Pending, Scene], Answer | None]
STEPS: tuple[Step, ...] = (_moot, _inhibited, _silenced, _grouped)


def _bundle(pending: Sequence[Pending]) -> Bundle:
    ordered = tuple(sorted(pending, key=_weight))
    why = ordered[0].newest.reason if len(ordered) == 1 else f"grouped: {len(ordered)} incidents"
    return Bundle("alert", ordered, why)


def _weight(each: Pending) -> tuple[int, int]:
    return -SEVERITIES.index(each.incident.severity), each.incident.id


def _place(bundle: Bundle) -> tuple[int, datetime, int]:
    first = bundle.pending[0]
    return (*_weight(first)[:1], first.newest.staged_at, first.incident.id)


def _budgeted(bundles: Sequence[Bundle], scene: Scene) -> tuple[list[Bundle], list[tuple[Bundle, Answer]]]:
    """As many messages as the hour has left; what is beyond goes out as one summary. Critical ones always do."""
    room = scene.budget - len(scene.sent)
    going: list[Bundle] = []
    beyond: list[Bundle] = []
    for bundle in bundles:
        if bundle.urgent or room > 0:
            going.append(bundle)
            room -= not _asleep(bundle, scene)
        else:
            beyond.append(bundle)
    if not beyond:
        return going, []
    used = f"budget: {scene.budget} messages in an hour"
    if scene.summaries:
        after = scene.summaries[-1] + HOUR
        if scene.sent:
            after = min(after, scene.sent[max(0, len(scene.sent) - scene.budget)] + HOUR)
        return going, [(bundle, Hold(f"{used}, and a summary", max(after, scene.at + AGAIN))) for bundle in beyond]
    spent = scene.sent[scene.budget - 1] if len(scene.sent) >= scene.budget else scene.at
    due = spent + SUMMARY_WAIT
    if due > scene.at:
        return going, [(bundle, Hold(f"{used}: in the summary", due)) for bundle in beyond]
    together = tuple(sorted((each for bundle in beyond for each in bundle.pending), key=_weight))
    return [*going, Bundle("summary", together, f"{used}: in the summary")], []


def _asleep(bundle: Bundle, scene: Scene) -> bool:
    """What waits for the end of quiet hours uses up nothing."""
    return all(_quiet(each, scene) for each in bundle.pending)


def _spell(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    return f"{seconds // 60} min" if seconds >= 60 and seconds % 60 == 0 else f"{seconds} s"
