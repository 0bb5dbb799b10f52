"""Messages, routes, retries, and deliveries to real sinks on the loopback."""

import io
import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.policy import default as modern
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote
from zoneinfo import ZoneInfo

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from billingwatch.model import Incident, Money, Reason, Tenant
from notify import message, retry, route, send

AT = datetime(2026, 3, 2, 16, 10, tzinfo=UTC)
CARD_LIKE = re.compile(r"\d{13}")


def incident(**changes: Any) -> Incident:
    fields: dict[str, Any] = {
        "tenant": Tenant("default", True),
        "detector": "failure_rate",
        "metric": "payment.failed",
        "severity": "critical",
        "opened_at": datetime(2026, 3, 2, 14, 8, tzinfo=UTC),
        "first_breach_at": datetime(2026, 3, 2, 14, 5, tzinfo=UTC),
        "last_breach_at": AT,
        "observed": 0.7069,
        "expected": 0.06,
        "limit": 0.19,
        "peak": 0.7412,
        "window": 900,
        "why": "41 of 58 card payments failed in 15 min; usually 6 %",
        "at_risk": (Money(182300, "usd"),),
        "customers": 31,
    }
    return Incident(**(fields | changes))


# --- messages ---------------------------------------------------------------------------------------------------------

FAILED = "https://dashboard.stripe.com/payments?status%5B0%5D=failed"

MESSAGES: list[tuple[str, Incident, Reason, float | None, str, list[str]]] = [
    (
        "first",
        incident(),
        "first",
        None,
        "CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 1,823.00 USD, 31 customers",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "yen, dinars and dollars are told apart, test mode is marked, one customer is one",
        incident(
            tenant=Tenant("acct_1NvK3f", False),
            detector="surge",
            metric="refund.created",
            severity="high",
            observed=12,
            expected=1.1,
            why="12 refunds in 1 h; usually 1.1",
            at_risk=(Money(5000, "jpy"), Money(1250, "kwd"), Money(99, "usd"), Money(0, "eur")),
            customers=1,
            scope="price_1Nv",
        ),
        "first",
        None,
        "HIGH: surge of refunds on acct_1NvK3f (TEST MODE): 12, usually 1.1",
        [
            "12 refunds in 1 h; usually 1.1",
            "Since 14:05 UTC (2 h 5 min)",
            "Concerns price_1Nv",
            "At risk: 5,000 JPY + 1.250 KWD + 0.99 USD, 1 customer",
            "In Stripe: https://dashboard.stripe.com/acct_1NvK3f/test/payments?status%5B0%5D=refunded",
        ],
    ),
    (
        "worse says from and to",
        incident(at_risk=(), customers=0),
        "worse",
        0.4,
        "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: from 40 % to 71 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "worse without what was told before",
        incident(at_risk=(), customers=0),
        "worse",
        None,
        "WORSE, CRITICAL: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Worse: now 71 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "repeat",
        incident(severity="medium", customers=0),
        "repeat",
        None,
        "STILL OPEN, MEDIUM: payments failing on default: 71 %, usually 6 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "Nobody has acknowledged it yet.",
            "At risk: 1,823.00 USD",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "resolved says how long, peak and total",
        incident(state="resolved", resolved_at=datetime(2026, 3, 2, 15, 35, tzinfo=UTC)),
        "resolved",
        None,
        "RESOLVED: payments failing on default: peak 74 %",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Over after 1 h 30 min: 14:05 UTC to 15:35 UTC, peak 74 %",
            "In all: 1,823.00 USD, 31 customers",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "a silence is told by its length",
        incident(
            detector="webhook_silence", metric="any", observed=0, expected=41, why="nothing since 14:05", at_risk=()
        ),
        "first",
        None,
        "CRITICAL: no webhooks from Stripe on default: for 2 h 5 min",
        [
            "nothing since 14:05",
            "Since 14:05 UTC (2 h 5 min)",
            "At risk: 31 customers",
            "In Stripe: https://dashboard.stripe.com/events",
        ],
    ),
    (
        "a test says so first",
        incident(severity="low", at_risk=(), customers=0),
        "test",
        None,
        "TEST, LOW: payments failing on default: 71 %, usually 6 %",
        [
            "This is a test: nothing is wrong.",
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            f"In Stripe: {FAILED}",
        ],
    ),
    (
        "no number where the detector has none",
        incident(detector="surge", metric="dispute.created", observed=float("inf"), at_risk=(), customers=0),
        "first",
        None,
        "CRITICAL: surge of disputes on default",
        [
            "41 of 58 card payments failed in 15 min; usually 6 %",
            "Since 14:05 UTC (2 h 5 min)",
            "In Stripe: https://dashboard.stripe.com/disputes",
        ],
    ),
]


