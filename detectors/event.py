"""Read a Stripe event's envelope from raw bytes. Knows nothing of what the event means."""

import re
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct

SNAPSHOT = "event"
THIN = "v2.core.event"


class Unreadable(Exception):
    """The bytes are no Stripe event; the message is the reason, and holds nothing of the content."""


class Event(Struct, frozen=True):
    """An event's envelope. `object` and `previous` are JSON, read further only by who needs them."""

    id: str
    type: str
    created: int  # epoch seconds
    livemode: bool
    account: str  # the connected account, "" for the endpoint's own
    api_version: str
    object: Raw
    previous: Raw  # data.previous_attributes; empty where there are none
    object_id: str
    customer: str


class _Data(Struct):
    object: Raw = Raw(b"{}")
    previous_attributes: Raw = Raw(b"{}")


class _Related(Struct):
    id: str = ""


class _Envelope(Struct):
    id: str
    type: str
    created: int | str
    livemode: bool = False
    object: str = SNAPSHOT
    account: str | None = None
    context: str | None = None
    api_version: str | None = None
    data: _Data | None = None
    related_object: _Related | None = None


class _Object(Struct):
    """What most objects share; an expanded customer is an object with an id."""

    id: str | None = None
    object: str | None = None
    customer: Any = None


# Half a surrogate pair is JSON by the letter, and no text; msgspec and jsonb refuse it. The envelope is read around it.
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")

_envelope = msgspec.json.Decoder(_Envelope)
_object = msgspec.json.Decoder(_Object)


def read_event(body: bytes) -> Event:
    """The envelope of a snapshot or thin event. Raises Unreadable with the reason."""
    try:
        envelope = _decode(body)
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except msgspec.ValidationError as error:
        raise Unreadable(f"no Stripe event: {_place(error)}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Unreadable("no JSON") from None
    if not (envelope.id and envelope.type) or "\0" in envelope.id + envelope.type:
        raise Unreadable("no Stripe event: id or type is empty or holds NUL")
    thin = envelope.object == THIN
    data = envelope.data or _Data()
    object_id, customer = ("", "") if thin else _object_keys(data.object)
    if thin and envelope.related_object:
        object_id = envelope.related_object.id
    return Event(
        id=envelope.id,
        type=envelope.type,
        created=_epoch(envelope.created),
        livemode=envelope.livemode,
        account=_plain(envelope.account or (envelope.context if thin else "") or ""),
        api_version=_plain(envelope.api_version or ""),
        object=data.object,
        previous=data.previous_attributes,
        object_id=_plain(object_id),
        customer=_plain(customer),
    )


def _decode(body: bytes) -> _Envelope:
    try:
        return _envelope.decode(body)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        return _envelope.decode(mend(body))


def mend(body: bytes) -> bytes:
    """JSON without halves of surrogate pairs."""
    return _SURROGATE.sub(rb"\\ufffd", body)


def _object_keys(raw: Raw) -> tuple[str, str]:
    """The id and customer of `data.object`; "" for what is absent or of another shape."""
    try:
        found = _object.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return "", ""
    customer = found.customer.get("id") if isinstance(found.customer, dict) else found.customer
    if found.object == "customer":
        customer = found.id
    return found.id or "", customer if isinstance(customer, str) else ""


def _epoch(created: int | str) -> int:
    """Snapshot events carry seconds, thin ones an ISO 8601 string."""
    if isinstance(created, int):
        return created
    try:
        moment = datetime.fromisoformat(created)
    except ValueError:
        raise Unreadable("no Stripe event: created is no time") from None
    if moment.tzinfo is None:
        raise Unreadable("no Stripe event: created has no time zone")
    return int(moment.timestamp())


def _plain(text: str) -> str:
    """Postgres holds no NUL in text."""
    return text.replace("\0", "")


def _place(error: msgspec.ValidationError) -> str:
    """msgspec's message names types and the path, and quotes no value but an unknown enum's, of which we have none."""
    return str(error)
