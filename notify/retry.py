"""How long a failed delivery waits before the next try. Pure: chance and elapsed time are arguments."""

from datetime import timedelta

FIRST = timedelta(seconds=15)
CAP = timedelta(hours=1)
LIMIT = timedelta(hours=24)  # an alert older than a day informs nobody; it is given up and says so


def delay(attempts: int, jitter: float, waited: timedelta | None = None) -> timedelta | None:
    """The wait before the next try after `attempts` failed ones, or None when the alert is to be given up.

    Exponential from 15 s to 1 h with full jitter: `jitter` in [0, 1) is the share of the step that is waited
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
    `waited` is the time since the first try: the last try then falls on the 24th hour. Without it, the steps so far
    are taken at full length, so trying never lasts longer than 24 h and, by jitter, about half of that.

    Raises ValueError for attempts below 1 or jitter outside [0, 1).
    """
    if attempts < 1:
        raise ValueError("attempts counts the failed tries, at least 1")
    if not 0 <= jitter < 1:
        raise ValueError("jitter must be in [0, 1)")
    wait = step(attempts) * jitter
    if waited is not None:
        return min(wait, LIMIT - waited) if waited < LIMIT else None
    return wait if attempts < _given_up() else None


def step(attempts: int) -> timedelta:
    """The longest wait after `attempts` failed tries."""
    doublings = min(attempts - 1, 16)  # far past the cap; a huge count must not overflow
    return min(CAP, FIRST * (1 << doublings))


def _given_up() -> int:
    """The number of tries that fill 24 h at full length."""
    tries, total = 1, step(1)
    while total <= LIMIT:
        tries += 1
        total += step(tries)
    return tries
