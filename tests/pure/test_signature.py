"""Signatures: equal to Stripe's own library where both speak, strict where it is lenient."""

import hmac
from hashlib import sha256

import pytest
import stripe
import time_machine
from hypothesis import given
from hypothesis import strategies as st

from billingwatch.signing import sign
from ingest.signature import BAD, LONGEST, MALFORMED, MISSING, MOST, STALE, TOLERANCE, Rejected, verify

NOW = 1_789_380_000
BODY = b'{"id": "evt_1"}'
SECRET = b"whsec_one"
OTHER = b"whsec_two"

texts = st.text(st.characters(exclude_categories=["Cs"]))
secrets = st.text(st.characters(exclude_categories=["Cs", "Zs", "Zl", "Zp", "Cc"]), min_size=1)
times = st.integers(NOW - TOLERANCE, NOW + TOLERANCE)


def digest(signed: bytes, secret: bytes = SECRET) -> bytes:
    return hmac.digest(secret, signed, sha256).hex().encode()


def v1(timestamp: object = NOW, secret: bytes = SECRET) -> bytes:
    return b"v1=" + digest(f"{timestamp}.".encode() + BODY, secret)


def believed_by_stripe(body: str, header: str, secret: str) -> bool:
    with time_machine.travel(NOW, tick=False):
        try:
            return bool(stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE))
        except stripe.SignatureVerificationError:
            return False


@given(texts, st.lists(secrets, min_size=1, max_size=MOST, unique=True), times, st.data())
def test_what_stripes_library_signs_is_believed(body: str, signers: list[str], at: int, data: st.DataObject) -> None:
    signed = [stripe.WebhookSignature.generate_signature_header(body, secret, at) for secret in signers]
    header = ",".join([signed[0], *(each.partition(",")[2] for each in signed[1:])])
    ours = data.draw(st.sampled_from(signers))
    assert verify(body.encode(), header.encode(), (b"whsec_new", ours.encode()), NOW) is None
    assert verify(body.encode() + b" ", header.encode(), (ours.encode(),), NOW) == BAD


@given(texts, secrets, times)
def test_we_sign_as_stripes_library_does(body: str, secret: str, at: int) -> None:
    assert sign(body.encode(), secret, at) == stripe.WebhookSignature.generate_signature_header(body, secret, at)


PARTS = [
    f"t={NOW}",
    f"t={NOW - TOLERANCE}",
    f"t={NOW + TOLERANCE}",
    f"t={NOW - TOLERANCE - 1}",
    f"t=0{NOW}",
    f"t={NOW} ",
    f"t={NOW}=5",
    "t=",
    "t",
    v1().decode(),
    " " + v1().decode(),
    v1().decode() + "=",
    v1().decode().upper(),
    v1(NOW - TOLERANCE).decode(),
    v1(NOW + TOLERANCE).decode(),
    v1(NOW - TOLERANCE - 1).decode(),
    v1(f"0{NOW}").decode(),
    v1(secret=OTHER).decode(),
    "v1=" + "0" * 64,
    v1().decode().replace("v1", "v0"),
    "v1=",
    "",
]


any_parts = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=4)
nearly_right = st.tuples(st.sampled_from(PARTS[:9]), st.sampled_from(PARTS[9:18]), any_parts).flatmap(
    lambda found: st.permutations([found[0], found[1], *found[2]])
)


@given(any_parts | nearly_right)
def test_what_we_believe_stripes_library_believes(parts: list[str]) -> None:
    header = ",".join(parts)
    if verify(BODY, header.encode("utf-8", "surrogatepass"), (SECRET,), NOW) is None:
        assert believed_by_stripe(BODY.decode(), header, SECRET.decode())


