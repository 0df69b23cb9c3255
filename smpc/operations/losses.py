"""Softmax and the losses.

A softmax takes its maximum, with a comparison and a product for each halving of its classes, then
`functions.exp_below_zero`, and a reciprocal or a logarithm of a number between 1 and the classes.

Range: of inputs as of `pointwise`, and what a loss adds up as of a product there.
"""

from fractions import Fraction

import numpy as np
import torch
import torch.nn.functional as F

from smpc.operations import functions, number, pointwise, reductions, shapes
from smpc.operations.number import Number
from smpc.operations.registry import axis_of, operand, operation


def _below_the_largest(x, dim):
    """x less its largest along a dimension; e to the power of this, and the sum of these, between 1
    and how many there are."""
    with torch.no_grad():
        largest = reductions.max(x.detached(), dim, keepdim=True).values
        below = number.subtract(x.detached(), largest)
        with x.finer():
            powers = functions.exp_below_zero(below)
            total = reductions.sum(powers, dim, keepdim=True)
    return below, powers, total


def _shares(x, powers, total, dim):
    with torch.no_grad(), x.finer():
        inverse = functions.reciprocal_within(total, 1, max(2, x.shape[dim]))
        return number.multiply(powers, inverse)


@operation()
def softmax(x, dim):
    """e^x divided by its sum along a dimension.

    Range: the differences of elements are within ±2^63 units. Error: 1.1 units + 3e-6.
    """
    dim = axis_of(x, dim)
    _, powers, total = _below_the_largest(x, dim)
    y = _shares(x, powers, total, dim)

    def rule(grad):
        of_all = reductions.sum(number.multiply(grad, y), dim, keepdim=True)
        return number.multiply(y, number.subtract(grad, of_all))

    return y.detached().by((x, rule))


@operation()
def log_softmax(x, dim):
    """The logarithm of softmax along a dimension.

    Range: of x that of a product. Error: 1.1 units + 3e-6.
    """
    dim = axis_of(x, dim)
    below, powers, total = _below_the_largest(x, dim)
    with torch.no_grad(), x.finer():
        y = number.subtract(below, functions.log_within(total, 1, max(2, x.shape[dim])))

    def rule(grad):
        of_all = reductions.sum(grad, dim, keepdim=True)
        return number.subtract(grad, number.multiply(_shares(x, powers, total, dim), of_all))

    return y.by((x, rule))


def one_hot(x, target, classes):
    """Rows of zeros with a 1 in the place that a target, (...), public or secret, names: (...,
    classes). A secret target costs classes - 1 comparisons; one below 0 is taken for 0, one above
    the last class for the last."""
    if not isinstance(target, Number):
        return x.public(F.one_hot(torch.as_tensor(target).long(), classes).numpy())
    column = shapes.unsqueeze(operand(x, target), -1)
    at_least = pointwise.gt(column, x.public(np.arange(classes - 1) + 0.5))  # 1, 2, ...
    first = x.full(1, (*at_least.shape[:-1], 1))
    after = x.full(0, first.shape)
    starts, ends = ([first, at_least], [at_least, after])
    return number.subtract(
        *(number.concatenate(parts, at_least.dim - 1) for parts in (starts, ends))
    )


def _reduced(x, reduction):
    """The mean, the sum, or all losses."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"no such reduction: {reduction}")
    return x if reduction == "none" else getattr(reductions, reduction)(x)


def _plain(size_average, reduce, weight, ignore_index=-100):
    """Refuse what torch has beside."""
    given = {"weight": weight is not None, "ignore_index": ignore_index != -100}
    given |= {"size_average": size_average is not None, "reduce": reduce is not None}
    for name, is_given in given.items():
        if is_given:
            raise NotImplementedError(f"semi2k has no loss with {name}: see docs/operations.md")


@operation("nll_loss_nd")
def nll_loss(
    x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean"
):
    """The loss of log-probabilities (B, C) or (C) for the classes (B) that a target names, secret
    or public; see `one_hot`."""
    _plain(size_average, reduce, weight, ignore_index)
    if x.dim not in (1, 2):
        raise NotImplementedError(f"semi2k has no nll_loss of shape {x.shape}: (B, C) or (C)")
    rows = one_hot(x, target, x.shape[-1])
    return _reduced(pointwise.neg(reductions.sum(number.multiply(x, rows), -1)), reduction)


@operation("cross_entropy_loss")
def cross_entropy(
    x, target, weight=None, size_average=None, ignore_index=-100, reduce=None, reduction="mean",
    label_smoothing=0.0,
):  # fmt: skip
    """The loss of outputs (B, C) or (C) for classes (B), or for rows of probabilities of x's shape,
    secret or public: `log_softmax` and `nll_loss`."""
    _plain(size_average, reduce, weight, ignore_index)
    if x.dim not in (1, 2):
        raise NotImplementedError(f"semi2k has no cross_entropy of shape {x.shape}: (B, C) or (C)")
    classes, of_rows = x.shape[-1], tuple(target.shape) == x.shape
    rows = operand(x, target) if of_rows else one_hot(x, target, classes)
    if label_smoothing:
        rows = pointwise.mul(rows, 1 - label_smoothing)
        rows = pointwise.add(rows, Fraction(label_smoothing) / classes)
    losses = reductions.sum(number.multiply(log_softmax(x, -1), rows), -1)
    return _reduced(pointwise.neg(losses), reduction)


@operation()
def mse_loss(x, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """The squares of what x is off."""
    _plain(size_average, reduce, weight)
    return _reduced(pointwise.square(pointwise.sub(x, target)), reduction)


@operation()
def l1_loss(x, target, size_average=None, reduce=None, reduction="mean", weight=None):
    """The magnitudes of what x is off."""
    _plain(size_average, reduce, weight)
    return _reduced(pointwise.abs(pointwise.sub(x, target)), reduction)


@operation()
def binary_cross_entropy(x, target, weight=None, size_average=None, reduce=None, reduction="mean"):
    """The loss of probabilities x for targets between 0 and 1.

    Range: all; the logarithm of what is less than a unit is that of a unit. Error: as of `log`.
    """
    _plain(size_average, reduce, weight)
    target, least = operand(x, target), Fraction(1, x.one)
    yes, no = (functions.log(pointwise.clamp_min(p, least)) for p in (x, pointwise.rsub(x, 1)))
    wrong = number.add(number.multiply(target, yes), number.multiply(pointwise.rsub(target, 1), no))
    return _reduced(pointwise.neg(wrong), reduction)


@operation()
def binary_cross_entropy_with_logits(
    x, target, weight=None, size_average=None, reduce=None, reduction="mean", pos_weight=None
):
    """The loss of sigmoid(x) for targets between 0 and 1: functions.softplus(x) - x target."""
    _plain(size_average, reduce, weight)
    _plain(None, None, pos_weight)
    target = operand(x, target)
    return _reduced(number.subtract(functions.softplus(x), number.multiply(x, target)), reduction)
