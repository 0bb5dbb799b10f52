"""Why a delivery failed, from what Apprise logged: told in words of our own, without a secret."""

import logging
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from notify.cause import Delivery, Heard, cause, lasts

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
    line=st.sampled_from(["token {} is invalid", "Failed to reach {}, sorry", "x{}y", "Socket Exception: /{} refused"]),
    level=st.sampled_from([logging.DEBUG, logging.WARNING]),
    echoed=st.booleans(),
)
def test_cause_tells_no_secret_that_a_service_logs(secret: str, url: str, line: str, level: int, echoed: bool) -> None:
    written = quote(secret, safe="")
    assume(secret.lower() not in line.lower())
    used = url.format(schema="json", secret=written)
    told = cause("X", [Heard(level, line.format(secret if echoed else written))], used)
    assert not told.ok
    assert secret not in told.error
    assert written not in told.error


@pytest.mark.parametrize(
    ("lines", "permanent", "error"),
    [
        ([], False, "failed, no reason given"),
        (["a, error=404.", "b, error=500."], False, "HTTP 404 Not Found, HTTP 500 Internal Server Error"),
        (["a, error=404.", "b, error=410."], True, "HTTP 404 Not Found, HTTP 410 Gone"),
        (["a, error=404.", "b, error=429."], False, "HTTP 404 Not Found, HTTP 429 Too Many Requests"),
        (["SMTP recipient a@b.example was refused: 550 b'no'"], True, "SMTP 550"),
        (["SMTP recipient a@b.example was refused: 552 b'full'"], False, "SMTP 552"),
        (["SMTP recipient a@b.example was refused: 451 b'later'"], False, "SMTP 451"),
        (["Socket Exception: (554, b'5.7.1 relay access denied')"], True, "SMTP 554"),
        (["channel_not_found for jane@shop.example"], False, "channel_not_found for ****"),
        (["see https://x.example/a?b=c now"], False, "see **** now"),
        (["token xoxb12345678 rejected"], False, "token **** rejected"),
    ],
)
def test_cause(lines: list[str], permanent: bool, error: str) -> None:
    heard = [Heard(logging.WARNING, line) for line in lines]
    assert cause("X", heard, "json://h") == Delivery(ok=False, permanent=permanent, error=f"X: {error}")


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
    lines = [Heard(logging.WARNING, "A Connection error occurred"), Heard(10, f"Socket Exception: {raised}")]
    assert cause("X", lines, "json://h") == Delivery(ok=False, error=f"X: {words}")


def test_our_own_words_in_the_payload_are_no_cause() -> None:
    lines = [Heard(10, "JSON Payload: {'message': 'timed out, connection refused, error=404.'}")]
    assert cause("X", lines, "json://h").error == "X: failed, no reason given"


@pytest.mark.parametrize(
    ("code", "same"),
    [
        *(
            (code, True)
            for code in (300, 301, 302, 307, 308, 400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451)
        ),
        *((code, False) for code in (100, 408, 421, 423, 425, 429, 500, 501, 502, 503, 504, 507, 599)),
    ],
)
def test_which_statuses_last(code: int, same: bool) -> None:
    assert lasts(code) == same


@pytest.mark.parametrize(
    ("answer", "after"),
    [
        ('{"ok":false,"error_code":429,"parameters":{"retry_after":35}}', 35.0),  # Telegram
        ('{"message": "You are being rate limited.", "retry_after": 0.754}', 0.754),  # Discord
        ('{"ok":false}', None),
        ('{"retry_after": 1e999}', 1.0),
    ],
)
def test_a_wait_that_the_answer_asks_for(answer: str, after: float | None) -> None:
    lines = [Heard(30, "failed, error=429."), Heard(10, f"Response Details:\r\n{answer.encode()!r}")]
    told = cause("X", lines, "json://h")
    assert (told.permanent, told.retry_after) == (False, after)


def test_what_slack_says_with_status_200() -> None:
    lines = [
        Heard(30, "failed, error=200."),
        Heard(10, 'Response Details:\r\nb\'{"ok":false,"error":"invalid_auth"}\''),
    ]
    assert cause("Slack", lines, "slack://h") == Delivery(ok=False, permanent=True, error="Slack: invalid_auth")
    assert not cause("JSON", lines, "json://h").permanent  # what another service answers may repeat what it was sent
