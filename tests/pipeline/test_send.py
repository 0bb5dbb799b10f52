"""Deliveries to real HTTP and SMTP servers, and to the console."""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from email import message_from_bytes
from email.policy import default as modern

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from billingwatch.model import Money
from notify import message, send
from tests.pipeline.senders import Mailbox, Moody
from tests.pure.messages import AT, incident


def test_json_arrives_as_composed(moody: Moody) -> None:
    composed = message.compose(incident(), "first", AT)
    assert send.send(moody.url("in/200"), composed.title, composed.body) == send.Delivery(ok=True)
    [(path, payload)] = moody.seen
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
def test_refusal_tells_whether_trying_again_is_of_use(moody: Moody, status: int, permanent: bool, words: str) -> None:
    told = send.send(moody.url(f"hook/{status}"), "title", "body")
    assert told == send.Delivery(ok=False, permanent=permanent, error=f"JSON: {words}")
    assert len(moody.seen) == 1


@pytest.mark.parametrize("asked", ["", "?redirect=yes"])
@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirect_is_not_followed_even_when_the_url_asks(moody: Moody, status: int, asked: str) -> None:
    told = send.send(moody.url(f"hook/{status}{asked}"), "title", "body")
    assert not told.ok
    assert not told.permanent
    assert f"HTTP {status}" in told.error
    assert "redirects are not followed" in told.error
    assert [path for path, _ in moody.seen] == [f"/hook/{status}"]


def test_url_cannot_bring_a_second_retry_engine(moody: Moody) -> None:
    assert not send.send(moody.url("hook/500?retry=3&wait=0"), "title", "body").ok
    assert len(moody.seen) == 1


def test_server_that_says_nothing_is_temporary(moody: Moody) -> None:
    told = send.send(moody.url("hook/hang"), "title", "body", timeout=0.6)
    assert told == send.Delivery(ok=False, error="JSON: timed out")
    assert len(moody.seen) == 1


def test_hanging_service_does_not_hold_the_worker(moody: Moody) -> None:
    """Bytes that trickle in keep every socket timeout from firing: only the limit on the whole helps."""
    told = send.send(moody.url("hook/drip"), "title", "body", timeout=0.6)
    assert told == send.Delivery(ok=False, error="JSON: timed out after 0.6 s")
    assert len(moody.seen) == 1


def test_port_with_nobody_listening_is_temporary(closed_port: int) -> None:
    told = send.send(f"json://127.0.0.1:{closed_port}/x", "title", "body")
    assert told == send.Delivery(ok=False, error="JSON: connection refused")


def test_deliveries_at_once_do_not_hear_each_other(moody: Moody) -> None:
    statuses = [401, 500, 404, 503, 200] * 4
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda status: send.send(moody.url(f"hook/{status}"), "title", "body"), statuses))
    for status, delivery in zip(statuses, told, strict=True):
        assert delivery.ok == (status == 200)
        assert re.findall(r"\d{3}", delivery.error) == ([] if delivery.ok else [str(status)])


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
