"""Incidents as people and scripts are told of them, and what they say to them."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins
from msgspec.structs import replace
from psycopg import Connection

from billingwatch.model import OWN, Money, Silence
from billingwatch.store import audit, deliveries, incidents, markers, outbox, silences
from billingwatch.store.deliveries import Delivery
from detectors.contributors import Contributor
from tests.factories import LIVE, NOON, TEST, incident
from tests.pipeline import command
from tests.pipeline.command import isolate

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> None:
    """This test's database, no file in the working folder, and a wide terminal."""
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("COLUMNS", "200")


run, succeed = partial(command.run, "incidents"), partial(command.succeed, "incidents")


def told(*arguments: str) -> Any:
    """What the command says to programs."""
    return json.loads(succeed(*arguments, "--json"))


def stored(conn: Connection, **changes: Any) -> int:
    id_ = incidents.open_incident(conn, incident(**changes))
    assert id_ is not None
    incidents.log(conn, id_, NOON, None, "open", "first", "billingwatch")
    return id_


def state(conn: Connection, id_: int) -> str:
    found = incidents.read_one(conn, id_)
    assert found is not None
    return found.state


@pytest.fixture
def opened(conn: Connection) -> int:
    """An open incident with its log and a message that could not be sent; its id."""
    id_ = stored(conn, at_risk=(Money(182300, "usd"), Money(5000, "jpy")), customers=31, scope="price_1")
    alerts = (outbox.stage(conn, id_, "ops", "first", "default route", NOON, NOON),)
    message = Delivery(channel="ops", kind="alert", title="Title", body="Body", alerts=alerts)
    first = deliveries.begin(conn, message, NOON)
    assert outbox.claim(conn, outbox.waiting(conn, "ops", NOON), first, "first", NOON)
    deliveries.end(conn, first, "unknown", "the sender died", NOON + MINUTE)
    outbox.again(conn, first, NOON, "the sender died")
    second = deliveries.begin(conn, replace(message, repeats=first), NOON + MINUTE)
    assert outbox.claim(conn, outbox.waiting(conn, "ops", NOON), second, "first", NOON + MINUTE)
    deliveries.end(conn, second, "refused", "HTTP 404", NOON + MINUTE + timedelta(seconds=2))
    outbox.give_up(conn, second, "HTTP 404")
    return id_


# --- list and show ----------------------------------------------------------------------------------------------------


def test_incidents_of_a_new_installation() -> None:
    assert succeed() == succeed("list") == "No incidents.\n"
    assert told("list") == []


def test_incident_is_listed_and_shown_to_people(opened: int) -> None:
    listed = succeed()
    assert f"{opened}" in listed
    assert "refund_spike" in listed
    assert "12 refunds in the last hour" in listed
    shown = succeed("show", str(opened))
    for part in ("1,823.00 USD, 5,000 JPY", "31", "price_1", "open", "by billingwatch"):
        assert part in shown
    for absent in ("Silenced", "Feedback", "Done by people", "Proposed"):
        assert absent not in shown


def test_each_message_is_shown_with_its_decision_and_what_became_of_it(opened: int) -> None:
    shown = succeed("show", str(opened))
    for part in (
        "2026-03-10 12:00:00  ops: first, given_up after 2 tries: HTTP 404 (default route)",
        "decided: first",
        "(alert), begun 2026-03-10 12:01:00: refused after 2.0 s: HTTP 404; may have arrived already as delivery ",
    ):
        assert part in shown


def test_what_is_held_back_is_shown_with_its_reason_and_its_cause(conn: Connection) -> None:
    cause, id_ = stored(conn, detector="webhook_silence"), stored(conn)
    outbox.stage(conn, id_, "ops", "first", "default route", NOON, NOON)
    waiting = outbox.waiting(conn, "ops", NOON)
    outbox.hold(conn, waiting, NOON + HOUR, f"inhibited by incident {cause}", cause)
    shown = succeed("show", str(id_))
    assert f"decided: held: inhibited by incident {cause}\n" in shown
    assert told("show", str(id_))["alerts"][0]["cause"] == cause
    assert "looked at again: 2026-03-10 13:00:00" in shown


