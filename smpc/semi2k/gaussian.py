"""The discrete Gaussian: exact samples of N_Z(0, σ²), by integers alone.

Algorithms 1 to 3 of Canonne, Kamath, Steinke 2020 (arXiv 2004.00010), here on whole vectors:
rejection from the discrete Laplace, by coins that show heads with probability exp(-γ), exactly. No
float has a part in any decision: each comes down to whether a uniform integer is below another. How
long it takes depends on what is drawn, a little.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

MOST = 2**45  # σ; so that 2kσ, the largest bound of an integer, is below 2^63 (see `_heads`)


def discrete_gaussian(
    words: Callable[[int], NDArray[np.uint64]], sigma: int, n: int
) -> NDArray[np.int64]:
    """`n` independent samples, (n,): y with probability exp(-y²/2σ²) / Σ_x exp(-x²/2σ²).

    Args:
        words: words(m) gives m words that serve nothing else: (m,), uniform on [0, 2^64).
        sigma: σ, from 1 to 2^45.
    Raises:
        ValueError: σ is no such int.
    """
    if type(sigma) is not int or not 1 <= sigma <= MOST:
        raise ValueError(f"sigma must be an int from 1 to 2^45, not {sigma!r}")
    samples = np.empty(0, dtype=np.int64)
    while len(samples) < n:
        tries = 2 * (n - len(samples)) + 64  # of which nearly a half succeed
        samples = np.append(samples, _accepted(words, sigma, _laplace(words, sigma, tries)))
    return samples[:n]


def _accepted(words, sigma, samples):
    """Algorithm 3, with t = σ: those of a discrete Laplace's samples y that a coin each accepts.

    It shows heads with probability exp(-(|y| - σ)²/2σ²). With ±(|y| - σ) = aσ + b, 0 <= b < σ, the
    exponent is a² · 1/2 + a · b/σ + b²/2σ²: so many coins of these, all of them heads.
    """
    a, b = np.divmod(np.abs(np.abs(samples) - sigma), sigma)

    def half(i, k):
        return _below(words, 2 * k, len(i)) == 0

    def linear(i, k):
        return _below(words, sigma * k, len(i)) < b[i]

    def quadratic(i, k):
        return (_below(words, sigma, len(i)) < b[i]) & (_below(words, 2 * sigma * k, len(i)) < b[i])

    heads = _run(a * a, half) == a * a
    heads &= _run(np.where(heads, a, 0), linear) == a
    return samples[_heads(np.flatnonzero(heads), quadratic)]


def _laplace(words, sigma, tries):
    """Algorithm 2, with t = σ and s = 1: what `tries` tries give, int64 (at most tries,).

    A sample is y with probability proportional to exp(-|y|/σ).
    """
    low = _below(words, sigma, tries)
    low = low[_heads(np.arange(tries), lambda i, k: _below(words, sigma * k, len(i)) < low[i])]
    ever = np.full(len(low), 2**18)  # no run is longer, but for a chance of exp(-2^18)
    size = low + sigma * _run(ever, lambda i, k: _below(words, k, len(i)) == 0)
    negative = _below(words, 2, len(low)) == 1
    return np.where(negative, -size, size)[~negative | (size > 0)]


def _run(most, flip):
    """How many coins in a row show heads, of those of element i at most most[i]: int64 (n,).

    Args:
        flip: as of `_heads`.
    """
    length = np.zeros_like(most)
    i = np.flatnonzero(most)
    while len(i):
        i = _heads(i, flip)
        length[i] += 1
        i = i[length[i] < most[i]]
    return length


def _heads(i, flip):
    """Algorithm 1: those of the elements `i` whose coin shows heads, with probability exp(-γ).

    Args:
        i: distinct indices.
        flip: flip(i, k) gives coins that show heads with probability γ/k: bool (len(i),), for each
            of the elements i its γ in [0, 1]. That k gets to 2^17 has a chance of 1/(2^17)!.
    """
    heads = np.ones(len(i), dtype=bool)
    left, k = np.arange(len(i)), 1
    while len(left):
        left = left[flip(i[left], k)]
        heads[left] ^= True
        k += 1
    return i[heads]


def _below(words, bound, n):
    """`n` independent integers, each uniform on [0, bound), for a bound below 2^63: int64 (n,)."""
    share = (2**64 - 1) // bound  # words for each integer; the few left over are drawn again
    drawn = words(n) // np.uint64(share)
    again = np.flatnonzero(drawn >= bound)
    while len(again):
        drawn[again] = words(len(again)) // np.uint64(share)
        again = again[drawn[again] >= bound]
    return drawn.view(np.int64)
