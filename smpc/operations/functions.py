"""Functions of one number, each with its gradient in closed form.

Where an element lies is found by comparing it with public thresholds, all at once: four rounds,
whatever their number. Of a masked number the bits select what is linear in it and differs from
piece to piece of the line, as a share, for nothing: each bit times what two neighbouring pieces
differ by. The sums telescope on the ring, exactly, so that beyond the last threshold nothing is
left of a power that has overflowed. There are two ways:

- `_along`: each piece has a polynomial of its own, of which masked powers are made while the
  comparisons go on. A result within 1 is there in the round after them, and nothing is rounded but
  that.
- `_normal`: what is selected brings the element to t in [-1, 1], where all pieces have one
  polynomial but for a factor, or for a term. So results over many orders of magnitude are right to
  some 10^-6 of them.

The last lines of each docstring say: the range, and what is beyond it; how far a result is at most
from the right one, y, in units of the precision that is kept, of which one is the final rounding
(10^-6 in gradients, and in what is made inside `Number.finer`); rounds, that one included, and
bytes for an element, sent by each worker to each other, and dealt, at 3 digits, of numbers that an
owner has shared. What comes out of a product has some 32 bits compared, not 64: it takes 60% of the
bytes, and a round more, in which it is rounded. tests/operations/test_functions.py measures it.
"""

import functools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.polynomial import Chebyshev, Polynomial

from smpc.operations import number
from smpc.operations.number import Number
from smpc.operations.registry import operation

EXACT = 10**36  # steps that nothing here is finer than: not to be rounded
MOST_DIGITS = 6


def _steps(x):
    """In the number 1, that what is made here is kept at."""
    return min(int(x.one * x.graph.resolution), 10**MOST_DIGITS)


def _steps_of(x):
    """In the number 1, that x is kept at."""
    return min(int(x.one * x.node.resolution), 10**MOST_DIGITS)


def _finer(x, steps, magnitude=0):
    """A context in which what is made keeps so many steps in the number 1; see `graph.finer`."""
    return x.graph.finer(Fraction(steps, x.one), magnitude)


def _argument(x):
    """x, rounded to its `_steps_of`, and masked.

    Raises:
        OverflowError: it has more digits than there is room for.
    """
    if x.one > 10**MOST_DIGITS:
        raise OverflowError(f"semi2k has functions of {MOST_DIGITS} digits, use fewer digits")
    with _finer(x, _steps_of(x), x.node.magnitude):
        return _opened(_kept(x))


def _opened(x):
    """Rounded to what it is kept at, and masked."""
    return x.like(x.graph.opened(x.node))


def _rounded(x, steps):
    """Rounded to so many steps in the number 1, and masked; of at most 1."""
    with _finer(x, steps):
        return _opened(x.like(x.graph.rounded(x.node, Fraction(steps, x.one))))


def _public(x, integers, scale):
    """Public integers over `scale`, a number."""
    return x.like(x.graph.scaled(x.graph.array(integers), Fraction(x.one) / scale))


def _column(x):
    """With a last axis of size 1."""
    return number.reshape(x, (*x.shape, 1))


def _stacked(numbers):
    """Along a new last axis, as they are."""
    with _finer(numbers[0], EXACT):
        return number.concatenate([_column(x) for x in numbers], numbers[0].dim)


def _part(x, i):
    """A place of the last axis."""
    return number.index(x, ("...", i))


def _kept(x, magnitude=0):
    """What is not rounded yet, kept as finely as all that is made here, and right up to a
    magnitude, or to its own; see `graph.Node`."""
    with x.graph.finer(x.graph.resolution, magnitude or x.node.magnitude):
        return x.like(x.graph.kept(x.node))


def _function(x, exact, gradient, magnitude=0):
    """A result: rounded, since what is not has so many digits that the sum of a few may leave the
    ring; a gradient is made of it as it is.

    Args:
        exact: what is not rounded yet.
        gradient: from that of the result, the result and x, to that of x.
        magnitude: that the result has at the most; 0: what `exact` says.
    """
    exact = exact.detached()
    kept = _kept(exact, magnitude)
    result = x.like(x.graph.rounded(kept.node, x.graph.resolution))
    return result.by((x, lambda grad: gradient(grad, _kept(exact, magnitude), x.detached())))


