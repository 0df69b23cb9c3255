"""What each operation is called with: see `test_against_torch`."""

import math

import torch

from tests.operations.conftest import eighths


class Call:
    """Arguments of an operation, of which tensors of floats become secret.

    Attributes:
        units: of fixed precision, that a result may be off; `gradient_units`: that a gradient may.
        relative: what either may be off beside, of its magnitude, or of 1 if that is less.
        differentiable: whether torch has gradients of all its tensors.
    """

    def __init__(self, *args, units=0, gradient_units=1, relative=0, differentiable=True, **kwargs):
        self.args, self.kwargs = args, kwargs
        self.units, self.gradient_units, self.relative = units, gradient_units, relative
        self.differentiable = differentiable

    def __repr__(self):
        return f"{self.args} {self.kwargs}"

    def may_be_off(self, expected, units, digits):
        """By how much, at each element."""
        return units * 10.0**-digits + self.relative * expected.abs().clamp(min=1) + 1e-9


def public(values):
    """A tensor of floats that stays public."""
    values = values.clone()
    values.is_public = True
    return values


def both(x, y, **options):
    """Two operands: both secret, the first, and the second."""
    pairs = [(x, y), (x, public(y)), (public(x), y)]
    return [Call(*pair, **options) for pair in pairs]


ZERO, EMPTY = torch.tensor(1.5, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64)
X, Y = eighths(2, 3), eighths(2, 3, seed=1)
CUBE, ROW, COLUMN = eighths(2, 3, 4), eighths(3, seed=2), eighths(2, 1, seed=3)
TIES = torch.tensor([[0.0, 1.0, -1.0, 2.0], [2.0, -0.5, 0.0, 0.0]], dtype=torch.float64)
LARGE = torch.tensor([-(2.0**32), -(2.0**20), 0.0, 0.125, 2.0**20, 2.0**32], dtype=torch.float64)
IMAGES = eighths(2, 3, 5, 6, most=2)
WHICH = torch.tensor([[True, False, True], [False, False, True]])
BROADCASTS = [(X, Y), (X, ROW), (COLUMN, ROW), (CUBE, COLUMN.reshape(2, 1, 1)), (ZERO, X)]
BROADCASTS += [(EMPTY, ROW), (ZERO, ZERO / 2)]


def binary(*more, units=0, scalars=(2, -0.25, 1.5)):
    calls = [call for x, y in BROADCASTS for call in both(x, y, units=units)]
    calls += [Call(X, number, units=units) for number in scalars]
    calls += [Call(X, torch.tensor(0.5, dtype=torch.float64), units=units), Call(X, X, units=units)]
    return calls + list(more)


def comparison():
    at_bounds = [Call(TIES, TIES.flip(0)), Call(TIES, 0), Call(LARGE, LARGE.flip(0))]
    return binary(*at_bounds, Call(LARGE, 0.125), Call(TIES, 2), Call(X, torch.tensor(0.5)))


def unary(*more, at=(TIES,), **options):
    calls = [Call(x, **options) for x in (X, CUBE, ZERO, EMPTY, *at)]
    return [*calls, *more]


def function(*values, **options):
    """A function at values in its range, in several shapes."""
    line = torch.tensor(values, dtype=torch.float64)
    options = {"units": 1.1, "gradient_units": 1.1, "relative": 3e-6, **options}
    tensors = [line, line.reshape(-1, 1), line[:0], line[0]]
    return [Call(x, **options) for x in tensors]


def reduction(*more, units=0, empty=True, **options):
    calls = [
        *(Call(x, units=units, **options) for x in (X, CUBE, ZERO, EMPTY)[: 4 if empty else 3]),
        *(Call(CUBE, dim, units=units, **options) for dim in (0, 1, -1)),
        *(Call(CUBE, dim=d, keepdim=True, units=units, **options) for d in (1, -3)),
        Call(ZERO, 0, units=units, **options),
    ]
    return [*calls, *more]


