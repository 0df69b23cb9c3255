"""The discrete Gaussian: its distribution, against exact probabilities and the paper's steps."""

import random
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from smpc.semi2k import gaussian
from smpc.semi2k.gaussian import MOST, discrete_gaussian

LEAST_P = 1e-6


def source(seed):
    """Words of a seeded generator, so that a test that fails does so again."""
    generator = np.random.default_rng(seed)
    return lambda n: generator.integers(0, 2**64, n, dtype=np.uint64)


def dealt(values):
    """Words from a list, in order."""
    left = iter(values)
    return lambda n: np.array([next(left) for _ in range(n)], dtype=np.uint64)


def p_value(samples, sigma):
    """Of chi-square, against exp(-y²/2σ²)/Z; what is rarer than 20 expected is one class a side."""
    support = np.arange(-20 * sigma, 20 * sigma + 1)
    assert abs(samples).max() <= support[-1]
    weights = np.exp(-(support**2) / (2 * sigma**2))
    expected = len(samples) * weights / weights.sum()
    edge = support[expected >= 20].max() + 1
    classes, which = np.unique(np.clip(support, -edge, edge), return_inverse=True)
    observed = [(np.clip(samples, -edge, edge) == y).sum() for y in classes]
    return stats.chisquare(observed, np.bincount(which, expected)).pvalue


def by_the_paper(generator, sigma):
    """One sample by algorithms 1 to 3 as printed, on Python's fractions, with t = ⌊σ⌋ + 1."""

    def bernoulli(p):
        return generator.randrange(p.denominator) < p.numerator

    def minus_exp(gamma):  # algorithm 1
        if gamma > 1:
            return all(minus_exp(Fraction(1)) for _ in range(int(gamma))) and minus_exp(gamma % 1)
        k = 1
        while bernoulli(gamma / k):
            k += 1
        return k % 2 == 1

    def laplace(t):  # algorithm 2
        while True:
            u = generator.randrange(t)
            if not minus_exp(Fraction(u, t)):
                continue
            v = 0
            while minus_exp(Fraction(1)):
                v += 1
            size, negative = u + t * v, generator.randrange(2)
            if size or not negative:
                return -size if negative else size

    t = sigma + 1
    while True:  # algorithm 3
        y = laplace(t)
        if minus_exp((abs(y) - Fraction(sigma**2, t)) ** 2 / (2 * sigma**2)):
            return y


@pytest.mark.parametrize("sigma", [1, 2, 3, 10])
def test_exact_probabilities(sigma):
    assert p_value(discrete_gaussian(source(sigma), sigma, 500_000), sigma) > LEAST_P


@pytest.mark.parametrize("sigma", [1, 3])
def test_beside_the_papers_steps(sigma):
    """The reference draws from the same distribution, by another t and one coin for it all."""
    generator = random.Random(sigma)
    plain = np.array([by_the_paper(generator, sigma) for _ in range(10_000)])
    assert p_value(plain, sigma) > LEAST_P
    drawn = discrete_gaussian(source(sigma), sigma, len(plain))
    values = list(range(-2 * sigma, 2 * sigma + 1))
    table = [[(x == y).sum() for y in values] for x in (plain, drawn)]
    assert stats.chi2_contingency(table).pvalue > LEAST_P


@pytest.mark.parametrize("sigma", [1000, 1_234_567, MOST - 1, MOST])
def test_large_sigma(sigma):
    """So many steps fine, it is the normal distribution: moments, the curve, both tails."""
    n = 400_000
    x = discrete_gaussian(source(sigma), sigma, n) / sigma
    for power, moment in [(1, 0), (2, 1), (3, 0), (4, 3), (6, 15)]:
        variance = [1, 1, 3, 15, 105, 945, 10395][power] - moment**2
        assert abs((x**power).mean() - moment) < 5 * (variance / n) ** 0.5
    assert stats.kstest(x, "norm").pvalue > LEAST_P
    for side in (-x, x):
        assert stats.binomtest((side > 3).sum(), n, stats.norm.sf(3)).pvalue > LEAST_P
    assert 4 < abs(x).max() < 6.5


def test_all_of_the_low_bits_are_drawn():
    """No coarser grid hides at a large σ: the remainder mod 2^10 is uniform."""
    low = discrete_gaussian(source(5), MOST, 200_000) % 1024
    assert stats.chisquare(np.bincount(low, minlength=1024)).pvalue > LEAST_P


@pytest.mark.parametrize("sigma", [1, 2, 1000, MOST])
def test_symmetry(sigma):
    """The sign is a fair coin, whatever the size."""
    x = discrete_gaussian(source(11), sigma, 300_000)
    near = abs(x) <= sigma
    for some in (x[near & (x != 0)], x[~near]):
        assert stats.binomtest((some > 0).sum(), len(some)).pvalue > LEAST_P


def test_samples_are_independent():
    """Neighbours have nothing to do with each other, in value or in size."""
    x = discrete_gaussian(source(12), 1000, 400_000) / 1000
    for y in (x, x**2, abs(x)):
        assert abs(np.corrcoef(y[1:], y[:-1])[0, 1]) < 5 / len(x) ** 0.5


def test_words_serve_once_and_in_order():
    """The same words give the same samples, and those that follow give others."""
    asked = []

    def counted(n):
        asked.append(n)
        return words(n)

    words = source(13)
    first, second = (discrete_gaussian(counted, 10**6, 1000) for _ in range(2))
    assert np.intersect1d(first, second).size < 10
    in_order = source(13)(sum(asked)).tolist()
    words = dealt(in_order)
    assert np.array_equal(discrete_gaussian(words, 10**6, 1000), first)
    assert np.array_equal(discrete_gaussian(words, 10**6, 1000), second)
    with pytest.raises(StopIteration):
        words(1)  # each was asked for, and none twice


@pytest.mark.parametrize("n", [0, 1, 2, 1001])
def test_how_many(n):
    samples = discrete_gaussian(source(14), 7, n)
    assert samples.shape == (n,) and samples.dtype == np.int64


def test_below():
    """Every integer has as many words; those left over are drawn again."""
    share = (2**64 - 1) // 5
    drawn = [0, share - 1, share, 5 * share - 1, 2**64 - 1, 2**64 - 1, 3 * share]
    assert gaussian._below(dealt(drawn), 5, 5).tolist() == [0, 0, 1, 4, 3]
    assert gaussian._below(dealt([2**64 - 1, 2**64 - 2]), 1, 1).tolist() == [0]
    most = 2**63 - 1
    share = (2**64 - 1) // most
    drawn = [most * share - 1, most * share, 0]
    assert gaussian._below(dealt(drawn), most, 2).tolist() == [most - 1, 0]


@pytest.mark.parametrize("sigma", [0, -1, 0.5, 2.0, True, np.int64(3), "3", None, MOST + 1])
def test_refusals(sigma):
    with pytest.raises(ValueError, match="sigma must be an int from 1"):
        discrete_gaussian(source(15), sigma, 1)
