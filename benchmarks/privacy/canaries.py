"""An attack on the mechanism itself: canaries, and all that a private training releases.

A canary is the strongest item that the mechanism takes: an input of nearly the largest norm in a
random direction of its own, and a target that no output is near, so that its gradient is far above
the clip and like no other item's. The first items of each batch are canaries, each trained on or
not by a fair coin; the attacker knows them all and every other item, and has the initial weights
and each step's noisy sum. So it has the weights before every step, hence what each canary would
have added there, x, and solves for how often it was added, s: the least squares of (the sum, less
what the other items added) = Σ s x over all steps, weighted as suits the noise's correlation from
step to step. Where the loss is revealed, it is attacked alone, with an equation a step: few for
many canaries, so that every set of a batch's canaries is tried.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import logsumexp

from smpc.privacy import twin
from smpc.semi2k.noise import UNIT

NORM = 60  # of a canary's input; the mechanism takes up to 64
TARGET = 2.0  # of one output, the others' being 0; of other items it is 1


class Canaries(NamedTuple):
    """Items in which canaries stand first in each batch.

    Attributes:
        data, target: of all items (N, in), (N, out).
        per_batch: canaries in each batch.
        included: whether each item is trained on (N); the others than canaries all are.
    """

    data: torch.Tensor
    target: torch.Tensor
    per_batch: int
    included: torch.Tensor


class Seen(NamedTuple):
    """What the attacker has of a step.

    Attributes:
        added: what each canary adds if it is in: of each layer [a 1] (k, in + 1) and the clipped δ
            (k, out); or losses (k).
        rest: what was revealed, less what the other items added: of each layer (out, in + 1); or
            of the sum of losses.
    """

    batch: int
    added: list | torch.Tensor
    rest: list | torch.Tensor


def planted(data, target, batch_size, per_batch, generator):
    """The items with canaries in place of the first `per_batch` of every batch."""
    data, target = data.clone(), target.clone()
    included = torch.ones(len(data), dtype=torch.bool)
    for start in range(0, len(data), batch_size):
        places = slice(start, start + per_batch)
        directions = torch.randn(per_batch, data.shape[1], generator=generator)
        data[places] = NORM * directions / directions.norm(dim=1, keepdim=True)
        labels = torch.randint(target.shape[1], (per_batch,), generator=generator)
        target[places] = TARGET * torch.eye(target.shape[1])[labels]
        included[places] = torch.rand(per_batch, generator=generator) < 0.5
    return Canaries(data, target, per_batch, included)


def attack(layers, canaries, schedule, mechanism, generator, digits=None):
    """Train one model, and tell from what is released which canaries were in it.

    Args:
        digits: of the mean loss of each batch, which is then revealed and attacked, and the sums
            are not; None reveals no loss.
    Returns:
        scores and the truth, of each canary: likelier in than out above 0 (m), bool (m).
    Raises:
        OverflowError: as of `train_in_the_clear`.
    """
    data, target, k, included = canaries
    seen, before = [], [weights.clone() for weights in layers]
    steps = twin.train_in_the_clear(
        layers, data, target, schedule, mechanism, generator, included=included[None]
    )
    for step in steps:
        items = slice(step.batch * schedule.batch_size, (step.batch + 1) * schedule.batch_size)
        inputs, errors, losses = twin.backward(before, data[items], target[items])
        if digits is None:
            factors = twin.clipping(inputs, errors, mechanism)[0, :, None]
            added = [(a[0], factors * d[0]) for a, d in zip(inputs, errors, strict=True)]
            seen.append(_of_sums(step, added, k))
        else:
            mean = round((step.losses[0] * included[items]).double().mean().item(), digits)
            seen.append(_of_loss(step, losses[0].double(), mean, k))
        before = [weights.clone() for weights in layers]
    if digits is None:
        scores = scores_of(*equations_of_sums(seen, mechanism.correlation))
    else:
        variance = (schedule.batch_size / 10**digits) ** 2 / 12  # of the rounding
        scores = np.concatenate(
            [scores_of_sets(*one, variance) for one in equations_of_losses(seen)]
        )
    places = torch.arange(len(data)) % schedule.batch_size < k
    return scores, included[places].numpy()


def _of_sums(step, added, k):
    """`Seen`, from what each item adds to each layer if it is in; the first k are canaries."""
    rest = [total[0] - d[k:].T @ a[k:] for (a, d), total in zip(added, step.sums, strict=True)]
    return Seen(step.batch, [(a[:k], d[:k]) for a, d in added], rest)


def _of_loss(step, losses, mean, k):
    """`Seen`, from each item's loss and the revealed mean of those that are in."""
    return Seen(step.batch, losses[:k], mean * len(losses) - losses[k:].sum())


def equations_of_sums(seen, correlation):
    """The normal equations for all canaries (m, m), (m), in order of the batches. With C of ones, a
    band of the correlation below them, the noise of C times all sums is independent."""
    n, k = len(seen), len(seen[0].added[0][0])
    band = [1.0, *(c / UNIT for c in correlation)]
    spread = sum(torch.diag(torch.full((n - i,), c), -i) for i, c in enumerate(band[:n]))
    weight = spread.T @ spread
    of_layers = zip(*(one.rest for one in seen), strict=True)
    weighted = [torch.tensordot(weight, torch.stack(rest), 1) for rest in of_layers]
    m = k * (1 + max(one.batch for one in seen))
    gram, product = np.zeros((m, m)), np.zeros(m)
    for t, one in enumerate(seen):
        rows = slice(k * one.batch, k * one.batch + k)
        for (a, d), rest in zip(one.added, weighted, strict=True):
            product[rows] += ((d @ rest[t]) * a).sum(1).double().numpy()
        for u in weight[t].nonzero().flatten().tolist():
            columns = slice(k * seen[u].batch, k * seen[u].batch + k)
            pairs = zip(one.added, seen[u].added, strict=True)
            inner = sum((d @ e.T).double() * (a @ b.T).double() for (a, d), (b, e) in pairs)
            gram[rows, columns] += weight[t, u].item() * inner.numpy()
    return gram, product


def equations_of_losses(seen):
    """The normal equations for each batch's canaries (k, k), (k): one equation a step."""
    for batch in range(1 + max(one.batch for one in seen)):
        own = torch.stack([one.added for one in seen if one.batch == batch]).numpy()
        rest = torch.stack([one.rest for one in seen if one.batch == batch]).numpy()
        yield own.T @ own, own.T @ rest


def scores_of(gram, product):
    """From normal equations, how much likelier in than out each canary is: the logarithm of the
    ratio, up to a factor that is the same for all; 0 where nothing is known."""
    inverse = np.linalg.pinv(gram, hermitian=True)
    variances = np.diag(inverse)
    return np.divide(inverse @ product - 0.5, variances, np.zeros(len(gram)), where=variances > 0)


def scores_of_sets(gram, product, variance):
    """The logarithm of the ratio itself, by trying all 2ᵏ sets of a batch's k canaries, if what is
    known has an error of this variance."""
    sets = np.arange(2 ** len(gram))[:, None] >> np.arange(len(gram)) & 1
    misfits = ((sets @ gram) * sets).sum(1) - 2 * sets @ product  # squared, less a constant
    fits = -misfits[:, None] / (2 * variance)
    return logsumexp(fits, axis=0, b=sets) - logsumexp(fits, axis=0, b=1 - sets)
