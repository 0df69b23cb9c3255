"""Functions of secret numbers beside float64, over their ranges and beyond: errors, rounds and
bytes are as their docstrings say."""

import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smpc.operations import functions, number
from smpc.semi2k.tensor import semi2k_tensor_in
from smpc.syft_binding.wrapper import number_in, tensor_of
from tests.conftest import reveal
from tests.operations.conftest import secret
from tests.semi2k.conftest import session_of

MOST = 2**20


def geometric(low, high, n=1500):
    """Numbers of all magnitudes between two."""
    return np.geomspace(low, high, n)


def positive(unit):
    """Within what is normalised, and each of the least multiples of a unit."""
    return np.concatenate([np.arange(1, 100) * unit, geometric(unit, min(MOST, 2**34 * unit))])


def both_signs(unit):
    return np.concatenate([positive(unit), -positive(unit)])


def between(low, high, n=3001):
    return lambda unit: np.linspace(low, high, n)


# name: the function, the same in float64, and from a unit to what it is tried at.
FUNCTIONS = {
    "reciprocal": (functions.reciprocal, torch.reciprocal, both_signs),
    "reciprocal_within": (
        lambda x: functions.reciprocal_within(x, 1, 10), torch.reciprocal, between(1, 10),
    ),
    "sqrt": (functions.sqrt, torch.sqrt, lambda unit: np.append(positive(unit), 0)),
    "rsqrt": (functions.rsqrt, torch.rsqrt, positive),
    "log": (functions.log, torch.log, positive),
    "log_within": (lambda x: functions.log_within(x, 1, 10), torch.log, between(1, 10)),
    "exp": (functions.exp, torch.exp, between(-17, 13)),
    "exp_below_zero": (functions.exp_below_zero, torch.exp, between(-20, 0)),
    "sigmoid": (functions.sigmoid, torch.sigmoid, between(-20, 20)),
    "tanh": (functions.tanh, torch.tanh, between(-10, 10)),
    "erf": (functions.erf, torch.erf, between(-5, 5)),
    "softplus": (functions.softplus, F.softplus, between(-40, 40)),
    "silu": (functions.silu, F.silu, between(-40, 40)),
    "gelu": (functions.gelu, F.gelu, between(-8, 8)),
    "sin": (functions.sin, torch.sin, between(-31, 31)),
    "cos": (functions.cos, torch.cos, between(-31, 31)),
}  # fmt: skip
OTHERS = {
    "log2": (functions.log2, torch.log2, positive),
    "log10": (functions.log10, torch.log10, positive),
    "log1p": (functions.log1p, torch.log1p, lambda unit: positive(unit) * 0.99),
    "expm1": (functions.expm1, torch.expm1, between(-17, 12)),
    "softplus of 2 x": (
        lambda x: functions.softplus(x, 2), lambda x: F.softplus(x, 2), between(-9, 9),
    ),
    "gelu by tanh": (
        lambda x: functions.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh"),
        between(-8, 8),
    ),
}  # fmt: skip
ALIKE = {"log2": "log", "log10": "log", "log1p": "log", "expm1": "exp"}
SAYS = re.compile(
    r"Error: ([\d.]+) units?(?: \+ (\S+e-\d+))?( \|y\|)?\. "
    r"Rounds: (\d+); bytes[^:]*: ([\d,]+) sent, ([\d,]+) dealt"
)


def says(name):
    """What a docstring says: units, what is added to them, whether as a part of the result; rounds,
    bytes sent and dealt."""
    of = getattr(functions, ALIKE.get(name, name.split(" ")[0]))
    *error, is_part, rounds, sent, dealt = SAYS.search(" ".join(of.__doc__.split())).groups()
    counts = (int(n.replace(",", "")) for n in (rounds, sent, dealt))
    return *map(float, error), is_part is not None, *counts


def on_grid(values, digits):
    """Multiples of a unit, float64."""
    return torch.as_tensor(np.unique(np.rint(values * 10**digits))) / 10**digits


def shared(values, group, digits, **kwargs):
    """As `secret`, of what a float may be a little less than."""
    return secret(values + values.sign() * 1e-9, group, digits, **kwargs)


def values_of(tensor, digits):
    """Revealed, float64."""
    return semi2k_tensor_in(tensor).get().double() / 10**digits


def apply(function, tensor):
    """A function of Numbers, to a tensor."""
    return tensor_of(function(number_in(tensor)), tensor)


def counts_of(function, group):
    """Rounds, and bytes for an element that are sent by each to each, and dealt, at 3 digits; of a
    run that was not made anew."""
    x = shared(torch.full((4096,), 1.5), group, 3)
    counters = session_of(x).network.counters
    told = {"anew": 1}
    while told["anew"]:
        before = counters.copy()
        reveal(apply(function, x))
        told = counters.since(before)
        x = shared(torch.full((4096,), 1.5), group, 3)
    return told["rounds"], round(told["opened"] / 2 / 4096), round(told["dealt"] / 4096)


