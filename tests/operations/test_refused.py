"""What semi2k has not, or not with such arguments, is refused in one line, by whatever way it is
called; nothing of torch's works on the empty tensor that syft's chain hangs on."""

import copy
import inspect
import io
import math
import pickle
import warnings

import numpy as np
import pytest
import syft
import torch
import torch.nn.functional as F
from torch.overrides import get_testing_overrides

from tests.operations.conftest import eighths, is_secret, revealed, secret
from tests.operations.refusals import is_one_line, refused

X = eighths(2, 3)
# What torch may be told of any tensor: where it is, of what type, and what it looks like.
HARMLESS = (bool, int, str, torch.dtype, torch.device, torch.layout, torch.Size, type(None))


def functions():
    """What of torch takes tensors, with how many it takes, in two ways: all secret; the first
    secret, the others numbers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_testing_overrides()
    for function, dummy in found.items():
        parameters = inspect.signature(dummy).parameters.values()
        kinds = inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
        needed = sum(p.default is p.empty and p.kind in kinds for p in parameters)
        yield function, max(needed, 1)


@pytest.mark.filterwarnings("ignore")
def test_all_of_torch_computes_or_refuses(parties):
    """None gives a plain tensor, or fails in the depths."""
    computed = 0
    for function, needed in functions():
        for other in (lambda: secret(X, parties), lambda: 1):
            args = [secret(X, parties), *(other() for _ in range(needed - 1))]
            try:
                result = function(*args)
            except Exception as error:
                # (torch's own parser and its distributed calls say more where arguments are wrong)
                by_torch = isinstance(error, TypeError) and "\n" in str(error)
                silly = isinstance(error, AttributeError) and "'int' object has" in str(error)
                assert is_one_line(error) or by_torch or silly, f"{function}: {error!r}"
                continue
            chains = syft.FixedPrecisionTensor, syft.AdditiveSharingTensor, syft.AutogradTensor
            parts = result if isinstance(result, (tuple, list)) else [result]
            if all(map(is_secret, parts)):
                computed += 1
            else:
                assert result is NotImplemented or isinstance(result, (*HARMLESS, *chains)), (
                    function
                )
    assert computed > 400  # or else this looks at nothing


MAKES = {
    "tensor": lambda x: torch.tensor(x),
    "Tensor": torch.Tensor,
    "array": np.array,
    "asarray": np.asarray,
    "from_dlpack": torch.from_dlpack,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "save": lambda x: torch.save(x, io.BytesIO()),
    "item": lambda x: x[0, 0].item(),
    "tolist": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "bool": lambda x: bool(x[0, 0]),
    "if": lambda x: 1 if x[0, 0] > 0 else 0,
    "float": lambda x: float(x[0, 0]),
    "int": lambda x: int(x[0, 0]),
    "range": lambda x: range(x[0, 0]),
    "in": lambda x: 1.0 in x,
    "max of Python": lambda x: max(x[0]),
    "sorted": lambda x: sorted(x[0]),
    "set_": lambda x: x.set_(X),
    "data": lambda x: setattr(x, "data", X),
    "long": lambda x: x.long(),
    "to integers": lambda x: x.to(torch.int64),
    "autograd.grad": lambda x: torch.autograd.grad(x.sum(), x),
    "out": lambda x: torch.add(X, x, out=X.clone()),
    "in place of a public one": lambda x: X.clone().add_(x),
    "copied to a public one": lambda x: X.clone().copy_(x),
}


@pytest.mark.parametrize("name", MAKES)
def test_no_plain_value_without_get(parties, name):
    x = secret(X, parties, requires_grad=True)
    refused(lambda: MAKES[name](x), (TypeError, NotImplementedError), "semi2k|secret")


def test_a_parameter_of_a_secret_tensor_is_secret(parties):
    parameter = torch.nn.Parameter(secret(X, parties, requires_grad=True))
    (parameter * 2).sum().backward()
    assert is_secret(parameter)
    value, grad = revealed([parameter, parameter.grad], 3)
    assert torch.equal(value, X)
    assert torch.equal(grad, torch.full_like(X, 2))


def test_rows_of_a_secret_tensor(parties):
    rows = [row * 2 for row in secret(X, parties)]
    assert torch.equal(torch.stack(revealed(rows, 3)), X * 2)
    refused(lambda: len(secret(X[0, 0], parties)), TypeError, "0-d")
    refused(lambda: list(secret(X[0, 0], parties)), IndexError, "single number has no dimension")


WRONG = {
    "more dimensions": (lambda x: x.sum(2), IndexError, "no dimension 2"),
    "fewer dimensions": (lambda x: x.sum(-3), IndexError, "no dimension -3"),
    "twice": (lambda x: x.sum((0, 0)), ValueError, "twice"),
    "squeeze": (lambda x: x.squeeze(5), IndexError, "no dimension 5"),
    "unsqueeze": (lambda x: x.unsqueeze(4), IndexError, "no place 4"),
    "permute": (lambda x: x.permute(0, 0), ValueError, "permute"),
    "view": (lambda x: x.view(4), ValueError, "shape"),
    "expand": (lambda x: x.expand(2, 4), ValueError, "broadcast|remapped"),
    "fewer sizes": (lambda x: x.expand(3), ValueError, "expand"),
    "repeat": (lambda x: x.repeat(2), ValueError, "repeat"),
    "broadcast": (lambda x: x + torch.zeros(4), ValueError, "broadcast"),
    "flatten": (lambda x: x.flatten(1, 0), ValueError, "flatten"),
    "index": (lambda x: x[2], IndexError, "out of bounds|out of range"),
    "more indices": (lambda x: x[0, 0, 0], IndexError, "too many"),
    "backwards": (lambda x: x[::-1], ValueError, "step"),
    "fraction": (lambda x: x[0.5], TypeError, "integer"),
    "secret index": (lambda x: x[x[0, 0]], TypeError, "a secret index"),
    "secret mask": (lambda x: x[x > 0], TypeError, "a secret index"),
    "secret place": (lambda x: x.index_select(0, x[0]), TypeError, "a secret index"),
    "secret places": (lambda x: x.gather(0, x), TypeError, "a secret index"),
    "set by a secret": (lambda x: x.__setitem__(x > 0, 1), TypeError, "a secret index"),
    "mask": (lambda x: x[torch.ones(3, 3).bool()], IndexError, "mask"),
    "places": (lambda x: x[torch.tensor([0, 5])], IndexError, "out of"),
    "narrow": (lambda x: x.narrow(0, 1, 2), IndexError, "from 1 of 2"),
    "split": (lambda x: x.split([1, 1], 1), ValueError, "are not 3"),
    "diag": (lambda x: x.unsqueeze(0).diag(), ValueError, "diagonal"),
    "t": (lambda x: x.unsqueeze(0).t(), ValueError, "transpose"),
    "cat": (lambda x: torch.cat([x, x[:, :2]]), ValueError, "cat"),
    "pad": (lambda x: F.pad(x, (1, 1), "reflect"), TypeError, "reflect"),
    "negative padding": (lambda x: F.pad(x, (-1, 0)), ValueError, "below 0"),
    "matmul": (lambda x: x @ x, ValueError, "do not go together"),
    "matmul of one": (lambda x: x @ x[0, 0], ValueError, "single number"),
    "dot": (lambda x: x.dot(x), ValueError, "two vectors"),
    "mean of none": (lambda x: x[:0].mean(), ValueError, "no elements"),
    "max of none": (lambda x: x[:0].max(), ValueError, "no elements"),
    "var of one": (lambda x: x[0, :1].var(), ValueError, "too few"),
    "topk": (lambda x: x.topk(4), ValueError, "no 4 of 3"),
    "clamp": (lambda x: x.clamp(), ValueError, "bound"),
    "norm": (lambda x: x.norm(3), TypeError, "norms 1, 2 and inf"),
    "power": (lambda x: x**1.3, TypeError, "integers and halves"),
    "secret power": (lambda x: x**x, TypeError, "integers and halves"),
    "number to a secret power": (lambda x: torch.pow(2, x), TypeError, "integers and halves"),
    "by zero": (lambda x: x / 0, ZeroDivisionError, "by 0"),
    "by zeros": (lambda x: x / torch.zeros(3), ZeroDivisionError, "by 0"),
    "rounding": (lambda x: torch.div(x, 2, rounding_mode="floor"), TypeError, "rounds"),
    "whole division": (lambda x: x // 2, NotImplementedError, "no __floordiv__"),
    "remainder": (lambda x: x % 2, NotImplementedError, "no __mod__"),
    "bits": (lambda x: ~(x > 0), NotImplementedError, "no __invert__"),
    "dtype": (lambda x: x.sum(dtype=torch.float32), NotImplementedError, "sum with dtype"),
    "no such argument": (lambda x: x.sum(0, False, 3, 4), TypeError, "sum"),
    "text": (lambda x: x + "1", TypeError, "not a str"),
    "nothing": (lambda x: x * None, TypeError, "not a NoneType"),
    "dilation": (
        lambda x: F.conv2d(x.view(1, 1, 2, 3), x[None, None, :1, :1], dilation=2),
        NotImplementedError,
        "dilation",
    ),
    "groups": (
        lambda x: F.conv2d(x.view(1, 1, 2, 3), x[None, None, :1, :1], groups=2),
        NotImplementedError,
        "groups",
    ),
    "kernels": (lambda x: F.conv2d(x, x), ValueError, "kernels"),
    "large kernels": (
        lambda x: F.conv2d(x.view(1, 1, 2, 3), x.view(1, 1, 3, 2)),
        ValueError,
        "of size",
    ),
    "ceil": (lambda x: F.max_pool2d(x[None], 2, ceil_mode=True), NotImplementedError, "ceil_mode"),
    "where it was": (
        lambda x: F.max_pool2d(x[None], 2, return_indices=True),
        NotImplementedError,
        "return_indices",
    ),
    "equal parts": (lambda x: F.adaptive_avg_pool2d(x[None], 2), NotImplementedError, "parts"),
    "dropout": (lambda x: F.dropout(x, 1.5), ValueError, "probability"),
    "class weights": (
        lambda x: F.nll_loss(x, torch.tensor([0, 1]), weight=torch.ones(3)),
        NotImplementedError,
        "weight",
    ),
    "ignored class": (
        lambda x: F.nll_loss(x, torch.tensor([0, 1]), ignore_index=0),
        NotImplementedError,
        "ignore_index",
    ),
    "reduction": (lambda x: F.mse_loss(x, X, reduction="max"), ValueError, "reduction"),
    "images of classes": (
        lambda x: F.nll_loss(x[None], torch.zeros(1, 3).long()),
        NotImplementedError,
        "nll_loss of shape",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments(parties, name):
    call, error, match = WRONG[name]
    x = secret(X, parties)

    def reveal():
        revealed([call(x)], 3)

    refused(reveal, error, match)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e17, 10**16, 2.0**60])
@pytest.mark.parametrize(
    "operation",
    [
        lambda x, number: x + number,
        lambda x, number: number - x,
        lambda x, number: x > number,
        lambda x, number: x + torch.tensor([number, 0.0, 0.0], dtype=torch.float64),
        lambda x, number: torch.where(x > 0, x, number),
        lambda x, number: torch.cat([x, torch.full((1, 3), number, dtype=torch.float64)]),
    ],
)
def test_numbers_beyond_the_ring(parties, operation, number):
    x = secret(X, parties)
    words = "not finite|too large"
    refused(lambda: revealed([operation(x, number)], 3), OverflowError, words)


def test_values_beyond_the_ring_are_not_shared(parties):
    for value in (math.nan, math.inf, 1e17):
        plain = torch.tensor([1.0, value], dtype=torch.float64)
        refused(lambda plain=plain: secret(plain, parties), OverflowError, "too large")


def test_digits_are_not_mixed(parties):
    x, y = secret(X, parties, digits=3), secret(X, parties, digits=4)
    public = X.fix_precision(precision_fractional=4)
    for call in (
        *(
            lambda: x + y,
            lambda: x * y,
            lambda: x > y,
            lambda: x @ y.t(),
            lambda: torch.cat([x, y]),
        ),
        *(lambda: F.linear(x, y), lambda: torch.where(x > 0, x, y), lambda: torch.maximum(x, y)),
        *(lambda: x + public, lambda: public * x),
    ):
        refused(call, ValueError, "cannot be mixed")


def test_parties_are_not_mixed(parties):
    x, y = secret(X, parties), secret(X, parties.of(3))
    for call in (lambda: x + y, lambda: x @ y.t(), lambda: torch.stack([x, y]), lambda: x > y):
        refused(call, ValueError, "different parties")


def test_protocols_are_not_mixed(parties):
    x = secret(X, parties)
    others = {"crypto_provider": parties.crypto_provider, "protocol": "snn"}
    y = X.fix_precision().share(*parties.workers, **others)
    for call in (lambda: x + y, lambda: y + x, lambda: x @ y.t(), lambda: torch.cat([x, y])):
        refused(call, TypeError, "another protocol cannot be mixed")


def test_gradients(parties):
    x = secret(X, parties, requires_grad=True)
    refused(lambda: (x > 0).sum().backward(), RuntimeError, "not made of any")
    refused(lambda: secret(X, parties).sum().backward(), RuntimeError, "not made of any")
    refused(lambda: x.sum().backward(create_graph=True), NotImplementedError, "gradients of grad")
    refused(lambda: (x * 2).backward(torch.ones(4)), ValueError, "a gradient of shape")
    refused(lambda: x.register_hook(print), NotImplementedError, "no register_hook")


def test_leaves_in_place(parties):
    x = secret(X, parties, requires_grad=True)
    for call in (lambda: x.add_(1), lambda: x.__setitem__(0, 1), lambda: x.neg_()):
        refused(call, RuntimeError, "a leaf that requires a gradient")
    refused(lambda: (x * 1).t_(), ValueError, "in place of one of")
    with torch.no_grad():
        x.add_(1)
        x[0] = 0
    expected = X + 1
    expected[0] = 0
    assert torch.equal(*revealed([x], 3), expected)
