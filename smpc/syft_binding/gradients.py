"""Backward passes over semi2k tensors: they keep six digits, and pass by syft's layers.

syft makes a gradient of a dozen tensors at every node, each of three layers and with a graph of its
own. What `RULES` has is computed on the semi2k tensors themselves, in the same integers; all else
as syft does it.
"""

import syft
from syft.frameworks.torch.tensors.interpreters import gradients
from syft.frameworks.torch.tensors.interpreters.gradients_core import Accumulate

from smpc.semi2k.tensor import Semi2kTensor, semi2k_tensor_in

AutogradTensor, FixedPrecisionTensor = syft.AutogradTensor, syft.FixedPrecisionTensor
GRADIENT_DIGITS = 6  # of fixed precision, that a backward pass keeps at least


def install():
    """Make the changes."""
    give_reshape_its_gradient()
    keep_digits_of_gradients()


def give_reshape_its_gradient():
    """syft's ReshapeBackward never notes the tensor whose shape it goes back to."""

    class ReshapeBackward(gradients.ReshapeBackward):
        def __init__(self, self_, *dims):
            super().__init__(self_, *dims)
            self.self_ = self_

    gradients.ReshapeBackward = ReshapeBackward


def keep_digits_of_gradients():
    """Fixed precision rounds every gradient on the way back to its own unit, and gradients are
    small: with 3 digits that, and not the noise of the batches, decides where an epoch ends. What a
    backward pass makes keeps at least `GRADIENT_DIGITS`, wherever it must be rounded."""
    native_backward = AutogradTensor.backward

    def backward(self, grad=None):
        tensor = semi2k_tensor_in(self)
        if tensor is None or grad is not None or self.grad_fn is None:
            return native_backward(self, grad)
        number = self.child
        graph = tensor.session.graph
        graph.resolution = number.base ** max(0, GRADIENT_DIGITS - number.precision_fractional)
        try:
            ones = tensor.zero() + number.base**number.precision_fractional
            Backward(number).walk(self.grad_fn, ones)
        finally:
            graph.resolution = 1

    AutogradTensor.backward = backward


class Backward:
    """One backward pass.

    Args:
        number: the FixedPrecisionTensor that it starts from.
    Attributes:
        one: what 1 is in its integers.
    """

    def __init__(self, number):
        self.number, self.one = number, number.base**number.precision_fractional

    def walk(self, function, grad):
        """Go back from a node of syft's graph, `grad` being the Semi2kTensor that comes to it."""
        if isinstance(function, Accumulate):
            self._accumulate(function.tensor, grad)
            return
        for following, part in zip(
            function.next_functions, self._gradients(function, grad), strict=False
        ):
            self.walk(following, part)

    def _accumulate(self, leaf, grad):
        if leaf.grad is not None:
            leaf.grad.add_(self._wrapped(grad))
        else:
            leaf.grad = self._wrapped(grad)

    def _wrapped(self, tensor):
        wrapped = FixedPrecisionTensor(
            owner=self.number.owner, **self.number.get_class_attributes()
        )
        wrapped.child = tensor
        return wrapped

    def _gradients(self, function, grad):
        operands = [_integers(getattr(function, name, None)) for name in ("self_", "other")]
        rule = RULES.get(type(function).__name__)
        parts = rule and rule(self.one, grad, *operands, function)
        if parts is None:
            parts = function(AutogradTensor().on(self._wrapped(grad), wrap=False))
            parts = [None if part is None else part.child.child for part in parts]
        return parts


def _integers(operand):
    """The Semi2kTensor in an AutogradTensor over a FixedPrecisionTensor; anything else is None."""
    number = getattr(operand, "child", None)
    tensor = getattr(number, "child", None)
    chain = isinstance(number, FixedPrecisionTensor) and isinstance(tensor, Semi2kTensor)
    return tensor if chain else None


def _shrunk(grad, shape):
    """The gradient of what was broadcast from `shape`."""
    extra = grad.dim() - len(shape)
    grad = grad.sum(tuple(range(extra))) if extra else grad
    stretched = tuple(i for i, n in enumerate(shape) if n == 1 != grad.shape[i])
    return grad.sum(stretched, keepdim=True) if stretched else grad


# Each takes one in fixed precision, the gradient that comes, both operands' integers, None where an
# operand is none that is shared, and syft's node; and gives the operands' gradients, or None where
# syft is to compute them.


def _add(one, grad, x, y, function, sign=1):
    if x is None or y is None:
        return None
    return _shrunk(grad, x.shape), _shrunk(grad if sign == 1 else grad.neg(), y.shape)


def _sub(one, grad, x, y, function):
    return _add(one, grad, x, y, function, -1)


def _mul(one, grad, x, y, function):
    if x is None or y is None:
        return None
    parts = (_shrunk(grad.mul(other), tensor.shape) for tensor, other in ((x, y), (y, x)))
    return [part.div(one) for part in parts]


def _matmul(one, grad, x, y, function):
    if x is None or y is None or not x.dim() == y.dim() == 2:
        return None
    return grad.matmul(y.t()).div(one), x.t().matmul(grad).div(one)


def _pow(one, grad, x, y, function):
    return None if x is None or function.power != 2 else [grad.mul(x).mul(2).div(one)]


def _sum(one, grad, x, y, function):
    return None if x is None or function.kwargs or grad.dim() else [grad.expand(*x.shape)]


def _div(one, grad, x, y, function):
    return [grad.div(function.other)] if x is not None and isinstance(function.other, int) else None


def _relu(one, grad, x, y, function):
    return None if x is None else [x.gt(0).mul(grad)]


RULES = {
    "AddBackward": _add,
    "SubBackward": _sub,
    "MulBackward": _mul,
    "MatmulBackward": _matmul,
    "PowBackward": _pow,
    "SumBackward": _sum,
    "DivBackward": _div,
    "ReluBackward": _relu,
    "TBackward": lambda one, grad, x, y, function: None if x is None else [grad.t()],
    "NegBackward": lambda one, grad, x, y, function: None if x is None else [grad.neg()],
    "ReshapeBackward": lambda one, grad, x, y, function: (
        None if x is None else [grad.view(*x.shape)]
    ),
}
