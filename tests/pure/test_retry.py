"""How long a failed delivery waits."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify import retry

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
