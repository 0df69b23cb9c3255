"""What `scenarios` has computed: numbers of a session's with operators, and a small training.

It is what `smpc.semi2k.tensor` and the script make of syft's tensors, of the same nodes of the same
graph, without syft.
"""

from fractions import Fraction
from unittest import mock

import numpy as np

UNIT = 1000  # of fixed precision
FINE = 1000  # steps a unit, that a backward pass keeps
ALL = ("slice", None, None, None)


class Value:
    """A value of a session's, with operators: beside another, an integer or an int64 array, which
    are public. Products are not divided by anything.

    Attributes:
        session: a `semi2k.session.Session`; `node`: a `semi2k.graph.Node`, to which it refers as a
            tensor does.
    """

    def __init__(self, session, node):
        self.session, self.node = session, session.note(node)
        node.handles += 1

    def __del__(self):
        self.node.handles -= 1

    @classmethod
    def shared(cls, session, values):
        """An int64 array, shared by the session's owner, or public if it has none."""
        return cls(session, session.share(np.asarray(values)))

    @property
    def shape(self):
        """A tuple."""
        return self.node.shape

    def _made(self, operation, *arguments):
        return Value(self.session, getattr(self.session.graph, operation)(*arguments))

    def _operand(self, other):
        return other.node if isinstance(other, Value) else self.session.graph.array(other)

    def __add__(self, other):
        return self._made("added", "add", self.node, self._operand(other))

    def __sub__(self, other):
        return self._made("added", "sub", self.node, self._operand(other))

    def __rsub__(self, other):
        return self._made("added", "sub", self._operand(other), self.node)

    def __mul__(self, other):
        return self._made("times", "mul", self.node, self._operand(other))

    def __matmul__(self, other):
        return self._made("times", "matmul", self.node, self._operand(other))

    def left(self, public):
        """public @ self."""
        return self._made("times", "matmul", self._operand(public), self.node)

    def __truediv__(self, divisor):
        return self._made("scaled", self.node, Fraction(1, divisor))

    def __getitem__(self, spec):
        """An index as a program carries it: see `semi2k.program.MOVES`."""
        return self.moved("index", spec)

    @property
    def T(self):
        """A matrix with rows and columns exchanged."""
        return self.moved("permute", (1, 0))

    def moved(self, move, *params):
        """With its elements moved about."""
        return self._made("moved", move, self.node, *params)

    def gathered(self, op, *params):
        """What was taken from it, put back and added."""
        return self._made("gathered", op, self.node, *params)

    def cat(self, other, axis):
        """Itself and another, one after the other."""
        return self._made("concatenated", [self.node, self._operand(other)], axis)

    def sum(self, *axes):
        """The sum over axes, or all of them."""
        return self._made("summed", self.node, axes or tuple(range(len(self.shape))), False)

    def positive(self):
        """1 where it is above 0, else 0."""
        return self._made("above_zero", self.node)

    def rounded(self):
        """Rounded to whole units."""
        return self._made("rounded", self.node, 1)

    def refreshed(self):
        """In fresh shares."""
        return self._made("refreshed", self.node)

    def want(self, factor=True):
        """Have it stored at the end of the next run; `factor`: so that it can be one."""
        self.session.want(self.node, factor)
        return self

    def reveal(self):
        """Its value, int64; that it was asked for is noted in the session's `asked`."""
        self.session.asked.append(self.node.size)
        return self.session.reveal(self.node)


def divided(product):
    """A product of two numbers in units of fixed precision, in such units."""
    return product / product.session.graph.one


def relu(x):
    """x where it is above 0, else 0."""
    return x.positive() * x


def equal(x, y):
    """1 where x equals y, else 0."""
    return 1 - (x - y).positive() - (y - x).positive()


def tournament(values):
    """(m, n) -> the largest of each row, and its place, the first of equal ones: (m, 1) each."""
    places = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    places = Value(values.session, values.session.graph.array(places))
    while (n := values.shape[1]) > 1:
        left, right = ((ALL, ("slice", start, n - n % 2, 2)) for start in (0, 1))
        rest = ALL, ("slice", n - n % 2, n, None)
        wins = (values[right] - values[left]).positive()
        values, places = (
            (x[left] + wins * (x[right] - x[left])).cat(x[rest], 1)
            if n % 2
            else x[left] + wins * (x[right] - x[left])
            for x in (values, places)
        )
    return values, places