@pytest.mark.parametrize(
    ("about", "reason", "told", "title", "lines"),
    [case[1:] for case in MESSAGES],
    ids=[case[0] for case in MESSAGES],
)
def test_message(about: Incident, reason: Reason, told: float | None, title: str, lines: list[str]) -> None:
    composed = message.compose(about, reason, AT, told=told)
    assert composed.title == title
    assert composed.body.splitlines() == lines


def test_times_are_local_and_carry_their_date_on_another_day() -> None:
    body = message.compose(incident(), "first", AT, ZoneInfo("Asia/Tokyo")).body
    assert "Since 2026-03-02 23:05 JST (2 h 5 min)" in body  # it is 01:10 on the 3rd there
    assert "Since 15:05 CET" in message.compose(incident(), "first", AT, ZoneInfo("Europe/Berlin")).body


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
    ],
)
def test_duration_in_words(seconds: int, words: str) -> None:
    assert message.spell(timedelta(seconds=seconds)) == words


def test_more_currencies_than_a_phone_shows_are_counted() -> None:
    money = tuple(Money(100, currency) for currency in ("aud", "cad", "eur", "gbp", "usd", "sek"))
    body = message.compose(incident(at_risk=money, customers=0), "first", AT).body
    assert "At risk: 1.00 AUD + 1.00 CAD + 1.00 EUR + 1.00 GBP and 2 more currencies" in body


@pytest.mark.parametrize(
    ("metric", "page"),
    [
        ("payment.failed", "payments?status%5B0%5D=failed"),
        ("fail_first", "payments?status%5B0%5D=failed"),
        ("payment.succeeded", "payments"),
        ("subscription.canceled", "subscriptions?status=canceled"),
        ("dispute", "disputes"),
        ("payout.failed", "payouts"),
        ("something new", "events"),
    ],
)
def test_link_lists_what_the_metric_counts(metric: str, page: str) -> None:
    assert message.link(Tenant("default", True), metric) == f"https://dashboard.stripe.com/{page}"
    assert message.link(Tenant("acct_9", False), metric) == f"https://dashboard.stripe.com/acct_9/test/{page}"


def test_account_that_is_no_account_id_stays_out_of_the_link() -> None:
    assert message.link(Tenant("acct_1/../../login?x=", True), "refund").startswith(
        "https://dashboard.stripe.com/payments"
    )


@pytest.mark.parametrize("reason", ["first", "repeat", "worse", "resolved", "test"])
@given(
    before=st.text(max_size=200),
    local=st.from_regex(r"[a-z0-9._+-]{1,20}", fullmatch=True),
    card=st.from_regex(r"\d{4}([ .-]?)\d{4}\1\d{4}\1\d{4}", fullmatch=True),
    place=st.sampled_from(["why", "scope", "account", "detector", "metric"]),
)
@settings(max_examples=40, deadline=None)
def test_no_address_and_no_card_number_stands_in_a_message(
    reason: Reason, before: str, local: str, card: str, place: str
) -> None:
    text = f"{before} {local}@shop.example, {card}"
    changes: dict[str, Any] = {"tenant": Tenant(text, True)} if place == "account" else {place: text}
    composed = message.compose(incident(**changes), reason, AT)
    told = f"{composed.title}\n{composed.body}"
    assert f"{local}@" not in told
    assert card not in told
    assert not CARD_LIKE.search(re.sub(r"[ .-]", "", told))
    assert "\n" not in composed.title
    assert len(composed.title) < 250
    assert len(composed.body) < 800