def function(compute):
    """Register an operation; of a public number it is what torch says."""

    @functools.wraps(compute)
    def of_any(x, *args, **kwargs):
        if not x.node.public:
            return compute(x, *args, **kwargs)
        units, factor = x.node.values
        plain = getattr(torch, compute.__name__, None) or getattr(F, compute.__name__)
        values = plain(torch.from_numpy(units * float(factor / x.one)), *args, **kwargs)
        return x.public(values.numpy(), 10**number.GUARD_DIGITS)

    return operation()(of_any)


# ---- Comparisons and selections ------------------------------------------------------------------


def _above(x, thresholds):
    """0 and 1, (..., m): whether x is above each of m thresholds, in order, down to a step."""
    steps = _steps_of(x)
    levels = _public(x, np.floor(thresholds * steps + 1e-9).astype(np.int64), steps)
    line = number.expand(_column(x), (*x.shape, len(thresholds)))
    return number.is_positive(number.subtract(line, levels))


def _select(bits, powers, table, scales):
    """Of each element the polynomial of its piece, exactly, as a share.

    Args:
        bits: (..., m); `powers`: (..., k), masked.
        table: of each of the m + 1 pieces the constant, and the factor of each power: integers, of
            the first only the constant.
        scales: what the constants are over, and the factors.
    """
    apart = np.diff(table, axis=0)
    with _finer(powers, EXACT):
        factors = _public(powers, np.ascontiguousarray(apart[:, 1:].T), scales[1])
        parts = number.matmul(powers, factors)
        parts = number.add(parts, _public(powers, apart[:, 0], scales[0]))
        chosen = number.total(number.multiply(bits, parts), [bits.dim - 1])
        return number.add(chosen, _public(powers, table[0, 0], scales[0]))


def _look_up(bits, table, scale):
    """Of each element the public number of its piece, to 1 / scale, as a share."""
    integers = np.array([round(float(value) * scale) for value in table])
    chosen = number.matmul(bits, _public(bits, np.diff(integers)[:, None], scale))
    chosen = number.reshape(chosen, bits.shape[:-1])
    return number.add(chosen, _public(bits, integers[0], scale))


# ---- A polynomial for each piece -----------------------------------------------------------------

DEGREE = 4
REACHES = 2, 4, 5, 8, 10, Fraction(25, 2), 16  # of which a scale in tens stays one, or almost
STRETCH = 1.45  # how many times as far a square of the square fits the ring, of 10^9 steps
# Of the powers and of their coefficients, in the number 1: as they fit the ring; and where a result
# to a thousandth is wanted, so that it is rounded with a zone, and masked for nothing.
FINE, COARSE = (10**9, 10**9), (10**7, 10**5)


class Curve(NamedTuple):
    """A function in pieces.

    Attributes:
        reach: a Fraction; `thresholds`: (m,) numbers.
        table: (m + 1, DEGREE + 1) coefficients of the powers of x / reach.
    """

    reach: Fraction
    thresholds: np.ndarray
    table: np.ndarray


def _curve(steps, function, ends, before, after, knots=()):
    """A `Curve` to a tenth of a step of a function of arrays, or 2 10^-7, in few pieces.

    Args:
        ends: numbers, below which it is the constant `before` and above which `after`; `knots`:
            between them, where the function is not smooth.
    """
    tolerance = max(0.1 / steps, 2e-7)
    reach = next(r for r in REACHES if r * STRETCH >= max(map(abs, ends)))
    thresholds, rows = [ends[0]], [[before]]
    for knot in (*knots, ends[1]):
        while thresholds[-1] < knot:
            piece = _longest(function, thresholds[-1], knot, tolerance)
            thresholds.append(piece.domain[1])
            rows.append(piece.convert(kind=Polynomial, domain=(-1, 1)).coef)
    table = np.zeros((len(rows) + 1, DEGREE + 1))
    for row, coefficients in zip(table, [*rows, [after]], strict=True):
        row[: len(coefficients)] = coefficients
    return Curve(
        Fraction(reach), np.array(thresholds), table * float(reach) ** np.arange(DEGREE + 1)
    )


def _longest(function, start, end, tolerance):
    """Of a function's polynomials from `start` the one that goes farthest."""
    while True:
        piece = Chebyshev.interpolate(function, DEGREE, (start, end))
        points = np.linspace(start, end, 200)
        if np.abs(piece(points) - function(points)).max() <= tolerance:
            return piece
        end = start + (end - start) * 0.97


