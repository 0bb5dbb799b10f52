"""The receiver as senders see it: a process on a socket, a real Valkey behind it, every answer of its contract."""

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from billingwatch.queues import EVENTS, Queue, Received
from billingwatch.simulator.objects import Account, thin
from ingest.app import LARGEST, RETRY_AFTER
from tests.conftest import Servers
from tests.factories import paid, received
from tests.pipeline.receiver import (
    ROLLED,
    SECRET,
    SHOP,
    Answer,
    Receiver,
    listens,
    read_answer,
    receiving,
    request,
    signed,
)
from tests.waiting import PATIENCE, until
from worker.process import Process, start
from worker.runner import Runner

BODY = b'{"id": "evt_1", "object": "event", "type": "charge.failed", "created": 1788000000}'


@pytest.fixture(scope="module")
def receiver(servers: Servers) -> Iterator[Receiver]:
    """One receiver for every test here that does not stop it."""
    with receiving(servers.redis_url) as receiver:
        yield receiver


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(EVENTS, redis)


def queued(queue: Queue) -> list[Received]:
    """Every event that is durable, in order."""
    return [Received(*each) for job in queue.get_jobs() for each in job.args[0]]


def error(answer: Answer) -> str:
    assert answer.headers["content-type"] == "application/json"
    found = json.loads(answer.body)
    assert found.keys() == {"error"}
    return str(found["error"])


# --- accepted ---------------------------------------------------------------------------------------------------------


def test_answered_200_is_durable_byte_for_byte(receiver: Receiver, queue: Queue) -> None:
    body = '{"id": "evt_1",  "name": "é"}\n'.encode()
    answer = receiver.post(body)
    assert (answer.status, json.loads(answer.body)) == (200, {"received": True})
    (event,) = queued(queue)
    assert (event.source, event.body) == ("default", body)
    assert abs(event.received_at - time.time()) < 60


@pytest.mark.parametrize(
    ("path", "secret", "source"),
    [
        ("/webhook", SECRET, "default"),
        ("/webhook", ROLLED, "default"),
        ("/webhook/default", SECRET, "default"),
        ("/webhook/shop", SHOP, "shop"),
        ("/webhook?from=stripe", SECRET, "default"),
    ],
)
def test_each_source_takes_its_own_secrets(
    receiver: Receiver, queue: Queue, path: str, secret: str, source: str
) -> None:
    assert receiver.post(BODY, signed(BODY, secret), path).status == 200
    assert [event.source for event in queued(queue)] == [source]


@pytest.mark.parametrize(("path", "secret"), [("/webhook", SHOP), ("/webhook/shop", SECRET), ("/webhook/shop", ROLLED)])
def test_no_source_takes_anothers_secret(receiver: Receiver, queue: Queue, path: str, secret: str) -> None:
    answer = receiver.post(BODY, signed(BODY, secret), path)
    assert (answer.status, error(answer)) == (400, "bad_signature")
    assert queued(queue) == []


def test_delivery_signed_with_both_secrets_while_one_rolls_is_taken(receiver: Receiver, queue: Queue) -> None:
    at = int(time.time())
    signatures = [signed(BODY, secret, at)["Stripe-Signature"].partition(",")[2] for secret in ("whsec_newer", ROLLED)]
    assert receiver.post(BODY, {"Stripe-Signature": f"t={at},{','.join(signatures)}"}).status == 200
    assert len(queued(queue)) == 1


def test_thin_event_is_taken_on_the_same_address(receiver: Receiver, queue: Queue) -> None:
    related = {"id": "ch_1", "type": "charge", "url": "/v1/charges/ch_1"}
    body = json.dumps(thin(Account(), "v1.charge.failed", related, 1_788_000_000, id="evt_thin")).encode()
    assert receiver.post(body).status == 200
    assert [event.body for event in queued(queue)] == [body]


def test_body_of_exactly_the_limit_is_taken(receiver: Receiver, queue: Queue) -> None:
    body = b'{"id": "evt_1"' + b" " * (LARGEST - 15) + b"}"
    assert len(body) == LARGEST
    assert receiver.post(body).status == 200
    assert [len(event.body) for event in queued(queue)] == [LARGEST]


# --- refused ----------------------------------------------------------------------------------------------------------

