"""The picture of an alert: a small PNG of whatever there is, and nothing where there is nothing."""

import struct
import sys
import zlib
from datetime import timedelta
from itertools import pairwise
from math import inf, nan
from zoneinfo import ZoneInfo

import pytest
import vl_convert
from msgspec.structs import replace

from billingwatch import picture
from billingwatch.model import SEVERITIES, Incident, Severity, Tenant
from billingwatch.picture import HEIGHT, LARGEST, NAMES, SCALE, WIDTH, Hours, draw, squeezed
from detectors.catalogue import LINES
from tests.factories import NOON, incident

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = 3600
START = int(NOON.timestamp()) - 48 * HOUR
HOURS = Hours(
    line="refund",
    start=START,
    end=START + 48 * HOUR,
    counts=[*[2.0, 4.0, 3.0] * 15, 9.0, 22.0, 41.0],
    middle=[3.0] * 48,
    low=[0.0] * 48,
    high=[7.5] * 48,
)
SPIKE = incident(first_breach_at=NOON - timedelta(hours=2))
UNKNOWN = [nan] * 48


def size(png: bytes) -> tuple[int, int]:
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack_from(">II", png, 16)
    return width, height


def pixels(png: bytes) -> bytes:
    """What is drawn, line by line, as the filters of PNG left it."""
    place = png.index(b"IDAT")
    (length,) = struct.unpack_from(">I", png, place - 4)
    return zlib.decompress(png[place + 4 : place + 4 + length])


def drawn(of: Incident = SPIKE, hours: Hours = HOURS) -> bytes:
    png = draw(of, hours, BERLIN)
    assert png is not None
    return png


def test_picture_is_small_and_fits_a_phone() -> None:
    png = drawn()
    assert size(png) == (WIDTH * SCALE, HEIGHT * SCALE)
    assert len(png) < LARGEST
    assert squeezed(png) == png  # it reads what it wrote


@pytest.mark.parametrize(
    ("of", "hours"),
    [
        (SPIKE, replace(HOURS, middle=UNKNOWN, low=UNKNOWN, high=UNKNOWN)),
        (SPIKE, replace(HOURS, low=UNKNOWN, high=UNKNOWN)),
        (SPIKE, replace(HOURS, counts=[*[nan] * 47, 3.0])),
        (SPIKE, replace(HOURS, counts=[0.0] * 48, middle=[0.0] * 48, high=[0.0] * 48)),
        (SPIKE, replace(HOURS, line="revenue.usd", currency="usd", counts=[31_250.5] * 48)),
        (incident(first_breach_at=NOON - timedelta(days=9)), HOURS),
        (incident(first_breach_at=NOON + timedelta(hours=1)), HOURS),
        (incident(resolved_at=NOON + timedelta(hours=5)), HOURS),
        (incident(first_breach_at=NOON - timedelta(days=9), resolved_at=NOON - timedelta(days=8)), HOURS),
        (incident(tenant=Tenant('<b>"\\n' * 40, False), detector="x" * 300), replace(HOURS, line="rules.x")),
    ],
    ids=[
        "nothing usual",
        "only a middle",
        "one hour",
        "zeros",
        "money",
        "begun before",
        "begins after",
        "ends after",
        "over before",
        "strange names",
    ],
)
def test_whatever_is_known_is_drawn_in_the_same_size(of: Incident, hours: Hours) -> None:
    assert size(drawn(of, hours)) == (WIDTH * SCALE, HEIGHT * SCALE)


@pytest.mark.parametrize("line", [*NAMES, *LINES, "revenue.kwd", "mrr_lost.usd", "rules.mine"])
def test_title_leaves_room_for_the_legend(line: str) -> None:
    currency = "usd" if line.partition(".")[0] in {"revenue", "mrr_lost", "rules"} else ""
    title = picture._title(incident(detector="x" * 99), replace(HOURS, line=line, currency=currency))
    assert len(title) <= 37
    assert not title.startswith("x") or line in {"rules.mine", "contraction"}


@pytest.mark.parametrize("severity", SEVERITIES)
def test_severity_is_told_apart(severity: Severity) -> None:
    others = {each for each in SEVERITIES if each != severity}
    mine = pixels(drawn(replace(SPIKE, severity=severity)))
    assert all(mine != pixels(drawn(replace(SPIKE, severity=each))) for each in others)


def test_times_are_those_of_the_zone_and_through_a_change_of_the_clocks() -> None:
    at = START + 20 * 24 * HOUR  # on the 29th of March the clocks of Berlin go forward
    found = dict(picture._ticks(replace(HOURS, start=at, end=at + 48 * HOUR), BERLIN))
    assert [*found.values()] == ["18:00", "Sun 29", "06:00", "12:00", "18:00", "Mon 30", "06:00", "12:00"]
    places = [*found]
    assert [(after - before) // HOUR for before, after in pairwise(places)] == [6, 5, 6, 6, 6, 6, 6]


def test_zone_that_is_off_by_part_of_an_hour_has_its_own_hours() -> None:
    found = dict(picture._ticks(HOURS, ZoneInfo("Asia/Kathmandu")))
    assert {at % HOUR for at in found} == {HOUR // 4}


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw(SPIKE, replace(HOURS, counts=UNKNOWN), BERLIN) is None


def test_without_the_extra_or_when_it_fails_there_is_no_picture_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> int:
        """How often since it was asked, wherever logs go: a command that another test ran has sent them elsewhere."""
        count = (capsys.readouterr().out + caplog.text).count("no_pictures")
        caplog.clear()
        return count

    picture._tell.cache_clear()
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "vl_convert", None)
        assert [draw(SPIKE, HOURS, BERLIN) for _ in range(3)] == [None] * 3
    assert said() == 1
    assert draw(SPIKE, replace(HOURS, counts=[*[1.0] * 47, inf]), BERLIN)  # what is no number is left out
    monkeypatch.setattr(vl_convert, "vegalite_to_png", lambda spec, scale: b"no picture")
    assert [draw(SPIKE, HOURS, BERLIN) for _ in range(3)] == [None] * 3
    assert said() == 1
    picture._tell.cache_clear()
