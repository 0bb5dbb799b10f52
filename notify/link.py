"""Signed links: whoever has one may give one answer about one incident, once, for some days. Pure.

The signature is itsdangerous'; that a link works once is the store's matter, by its nonce.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from itsdangerous import BadSignature, URLSafeSerializer
from msgspec import Struct

from notify.telling import Linker, Links

ACTS = ("ack", "snooze_1h", "snooze_1d", "expected", "false_alarm")
SALT = b"billingwatch.answer"
LASTING = timedelta(days=3)


class Answer(Struct, frozen=True):
    """What a link stands for; the act "" is the page that offers them all."""

    incident: int
    act: str
    nonce: str
    expires: int  # epoch seconds


class LinkError(Exception):
    """The link is good for nothing."""


class NotOurs(LinkError):
    """Nobody here signed this link."""


class Expired(LinkError):
    """This link was good until some days ago."""


def linker(base_url: str, key: bytes, nonce: str, now: datetime, lasting: timedelta = LASTING) -> Linker:
    """Links below the console's public address, which are good until `lasting` after `now` (aware).

    All links of one message share its nonce, which nobody can guess.
    """
    expires = int((now + lasting).timestamp())
    serializer = URLSafeSerializer(key, SALT)

    def links(incident: int) -> Links:
        def url(act: str) -> str:
            return f"{base_url}/answer/{serializer.dumps([incident, act, nonce, expires])}"

        return Links(url(""), {act: url(act) for act in ACTS})

    return links


def read(token: str, key: bytes, now: datetime) -> Answer:
    """What the token of a link stands for. Raises NotOurs or Expired."""
    try:
        found = URLSafeSerializer(key, SALT).loads(token)
    except BadSignature:
        raise NotOurs from None
    if not _is_answer(found):
        raise NotOurs
    answer = Answer(*found)
    if now.timestamp() >= answer.expires:
        raise Expired
    return answer


def _is_answer(found: object) -> bool:
    if not isinstance(found, Sequence) or [type(each) for each in found] != [int, str, str, int]:
        return False
    return found[1] in ("", *ACTS)
