"""How likely it is that a guess agrees with the truth by luck: exact tests, one level for all.

Under the hypothesis that is tested, that the protocol hides its secrets, what a party sees is
uniform and independent of the truth. Each function gives the probability of what it found, or an
upper bound of it, under that hypothesis. `Tests` collects them: an audit raises an alarm if any is
below LEVEL divided by the most that there may be (Bonferroni). With the simulators' tests, which
have a LEVEL of their own, that is at most once in a million audits for nothing.

In a run that counts, what a truncation opens is uniform on [2^zone, 2^64), not on all of the ring;
less what its viewers know of the mask, which is uniform whatever is opened, it is. The probability
of differences is bounded for both.

Bits and differences mod 2^64 are compared, never ring values as floats: those would forget the low
bits, and let the few large values speak for all.
"""

import math

import numpy as np
from scipy.stats import binom, chi2

from smpc.audit import Finding
from smpc.semi2k.compiler import ZONE

LEVEL = 1e-6 / 2
MOST_TESTS = 4_000_000  # of an audit: each has its part of the level, whenever it is made
NEAR = 2**26  # two opened values nearer than this differ by what was hidden, not by their masks
AT_ONCE = 2**6  # what is near for any two of all values, of which there are many more pairs
MOST_LIKELY = 1 / (2**64 - 2**ZONE)  # of any one word that was opened
# Of each pair one is odd, so that with uniform words the difference is uniform, too.
MULTIPLES = [(a, b) for a in (1, 2, 3) for b in (1, -1, 2, -2, 3, -3) if math.gcd(a, b) == 1]
FEW = 32  # words: of fewer, nothing could be told at this level


class Tests:
    """The tests of an audit.

    Attributes:
        results: a list of (name, p): what was tested, and the least probability found in it.
        count: of all probabilities, at most MOST_TESTS.
    """

    alarm_below = LEVEL / MOST_TESTS  # below it luck does not explain a probability

    def __init__(self):
        self.results, self.count = [], 0

    def add(self, name, probabilities):
        """Note a test, of one probability or many."""
        probabilities = np.atleast_1d(probabilities)
        self.count += probabilities.size
        self.results.append((name, float(probabilities.min())))
        if self.count > MOST_TESTS:
            raise RuntimeError("an audit makes no more tests than it has a level for")

    @property
    def least(self):
        """The least probability of all."""
        return min(p for _, p in self.results)

    def alarms(self):
        """The (name, p) that luck does not explain."""
        return [(name, p) for name, p in self.results if p < self.alarm_below]

    def findings(self):
        """The same, as `Finding`s: a name begins with that of a check."""
        alarms = ((*name.split(": ", 1), p) for name, p in self.alarms())
        return [Finding(check, f"{text}: p = {p:.1e}") for check, text, p in alarms]


def two_sided(hits, trials, chance=0.5):
    """P(a binomial count is as far out as `hits`, in either direction), arrays allowed."""
    least = np.minimum(binom.cdf(hits, trials, chance), binom.sf(hits - 1, trials, chance))
    return np.minimum(1, 2 * least)


def at_least(hits, trials, chance):
    """P(a binomial count is `hits` or more)."""
    return float(binom.sf(hits - 1, trials, chance))


def spread(drawn):
    """P(the squares' sum is as far out, in either direction), of independent Gaussians.

    Args:
        drawn: pairs (standard deviation, int64 (n,)); of a thousand or more discrete ones are
            Gaussian for all that this can tell.
    """
    squares = sum(float(((values / sigma) ** 2).sum()) for sigma, values in drawn)
    n = sum(values.size for _, values in drawn)
    return min(1.0, 2 * float(min(chi2.cdf(squares, n), chi2.sf(squares, n))))


def ones(words):
    """How often each of the 64 bits is set in uint64 words: int (64,), lowest bit first."""
    octets = np.ascontiguousarray(words.ravel()).view(np.uint8).reshape(-1, 8)
    counts = [np.bincount(octets[:, i], minlength=256) for i in range(8)]
    table = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.concatenate([count @ table for count in counts])


def bits_agree(guess, truth):
    """For each of 64 bits, P(as many agreements, or disagreements, as there are). (64,)

    guess: uniform words under the hypothesis; truth: any words, of its size.
    """
    return two_sided(guess.size - ones(guess.ravel() ^ truth.ravel()), guess.size)


def uniform(words):
    """For each of 64 bits, of the 63 sums of neighbouring bits, and of 16 parts of the ring, P(so
    many, or so few, words have it set, or fall in it): of words that should be uniform on the ring.
    (143,)"""
    words = words.ravel()
    parts = np.bincount((words >> np.uint64(60)).astype(int), minlength=16)
    bits = np.concatenate([ones(words), ones(words ^ (words >> np.uint64(1)))[:63]])
    return np.concatenate([two_sided(bits, words.size), two_sided(parts, words.size, 1 / 16)])


def near(differences, within=NEAR):
    """P(so many differences mod 2^64 of magnitude `within` or less), of uniform ones. Those of
    neighbours in an array of uniform words are, and independent."""
    hits = int((differences + np.uint64(within) <= np.uint64(2 * within)).sum())
    return float(binom.sf(hits - 1, differences.size, (2 * within + 1) * MOST_LIKELY))


def related(one, other):
    """For each of `MULTIPLES`, P(so many elements of a x - b y are near 0), of uniform and
    independent x, y: masks of which one is a small multiple of the other. (14,)"""
    return np.array([near(np.uint64(a) * one - np.uint64(b % 2**64) * other) for a, b in MULTIPLES])


def any_two_near(words, within=AT_ONCE):
    """Bound of P(so many of all pairs of these words differ by `within` or less)."""
    gaps = np.diff(np.sort(words.ravel()))
    hits = int((gaps <= np.uint64(within)).sum())  # of neighbours: there may be more, not fewer
    return of_pairs(hits, words.size**2 / 2 * (2 * within + 1) * MOST_LIKELY)


def of_pairs(hits, expected):
    """Bound of P(`hits` or more among pairs), which are independent two by two and no more: so
    P(X >= 1) <= E X, and P(X >= 2) <= E[C(X, 2)] <= (E X)^2 / 2 is the least that this gives."""
    return 1.0 if hits == 0 else min(1.0, expected if hits == 1 else expected**2 / 2)