# --- routes and retries -----------------------------------------------------------------------------------------------


def test_default_route_takes_every_channel_once_in_order() -> None:
    routed = route.route(incident(), "first", ["ops", "mail", "ops"])
    assert routed == (route.Routed("ops", "default route"), route.Routed("mail", "default route"))


def test_without_channels_the_console_hears_it() -> None:
    assert route.route(incident(), "resolved", ()) == (route.Routed("console", "no channel configured"),)


JITTER = st.floats(0, 1, exclude_max=True)


@given(attempts=st.integers(1, 10_000), jitter=JITTER)
def test_wait_is_a_share_of_a_step_that_doubles_to_an_hour(attempts: int, jitter: float) -> None:
    step = retry.step(attempts)
    assert step == min(timedelta(hours=1), timedelta(seconds=15) * 2 ** min(attempts - 1, 20))
    wait = retry.delay(attempts, jitter)
    assert wait is None or wait == step * jitter
    assert wait is None or timedelta() <= wait <= step


@given(jitters=st.lists(JITTER, min_size=100, max_size=100))
def test_trying_ends_within_a_day_and_stays_ended(jitters: list[float]) -> None:
    waits = [retry.delay(attempts, jitter) for attempts, jitter in enumerate(jitters, 1)]
    tries = waits.index(None)
    assert all(wait is None for wait in waits[tries:])
    assert sum((wait for wait in waits if wait is not None), timedelta()) <= timedelta(hours=24)
    # At full length no other step would have fitted.
    assert sum((retry.step(n) for n in range(1, tries + 2)), timedelta()) > timedelta(hours=24)


def test_unluckiest_jitter_tries_for_most_of_a_day() -> None:
    waits = [retry.delay(attempts, 1 - 1e-9) for attempts in range(1, 100)]
    assert timedelta(hours=23) < sum((wait for wait in waits if wait is not None), timedelta()) <= timedelta(hours=24)


@given(jitters=st.lists(JITTER.filter(lambda share: share > 0.3), min_size=200, max_size=200))
def test_known_time_makes_the_day_exact(jitters: list[float]) -> None:
    waited = timedelta()
    for attempts, jitter in enumerate(jitters, 1):
        wait = retry.delay(attempts, jitter, waited)
        if wait is None:
            break
        waited += wait
    assert waited == timedelta(hours=24)


@pytest.mark.parametrize(("attempts", "jitter"), [(0, 0.5), (1, 1.0), (1, -0.1), (1, float("nan"))])
def test_wait_refuses_nonsense(attempts: int, jitter: float) -> None:
    with pytest.raises(ValueError, match=r"attempts|jitter"):
        retry.delay(attempts, jitter)


# --- an HTTP sink -----------------------------------------------------------------------------------------------------


class Sink(ThreadingHTTPServer):
    """Answers by the path's last part: a status, `hang` (says nothing) or `drip` (a header that never ends)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.closing = threading.Event()

    def url(self, path: str, schema: str = "json", login: str = "") -> str:
        return f"{schema}://{login}127.0.0.1:{self.server_port}/{path}"


class Answer(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, json.loads(body)))
        what = self.path.partition("?")[0].rpartition("/")[2]
        if what == "hang":
            self.server.closing.wait(30)
        elif what == "drip":
            self.drip()
        else:
            self.send_response(int(what))
            if what.startswith("3"):
                self.send_header("Location", "/elsewhere/200")
            self.send_header("Content-Length", "0")
            self.end_headers()

    do_GET = do_POST

    def drip(self) -> None:
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not self.server.closing.wait(0.02):
                self.wfile.write(b"x")
        except OSError:
            self.close_connection = True  # the client has gone

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: tests read `seen`."""


@pytest.fixture
def sink() -> Iterator[Sink]:
    server = Sink()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def servers(sink: Sink, closed_port: int) -> tuple[Sink, int]:
    return sink, closed_port


def test_json_arrives_as_composed(sink: Sink) -> None:
    composed = message.compose(incident(), "first", AT)
    assert send.send(sink.url("in/200"), composed.title, composed.body) == send.Delivery(ok=True)
    [(path, payload)] = sink.seen
    assert path == "/in/200"
    assert (payload["title"], payload["message"]) == (composed.title, composed.body)