def several(units=0, **options):
    """A reduction over several dimensions."""
    return [
        Call(CUBE, (0, 2), units=units, **options),
        Call(CUBE, dim=(-1, 1), keepdim=True, units=units, **options),
    ]


def extreme():
    """Without equal elements, whose gradients the operations differ in."""
    calls = [Call(eighths(5)), Call(CUBE[0]), Call(ZERO), Call(LARGE[1:5])]
    calls += [Call(CUBE, dim) for dim in (0, 1, -1)]
    calls += [Call(CUBE, 1, True), Call(CUBE, dim=-1, keepdim=True), Call(ZERO, 0)]
    return [*calls, Call(CUBE[:, :, :1], 2), Call(CUBE[:0], 1)]


def windows():
    calls = [Call(IMAGES, 2), Call(IMAGES, (3, 2)), Call(IMAGES[0], 3, 1)]
    calls += [Call(IMAGES, 3, stride=2, padding=1), Call(IMAGES, (2, 3), (1, 2), padding=(1, 0))]
    return [*calls, Call(IMAGES, 5), Call(IMAGES[:1, :1], 2, 3)]


INDICES = [
    *(
        0,
        -1,
        slice(1, None),
        slice(None, None, 2),
        Ellipsis,
        None,
        (),
        (1, 2),
        (0, slice(1, 3), -1),
    ),
    *((Ellipsis, 1), (slice(None), None, 0), [1, 0, 1], (slice(None), [2, 0, 2]), True, False),
    *(torch.tensor([1, 1]), torch.tensor([[0, 1], [1, 1]]), torch.tensor(1), torch.tensor([-1])),
    *((torch.tensor([0, 1]), torch.tensor([2, 2])), (slice(None), torch.tensor([1]), 2), WHICH),
    *((0, torch.tensor([True, False, True])), torch.zeros(2, 3).bool(), slice(2, 1)),
    (slice(-1, None), slice(0, -1), slice(None, None, 3)),
]
KERNELS = eighths(4, 3, 3, 2, most=2)
BIAS = eighths(4, seed=5)
CLASSES = torch.tensor([2, 0])
AWAY = eighths(2, 3) + torch.where(eighths(2, 3) > 0, 0.5, -0.5)  # from 0
TARGETS = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.25, 0.0]], dtype=torch.float64)
LIKELY = torch.tensor([[0.25, 0.5, 0.875], [0.125, 0.75, 0.375]], dtype=torch.float64)
SIGNED = -30.0, -3.125, -0.5, 0.0, 0.125, 1.5, 7.75, 40.0
BOUNDS = eighths(2, 3, most=1), eighths(2, 3, most=1, seed=4) + 2

