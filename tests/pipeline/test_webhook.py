"""The signed webhook against real servers: what arrives, what is refused, and that nothing holds it up."""

import shutil
import ssl
import subprocess
import time
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from standardwebhooks import Webhook, WebhookVerificationError

from billingwatch.model import Channel
from notify import send, webhook
from notify.cause import Delivery
from notify.telling import Message
from tests.pipeline.senders import Moody

SECRET = "whsec_" + b64encode(b"k" * 32).decode()
OTHER = "whsec_" + b64encode(b"o" * 24).decode()
MESSAGE = Message("CRITICAL: 41 %", "24 of 58 failed")
BODY = '{"type":"incident.opened","title":"é"}'.encode()


def channel(moody: Moody, path: str, **changes: object) -> Channel:
    return replace(Channel(moody.url(path, "http"), secret=SECRET, allow_private=True), **changes)


def to(channel: Channel, timeout: float = 20) -> Delivery:
    return send.send(channel, MESSAGE, timeout=timeout, payload=BODY, id="msg_1")


def failed(error: str, permanent: bool = False, retry_after: float | None = None) -> Delivery:
    return Delivery(ok=False, permanent=permanent, error=f"webhook: {error}", retry_after=retry_after)


def test_the_specifications_own_verifier_takes_what_arrives(moody: Moody) -> None:
    assert to(channel(moody, "in/200?x=1")) == Delivery(ok=True)
    [(path, headers, body)] = moody.posted
    assert (path, body, headers["content-type"], headers["webhook-id"]) == (
        "/in/200?x=1",
        BODY,
        "application/json",
        "msg_1",
    )
    assert headers["host"] == f"127.0.0.1:{moody.server_port}"
    assert Webhook(SECRET).verify(body, headers) == {"type": "incident.opened", "title": "é"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(OTHER).verify(body, headers)


def test_while_secrets_roll_each_of_them_verifies(moody: Moody) -> None:
    assert to(channel(moody, "in/200", secret=f"{SECRET} {OTHER}")).ok
    [(_, headers, body)] = moody.posted
    assert len(headers["webhook-signature"].split()) == 2
    for secret in (SECRET, OTHER):
        assert Webhook(secret).verify(body, headers)


def test_signature_is_the_specifications_example() -> None:
    """From the reference implementations' tests."""
    signed = webhook.sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_login_in_the_address_is_sent_as_one(moody: Moody) -> None:
    assert to(channel(moody, "", url=moody.url("in/200", "http", "api_key:p%40ss@"))).ok
    assert moody.posted[0][1]["authorization"] == "Basic " + b64encode(b"api_key:p@ss").decode()


def test_message_id_cannot_move_what_is_signed(moody: Moody) -> None:
    assert send.send(channel(moody, "in/200"), MESSAGE, payload=BODY, id="a.1\r\nx: y").ok
    assert moody.posted[0][1]["webhook-id"] == "a_1__x__y"


def test_without_a_payload_a_notice_is_sent(moody: Moody) -> None:
    assert send.send(channel(moody, "in/200"), MESSAGE).ok
    [(_, body)] = moody.seen
    assert (body["type"], body["data"]) == ("message", {"title": MESSAGE.title, "text": MESSAGE.text})
    assert Webhook(SECRET).verify(moody.posted[0][2], moody.posted[0][1])


@pytest.mark.parametrize(
    ("status", "permanent", "words"),
    [
        (400, True, "HTTP 400 Bad Request"),
        (401, True, "HTTP 401 Unauthorized"),
        (404, True, "HTTP 404 Not Found"),
        (408, False, "HTTP 408 Request Timeout"),
        (410, True, "HTTP 410 Gone"),
        (425, False, "HTTP 425 Too Early"),
        (429, False, "HTTP 429 Too Many Requests"),
        (500, False, "HTTP 500 Internal Server Error"),
        (503, False, "HTTP 503 Service Unavailable"),
        (599, False, "HTTP 599"),
    ],
)
def test_refusal_tells_whether_trying_again_is_of_use(moody: Moody, status: int, permanent: bool, words: str) -> None:
    assert to(channel(moody, f"hook/{status}")) == failed(words, permanent)
    assert len(moody.posted) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_to_the_loopback_is_not_followed(moody: Moody, status: int) -> None:
    told = to(channel(moody, f"hook/{status}"))
    assert told.permanent
    assert "redirects are not followed" in told.error
    assert [path for path, _, _ in moody.posted] == [f"/hook/{status}"]


@pytest.mark.parametrize(
    ("after", "seconds"),
    [("17", 17.0), ("0", 0.0), ("999999999", webhook.LONGEST_WAIT), ("-3", None), ("soon", None)],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds(moody: Moody, status: int, after: str, seconds: float | None) -> None:
    told = to(channel(moody, f"hook/{status}?after={after}"))
    assert (told.permanent, told.retry_after) == (False, seconds)


def test_retry_after_as_a_date_counts_from_the_servers_own_date(moody: Moody) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True).replace(" ", "+")
    told = to(channel(moody, f"hook/503?after={later}"))
    assert told.retry_after is not None
    assert 85 <= told.retry_after <= 91


@pytest.mark.parametrize("what", ["hang", "drip"])
def test_time_limit_is_for_the_whole_exchange(moody: Moody, what: str) -> None:
    started = time.monotonic()
    assert to(channel(moody, f"hook/{what}"), 0.5) == failed("timed out after 0.5 s")
    assert time.monotonic() - started < 5
    assert len(moody.posted) == 1


@pytest.mark.parametrize("what", ["hang", "drip"])
def test_nothing_lingers_past_the_time_limit(moody: Moody, what: str) -> None:
    """Without the thread around it the exchange ends by itself all the same."""
    started = time.monotonic()
    assert webhook.post(channel(moody, f"hook/{what}"), BODY, "msg_1", 0.5) == failed("timed out after 0.5 s")
    assert time.monotonic() - started < 5


def test_body_that_never_ends_does_not_matter(moody: Moody) -> None:
    started = time.monotonic()
    assert to(channel(moody, "hook/trickle")).ok
    assert time.monotonic() - started < 5


def test_answer_that_is_no_http_is_temporary(moody: Moody) -> None:
    assert to(channel(moody, "hook/noise")) == failed("no HTTP answer")


def test_port_with_nobody_listening_is_temporary(closed_port: int) -> None:
    told = to(Channel(f"http://127.0.0.1:{closed_port}/x", secret=SECRET, allow_private=True))
    assert told == failed("connection refused")


def test_name_that_nobody_knows_is_temporary() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    told = webhook.post(Channel("http://hook.example/x", secret=SECRET), BODY, "msg_1", 5, unknown)
    assert told == failed("unknown host")


def test_proxy_of_the_environment_is_not_asked(moody: Moody, closed_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port}")
    assert to(channel(moody, "in/200")).ok


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"])
def test_own_machine_is_refused_unless_allowed(moody: Moody, host: str) -> None:
    told = to(channel(moody, "", url=moody.url("in/200", "http", host=host), allow_private=False))
    assert not told.ok
    assert told.permanent
    assert moody.posted == []


class Turncoat:
    """A name whose answer is harmless once, and the loopback ever after."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked += 1
        return self.answers[min(self.asked, len(self.answers)) - 1]


def test_name_that_changes_its_answer_gains_nothing(moody: Moody) -> None:
    """The connection goes to what was judged, and the name is not looked up again."""
    names = Turncoat(["192.0.2.1"], ["127.0.0.1"])
    target = channel(moody, "", url=moody.url("in/200", "http", host="hook.example"), allow_private=False)
    told = webhook.post(target, BODY, "msg_1", 5, names)
    assert told == failed("its address is reserved", permanent=True)
    names = Turncoat(["127.0.0.1"], ["192.0.2.1"])
    assert webhook.post(replace(target, allow_private=True), BODY, "msg_1", 5, names).ok
    assert names.asked == 1
    assert moody.posted[0][1]["host"] == f"hook.example:{moody.server_port}"


def test_one_bad_address_among_good_ones_refuses_the_name(moody: Moody) -> None:
    target = channel(moody, "", url=moody.url("in/200", "http", host="hook.example"), allow_private=False)
    told = webhook.post(target, BODY, "msg_1", 5, Turncoat(["8.8.8.8", "127.0.0.1"]))
    assert told.permanent
    assert "loopback" in told.error
    assert moody.posted == []


def test_the_next_address_is_tried_where_one_refuses(moody: Moody) -> None:
    target = channel(moody, "", url=moody.url("in/200", "http", host="hook.example"))
    assert webhook.post(target, BODY, "msg_1", 5, Turncoat(["127.0.0.9", "127.0.0.1"])).ok


@pytest.fixture
def trusted(moody: Moody, tmp_path: Path) -> Path:
    """The moody server speaks TLS with a certificate for hook.example, which is in this file."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hook.example"
    files = ["-addext", "subjectAltName=DNS:hook.example", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*request.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    moody.socket = context.wrap_socket(moody.socket, server_side=True)
    return cert


@pytest.mark.parametrize(
    ("host", "known", "expected"),
    [
        ("hook.example", True, Delivery(ok=True)),
        ("hook.example", False, failed("certificate not trusted")),
        ("other.example", True, failed("certificate not trusted")),
        ("127.0.0.1", True, failed("certificate not trusted")),
    ],
)
def test_certificate_is_of_the_name_though_the_address_is_dialled(
    moody: Moody, trusted: Path, monkeypatch: pytest.MonkeyPatch, host: str, known: bool, expected: Delivery
) -> None:
    if known:
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    target = channel(moody, "", url=moody.url("in/200", "https", host=host))
    assert webhook.post(target, BODY, "msg_1", 5, Turncoat(["127.0.0.1"])) == expected
    assert len(moody.posted) == expected.ok


def test_tls_that_never_greets_back_ends_in_time(moody: Moody) -> None:
    """The moody server waits for an HTTP request, which never comes."""
    started = time.monotonic()
    told = webhook.post(channel(moody, "", url=moody.url("in/200", "https")), BODY, "msg_1", 0.5)
    assert not told.ok
    assert not told.permanent
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("url", "secret", "words"),
    [
        ("https://hook.example/x", SECRET, None),
        ("https://user:pw@hook.example:8443/x?y=z", f"{SECRET} {OTHER}", None),
        ("https://hook.example/x", "", "needs a secret"),
        ("https://hook.example/x", "  ", "needs a secret"),
        ("https://hook.example/x", "hunter2hunter2", "does not begin with whsec_"),
        ("https://hook.example/x", "whsec_hunter2!hunter2", "not base64"),
        ("https://hook.example/x", "whsec_aHVudGVyMg==", "too short: 7 bytes"),
        ("https://hook.example/x", f"{SECRET} hunter2", "does not begin with whsec_"),
        ("https://", SECRET, "not a complete"),
        ("https:///hunter2", SECRET, "not a complete"),
        ("https://hook.example:99999/hunter2", SECRET, "not a complete"),
        ("https://hook.example/hunter2\nx", SECRET, "control character"),
        ("https://hook.example\\@hunter2/", SECRET, "backslash"),
        ("http://127.0.0.1/hunter2", SECRET, "loopback; allow_private"),
        ("http://[::1]/hunter2", SECRET, "loopback; allow_private"),
        ("http://169.254.169.254/hunter2", SECRET, "a metadata service"),
    ],
)
def test_problem(url: str, secret: str, words: str | None) -> None:
    told = send.problem(Channel(url, secret=secret))
    assert (told is None) == (words is None)
    if told is not None:
        assert words is not None
        assert words in told
        assert "hunter2" not in told
        assert send.send(Channel(url, secret=secret), MESSAGE).error == told


def test_address_that_apprise_knows_needs_no_secret() -> None:
    slack = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert send.problem(slack) is None
    assert send.takes_pictures(Channel(slack)) is True
    assert send.takes_pictures(Channel(slack, secret=SECRET)) is False  # then it is a webhook like any other
