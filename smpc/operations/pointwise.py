"""Element by element: sums, products, comparisons and what is chosen by them.

A comparison is exact at every value that fits the ring: its result is 1 or 0, in the precision of
what is compared, and has no gradient. It takes four rounds and, of 41 bits, sends some 13 bytes
and has 52 dealt for an element; a product sends 8 for each factor that is not yet masked. Sums, and
products with what is public, are computed by each worker alone.

Range: sums, comparisons and choices are exact where their parts and results are within ±2^63 units.
A product is off by less than a unit within ±1,099,000 at 3 digits, ±110 at 5, ±46,000 at 7. Further
out, at d digits, a product z is wrong with a probability of |z| 10^2d / 2^64, and a comparison
of it for certain: see docs/protocol.md. After Beaver 1991 (products), Escudero et al.
2020/338 (rounding), Damgård et al. 2019/599 (comparisons).
"""

import numbers

import torch

from smpc.operations import number
from smpc.operations.functions import reciprocal, rsqrt, sqrt
from smpc.operations.number import Number, fraction
from smpc.operations.registry import operand, operation


@operation("__add__", "__radd__", "__iadd__")
def add(x, other, *, alpha=1):
    """x + alpha other."""
    return number.add(x, _times(operand(x, other), alpha))


@operation("__sub__", "__isub__", "subtract")
def sub(x, other, *, alpha=1):
    """x - alpha other."""
    return number.subtract(x, _times(operand(x, other), alpha))


@operation("__rsub__")
def rsub(x, other, *, alpha=1):
    """other - alpha x."""
    return number.subtract(operand(x, other), _times(x, alpha))


def _times(x, factor):
    return x if factor == 1 else mul(x, factor)


@operation("__mul__", "__rmul__", "__imul__", "multiply")
def mul(x, other):
    """x other; of a public number, in seven digits, nothing is rounded before it must be; a public
    tensor is taken in the precision of x."""
    if is_number(other):
        return number.scale(x, other)
    return number.multiply(x, operand(x, other))


def is_number(value):
    """Whether this is one public number."""
    return isinstance(value, numbers.Real) or (isinstance(value, torch.Tensor) and value.dim() == 0)


@operation("__neg__", "negative")
def neg(x):
    """-x."""
    return number.scale(x, -1)


@operation("__pos__")
def positive(x):
    """x."""
    return x


@operation()
def square(x):
    """x x."""
    return number.multiply(x, x)


@operation("__gt__", "greater")
def gt(x, other):
    """1 where x > other, else 0."""
    return number.is_positive(number.subtract(x, operand(x, other)))


@operation("__lt__", "less")
def lt(x, other):
    """1 where x < other, else 0."""
    return number.is_positive(number.subtract(operand(x, other), x))


@operation("__ge__", "greater_equal")
def ge(x, other):
    """1 where x >= other, else 0."""
    return rsub(lt(x, other), 1)


@operation("__le__", "less_equal")
def le(x, other):
    """1 where x <= other, else 0."""
    return rsub(gt(x, other), 1)


@operation("__ne__", "not_equal")
def ne(x, other):
    """1 where x differs from other, else 0."""
    return add(gt(x, other), lt(x, other))


@operation("__eq__")
def eq(x, other):
    """1 where x equals other, else 0."""
    return rsub(ne(x, other), 1)


@operation()
def sign(x):
    """1, 0 or -1."""
    return sub(gt(x, 0), lt(x, 0))


@operation()
def relu(x, inplace=False):
    """x where it is above 0, else 0; `inplace` is only advice."""
    return number.multiply(gt(x, 0), x)


@operation()
def leaky_relu(x, negative_slope=0.01, inplace=False):
    """x where it is above 0, else x times a public slope."""
    positive = relu(x)
    return add(positive, mul(sub(x, positive), negative_slope))


@operation("__abs__", "absolute")
def abs(x):
    """x or -x, whichever is not below 0; the gradient at 0 is 0."""
    above = number.multiply(gt(x, 0), x.detached())  # (a choice, exact at any value)
    magnitude = sub(mul(above, 2), x.detached())
    return magnitude.by((x, lambda grad: number.multiply(sign(x), grad)))


@operation()
def where(condition, x, y):
    """x where a condition holds, else y.

    Args:
        condition: a comparison's result, or any other Number of 0 and 1; or a public mask.
    """
    if not isinstance(condition, Number):
        secret = x if isinstance(x, Number) else y
        condition = secret.public(torch.as_tensor(condition).bool().numpy())
    x, y = operand(condition, x), operand(condition, y)
    return number.add(y, number.multiply(condition, number.subtract(x, y)))


