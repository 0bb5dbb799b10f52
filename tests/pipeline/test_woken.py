"""The messages that the manual shows: five nights on which somebody is woken, played from event to message.

Each is a simulated account's ten days through the store, the nightly lessons, a judgement each minute and the sending;
what arrives is held against docs/alerts.md to the letter. `UPDATE_MANUAL=1` writes it there.
"""

import os
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct
from psycopg import Connection

from billingwatch.model import Channel, utc
from billingwatch.rules import Rules
from billingwatch.simulator.incidents import parse
from billingwatch.simulator.stream import Scenario, simulate
from billingwatch.store import markers, outbox
from billingwatch.store.markers import Marker
from detectors.registry import configure
from tests.factories import LIVE
from tests.pipeline.play import play
from tests.pipeline.sink import listening
from worker.deliver import drain
from worker.process import Process

MANUAL = Path(__file__).parents[2] / "docs" / "alerts.md"
START = 1_788_220_800  # a Tuesday in September, 00:00 UTC
DAY, HOUR = 86_400, 3600
ZONE = {"time_zone": "Europe/Berlin"}


class Night(Struct, frozen=True):
    """What goes wrong on the tenth day, `hours` of it are judged; and what is told of it."""

    name: str
    planted: str
    volume: float  # first attempts a day
    seed: int
    hours: tuple[float, float]
    deploy: float = 0.0  # hours of the day; 0: none


NIGHTS = (
    Night("Card testing", "card_testing@+9d1h50m,size=12,for=40m", 200, 3, (1.5, 2.75)),
    Night("Payments fail after a deploy", "failed_payments@+9d19h,size=0.7,for=2h", 300, 3, (18.5, 21), deploy=18.9),
    Night("Customers are charged twice", "duplicate_charges@+9d14h,size=0.9,for=1h", 400, 4, (13.5, 15)),
    Night("A script refunds in a loop", "refund_spike@+9d1h,size=300,for=1h", 200, 5, (0.9, 2)),
    Night("Webhooks fall silent", "webhook_silence@+9d14h,for=3h", 200, 3, (13.5, 16)),
)


@pytest.fixture
def desk(process: Process) -> Process:
    process.plans = configure(ZONE)[0]
    return process


@pytest.mark.parametrize("night", NIGHTS, ids=lambda night: night.name)
def test_the_manual_shows_what_really_comes(desk: Process, conn: Connection, night: Night) -> None:
    day = START + 9 * DAY
    first, last = (day + int(each * HOUR) for each in night.hours)
    if night.deploy:
        at = utc(day + night.deploy * HOUR)
        markers.add(conn, Marker(tenant=LIVE, kind="deploy", starts_at=at, ends_at=at, text="v2.31", who="ci"))
    scenario = Scenario(seed=night.seed, start=START, days=10, volume=night.volume, incidents=(parse(night.planted),))
    stream = [(event["created"] + 2, msgspec.json.encode(event)) for event in simulate(scenario)]
    arrived = [each for each in stream if each[0] <= last]
    play(conn, [*arrived, (last, arrived[0][1])], desk.plans, judge_from=first)  # one comes again, so that time goes on
    with listening() as sink:
        desk.rules = Rules(channels={"ops": Channel(sink.url)})
        (staged,) = conn.execute("SELECT min(next_try) FROM alerts").fetchall()[0]
        drain(desk, "ops", lambda: staged + timedelta(seconds=1))
    assert sink.posted, "nobody is woken"
    message = f"{sink.posted[0]['title']}\n\n{sink.posted[0]['message'].strip()}"
    assert outbox.due_channels(conn, staged) == []
    told = manual()
    if os.environ.get("UPDATE_MANUAL"):
        told[night.name] = message
        write(told)
    assert told[night.name] == message


BLOCK = "### {name}\n\n```text\n{message}\n```\n"
SHOWN = re.compile(r"### ([^\n]+)\n\n```text\n(.*?)\n```\n", re.DOTALL)
BEGIN, END = "<!-- nights -->\n", "<!-- end of nights -->\n"


def manual() -> dict[str, str]:
    """What the manual shows, by the name of the night."""
    text = MANUAL.read_text(encoding="utf-8")
    return dict(SHOWN.findall(text[text.index(BEGIN) : text.index(END)]))


def write(told: dict[str, str]) -> None:
    text = MANUAL.read_text(encoding="utf-8")
    shown = "\n".join(BLOCK.format(name=each.name, message=told.get(each.name, "")) for each in NIGHTS)
    MANUAL.write_text(f"{text[: text.index(BEGIN)]}{BEGIN}\n{shown}\n{text[text.index(END) :]}", encoding="utf-8")
