"""Reading an event's envelope: what is an event, what is not and why, and what foreign text does to it."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors.event import Unreadable, read_event

ENVELOPE = {"id": "evt_1", "object": "event", "type": "charge.failed", "created": 1789380002}
THIN = {
    "id": "evt_2",
    "object": "v2.core.event",
    "type": "v1.charge.failed",
    "created": "2026-09-14T10:00:02.000Z",
    "livemode": True,
    "context": "acct_7",
    "related_object": {"id": "ch_1", "type": "charge", "url": "/v1/charges/ch_1"},
}


def body(**changes: Any) -> bytes:
    return msgspec.json.encode(ENVELOPE | changes)


def about(thing: bytes) -> bytes:
    """An event whose object is this text, whatever it is."""
    return body()[:-1] + b',"data":{"object":' + thing + b"}}"


NO_EVENTS: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "no JSON"),
    "cut off": (body()[:-1], "no JSON"),
    "followed by something": (body() + b"x", "no JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + body(), "no JSON"),
    "not UTF-8": (body(id="evt_x").replace(b"evt_x", b"\xff"), "no JSON"),
    "UTF-16": (body().decode().encode("utf-16"), "no JSON"),
    "form data": (b"id=evt_1&type=charge.failed", "no JSON"),
    "null": (b"null", "no Stripe event: Expected `object`, got `null`"),
    "a list": (b"[" + body() + b"]", "no Stripe event: Expected `object`, got `array`"),
    "an empty object": (b"{}", "no Stripe event: Object missing required field `id`"),
    "no type": (b'{"id":"evt_1","created":1}', "no Stripe event: Object missing required field `type`"),
    "no created": (b'{"id":"evt_1","type":"a"}', "no Stripe event: Object missing required field `created`"),
    "id is a number": (body(id=4711), "no Stripe event: Expected `str`, got `int` - at `$.id`"),
    "id is empty": (body(id=""), "no Stripe event: id or type is empty or holds NUL"),
    "type is empty": (body(type=""), "no Stripe event: id or type is empty or holds NUL"),
    "id holds NUL": (body(id="evt_\0"), "no Stripe event: id or type is empty or holds NUL"),
    "type holds NUL": (body(type="charge\0"), "no Stripe event: id or type is empty or holds NUL"),
    "created is a truth": (body(created=True), "no Stripe event: Expected `int | str`, got `bool` - at `$.created`"),
    "created is a fraction": (
        body(created=1.5),
        "no Stripe event: Expected `int | str`, got `float` - at `$.created`",
    ),
    "created is a word": (body(created="yesterday"), "no Stripe event: created is no time"),
    "created is a far year": (body(created="99999-01-01T00:00:00Z"), "no Stripe event: created is no time"),
    "created has no zone": (body(created="2026-09-14T10:00:02"), "no Stripe event: created has no time zone"),
    "livemode is a word": (body(livemode="yes"), "no Stripe event: Expected `bool`, got `str` - at `$.livemode`"),
    "account is a list": (
        body(account=["acct_1"]),
        "no Stripe event: Expected `str | null`, got `array` - at `$.account`",
    ),
    "data is a list": (body(data=[]), "no Stripe event: Expected `object | null`, got `array` - at `$.data`"),
    "nested without end": (body()[:-1] + b',"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    "nested without end in its object": (about(b"[" * 100_000 + b"]" * 100_000), "nested too deeply"),
}


@pytest.mark.parametrize("case", NO_EVENTS)
def test_what_is_no_event_is_refused_with_its_reason(case: str) -> None:
    bad, reason = NO_EVENTS[case]
    with pytest.raises(Unreadable) as caught:
        read_event(bad)
    assert str(caught.value) == reason


def test_the_least_an_event_can_be() -> None:
    event = read_event(b'{"id":"evt_1","type":"ping","created":5}')
    assert (event.id, event.type, event.created, event.livemode) == ("evt_1", "ping", 5, False)
    assert (event.account, event.api_version, event.object_id, event.customer) == ("", "", "", "")
    assert (bytes(event.object), bytes(event.previous)) == (b"{}", b"{}")


def test_a_snapshot_event_whole() -> None:
    thing = {"id": "sub_1", "object": "subscription", "customer": "cus_1"}
    data = {"object": thing, "previous_attributes": {"status": "trialing"}}
    event = read_event(body(livemode=True, account="acct_1", api_version="2024-06-20", data=data, context="acct_9"))
    assert (event.livemode, event.account, event.api_version) == (True, "acct_1", "2024-06-20")
    assert (event.object_id, event.customer) == ("sub_1", "cus_1")
    assert msgspec.json.decode(event.object) == thing
    assert msgspec.json.decode(event.previous) == {"status": "trialing"}


def test_a_snapshot_events_context_is_no_account() -> None:
    assert read_event(body(account=None, context="org_1")).account == ""


@pytest.mark.parametrize(
    ("changes", "created", "account", "object_id"),
    [
        ({}, 1789380002, "acct_7", "ch_1"),
        ({"created": "2026-09-14T12:00:02+02:00"}, 1789380002, "acct_7", "ch_1"),
        ({"created": 1789380002}, 1789380002, "acct_7", "ch_1"),
        ({"context": None}, 1789380002, "", "ch_1"),
        ({"account": "acct_8"}, 1789380002, "acct_8", "ch_1"),
        ({"related_object": None}, 1789380002, "acct_7", ""),
        ({"data": {"object": {"id": "not_this"}}}, 1789380002, "acct_7", "ch_1"),
    ],
)
def test_a_thin_event_names_its_object_and_account(
    changes: dict[str, Any], created: int, account: str, object_id: str
) -> None:
    event = read_event(msgspec.json.encode(THIN | changes))
    assert (event.id, event.livemode, event.customer) == ("evt_2", True, "")
    assert (event.created, event.account, event.object_id) == (created, account, object_id)


@pytest.mark.parametrize(
    ("thing", "object_id", "customer"),
    [
        (b'{"id":"ch_1","customer":"cus_1"}', "ch_1", "cus_1"),
        (b'{"id":"ch_1","customer":{"id":"cus_1","email":"a@example.com"}}', "ch_1", "cus_1"),
        (b'{"id":"ch_1","customer":{"id":5}}', "ch_1", ""),
        (b'{"id":"ch_1","customer":["cus_1"]}', "ch_1", ""),
        (b'{"id":"ch_1","customer":null}', "ch_1", ""),
        (b'{"id":"cus_1","object":"customer"}', "cus_1", "cus_1"),
        (b'{"object":"balance"}', "", ""),
        (b'{"id":5,"customer":"cus_1"}', "", ""),
        (b"[]", "", ""),
        (b"null", "", ""),
        (b'"ch_1"', "", ""),
        (rb'{"id":"ch_\u00001","customer":"cus\u0000_1"}', "ch_1", "cus_1"),
    ],
)
def test_the_objects_id_and_customer(thing: bytes, object_id: str, customer: str) -> None:
    event = read_event(about(thing))
    assert (event.object_id, event.customer) == (object_id, customer)


def test_nul_is_taken_out_of_what_becomes_a_column() -> None:
    event = read_event(body(account="acct\0_1", api_version="2024\0"))
    assert (event.account, event.api_version) == ("acct_1", "2024")


@pytest.mark.parametrize("half", [rb"\ud800", rb"\uDFFF", rb"\ud83dx", rb"\ude00\ud83d"])
@pytest.mark.parametrize("place", ["id", "type", "object"])
def test_half_a_surrogate_pair_does_not_hide_an_event(half: bytes, place: str) -> None:
    raw = {"id": b"evt_1", "type": b"charge.failed", "object": b"a name"}
    raw[place] += half
    event = read_event(
        b'{"id":"%(id)s","type":"%(type)s","created":5,"data":{"object":{"id":"ch_1","name":"%(object)s"}}}'
        % {key.encode(): value for key, value in raw.items()}
    )
    assert event.id.startswith("evt_1")
    assert event.type.startswith("charge.failed")
    assert event.object_id == "ch_1"
    for text in (event.id, event.type):
        text.encode()  # half a pair would raise


def test_a_whole_surrogate_pair_is_kept() -> None:
    assert read_event(body(account="x").replace(b'"x"', rb'"\ud83d\ude00"')).account == "\N{GRINNING FACE}"


@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: about(text.encode())))
def test_any_bytes_are_an_event_or_unreadable(raw: bytes) -> None:
    try:
        answer = read_event(raw).id
    except Unreadable as refusal:
        answer = str(refusal)
    assert answer.startswith(("evt_1", "no JSON", "no Stripe event: ", "nested too deeply"))


@given(
    st.from_regex(r"[a-z]{12}", fullmatch=True),
    st.sampled_from(["id", "type", "created", "livemode", "account", "data"]),
)
def test_a_refusal_never_quotes_the_content(secret: str, place: str) -> None:
    wrong = {"created": secret} if place == "created" else {place: [secret]}
    with pytest.raises(Unreadable) as caught:
        read_event(body(**wrong))
    assert secret not in str(caught.value)
