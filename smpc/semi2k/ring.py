"""Arrays over the ring Z_2^64: numpy's uint64, whose +, -, * wrap, and a fast matrix product."""

import numpy as np

BITS = 64
# A matrix product of uint64 has no BLAS. Each operand is cut into three limbs of 22, 22 and 20
# bits, the lower two balanced around 0; products of limbs are exact in float64 as long as a sum of
# 2 * CHUNK of them, each at most 2^42, stays within 2^53.
_LIMB = 22
_CHUNK = 1024
_HALF = 1 << (_LIMB - 1)
_MASK = np.uint64((1 << _LIMB) - 1)


def signed(x):
    """The representatives in [-2^63, 2^63), as an int64 view of the same memory."""
    return x.view(np.int64)


def encode(values):
    """Python or numpy integers of any sign as ring elements: a uint64 array of the same shape."""
    return np.asarray(values, dtype=np.int64).view(np.uint64)


def matmul(x, y):
    """x @ y mod 2^64, for the shapes that numpy's matmul takes.

    Args:
        x, y: uint64, (..., m, k) and (..., k, n), or one-dimensional as in numpy.
    Returns:
        uint64, exact.
    """
    if x.ndim == 0 or y.ndim == 0:
        raise ValueError("matmul takes tensors of at least one dimension")
    if y.ndim == 1:
        return matmul(x, y[:, None])[..., 0]
    if x.ndim == 1:
        return matmul(x[None, :], y)[..., 0, :]
    k = x.shape[-1]
    if k <= _CHUNK:
        return _matmul_chunk(x, y)
    return sum(
        _matmul_chunk(x[..., start : start + _CHUNK], y[..., start : start + _CHUNK, :])
        for start in range(0, k, _CHUNK)
    )


def _matmul_chunk(x, y):
    # [x0 x1 x2] beside [y2; y1; y0]: slices of the two are the sums of limb products that share a
    # weight of 1, 2^22 and 2^44. Those of 2^66 and above vanish.
    k = x.shape[-1]
    xs = np.concatenate(_limbs(x), axis=-1)
    ys = np.concatenate(_limbs(y)[::-1], axis=-2)
    low = _as_ring(xs[..., :k] @ ys[..., 2 * k :, :])
    middle = _as_ring(xs[..., : 2 * k] @ ys[..., k:, :])
    high = _as_ring(xs @ ys)
    return low + (middle << np.uint64(_LIMB)) + (high << np.uint64(2 * _LIMB))


def _limbs(x):
    """x = l0 + l1 2^22 + l2 2^44 mod 2^64, with |l0|, |l1| <= 2^21 and 0 <= l2 < 2^20, float64."""
    shifted = x + np.uint64(_HALF + (_HALF << _LIMB))
    low = signed(shifted & _MASK) - _HALF
    middle = signed((shifted >> np.uint64(_LIMB)) & _MASK) - _HALF
    high = signed(shifted >> np.uint64(2 * _LIMB))
    return [limb.astype(np.float64) for limb in (low, middle, high)]


def _as_ring(exact):
    return exact.astype(np.int64).view(np.uint64)
