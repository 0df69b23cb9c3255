"""A secret number, or a tensor of them, and what was done to make it: for gradients.

`Number` stands on the session's graph and knows nothing of syft. What is here is what all else is
made of: sums, products, moves of elements and a comparison with zero, each with its gradient beside
it. So the operations of the other modules have theirs, too, unless a closed form is better: that
they give to `Number.by`.

Nothing here talks. A value is computed when it is revealed, or when an update of weights needs it.
"""

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import torch

GUARD_DIGITS = 6  # of fixed precision, that gradients and functions are computed with at least
LIMIT = 10**12  # of the denominator of a public number
FACTOR_DIGITS = 7

Rule = Callable[["Number"], "Number"]  # from the gradient of what was made to that of a part of it


class Number:
    """A tensor of numbers in fixed precision, shared or public.

    Attributes:
        node: of a session's graph, `graph`: each number is a whole number of units, and more
            digits may be kept until it is rounded.
        one: units in the number 1: 10^digits; 1 for integers.
        step: the `Step` that made it, or the `Leaf` that it is; None where no gradient is wanted.
        assign: while an operation is under way, gives another Number to the tensor that this one
            came from; else None.
    """

    __slots__ = ("assign", "graph", "node", "one", "step")
    one: int
    step: "Step | Leaf | None"
    assign: Callable[["Number"], None] | None

    def __init__(self, graph, node, one, step=None, assign=None):
        self.graph, self.node, self.one, self.step, self.assign = graph, node, one, step, assign
        node.handles += 1

    def __del__(self):
        self.node.handles -= 1

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return self.node.shape

    @property
    def dim(self) -> int:
        """How many dimensions."""
        return len(self.node.shape)

    def like(self, node) -> "Number":
        """Another of the same precision, of which no gradient is known."""
        return Number(self.graph, node, self.one)

    def detached(self) -> "Number":
        """The same, as a constant."""
        return self.like(self.node)

    def full(self, value: float | Fraction, shape: Sequence[int] = ()) -> "Number":
        """The public number `value` in every element."""
        return self.like(self.graph.constant(fraction(value) * self.one, tuple(shape)))

    def public(self, values: np.ndarray, finer: int = 1) -> "Number":
        """A public array of ints, which are exact, or of floats, rounded to a unit or to `finer`.

        Raises:
            OverflowError: it has an element that is too large, or is not finite.
        """
        values, unit = np.asarray(values), Fraction(1, finer)
        if np.issubdtype(values.dtype, np.floating):
            if not np.isfinite(values).all():
                raise OverflowError("a public number that is not finite")
            whole = (values == np.rint(values)).all()
            values = values.astype(np.float64) * (1 if whole else self.one * finer)
            unit = Fraction(self.one) if whole else unit
        else:
            unit = Fraction(self.one)
        if values.size and max(abs(values.max()), abs(values.min())) * float(unit) >= 2**63:
            raise OverflowError("a public number is too large for the ring, use fewer digits")
        values = np.rint(values).astype(np.int64)
        return self.like(self.graph.scaled(self.graph.array(values), unit))

    def finer(self, magnitude: int = 0):
        """A context in which what is made keeps `GUARD_DIGITS` where it must be rounded; see
        `graph.Graph.finer`.

        Args:
            magnitude: that numbers reach in it, if that is more than 1.
        """
        return self.graph.finer(max(1, 10**GUARD_DIGITS // self.one), magnitude)

    def by(self, *parts: tuple["Number", Rule]) -> "Number":
        """Itself, noting what it was made of; each rule is called without gradients being noted."""
        parts = [(part.step, rule) for part, rule in parts if part.step is not None]
        if parts and torch.is_grad_enabled():
            self.step = Step(parts)
        return self


def fraction(value: float | Fraction | torch.Tensor) -> Fraction:
    """A number as a Fraction: as written, 0.1 being 1/10, to 12 decimals.

    Raises:
        OverflowError: it is not finite.
    """
    if isinstance(value, torch.Tensor):
        value = value.item()
    if isinstance(value, Fraction):
        return value
    if isinstance(value, (int, np.integer)):
        return Fraction(int(value))
    if not math.isfinite(value):
        raise OverflowError(f"a public number that is not finite: {value}")
    return round(Fraction(repr(float(value))) * LIMIT) / Fraction(LIMIT)


def ratio(value: float | Fraction | torch.Tensor) -> Fraction:
    """A number that others are multiplied by, as a Fraction: of a float the first `FACTOR_DIGITS`
    that are not 0, since all of a factor's digits take room in the ring."""
    if isinstance(value, torch.Tensor):
        value = value.item()
    exact = fraction(value)
    return Fraction(f"{value:.{FACTOR_DIGITS}g}") if isinstance(value, float) else exact


# ---- Gradients -----------------------------------------------------------------------------------


class Step:
    """What was done to make a Number; `parts`: steps of what it was made of, each with its rule."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[tuple["Step | Leaf", Rule]]):
        self.parts = parts

    def receive(self, grad: Number) -> list[tuple["Step | Leaf", Number]]:
        """Of the gradient of what was made: the gradients of its parts."""
        return [(step, rule(grad)) for step, rule in self.parts]


class Leaf:
    """A Number whose gradient somebody wants; `take` is called with it."""

    __slots__ = ("take",)
    parts = ()

    def __init__(self, take: Callable[[Number], None]):
        self.take = take

    def receive(self, grad: Number):
        """Pass on the gradient."""
        self.take(grad)
        return []


def backward(number: Number, grad: Number):
    """Give every leaf that `number` was made of its gradient, which keeps `GUARD_DIGITS`.

    Args:
        grad: the gradient of `number`, of its shape.
    """
    grads = {number.step: grad}
    with torch.no_grad(), number.finer():
        for step in _from_the_last(number.step):
            for part, contribution in step.receive(grads.pop(step)):
                known = grads.get(part)
                grads[part] = contribution if known is None else add(known, contribution)


def _from_the_last(last):
    """A step and all that it follows from, each before what it follows from."""
    order, seen, stack = [], set(), [(last, False)]
    while stack:
        step, expanded = stack.pop()
        if expanded:
            order.append(step)
        elif step not in seen:
            seen.add(step)
            stack.append((step, True))
            stack.extend((part, False) for part, _ in step.parts)
    return order[::-1]


# ---- Sums and products ---------------------------------------------------------------------------


def add(x: Number, y: Number) -> Number:
    """x + y, broadcast."""
    return x.like(x.graph.added("add", x.node, y.node)).by(
        (x, lambda grad: shrunk(grad, x.shape)), (y, lambda grad: shrunk(grad, y.shape))
    )


def subtract(x: Number, y: Number) -> Number:
    """x - y, broadcast."""
    return x.like(x.graph.added("sub", x.node, y.node)).by(
        (x, lambda grad: shrunk(grad, x.shape)),
        (y, lambda grad: scale(shrunk(grad, y.shape), -1)),
    )


def scale(x: Number, factor: float | Fraction | torch.Tensor) -> Number:
    """x times a public number, see `ratio`; nothing is rounded before it must be."""
    factor = ratio(factor)
    return x.like(x.graph.scaled(x.node, factor)).by((x, lambda grad: scale(grad, factor)))


def multiply(x: Number, y: Number) -> Number:
    """x y, element by element, broadcast."""
    return _product(x, y, "mul").by(
        (x, lambda grad: shrunk(multiply(grad, y), x.shape)),
        (y, lambda grad: shrunk(multiply(grad, x), y.shape)),
    )


def matmul(x: Number, y: Number) -> Number:
    """x @ y, of two dimensions or more, those before the last two broadcast."""
    return _product(x, y, "matmul").by(
        (x, lambda grad: shrunk(matmul(grad, transposed(y)), x.shape)),
        (y, lambda grad: shrunk(matmul(transposed(x), grad), y.shape)),
    )


def _product(x, y, op):
    return x.like(x.graph.scaled(x.graph.times(op, x.node, y.node), Fraction(1, x.one)))


def total(x: Number, axes: Sequence[int], keepdim: bool = False) -> Number:
    """The sum over some axes, counted from the first."""
    axes = tuple(sorted(axes))
    kept = [1 if i in axes else n for i, n in enumerate(x.shape)]
    return x.like(x.graph.summed(x.node, axes, keepdim)).by(
        (x, lambda grad: expand(reshape(grad, kept), x.shape))
    )


def shrunk(x: Number, shape: Sequence[int]) -> Number:
    """The gradient of what was broadcast from `shape`, whose own gradient x is."""
    extra = x.dim - len(shape)
    x = total(x, range(extra)) if extra else x
    stretched = [i for i, n in enumerate(shape) if n == 1 != x.shape[i]]
    return total(x, stretched, keepdim=True) if stretched else x


def refresh(x: Number) -> Number:
    """The same in fresh shares."""
    return x.like(x.graph.refreshed(x.node)).by((x, lambda grad: grad))


def noised(
    x: Number, sigma: float | Fraction, correlation: tuple[int, ...] = (), slot: int = 0
) -> Number:
    """With noise that nobody knows, of standard deviation `sigma` from each worker; no gradient. It
    is computed once, with what is revealed next or wanted. See `semi2k.noise`."""
    return x.like(x.graph.noised(x.node, fraction(sigma) * x.one, correlation, slot))


# ---- Moves ---------------------------------------------------------------------------------------


def reshape(x: Number, shape: Sequence[int]) -> Number:
    """With its elements in another shape, in which one size may be -1."""
    return _moved(x, "reshape", tuple(shape)).by((x, lambda grad: reshape(grad, x.shape)))


def permute(x: Number, axes: Sequence[int]) -> Number:
    """With its axes in another order."""
    back = tuple(np.argsort(axes).tolist())
    return _moved(x, "permute", tuple(axes)).by((x, lambda grad: permute(grad, back)))


def transposed(x: Number) -> Number:
    """With its last two axes exchanged."""
    axes = list(range(x.dim))
    axes[-2:] = axes[-1], axes[-2]
    return permute(x, axes)


def expand(x: Number, shape: Sequence[int]) -> Number:
    """Broadcast to a shape."""
    return _moved(x, "expand", tuple(shape)).by((x, lambda grad: shrunk(grad, x.shape)))


def index(x: Number, spec: tuple) -> Number:
    """The part of it that a program's index gives, see `semi2k.program.MOVES`."""
    is_list = any(isinstance(i, tuple) and i[0] == "list" for i in spec)
    back = scatter if is_list else place
    return _moved(x, "index", spec).by((x, lambda grad: back(grad, x.shape, spec)))


def place(x: Number, shape: Sequence[int], spec: tuple) -> Number:
    """Zeros of a shape, and x where a program's index gives, which has no element twice."""
    return _moved(x, "place", tuple(shape), spec).by((x, lambda grad: index(grad, spec)))


def scatter(x: Number, shape: Sequence[int], spec: tuple) -> Number:
    """Likewise, and where the index has an element more than once, the sum."""
    return x.like(x.graph.gathered("scatter", x.node, tuple(shape), spec)).by(
        (x, lambda grad: index(grad, spec))
    )


def unfold(x: Number, size: Sequence[int], strides: Sequence[int]) -> Number:
    """(..., H, W) -> its windows of a size, (..., rows, columns, *size)."""
    return _moved(x, "unfold", tuple(size), tuple(strides)).by(
        (x, lambda grad: fold(grad, x.shape[-2:], strides))
    )


def fold(x: Number, shape: Sequence[int], strides: Sequence[int]) -> Number:
    """The adjoint of `unfold`, for (H, W): what each element was taken to, added."""
    return x.like(x.graph.gathered("fold", x.node, tuple(shape), tuple(strides))).by(
        (x, lambda grad: unfold(grad, x.shape[-2:], strides))
    )


def _moved(x, op, *params):
    return x.like(x.graph.moved(op, x.node, *params))


def concatenate(numbers: Sequence[Number], axis: int) -> Number:
    """One after the other along an axis."""
    first, *_ = numbers
    ends = np.cumsum([x.shape[axis] for x in numbers]).tolist()

    def part(start, end):
        spec = (*[("slice", None, None, None)] * axis, ("slice", start, end, None))
        return lambda grad: index(grad, spec)

    rules = [part(end - x.shape[axis], end) for x, end in zip(numbers, ends, strict=True)]
    joined = first.graph.concatenated([x.node for x in numbers], axis)
    return first.like(joined).by(*zip(numbers, rules, strict=True))


# ---- Comparison ----------------------------------------------------------------------------------


def is_positive(x: Number) -> Number:
    """1 where x > 0, else 0; no gradient."""
    return scale(x.like(x.graph.above_zero(x.node)), x.one)
