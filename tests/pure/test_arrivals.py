"""Event files: which lines hold an event, when it arrived, and how several files become one stream."""

import gzip
import json
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from billingwatch.arrivals import LONGEST, read, read_files, size
from detectors.event import Unreadable

AT = 1_788_264_000


def told(number: int, created: int = AT, **more: Any) -> dict[str, Any]:
    data = {"object": {"id": f"ch_{number}", "object": "charge", "customer": "cus_1"}}
    return {"id": f"evt_{number}", "type": "charge.succeeded", "created": created, "data": data, **more}


def line(event: dict[str, Any], received: float | None = None) -> bytes:
    wrapped = event if received is None else {"received_at": received, "event": event}
    return json.dumps(wrapped).encode() + b"\n"


def ids(paths: list[Path]) -> list[str]:
    return [each.event.id for each in read_files(paths)]


# A line


@pytest.mark.parametrize(
    ("text", "received"),
    [
        (line(told(1)), AT),
        (line(told(1), AT + 5), AT + 5),
        (line(told(1), AT + 5.25), AT + 6),  # it is seen no earlier than it came
        (line(told(1), AT - 3600), AT - 3600),  # Stripe's clock may be ahead
        (json.dumps({"event": told(1), "received_at": AT + 5}).encode(), AT + 5),
        (json.dumps({"event": told(1)}).encode(), AT),
        (line(told(1, received_at=AT + 5)), AT + 5),
        (line(told(1, data={"object": {"metadata": {"received_at": 7, "event": "x"}}})), AT),
        (line(told(1, data={"object": {"metadata": {"received_at": "\ud800"}}})), AT),  # half a pair: JSON, and no text
        (line(told(1, data={"object": {"metadata": {"half": "\ud800"}}}), AT + 5), AT + 5),
    ],
)
def test_an_event_arrived_when_its_line_says_or_else_when_it_was_created(text: bytes, received: int) -> None:
    found = read(text)
    assert (found.event.id, found.event.created, found.received) == ("evt_1", AT, received)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"nonsense\n", "no JSON"),
        (b'{"received_at": 1788264000', "no JSON"),
        (b"[1, 2]\n", "no Stripe event"),
        (b'"received_at"\n', "no Stripe event"),
        (b'{"received_at": "soon", "event": {}}\n', "Expected `float"),
        (b'{"received_at": 1788264000}\n', "id"),
        (line({"id": "evt_1"}), "type"),
        (line({"id": "evt_1"}, AT), "type"),
        (line(told(1, created=0)), "created lies before 2010"),
        (line(told(1, created=9_999_999_999)), "created lies before 2010 or after 2100"),
        (line(told(1), 12), "received_at lies before 2010"),
        (line(told(1), 1e300), "received_at lies before 2010 or after 2100"),
        (line(told(1), AT - 90_000), "more than a day after received_at"),
        (b'{"id": "evt_1", "type": ' + b"[" * 100_000, "no Stripe event"),
        (b'{"data": {"object": ' + b'{"a": ' * 100_000, "nested too deeply"),
    ],
)
def test_what_holds_no_event_is_refused_with_a_reason(text: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        read(text)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_line_does_more_harm_than_to_be_refused(text: bytes) -> None:
    for each in (text, b'{"received_at": 1788264000, "event": ' + text + b"}"):
        with pytest.raises(Unreadable):
            read(each)


# Files


def test_a_compressed_file_reads_as_a_plain_one(tmp_path: Path) -> None:
    text = b"".join(line(told(number)) for number in range(3))
    plain, packed = tmp_path / "plain.jsonl", tmp_path / "packed"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    assert ids([packed]) == ids([plain]) == ["evt_0", "evt_1", "evt_2"]


def test_malformed_lines_are_told_by_file_and_number_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    blank, secret = b"\n \r\n", b'{"id": "sk_live_secret"\n'
    path.write_bytes(line(told(1)) + blank + secret + line(told(2)) + b"[]\r\n" + line(told(3)).rstrip())
    heard: list[tuple[str, int, str]] = []
    found = [each.event.id for each in read_files([path], malformed=lambda *each: heard.append(each))]
    assert found == ["evt_1", "evt_2", "evt_3"]
    assert [(file, number) for file, number, _ in heard] == [(str(path), 4), (str(path), 6)]
    assert "secret" not in str(heard)


def test_a_line_too_long_is_refused_as_one_and_costs_its_neighbours_nothing(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_bytes(line(told(1)) + b" " * (2 * LONGEST + 5) + b"\n" + line(told(2)))
    heard: list[int] = []
    found = [each.event.id for each in read_files([path], malformed=lambda _, number, __: heard.append(number))]
    assert (found, heard) == (["evt_1", "evt_2"], [2])


@pytest.mark.parametrize("harm", [lambda packed: packed[:-30], lambda packed: packed[:40] + b"x" * 60 + packed[100:]])
def test_a_broken_archive_is_read_as_far_as_it_goes(harm: Any, tmp_path: Path) -> None:
    path = tmp_path / "broken.gz"
    path.write_bytes(harm(gzip.compress(b"".join(line(told(number)) for number in range(2000)), 0)))
    heard: list[str] = []
    found = [each.event.id for each in read_files([path], malformed=lambda _, __, reason: heard.append(reason))]
    assert len(found) < 2000
    assert any("cannot be read on" in reason for reason in heard)


def test_a_text_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + line(told(1)))
    assert ids([path]) == ["evt_1"]


def test_progress_adds_up_to_the_size_of_what_was_read(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.gz"]
    text = b"".join(line(told(number)) for number in range(1200))
    paths[0].write_bytes(text)
    paths[1].write_bytes(gzip.compress(text))
    done: list[int] = []
    assert sum(1 for _ in read_files(paths, progress=done.append)) == 2400
    assert sum(done) == size(paths) == len(text) + paths[1].stat().st_size
    assert min(done) >= 0


def test_the_size_of_what_is_no_file_is_not_known(tmp_path: Path) -> None:
    assert size([Path("-")]) is None
    assert size([tmp_path]) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(files=st.lists(st.lists(st.integers(0, 50), max_size=8).map(sorted), min_size=1, max_size=4))
def test_several_files_are_merged_by_arrival(files: list[list[int]], tmp_path: Path) -> None:
    paths = []
    for number, offsets in enumerate(files):
        paths.append(tmp_path / f"{number}.jsonl")
        paths[-1].write_bytes(b"".join(line(told(1), AT + offset) for offset in offsets))
    assert [each.received - AT for each in read_files(paths)] == sorted(chain(*files))


def test_one_file_keeps_its_order(tmp_path: Path) -> None:
    path = tmp_path / "backfill.jsonl"
    path.write_bytes(line(told(1, created=AT + 60)) + line(told(2, created=AT)))
    assert ids([path]) == ["evt_1", "evt_2"]