# body, and the headers or by how many seconds the signature is off
REFUSED: dict[str, tuple[bytes, dict[str, str] | int, str]] = {
    "no signature": (BODY, {}, "missing_signature"),
    "an empty signature": (BODY, {"Stripe-Signature": ""}, "missing_signature"),
    "words": (BODY, {"Stripe-Signature": "let me in"}, "malformed_signature"),
    "no time": (BODY, {"Stripe-Signature": "v1=" + "0" * 64}, "malformed_signature"),
    "a time below zero": (BODY, {"Stripe-Signature": "t=-1,v1=" + "0" * 64}, "malformed_signature"),
    "no v1": (BODY, {"Stripe-Signature": "t=1788000000,v0=" + "0" * 64}, "bad_signature"),
    "another's signature": (BODY, signed(BODY, "whsec_other"), "bad_signature"),
    "another body's signature": (BODY, signed(BODY + b" "), "bad_signature"),
    "not even ASCII": (BODY, {"Stripe-Signature": "t=1788000000,v1=" + "é" * 64}, "bad_signature"),
    "seventeen signatures": (
        BODY,
        {"Stripe-Signature": "t=1788000000" + (",v1=" + "0" * 64) * 17},
        "malformed_signature",
    ),
    "a header of five kilobytes": (BODY, {"Stripe-Signature": "t=1788000000," + "x" * 5000}, "malformed_signature"),
    "signed six minutes ago": (BODY, -360, "stale_signature"),
    "signed in six minutes": (BODY, 360, "stale_signature"),
    "no body": (b"", 0, "unreadable_body"),
    "no object": (b"[1]", 0, "unreadable_body"),
    "no JSON": (b"id=evt_1", 0, "unreadable_body"),
    "cut off": (BODY[:-1], 0, "unreadable_body"),
    "no UTF-8": (b'{"id": "\xff"}', 0, "unreadable_body"),
}