@pytest.mark.parametrize(
    ("status", "permanent", "words"),
    [
        (400, True, "HTTP 400 Bad Request"),
        (401, True, "HTTP 401 Unauthorized"),
        (403, True, "HTTP 403 Forbidden"),
        (404, True, "HTTP 404 Not Found"),
        (410, True, "HTTP 410 Gone"),
        (408, False, "HTTP 408 Request Timeout"),
        (429, False, "HTTP 429 Too Many Requests"),
        (500, False, "HTTP 500 Internal Server Error"),
        (503, False, "HTTP 503 Service Unavailable"),
        (599, False, "HTTP 599"),
    ],
)
def test_refusal_tells_whether_trying_again_is_of_use(sink: Sink, status: int, permanent: bool, words: str) -> None:
    told = send.send(sink.url(f"hook/{status}"), "title", "body")
    assert told == send.Delivery(ok=False, permanent=permanent, error=f"JSON: {words}")
    assert len(sink.seen) == 1


@pytest.mark.parametrize("asked", ["", "?redirect=yes"])
@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirect_is_not_followed_even_when_the_url_asks(sink: Sink, status: int, asked: str) -> None:
    told = send.send(sink.url(f"hook/{status}{asked}"), "title", "body")
    assert not told.ok
    assert not told.permanent
    assert f"HTTP {status}" in told.error
    assert "redirects are not followed" in told.error
    assert [path for path, _ in sink.seen] == [f"/hook/{status}"]


def test_url_cannot_bring_a_second_retry_engine(sink: Sink) -> None:
    assert not send.send(sink.url("hook/500?retry=3&wait=0"), "title", "body").ok
    assert len(sink.seen) == 1


def test_server_that_says_nothing_is_temporary(sink: Sink) -> None:
    told = send.send(sink.url("hook/hang"), "title", "body", timeout=0.6)
    assert told == send.Delivery(ok=False, error="JSON: timed out")
    assert len(sink.seen) == 1


def test_hanging_service_does_not_hold_the_worker(sink: Sink) -> None:
    """Bytes that trickle in keep every socket timeout from firing: only the limit on the whole helps."""
    told = send.send(sink.url("hook/drip"), "title", "body", timeout=0.6)
    assert told == send.Delivery(ok=False, error="JSON: timed out after 0.6 s")
    assert len(sink.seen) == 1


def test_port_with_nobody_listening_is_temporary(closed_port: int) -> None:
    told = send.send(f"json://127.0.0.1:{closed_port}/x", "title", "body")
    assert told == send.Delivery(ok=False, error="JSON: connection refused")


def test_deliveries_at_once_do_not_hear_each_other(sink: Sink) -> None:
    statuses = [401, 500, 404, 503, 200] * 4
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda status: send.send(sink.url(f"hook/{status}"), "title", "body"), statuses))
    for status, delivery in zip(statuses, told, strict=True):
        assert delivery.ok == (status == 200)
        assert re.findall(r"\d{3}", delivery.error) == ([] if delivery.ok else [str(status)])


# --- an SMTP sink -----------------------------------------------------------------------------------------------------