def _along(x, curve):
    """The curve at x, a share, not rounded yet."""
    powers, coefficients = COARSE if _steps(x) <= 10**3 else FINE
    x = _argument(x)
    bits = _above(x, curve.thresholds)
    v = number.scale(x, 1 / curve.reach)
    square = _rounded(number.multiply(v, v), powers)
    others = number.multiply(v, square), number.multiply(square, square)
    stack = _stacked([_opened(v), square, *(_rounded(power, powers) for power in others)])
    table = np.rint(curve.table * coefficients).astype(np.int64)
    table[:, 0] = np.rint(curve.table[:, 0] * powers * coefficients)
    return _select(bits, stack, table, (powers * coefficients, coefficients))


def _times_curve(curve):
    """A gradient: times a curve at x, (steps) -> Curve."""
    return lambda grad, y, x: number.multiply(grad, _kept(_along(x, curve(_steps(x)))))


@functools.cache
def _sigmoid(steps):
    end = math.log(4 * steps)
    return _curve(steps, lambda x: 1 / (1 + np.exp(-x)), (-end, end), 0, 1)


@function
def sigmoid(x):
    """1 / (1 + e^-x).

    Range: all. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 169 sent, 606 dealt.
    Piecewise polynomials, as in MiniONN (Liu et al. 2017), of degree four.
    """

    def gradient(grad, y, x):
        return number.multiply(grad, number.multiply(y, number.subtract(y.full(1), y)))

    return _function(x, _along(x, _sigmoid(_steps(x))), gradient, 1)


@functools.cache
def _tanh(steps):
    end = math.log(8 * steps) / 2
    return _curve(steps, np.tanh, (-end, end), -1, 1)


@function
def tanh(x):
    """The hyperbolic tangent.

    Range: all. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 169 sent, 606 dealt.
    """

    def gradient(grad, y, x):
        return number.multiply(grad, number.subtract(y.full(1), number.multiply(y, y)))

    return _function(x, _along(x, _tanh(_steps(x))), gradient, 1)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _bell(x):
    """The density of the normal distribution."""
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _normal_cdf(x):
    return (1 + _erf(x / math.sqrt(2))) / 2


@functools.cache
def _erf_curve(steps):
    end = math.sqrt(math.log(4 * steps))
    return _curve(steps, _erf, (-end, end), -1, 1)


@functools.cache
def _erf_slope(steps):
    end = math.sqrt(math.log(8 * steps))
    slope = lambda x: 2 / math.sqrt(math.pi) * np.exp(-x * x)  # noqa: E731
    return _curve(steps, slope, (-end, end), 0, 0)


@function
def erf(x):
    """The error function.

    Range: all. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 169 sent, 606 dealt.
    """
    return _function(x, _along(x, _erf_curve(_steps(x))), _times_curve(_erf_slope), 1)


@functools.cache
def _exp_below(steps):
    return _curve(steps, np.exp, (-math.log(2 * steps), 0), 0, 1)


def exp_below_zero(x):
    """e^x for x that are not above 0.

    Range: x <= 0; above it is 1. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 114 sent, 364 dealt.
    """
    exact = _along(x, _exp_below(_steps(x)))
    return _function(x, exact, lambda grad, y, x: number.multiply(grad, y), 1)


# ---- Curves beside x where it is above 0 ---------------------------------------------------------


def _beside_relu(x, curve, slope):
    """max(0, x) plus a curve within 1, which has a threshold at 0.

    Args:
        curve, slope: of the rest, and of the whole's derivative: (steps) -> Curve.
    """
    curve, opened = curve(_steps(x)), _argument(x.detached())
    where = int(np.flatnonzero(curve.thresholds == 0)[0])
    rest = _along(x.detached(), curve)
    rest = x.like(x.graph.rounded(rest.node, x.graph.resolution))
    positive = number.multiply(_part(_above(opened, curve.thresholds), where), opened)
    gradient = _times_curve(slope)
    return number.add(positive, rest).by((x, lambda grad: gradient(grad, None, x.detached())))


@functools.cache
def _softplus_rest(steps):
    end = math.log(2 * steps)
    rest = lambda x: np.log1p(np.exp(-np.abs(x)))  # noqa: E731
    return _curve(steps, rest, (-end, end), 0, 0, (0,))


