"""What no calendar knows: holidays, sales, level steps, an enterprise's invoice, an outage of deliveries.

Each day's are drawn from the seed and the day alone, so that a longer stream begins with the shorter. Decides nothing
of what an account then does.
"""

import random

from msgspec import Struct

from billingwatch.simulator.rhythm import DAY, HOUR

SALE = (1.0, 0.6, 0.3)  # what is left of a sale's pull on its days
LEVELS = (0.4, 2.5)  # how far steps may carry an account from where it began


class Day(Struct, frozen=True):
    """The surprises of one local day; most days have none."""

    holiday: float = 1.0  # what is left of business
    sale: float = 0.0  # a sale begins: further business, 1 doubles it
    step: float = 1.0  # business is another one from now on
    invoice: int = 0  # local second of the day at which an enterprise subscribes; 0 where none does
    outage: tuple[int, int] = (0, 0)  # local second of the day, and for how many seconds nothing is delivered


def day(seed: int, number: int) -> Day:
    """The surprises of the local day `number` since 1970-01-01."""
    rng = random.Random(f"{seed}:day:{number}")
    chances = [rng.random() for _ in range(5)]
    if min(chances) > 1 / 30:  # spares the rest on most days
        return Day()
    return Day(
        holiday=rng.uniform(0.45, 0.85) if chances[0] < 1 / 50 else 1.0,
        sale=rng.uniform(0.5, 2) if chances[1] < 1 / 60 else 0.0,
        step=rng.uniform(0.8, 1.3) if chances[2] < 1 / 90 else 1.0,
        invoice=int(rng.uniform(9, 18) * HOUR) if chances[3] < 1 / 40 else 0,
        outage=(int(rng.uniform(0, 22) * HOUR), int(rng.uniform(10, 90) * 60)) if chances[4] < 1 / 30 else (0, 0),
    )


class Surprises:
    """An account's surprises, asked for day by day in order of time."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._number = -1
        self._level = self._factor = 1.0

    def factor(self, local: int) -> float:
        """What today's surprises make of business, 1 on a day like any other."""
        number = local // DAY
        if number != self._number:
            self._number = number
            today = day(self._seed, number)
            self._level = min(max(self._level * today.step, LEVELS[0]), LEVELS[1])
            pull = sum(part * day(self._seed, number - age).sale for age, part in enumerate(SALE))
            self._factor = self._level * today.holiday * (1 + pull)
        return self._factor
