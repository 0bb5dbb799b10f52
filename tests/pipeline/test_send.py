"""Deliveries to real HTTP and SMTP servers, and to the console."""

import io
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from billingwatch.model import Channel
from notify import send
from notify.cause import Delivery
from notify.telling import Message
from tests.pipeline.senders import Mailbox, Moody

MESSAGE = Message("title", "body")


def to(url: str, timeout: float = 20) -> Delivery:
    return send.send(Channel(url), MESSAGE, timeout=timeout)


def test_json_arrives_as_composed(moody: Moody) -> None:
    message = Message("CRITICAL: 41 %", "24 of 58 failed\nSince 14:05 UTC", "**24**", "<b>24</b>")
    assert send.send(Channel(moody.url("in/200")), message) == Delivery(ok=True)
    [(path, payload)] = moody.seen
    assert path == "/in/200"
    assert (payload["title"], payload["message"]) == (message.title, message.text)


@pytest.mark.parametrize(
    ("status", "permanent", "words"),
    [
        (400, True, "HTTP 400 Bad Request"),
        (401, True, "HTTP 401 Unauthorized"),
        (403, True, "HTTP 403 Forbidden"),
        (404, True, "HTTP 404 Not Found"),
        (410, True, "HTTP 410 Gone"),
        (413, True, "HTTP 413 Request Entity Too Large"),
        (422, True, "HTTP 422 Unprocessable Entity"),
        (423, False, "HTTP 423 Locked"),
        (408, False, "HTTP 408 Request Timeout"),
        (429, False, "HTTP 429 Too Many Requests"),
        (500, False, "HTTP 500 Internal Server Error"),
        (503, False, "HTTP 503 Service Unavailable"),
        (599, False, "HTTP 599"),
    ],
)
def test_refusal_tells_whether_trying_again_is_of_use(moody: Moody, status: int, permanent: bool, words: str) -> None:
    told = to(moody.url(f"hook/{status}"))
    assert told == Delivery(ok=False, permanent=permanent, error=f"JSON: {words}")
    assert len(moody.seen) == 1


@pytest.mark.parametrize("asked", ["", "?redirect=yes"])
@pytest.mark.parametrize("status", [301, 302, 307])
def test_redirect_is_not_followed_even_when_the_url_asks(moody: Moody, status: int, asked: str) -> None:
    told = to(moody.url(f"hook/{status}{asked}"))
    assert not told.ok
    assert told.permanent
    assert f"HTTP {status}" in told.error
    assert "redirects are not followed" in told.error
    assert [path for path, _ in moody.seen] == [f"/hook/{status}"]


def test_url_cannot_bring_a_second_retry_engine(moody: Moody) -> None:
    assert not to(moody.url("hook/500?retry=3&wait=0")).ok
    assert len(moody.seen) == 1


def test_server_that_says_nothing_is_temporary(moody: Moody) -> None:
    told = to(moody.url("hook/hang"), 0.6)
    assert told == Delivery(ok=False, error="JSON: timed out")
    assert len(moody.seen) == 1


def test_hanging_service_does_not_hold_the_worker(moody: Moody) -> None:
    """Bytes that trickle in keep every socket timeout from firing: only the limit on the whole helps."""
    told = to(moody.url("hook/drip"), 0.6)
    assert told == Delivery(ok=False, error="JSON: timed out after 0.6 s")
    assert len(moody.seen) == 1


def test_a_service_that_hangs_for_ever_holds_three_threads_and_no_more(moody: Moody) -> None:
    url = moody.url("hook/drip")
    for _ in range(send.LINGERING):
        assert to(url, 0.2).error == "JSON: timed out after 0.2 s"
    started = time.monotonic()
    assert to(url, 60) == Delivery(ok=False, error="JSON: 3 earlier sends still hang")
    assert time.monotonic() - started < 5
    assert len(moody.seen) == send.LINGERING
    assert to(moody.url("other/200")).ok  # another channel on the same server
    moody.closing.set()
    for thread in [each for each in threading.enumerate() if each.name == "notify"]:
        thread.join(10)
    assert to(moody.url("hook/drip"), 5).error != "JSON: 3 earlier sends still hang"


def test_port_with_nobody_listening_is_temporary(closed_port: int) -> None:
    told = to(f"json://127.0.0.1:{closed_port}/x")
    assert told == Delivery(ok=False, error="JSON: connection refused")


def test_deliveries_at_once_do_not_hear_each_other(moody: Moody) -> None:
    statuses = [401, 500, 404, 503, 200] * 4
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda status: to(moody.url(f"hook/{status}")), statuses))
    for status, delivery in zip(statuses, told, strict=True):
        assert delivery.ok == (status == 200)
        assert re.findall(r"\d{3}", delivery.error) == ([] if delivery.ok else [str(status)])


@pytest.mark.parametrize(("who", "permanent", "words"), [("gone", True, "SMTP 550"), ("busy", False, "SMTP 451")])
def test_refused_recipient(smtp: tuple[str, Mailbox], who: str, permanent: bool, words: str) -> None:
    url, mailbox = smtp
    told = to(f"{url}&to={who}@shop.example")
    assert told == Delivery(ok=False, permanent=permanent, error=f"E-Mail: {words}")
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
        told = to(url)
    finally:
        controller.stop()
    assert told == Delivery(ok=False, permanent=True, error="E-Mail: SMTP 535")


def test_mail_server_that_is_away_is_temporary(closed_port: int) -> None:
    told = to(f"mailto://bob:pw123456@127.0.0.1:{closed_port}?from=bw@shop.example&to=ops@shop.example")
    assert told == Delivery(ok=False, error="E-Mail: connection refused")


def test_console_prints_a_block() -> None:
    out = io.StringIO()
    assert send.send(Channel("console://"), Message("TITLE", "one\ntwo\x1b[31m"), stdout=out).ok
    rule = "-" * 72
    assert out.getvalue() == f"\n{rule}\nTITLE\n\n  one\n  two [31m\n{rule}\n"


def test_console_writes_to_the_process_by_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert send.send(Channel("console://"), Message("TITLE", "body")).ok
    assert "TITLE" in capsys.readouterr().out


def test_console_that_cannot_be_written_is_temporary() -> None:
    out = io.StringIO()
    out.close()
    told = send.send(Channel("console://"), MESSAGE, stdout=out)
    assert told == Delivery(ok=False, error="console: ValueError")
