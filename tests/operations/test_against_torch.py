"""Each operation beside torch's: its results and its gradients, by every name that torch has."""

import gc
import itertools
import weakref

import pytest
import torch
import torch.nn.functional as F

from smpc.operations import OPERATIONS
from tests.operations.conftest import eighths, is_secret, revealed, secret
from tests.operations.table import CUBE, INDICES, ROW, TABLE, WHICH, X, Y, public

NAMES = {}  # of the functions of OPERATIONS, by which torch calls them
for name, function in OPERATIONS.items():
    NAMES.setdefault(function.__name__, []).append(name)
# Of these torch's function has other arguments than what is called like it elsewhere.
OTHERS = {torch.Tensor: {"copy"}, torch: {"batch_norm", "nll_loss_nd"}, F: set()}


def routes(function):
    """All that torch has of an operation, but in place: methods, attributes and functions."""
    for name, holder in itertools.product(NAMES[function], OTHERS):
        found = None if name in OTHERS[holder] else getattr(holder, name, None)
        if found is None or name.startswith("__i"):
            continue
        if holder is not torch.Tensor:
            yield name, found
        elif name == "where":
            yield name, lambda condition, x, y: x.where(condition, y)
        elif callable(found):
            yield name, lambda x, *args, name=name, **options: getattr(x, name)(*args, **options)
        else:
            yield name, lambda x, name=name: getattr(x, name)


def test_every_operation_is_in_the_table():
    assert TABLE.keys() == NAMES.keys()


def tensors_in(result):
    """The tensors of a result, in a list."""
    return [result] if isinstance(result, torch.Tensor) else list(result)


def shared(call, group, digits, requires_grad=False):
    """(arguments of a call, named ones, the tensors in them): its floats are secret."""
    return arguments(call, lambda x: secret(x, group, digits, requires_grad))


def twins(call):
    """Likewise, plain ones with gradients."""
    return arguments(call, lambda x: x.clone().requires_grad_())


def arguments(call, make):
    """The arguments of a call, with what is made of those that become secret; and that."""
    made = []

    def argument(value):
        if isinstance(value, (tuple, list)):
            return type(value)(map(argument, value))
        is_float = isinstance(value, torch.Tensor) and value.is_floating_point()
        if not is_float or getattr(value, "is_public", False):
            return value
        made.append(make(value))
        return made[-1]

    args = [argument(value) for value in call.args]
    return args, {key: argument(value) for key, value in call.kwargs.items()}, made


def plain(route, call):
    """What a route gives on plain tensors, a list; None where torch takes no such arguments."""
    try:
        return tensors_in(route(*call.args, **call.kwargs))
    except (TypeError, RuntimeError, AttributeError):
        return None


def check(found, on_the_way=0):
    """Compare what was computed with 3, 4 and 5 digits.

    Args:
        on_the_way: what each may be off beside: what it is made of is rounded to six digits, and
            multiplied by inputs of up to 4.
        found: of each, (its digits, a secret tensor, what it should be, by how many units it may be
            off, the name and the call that it came from).
    """
    for digits in (3, 4, 5):
        of_these = [others for d, *others in found if d == digits]
        results = revealed([tensor for tensor, *_ in of_these], digits)
        for result, (_, expected, units, name, call) in zip(results, of_these, strict=True):
            assert result.shape == expected.shape, f"{name}{call}"
            off = (result - expected).abs()
            most = call.may_be_off(expected, units, digits) + on_the_way
            assert (off <= most).all(), f"{name}{call}: {off}"


@pytest.mark.parametrize("function", TABLE)
def test_values(parties, function):
    found, turn = [], itertools.cycle((3, 4, 5))
    for call in TABLE[function]:
        ways = [(name, route, plain(route, call)) for name, route in routes(function)]
        ways = [way for way in ways if way[-1] is not None]
        assert ways, call
        for name, route, values in ways:
            digits = next(turn)
            args, kwargs, _ = shared(call, parties, digits)
            results = tensors_in(route(*args, **kwargs))
            assert all(map(is_secret, results)), f"{name}{call}"
            for result, value in zip(results, values, strict=True):
                found.append((digits, result, value.double(), call.units, name, call))
    check(found)


