"""How surprising a count is: the tails of the negative binomial, whose variance may exceed its mean."""

from math import lgamma, log, log10

LEAST = 1e-300  # probabilities are summed down to here; -log10 stays below 300
EXACT = 1e-7  # relative: what is left of a sum when it is cut off


def surprise(count: float, mean: float, variance: float) -> float:
    """-log10 of the probability of `count` or more, given mean and variance (at least Poisson's, the mean).

    0 where the count is no more than the mean. 6.5 is once in three million looks.
    """
    if count <= mean or mean <= 0:
        return 0.0 if mean > 0 or count == 0 else 300.0
    size, odds = _shape(mean, variance)
    term = total = 1.0
    k = count
    while term > total * EXACT:
        term *= (k + size) / (k + 1) * odds
        total += term
        k += 1
    return min(300.0, -(_log(count, mean, size) + log(total)) / log(10))


def shortfall(count: float, mean: float, variance: float) -> float:
    """-log10 of the probability of `count` or fewer; 0 where the count is no less than the mean."""
    if count >= mean or mean <= 0:
        return 0.0
    size, odds = _shape(mean, variance)
    if count < 1:
        return silence(mean, variance)
    term = total = 1.0
    k = count
    while k >= 1 and term > total * EXACT:
        term *= k / ((k - 1 + size) * odds)
        total += term
        k -= 1
    return max(0.0, min(300.0, -(_log(count, mean, size) + log(total)) / log(10)))


def silence(mean: float, variance: float) -> float:
    """-log10 of the probability of nothing at all where `mean` was expected."""
    size, _ = _shape(mean, variance)
    return size * log10(1 + mean / size)


def _shape(mean: float, variance: float) -> tuple[float, float]:
    """The distribution's size, and the ratio its terms tend to."""
    size = mean * mean / (max(variance, mean * 1.0001) - mean)
    return size, mean / (mean + size)


def _log(count: float, mean: float, size: float) -> float:
    """The natural logarithm of the probability of exactly `count`."""
    return (
        lgamma(count + size)
        - lgamma(size)
        - lgamma(count + 1)
        - size * log((size + mean) / size)
        + count * log(mean / (mean + size))
    )