def test_incident_is_shown_to_programs_in_the_public_shape(opened: int) -> None:
    (listed,) = told("list")
    shown = told("show", str(opened))
    assert {name: shown[name] for name in listed} == listed
    more = {"log", "alerts", "deliveries", "feedback", "silences", "audit", "proposal"}
    assert shown.keys() - listed.keys() == more
    assert (shown["id"], shown["state"], shown["account"], shown["livemode"]) == (opened, "open", "default", True)
    assert shown["money_at_risk"] == [{"amount": 182300, "currency": "usd"}, {"amount": 5000, "currency": "jpy"}]
    assert (shown["opened_at"], shown["resolved_at"]) == ("2026-03-10T12:00:00Z", None)
    assert [row["reason"] for row in shown["log"]] == ["first"]
    assert [(row["error"], row["verdict"]) for row in shown["alerts"]] == [("HTTP 404", "first")]
    assert shown["deliveries"][-1]["outcome"] == "refused"


def compared(detector: str, **changes: object) -> dict[str, object]:
    """What one signal compared, as an incident's evidence holds it: 30 minutes to noon."""
    noon = int(NOON.timestamp())
    plain = {"scope": "", "since": noon - 1500, "window": [noon - 1800, noon], "unit": 1.0, "out_of": 0.0}
    return {"detector": detector, "score": 6.5, "needed": 5.9} | plain | changes


REFUNDS = compared("refund_spike", observed=12.0, expected=0.52, usual=[0.0, 2.1])


def test_evidence_of_an_incident_is_shown_signal_by_signal(conn: Connection) -> None:
    signals = [
        REFUNDS,
        compared("failure_rate", scope="checkout", observed=41.0, out_of=58.0, expected=3.48, usual=[0.0, 9.0]),
        compared("revenue_drop", scope="kwd", observed=4.5, expected=91.25, usual=[70.0, 110.0], unit=10_000.0),
        compared("my_rule", observed=30.0, expected=4.25, usual=[0.0, 9.0], score=0.0, needed=0.0),
    ]
    mostly = to_builtins(Contributor("card brand", "visa", 26, 31, 0.8, 0.41))
    id_ = stored(conn, evidence={"signals": signals, "contributors": [mostly]})
    shown = succeed("show", str(id_))
    for part in (
        "refund_spike: 2026-03-10 11:30 to 12:00 UTC (30 min), since 2026-03-10 11:35",
        "observed 12, expected 0.52, usually 0 to 2.1",
        "by normal variation once in 3 million (score 6.5, 5.9 needed)",
        "failure_rate of checkout: ",
        "observed 41 of 58 (70.7 %), expected 3.48 of 58 (6.0 %)",
        "observed 45.000 KWD, expected 912.500 KWD, usually 700.000 KWD to 1,100.000 KWD",
        "26 of 31: card brand visa (41 % of the others)",
    ):
        assert part in shown
    assert shown.count("by normal variation") == 3  # a rule of the user's asks for no odds
    assert told("show", str(id_))["evidence"]["signals"] == signals


def test_silences_that_hold_an_incident_are_shown_with_it(conn: Connection) -> None:
    id_, now = stored(conn), datetime.now(UTC)
    plain: dict[str, Any] = {"starts_at": now - HOUR, "why": "load test", "who": "ada"}
    holding = silences.add(conn, Silence(matchers={"detector": "refund_*"}, ends_at=now + HOUR, **plain))
    silences.add(conn, Silence(matchers={"detector": "churn_*"}, ends_at=now + HOUR, **plain))
    silences.add(conn, Silence(matchers={"detector": "refund_*"}, ends_at=now - MINUTE, **plain))
    yesterday = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")[(now.weekday() - 1) % 7]
    silences.add(conn, Silence(matchers={}, recurs=yesterday, **plain))
    assert [each["id"] for each in told("show", str(id_))["silences"]] == [holding]
    assert f"silence {holding}: detector=refund_*, until " in succeed("show", str(id_))


def test_list_is_cut_where_it_is_asked_to_be(conn: Connection) -> None:
    for n in range(3):
        stored(conn, scope=f"price_{n}", opened_at=NOON + timedelta(hours=n))
    assert [each["scope"] for each in told("list", "--limit", "2")] == ["price_2", "price_1"]