def check(name, function, exact, values, digits, group):
    units, more, is_part, *_ = says(name)
    y = values_of(apply(function, shared(values, group, digits)), digits)
    expected = exact(values)
    size = expected.abs() + (name == "expm1") if is_part else 1
    bound = units * 10.0**-digits + more * size
    off = (y - expected).abs() - bound
    assert off.max() <= 0, f"{name}({values[off.argmax()]:.6f}) is off by {off.max():.2g} more"


@pytest.mark.parametrize("digits", [3, 4, 5, 6])
@pytest.mark.parametrize("name", [*FUNCTIONS, *OTHERS])
def test_error(parties, name, digits):
    function, exact, values = (FUNCTIONS | OTHERS)[name]
    check(name, function, exact, on_grid(values(10.0**-digits), digits), digits, parties)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_rounds_and_bytes(parties, name):
    assert counts_of(FUNCTIONS[name][0], parties) == says(name)[3:]


BEYOND = {
    # at 3 digits: what it is at -10^12, -5, 0, 2^20 and 10^12; None: right
    "reciprocal": (None, None, 1000, None, None),
    "sqrt": (0, 0, 0, 1024, 1036.248),
    "rsqrt": (31.623, 31.623, 31.623, None, 0.001),
    "log": (-6.908, -6.908, -6.908, None, 13.887),
    "exp": (0, None, 1, 442413.392, 442413.392),
    "exp_below_zero": (0, None, 1, 1, 1),
    "sigmoid": (0, None, 0.5, 1, 1),
    "tanh": (-1, None, 0, 1, 1),
    "erf": (-1, None, 0, 1, 1),
    "softplus": (0, None, None, 2**20, 10**12),
    "silu": (0, None, 0, 2**20, 10**12),
    "gelu": (0, None, 0, 2**20, 10**12),
    "sin": (-1, None, 0, 1, 1),
    "cos": (-1, None, 1, 1, 1),
}


@pytest.mark.parametrize("name", BEYOND)
def test_beyond_its_range(parties, name):
    x = torch.tensor([-(10.0**12), -5, 0, MOST, 10.0**12], dtype=torch.float64)
    function, exact, _ = FUNCTIONS[name]
    y = values_of(apply(function, shared(x, parties, 3)), 3)
    pairs = zip(BEYOND[name], exact(x).tolist(), strict=True)
    expected = torch.tensor([right if value is None else value for value, right in pairs])
    assert torch.allclose(y, expected.double(), rtol=2e-6, atol=1.1e-3 + 7e-7)


def test_what_is_finer_than_a_unit_by_a_public_factor(parties):
    """What is divided by a public number is not rounded, and may lie between two units."""
    x = on_grid(np.arange(1, 2000) / 1000, 3)
    for name in ("reciprocal", "sqrt", "log", "sigmoid", "exp"):
        function, exact, _ = FUNCTIONS[name]
        third = shared(x, parties, 3) / 8
        y = values_of(apply(function, third), 3)
        expected = exact(torch.clamp(x / 8, min=1e-3))
        slope = {"reciprocal": 1 / (x / 8) ** 2, "log": 8 / x, "sqrt": 2 / (x / 8).sqrt()}
        bound = 1.1e-3 + 1e-3 * slope.get(name, 2)
        wide = x > 0.05
        assert ((y - expected).abs() <= bound)[wide].all(), name
        assert (y[~wide].abs() <= 1.1 * expected[~wide].abs().max() + 0.1).all(), name


