"""Links that stand for an answer: what they hold, how long they are good, and that nobody else can make one."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import URLSafeSerializer

from notify.link import ACTS, SALT, Answer, Expired, NotOurs, linker, read
from tests.factories import NOON

KEY = b"a key of this installation"
LASTING = timedelta(days=1)


def tokens(incident: int = 12) -> dict[str, str]:
    links = linker("https://bw.example", KEY, "nonce", NOON, LASTING)(incident)
    assert all(url.startswith("https://bw.example/answer/") for url in (links.page, *links.acts.values()))
    return {act: url.rpartition("/")[2] for act, url in {"": links.page, **links.acts}.items()}


@given(st.integers(1, 10**12))
def test_a_link_holds_its_incident_and_its_act(incident: int) -> None:
    expires = int((NOON + LASTING).timestamp())
    found = {act: read(token, KEY, NOON) for act, token in tokens(incident).items()}
    assert found == {act: Answer(incident, act, "nonce", expires) for act in ("", *ACTS)}


def test_a_link_is_good_until_it_is_not() -> None:
    token = tokens()["ack"]
    assert read(token, KEY, NOON + LASTING - timedelta(seconds=1)).act == "ack"
    with pytest.raises(Expired):
        read(token, KEY, NOON + LASTING)


def test_a_link_is_short() -> None:
    assert max(map(len, tokens(10**9).values())) < 120


@pytest.mark.parametrize("change", ["key", "cut", "letter", "salt", "shape", "empty"])
def test_a_link_that_is_not_ours_is_refused(change: str) -> None:
    token, key = tokens()["ack"], KEY
    if change == "key":
        key = b"another key"
    elif change == "cut":
        token = token[:-1]
    elif change == "letter":
        token = ("A" if token[0] != "A" else "B") + token[1:]
    elif change == "salt":
        token = str(URLSafeSerializer(KEY, b"another").dumps([12, "ack", "nonce", 9999999999]))
    elif change == "shape":
        token = str(URLSafeSerializer(KEY, SALT).dumps([12, "resolve", "nonce", 9999999999]))
    else:
        token = ""
    with pytest.raises(NotOurs):
        read(token, key, NOON)


@given(st.text(max_size=200))
def test_no_text_is_a_link(text: str) -> None:
    with pytest.raises(NotOurs):
        read(text, KEY, NOON)
