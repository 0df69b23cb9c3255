"""The likelihood-ratio attack on membership (Carlini et al. 2022, arXiv 2112.03570), online.

Many models are trained alike, each on a random half of the items in doubt. For each item a normal
distribution is fitted to what the models that had it say of it, and one to what the others say; a
model is attacked by the likelihood ratio of what it says, with the fits of all models but itself.
What a model says is the logarithm of its loss, which is near a normal distribution; a network of
squared errors gives no probability whose logit it could be, as in the paper.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import beta

from smpc.privacy import twin

CONFIDENCE = 0.95


class Rate(NamedTuple):
    """The part of the members that is found at a rate of false positives, and its interval
    (Clopper and Pearson 1934), as if all pairs of a model and an item were independent."""

    false_positives: float
    true_positives: float
    low: float
    high: float


def halves(n_models, in_doubt, n_items, batch_size, generator):
    """Which items each model is trained on, bool (M, N): of the first `in_doubt` exactly half in
    each batch, at random; the others all."""
    included = torch.ones(n_models, n_items, dtype=torch.bool)
    for start in range(0, in_doubt, batch_size):
        size = min(batch_size, in_doubt - start)
        order = torch.rand(n_models, size, generator=generator).argsort(1)
        included[:, start : start + size] = order < size // 2
    return included


def said_of(layers, data, target):
    """What M models say of items (M, B): less the logarithm of the loss."""
    return -(twin.outputs(layers, data) - target).square().sum(2).log()


def likelihood_ratios(said, included):
    """The logarithms, for each model and item, of the ratio in : out; (M, N) of float and bool.

    Each item needs three models or more on each side."""
    said = said.astype(float)
    logarithms = []
    for side in (included, ~included):
        n = side.sum(0) - side  # of the others, for each model
        mean = ((said * side).sum(0) - said * side) / n
        square = ((said**2 * side).sum(0) - said**2 * side) / n
        variance = (square - mean**2) * n / (n - 1) + 1e-9
        logarithms.append(-np.log(variance) / 2 - (said - mean) ** 2 / (2 * variance))
    return logarithms[0] - logarithms[1]


def curve(scores, members):
    """The rates of false and of true positives at every threshold, rising (K), (K)."""
    order = np.argsort(-scores.ravel(), kind="stable")
    members = members.ravel()[order]
    return np.cumsum(~members) / (~members).sum(), np.cumsum(members) / members.sum()


def rate_at(false_positives, scores, members):
    """The `Rate` at the threshold that has at most this part of false positives."""
    falsely, truly = curve(scores, members)
    n = int(members.sum())
    within = np.searchsorted(falsely, false_positives, side="right")
    found = round(truly[within - 1] * n) if within else 0
    tail = (1 - CONFIDENCE) / 2
    low = beta.ppf(tail, found, n - found + 1) if found else 0.0
    high = beta.ppf(1 - tail, found + 1, n - found) if found < n else 1.0
    return Rate(false_positives, found / n, float(low), float(high))