# (arguments, the scopes that are listed)
FILTERS = [
    (["--account", "billingwatch"], "own"),
    (["--detector", "churn_spike"], "churn"),
    (["--detector", "churn_spike", "--detector", "channel_broken"], "churn own"),
    (["--severity", "critical"], "critical"),
    (["--state", "acked", "--state", "resolved"], "acked over"),
    (["--open", "--account", "default", "--severity", "high"], "churn test acked"),
]


@pytest.mark.parametrize(("arguments", "scopes"), FILTERS)
def test_list_is_narrowed(conn: Connection, arguments: list[str], scopes: str) -> None:
    stored(conn, scope="own", tenant=OWN, detector="channel_broken", severity="low")
    stored(conn, scope="churn", detector="churn_spike")
    stored(conn, scope="critical", severity="critical")
    stored(conn, scope="test", tenant=TEST)
    stored(conn, scope="acked", state="acked")
    stored(conn, scope="over", state="resolved", resolved_at=NOON)
    assert {each["scope"] for each in told("list", *arguments)} == set(scopes.split())


# --- acts -------------------------------------------------------------------------------------------------------------


def test_incident_is_acknowledged_once_and_resolved_once_and_the_log_says_by_whom(
    conn: Connection, opened: int
) -> None:
    assert succeed("ack", str(opened), "--who", "ada") == f"Incident {opened} is acked.\n"
    again = run("ack", str(opened))
    assert (again.exit_code, again.stderr) == (1, f"Incident {opened} is acked already.\n")
    succeed("resolve", str(opened), "--who", "bob", "--note", "card network is back")
    assert run("resolve", str(opened)).exit_code == 1
    assert run("ack", str(opened)).exit_code == 1
    log = [(row["from_state"], row["to_state"], row["who"]) for row in incidents.read_log(conn, opened)]
    assert log == [("", "open", "billingwatch"), ("open", "acked", "ada"), ("acked", "resolved", "bob")]
    assert told("list", "--open") == []
    shown = succeed("show", str(opened))
    assert "ack by ada" in shown
    assert "resolve by bob: card network is back" in shown


@pytest.mark.parametrize(
    "words",
    [["show", "404"], ["ack", "404"], ["resolve", "404"], ["snooze", "404", "1h"], ["feedback", "404", "expected"]],
)
def test_incident_that_is_not_there_ends_with_1(words: list[str]) -> None:
    result = run(*words)
    assert (result.exit_code, result.stderr) == (1, "There is no incident 404.\n")


def test_of_several_each_is_done_by_itself_and_programs_are_told_of_each(conn: Connection) -> None:
    first, acked = stored(conn, scope="price_1"), stored(conn, scope="price_2", state="acked")
    result = run("ack", str(first), str(acked), "404", "--json")
    assert result.exit_code == 1
    assert [(each["incident"], each["done"], each["says"], each["state"]) for each in json.loads(result.stdout)] == [
        (first, True, f"Incident {first} is acked.", "acked"),
        (acked, False, f"Incident {acked} is acked already.", "acked"),
        (404, False, "There is no incident 404.", None),
    ]
    assert state(conn, first) == "acked"


SPANS = [(["1h"], HOUR), (["1d12h"], 36 * HOUR), (["until", "+90m"], 90 * MINUTE)]


@pytest.mark.parametrize(("words", "span"), SPANS)
def test_snoozed_incidents_are_silenced_for_so_long(conn: Connection, words: list[str], span: timedelta) -> None:
    ids = [stored(conn, scope=f"price_{n}") for n in range(2)]
    made = told("snooze", *map(str, ids), *words, "--who", "ada")
    found = {each.id: each for each in silences.read_all(conn)}
    for id_, each in zip(ids, made, strict=True):
        silence = found[each["silence"]]
        assert silence.ends_at is not None
        assert (silence.matchers, silence.who) == ({"incident": str(id_)}, "ada")
        assert silence.ends_at - silence.starts_at == span
        assert state(conn, id_) == "open"


@pytest.mark.parametrize(
    "words",
    [["1"], ["1h"], ["1", "soon"], ["1", "until"], ["1", "1h", "2"], ["1", "-1h"], ["1", "until", "-1h"], ["1", "5w"]],
)
def test_snooze_that_makes_no_sense_is_refused(conn: Connection, words: list[str]) -> None:
    stored(conn)
    assert run("snooze", "--", *words).exit_code == 2
    assert silences.read_all(conn) == []