class Mailbox:
    """Keeps what arrives; refuses the recipient `gone` for ever and `busy` for now."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, list[str], bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("gone"):
            return f"550 no mailbox {address}"
        if address.startswith("busy"):
            return f"451 try again {address}"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
        return "250 OK"


@pytest.fixture
def smtp(closed_port: int) -> Iterator[tuple[str, Mailbox]]:
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=closed_port)
    controller.start()
    yield f"mailto://127.0.0.1:{closed_port}?from=bw@shop.example", mailbox
    controller.stop()


def test_mail_arrives_as_composed(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    composed = message.compose(incident(at_risk=(Money(5000, "jpy"),)), "worse", AT, told=0.4)
    assert send.send(f"{url}&to=ops@shop.example", composed.title, composed.body) == send.Delivery(ok=True)
    [(sender, recipients, content)] = mailbox.mails
    assert (sender, recipients) == ("bw@shop.example", ["ops@shop.example"])
    mail = message_from_bytes(content, policy=modern)
    assert mail["Subject"] == composed.title
    assert mail["X-Application"] == "BillingWatch"
    assert mail.get_content().splitlines() == composed.body.splitlines()


def test_html_mail_keeps_the_lines(smtp: tuple[str, Mailbox]) -> None:
    url, mailbox = smtp
    assert send.send(f"{url}&to=ops@shop.example&format=html", "title", "one < two\nthree").ok
    mail = message_from_bytes(mailbox.mails[0][2], policy=modern)
    html = mail.get_body(("html",))
    assert html is not None
    assert re.search(r"one(&nbsp;| )&lt;(&nbsp;| )two\s*<br\s*/?>\s*three", html.get_content())


@pytest.mark.parametrize(("who", "permanent", "words"), [("gone", True, "SMTP 550"), ("busy", False, "SMTP 451")])
def test_refused_recipient(smtp: tuple[str, Mailbox], who: str, permanent: bool, words: str) -> None:
    url, mailbox = smtp
    told = send.send(f"{url}&to={who}@shop.example", "title", "body")
    assert told == send.Delivery(ok=False, permanent=permanent, error=f"E-Mail: {words}")
    assert mailbox.mails == []


def test_wrong_mail_login_is_permanent(closed_port: int) -> None:
    controller = Controller(
        Mailbox(),
        hostname="127.0.0.1",
        port=closed_port,
        authenticator=lambda *_: AuthResult(success=False, handled=False),
        auth_require_tls=False,
    )
    controller.start()
    try:
        url = f"mailto://bob:hunter2hunter2@127.0.0.1:{closed_port}?from=bw@shop.example&to=ops@shop.example"
        told = send.send(url, "title", "body")
    finally:
        controller.stop()
    assert told == send.Delivery(ok=False, permanent=True, error="E-Mail: SMTP 535")


def test_mail_server_that_is_away_is_temporary(closed_port: int) -> None:
    told = send.send(
        f"mailto://bob:pw123456@127.0.0.1:{closed_port}?from=bw@shop.example&to=ops@shop.example", "title", "body"
    )
    assert told == send.Delivery(ok=False, error="E-Mail: connection refused")


# --- the console ------------------------------------------------------------------------------------------------------


def test_console_prints_a_block() -> None:
    out = io.StringIO()
    assert send.send("console://", "TITLE", "one\ntwo\x1b[31m", stdout=out).ok
    rule = "-" * 72
    assert out.getvalue() == f"\n{rule}\nTITLE\n\n  one\n  two [31m\n{rule}\n"


def test_console_writes_to_the_process_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert send.send("console://", "TITLE", "body").ok
    assert "TITLE" in capsys.readouterr().out


def test_console_that_cannot_be_written_is_temporary() -> None:
    out = io.StringIO()
    out.close()
    assert send.send("console://", "t", "b", stdout=out) == send.Delivery(ok=False, error="console: ValueError")


# --- which URLs are taken ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no schema"),
        ("hunter2hunter2", "no schema"),
        ("slak://hunter2hunter2", "unknown schema; is slack:// meant?"),
        ("slack://hunter2hunter2", "not a complete Slack URL"),
        ("https://hunter2.example/hunter2hunter2", "json://"),
        ("file:///tmp/hunter2hunter2", "unknown schema"),
        ("exec://hunter2hunter2", "unknown schema"),
        ("syslog://hunter2hunter2", "acts on this machine"),
        (" SysLog://hunter2hunter2", "acts on this machine"),
        ("dbus://", "acts on this machine"),
        ("macosx://hunter2hunter2", "acts on this machine"),
        ("windows://", "acts on this machine"),
    ],
)
def test_url_that_cannot_be_used_is_permanent_and_not_repeated(url: str, words: str) -> None:
    fault = send.problem(url)
    assert fault is not None
    assert words in fault
    assert "hunter2" not in fault
    assert send.send(url, "title", "body") == send.Delivery(ok=False, permanent=True, error=fault)


@pytest.mark.parametrize(
    "url",
    [
        "console://",
        "json://shop.example/hook",
        "xml://shop.example",
        "form://shop.example",
        "mailto://bob:pw@shop.example",
        "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ",
    ],
)
def test_url_that_can_be_used(url: str) -> None:
    assert send.problem(url) is None


def test_local_service_can_be_allowed() -> None:
    assert send.problem("syslog://", allow_local=True) is None


def test_every_service_that_touches_this_machine_is_refused() -> None:
    """An Apprise that gains another one fails here, by what its modules import."""
    imports = re.compile(
        r"^\s*(?:import|from)\s+(?:subprocess|syslog|dbus|gi|win32api|hid|ctypes|pty|AppKit|Foundation)\b", re.MULTILINE
    )
    services = send.load().NotificationManager()
    local = set()
    for service in services.plugins(include_disabled=True):
        source = Path(sys.modules[service.__module__].__file__ or "")
        if imports.search(source.read_text(encoding="utf-8")) or source.stem in ("macosx", "gnome"):
            local |= service.schemas(service)
    assert {"syslog", "dbus", "windows", "blink1", "macosx", "gnome", "glib"} <= local
    assert local <= send.LOCAL.keys()
    assert set(send.LOCAL) <= set(services.schemas())


def test_only_schemas_whose_host_is_a_server_show_it() -> None:
    services = send.load().NotificationManager()
    for schema in send.SERVERS - {"http", "https"}:
        for template in services[schema].templates:
            assert re.match(r"\{schema\}://([^/]*@)?\{host\}", template), (schema, template)


# --- secrets ----------------------------------------------------------------------------------------------------------

SECRET = st.text("abcdefXYZ0123456789-_.~!$%&/@:=+?# ", min_size=8, max_size=30).filter(
    lambda text: text == text.strip() and len(set(text)) > 4
)
URLS = (
    "{schema}://{secret}:{secret}@shop.example/hook",
    "{schema}://bob:{secret}@shop.example:8080?to=ops@shop.example",
    "{schema}://{secret}@shop.example",
    "{schema}://shop.example/{secret}/",
    "{schema}://shop.example/?+Authorization=Bearer%20{secret}&-token={secret}",
    "{schema}://shop.example#{secret}",
    "slack://{secret}/{secret}/{secret}",
    "ntfy://{secret}",
    "https://{secret}@hooks.example/{secret}",
)


@given(
    secret=SECRET,
    url=st.sampled_from(URLS),
    schema=st.sampled_from([*sorted(send.SERVERS), "ntfy", "slack", "x"]),
    quoted=st.booleans(),
)
def test_mask_holds_no_secret(secret: str, url: str, schema: str, quoted: bool) -> None:
    written = quote(secret, safe="") if quoted else secret
    masked = send.mask(url.format(schema=schema, secret=written))
    assert secret not in masked
    assert written not in masked
    assert "ops@" not in masked
    assert "bob" not in masked


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("console://", "console://"),
        ("json://bob:pw@shop.example:8080/hook?x=y", "json://shop.example:8080/****"),
        ("mailto://bob:pw@gmail.com", "mailto://gmail.com/****"),
        ("JSON://[::1]:80/x", "json://[::1]:80/****"),
        ("json://bob:pa/ss@shop.example", "json://****"),
        ("slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "slack://****"),
        ("ntfy://our-secret-topic", "ntfy://****"),
        ("hunter2", "****"),
        ("", "****"),
    ],
)
def test_mask(url: str, masked: str) -> None:
    assert send.mask(url) == masked


@pytest.fixture
def process_log() -> Iterator[io.StringIO]:
    """What a process that logs everything would write; pytest's own capture hears more than such a process."""
    log = io.StringIO()
    handler, root = logging.StreamHandler(log), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield log
    root.setLevel(level)
    root.removeHandler(handler)


