"""Hostile events among good ones, under load: each is kept somewhere, and its neighbours never notice."""

import json
import time

from tests.faults.audit import audit
from tests.faults.rig import Rig
from tests.faults.sender import Post

RATE = 250  # events a second
EVERY = 25  # of so many events one is hostile


def hostile(id_: str, turn: int) -> bytes:
    """A body that is signed, acknowledged, and trouble for somebody behind the receiver."""
    now = int(time.time())
    event = {"id": id_, "object": "event", "type": "charge.failed", "created": now, "livemode": True}
    plain = json.dumps({**event, "data": {"object": {"id": "ch_1", "amount": 4200, "note": "@"}}})
    bodies = [
        plain.replace("@", r"\u0000"),
        plain.replace("@", r"\ud800"),
        plain.replace('"@"', "[" * 3000 + "]" * 3000),
        plain.replace('"@"', '{"a":' * 60_000 + "1" + "}" * 60_000),
        plain.replace("4200", "9" * 5000),
        plain.replace("4200", "NaN"),
        plain.replace("4200", "1e400"),
        plain.replace('"@"', '"' + "x" * 900_000 + '"'),
        json.dumps({**event, "created": now + 10**9}),
        json.dumps({**event, "created": -(10**30)}),
        json.dumps({**event, "id": ""}),
        json.dumps({**event, "data": "x" * 100}),
        json.dumps({**event, "data": {"object": [1, 2]}, "account": "acct_\0"}),
        json.dumps({"note": id_}),
        json.dumps({"half": id_}) + "}",
    ]
    return bodies[turn % len(bodies)].encode()


def test_hostile_events_harm_no_neighbour(rig: Rig, posts: list[Post]) -> None:
    mixed: list[Post] = []
    bodies: dict[str, bytes] = {}
    for turn, post in enumerate(posts[: RATE * 5]):
        mixed.append(post)
        if turn % EVERY == 0:
            id_ = f"evt_hostile_{turn}"
            bodies[id_] = hostile(id_, turn // EVERY)
            mixed.append(Post(id_, bodies[id_]))
    rig.up()
    with rig.load(mixed, RATE) as stripe:
        stripe.send_all()
    assert stripe.statuses().keys() == {200}
    rig.settle()
    with rig.connect() as conn:
        found = audit(conn, stripe.acked)
        held = {bytes(body) for (body,) in conn.execute("SELECT body FROM quarantine")}
    assert found.twice == ()
    assert found.miscounted == {}
    assert held == {bodies[id_] for id_ in found.lost}
    assert 0 < len(held) < len(bodies)
    assert rig.failed() == 0
