"""What is to be computed: a graph of shared values, each with the scale that it is wanted at.

An operation on shared values makes a `Node` and nothing else. A node stands for a number in units
of fixed precision, exactly: a division divides nothing yet, and what is rounded, where and how
finely is left to `compiler`, which sees the whole computation. What is public never becomes a node
of it: public values are computed here, with numpy, and stand in the nodes that they meet.
"""

import contextlib
import itertools
import math
import weakref
from fractions import Fraction

import numpy as np

from smpc.semi2k.program import LINEAR, MOVES

ROUNDED = "mul", "matmul", "scaled", "kept"  # what is made of these anew where it is to be finer
MOST = 2**62  # of a factor's numerator and denominator


class Node:
    """A shared value, computed or yet to be; or a public one.

    Attributes:
        op, inputs, params: how it is computed; inputs are Nodes, empty once it has been. Of a
            public one op is "public", and params are an int64 array and the Fraction that it is
            times; or None and the number that is in every element.
        shape: a tuple.
        resolution: steps a unit; no finer is it kept where it must be rounded.
        magnitude: in numbers, what it is promised to be right up to where it must be rounded; 0:
            what `compiler` promises of itself.
        one: units in the number 1, in the fixed precision that it is in; 1 if it is in none.
        id: its number at the workers once they store it, else None.
        form: then "share", "masked", or "hidden", which is masked, the workers having no shares of
            the mask; `scale`: the integer that is stored is the value times this.
        handles: how many tensors of the user's refer to it.
        waited: how many times it was left pending when other values were computed.
        on_delete: called with `id` when nothing refers to a stored value any longer.
        number: of all nodes, in the order in which they were made.
    """

    __slots__ = (
        *("op", "inputs", "params", "shape", "resolution", "magnitude", "one"),
        *("id", "form", "scale", "handles", "waited", "on_delete", "number", "__weakref__"),
    )
    _numbers = itertools.count()

    def __init__(self, op, inputs, params, shape, resolution=1, one=1, magnitude=0):
        self.number = next(self._numbers)
        self.op, self.inputs, self.params, self.shape = op, inputs, params, tuple(shape)
        self.resolution, self.magnitude, self.one = resolution, magnitude, one
        self.handles, self.waited = 0, 0
        self.id = self.form = self.scale = self.on_delete = None

    def __del__(self):
        if self.id is not None:
            self.on_delete(self.id)

    def store(self, id, form, scale, on_delete):
        """It has been computed."""
        self.id, self.form, self.scale, self.on_delete = id, form, Fraction(scale), on_delete
        self.inputs = ()

    @property
    def public(self):
        """Whether everybody knows it."""
        return self.op == "public"

    @property
    def pending(self):
        """Whether it is yet to be computed; what is public never is."""
        return self.id is None and not self.public

    @property
    def size(self):
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def number_in_all(self):
        """Of a public value the same in every element: it, a Fraction; else None."""
        return self.params[1] if self.public and self.params[0] is None else None

    @property
    def values(self):
        """Of a public value: an int64 array, and the Fraction that it is times."""
        values, factor = self.params
        if values is None:
            values = np.broadcast_to(np.int64(factor.numerator), self.shape)
            factor = Fraction(1, factor.denominator)
        return values, factor