# By the names of the functions of `smpc.operations`; each is called by all names that it has.
TABLE = {
    # ---- pointwise
    "add": [*binary(), Call(X, Y, alpha=-2), Call(X, 1, alpha=0.5)],
    "sub": [*binary(), Call(X, Y, alpha=3)],
    "rsub": [*binary(), Call(X, Y, alpha=2)],
    "mul": [*binary(units=1), Call(X, 0), Call(X, -1), Call(LARGE[1:5], 8)],
    "neg": unary(),
    "positive": unary(),
    "square": unary(units=1),
    "gt": comparison(),
    "lt": comparison(),
    "ge": comparison(),
    "le": comparison(),
    "ne": comparison(),
    "eq": comparison(),
    "sign": unary(Call(LARGE)),
    "relu": unary(Call(LARGE)),
    "leaky_relu": unary(Call(X, 0.25, units=1), units=1),
    "abs": unary(Call(LARGE)),
    "where": [
        *(
            Call(WHICH, x, y)
            for x, y in [(X, Y), (X, 0.5), (-1, Y), (X, public(Y)), (public(X), Y)]
        ),
        *(Call(WHICH, x, y) for x, y in [(ROW, COLUMN), (ZERO, X), (eighths(4, 2, 3), ROW)]),
        Call(torch.tensor(True), X, Y),
    ],
    "masked_fill": [Call(X, WHICH, 2.5), Call(X, WHICH[0], ZERO), Call(EMPTY, WHICH[0], 1)],
    "maximum": [*both(X, Y), *both(TIES, TIES.flip(0)), *both(X, ROW), *both(ZERO, X)],
    "minimum": [*both(X, Y), *both(TIES, TIES.flip(0)), *both(X, ROW), *both(ZERO, X)],
    "clamp": [
        *(Call(x, -1, 0.5) for x in (X, TIES, ZERO, EMPTY)),
        *(Call(TIES, *bounds) for bounds in [(None, 1), (0,), (2, 1)]),
        *(Call(X, min=a, max=b) for a, b in [BOUNDS, (public(BOUNDS[0]), None)]),
    ],
    "clamp_min": [Call(X, 0.5), Call(TIES, 0), Call(X, BOUNDS[0])],
    "clamp_max": [Call(X, 0.5), Call(TIES, 0), Call(X, BOUNDS[0])],
    "hardtanh": [*unary(), Call(X, -2, 0.5)],
    "relu6": unary(Call(eighths(9, most=8))),
    "pow": [
        *(Call(X, n, units=1) for n in (0, 1, 2, 2.0)),
        *(Call(X, n, units=4 ** (n - 2) * 2, gradient_units=4 ** (n - 1)) for n in (3, 4)),
    ],
    # ---- shapes
    "view": [Call(X, s) for s in ((3, 2), (-1,), (1, 2, 3, 1), (2, -1))] + [Call(ZERO, ())],
    "view_as": [Call(X, public(torch.zeros(3, 2))), Call(X, eighths(6))],
    "flatten": [*unary(), Call(CUBE, 1), Call(CUBE, 0, 1), Call(CUBE, start_dim=-2, end_dim=-1)],
    "unflatten": [Call(CUBE, 2, (2, 2)), Call(CUBE, -1, (-1, 1)), Call(CUBE, 0, (2, 1))],
    "squeeze": [
        Call(COLUMN),
        Call(COLUMN, 1),
        Call(COLUMN, -1),
        Call(COLUMN, 0),
        Call(ZERO),
        Call(CUBE[:1, :, :1], dim=(0, 2)),
        Call(CUBE[:1], 0),
        Call(CUBE),
    ],
    "unsqueeze": [Call(CUBE, d) for d in (0, 3, -1, -4)] + [Call(ZERO, 0), Call(EMPTY, 1)],
    "permute": [Call(CUBE, d) for d in ((2, 0, 1), (0, -1, 1), (0, 1, 2))] + [Call(ZERO, ())],
    "transpose": [Call(CUBE, 0, 2), Call(CUBE, -1, 1), Call(X, 1, 0), Call(ZERO, 0, -1)],
    "t": [Call(X), Call(ROW), Call(EMPTY), Call(ZERO)],
    "transposed": [Call(X), Call(CUBE)],
    "movedim": [Call(CUBE, 0, 2), Call(CUBE, -1, 0), Call(CUBE, (0, 1), (2, 0))],
    "expand": [
        Call(COLUMN, (2, 3)),
        Call(ROW, (4, 2, 3)),
        Call(COLUMN, (5, -1, 2)),
        Call(X, (2, 3)),
        Call(ZERO, (2, 2)),
        Call(COLUMN[:0], (0, 4)),
    ],
    "expand_as": [Call(ROW, X), Call(COLUMN, public(X))],
    "repeat": [Call(X, n) for n in ((2, 1), (1, 3), (2, 2, 2), (0, 1))] + [Call(ZERO, (3,))],
    "getitem": [Call(CUBE if i is not WHICH else X, i) for i in INDICES],
    "setitem": [],  # in place: see `test_values_in_place`
    "select": [Call(CUBE, 1, 2), Call(CUBE, -1, -1), Call(ROW, 0, 1)],
    "narrow": [Call(CUBE, 1, 1, 2), Call(CUBE, -1, 0, 4), Call(CUBE, 0, 1, 0)],
    "index_select": [
        Call(CUBE, d, torch.tensor(i).long()) for d, i in [(0, [1, 1, 0]), (-1, [3]), (1, [])]
    ],
    "gather": [Call(X, 1, torch.tensor([[2, 2], [0, 1]])), Call(X, 0, torch.tensor([[1, 0, 1]]))],
    "flip": [Call(CUBE, d) for d in ((0,), (0, -1), (1, 2, 0))],
    "split": [Call(CUBE, 2, 2), Call(CUBE, [1, 2], 1), Call(CUBE, 3, -1), Call(ROW, 5)],
    "chunk": [Call(CUBE, 2, -1), Call(CUBE, 2, 1), Call(CUBE, 7, 0), Call(EMPTY, 2)],
    "unbind": [Call(CUBE), Call(CUBE, 1), Call(CUBE, -1), Call(EMPTY, 1)],
    "diag": [Call(X), Call(X.t()), Call(ROW), Call(eighths(1))],
    "tril": [Call(X), Call(eighths(3, 3), -1), Call(CUBE, 1)],
    "triu": [Call(X), Call(eighths(3, 3), -1), Call(CUBE, 1)],
    "cat": [Call(p, d) for p, d in [((X, Y), 0), ((X, COLUMN, public(Y)), 1), ((EMPTY, X), -2)]]
    + [Call([public(X), Y]), Call([X]), Call((X, X), 1)],
    "stack": [Call((X, Y), d) for d in (0, 1, 2, -1)] + [Call([public(X), Y]), Call([ZERO, ZERO])],
    "pad": [Call(X, p) for p in ((1, 2), (0, 1, 2, 0), (0, 0))]
    + [Call(CUBE, (1, 1, 0, 2), value=-1.5), Call(ROW, (2, 0), "constant", 0.5)],
    "refresh": [],  # torch has it not: see tests/semi2k/test_tensor.py
    "clone": unary(),
    "contiguous": unary(),
    # ---- reductions
    "sum": [*reduction(), *several()],
    "mean": [*reduction(units=1, empty=False), *several(units=1)],
    # the squares of what is off the mean: by a unit, itself a unit off in 8 at the most
    "var": [
        Call(X, units=12),
        Call(CUBE, 1, units=12),
        Call(CUBE, (0, 2), units=12),
        Call(X, dim=1, unbiased=False, keepdim=True, units=12),
        Call(X, correction=2, units=12),
    ],
    "cumsum": [Call(CUBE, d) for d in (0, 1, -1)]
    + [Call(ZERO, 0)]
    + [Call(EMPTY, 0), Call(eighths(1), 0)],
    "prod": [
        Call(ROW, units=9, gradient_units=1.1),
        Call(X, 1, units=9, gradient_units=1.1),
        Call(CUBE[0] / 4, dim=0, keepdim=True, units=2),
        Call(eighths(2, 1), 1),
        Call(ZERO),
        Call(ZERO, 0),
        Call(eighths(5) / 2, units=20, gradient_units=12),
    ],
    "max": [*extreme(), *both(X, Y)],
    "min": [*extreme(), *both(X, Y)],
    "argmax": extreme(),
    "argmin": extreme(),
    "topk": [Call(eighths(5), k) for k in (1, 3, 5)] + [Call(CUBE, 2, 1), Call(CUBE, 1, -1, False)],
    "sort": [Call(eighths(6)), Call(CUBE, 0), Call(CUBE, 1, True), Call(CUBE, descending=True)],
    "argsort": [Call(eighths(6)), Call(CUBE, 0), Call(CUBE, 1, True)],
    "dot": [*both(ROW, eighths(3), units=1), Call(eighths(0), eighths(0))],
    "matmul": [
        call
        for a, b in [
            ((3,), (3,)),
            ((2, 3), (3,)),
            ((3,), (3, 4)),
            ((2, 3), (3, 4)),
            ((0, 3), (3, 4)),
            ((5, 2, 3), (3, 4)),
            ((5, 2, 3), (5, 3, 4)),
            ((2, 1, 2, 3), (5, 3, 1)),
            ((2, 0), (0, 4)),
            ((5, 2, 3), (3,)),
            ((3,), (5, 3, 4)),
        ]
        for call in both(eighths(*a), eighths(*b, seed=1), units=1)
    ],
    "rmatmul": both(eighths(3, 2), X, units=1),
    # ---- layers
    "linear": [
        *(Call(x, eighths(4, 3), BIAS, units=1) for x in (X, ROW, eighths(2, 2, 3), EMPTY)),
        *(Call(X, eighths(4, 3), units=1), Call(X, public(eighths(4, 3)), public(BIAS), units=1)),
        *(Call(public(X), eighths(4, 3), BIAS, units=1), Call(X, ROW, units=1)),
    ],
    "addmm": [
        Call(BIAS, X, eighths(3, 4), units=1),
        Call(public(BIAS), X, eighths(3, 4), units=1),
        Call(eighths(2, 4), X, public(eighths(3, 4)), beta=-0.5, alpha=2, units=1),
    ],
    "conv2d": [
        *(Call(IMAGES, KERNELS, b, units=1) for b in (None, BIAS, public(BIAS))),
        *(Call(IMAGES, KERNELS, BIAS, *k, units=1) for k in [(2,), ((1, 2), 1), (1, (2, 0))]),
        *(Call(IMAGES, KERNELS, padding=p, units=1) for p in ("same", "valid")),
        *(Call(IMAGES, public(KERNELS), stride=3, units=1), Call(public(IMAGES), KERNELS, units=1)),
        Call(IMAGES[0], KERNELS, BIAS, units=1),
    ],
    "avg_pool2d": [
        *(Call(call.args[0], *call.args[1:], units=1, **call.kwargs) for call in windows()),
        Call(IMAGES, 2, divisor_override=3, units=1),
    ],
    "adaptive_avg_pool2d": [Call(IMAGES, s, units=1) for s in (1, (5, 2), (None, 3))],
    "max_pool2d": windows(),
    "dropout": [Call(X, 0.5, False), Call(X, 0.0), Call(X, 1.0)],  # and see `test_dropout`
    # ---- losses
    "nll_loss": [Call(X, CLASSES, reduction=r, units=1) for r in ("mean", "sum", "none")]
    + [Call(ROW, torch.tensor(1), units=1), Call(EMPTY, CLASSES[:0], reduction="sum")],
    "mse_loss": [
        Call(x, y, reduction=r, units=1)
        for r in ("mean", "sum", "none")
        for x, y in [(X, Y), (X, public(Y)), (ZERO, ZERO * 2), (public(X), Y)]
    ],
    "l1_loss": [
        Call(x, y, reduction=r, units=1)
        for r in ("mean", "sum", "none")
        for x, y in [(X, Y), (X, public(Y)), (TIES, TIES.flip(0)), (public(X), Y)]
    ],
    # ---- functions, to the errors that their docstrings state
    "sigmoid": function(*SIGNED),
    "tanh": function(*SIGNED),
    "erf": function(*SIGNED),
    "softplus": [*function(*SIGNED), Call(X, beta=2, units=1.1, gradient_units=1.1)],
    "silu": function(*SIGNED),
    "gelu": [*function(*SIGNED), Call(X, approximate="tanh", units=1.1, gradient_units=1.1)],
    "exp": function(-30.0, -7.5, -1.0, 0.0, 0.125, 2.0, 6.5, units=1.1),
    "expm1": function(-30.0, -1.0, 0.0, 0.125, 2.0, 6.5),
    "reciprocal": function(0.125, -0.25, 1.0, -3.0, 1000.0, -4096.0),
    "sqrt": function(0.125, 0.25, 1.0, 2.0, 1000.0, 4096.0),
    "rsqrt": function(0.125, 0.25, 1.0, 2.0, 1000.0, 4096.0),
    "log": function(0.125, 0.25, 1.0, 2.0, 1000.0, 4096.0),
    "log2": function(0.125, 0.25, 1.0, 2.0, 1000.0, 4096.0),
    "log10": function(0.125, 0.25, 1.0, 2.0, 1000.0, 4096.0),
    "log1p": function(-0.875, 0.25, 0.0, 1.0, 1000.0, 4096.0),
    "sin": function(*SIGNED[:-1], -25.0),
    "cos": function(*SIGNED[:-1], -25.0),
    # ---- what stands on them
    "div": [
        *(Call(*xy, units=5, relative=1e-5) for xy in [(X, AWAY), (public(X), AWAY)]),
        Call(CUBE, COLUMN.reshape(2, 1, 1), units=5, relative=1e-5),
        *(Call(X, n, units=1) for n in (4, -7, 0.25)),
        *(Call(X, public(AWAY), units=1), Call(X, torch.tensor(8.0), units=1)),
    ],
    "rdiv": [Call(AWAY, 3, units=3, relative=1e-5), Call(AWAY, public(X), units=5, relative=1e-5)],
    "std": [
        Call(x, *dim, units=5, gradient_units=2) for x, *dim in [(X,), (CUBE, 1), (CUBE, (0, 2))]
    ],
    "norm": [
        *(Call(X, p, units=4) for p in (1, 2, math.inf)),
        *(Call(CUBE, 2, 1, units=4), Call(CUBE, dim=(0, 2), keepdim=True, units=4)),
    ],
    "amax": [*reduction(empty=False), *several(), Call(TIES, 1)],
    "amin": [*reduction(empty=False), *several(), Call(TIES, 1)],
    # (the gradient of a weight is the sum of 60 results, each rounded, times up to 1)
    "batch_norm": [
        Call(IMAGES, None, None, eighths(3), eighths(3, seed=1), True, units=6, gradient_units=40),
        Call(IMAGES, None, None, training=True, units=3, gradient_units=3),
        Call(eighths(8, 3), None, None, training=True, units=3, gradient_units=3),
        Call(IMAGES, eighths(3), eighths(3).abs() + 0.5, units=8, differentiable=False),
        Call(IMAGES, public(eighths(3)), public(eighths(3).abs() + 0.5), units=8, gradient_units=2),
    ],
    "softmax": [Call(CUBE, d, units=2) for d in (0, 1, -1)] + [Call(X * 8, 1, units=2)],
    "log_softmax": [Call(CUBE, d, units=2) for d in (0, 1, -1)] + [Call(X * 8, 1, units=2)],
    "cross_entropy": [
        *(Call(X, CLASSES, reduction=r, units=4) for r in ("mean", "sum", "none")),
        *(Call(X, CLASSES, label_smoothing=0.25, units=4), Call(ROW, torch.tensor(1), units=4)),
        Call(X, torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.0, 1.0]], dtype=torch.float64), units=4),
    ],
    "binary_cross_entropy": [
        Call(LIKELY, y, reduction=r, units=8, gradient_units=2)
        for r in ("mean", "sum", "none")
        for y in (TARGETS, public(TARGETS))
    ],
    "binary_cross_entropy_with_logits": [
        Call(X, y, reduction=r, units=7)
        for r in ("mean", "sum", "none")
        for y in (TARGETS, public(TARGETS))
    ],
}