HIDING = (
    "json://bob:{secret}@127.0.0.1:{port}/{end}",
    "json://{secret}:pw@127.0.0.1:{port}/{end}",
    "json://127.0.0.1:{port}/{secret}/{end}",
    "json://127.0.0.1:{port}/{end}?+X-Key={secret}",
    "json://127.0.0.1:{port}/{end}?-key={secret}",
)


# Apprise decodes twice: a "%a2" in a secret is no longer what was written, and may be no header at all.
@given(
    secret=SECRET.filter(lambda text: "%" not in text),
    answer=st.sampled_from(["200", "401", "500", "away"]),
    url=st.sampled_from(HIDING),
)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_real_delivery_tells_no_secret(
    servers: tuple[Sink, int], process_log: io.StringIO, secret: str, answer: str, url: str
) -> None:
    """Neither the error nor any log that reaches the process's handlers, at debug level."""
    sink, closed_port = servers
    port, end = (closed_port, "200") if answer == "away" else (sink.server_port, answer)
    hidden = quote(secret, safe="")
    told = send.send(url.format(secret=hidden, port=port, end=end), "title", "body", timeout=10)
    assert told.ok == (answer == "200")
    logging.getLogger().debug("after %s", answer)
    assert process_log.getvalue().endswith(f"after {answer}\n")
    for text in (told.error, process_log.getvalue()):
        assert secret not in text
        assert hidden not in text