@pytest.mark.parametrize("function", TABLE)
def test_gradients(parties, function):
    """Of the sum of all results, each times a public number: by the first name alone."""
    found, turn = [], itertools.cycle((3, 4, 5))
    for call in filter(lambda call: call.differentiable, TABLE[function]):
        digits = next(turn)
        name, route = next((n, r) for n, r in routes(function) if plain(r, call) is not None)
        args, kwargs, leaves = shared(call, parties, digits, requires_grad=True)
        args_, kwargs_, twins_ = twins(call)
        results = tensors_in(route(*args, **kwargs))
        loss, loss_ = 0, 0
        for result, value in zip(results, tensors_in(route(*args_, **kwargs_)), strict=True):
            weights = eighths(*value.shape, most=1, seed=6)
            if value.requires_grad:
                loss_ = (value * weights).sum() + loss_
            if result.requires_grad:
                loss = (result * weights).sum() + loss
                assert value.requires_grad, f"{name}{call}"
        if isinstance(loss, torch.Tensor):
            loss.backward()
        if isinstance(loss_, torch.Tensor):
            loss_.backward()
        for leaf, twin in zip(leaves, twins_, strict=True):
            grad = torch.zeros_like(twin) if twin.grad is None else twin.grad
            if leaf.grad is not None:
                found.append((digits, leaf.grad, grad, call.gradient_units, name, call))
            else:  # nothing is noted of what has no slope: a sign, a power of 0
                assert not grad.any(), f"{name}{call}"
    check(found, 6e-6)


IN_PLACE = {
    "add_": (X, Y),
    "sub_": (X, ROW),
    "mul_": (X, public(Y)),
    "div_": (X, 4),
    "__iadd__": (X, 1.5),
    "__isub__": (X, Y),
    "__imul__": (X, 2),
    "__itruediv__": (X, -2),
    "neg_": (X,),
    "relu_": (X,),
    "abs_": (X,),
    "square_": (X,),
    "clamp_": (X, -1, 1),
    "masked_fill_": (X, WHICH, 0.5),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place(parties, name):
    """The values change of what is no leaf, and so do the gradients of what it was made of."""
    x, *rest = IN_PLACE[name]
    plain, shared_ = x.clone().requires_grad_(), secret(x, parties, requires_grad=True)
    rest_ = [secret(v, parties) if v is Y or v is ROW else v for v in rest]
    y, y_ = plain * 1, shared_ * 1
    expected, result = getattr(y, name)(*rest), getattr(y_, name)(*rest_)
    assert result is y_
    weights = eighths(*y.shape, most=1, seed=6)
    (expected * weights).sum().backward()
    (y_ * weights).sum().backward()
    got, grad = revealed([y_, shared_.grad], 3)
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= 0.001
    assert (grad - plain.grad).abs().max() <= 0.001


def test_what_has_no_slope_in_place(parties):
    """What came before is no part of a comparison's gradient."""
    x = secret(X, parties, requires_grad=True)
    y = x * 3
    y.sign_()
    assert not y.requires_grad
    (y * x).sum().backward()
    (grad,) = revealed([x.grad], 3)
    assert torch.equal(grad, X.sign())


def test_what_is_changed_in_place_goes_with_its_name(parties):
    """At once, and not when Python next looks for cycles: which values a program keeps depends on
    what refers to them."""
    x = secret(X, parties, requires_grad=True)
    y = x * 2
    y += x
    y.mul_(y)
    gone = weakref.ref(y)
    gc.disable()
    try:
        del y
        assert gone() is None
    finally:
        gc.enable()


SET = [i for i in INDICES if i is not WHICH]


@pytest.mark.parametrize("value", [CUBE[0, 0, 0] + 1, 0.5], ids=["secret", "public"])
def test_values_in_place(parties, value):
    """`x[index] = value`, and the gradients of both."""
    leaves, expected = [], []
    for index in SET:
        plain, leaf, part = CUBE.clone(), secret(CUBE, parties, requires_grad=True), value
        if isinstance(value, torch.Tensor):
            part = secret(value, parties, requires_grad=True)
        y, y_ = plain.requires_grad_() * 1, leaf * 1
        y[index], y_[index] = torch.as_tensor(value).double(), part
        weights = eighths(*CUBE.shape, most=1, seed=6)
        (y * weights).sum().backward()
        (y_ * weights).sum().backward()
        leaves += [y_, leaf.grad]
        expected += [y, plain.grad]
        if isinstance(value, torch.Tensor):  # (torch counts twice what is written twice)
            written = torch.zeros_like(CUBE)
            written[index] = 1
            leaves.append(part.grad)
            expected.append((written * weights).sum())
    for result, wanted in zip(revealed(leaves, 3), expected, strict=True):
        assert (result - wanted).abs().max() <= 0.001


@pytest.mark.parametrize("dropout", [lambda x: F.dropout(x, 0.25), torch.nn.Dropout(0.25)])
def test_dropout(parties, dropout):
    """Zeros, the other elements divided by 1 - p; so have the gradients."""
    plain = torch.full((40, 50), 1.5, dtype=torch.float64)
    x = secret(plain, parties, requires_grad=True)
    y, again = dropout(x), dropout(x)
    y.sum().backward()
    one, other, grad = revealed([y, again, x.grad], 3)
    kept = one != 0
    assert 0.7 < kept.double().mean() < 0.8  # 2,000 elements: five standard deviations
    assert torch.equal(one, kept * 2.0)
    assert not torch.equal(one, other)
    assert (grad - kept / 0.75).abs().max() <= 0.001
