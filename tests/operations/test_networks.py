"""Random small networks of all differentiable operations beside torch's: the loss and every
gradient, within what rounding alone can do.

How far that is, torch tells. Behind each operation that rounds stands an error of at most a unit,
a zero that is added: by these zeros' derivatives of the loss, and of its gradients, both are known
to first order; and by the Jacobians of all that is computed, what the rounding of a gradient on its
way, to six digits, does to the gradients before it.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.operations.conftest import eighths, revealed, secret
from tests.semi2k.conftest import N_WORKERS

DIGITS = 5
UNIT, ON_THE_WAY = 10.0**-DIGITS, 1e-6
MOST, LARGEST = 24, 50  # elements of a value, and their magnitude
MARGIN = 0.02  # at least, of what is rounded and then compared, whatever rounding did to it
SHAPES = [(), (3,), (2, 3), (3, 2), (2, 1), (1, 3), (2, 3, 2), (3, 1, 2)]


class Value:
    """What was computed, beside what it should be, which is `exact` or has been rounded."""

    def __init__(self, secret, plain, exact):
        self.secret, self.plain, self.exact = secret, plain, exact

    @property
    def shape(self):
        return self.plain.shape


class Network:
    """Values, and the errors in them.

    Attributes:
        errors: zeros, which were added where there was rounding.
    """

    def __init__(self, parties, shapes):
        plain = [eighths(*shape, most=2, seed=11 * i + 3) for i, shape in enumerate(shapes)]
        self.leaves = [secret(x, parties, DIGITS, requires_grad=True) for x in plain]
        self.plain = [x.requires_grad_() for x in plain]
        pairs = zip(self.leaves, self.plain, strict=True)
        self.values, self.errors = [Value(x, x_, True) for x, x_ in pairs], []

    def rounded(self, x):
        """With an error, to which the derivatives are."""
        error = torch.zeros_like(x).requires_grad_()
        self.errors.append(error)
        return x + error

    def apply(self, operation, *inputs, exact=False):
        """A further value, unless it is too many numbers, or too large.

        Args:
            operation: of a function that rounds, and of the inputs.
            exact: whether it rounds nothing that is exact.
        """
        n_errors = len(self.errors)
        exact = exact and all(value.exact for value in inputs)
        plain = operation(self.rounded, *(value.plain for value in inputs))
        if plain.numel() > MOST or not plain.numel() or plain.abs().max() > LARGEST:
            del self.errors[n_errors:]
            return
        plain = plain if exact else self.rounded(plain)
        result = operation(lambda x: x, *(value.secret for value in inputs))
        self.values.append(Value(result, plain, exact))


# ---- Operations: each takes a function to draw with, a network and values of it ------------------


def far_from(value, *places):
    """Whether a comparison with these is decided, whatever was rounded."""
    return value.exact or all((value.plain - c).abs().min() > MARGIN for c in places)


def move(draw, network, x, y):
    n = x.plain.dim()
    moves = [
        lambda r, x: x.flatten(),
        lambda r, x: x.unsqueeze(0),
        lambda r, x: x.unsqueeze(-1).expand(*x.shape, 2),
        lambda r, x: x.repeat(2, *[1] * n) if n else x.repeat(2),
        lambda r, x: x.reshape(-1, 1).squeeze(1),
        lambda r, x: x.clone(),
    ]
    if n:
        last = x.shape[-1] - 1
        moves += [
            lambda r, x: x.transpose(0, -1),
            lambda r, x: x.permute(*range(1, n), 0),
            lambda r, x: x.flip(0),
            lambda r, x: x[..., [last, 0, last]],
            lambda r, x: x[-1],
            lambda r, x: x[:, None] if n == 1 else x[1:],
            lambda r, x: x[torch.arange(x.shape[0]) % 2 == 0],
            lambda r, x: x.index_select(-1, torch.tensor([last, last, 0])),
            lambda r, x: x.unbind(-1)[0],
            lambda r, x: x.chunk(2, -1)[-1],
            lambda r, x: F.pad(x, (1, 0), value=0.5),
            lambda r, x: x.narrow(0, 0, 1),
        ]
    if n == 2:
        moves += [lambda r, x: x.t(), lambda r, x: x.tril(), lambda r, x: x.diag()]
    network.apply(draw(st.sampled_from(moves)), x, exact=True)


def total(draw, network, x, y):
    dim = draw(st.sampled_from([None, *range(-x.plain.dim(), x.plain.dim())]))
    keepdim, name = draw(st.booleans()), draw(st.sampled_from(["sum", "mean", "cumsum", "var"]))
    kept = {} if dim is None else {"dim": dim, "keepdim": keepdim}
    if name == "cumsum":
        network.apply(lambda r, x: x.cumsum(dim or 0) if x.dim() else x, x, exact=True)
    elif name != "var":
        network.apply(lambda r, x: getattr(x, name)(**kept), x, exact=name == "sum")
    elif x.plain.numel() > 1 and (dim is None or x.shape[dim] > 1):

        def var(r, x):
            if x is not x_plain:
                return x.var(**kept)
            off = r(x - r(x.mean(dim, keepdim=True)))  # as it is computed
            squares = r(off * off).sum(**kept)
            return squares / (x.numel() // squares.numel() - 1)

        x_plain = x.plain
        network.apply(var, x)


def with_public(draw, network, x, y):
    public = eighths(*x.shape, most=1, seed=draw(st.integers(0, 9)))
    number = draw(st.sampled_from([3, -2, 0.25, -0.4]))
    choice = draw(
        st.sampled_from(
            [
                (lambda r, x: x * number, False),
                (lambda r, x: x / number, False),
                (lambda r, x: x + number, number in (3, -2, 0.25)),
                (lambda r, x: 1 - x, True),
                (lambda r, x: -x, True),
                (lambda r, x: x * public, False),
                (lambda r, x: public - x, True),
                (lambda r, x: torch.cat([x.reshape(-1), public.reshape(-1)]), True),
            ]
        )
    )
    network.apply(choice[0], x, exact=choice[1])


def of_two(draw, network, x, y):
    try:
        np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        y = x
    sums = lambda r, x, y: x + y, lambda r, x, y: x - y, lambda r, x, y: torch.add(x, y, alpha=2)
    joins = (lambda r, x, y: torch.cat([x.flatten(), y.flatten(), x.flatten()]),)
    exact = draw(st.booleans())
    products = lambda r, x, y: x * y, lambda r, x, y: r(x * y) * x, lambda r, x, y: x * x - r(y * y)
    network.apply(draw(st.sampled_from([*sums, *joins] if exact else products)), x, y, exact=exact)


def matrix(draw, network, x, y):
    if x.plain.dim() != 2:
        return
    if y.plain.dim() in (1, 2) and x.shape[1] == y.shape[0]:
        network.apply(lambda r, x, y: x @ y, x, y)
    elif y.plain.dim() == 2 and x.shape[1] == y.shape[1]:
        network.apply(lambda r, x, y: F.linear(x, y), x, y)
    else:
        network.apply(lambda r, x: x @ x.t(), x)


def choice(draw, network, x, y):
    number = draw(st.sampled_from([0, 0.3, -0.5]))
    if not far_from(x, number, 0):
        return
    try:
        fits = np.broadcast_shapes(x.shape, y.shape)
    except ValueError:
        fits, y = x.shape, x
    kinks = [
        lambda r, x, y: x.relu(),
        lambda r, x, y: x.abs(),
        lambda r, x, y: (x > number) * y,
        lambda r, x, y: torch.where(x > 0, x, y) if fits else x,
        lambda r, x, y: (x >= number) * 2 + x,
        lambda r, x, y: x.clamp(min=number),
        lambda r, x, y: torch.minimum(x, torch.full((), number, dtype=torch.float64)),
    ]
    network.apply(draw(st.sampled_from(kinks)), x, y, exact=number != 0.3)


def largest(draw, network, x, y):
    if not x.plain.dim():
        return
    dim = draw(st.integers(-x.plain.dim(), x.plain.dim() - 1))
    order = x.plain.detach().sort(dim).values.diff(dim=dim)
    if order.numel() and order.min() <= MARGIN:
        return
    name = draw(st.sampled_from(["max", "min"]))
    network.apply(lambda r, x: getattr(x, name)(dim)[0], x, exact=True)


OPERATIONS = [move, total, with_public, of_two, matrix, choice, largest]


# ---- The test ------------------------------------------------------------------------------------


def derivatives(of, to):
    """(what to, as a flat list), each row the derivatives of one element of `of`."""
    rows = []
    for element in of.reshape(-1):
        if not element.requires_grad:
            continue
        grads = torch.autograd.grad(element, to, retain_graph=True, allow_unused=True)
        pairs = zip(grads, to, strict=True)
        rows.append(torch.cat([(x * 0 if g is None else g).reshape(-1) for g, x in pairs]).abs())
    return rows


@pytest.mark.parametrize("n_workers", N_WORKERS)
@settings(max_examples=25)
@given(data=st.data())
def test_random_networks(parties, n_workers, data):
    draw = data.draw
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    network = Network(parties.of(n_workers), shapes)
    for _ in range(draw(st.integers(3, 8))):
        recent = st.sampled_from(network.values[-3:])
        x, y = draw(recent), draw(st.sampled_from(network.values))
        draw(st.sampled_from(OPERATIONS))(draw, network, x, y)
    loss, plain = 0, 0
    for i, value in enumerate(network.values[-2:]):
        weights = eighths(*value.shape, most=1, seed=i)
        loss = (value.secret * weights).sum() + loss
        plain = (value.plain * weights).sum() + plain
    loss.backward()
    used = [x for x in network.leaves if x.grad is not None]
    result, *got = revealed([loss, *(x.grad for x in used)], DIGITS)
    errors, leaves = network.errors, network.plain
    bound = UNIT + sum(row.sum() for row in derivatives(plain, errors)) * UNIT if errors else UNIT
    assert (result - plain).abs() <= bound * 1.05

    grads = torch.autograd.grad(plain, leaves, create_graph=True, allow_unused=True)
    on_the_way = sum(row for value in network.values for row in derivatives(value.plain, leaves))
    on_the_way = (on_the_way * 3 * ON_THE_WAY).split([x.numel() for x in leaves])
    for leaf, grad, passed, x in zip(network.leaves, grads, on_the_way, leaves, strict=True):
        if leaf.grad is None:
            assert grad is None or not grad.any()
            continue
        grad = torch.zeros_like(x) if grad is None else grad
        off = (got.pop(0) - grad).abs().reshape(-1)
        rows = derivatives(grad, errors) if errors else []
        first = torch.stack([row.sum() for row in rows]) if rows else torch.zeros(())
        assert (off <= (UNIT + first * UNIT + passed) * 1.05).all(), (off, first, passed)
