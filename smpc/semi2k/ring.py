"""Arrays over the ring Z_2^64: numpy's uint64, whose +, -, * wrap, and a fast matrix product."""

import functools
import itertools

import numpy as np
import torch
from numpy.typing import NDArray

# Elements of the ring, or 64 bits each; of shape () also numpy's scalars, which it makes of them.
Words = NDArray[np.uint64]

# Processors with AVX-512 multiply 64-bit integers eight at a time, and torch's own integer product
# makes use of it. On others that is some ten times slower than a detour through floats, for which
# there is a BLAS: each operand of a matrix product is cut into three limbs,
# x = x0 + x1 2^22 + x2 2^44, with x0 and x1 in [-2^21, 2^21) and x2 in [0, 2^20), and products of
# limbs are computed in float64. They are exact as long as no sum exceeds 2^53: the largest is of
# (x0 + x1) (y0 + y1), below 2^44 each.
_HAS_AVX512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
_MOST_TERMS = 512
_FEW = 1 << 16  # so few multiplications are done sooner than cutting the operands
_LIMB, _TWO_LIMBS = np.uint64(22), np.uint64(44)
_MASK = np.uint64((1 << 22) - 1)
_BALANCE = np.uint64((1 << 21) + (1 << 43))
# An integer n below 2^52, ORed to the bits of the float 2^52, is the float 2^52 + n.
_FLOAT_2_52 = np.uint64(0x433 << 52)


def signed(x: Words, bits: int = 64) -> NDArray[np.int64]:
    """The elements x of Z_2^bits, read in two's complement."""
    x = x.view(np.int64)
    return x if bits == 64 else x << 64 - bits >> 64 - bits


def mul(*pairs: tuple[Words, Words]) -> Words:
    """The sum of x * y over pairs (x, y), broadcast."""
    (x, y), *rest = pairs
    return sum((x * y for x, y in rest), start=x * y)


def matmul(*pairs: tuple[Words, Words]) -> Words:
    """The sum of x @ y mod 2^64, exact, over pairs (x, y) of the shapes that numpy's matmul takes:
    (..., m, k) and (..., k, n), or one-dimensional."""
    (x, y), *_ = pairs
    if y.ndim == 1:
        return matmul(*((x, y[:, None]) for x, y in pairs))[..., 0]
    if x.ndim == 1:
        return matmul(*((x[None, :], y) for x, y in pairs))[..., 0, :]
    if x.shape[-2] * x.shape[-1] * y.shape[-1] <= _FEW:
        return sum((np.matmul(x, y) for x, y in pairs[1:]), start=np.matmul(x, y))
    if _HAS_AVX512:
        return functools.reduce(np.add, map(_matmul_of_integers, pairs))
    return _matmul_of_floats(pairs)


def _matmul_of_integers(pair):
    # torch warns of read-only arrays, as those received in a message are
    writable = (np.require(operand, requirements="W").view(np.int64) for operand in pair)
    x, y = map(torch.from_numpy, writable)
    return torch.ops.aten.matmul(x, y).numpy().view(np.uint64)  # torch.matmul, not hooked by syft


def _matmul_of_floats(pairs):
    (x, y), *_ = pairs
    # [x a] @ [y; b] = x @ y + a @ b, which pays where both fit into one chunk
    if len(pairs) * x.shape[-1] <= _MOST_TERMS and x.ndim == y.ndim == 2:
        x = np.concatenate([x for x, _ in pairs], axis=1)
        y = np.concatenate([y for _, y in pairs])
        pairs = [(x, y)]
    products = []
    for x, y in pairs:
        k = x.shape[-1]
        n_chunks = max(1, -(-k // _MOST_TERMS))
        ends = [k * i // n_chunks for i in range(n_chunks + 1)]
        products += [
            _matmul_chunk(x[..., start:end], y[..., start:end, :])
            for start, end in itertools.pairwise(ends)
        ]
    return sum(products[1:], start=products[0])


def _matmul_chunk(x, y):
    # Karatsuba's trick gives the middle term x0 y1 + x1 y0 of one product more; what has weight
    # 2^66 and above vanishes. No sum or difference here exceeds 2^53 either.
    x0, x1, x2 = _limbs(x)
    y0, y1, y2 = _limbs(y)
    low, high = x0 @ y0, x1 @ y1
    x1 += x0
    y1 += y0
    middle = x1 @ y1
    middle -= low
    middle -= high
    high += x0 @ y2
    high += x2 @ y0
    low, middle, high = map(_ring, (low, middle, high))
    middle <<= _LIMB
    high <<= _TWO_LIMBS
    low += middle
    low += high
    return low


def _limbs(x):
    """The three limbs of x, as float64 arrays of its shape."""
    shifted = x + _BALANCE
    limbs = []
    for _ in range(2):
        limb = ((shifted & _MASK) | _FLOAT_2_52).view(np.float64)
        limb -= 2.0**52 + 2.0**21
        limbs.append(limb)
        shifted >>= _LIMB
    limb = (shifted | _FLOAT_2_52).view(np.float64)
    limb -= 2.0**52
    return *limbs, limb


def _ring(exact):
    """Integers held in float64, as ring elements in the same memory."""
    bits = exact.view(np.int64)
    np.copyto(bits, exact, casting="unsafe")
    return bits.view(np.uint64)
