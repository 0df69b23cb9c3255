"""Clipping of each item's gradient, of a network of linear layers, without anybody knowing it.

Of an item let a_l be what layer l takes, and e_l its error: the gradient of the item's own loss at
what the layer gives. The item's gradient of the layer's weights and bias is e_l (a_l, 1)^T, so the
square of its norm over all layers is N = Σ |e_l|² (|a_l|² + 1), and no gradient of an item is ever
formed (Goodfellow 2015, arXiv 1510.01799). N is compared with public thresholds
T_k = C² 2^(k/2), and the errors are multiplied by C / sqrt(T_k) of the first that is above it; no
root is taken. docs/privacy.md proves that no item then counts more than C, with what is rounded,
and that nothing leaves the ring.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import reduce
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from smpc.operations import number
from smpc.operations.number import add, expand, is_positive, multiply, reshape, subtract, total

STEPS = 10**5  # in the number 1: of errors, of factors and of norms
N_THRESHOLDS = 20


class Bounds(NamedTuple):
    """What the proof needs of norms. An item that is beyond one of the first two counts nothing.

    Attributes:
        inputs: of what each layer takes, of an item; `errors`: of its error at what each gives.
        weights: of each layer's weights and bias together; beyond it the training ends.
        powers: 1 where the norm of an activation is at most that of what it is of, 2 where at most
            its square.
    """

    inputs: int = 64
    errors: int = 32
    weights: int = 24
    powers: int = 1

    def outputs(self) -> float:
        """Of what a layer gives, of an item within `inputs`."""
        return self.weights * math.sqrt(self.inputs**2 + 1)

    def largest_input(self) -> float:
        """Of what the next layer takes, before it is known whether it is within `inputs`."""
        return self.outputs() ** self.powers

    def largest(self) -> float:
        """Of all that is computed forward, and backward between two layers."""
        return max(self.largest_input(), self.outputs(), self.weights * self.errors)

    def largest_error(self) -> float:
        """Of an error before it is known whether it is within `errors`, of an item within all
        that came before: of the squared error, targets being of norm 1; or of a layer's own."""
        slope = 1 if self.powers == 1 else 2 * math.sqrt(self.inputs)
        return max(2 * (self.outputs() + 1), slope * self.weights * self.errors)


class Layer(NamedTuple):
    """A linear layer, and what went through it.

    Attributes:
        weight: (outputs, inputs); `bias`: (outputs).
        taken: a_l (items, inputs); `error`: e_l (items, outputs), for each item of its own loss.
    """

    weight: number.Number
    bias: number.Number
    taken: number.Number
    error: number.Number


def opened(x: number.Number, steps: int, magnitude: float) -> number.Number:
    """x rounded to so many steps in the number 1, or to a unit if that is finer, and masked; right
    up to a magnitude in numbers, that is, for certain."""
    with x.graph.finer(max(1, steps // x.one), math.ceil(magnitude)):
        return x.like(x.graph.opened(x.graph.kept(x.node)))


def clipped_sums(layers: Sequence[Layer], clip: float, bounds: Bounds) -> list[number.Number]:
    """The sum over all items of their clipped gradients.

    Args:
        clip: C, the norm that no item exceeds.
    Returns:
        of each layer that of its weights and that of its bias, of their shapes.
    """
    errors = clipped_errors(layers, clip, bounds)
    return [
        sum_
        for layer, error in zip(layers, errors, strict=True)
        for sum_ in (number.matmul(number.transposed(error), layer.taken), total(error, (0,)))
    ]


def clipped_errors(layers: Sequence[Layer], clip: float, bounds: Bounds) -> list[number.Number]:
    """Of each layer the errors of which items' gradients have a norm of `clip` at the most, rounded
    to a step, of their shapes."""
    with layers[0].error.finer():
        factor = reshape(clip_factor(layers, clip, bounds), (-1, 1))
        return [opened(multiply(factor, layer.error), STEPS, clip) for layer in layers]


def clip_factor(layers: Sequence[Layer], clip: float, bounds: Bounds) -> number.Number:
    """What each item's errors are multiplied by: (items), in steps; to be called where what is made
    keeps as many digits."""
    inputs = [squared_norm(x.taken, bounds.largest_input()) for x in layers]
    errors = [squared_norm(x.error, bounds.largest_error()) for x in layers]
    within = [
        is_positive(subtract(square.full(bound**2, square.shape), square))
        for squares, bound in ((inputs, bounds.inputs), (errors[::-1], bounds.errors))
        for square in squares
    ]
    all_within = reduce(multiply, within)
    norm = _norm(inputs, errors, bounds)
    width = sum(layer.error.shape[1] for layer in layers)
    squares, factors = thresholds(clip - slack(width, bounds), N_THRESHOLDS)
    each = expand(norm, (len(squares), norm.shape[0]))
    below = is_positive(subtract(_public(norm, squares), each))
    differences = factors - np.append(factors[1:], 0)
    return total(multiply(_public(norm, differences), multiply(below, all_within)), (0,))


def _public(x, values):
    """Numbers of steps, (n), as a column of public numbers."""
    return x.like(x.graph.scaled(x.graph.array(values[:, None]), Fraction(x.one, STEPS)))


def squared_norm(x: number.Number, most: float) -> number.Number:
    """|x|² of each row of x (items, n), at most a step below it, right for norms up to `most`."""
    return opened(total(multiply(x, x), (1,)), STEPS, most**2)


def _norm(inputs, errors, bounds):
    """N of each item, not below the true one: each factor has a step added."""
    step = Fraction(1, STEPS)
    most = len(inputs) * (bounds.errors**2 + 1) * (bounds.inputs**2 + 2)
    terms = [
        multiply(add(error, error.full(step)), add(taken, taken.full(1 + step)))
        for taken, error in zip(inputs, errors, strict=True)
    ]
    return opened(reduce(add, terms), STEPS**2, most)  # as fine as it is: nothing is rounded


def thresholds(clip: float, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """T_k, in steps, and C / sqrt(T_k), in steps, rounded down; the first factor being 1.

    Args:
        clip: C, what the rounding of errors takes up subtracted.
    Returns:
        two arrays (n), exact: factor² T <= C² for each pair.
    """
    c = Fraction(clip)
    squares = [math.floor(c * c * STEPS * Fraction(2 ** (k / 2))) for k in range(n)]
    factors = [math.isqrt(math.floor(c * c * STEPS**3 / square)) for square in squares]
    return np.array(squares), np.array(factors)


def slack(width: int, bounds: Bounds) -> float:
    """What rounded errors may add to an item's norm: each of `width`, in all layers, is off by less
    than a step, and counts sqrt(|a|² + 1) times."""
    return math.sqrt(width * (bounds.inputs**2 + 1)) / STEPS


def beyond(layers: Sequence[Layer], bounds: Bounds) -> number.Number:
    """How many layers' weights and bias have a norm beyond their bound: a Number ()."""
    outside = []
    for layer in layers:
        parts = (
            total(multiply(layer.weight, layer.weight), (0, 1)),
            total(multiply(layer.bias, layer.bias), (0,)),
        )
        square = opened(add(*parts), STEPS, 4 * bounds.weights**2)
        # (in two sums, so as not to be compared in one go with what items have: `coverage` follows
        # whole registers, and could not tell them apart)
        over = subtract(square, square.full(bounds.weights**2))
        outside.append(is_positive(add(over, square.full(Fraction(1, STEPS)))))
    return reduce(add, outside)
