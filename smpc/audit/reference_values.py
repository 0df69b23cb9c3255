"""What the workers of semi2k hold, for `reference`, and what each makes of its part with the others
silent: everything linear, products, what a bit selects.

A list of shares has one for each worker; the first adds what is public.
"""

from functools import reduce
from typing import NamedTuple

import numpy as np


class Wrong(Exception):
    """This is not semi2k; the message says why, in a line."""


class Held(NamedTuple):
    """What all workers hold of a value.

    Attributes:
        form: "share" (or partial), "masked" or "bit".
        parts: of each worker: its share, or of what is masked its share of the mask; None: none.
        delta: public to the workers, of what is masked, and of a bit.
    """

    form: str
    parts: list | None
    delta: np.ndarray | None = None


class Words(NamedTuple):
    """What all workers want opened: `shares` of each; `secret`, what it is but for the mask."""

    shares: list
    secret: np.ndarray


class Bits(NamedTuple):
    """The same, of bits in planes."""

    shares: list
    secret: np.ndarray


def total(shares, boolean=False):
    """What shares make together."""
    return reduce(np.bitwise_xor if boolean else np.add, shares)


def plus(x, y, boolean=False, sign=1):
    """x + sign y, or of bits their XOR."""
    return x ^ y if boolean else (x + y if sign == 1 else x - y)


def _index(x, spec):
    made = {"slice": slice, "list": lambda *i: np.array(i, np.int64)}
    plain = {"...": Ellipsis}
    parts = (made[p[0]](*p[1:]) if isinstance(p, tuple) else plain.get(p, p) for p in spec)
    return x[tuple(parts)]


def _place(x, shape, spec):
    places = _index(np.arange(np.prod(shape, dtype=int)).reshape(shape), spec)
    flat = np.zeros(np.prod(shape, dtype=int), x.dtype)
    flat[places.ravel()] = x.ravel()
    return flat.reshape(shape)


def _scatter(x, shape, spec):
    places = _index(np.arange(np.prod(shape, dtype=int)).reshape(shape), spec)
    flat = np.zeros(np.prod(shape, dtype=int), x.dtype)
    for place, element in zip(places.ravel(), x.ravel(), strict=True):
        flat[place] += element
    return flat.reshape(shape)


def _windows(shape, size, strides):
    """Where, in an array (H, W), the elements of each window are: (rows, columns, *size)."""
    rows, columns = (range(0, n - k + 1, s) for n, k, s in zip(shape, size, strides, strict=True))
    height, width = map(range, size)
    return np.array(
        [[[[(r + i) * shape[1] + c + j for j in width] for i in height] for c in columns]
         for r in rows]
    )  # fmt: skip


def _unfold(x, size, strides):
    return x.reshape(*x.shape[:-2], -1)[..., _windows(x.shape[-2:], size, strides)]


def _fold(x, shape, strides):
    out = np.zeros((*x.shape[:-4], shape[0] * shape[1]), x.dtype)
    places = _windows(shape, x.shape[-2:], strides)
    for where in np.ndindex(*places.shape):
        out[..., places[where]] += x[(..., *where)]
    return out.reshape(*x.shape[:-4], *shape)


MOVES = {
    "reshape": np.reshape,
    "permute": np.transpose,
    "expand": np.broadcast_to,
    "index": _index,
    "place": _place,
    "unfold": _unfold,
}
LINEAR = {
    "scatter": _scatter,
    "fold": _fold,
    "add": np.add,
    "sub": np.subtract,
    "scale": lambda x, k: np.uint64(k) * x,
    "sum": lambda x, axes, keepdims: np.sum(x, axis=axes, keepdims=keepdims, dtype=np.uint64),
    "cat": lambda *args: np.concatenate(args[:-1], args[-1]),
    "mul_public": np.multiply,
    "matmul_public": lambda x, k, left: k @ x if left else x @ k,
    **MOVES,
}
TIMES = {"mul": np.multiply, "matmul": np.matmul}


def linear(op, xs, params):
    """Each worker's part of something linear."""
    if xs[0].form == "share":
        return Held("share", _each(op, xs, params))
    if xs[0].form == "bit" and op not in MOVES:
        raise Wrong(f"{op} of a bit")
    delta = LINEAR[op](*(x.delta for x in xs), *params)
    if any(x.parts is None for x in xs):
        return Held("masked", None, delta)
    return Held(xs[0].form, _each(op, xs, params), delta)


def _each(op, xs, params):
    parts = (x.parts for x in xs)
    return [LINEAR[op](*of_one, *params) for of_one in zip(*parts, strict=True)]


def first(x, n):
    """What is public, as shares: the first worker has it."""
    return [x, *[np.zeros_like(x)] * (n - 1)]


def sums(one, other):
    return [x + y for x, y in zip(one, other, strict=True)]


def add_public(x, value):
    if x.form != "share":
        delta = x.delta + value
        zeros = np.zeros_like(delta)
        return Held(x.form, x.parts and [part + zeros for part in x.parts], delta)
    return Held("share", sums(x.parts, first(value, len(x.parts))))


def _signed(x):
    """Of a bit or a masked value, each worker's share of what is not public."""
    sign = np.uint64(1) if x.form == "masked" else np.uint64(1) - np.uint64(2) * x.delta
    return [sign * part for part in x.parts]


def unmasked(x):
    """Each worker's additive share of a value, however it is held."""
    if x.form == "share":
        return x.parts
    return sums(_signed(x), first(x.delta, len(x.parts)))


def product(x, y, times):
    """Shares of x y less the product of their masks."""
    shares = [times(x.delta, b) + times(a, y.delta) for a, b in zip(x.parts, y.parts, strict=True)]
    shares[0] = shares[0] + times(x.delta, y.delta)
    return shares


def select(x, y, c):
    """Shares of x y, for a bit x; c: of the product of the masks."""
    a, b = _signed(x), _signed(y)
    sign = np.uint64(1) - np.uint64(2) * x.delta
    if y.form == "bit":
        sign = sign * (np.uint64(1) - np.uint64(2) * y.delta)
    shares = [x.delta * q + p * y.delta + sign * k for p, q, k in zip(a, b, c, strict=True)]
    shares[0] = shares[0] + x.delta * y.delta
    return shares