@given(
    secret=SECRET,
    url=st.sampled_from(URLS),
    line=st.sampled_from(["token {} is invalid", "Failed to reach {}, sorry", "x{}y", "Socket Exception: /{} refused"]),
    level=st.sampled_from([logging.DEBUG, logging.WARNING]),
    echoed=st.booleans(),
)
def test_cause_tells_no_secret_that_a_service_logs(secret: str, url: str, line: str, level: int, echoed: bool) -> None:
    written = quote(secret, safe="")
    assume(secret.lower() not in line.lower())
    used = url.format(schema="json", secret=written)
    told = send.cause("X", [send.Heard(level, line.format(secret if echoed else written))], used)
    assert not told.ok
    assert secret not in told.error
    assert written not in told.error


@pytest.mark.parametrize(
    ("lines", "permanent", "error"),
    [
        ([], False, "failed, no reason given"),
        (["a, error=404.", "b, error=500."], False, "HTTP 404 Not Found, HTTP 500 Internal Server Error"),
        (["a, error=404.", "b, error=410."], True, "HTTP 404 Not Found, HTTP 410 Gone"),
        (["channel_not_found for jane@shop.example"], False, "channel_not_found for ****"),
        (["see https://x.example/a?b=c now"], False, "see **** now"),
        (["token xoxb12345678 rejected"], False, "token **** rejected"),
    ],
)
def test_cause(lines: list[str], permanent: bool, error: str) -> None:
    heard = [send.Heard(logging.WARNING, line) for line in lines]
    assert send.cause("X", heard, "json://h") == send.Delivery(ok=False, permanent=permanent, error=f"X: {error}")


@pytest.mark.parametrize(
    ("raised", "words"),
    [
        ("HTTPSConnectionPool(host='h', port=443): Read timed out. (read timeout=4.0)", "timed out"),
        ("<NewConnectionError>: Failed to establish: [Errno 111] Connection refused", "connection refused"),
        ("<NameResolutionError>: Failed to resolve 'h' ([Errno -2] Name or service not known)", "unknown host"),
        ("[Errno 101] Network is unreachable", "host unreachable"),
        ("SSLError(SSLCertVerificationError(1, 'certificate verify failed'))", "certificate not trusted"),
        ("('Connection aborted.', RemoteDisconnected('Remote end closed'))", "connection broken"),
    ],
)
def test_network_fault_is_named_from_the_debug_log(raised: str, words: str) -> None:
    lines = [send.Heard(logging.WARNING, "A Connection error occurred"), send.Heard(10, f"Socket Exception: {raised}")]
    assert send.cause("X", lines, "json://h") == send.Delivery(ok=False, error=f"X: {words}")


def test_our_own_words_in_the_payload_are_no_cause() -> None:
    lines = [send.Heard(10, "JSON Payload: {'message': 'timed out, connection refused, error=404.'}")]
    assert send.cause("X", lines, "json://h").error == "X: failed, no reason given"


def test_apprise_is_loaded_by_the_first_delivery_only() -> None:
    code = "import sys, notify.send as s; s.send('console://', 't', 'b'); print('apprise' in sys.modules)"
    root = Path(send.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "False"
