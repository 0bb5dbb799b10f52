"""Signed links as browsers, phones and whatever previews links ask for them: looking never acts, pressing acts once."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from psycopg import Connection

from billingwatch.model import Incident, Money
from billingwatch.store import acts, audit, feedback, incidents, links, markers, silences
from console import pages
from console.answer import OFFERS
from console.app import LARGEST
from notify.link import ACTS as KNOWN
from tests.factories import NOON, incident
from tests.pipeline.consoles import Console, serving, token
from tests.waiting import together

MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
NOW = NOON + 40 * MINUTE


@pytest.fixture
def console(database_url: str) -> Iterator[Console]:
    yield from serving(database_url, NOW)


@pytest.fixture
def opened(conn: Connection) -> int:
    noon = int(NOON.timestamp())
    signal = {
        "detector": "refund_spike",
        "scope": "",
        "since": noon - 1500,
        "window": [noon - 1800, noon],
        "observed": 12.0,
        "expected": 0.5,
        "usual": [0.0, 2.1],
        "unit": 1.0,
        "out_of": 0.0,
        "score": 6.5,
        "needed": 5.9,
    }
    changes = {
        "at_risk": (Money(182300, "usd"), Money(5000, "jpy")),
        "customers": 31,
        "evidence": {"signals": [signal]},
    }
    id_ = incidents.open_incident(conn, incident(**changes))
    assert id_ is not None
    incidents.log(conn, id_, NOON, None, "open", "first", "billingwatch")
    return id_


def found(conn: Connection, id_: int) -> Incident:
    stored = incidents.read_one(conn, id_)
    assert stored is not None
    return stored


# --- looking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["", *OFFERS])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_looking_acts_on_nothing_however_often(
    conn: Connection, console: Console, opened: int, act: str, method: str
) -> None:
    link = token(conn, opened, act)
    for _ in range(3):
        assert console.ask(f"/answer/{link}", method).status == 200
    assert found(conn, opened).state == "open"
    assert (audit.read(conn), silences.read_all(conn), markers.read_all(conn)) == ([], [], [])
    assert feedback.latest(conn, opened) is None
    assert conn.execute("SELECT count(*) FROM used_links").fetchone() == (0,)


def test_page_says_what_happened_since_when_at_what_cost_and_what_the_button_does(
    conn: Connection, console: Console, opened: int
) -> None:
    page = console.look(token(conn, opened, "ack")).body
    for part in (
        f"incident {opened}",
        "12 refunds in the last hour; usually 0.5 an hour",
        "<dd>refund spike</dd>",
        "open, acknowledged by nobody",
        "2026-03-10 12:00 UTC (40 min)",
        "1,823.00 USD + 5,000 JPY",
        "31",
        ">Acknowledge</button>",
        "Says that somebody looks after it",
    ):
        assert part in page
    assert page.count('<form method="post">') == page.count("<button") == 1
    assert "Evidence" not in page


def test_page_of_the_incident_offers_everything_with_evidence_and_log(
    conn: Connection, console: Console, opened: int
) -> None:
    page = console.look(token(conn, opened)).body
    for offer in OFFERS.values():
        assert f'value="{offer.act}">{offer.label}</button>' in page
    for part in (
        "observed 12, expected 0.5",
        "score 6.5, 5.9 needed",
        "2026-03-10 12:00 UTC: open, first, by billingwatch",
    ):
        assert part in page


def test_head_has_the_headers_of_get_and_no_body(conn: Connection, console: Console, opened: int) -> None:
    path = f"/answer/{token(conn, opened, 'ack')}"
    get, head = console.ask(path), console.ask(path, "HEAD")
    assert head.body == ""
    assert get.headers.keys() == head.headers.keys()
    assert get.headers["content-length"] == head.headers["content-length"]


def test_what_events_brought_is_shown_as_text_without_addresses(conn: Connection, console: Console) -> None:
    why = '<script>alert(1)</script> by eve@example.com & "4242 4242 4242 4242"'
    id_ = incidents.open_incident(conn, incident(why=why, scope="<b>x</b>"))
    assert id_ is not None
    page = console.look(token(conn, id_)).body
    assert "&lt;script&gt;alert(1)&lt;/script&gt; by [address] &amp; &#34;[number]&#34;" in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    for raw in ("<script", "<b>", "eve@", "4242"):
        assert raw not in page


# --- pressing ---------------------------------------------------------------------------------------------------------

# (act, the state afterwards, what the page says after "Done. Incident N ")
ACTS = [
    ("ack", "acked", "is acked."),
    ("snooze_1h", "open", "is snoozed until 2026-03-10 13:40 UTC."),
    ("snooze_1d", "open", "is snoozed until 2026-03-11 12:40 UTC."),
    ("expected", "acked", "is called expected, and acked."),
    ("false_alarm", "acked", "is called a false alarm, and acked."),
]


@pytest.mark.parametrize(("act", "state", "says"), ACTS)
@pytest.mark.parametrize("whole", [False, True], ids=["own link", "page"])
def test_pressed_once_it_acts_and_pressed_again_it_says_that_it_was_used(
    conn: Connection, console: Console, opened: int, act: str, state: str, says: str, whole: bool
) -> None:
    link = token(conn, opened, "" if whole else act)
    done = console.press(link, act)
    assert (done.status, f"Done. Incident {opened} {says}" in done.body) == (200, True)
    assert found(conn, opened).state == state
    ((who, subject),) = [(row["who"], row["subject"]) for row in audit.read(conn)]
    assert (who, subject) == ("link", f"incident {opened}")
    again = console.press(link, act)
    assert (again.status, "This link was used already." in again.body) == (409, True)
    assert "2026-03-10 12:40 UTC: " in again.body
    assert ", by link" in again.body
    assert (len(audit.read(conn)), found(conn, opened).state) == (1, state)
    assert (len(silences.read_all(conn)), len(markers.read_all(conn))) == (act.startswith("snooze"), act == "expected")
    looked = console.look(link)
    assert looked.status == (200 if whole else 409)
    assert f'value="{act}"' not in looked.body


def test_links_of_one_message_are_used_incident_by_incident_and_act_by_act(
    conn: Connection, console: Console, opened: int
) -> None:
    other = incidents.open_incident(conn, incident(scope="price_1"))
    assert other is not None
    assert console.press(token(conn, opened, "ack", nonce="one message")).status == 200
    assert console.press(token(conn, opened, "", nonce="one message"), "ack").status == 409
    assert console.press(token(conn, opened, "expected", nonce="one message")).status == 200
    assert console.press(token(conn, other, "ack", nonce="one message")).status == 200
    assert [found(conn, each).state for each in (opened, other)] == ["acked", "acked"]


def test_every_act_of_a_link_is_offered() -> None:
    assert tuple(OFFERS) == KNOWN


def test_link_with_one_act_needs_no_name_and_takes_no_other(conn: Connection, console: Console, opened: int) -> None:
    link = token(conn, opened, "ack")
    assert console.press(link, "expected").status == 404
    assert found(conn, opened).state == "open"
    assert console.press(link).status == 200
    assert found(conn, opened).state == "acked"


@pytest.mark.parametrize("act", ["", "resolve", "new_normal", "page", "<b>"])
def test_page_does_only_what_it_offers(conn: Connection, console: Console, opened: int, act: str) -> None:
    assert console.press(token(conn, opened), act).status == 404
    assert (found(conn, opened).state, audit.read(conn)) == ("open", [])


def test_of_eight_who_press_at_once_one_acts(conn: Connection, console: Console, opened: int) -> None:
    link = token(conn, opened, "ack")
    replies = together(*[lambda: console.press(link, "ack").status] * 8)
    assert sorted(replies) == [200] + [409] * 7
    assert len(audit.read(conn)) == 1


def test_what_somebody_did_before_is_said_with_their_name_and_offered_no_more(
    conn: Connection, console: Console, opened: int
) -> None:
    with conn.transaction():
        acts.ack(conn, opened, "ada", NOON + 10 * MINUTE, "secret note")
    link = token(conn, opened, "ack")
    looked = console.look(link)
    assert looked.status == 200
    assert f"Incident {opened} is acked already. There is nothing to do." in looked.body
    assert "2026-03-10 12:10 UTC: acknowledged, by ada" in looked.body
    assert "<button" not in looked.body
    assert "secret note" not in looked.body
    pressed = console.press(link, "ack")
    assert (pressed.status, f"Incident {opened} is acked already." in pressed.body) == (200, True)
    assert len(audit.read(conn)) == 1
    page = console.look(token(conn, opened)).body
    assert 'value="ack"' not in page
    assert 'value="expected"' in page


def test_what_is_over_can_still_be_judged_but_not_acknowledged(conn: Connection, console: Console, opened: int) -> None:
    with conn.transaction():
        acts.resolve(conn, opened, "ada", NOON + 30 * MINUTE)
    page = console.look(token(conn, opened)).body
    assert "2026-03-10 12:00 UTC (30 min)" in page
    offered = {act for act in OFFERS if f'value="{act}"' in page}
    assert offered == {"expected", "false_alarm"}
    assert "Incident" in console.press(token(conn, opened, "snooze_1h")).body
    assert silences.read_all(conn) == []


# --- links that lead nowhere ------------------------------------------------------------------------------------------


def test_expired_link_is_gone_and_acts_no_more(conn: Connection, console: Console, opened: int) -> None:
    link = token(conn, opened, "ack")
    console.now = NOON + 400 * DAY
    for reply in (console.look(link), console.press(link, "ack")):
        assert (reply.status, "This link has expired" in reply.body) == (410, True)
    assert found(conn, opened).state == "open"


def test_link_that_was_changed_or_signed_elsewhere_is_unknown(conn: Connection, console: Console, opened: int) -> None:
    link = token(conn, opened, "ack")
    flipped = "A" if link[-2] != "A" else "B"
    strange = [
        link[:-2] + flipped + link[-1],
        link[1:],
        link.rpartition(".")[0],
        token(conn, opened, "ack", key=b"another key" * 3),
        token(conn, opened + 404, "ack"),
        "x",
        "%00",
        "%ff.%ff",
        "a" * 5000,
        "../incidents",
    ]
    for each in strange:
        for reply in (console.look(each), console.press(each, "ack")):
            assert (reply.status, "Nothing is here" in reply.body) == (404, True), each
    assert (found(conn, opened).state, audit.read(conn)) == ("open", [])


@pytest.mark.parametrize("path", ["/", "/answer", "/answer/", "/incidents/1", "/answer/a/b", "/api/v1/incidents"])
def test_there_is_no_other_page(console: Console, path: str) -> None:
    assert console.ask(path).status == 404


def test_other_methods_are_refused(conn: Connection, console: Console, opened: int) -> None:
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        reply = console.ask(f"/answer/{token(conn, opened, 'ack')}", method)
        assert reply.status == 405
        assert {"GET", "POST"} <= set(reply.headers["allow"].split(", "))
    assert console.ask("/healthz", "POST").status == 405


def test_body_that_is_no_small_form_is_refused(conn: Connection, console: Console, opened: int) -> None:
    path = f"/answer/{token(conn, opened, 'ack')}"
    form = "application/x-www-form-urlencoded"
    assert console.ask(path, "POST", b"act=ack&x=" + b"x" * LARGEST, content_type=form).status == 413
    assert console.ask(path, "POST", b'{"act": "ack"}', content_type="application/json").status == 415
    assert console.ask(path, "POST", b"\xff\xff", content_type=form).status == 400
    assert console.ask(path, "POST", b"act", content_type=form).status == 400
    assert console.ask(path, "POST", b"&".join([b"act=ack"] * 9), content_type=form).status == 400
    assert found(conn, opened).state == "open"


# --- the process ------------------------------------------------------------------------------------------------------


def test_every_answer_tells_browsers_to_show_it_and_nothing_else(
    conn: Connection, console: Console, opened: int
) -> None:
    link = token(conn, opened, "ack")
    for reply in (
        console.look(link),
        console.press(link),
        console.look("x"),
        console.ask("/"),
        console.ask("/healthz"),
    ):
        assert {name: reply.headers.get(name) for name in pages.HEADERS} == pages.HEADERS
        assert "set-cookie" not in reply.headers
        assert "<script" not in reply.body
        assert "http" not in reply.body.replace("http-equiv", "")


def test_health_needs_no_database(console: Console) -> None:
    reply = console.ask("/healthz")
    assert (reply.status, json.loads(reply.body)) == (200, {"ok": True})


def test_database_that_is_away_is_a_page_and_nothing_of_its_address(caplog: pytest.LogCaptureFixture) -> None:
    for console in serving("postgresql://ada:hunter2@127.0.0.1:1/none", NOW, patience=0.2):
        for reply in (console.look("x"), console.press("x", "ack")):
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
            assert "the link still works" in reply.body
            assert "hunter2" not in reply.body
        assert console.ask("/healthz").status == 200
    assert "hunter2" not in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_connections_that_died_are_replaced(conn: Connection, console: Console, opened: int) -> None:
    link = token(conn, opened, "ack")
    assert console.look(link).status == 200
    killed = conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'billingwatch console' "
        "AND datname = current_database()"
    ).fetchall()
    assert killed
    assert console.look(link).status == 200


def test_act_that_fails_half_way_is_not_done_and_its_link_still_works(
    conn: Connection, console: Console, opened: int
) -> None:
    link = token(conn, opened, "ack")
    conn.execute("ALTER TABLE audit RENAME TO audit_")
    reply = console.press(link)
    assert reply.status == 503
    conn.execute("ALTER TABLE audit_ RENAME TO audit")
    assert (found(conn, opened).state, links.used(conn, "")) == ("open", {})
    assert console.press(link).status == 200


def test_failure_that_nobody_foresaw_is_a_page_that_browsers_handle_like_the_others(
    conn: Connection, console: Console, opened: int
) -> None:
    link = token(conn, opened, "ack")
    console.now = None  # type: ignore[assignment]
    for reply in (console.look(link), console.press(link)):
        assert (reply.status, "Something went wrong" in reply.body) == (500, True)
        assert {name: reply.headers.get(name) for name in pages.HEADERS} == pages.HEADERS
        assert "Traceback" not in reply.body
    assert found(conn, opened).state == "open"