@operation()
def masked_fill(x, mask, value):
    """x with a public number where a public or a secret mask is 1."""
    return where(mask, operand(x, value), x)


@operation()
def maximum(x, other):
    """The larger of x and other; each has half the gradient where they are equal."""
    return _larger(x, operand(x, other), 1)


@operation()
def minimum(x, other):
    """The smaller of x and other; each has half the gradient where they are equal."""
    return _larger(x, operand(x, other), -1)


def _larger(x, y, sign_):
    larger = where(gt(mul(x, sign_), mul(y, sign_)), x.detached(), y.detached())

    def part(of, other):
        def rule(grad):
            share = div(add(mul(sign(sub(of, other)), sign_), 1), 2)
            return number.shrunk(number.multiply(share, grad), of.shape)

        return of, rule

    return larger.by(part(x, y), part(y, x))


@operation("clip")
def clamp(x, min=None, max=None):
    """x within bounds, each of which is a public number, a tensor, public or secret, or None; at a
    number it has no gradient, at an element of a tensor half of it, as torch has it."""
    if min is None and max is None:
        raise ValueError("clamp needs a bound: min, max or both")
    if isinstance(min, numbers.Real) and isinstance(max, numbers.Real):
        return _between(x, min, max)
    if isinstance(min, numbers.Real):
        x = where(gt(x, min), x, min)
    elif min is not None:
        x = maximum(x, min)
    if isinstance(max, numbers.Real):
        return where(lt(x, max), x, max)
    return x if max is None else minimum(x, max)


def _between(x, low, high):
    """Both comparisons at once."""
    if low > high:
        return x.full(high, x.shape)
    above = number.multiply(gt(x, low), sub(x, low))
    below = number.multiply(lt(x, high), sub(x, high))
    return add(number.subtract(number.add(above, below), x), fraction(low) + fraction(high))


@operation()
def clamp_min(x, min):
    """x, or `min` where it is less."""
    return clamp(x, min=min)


@operation()
def clamp_max(x, max):
    """x, or `max` where it is more."""
    return clamp(x, max=max)


@operation()
def hardtanh(x, min_val=-1.0, max_val=1.0, inplace=False):
    """x within public bounds; at a bound it has no gradient."""
    return clamp(x, min_val, max_val)


@operation()
def relu6(x, inplace=False):
    """x within 0 and 6."""
    return hardtanh(x, 0, 6)


@operation("__pow__")
def pow(x, exponent):
    """x to a public integer power, by squaring; to a negative one, or a half, by `reciprocal` and
    `sqrt`.

    Range: of every power up to it, that of a product. Error: a unit of each product, times what it
    is multiplied by afterwards.
    """
    halves = {0.5: sqrt, -0.5: rsqrt}
    if not is_number(exponent) or (exponent not in halves and exponent != int(exponent)):
        raise TypeError(f"semi2k raises to public integers and halves of one, not {exponent!r}")
    if exponent in halves:
        return halves[exponent](x)
    if exponent < 0:
        return pow(reciprocal(x), -exponent)
    if exponent == 0:
        return x.full(1, x.shape)
    if exponent == 1:
        return x
    squared = pow(x, int(exponent) // 2)
    squared = number.multiply(squared, squared)
    return number.multiply(squared, x) if exponent % 2 else squared


@operation("__truediv__", "__itruediv__", "divide", "true_divide")
def div(x, other, *, rounding_mode=None):
    """x / other; of a public number exactly, of others as x times `functions.reciprocal`.

    Range: of what it is divided by, that of `reciprocal`. Error: a unit, and |x| times that of
    `reciprocal` with six digits.
    """
    if rounding_mode is not None:
        raise TypeError("semi2k has no division that rounds to integers")
    if is_number(other):
        if other == 0:
            raise ZeroDivisionError("division of a semi2k tensor by 0")
        return number.scale(x, 1 / number.ratio(other))
    if isinstance(other, Number):
        with x.finer():
            inverse = reciprocal(operand(x, other))
        return number.multiply(x, inverse)
    if (other == 0).any():
        raise ZeroDivisionError("division of a semi2k tensor by 0")
    inverse = 1 / torch.as_tensor(other, dtype=torch.float64).numpy()
    return number.multiply(x, x.public(inverse, finer=10**number.GUARD_DIGITS))


@operation("__rtruediv__")
def rdiv(x, other):
    """other / x.

    Range: that of `reciprocal`. Error: a unit, and |other| times 1.4e-6 |1 / x|.
    """
    return mul(reciprocal(x), other)