@function
def softplus(x, beta=1, threshold=20):
    """log(1 + e^(beta x)) / beta, a public beta; `threshold` is only advice.

    Range: all. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 297 sent, 1,132 dealt.
    """
    y = _beside_relu(number.scale(x, beta), _softplus_rest, _sigmoid)
    return number.scale(y, 1 / number.fraction(beta))


@functools.cache
def _silu_rest(steps):
    end = math.log(2 * steps) + 3
    rest = lambda x: -np.abs(x) / (1 + np.exp(np.abs(x)))  # noqa: E731
    return _curve(steps, rest, (-end, end), 0, 0, (0,))


@functools.cache
def _silu_slope(steps):
    end, s = math.log(2 * steps) + 3, lambda x: 1 / (1 + np.exp(-x))
    return _curve(steps, lambda x: s(x) * (1 + x * s(-x)), (-end, end), 0, 1)


@function
def silu(x, inplace=False):
    """x / (1 + e^-x); `inplace` is only advice.

    Range: all. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 371 sent, 1,440 dealt.
    """
    return _beside_relu(x, _silu_rest, _silu_slope)


def _gelu_cdf(x, approximate):
    """What gelu has in place of `_normal_cdf`."""
    if approximate == "none":
        return _normal_cdf(x)
    return (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


@functools.cache
def _gelu_rest(approximate, steps):
    end = math.sqrt(2 * math.log(2 * steps))
    rest = lambda x: -np.abs(x) * _gelu_cdf(-np.abs(x), approximate)  # noqa: E731
    return _curve(steps, rest, (-end, end), 0, 0, (0,))


@functools.cache
def _gelu_slope(approximate, steps):
    end = math.sqrt(2 * math.log(2 * steps)) + 1

    def slope(x):
        p = _gelu_cdf(x, approximate)
        if approximate == "none":
            return p + x * _bell(x)
        inner = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
        return p + 2 * x * p * (1 - p) * inner

    return _curve(steps, slope, (-end, end), 0, 1)


@function
def gelu(x, approximate="none"):
    """x times how much of the normal distribution lies below it, or torch's approximation "tanh"
    of that.

    Range: all. Error: 1.1 units + 7e-7. Rounds: 5; bytes: 297 sent, 1,132 dealt.
    """
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu is approximated by 'none' or 'tanh', not {approximate!r}")
    parts = (functools.partial(part, approximate) for part in (_gelu_rest, _gelu_slope))
    return _beside_relu(x, *parts)


# ---- One polynomial for all pieces ---------------------------------------------------------------

# Steps of t, so that a product of two, also a little above 1, has less than 40 bits and is rounded
# with a zone; and of the integers that t is made of. Both are whole numbers of units.
POWERS = 10**6
SCALE = POWERS * 2**19
# With which 20, as large as a logarithm is, fits the ring; what is within 1 has ten times these.
COEFFICIENTS = 1_600_000
ROOM = 2**61  # for integers
SMALL = 0.2  # a width, of which degree four is enough
MOST, MOST_STEPS = 2**20, 2**34  # of what is normalised, in numbers and in steps


class Pieces(NamedTuple):
    """Intervals, of each of which the middle is known, and t, -1 to 1, where in it an element is.

    Attributes:
        thresholds: (m,) numbers.
        table: (m + 1, 2) integers over SCALE: t is the first, plus the second times x in steps; of
            the last pieces, at either end, it is that of their inner end.
        middles: (m + 1,) numbers.
        width: of x = middle (1 + width t); or of x = middle + width t.
    """

    thresholds: np.ndarray
    table: np.ndarray
    middles: np.ndarray
    width: float


def _geometric(steps, least, most, ratio):
    """The `Pieces` from `least` to `most`, in steps, of intervals up to `ratio` times the last."""
    count = math.ceil(math.log(most / least) / math.log(ratio) - 1e-9)
    starts = least * ratio ** np.arange(count + 1)
    over = round(SCALE * (ratio + 1) / (ratio - 1))
    slopes = np.rint(SCALE * 2 / (starts[:-1] * (ratio - 1))).astype(np.int64)
    table = [(-SCALE, 0), *((-over, slope) for slope in slopes), (SCALE, 0)]
    middles = over / slopes[[0, *range(count), -1]]
    return Pieces(starts / steps, np.array(table), middles / steps, SCALE / over)


@functools.cache
def _octaves(steps, below=None):
    """Those that go from a step to 2^20, or to 2^34 steps if that is less.

    Args:
        below: "zero" where x <= 0 is to be a piece of its own, of middle 0; "negative" where there
            are as many below 0, and 0 is as one step.
    """
    pieces = _geometric(steps, 1, min(2 ** math.ceil(math.log2(MOST * steps)), MOST_STEPS), 2)
    thresholds, table, middles, width = pieces
    if below == "zero":
        ends = (0, *thresholds), (table[0], *table), (0, *middles)
    elif below == "negative":
        mirrored = table[:0:-1] * (1, -1)
        ends = (
            (*-thresholds[::-1], *thresholds), (*mirrored, *table), (*-middles[:0:-1], *middles),
        )  # fmt: skip
    else:
        return pieces
    return Pieces(*map(np.array, ends), width)


@functools.cache
def _quarters(steps, least, most):
    """Quarters of octaves, from `least` to `most`, public numbers."""
    if not 1 / steps <= least < most <= MOST:
        raise ValueError(f"a range is within {1 / steps} and {MOST}, not {least} to {most}")
    return _geometric(steps, least * steps, most * steps, 2**0.25)


class Normal(NamedTuple):
    """Where elements are.

    Attributes:
        pieces, bits: a `Pieces`, and (..., m) whether they are above each threshold.
        powers: t, its square, cube and fourth power, each masked.
    """

    pieces: Pieces
    bits: Number
    powers: tuple

    def stacked(self, n):
        """The first n powers along a last axis."""
        return _stacked(self.powers[:n])


def _normal(x, pieces):
    steps, x = _steps_of(x), _argument(x)
    bits = _above(x, pieces.thresholds)
    t = _select(bits, _column(x), pieces.table, (SCALE, Fraction(SCALE, steps)))
    t = _rounded(t, POWERS)
    with _finer(x, POWERS, 1):
        square = _opened(number.multiply(t, t))
        cube = _opened(number.multiply(t, square))
    with _finer(x, Fraction(POWERS, 8), 1):
        fourth = _opened(number.multiply(square, square))
    return Normal(pieces, bits, (t, square, cube, fourth))


def _coefficients(function, degree):
    """Of the powers of t, of a polynomial that is a function of t: a constant, and an array."""
    end = 1.02 if degree == 4 else 1.002  # thresholds are no finer than steps
    fit = Chebyshev.interpolate(function, degree, (-end, end))
    constant, *others = fit.convert(kind=Polynomial, domain=(-1, 1)).coef
    return constant, np.array(others)


def _combined(powers, coefficients, scale):
    """Linear in powers along a last axis, with coefficients over `scale`, and as they are:
    masked."""
    integers = np.rint(coefficients[:, None] * scale).astype(np.int64)
    with _finer(powers, EXACT):
        return _part(number.matmul(powers, _public(powers, integers, scale)), 0)


def _of_degree_eight(normal, function, scale):
    """A function of t: a constant, a float, and the rest, not rounded yet."""
    constant, coefficients = _coefficients(function, 8)
    powers = normal.stacked(4)
    low, high = (_combined(powers, part, scale) for part in np.split(coefficients, 2))
    with _finer(low, EXACT):
        return constant, number.add(low, number.multiply(high, normal.powers[3]))


def _of_degree_four(normal, function, scale):
    """Likewise, to be rounded a round earlier: for what varies little."""
    constant, coefficients = _coefficients(function, 4)
    powers = normal.stacked(2)
    low, high = (_combined(powers, part, scale) for part in np.split(coefficients, 2))
    t, *_ = normal.powers
    with _finer(low, Fraction(POWERS, 8), 1):
        square = _opened(number.multiply(t, t))
    with _finer(low, EXACT):
        return constant, number.add(low, number.multiply(high, square))


def _scaled_back(normal, function, factors):
    """A function of t times the `factors` (m + 1,) of the pieces, not rounded yet."""
    steps = _steps(normal.bits)
    most = np.abs(factors).max() * max(function(-1.0), function(1.0))
    finest = POWERS * COEFFICIENTS
    if normal.pieces.width < SMALL and most * finest * steps < ROOM:
        constant, coefficients = _coefficients(function, 4)
        rest = _combined(normal.stacked(4), coefficients, COEFFICIENTS)  # so there is room for it
    else:
        finest = 4 * 10**6 if steps >= 10**6 else 10**7
        constant, rest = _of_degree_eight(normal, function, 10 * COEFFICIENTS)
        rest = _rounded(rest, finest)
    over = steps * max(1, int(min(100, ROOM / most / finest / steps)))
    with _finer(rest, EXACT, math.ceil(most)):
        factor = _look_up(normal.bits, factors, over)
        return number.add(
            number.multiply(rest, factor),
            _look_up(normal.bits, factors * constant, over * finest),
        )


def _power(normal, exponent, times=1):
    """x to a power, its sign kept, and times a public number; not rounded yet."""
    middles, width = normal.pieces.middles, normal.pieces.width
    sizes = np.abs(np.where(middles == 0, 1, middles)) ** exponent
    return _scaled_back(
        normal, lambda t: (1 + width * t) ** exponent, times * sizes * np.sign(middles)
    )


def _reciprocal(x, pieces):
    def gradient(grad, y, x):
        return number.scale(number.multiply(number.multiply(grad, y), y), -1)

    return _function(x, _power(_normal(x, pieces), -1), gradient)


@function
def reciprocal(x):
    """1 / x.

    Range: one unit <= |x| <= 2^20, or 2^34 units if that is less; beyond it, of the nearer end, and
    of 0 that of one unit.
    Error: 1.3 units + 1.4e-6 |y|. Rounds: 10; bytes: 1,203 sent, 5,086 dealt.
    Normalised as by Catrina and Saxena 2010, section 3.4, but of all powers of two at once.
    """
    return _reciprocal(x, _octaves(_steps_of(x), "negative"))


def reciprocal_within(x, least, most):
    """1 / x, where x is known to lie between public numbers.

    Range: these, from one unit to 2^20; beyond, of the nearer end.
    Error: 1.1 units + 1e-6 |y|. Rounds: 8; bytes from 1 to 10: 324 sent, 1,269 dealt.
    """
    return _reciprocal(x, _quarters(_steps_of(x), least, most))


@function
def sqrt(x):
    """The square root.

    Range: 0 to 2^20, or 2^34 units if that is less; below it is 0, above that of the end.
    Error: 1.1 units + 1e-6 |y|. Rounds: 10; bytes: 652 sent, 2,660 dealt.
    Normalised as by Aly and Smart 2019/354.
    """
    normal = _normal(x, _octaves(_steps_of(x), "zero"))
    return _function(
        x,
        _power(normal, 0.5),
        lambda grad, y, x: number.multiply(grad, _kept(_power(normal, -0.5, 0.5))),
    )


@function
def rsqrt(x):
    """1 / sqrt(x).

    Range: one unit to 2^20, or 2^34 units if that is less; beyond it, of the nearer end.
    Error: 1.1 units + 1e-6 |y|. Rounds: 10; bytes: 634 sent, 2,579 dealt.
    Normalised like `sqrt`.
    """

    def gradient(grad, y, x):
        cube = number.multiply(number.multiply(number.multiply(grad, y), y), y)
        return number.scale(cube, Fraction(-1, 2))

    return _function(x, _power(_normal(x, _octaves(_steps_of(x))), -0.5), gradient)


def _log(x, pieces, base=math.e):
    normal, width, unit = _normal(x, pieces), pieces.width, math.log(base)
    polynomial = _of_degree_four if width < SMALL else _of_degree_eight
    constant, rest = polynomial(normal, lambda t: np.log(1 + width * t) / unit, COEFFICIENTS)
    table = np.log(pieces.middles) / unit + constant
    with _finer(x, EXACT, math.ceil(np.abs(table).max()) + 1):
        exact = number.add(rest, _look_up(normal.bits, table, POWERS * COEFFICIENTS))

    def gradient(grad, y, x):
        return number.multiply(grad, _kept(_power(normal, -1, 1 / unit)))

    return _function(x, exact, gradient)


@function
def log(x):
    """The natural logarithm.

    Range: one unit to 2^20, or 2^34 units if that is less; beyond it, of the nearer end.
    Error: 1 unit + 1.2e-6. Rounds: 8; bytes: 610 sent, 2,563 dealt.
    Normalised as by Aly and Smart 2019/354.
    """
    return _log(x, _octaves(_steps_of(x)))


@function
def log2(x):
    """The logarithm of base 2: see `log`."""
    return _log(x, _octaves(_steps_of(x)), 2)


@function
def log10(x):
    """The logarithm of base 10: see `log`."""
    return _log(x, _octaves(_steps_of(x)), 10)


def log_within(x, least, most):
    """The natural logarithm, where x is known to lie between public numbers.

    Range: these, from one unit to 2^20; beyond, of the nearer end.
    Error: 1 unit + 1.2e-6. Rounds: 7; bytes from 1 to 10: 308 sent, 1,261 dealt.
    """
    return _log(x, _quarters(_steps_of(x), least, most))


@function
def log1p(x):
    """log(1 + x): see `log`."""
    return log(number.add(x, x.full(1)))


# ---- Intervals of one width ----------------------------------------------------------------------

LARGEST = 13  # whose exponential times what is needed of it fits the ring


@functools.cache
def _units(steps):
    """The `Pieces` between whole numbers up to LARGEST, from where e^x is less than half a step."""
    starts = np.arange(-math.ceil(math.log(2 * steps)), LARGEST + 1)
    middles = starts[:-1] + 0.5
    rows = [(-round(2 * middle) * SCALE, 2 * SCALE // steps) for middle in middles]
    middles = np.array([-np.inf, *middles, middles[-1]])
    return Pieces(starts, np.array([(0, 0), *rows, (SCALE, 0)]), middles, 0.5)


@function
def exp(x):
    """e^x.

    Range: x <= 13; above it is e^13.
    Error: 1.3 units + 1e-6 |y|. Rounds: 10; bytes: 468 sent, 1,843 dealt.
    In two parts like that of Aly and Smart 2019/354, the first one from a table.
    """
    pieces = _units(_steps_of(x))
    exact = _scaled_back(_normal(x, pieces), lambda t: np.exp(t / 2), np.exp(pieces.middles))
    return _function(x, exact, lambda grad, y, x: number.multiply(grad, y))


@function
def expm1(x):
    """e^x - 1: see `exp`."""
    return number.subtract(exp(x), x.full(1))


HALF_WAVES = 10  # on either side of 0


@functools.cache
def _half_waves(steps, shift):
    """The `Pieces` between extremes of sin(x + shift), and 1 / width of them: t has the sign with
    which the sine falls or rises, and stays at the last extremes."""
    slope = int(0.636 * SCALE / steps)  # less than 2 / pi
    width = SCALE / (slope * steps)
    k = np.arange(-HALF_WAVES, HALF_WAVES + 1)
    signs = 1 - 2 * (k % 2)
    middles = k * math.pi - shift
    zeros = np.rint(middles / width * SCALE).astype(np.int64)
    peak = round(math.pi / 2 / width * SCALE)
    rows = np.stack([-zeros * signs, slope * signs], 1)
    table = [(-peak * signs[0], 0), *rows, (peak * signs[-1], 0)]
    starts = np.append(middles, middles[-1] + math.pi) - math.pi / 2
    return Pieces(starts, np.array(table), np.array([-np.inf, *middles, np.inf]), width)


def _sine(x, shift, gradient):
    pieces = _half_waves(_steps_of(x), shift)
    normal = _normal(x, pieces)
    _, rest = _of_degree_eight(normal, lambda t: np.sin(pieces.width * t), 10 * COEFFICIENTS)
    return _function(x, rest, gradient, 1)


@function
def sin(x):
    """The sine.

    Range: |x| <= 10 pi; beyond it is 1 or -1.
    Error: 1 unit + 2.5e-6. Rounds: 8; bytes: 444 sent, 1,835 dealt.
    """
    return _sine(x, 0, lambda grad, y, x: number.multiply(grad, cos(x)))


@function
def cos(x):
    """The cosine.

    Range: |x| <= 10 pi; beyond it is 1 or -1.
    Error: 1 unit + 2.5e-6. Rounds: 8; bytes: 444 sent, 1,835 dealt.
    """

    def gradient(grad, y, x):
        return number.scale(number.multiply(grad, sin(x)), -1)

    return _sine(x, math.pi / 2, gradient)
