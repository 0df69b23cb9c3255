"""Which function computes what torch calls by a name, and what may stand beside a secret number."""

import numbers
from collections.abc import Callable

import torch

from smpc.operations.number import Number

# By the name that torch has for it: of its function, its method, its operator.
OPERATIONS: dict[str, Callable] = {}


def operation(*names: str) -> Callable[[Callable], Callable]:
    """Register a function for its own name and for these, `__add__` being `+`. It takes what torch
    takes, Numbers in place of secret tensors."""

    def register(function):
        for name in (function.__name__, *names):
            if name in OPERATIONS:
                raise RuntimeError(f"two operations are called {name}")
            OPERATIONS[name] = function
        return function

    return register


def operand(x: Number, other: Number | float | torch.Tensor) -> Number:
    """What stands beside a Number, as one of its precision.

    Raises:
        ValueError: it is shared between other parties, or has other digits.
        TypeError: it is no number.
        OverflowError: it is too large.
    """
    if isinstance(other, Number):
        if other.graph is not x.graph:
            raise ValueError("these two tensors are shared between different parties")
        if other.one != x.one:
            raise ValueError(
                f"a precision of {digits(other)} digits and one of {digits(x)} cannot be mixed"
            )
        return other
    if isinstance(other, numbers.Real):
        return x.full(other)
    if isinstance(other, torch.Tensor):
        other = other.detach()
        return x.full(other.item()) if other.dim() == 0 else x.public(other.numpy())
    raise TypeError(f"semi2k computes with tensors and numbers, not a {type(other).__name__}")


def digits(x: Number) -> int:
    """Of fixed precision, that it has."""
    return len(str(x.one)) - 1


def axis_of(x: Number, dim: int) -> int:
    """A dimension as torch counts it, from the first.

    Raises:
        IndexError: there is none.
    """
    if not -max(x.dim, 1) <= dim < max(x.dim, 1):
        raise IndexError(f"there is no dimension {dim} in a tensor of {x.dim}")
    return dim % max(x.dim, 1)


def axes_of(x: Number, dim: int | tuple[int, ...] | list[int] | None) -> tuple[int, ...]:
    """A dimension or several as axes, counted from the first; None, or no dimension, is all."""
    if dim is None or (isinstance(dim, (tuple, list)) and not dim):
        return tuple(range(x.dim))
    dims = dim if isinstance(dim, (tuple, list)) else (dim,)
    axes = tuple(axis_of(x, d) for d in dims) if x.dim else ()
    if len(set(axes)) < len(axes):
        raise ValueError(f"a dimension stands in {dim} twice")
    return axes
