"""Replay against a real HTTP server: signatures that Stripe's library accepts, retries, pacing, ends."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stripe
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from billingwatch import replay
from billingwatch.cli.replay import replay as command
from billingwatch.replay import Pace, Sent, read, renew, send
from billingwatch.signing import sign
from billingwatch.simulator.stream import Scenario, simulate

SECRET = "whsec_test_secret"
Answer = tuple[int, dict[str, str]]


class Receiver:
    """What the server was sent, and where it listens."""

    def __init__(self, answer: Callable[[int], Answer]) -> None:
        self.answer = answer
        self.bodies: list[bytes] = []
        self.signatures: list[str] = []
        self.connections: set[tuple[str, int]] = set()
        self.url = ""
        self.lock = threading.Lock()

    def ids(self) -> list[str]:
        return [json.loads(body)["id"] for body in self.bodies]


@contextmanager
def receiving(answer: Callable[[int], Answer] = lambda turn: (200, {})) -> Iterator[Receiver]:
    """A receiver on loopback whose n-th request (from 0) is answered by `answer(n)`."""
    receiver = Receiver(answer)

    class Endpoint(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with receiver.lock:
                status, headers = receiver.answer(len(receiver.bodies))
                receiver.bodies.append(body)
                receiver.signatures.append(self.headers["Stripe-Signature"])
                receiver.connections.add(self.client_address)
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the test asserts."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    receiver.url = f"http://127.0.0.1:{server.server_port}/webhook"
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def lines(count: int) -> list[bytes]:
    """So many events, a line each."""
    events = simulate(Scenario(start=1_788_000_000, days=30, volume=100, seed=2))
    return [msgspec.json.encode(event) + b"\n" for event, _ in zip(events, range(count), strict=False)]


def test_signature_is_the_one_stripe_verifies() -> None:
    body = '{"id":"evt_1","é":"ü"}'.encode()
    assert stripe.WebhookSignature.verify_header(body, sign(body, SECRET, 1_788_000_000), SECRET)
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(body, sign(body, "whsec_other", 1_788_000_000), SECRET)


def test_every_event_arrives_signed_over_kept_connections() -> None:
    sent_lines = lines(200)
    with receiving() as receiver:
        sent = send(sent_lines, receiver.url, SECRET, concurrency=4)
    assert (sent.sent, sent.retried, sent.failed, sent.malformed, sent.stopped) == (200, 0, 0, 0, "")
    assert sorted(receiver.bodies) == sorted(line.strip() for line in sent_lines)
    for body, signature in zip(receiver.bodies, receiver.signatures, strict=True):
        assert stripe.WebhookSignature.verify_header(body, signature, SECRET, 300)
    assert len(receiver.connections) <= 4
    assert 0 < sent.p50_ms <= sent.p99_ms


def test_503_is_tried_again_when_the_receiver_asks() -> None:
    waited: list[float] = []
    with receiving(lambda turn: (503, {"Retry-After": "7"}) if turn < 2 else (200, {})) as receiver:
        sent = send(lines(1), receiver.url, SECRET, concurrency=1, wait=waited.append)
    assert (sent.sent, sent.retried, sent.failed) == (1, 2, 0)
    assert waited == [7, 7]
    assert sent.statuses == {"503": 2}
    assert len(set(receiver.bodies)) == 1


@pytest.mark.parametrize("status", [301, 400, 404, 500])
def test_anything_but_2xx_is_tried_again_later_and_later_and_given_up(status: int) -> None:
    waited: list[float] = []
    with receiving(lambda turn: (status, {"Location": "/elsewhere"})) as receiver:
        sent = send(lines(1), receiver.url, SECRET, concurrency=1, tries=4, wait=waited.append)
    assert (sent.sent, sent.retried, sent.failed) == (0, 3, 1)
    assert waited == [0.25, 0.5, 1.0]
    assert len(receiver.bodies) == 4


@pytest.mark.parametrize("asked", ["", "soon", "-1", "Wed, 21 Oct 2026 07:28:00 GMT", "0"])
def test_unreadable_retry_after_falls_back_to_backoff(asked: str) -> None:
    waited: list[float] = []
    with receiving(lambda turn: (503, {"Retry-After": asked}) if turn == 0 else (200, {})) as receiver:
        send(lines(1), receiver.url, SECRET, concurrency=1, wait=waited.append)
    assert waited == [0.25]


def test_endless_retry_after_is_cut() -> None:
    waited: list[float] = []
    with receiving(lambda turn: (503, {"Retry-After": "9" * 30}) if turn == 0 else (200, {})) as receiver:
        send(lines(1), receiver.url, SECRET, concurrency=1, wait=waited.append)
    assert waited == [replay.LONGEST_RETRY_AFTER]


def test_dead_receiver_ends_the_replay() -> None:
    with receiving() as receiver:
        url = receiver.url
    sent = send(lines(500), url, SECRET, concurrency=4, tries=2, wait=lambda seconds: None)
    assert sent.stopped == "nobody takes them"
    assert sent.sent == 0
    assert replay.HOPELESS <= sent.failed <= replay.HOPELESS + 4
    assert list(sent.statuses) == ["NewConnectionError"]


def test_one_bad_event_does_not_stop_its_neighbours() -> None:
    sent_lines = lines(50)
    with receiving(lambda turn: (400 if turn == 7 else 200, {})) as receiver:
        sent = send(sent_lines, receiver.url, SECRET, concurrency=1, tries=1)
    assert (sent.sent, sent.failed, sent.statuses) == (49, 1, {"400": 1})
    assert receiver.ids() == [json.loads(line)["id"] for line in sent_lines]


def test_malformed_lines_are_told_by_number_and_skipped() -> None:
    good = lines(3)
    told: list[tuple[int, str]] = []
    bad = [b"not json\n", b"[1]\n", b"\n", b'{"id": "evt_1"}\n', b'{"id": 5, "type": "x"}\n', b"\xff\n", b"[" * 100_000]
    with receiving() as receiver:
        sent = send(
            [good[0], *bad, good[1], b'{"event": 3}', good[2]],
            receiver.url,
            SECRET,
            malformed=lambda number, reason: told.append((number, reason)),
        )
    assert (sent.sent, sent.malformed) == (3, 7)
    assert [number for number, _ in told] == [2, 3, 5, 6, 7, 8, 10]
    assert dict(told)[2] == "not JSON"
    assert "no type" in dict(told)[5]


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_read_fails_only_by_value_error(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"not JSON|no event|Expected"):
        read(line)


def is_event(value: Any) -> bool:
    """Whether it is an event in any case: others may be one, too."""
    return (
        isinstance(value, dict)
        and value.keys().isdisjoint({"received_at", "event"})
        and all(type(value.get(name)) is str and value[name] for name in ("id", "type"))
        and type(value.get("created")) is int
        and 0 <= value["created"] <= replay.LAST
    )


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["id", "type", "created", "received_at", "event", "data"]), inner)
        ),
    )
)
def test_read_takes_or_refuses_any_json(value: Any) -> None:
    try:
        post = read(json.dumps(value).encode())
    except ValueError:
        assert not is_event(value)
    else:
        assert json.loads(post.body)["id"]
        assert 0 <= post.at <= replay.LAST


def test_reason_quotes_nothing_of_the_line() -> None:
    with pytest.raises(ValueError, match=r"^Expected `str`, got `object` - at `\$.id`$"):
        read(b'{"id": {"email": "ada@example.com"}}')


def test_wrapped_event_keeps_its_bytes_and_its_time() -> None:
    event = b'{"id":"evt_1",  "type":"charge.failed","created":1788000000, "data":{"\\u00e9":1.50}}'
    post = read(b'{"received_at": 1788000123.5, "event": ' + event + b"}\n")
    assert (post.body, post.at) == (event, 1788000123.5)
    assert read(event).at == 1788000000


def test_thin_event_has_a_time() -> None:
    assert read(b'{"id":"evt_1","type":"v1.charge.failed","created":"2026-09-14T10:00:00.000Z"}').at == 1789380000


def test_renewed_event_differs_in_id_and_created_only() -> None:
    body = lines(1)[0]
    old, new = json.loads(body), json.loads(renew(body, 1_789_000_000.7))
    assert new["id"] != old["id"]
    assert new["id"].startswith("evt_")
    assert new["created"] == 1_789_000_000
    assert {**new, "id": old["id"], "created": old["created"]} == old


def test_new_events_are_sent_under_new_ids() -> None:
    sent_lines = lines(20)
    with receiving() as receiver:
        send([*sent_lines, *sent_lines], receiver.url, SECRET, new=True)
    assert len(set(receiver.ids())) == 40


@pytest.mark.parametrize(
    ("pace", "expected"),
    [
        (Pace(), [0, 0, 0]),
        (Pace(rate=50), [0, 0.02, 0.04]),
        (Pace(speed=60), [0, 1, 0.5]),
    ],
)
def test_pace(pace: Pace, expected: list[float]) -> None:
    assert [pace.due(at) for at in (1000, 1060, 1030)] == pytest.approx(expected)


def test_rate_holds_events_back() -> None:
    with receiving() as receiver:
        sent = send(lines(21), receiver.url, SECRET, rate=100)
    assert sent.sent == 21
    assert sent.seconds >= 0.2


def test_halt_ends_a_replay_that_waits() -> None:
    halt = threading.Event()
    with receiving() as receiver:

        def answer(turn: int) -> Answer:
            halt.set()
            return (503, {"Retry-After": "60"})

        receiver.answer = answer
        sent = send(lines(100), receiver.url, SECRET, concurrency=2, halt=halt)
    assert sent.sent == 0
    assert sent.failed <= 2
    assert sent.seconds < 30


def test_a_fault_of_the_source_is_raised() -> None:
    def broken() -> Iterator[bytes]:
        yield lines(1)[0]
        raise OSError("disk gone")

    with receiving() as receiver, pytest.raises(OSError, match="disk gone"):
        send(broken(), receiver.url, SECRET)


def test_lines_are_taken_only_as_they_are_sent() -> None:
    source = iter(lines(300))
    halt = threading.Event()
    with receiving() as receiver:

        def answer(turn: int) -> Answer:
            if turn == 20:
                halt.set()
            return (200, {})

        receiver.answer = answer
        sent = send(source, receiver.url, SECRET, concurrency=4, halt=halt)
    assert len(list(source)) >= 300 - sent.sent - 4


@pytest.mark.parametrize("url", ["ftp://localhost/x", "localhost:8000", "http://", "http://[::1", "http://a b/"])
def test_bad_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        send([], url, SECRET)


def run(file: Path, url: str, *arguments: str, secret: str = SECRET) -> tuple[int, str, str]:
    environment = {"STRIPE_WEBHOOK_SECRET": secret}
    result = CliRunner().invoke(command, [str(file), "--url", url, *arguments], env=environment)
    return result.exit_code, result.stdout, result.stderr


def test_command_counts_and_exits_0(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(b"".join(lines(30)))
    with receiving() as receiver:
        code, out, _ = run(file, receiver.url, "--json")
        counted = msgspec.json.decode(out)
        assert code == 0
        assert (counted["sent"], counted["failed"], counted["malformed"]) == (30, 0, 0)
        assert counted["per_second"] > 0
        code, out, _ = run(file, receiver.url)
    assert code == 0
    assert out.startswith("30 sent, 0 retried, 0 failed, 0 malformed; ")


def test_command_reports_a_malformed_line_and_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(1)[0] + b"{oops\n")
    with receiving() as receiver:
        code, out, err = run(file, receiver.url)
    assert code == 1
    assert "line 2: not JSON" in err
    assert "1 sent" in out


def test_command_uses_the_first_of_several_secrets(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(1)[0])
    with receiving() as receiver:
        code, _, _ = run(file, receiver.url, secret=f"{SECRET}, whsec_old")
    assert code == 0
    assert stripe.WebhookSignature.verify_header(receiver.bodies[0], receiver.signatures[0], SECRET, 300)


@pytest.mark.parametrize("arguments", [["--url", "nowhere"], ["--rate", "5", "--speed", "5"], ["--rate", "0"]])
def test_command_answers_wrong_usage_with_2(tmp_path: Path, arguments: list[str]) -> None:
    file = tmp_path / "events.jsonl"
    file.write_bytes(lines(1)[0])
    assert run(file, "http://127.0.0.1:9/", *arguments)[0] == 2
    assert run(tmp_path / "missing", "http://127.0.0.1:9/")[0] == 2


def test_counts_of_nothing() -> None:
    sent = send([], "http://127.0.0.1:9/", SECRET)
    assert isinstance(sent, Sent)
    assert (sent.sent, sent.p50_ms) == (0, 0.0)