@pytest.mark.parametrize(("body", "headers", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_believed_is_answered_400_with_a_code_and_nothing_else(
    receiver: Receiver, queue: Queue, body: bytes, headers: dict[str, str] | int, reason: str
) -> None:
    answer = receiver.post(body, headers if isinstance(headers, dict) else signed(body, at=time.time() + headers))
    assert (answer.status, error(answer)) == (400, reason)
    assert queued(queue) == []


def test_two_signature_headers_are_none(receiver: Receiver, queue: Queue) -> None:
    right = signed(BODY)["Stripe-Signature"]
    with receiver.dial() as wire:
        head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n"
        wire.sendall(f"{head}Stripe-Signature: {right}\r\nStripe-Signature: {right}\r\n\r\n".encode() + BODY)
        assert error(read_answer(wire)) == "missing_signature"
    assert queued(queue) == []


@pytest.mark.parametrize(
    "path", ["/webhook/nobody", "/webhook/Shop", "/webhook/%73hop/x", "/webhook/", "/", "/webhook/shop/"]
)
def test_unknown_source_or_page_is_404_without_a_redirect(receiver: Receiver, queue: Queue, path: str) -> None:
    answer = receiver.post(BODY, path=path)
    assert answer.status == 404
    assert "location" not in answer.headers
    assert queued(queue) == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods_are_405_and_are_told_what_is_allowed(receiver: Receiver, method: str) -> None:
    answer = receiver.ask(method, "/webhook")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


def test_too_large_by_its_own_word_is_413_before_it_is_read(receiver: Receiver, queue: Queue) -> None:
    with receiver.dial() as wire:
        head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: {LARGEST + 1}\r\n\r\n"
        wire.sendall(head.encode())  # and not a byte of the body
        answer = read_answer(wire)
    assert (answer.status, error(answer), answer.headers["connection"]) == (413, "too_large", "close")
    assert queued(queue) == []


def test_too_large_in_chunks_is_413(receiver: Receiver, queue: Queue) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    with receiver.dial() as wire:
        wire.sendall(b"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(LARGEST // 0x10000):
            wire.sendall(chunk)
        wire.sendall(b"1\r\n}\r\n")
        answer = read_answer(wire)
    assert (answer.status, error(answer)) == (413, "too_large")
    assert queued(queue) == []


def test_body_in_chunks_is_taken_whole(receiver: Receiver, queue: Queue) -> None:
    signature = signed(BODY)["Stripe-Signature"]
    head = f"POST /webhook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nStripe-Signature: {signature}"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY)
    with receiver.dial() as wire:
        wire.sendall(head.encode() + b"\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert read_answer(wire).status == 200
    assert [event.body for event in queued(queue)] == [BODY]


# --- bad manners ------------------------------------------------------------------------------------------------------


def test_three_requests_in_one_packet_get_three_answers_in_order(receiver: Receiver, queue: Queue) -> None:
    bodies = [b'{"id": "evt_%d"}' % n for n in range(3)]
    with receiver.dial() as wire:
        wire.sendall(request(bodies[0]) + request(bodies[1], {}) + request(bodies[2]))
        # one reader for all of them: a response object may read ahead into the next
        with wire.makefile("rb") as stream:
            lines = [line for line in iter_lines(stream, 3) if line.startswith(b"HTTP/1.1")]
    assert [int(line.split()[1]) for line in lines] == [200, 400, 200]
    assert [event.body for event in queued(queue)] == bodies[::2]


def iter_lines(stream: BinaryIO, answers: int) -> Iterator[bytes]:
    """The lines of so many answers, bodies included."""
    for _ in range(answers):
        length = 0
        while (line := stream.readline().strip()) != b"":
            yield line
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        yield stream.read(length)


def test_connection_is_kept_for_the_next_delivery(receiver: Receiver, queue: Queue) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=PATIENCE)
    ports = set()
    with closing(connection):
        for n in range(5):
            body = b'{"id": "evt_%d"}' % n
            connection.request("POST", "/webhook", body, signed(body))
            ports.add(connection.sock.getsockname()[1])
            assert connection.getresponse().read() == b'{"received": true}'
    assert len(ports) == 1
    assert len(queued(queue)) == 5


def test_sender_that_hangs_up_in_mid_body_leaves_nothing(receiver: Receiver, queue: Queue) -> None:
    before = samples(receiver)
    for _ in range(5):
        with receiver.dial() as wire:
            wire.sendall(request(BODY)[:-10])
    assert receiver.post(BODY).status == 200
    assert len(queued(queue)) == 1
    after = samples(receiver)
    assert after["ingest_received_total"] == before["ingest_received_total"] + 1
    assert rejected(after) == rejected(before)


@pytest.mark.parametrize("size", [10_000, 1 << 20])
def test_header_of_any_size_is_no_fault_of_ours(receiver: Receiver, queue: Queue, size: int) -> None:
    with receiver.dial() as wire:
        try:
            wire.sendall(request(BODY, {"Stripe-Signature": "v1=0," * (size // 5)}))
            assert 400 <= read_answer(wire).status < 500
        except (ConnectionError, http.client.BadStatusLine):
            pass  # cut off in mid-header is an answer, too
    assert receiver.ask("GET", "/healthz").status == 200
    assert queued(queue) == []


@pytest.mark.parametrize(
    "noise",
    [
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /webhook HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"POST /webhook HTTP/9.9\r\n\r\n",
        b"POST \xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["nothing", "TLS", "length below zero", "length beyond 64 bits", "two lengths", "no version", "no path"],
)
def test_noise_is_refused_and_the_next_delivery_is_taken(receiver: Receiver, queue: Queue, noise: bytes) -> None:
    with receiver.dial() as wire:
        wire.sendall(noise)
        wire.shutdown(socket.SHUT_WR)
        said = b"".join(iter(lambda: wire.recv(65536), b""))
    assert b" 200 " not in said
    assert b"HTTP/1.1 5" not in said
    assert receiver.post(BODY).status == 200
    assert len(queued(queue)) == 1


# --- how it is --------------------------------------------------------------------------------------------------------


def samples(receiver: Receiver) -> dict[str, float]:
    """Prometheus's samples by name and labels."""
    answer = receiver.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def rejected(found: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in found.items() if name.startswith("ingest_rejected_total")}


def test_metrics_count_what_was_answered_by_reason(receiver: Receiver, queue: Queue) -> None:
    before = samples(receiver)
    receiver.post(BODY)
    receiver.post(BODY, {})
    receiver.post(BODY, path="/webhook/nobody")
    after = until(lambda: found if (found := samples(receiver))["queue_depth_jobs"] == 1 else None)
    grown = {name: value - before.get(name, 0) for name, value in after.items()}
    assert grown["ingest_received_total"] == 1
    assert grown["ingest_rejected_total,missing_signature"] == 1
    assert grown["ingest_rejected_total,unknown_source"] == 1
    assert grown["ingest_seconds_count,200"] == grown["ingest_seconds_count,400"] == 1
    assert (after["ingest_ready"], after["ingest_waiting_events"]) == (1, 0)


def test_health_and_readiness(receiver: Receiver) -> None:
    assert json.loads(receiver.ask("GET", "/healthz").body) == {"ok": True}
    ready = receiver.ask("GET", "/readyz")
    assert (ready.status, json.loads(ready.body)) == (200, {"ready": True})


def test_write_that_redis_does_not_take_is_answered_503_and_never_200(receiver: Receiver, redis: Redis) -> None:
    """Redis answers every question and is well by all signs; only the write does not come through."""
    redis.client_pause(int(PATIENCE * 1000), all=False)
    try:
        answer = receiver.post(BODY)
        assert receiver.ask("GET", "/readyz").status == 200
    finally:
        redis.client_unpause()
    assert (answer.status, error(answer)) == (503, "redis_away")
    assert answer.headers["retry-after"] == RETRY_AFTER
    assert receiver.post(BODY).status == 200


def test_above_the_high_water_mark_it_refuses_workers_drain_and_it_takes_events_again(
    receiver: Receiver, redis: Redis, queue: Queue, process: Process
) -> None:
    """A full Redis would stop RQ's workers too, so the receiver stops long before."""
    now = int(time.time())
    told = [paid(now) for _ in range(40)]
    for each in told:
        each["data"]["object"]["description"] = os.urandom(60_000).hex()
        assert receiver.post(received(each).body).status == 200
    assert len(queued(queue)) == 40
    used = int(redis.info("memory")["used_memory"])
    redis.config_set("maxmemory", int(used / 0.8))
    try:
        until(lambda: receiver.ask("GET", "/readyz").status == 503)
        told_why = json.loads(receiver.ask("GET", "/readyz").body)
        assert (told_why["ready"], told_why["reason"]) == (False, "redis_above_high_water")
        assert "maxmemory" in told_why["hint"]
        refused = receiver.post(BODY)
        assert (refused.status, error(refused)) == (503, "redis_above_high_water")
        assert refused.headers["retry-after"] == RETRY_AFTER
        assert receiver.ask("GET", "/healthz").status == 200

        start(process)
        Runner(queue, process).work(burst=True, logging_level="WARNING")
        assert process.conn().execute("SELECT count(*) FROM events").fetchone() == (40,)
        until(lambda: receiver.post(BODY).status == 200)
        assert queue.count == 1
    finally:
        redis.config_set("maxmemory", 0)
    until(lambda: receiver.ask("GET", "/readyz").status == 200)


def test_stopped_it_answers_what_was_under_way_and_takes_nothing_new(servers: Servers, queue: Queue) -> None:
    whole = request(BODY)
    with receiving(servers.redis_url) as receiver, receiver.dial() as wire:
        wire.sendall(whole[:-10])
        receiver.process.terminate()
        until(lambda: not listens(receiver.port))
        wire.sendall(whole[-10:])
        assert read_answer(wire).status == 200
        # and it was told to, so it is no failure
        assert receiver.process.wait(PATIENCE) == 0
    assert [event.body for event in queued(queue)] == [BODY]


# --- refusing to start ------------------------------------------------------------------------------------------------


def refuse(arguments: list[str], environment: dict[str, str]) -> str:
    """What the receiver says when it ends with 2 instead of listening."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STRIPE_")}
    ended = subprocess.run(
        [sys.executable, "-m", "billingwatch", "ingest", "--port", "0", *arguments],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_without_a_secret_it_does_not_start_and_says_where_to_find_one(redis_url: str) -> None:
    said = refuse([], {"REDIS_URL": redis_url})
    assert "STRIPE_WEBHOOK_SECRET: is not set" in said
    assert "whsec_" in said


def test_without_redis_and_with_a_broken_secret_it_tells_both_and_quotes_neither() -> None:
    said = refuse([], {"REDIS_URL": "", "STRIPE_WEBHOOK_SECRET": "whsec_one whsec_two"})
    assert "REDIS_URL: is not set" in said
    assert "STRIPE_WEBHOOK_SECRET: has white space" in said
    assert "whsec_one" not in said


def test_strict_refuses_a_redis_that_would_forget(redis: Redis, redis_url: str) -> None:
    secret = {"STRIPE_WEBHOOK_SECRET": SECRET}
    redis.config_set("maxmemory-policy", "allkeys-lru")
    redis.config_set("appendonly", "no")
    try:
        said = refuse(["--strict"], {"REDIS_URL": redis_url, **secret})
    finally:
        redis.config_set("appendonly", "yes")
        redis.config_set("maxmemory-policy", "noeviction")
    assert "set appendonly yes" in said
    assert "set noeviction" in said
    assert "does not answer" in refuse(["--strict"], {"REDIS_URL": "redis://127.0.0.1:1/0", **secret})
