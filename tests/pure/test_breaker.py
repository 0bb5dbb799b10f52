"""When a channel is left alone for a while, and when others are told that it is broken."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify.breaker import LASTING, PAUSE, Outcome, Result, broken, opened
from tests.factories import NOON

LETTERS: dict[str, Result] = {"s": "sent", "f": "failed", "r": "refused", "u": "unknown"}


def outcomes(letters: str, every: float = 10, end: datetime = NOON) -> list[Outcome]:
    """One each `every` seconds, the last at `end`: s sent, f failed, r refused, u unknown."""
    count = len(letters)
    return [
        Outcome(end - timedelta(seconds=every * (count - 1 - place)), LETTERS[letter], "HTTP 500")
        for place, letter in enumerate(letters)
    ]


@pytest.mark.parametrize(
    ("letters", "open_"),
    [
        ("f" * 9, False),  # too few
        ("f" * 10, True),
        ("sss" + "f" * 7, True),  # seven of ten
        ("ssss" + "f" * 6, False),
        ("f" * 10 + "s", False),  # it works again
        ("r" * 10, True),
        ("u" * 10, False),
    ],
)
def test_seven_of_ten_failures_open_the_breaker(letters: str, open_: bool) -> None:
    found = opened(outcomes(letters), NOON)
    assert found == (NOON + PAUSE if open_ else None)


def test_after_a_pause_one_is_tried() -> None:
    known = outcomes("f" * 12)
    assert opened(known, NOON + PAUSE - timedelta(seconds=1)) is not None
    assert opened(known, NOON + PAUSE) is None


def test_failures_of_long_ago_open_nothing() -> None:
    assert opened(outcomes("f" * 12, every=60), NOON) is None


@pytest.mark.parametrize(
    ("letters", "every", "told"),
    [
        ("", 10, False),
        ("s", 10, False),
        ("r", 10, True),  # trying again is of no use
        ("sr", 10, True),
        ("rs", 10, False),
        ("f", 60, False),
        ("ff", 60, False),
        ("fff", 30, True),
        ("fff", 10, False),  # not for a minute yet
        ("ffsf", 60, False),
        ("fuff", 30, True),
        ("f" * 10, 1, True),  # the breaker
    ],
)
def test_when_others_are_told(letters: str, every: float, told: bool) -> None:
    assert (broken(outcomes(letters, every), NOON) is not None) is told


def test_the_reason_says_what_happened_and_whether_it_may_get_better() -> None:
    assert broken(outcomes("r"), NOON) == "HTTP 500; trying again is of no use"
    assert broken(outcomes("fff", 30), NOON) == "HTTP 500; 3 tries failed in a row"


@given(st.text(st.sampled_from("sfru"), max_size=20), st.floats(1, 100))
def test_a_channel_that_worked_last_is_neither_broken_nor_left_alone(letters: str, every: float) -> None:
    known = outcomes(letters + "s", every)
    assert opened(known, NOON) is None
    assert broken(known, NOON) is None


@given(st.text(st.sampled_from("sf"), max_size=20))
def test_what_failed_three_times_for_a_minute_is_broken(letters: str) -> None:
    assert broken(outcomes(letters + "fff", LASTING.total_seconds() / 2), NOON) is not None