GRADIENTS = {
    "exp": (torch.exp, between(-8, 4)),
    "log": (torch.log, lambda unit: geometric(0.1, 1e4)),
    "log2": (torch.log2, lambda unit: geometric(0.1, 1e4)),
    "log10": (torch.log10, lambda unit: geometric(0.1, 1e4)),
    "log1p": (torch.log1p, lambda unit: geometric(0.1, 1e4)),
    "expm1": (torch.expm1, between(-8, 4)),
    "sqrt": (torch.sqrt, lambda unit: geometric(0.1, 1e4)),
    "rsqrt": (torch.rsqrt, lambda unit: geometric(0.1, 1e4)),
    "reciprocal": (torch.reciprocal, lambda unit: geometric(0.1, 1e4)),
    "sigmoid": (torch.sigmoid, between(-12, 12)),
    "tanh": (torch.tanh, between(-7, 7)),
    "erf": (torch.erf, between(-4, 4)),
    "softplus": (F.softplus, between(-20, 20)),
    "silu": (F.silu, between(-20, 20)),
    "gelu": (F.gelu, between(-8, 8)),
    "gelu by tanh": (lambda x: F.gelu(x, approximate="tanh"), between(-8, 8)),
    "sin": (torch.sin, between(-9, 9)),
    "cos": (torch.cos, between(-9, 9)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients(parties, name):
    """Of the sum of a third: to a unit of the precision, of which each takes its rounding, and the
    tenth of one by which a function is off before it is rounded."""
    function, values = GRADIENTS[name]
    plain = on_grid(values(1e-3)[::4], 3).requires_grad_()
    (function(plain) / 3).sum().backward()
    x = shared(plain.detach(), parties, 3, requires_grad=True)
    (function(x) / 3).sum().backward()
    gradient = values_of(x.grad, 3)
    assert torch.allclose(gradient, plain.grad, rtol=3e-6, atol=1.1e-3 + 5e-6)


def test_results_keep_six_digits_in_a_finer_context(parties):
    """As softmax and losses call them: products with them, too, are right to 10^-6."""
    x = torch.linspace(1, 9, 500, dtype=torch.float64)
    tensor = shared(x, parties, 3)
    x = (x * 1000 + 1e-6).floor() / 1000
    for function, exact in (
        (lambda n: functions.reciprocal_within(n, 1, 10), torch.reciprocal),
        (lambda n: functions.log_within(n, 1, 10), torch.log),
        (lambda n: functions.exp_below_zero(number.scale(n, -1)), lambda x: torch.exp(-x)),
        (functions.sigmoid, torch.sigmoid),
    ):
        one = number_in(tensor)
        with one.finer():
            y = function(one)
        with one.finer():
            thousand = number.multiply(y, number.scale(one, 1000))
        product = values_of(tensor_of(thousand, tensor), 3)
        # 9,000 times a millionth or two, and the rounding
        assert (product - exact(x) * x * 1000).abs().max() <= 9000 * 3e-6 + 1e-3


def test_after_a_product_and_as_a_factor(parties):
    """One opening of what comes in, and fewer bytes, since its bound is known; none of what comes
    out, where it is within 1."""
    rounds = {
        "sigmoid": (6, 6), "tanh": (6, 6), "exp_below_zero": (6, 6), "gelu": (6, 7),
        "exp": (11, 12), "reciprocal": (11, 12), "sqrt": (11, 12), "log": (9, 10),
    }  # fmt: skip
    for name, (after, before) in rounds.items():
        function = FUNCTIONS[name][0]
        told = counts_of(lambda n, f=function: f(number.multiply(n, n)), parties)
        assert told[0] == after, name
        assert told[1] < 0.75 * says(name)[4], name
        assert counts_of(lambda n, f=function: number.multiply(f(n), n), parties)[0] == before, name


@pytest.mark.parametrize("name", ["reciprocal", "exp", "sigmoid", "softplus", "log_within"])
def test_any_shape_and_more_workers(parties, name):
    function, exact, _ = FUNCTIONS[name]
    for values in (torch.tensor(2.5), torch.full((2, 1, 3), 1.5), torch.full((1,), 4.0)):
        check(name, function, exact, values.double(), 3, parties.of(3))


def test_exact_truncations(parties):
    x = torch.linspace(1, 9, 50, dtype=torch.float64)
    session = session_of(shared(x, parties, 3))
    session.exact = True
    try:
        for name in ("reciprocal", "exp", "sigmoid", "gelu", "log"):
            function, exact, _ = FUNCTIONS[name]
            check(name, function, exact, on_grid(x.numpy(), 3), 3, parties)
    finally:
        session.exact = False


def test_refused(parties):
    x = shared(torch.ones(2, dtype=torch.float64), parties, 7)
    for name in ("reciprocal", "exp", "sigmoid", "gelu"):
        with pytest.raises(OverflowError, match="use fewer digits"):
            FUNCTIONS[name][0](number_in(x))
    y = number_in(shared(torch.ones(2, dtype=torch.float64), parties, 3))
    with pytest.raises(ValueError, match="a range is within"):
        functions.log_within(y, 0, 3)
    with pytest.raises(ValueError, match="gelu"):
        functions.gelu(y, "erf")


def test_every_function_of_torch_reaches_its_own(parties):
    x = shared(torch.tensor([0.5, 1.5], dtype=torch.float64), parties, 3)
    for function in (
        torch.reciprocal, torch.sqrt, torch.rsqrt, torch.log, torch.exp, torch.sigmoid, torch.tanh,
        torch.erf, torch.sin, torch.cos, F.softplus, F.silu, F.gelu, lambda x: x.exp(),
        lambda x: 1 / x, lambda x: x**-0.5, torch.log2, torch.log10, torch.log1p, torch.expm1,
    ):  # fmt: skip
        y = values_of(function(x), 3)
        assert torch.allclose(y, function(torch.tensor([0.5, 1.5]).double()), atol=1.1e-3)
    assert semi2k_tensor_in(x) is not None and math.isfinite(y.sum())
