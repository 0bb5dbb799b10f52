"""How surprising a count is: the tail of the negative binomial, whose variance may exceed its mean."""

from math import exp, lgamma, log, log10

LEAST = 1e-300  # probabilities are summed down to here; -log10 stays below 300


def surprise(count: int, mean: float, variance: float) -> float:
    """-log10 of the probability of `count` or more, given mean and variance (at least Poisson's, the mean).

    0 where the count is no more than the mean. 6.5 is once in three million looks.
    """
    if count <= mean or mean <= 0:
        return 0.0 if mean > 0 or count == 0 else 300.0
    excess = max(variance, mean * 1.0001) - mean
    size = mean * mean / excess
    odds = mean / (mean + size)
    term = exp(lgamma(count + size) - lgamma(size) - lgamma(count + 1) + size * log(1 - odds) + count * log(odds))
    total, k = term, count
    while term > total * 1e-12 and term > LEAST:
        term *= (k + size) / (k + 1) * odds
        total += term
        k += 1
    return -log10(max(total, LEAST))


def silence(mean: float, variance: float) -> float:
    """-log10 of the probability of nothing at all where `mean` was expected."""
    excess = max(variance, mean * 1.0001) - mean
    size = mean * mean / excess
    return size * log10(1 + mean / size)