class Training:
    """Trains a network of two layers on one batch, as the script does, and tests it.

    Args:
        session: a `semi2k.session.Session`, in units of `UNIT`.
        public: whether everybody knows the first weights.
        step: of the checkpoint that it goes on from, or None.
    Attributes:
    """

    BATCH, SHAPES = 4, ((6, 5), (5,), (5, 3), (3,))
    RUN = "training"  # what checkpoints are called
    RATE = 50  # how much less an update is than its gradient

    def __init__(self, session, public=False, step=None):
        self.session, self._dropped = session, {}
        images, labels, *weights = self.numbers()
        self.images, self.labels = (Value.shared(session, x) for x in (images, labels))
        if step is not None:
            nodes = session.load(self.SHAPES, run_id=self.RUN, step=step)
            self.weights = [Value(session, node) for node in nodes]
            return
        with mock.patch.object(session, "owner", None if public else session.owner):
            self.weights = [Value.shared(session, x) for x in weights]

    @classmethod
    def numbers(cls):
        """Images, labels and the first weights: int64 arrays, within ±1."""
        random, (first, *_, last) = np.random.default_rng(1), cls.SHAPES
        shapes = (cls.BATCH, first[0]), (cls.BATCH, *last), *cls.SHAPES
        return [random.integers(-UNIT, UNIT, shape) for shape in shapes]

    def _forward(self):
        """The hidden layer's weighted sums, what its ReLU makes of them, and the outputs."""
        first, first_bias, second, second_bias = self.weights
        sums = divided(self.images @ first) + first_bias
        hidden = relu(sums)
        return sums, hidden, divided(hidden @ second) + second_bias

    def predicted(self):
        """Where the largest output of each image is, (BATCH, 1)."""
        return tournament(self._forward()[2])[1]

    def test(self):
        """Reveal how many of these are where the largest label is."""
        equal(self.predicted(), tournament(self.labels)[1]).sum().reveal()

    def step(self):
        """Update the weights once; the loss before, in units, is revealed."""
        sums, hidden, outputs = self._forward()
        off = outputs - self.labels
        loss = divided(off * off).sum().refreshed() / self.BATCH
        self._update(sums, hidden, off)
        loss.reveal()

    def _update(self, sums, hidden, off):
        with mock.patch.object(self.session.graph, "resolution", FINE):
            grad = off * 2 / self.BATCH
            back = sums.positive() * divided(grad @ self.weights[2].T)
            grads = divided(self.images.T @ back), back.sum(0)
            grads += divided(hidden.T @ grad), grad.sum(0)
            grads = map(self._noisy, range(len(self.weights)), grads)
            updates = [grad / self.RATE for grad in grads]
        self.weights = [*map(self._updated, range(len(updates)), self.weights, updates)]

    def _noisy(self, number, grad):
        """A gradient as it is used."""
        return grad

    def _updated(self, number, weight, update):
        """A weight less its update rounded; what that drops is added to the next."""
        if number in self._dropped:
            update += self._dropped[number]
        self._dropped[number] = (update - update.rounded()).want(factor=False)
        return (weight - update.rounded()).want()

    def save(self, step, keep=None):
        """Have the workers save their shares of the weights; what was dropped is lost."""
        nodes = [weight.node for weight in self.weights]
        self.session.save(nodes, run_id=self.RUN, step=step, keep=keep)
        self._dropped = {}


class Private(Training):
    """The same, with noise on each gradient: no loss is revealed, but whether weights are within a
    bound. (What is clipped before, as in `smpc.privacy`, is what any training computes.)"""

    SIGMA, CORRELATION = Fraction(100), (32, 24)  # units; of each worker's noise
    BOUND = 100  # of the first weights' squared norm

    def step(self):
        """Update the weights once."""
        sums, hidden, outputs = self._forward()
        first = self.weights[0]
        within = (self.BOUND * UNIT - divided(first * first).sum()).positive()
        self._update(sums, hidden, outputs - self.labels)
        within.reveal()

    def _noisy(self, number, grad):
        """With noise that nobody knows."""
        return grad._made("noised", grad.node, self.SIGMA, self.CORRELATION, number)
