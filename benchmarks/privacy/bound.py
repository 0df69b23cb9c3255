"""What right guesses prove: a lower bound of ε, from canaries that one training had by fair coins.

After Steinke, Nasr, Jagielski 2023, "Privacy Auditing with One (1) Training Run" (arXiv 2305.08846,
theorem 5.2). Each of m canaries was in the training or not, by a coin of its own. From all that was
released an attacker guesses r of the coins. If the training is (ε, δ)-DP, then with X binomial of r
trials and chance 1 / (1 + exp(-ε))

    P(at least v right) <= P(X >= v) + 2 m δ max over i >= 1 of P(v > X >= v - i) / i.

An ε for which this is below a level is refuted with the confidence 1 - level. No attack proves more
than what m right guesses of m do: of 1,000 some 5.4.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

LEVEL = 0.05
GUESSES = (0.05, 0.2, 0.5, 1)  # parts of the canaries that are guessed; the best of them counts
MOST = 50.0  # of ε: beyond what any number of canaries here proves


class Shown(NamedTuple):
    """A lower bound of ε at the confidence 1 - LEVEL, and the guesses that show it."""

    epsilon: float
    right: int
    guesses: int
    canaries: int


def p_value(right, guesses, canaries, epsilon, delta):
    """Bound of the probability that so many of so many guesses are right, if (ε, δ)-DP holds."""
    if not 0 <= right <= guesses <= canaries:
        raise ValueError(f"{right} right of {guesses} guesses of {canaries} canaries")
    chance = 1 / (1 + math.exp(-epsilon))
    at_least = binom.sf(right - 1, guesses, chance)
    fewer = np.arange(1, right + 1)
    between = binom.sf(right - fewer - 1, guesses, chance) - at_least
    beside = (between / fewer).max(initial=0)
    return min(1.0, float(at_least + 2 * canaries * delta * beside))


def epsilon_shown(right, guesses, canaries, delta, level=LEVEL):
    """The largest ε (to 1e-6) that so many right guesses refute at the level, or 0."""
    low, high = 0.0, MOST
    if p_value(right, guesses, canaries, low, delta) > level:
        return 0.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        if p_value(right, guesses, canaries, middle, delta) > level:
            high = middle
        else:
            low = middle
    return low


def shown(scores, included, delta):
    """The best bound over `GUESSES`, each at its part of the level: the surest guesses count.

    Args:
        scores: of each canary (m), above 0 if it seems in, the surer the further from 0.
        included: whether it was (m).
    """
    hits, results = ((scores > 0) == included)[np.argsort(-np.abs(scores))], []
    for part in GUESSES:
        guesses = max(1, round(part * len(scores)))
        counts = int(hits[:guesses].sum()), guesses, len(scores)
        results.append(Shown(epsilon_shown(*counts, delta, LEVEL / len(GUESSES)), *counts))
    return max(results)
