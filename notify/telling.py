"""What is told: the incidents of a message, the links it offers, and its words in each form of a channel. Pure."""

from collections.abc import Callable

from msgspec import Struct

from billingwatch.model import Incident, Reason


class Telling(Struct, frozen=True, kw_only=True):
    """One incident of a message. `told` is the observed value that people were last told, None where none was."""

    incident: Incident
    reason: Reason
    told: float | None = None
    attached: tuple[Incident, ...] = ()  # what is not told on its own, since this incident explains it


class Links(Struct, frozen=True):
    """Signed addresses of one incident's answers, each good for one use: `act` -> address; `page` offers them all."""

    page: str
    acts: dict[str, str] = {}  # "ack", "snooze_1h", "snooze_1d", "expected", "false_alarm"


Linker = Callable[[int], Links]  # of an incident's id


class Message(Struct, frozen=True):
    """One message in each form; a channel is sent the richest that it takes. The title is one line of plain text."""

    title: str
    text: str
    markdown: str = ""  # "" where there is only plain text
    html: str = ""