class Graph:
    """Makes nodes: equal operations on equal nodes once, and the cheaper of equivalent ones.

    Attributes:
        pending: the nodes yet to be computed that something still refers to, by number; in this
            order, so that equal computations make equal programs.
        resolution, magnitude: of the nodes that are made; see `finer`.
        promised: the least magnitude of the nodes that are made.
        one: of the nodes that are shared; see `Node`.
    """

    def __init__(self):
        self.resolution, self.magnitude, self.promised, self.one = 1, 0, 0, 1
        self.pending = weakref.WeakValueDictionary()
        self._made = weakref.WeakValueDictionary()

    def node(self, op, inputs, params, shape):
        """The node for this operation, an earlier one if there is an equal one."""
        magnitude = max(self.magnitude, self.promised)
        fineness = (self.resolution, magnitude) if op in ROUNDED else ()
        # (of integers alone, which are compared even while the interpreter comes to its end)
        parts = (p.as_integer_ratio() if isinstance(p, Fraction) else p for p in params + fineness)
        key = (op, *map(id, inputs), *parts)
        node = self._made.get(key)
        if node is None or not node.pending or node.inputs != inputs:
            # (a computed node has let go of its inputs, whose id() may be another's by now)
            one = max(input_.one for input_ in inputs)
            fineness = self.resolution, one, magnitude
            node = self._made[key] = Node(op, inputs, params, shape, *fineness)
            self.pending[node.number] = node
        return node

    @contextlib.contextmanager
    def finer(self, resolution, magnitude=0):
        """Have the nodes that are made in here kept at so many steps a unit, as those of a backward
        pass are, and be right up to a magnitude; see `Node`."""
        before = self.resolution, self.magnitude
        self.resolution, self.magnitude = resolution, magnitude
        try:
            yield
        finally:
            self.resolution, self.magnitude = before

    def stored(self, id, shape, form, on_delete):
        """A node that the workers store already, as integers."""
        node = Node("stored", (), (), shape, one=self.one)
        node.store(id, form, 1, on_delete)
        return node

    # ---- public values

    def constant(self, value, shape):
        """A public number, the same in every element: an int or a Fraction.

        Raises:
            OverflowError: it is not within ±2^63.
        """
        if abs(value) >= 2**63:
            raise OverflowError("a public number is too large for the ring, use fewer digits")
        return Node("public", (), (None, Fraction(value)), shape)

    def array(self, values):
        """A public array of integers, int64."""
        values = np.array(values, dtype=np.int64, order="C")
        if not values.size or (values == values.flat[0]).all():
            return self.constant(int(values.flat[0]) if values.size else 0, values.shape)
        return self._public(values, Fraction(1))

    def _public(self, values, factor):
        return Node("public", (), (values, factor), values.shape)

    def _fold(self, op, x, y):
        """Two public values added, subtracted or multiplied, exactly, in Python's integers.

        Raises:
            OverflowError: the result is not within ±2^63.
        """
        numbers = x.number_in_all, y.number_in_all
        if None not in numbers and op != "matmul":
            value = {"add": sum(numbers), "sub": numbers[0] - numbers[1]}
            value = value.get(op, numbers[0] * numbers[1])
            return self.constant(value, np.broadcast_shapes(x.shape, y.shape))
        (a, f), (b, g) = x.values, y.values
        a, b = a.astype(object), b.astype(object)
        if op in ("add", "sub"):
            factor = Fraction(1, math.lcm(f.denominator, g.denominator))
            a, b = a * int(f / factor), b * int(g / factor)
            values = a + b if op == "add" else a - b
        else:
            factor, values = f * g, a * b if op == "mul" else np.matmul(a, b)
        values = np.asarray(values, dtype=object)  # (of numbers numpy makes a number)
        if values.size and max(abs(values.max()), abs(values.min())) >= 2**63:
            raise OverflowError("a public number is too large for the ring, use fewer digits")
        return self._public(np.array(values, dtype=np.int64), factor)

    # ---- operations

    def scaled(self, x, factor):
        """x times a public int or Fraction."""
        factor = Fraction(factor)
        if x.public:
            if (number := x.number_in_all) is not None:
                return self.constant(number * factor, x.shape)
            if not factor:
                return self.constant(0, x.shape)
            values, its_factor = x.values
            factor *= its_factor
            # (in lowest terms: what is multiplied by it is kept as finely as its denominator)
            common = math.gcd(int(np.gcd.reduce(values, axis=None)), factor.denominator)
            return self._public(values // common, factor * common)
        if factor == 0:
            return self.constant(0, x.shape)
        if max(abs(factor.numerator), factor.denominator) > MOST:
            raise OverflowError("semi2k multiplies and divides by numbers within ±2^62")
        if x.op == "scaled" and x.pending:
            whole = x.params[0] * factor
            if max(abs(whole.numerator), whole.denominator) <= MOST:
                return self.scaled(x.inputs[0], whole)
            x = self.rounded(x, x.resolution)
        return x if factor == 1 else self.node("scaled", (x,), (factor,), x.shape)

    def rounded(self, x, scale):
        """x rounded to a multiple of 1 / scale, up or down with mean error 0; so it is, and not
        only allowed to be."""
        return x if x.public else self.node("rounded", (x,), (Fraction(scale),), x.shape)

    def kept(self, x):
        """x itself, at the resolution of here, whatever its own is."""
        return x if x.public else self.node("kept", (x,), (), x.shape)

    def opened(self, x):
        """x as a factor of products: rounded to its resolution, and masked. What is linear in it is
        masked, too; so that x is opened once, whatever is compared and multiplied."""
        return x if x.public else self.node("opened", (x,), (), x.shape)

    def summed(self, x, axes, keepdim):
        """The sum over some axes."""
        shape = [1 if i in axes else n for i, n in enumerate(x.shape) if keepdim or i not in axes]
        if not x.public:
            return self.node("sum", (x,), (axes, keepdim), shape)
        count = math.prod(x.shape[axis] for axis in axes)
        if (number := x.number_in_all) is not None:
            return self.constant(number * count, shape)
        values, factor = x.values
        total = values.astype(object).sum(axis=axes, keepdims=keepdim)
        return self._public(np.array(total, dtype=np.int64), factor)

    def times(self, op, x, y):
        """x times y, op being "mul" or "matmul"."""
        shape = np.broadcast_shapes(x.shape, y.shape) if op == "mul" else _matmul_shape(x, y)
        for one, other in ((x, y), (y, x)) if op == "mul" else ():
            if (number := one.number_in_all) is not None:
                return self.scaled(self.moved("expand", other, shape), number)
        if x.public and y.public:
            return self._fold(op, x, y)
        for one, other in ((x, y), (y, x)):  # what is divided later is rounded once
            if one.op == "scaled" and one.pending:
                pair = (one.inputs[0], other) if one is x else (other, one.inputs[0])
                if one.params[0].denominator == 1:
                    return self.scaled(self.times(op, *pair), one.params[0])
        return self.node(op, (x, y), (), shape)

    def above_zero(self, x):
        """1 where x > 0, else 0."""
        if x.public:
            values, factor = x.values
            return self.array(values * np.int64(-1 if factor < 0 else 1) > 0)
        return self.node("above_zero", (x,), (), x.shape)

    def refreshed(self, x):
        """x in fresh shares: a new node at each call."""
        if x.public:
            return x
        node = Node("refresh", (x,), (), x.shape, self.resolution, x.one)
        self.pending[node.number] = node
        return node

    def noised(self, x, sigma, correlation, slot):
        """x with noise that nobody knows: a new node at each call, which is computed once.

        Args:
            sigma: the standard deviation of each worker's part, a Fraction, in units.
            correlation, slot: see `noise.Noise.add`.
        Raises:
            ValueError: x is public, of which everybody would know the noise.
        """
        if x.public:
            raise ValueError("noise on a public value hides nothing")
        node = Node(
            "noise", (x,), (Fraction(sigma), correlation, slot), x.shape, self.resolution, x.one
        )
        self.pending[node.number] = node
        return node

    def moved(self, op, x, *params):
        """x with its elements moved about: an operation of `MOVES`."""
        shape = _moved_shape(op, x.shape, *params)
        if op in ("reshape", "expand"):
            if shape == x.shape:
                return x
            params = (shape,)  # with no -1 in it
        if x.public:
            if (number := x.number_in_all) is not None and op != "place":
                return self.constant(number, shape)
            values, factor = x.values
            return self._public(np.array(MOVES[op](values, *params)), factor)
        if op == "permute" and x.op == "permute" and x.inputs:
            (base,), (inner,), (outer,) = x.inputs, x.params, params
            axes = tuple(inner[axis] for axis in outer)
            return base if axes == tuple(range(len(axes))) else self.moved("permute", base, axes)
        return self.node(op, (x,), params, shape)

    def gathered(self, op, x, *params):
        """The adjoint of "index" or of "unfold", op being "scatter" or "fold": what they would take
        from one place more than once is added."""
        if x.public:
            values, factor = x.values
            return self._public(np.array(LINEAR[op](values, *params)), factor)
        shape = params[0] if op == "scatter" else (*x.shape[:-4], *params[0])
        return self.node(op, (x,), params, shape)

    def added(self, op, x, y):
        """x + y or x - y, op being "add" or "sub", broadcast."""
        shape = np.broadcast_shapes(x.shape, y.shape)
        if x.public and y.public:
            return self._fold(op, x, y)
        for one, other in ((x, y), (y, x)):
            if one.number_in_all == 0:
                other = other if op == "add" or one is y else self.scaled(other, -1)
                return self.moved("expand", other, shape)
        return self.node(op, (x, y), (), shape)

    def concatenated(self, nodes, axis):
        """Values one after the other along an axis."""
        shape = list(nodes[0].shape)
        shape[axis] = sum(node.shape[axis] for node in nodes)
        if all(node.public for node in nodes):
            pairs = [node.values for node in nodes]
            factor = Fraction(1, math.lcm(*(f.denominator for _, f in pairs)))
            parts = [values.astype(object) * int(f / factor) for values, f in pairs]
            return self._public(np.array(np.concatenate(parts, axis), dtype=np.int64), factor)
        return self.node("cat", tuple(nodes), (axis,), shape)


def _moved_shape(op, shape, *params):
    """The shape of what `MOVES[op]` makes of an array of a shape."""
    if op == "permute":
        return tuple(shape[axis] for axis in params[0])
    return MOVES[op](np.broadcast_to(np.uint8(0), shape), *params).shape


def _matmul_shape(x, y):
    """The shape of x @ y, by the rules of numpy's matmul; raises ValueError if there is none."""
    rows, columns = x.shape[-2:-1], y.shape[-1:] if len(y.shape) > 1 else ()
    if not x.shape or not y.shape or x.shape[-1] != y.shape[-2:][0]:
        raise ValueError(f"shapes {x.shape} and {y.shape} do not go together in a matrix product")
    return (*np.broadcast_shapes(x.shape[:-2], y.shape[:-2]), *rows, *columns)


def ancestors(roots):
    """The pending nodes that `roots` need, themselves included, each after its inputs."""
    order, seen, stack = [], set(), [(root, False) for root in reversed(roots)]
    while stack:
        node, expanded = stack.pop()
        if expanded:
            order.append(node)
        elif node not in seen and node.pending:
            seen.add(node)
            stack.append((node, True))
            stack.extend((input_, False) for input_ in node.inputs)
    return order


def described(order, reveal, wanted, kept):
    """The nodes of a computation, as `compiler.Compiler` takes it, and what it looks like.

    Returns:
        the nodes, pending, stored and public, each after its inputs; and a tuple that is equal for
        computations that make the same program of their nodes, in this order.
    """
    numbers = {}
    for node in order:
        for other in (*node.inputs, node):
            numbers.setdefault(other, len(numbers))
    for node in (*([] if reveal is None else [reveal]), *(node for node, _ in wanted)):
        numbers.setdefault(node, len(numbers))
    number = numbers.get
    looks = tuple(
        (
            *(node.op, node.params, node.shape, node.resolution, node.one, node.magnitude),
            *map(number, node.inputs),
        )
        if node.pending
        else (node.number_in_all, node.shape)
        if node.number_in_all is not None
        else (node.params[0].tobytes(), node.params[1], node.shape)
        if node.public
        else (node.form, node.scale, node.shape, node.resolution, node.one)
        for node in numbers
    )
    roles = tuple(map(number, kept)), tuple((number(node), be) for node, be in wanted)
    return list(numbers), (looks, number(reveal), *roles)
