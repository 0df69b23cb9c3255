"""Sums and extremes, over all elements or along dimensions.

Range: sums and extremes are exact, where the difference of any two elements is within ±2^63 units;
what is rounded has the range of a product in `pointwise`.
"""

import math
from typing import NamedTuple

import numpy as np
import torch

from smpc.operations import number, pointwise, shapes
from smpc.operations.functions import reciprocal, sqrt
from smpc.operations.number import Number
from smpc.operations.registry import axes_of, axis_of, operand, operation


class Extreme(NamedTuple):
    """What torch's `max(dim)`, `topk` and `sort` return."""

    values: Number
    indices: Number


@operation()
def sum(x, dim=None, keepdim=False):
    """The sum; nothing is sent."""
    return number.total(x, axes_of(x, dim), keepdim)


@operation()
def mean(x, dim=None, keepdim=False):
    """The mean; nothing is sent."""
    return number.scale(sum(x, dim, keepdim), number.Fraction(1, _count(x, dim)))


def _count(x, dim):
    count = math.prod(x.shape[axis] for axis in axes_of(x, dim))
    if not count:
        raise ValueError("the mean of no elements")
    return count


@operation()
def var(x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """The variance, by the sum of squares of what is left of each element without the mean."""
    off = pointwise.sub(x, mean(x, dim, keepdim=True))
    correction = int(unbiased) if correction is None else correction
    if (count := _count(x, dim) - correction) <= 0:
        raise ValueError("the variance of too few elements")
    return pointwise.div(sum(pointwise.square(off), dim, keepdim), count)


@operation()
def std(x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """The square root of the variance; see `functions.sqrt`."""
    return sqrt(var(x, dim, unbiased, keepdim, correction=correction))


@operation()
def norm(x, p=2, dim=None, keepdim=False):
    """The 1-norm, the 2-norm by `functions.sqrt`, or the largest magnitude."""
    if p in (2, "fro"):
        return sqrt(sum(pointwise.square(x), dim, keepdim))
    if p == 1:
        return sum(pointwise.abs(x), dim, keepdim)
    if p in (math.inf, float("inf")):
        return amax(pointwise.abs(x), dim, keepdim)
    raise TypeError(f"semi2k has the norms 1, 2 and inf, not {p!r}")


@operation()
def cumsum(x, dim):
    """The sums of the first elements along a dimension; nothing is sent."""
    axis = axis_of(x, dim)
    if not x.dim:
        return x
    last = shapes.transpose(x, axis, -1)
    upper = torch.ones((last.shape[-1],) * 2, dtype=torch.int64).triu()
    return shapes.transpose(number.matmul(last, x.public(upper.numpy())), axis, -1)


@operation()
def prod(x, dim=None, keepdim=False):
    """The product, of pairs, of pairs of these, and so on: a product for each level.

    Range: of each of these, that of a product. Error: a unit of each, times what it is multiplied
    by afterwards.
    """
    if dim is None:
        return prod(shapes.flatten(x), 0)
    axis = axis_of(x, dim)
    if not x.dim:
        return x
    while (n := x.shape[axis]) > 1:
        left, right, rest = _halves(x, axis)
        product = number.multiply(left, right)
        x = number.concatenate([product, rest], axis) if n % 2 else product
    return x if keepdim else shapes.squeeze(x, dim)


# ---- Extremes ------------------------------------------------------------------------------------


def _halves(x, axis):
    """The elements at even and at odd places along an axis, and the one that is left over."""
    n = x.shape[axis]
    even, odd = (("slice", start, n - n % 2, 2) for start in (0, 1))
    return [shapes.along(x, axis, s) for s in (even, odd, ("slice", n - n % 2, n, None))]


def _tournament(x, axis):
    """The largest elements along an axis, which stays at size 1, and their indices, the first of
    equal ones: a comparison and a product for each halving."""
    if not x.shape[axis]:
        raise ValueError("there is no largest of no elements")
    shape = [1] * x.dim
    shape[axis] = -1
    places = np.broadcast_to(np.arange(x.shape[axis]).reshape(shape), x.shape)
    indices = x.public(places)
    while (n := x.shape[axis]) > 1:
        left, right, rest = _halves(x, axis)
        difference = number.subtract(right, left)
        right_wins = number.is_positive(difference)  # on a tie the first stays
        i, j, k = _halves(indices, axis)
        x = number.add(left, number.multiply(right_wins, difference))
        indices = number.add(i, number.multiply(right_wins, number.subtract(j, i)))
        if n % 2:
            x, indices = (number.concatenate(p, axis) for p in ([x, rest], [indices, k]))
    return x, indices.detached()


def _along(x, dim, keepdim, sign):
    axis, line = axis_of(x, dim), x if x.dim else number.reshape(x, (1,))
    values, indices = _tournament(pointwise.mul(line, sign), axis)
    values = pointwise.mul(values, sign)
    if keepdim and x.dim:
        return Extreme(values, indices)
    return Extreme(shapes.squeeze(values, axis), shapes.squeeze(indices, axis))


@operation()
def max(x, dim=None, keepdim=False):
    """The largest element of all; along a dimension, or of x and another tensor."""
    if isinstance(dim, (Number, torch.Tensor)):
        return pointwise.maximum(x, dim)
    return amax(x) if dim is None else _along(x, dim, keepdim, 1)


@operation()
def min(x, dim=None, keepdim=False):
    """The smallest element of all; along a dimension, or of x and another tensor."""
    if isinstance(dim, (Number, torch.Tensor)):
        return pointwise.minimum(x, dim)
    return amin(x) if dim is None else _along(x, dim, keepdim, -1)


@operation()
def argmax(x, dim=None, keepdim=False):
    """The index of the largest element, the first of equal ones."""
    return _index(x, dim, keepdim, 1)


@operation()
def argmin(x, dim=None, keepdim=False):
    """The index of the smallest element, the first of equal ones."""
    return _index(x, dim, keepdim, -1)


def _index(x, dim, keepdim, sign):
    if dim is not None:
        return _along(x, dim, keepdim, sign).indices
    index = _along(shapes.flatten(x), 0, False, sign).indices
    return number.reshape(index, (1,) * x.dim if keepdim else ())


@operation()
def amax(x, dim=None, keepdim=False):
    """The largest elements along dimensions; equal ones have equal parts of the gradient."""
    return _largest(x, axes_of(x, dim), keepdim, 1)


@operation()
def amin(x, dim=None, keepdim=False):
    """The smallest elements along dimensions; equal ones have equal parts of the gradient."""
    return _largest(x, axes_of(x, dim), keepdim, -1)


def _largest(x, axes, keepdim, sign):
    others = [i for i in range(x.dim) if i not in axes]
    kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    lines = number.reshape(
        number.permute(x.detached(), (*others, *axes)), (*(x.shape[i] for i in others), -1)
    )
    values = number.reshape(_along(lines, -1, False, sign).values, kept)

    def rule(grad):
        are = pointwise.eq(x.detached(), values.detached())
        share = number.multiply(number.reshape(grad, kept), reciprocal(sum(are, axes, True)))
        return number.multiply(are, share)

    result = values if keepdim else number.reshape(values, [x.shape[i] for i in others])
    return result.detached().by((x, rule))


@operation()
def topk(x, k, dim=-1, largest=True, sorted=True):
    """The k largest elements along a dimension of n, or smallest, and their indices, in order.

    Each pair is compared at once, n (n - 1) / 2 comparisons; an element's rank is how many are
    before it, of equal ones the earlier, and k comparisons of ranks choose what stands where.
    """
    axis = axis_of(x, dim)
    n = x.shape[axis]
    if not 0 <= k <= n:
        raise ValueError(f"there are no {k} of {n} elements")
    lines = shapes.transpose(x, axis, -1)
    ranks = _ranks(lines if largest else pointwise.neg(lines))
    places = lines.public(np.arange(1, k + 1).reshape(-1, 1))
    first = pointwise.lt(number.reshape(ranks, (*ranks.shape[:-1], 1, n)), places)  # (..., k, n)

    def at_each_place(elements):
        of_first = sum(number.multiply(first, elements), -1)  # of the first one, two, ...
        of_fewer = shapes.narrow(shapes.pad(of_first, (1, 0)), -1, 0, k)
        return shapes.transpose(number.subtract(of_first, of_fewer), axis, -1)

    values = at_each_place(number.reshape(lines, (*lines.shape[:-1], 1, n)))
    return Extreme(values, at_each_place(lines.public(np.arange(n))).detached())


def _ranks(x):
    """How many elements of the last axis are before each, from the largest to the smallest."""
    n = x.shape[-1]
    one, other = np.triu_indices(n, 1)
    left, right = (shapes.along(x, x.dim - 1, ("list", *i.tolist())) for i in (one, other))
    right_wins = pointwise.gt(right.detached(), left.detached())  # (..., pairs)
    before = np.zeros((2, len(one), n), dtype=np.int64)
    before[0, np.arange(len(one)), one] = 1
    before[0, np.arange(len(one)), other] = -1
    before[1, np.arange(len(one)), other] = 1
    ranks = number.matmul(right_wins, x.public(before[0]))
    return number.add(ranks, x.public(before[1].sum(0)))


@operation()
def sort(x, dim=-1, descending=False, stable=None):
    """All elements along a dimension in order, and their indices, the first of equal ones first:
    see `topk`."""
    return topk(x, x.shape[axis_of(x, dim)], dim, largest=descending)


@operation()
def argsort(x, dim=-1, descending=False, stable=None):
    """The indices of all elements along a dimension in order: see `topk`."""
    return sort(x, dim, descending).indices


@operation("inner")
def dot(x, other):
    """The sum of products of two vectors."""
    other = operand(x, other)
    if x.dim != 1 or other.dim != 1:
        raise ValueError("dot of two vectors")
    return matmul(x, other)


@operation("__matmul__", "mm", "bmm", "mv")
def matmul(x, other):
    """x @ other, of any dimensions that torch takes: 8 bytes sent for an element of each that is
    not yet masked, none for the result; the sum of a product's terms is rounded once."""
    y = operand(x, other)
    if not x.dim or not y.dim:
        raise ValueError("a matrix product of a single number")
    rows = (1, *x.shape) if x.dim == 1 else x.shape
    columns = (*y.shape, 1) if y.dim == 1 else y.shape
    product = number.matmul(number.reshape(x, rows), number.reshape(y, columns))
    shape = list(product.shape)
    if y.dim == 1:
        del shape[-1]
    if x.dim == 1:
        del shape[-1 if y.dim == 1 else -2]
    return number.reshape(product, shape)


@operation("__rmatmul__")
def rmatmul(x, other):
    """other @ x."""
    return matmul(operand(x, other), x)
