"""How a program holds a value: its form, its register, and the scale of the integers in it."""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np


class Value(NamedTuple):
    """A node's value as a program holds it.

    Attributes:
        form: "share", "partial", "masked" or "bit".
        register: where.
        scale: the integers in it are the value times this.
        bound: the integers are within it, if all truncations' promises are kept; None: unknown.
        hidden: of a masked value, whether the workers can have no shares of its mask.
    """

    form: str
    register: int
    scale: Fraction
    bound: int | None = None
    hidden: bool = False

    @property
    def bits(self) -> int:
        """Of a comparison with zero."""
        return 64 if self.bound is None else min(64, max(2, self.bound.bit_length() + 1))


def common_scale(*scales: Fraction) -> Fraction:
    """The least scale that is a multiple of each."""
    numerator = math.lcm(*(Fraction(scale).numerator for scale in scales))
    return Fraction(numerator, math.gcd(*(Fraction(scale).denominator for scale in scales)))


def raw_array(values: np.ndarray, times: Fraction | int) -> tuple[tuple[int, ...], bytes]:
    """A public int64 array times a public number, on the ring, rounded if need be: its shape and
    its raw words; of one number in every element that word alone.

    Raises:
        OverflowError: an element is beyond the ring.
    """
    shape = values.shape
    if values.size and not any(values.strides):
        values = values.flat[:1]
    if (times := Fraction(times)).denominator == 1:
        values = values.astype(object) * int(times)
    else:
        values = np.array([round(int(value) * times) for value in values.flat], dtype=object)
    if values.size and max(abs(values.max()), abs(values.min())) >= 2**63:
        raise OverflowError("a public number is too large for the ring, use fewer digits")
    return shape, values.astype(np.int64).tobytes()