def test_expected_is_marked_and_shown(conn: Connection) -> None:
    id_ = stored(conn)
    (done,) = told("feedback", str(id_), "expected", "--who", "ada", "--note", "spring sale")
    (marker,) = markers.read_all(conn)
    assert (done["marker"], done["state"], done["proposal"]) == (marker.id, "acked", None)
    assert "expected, says ada: spring sale" in succeed("show", str(id_))
    assert told("show", str(id_))["feedback"][0]["verdict"] == "expected"


def test_false_alarm_yields_a_difference_to_accept_and_the_command_that_tries_it(conn: Connection) -> None:
    id_ = stored(conn, evidence={"signals": [REFUNDS]})
    result = succeed("feedback", str(id_), "false_alarm")
    for part in (
        f"Incident {id_} is called a false alarm, and acked.",
        "   [detectors.refund_spike]\n  -#sensitivity = 7.2\n  +sensitivity = 8.4\n",
        "  billingwatch backtest --set refund_spike.sensitivity=8.4\n",
    ):
        assert part in result
    assert "+sensitivity = 8.4" in succeed("show", str(id_))
    proposal = told("show", str(id_))["proposal"]
    assert proposal["difference"] == [" [detectors.refund_spike]", "-#sensitivity = 7.2", "+sensitivity = 8.4"]
    assert proposal["file"] == "billingwatch.toml"
    assert command.run("backtest", *proposal["command"].split()[2:], "/dev/null").exit_code == 0


def test_proposal_speaks_of_the_line_that_is_in_force(conn: Connection) -> None:
    Path("billingwatch.toml").write_text(
        '[detectors.refund_spike]\nsensitivity = "quiet"\n'
        "[accounts.acct_1.detectors.refund_spike]\nsensitivity = 9\n"
        '[rules.many]\nmetric = "refund.created"\nfactor = 3\n'
    )
    many = compared("many", observed=9.0, expected=2.0, usual=[0.0, 5.0], score=0.0, needed=0.0)
    ours = stored(conn, evidence={"signals": [REFUNDS, many]})
    theirs = stored(conn, tenant=type(LIVE)("acct_1", True), evidence={"signals": [REFUNDS]})
    (first, second) = told("feedback", str(ours), str(theirs), "false_alarm")
    assert first["proposal"]["difference"] == [
        " [detectors.refund_spike]",
        '-sensitivity = "quiet"',
        "+sensitivity = 9.2",
        " [rules.many]",
        "-factor = 3",
        "+factor = 4.1",
    ]
    assert first["proposal"]["command"].endswith("--set refund_spike.sensitivity=9.2 --set rules.many.factor=4.1")
    assert second["proposal"]["difference"] == [
        " [accounts.acct_1.detectors.refund_spike]",
        "-sensitivity = 9",
        "+sensitivity = 11.0",
    ]
    assert command.run("backtest", *second["proposal"]["command"].split()[2:], "/dev/null").exit_code == 0


def test_note_is_one_line_and_no_essay(conn: Connection) -> None:
    id_ = stored(conn)
    for note in ("two\nlines", "x" * 201):
        assert run("ack", str(id_), "--note", note).exit_code == 2
    assert (state(conn, id_), audit.read(conn)) == ("open", [])


def test_precision_of_each_detector_is_what_people_said(conn: Connection, now: datetime) -> None:
    assert succeed("precision") == "No incidents in 90 days.\n"
    ids = [stored(conn, scope=f"price_{n}", opened_at=now) for n in range(3)]
    stored(conn, detector="churn_spike", opened_at=now)
    stored(conn, detector="volume_drop", opened_at=now - timedelta(days=91))
    succeed("feedback", str(ids[0]), "confirmed")
    succeed("feedback", *map(str, ids[1:]), "false_alarm")
    rows = [" ".join(line.split()) for line in succeed("precision").splitlines()]
    assert rows[1:] == ["churn_spike 1 0 0 nobody said", "refund_spike 3 1 2 33 %"]
    assert told("precision")[1] == {"detector": "refund_spike", "incidents": 3, "confirmed": 1, "false_alarms": 2}
    assert len(told("precision", "--days", "100")) == 3