T = b"t=%d," % NOW
HEADERS: dict[str, tuple[bytes, Rejected | None]] = {
    "right": (T + v1(), None),
    "in the other order": (v1() + b"," + T[:-1], None),
    "two, one right": (T + v1(secret=OTHER) + b"," + v1(), None),
    "as many as are read": (T + b",".join([v1(secret=OTHER)] * (MOST - 1) + [v1()]), None),
    "a decoy beside it": (T + v1() + b",v0=" + b"0" * 64, None),
    "a scheme of tomorrow beside it": (T + v1() + b",v2=abc", None),
    "missing": (b"", MISSING),
    "blank": (b" ", MALFORMED),
    "commas": (b"," * 9, MALFORMED),
    "no time": (v1(), MALFORMED),
    "empty time": (b"t=," + v1(""), MALFORMED),
    "negative time": (b"t=-%d," % NOW + v1(-NOW), MALFORMED),
    "fractional time": (b"t=%d.0," % NOW + v1(f"{NOW}.0"), MALFORMED),
    "time in hex": (b"t=0x6aa7dd60," + v1("0x6aa7dd60"), MALFORMED),
    "time with underscores": (b"t=1_789_380_000," + v1("1_789_380_000"), MALFORMED),
    "time in Arabic digits": ("t=\u0661\u0667,".encode() + v1("\u0661\u0667"), MALFORMED),
    "time with a leading zero": (b"t=0%d," % NOW + v1(f"0{NOW}"), MALFORMED),
    "time beyond every clock": (b"t=" + b"9" * 4000 + b"," + v1("9" * 13), MALFORMED),
    "two times": (T + T + v1(), MALFORMED),
    "two times, the second true": (b"t=1," + T + v1(), MALFORMED),
    "spaces": (T + b" " + v1(), BAD),
    "no signature": (T[:-1], BAD),
    "only v0": (T + v1().replace(b"v1", b"v0"), BAD),
    "upper case": (T + v1().upper().replace(b"V1", b"v1"), BAD),
    "cut off": (T + v1()[:-1], BAD),
    "too long": (T + v1() + b"0", BAD),
    "of another secret": (T + v1(secret=OTHER), BAD),
    "of another time": (T + v1(NOW - 1), BAD),
    "non-ASCII signature": (T + b"v1=" + "é".encode() * 32, BAD),
    "Latin-1 bytes": (T + b"v1=" + b"\xe9" * 64, BAD),
    "NUL": (T + b"v1=" + b"\0" * 64, BAD),
    "one more than are read": (T + b",".join([v1()] * (MOST + 1)), MALFORMED),
    "just too long a header": ((T + v1()).ljust(LONGEST + 1, b","), MALFORMED),
    "a megabyte": (T + b",".join([v1()] * 15_000), MALFORMED),
    "300 s old": (b"t=%d," % (NOW - 300) + v1(NOW - 300), None),
    "301 s old": (b"t=%d," % (NOW - 301) + v1(NOW - 301), STALE),
    "300 s ahead": (b"t=%d," % (NOW + 300) + v1(NOW + 300), None),
    "301 s ahead": (b"t=%d," % (NOW + 301) + v1(NOW + 301), STALE),
    "old and wrong": (b"t=%d," % (NOW - 301) + v1(), BAD),
}


@pytest.mark.parametrize("case", HEADERS)
def test_every_header_has_its_answer(case: str) -> None:
    header, answer = HEADERS[case]
    assert verify(BODY, header, (SECRET,), NOW) == answer


@pytest.mark.parametrize(
    ("now", "answer"), [(NOW + 300.0, None), (NOW + 300.001, STALE), (NOW - 300.0, None), (NOW - 300.001, STALE)]
)
def test_tolerance_ends_exactly_at_300_seconds(now: float, answer: Rejected | None) -> None:
    assert verify(BODY, T + v1(), (SECRET,), now) == answer


@pytest.mark.parametrize(
    ("alive", "answer"),
    [
        ((SECRET,), None),
        ((OTHER, SECRET), None),
        ((SECRET, OTHER), None),
        ((OTHER,), BAD),
        ((OTHER, b"whsec_three"), BAD),
        ((), BAD),
    ],
)
def test_any_secret_that_is_alive_will_do(alive: tuple[bytes, ...], answer: Rejected | None) -> None:
    assert verify(BODY, T + v1(), alive, NOW) == answer


def test_the_body_is_bytes_of_any_kind() -> None:
    body = b"\xff\0\x80"
    header = T + b"v1=" + digest(b"%d." % NOW + body)
    assert verify(body, header, (SECRET,), NOW) is None
    assert verify(b"", header, (SECRET,), NOW) == BAD


@given(st.binary(max_size=200))
def test_no_header_raises(header: bytes) -> None:
    assert verify(BODY, header, (SECRET,), NOW) in (MISSING, MALFORMED, BAD)


def test_stripes_library_lets_the_future_pass_so_we_look_ourselves() -> None:
    in_ten_years = NOW + 10 * 365 * 86400
    header = sign(BODY, SECRET.decode(), in_ten_years)
    assert believed_by_stripe(BODY.decode(), header, SECRET.decode())
    assert verify(BODY, header.encode(), (SECRET,), NOW) == STALE
