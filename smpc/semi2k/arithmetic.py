"""A worker's side of products, masks and truncation.

Each function is one worker's part of a protocol between n of them, party 0 being worker1. Where the
workers must speak it is a generator: it yields the share that it wants opened and receives what all
shares sum to (of a `Bits` array: XOR to): a Generator[what it yields, what it is sent, result].
`deal` holds this worker's shares of what the crypto provider dealt for this one use. Arrays are
uint64, over Z_2^64.

A value is held in one of four forms:

    share    x = sum of x_i
    partial  x = sum of x_i + m, m being known to the crypto provider alone
    masked   x = delta + a, delta being known to every worker; the crypto provider knows a, and the
             workers have shares of it, or none (then it is called hidden)
    bit      x = e + (1 - 2 e) rho, a bit; likewise

Shares, partials and masked values are closed under whatever is linear and public. Two masked values
multiply to a partial, of which the provider knows the product of the masks, so that nothing is
dealt; and the mask that a truncation needs takes in m, whatever it is.

Where it matters the width of the ring is an argument, so that all randomness of Z_2^4 can be
enumerated. There, too, elements are held in uint64, and what is opened is reduced by whoever opens
it; all else may stay mod 2^64, which 2^bits divides.
"""

from collections.abc import Callable, Generator
from typing import NamedTuple

import numpy as np

from smpc.semi2k import ring
from smpc.semi2k.ring import Words

Deal = dict[str, Words]  # a worker's shares of a dealt item, by the names of its fields


class Bits(NamedTuple):
    """XOR shares of bits, 64 to a uint64 word, where plain arrays are additive shares of words."""

    words: Words


class Flagged(Exception):
    """What was opened for a truncation lies in the zone where it may have wrapped around the ring:
    nothing of this run may be used."""


class Masked(NamedTuple):
    """A shared value x that has been opened under a mask: x = delta + sign * a.

    A mask serves one value that does not change, and what is linear in it, in as many products as
    there are (ABY2.0, Patra et al. 2020/1225, section 3.1).

    Attributes:
        delta: x - a, public to the workers.
        a: this worker's share of the mask, or None where the workers have none.
        sign: None, which means 1; or of a bit 1 - 2 delta, public to the workers.
    """

    delta: Words
    a: Words | None
    sign: Words | None = None

    def map(self, linear: Callable[[Words], Words]) -> "Masked":
        """The masked form of linear(x); of a bit, for a function that only moves elements about."""
        parts = (part if part is None else linear(part) for part in self)
        return Masked(*parts)

    def signed_a(self) -> Words:
        """This worker's share of x - delta."""
        return self.a if self.sign is None else self.sign * self.a


def partial(party: int, x: Masked) -> Words:
    """A masked value -> a partial with m = a. No round."""
    return x.delta if party == 0 else np.zeros_like(x.delta)


def unmask(party: int, x: Masked) -> Words:
    """[x] of a masked value, of whose mask the workers have shares, or of a bit. No round."""
    return x.delta + x.signed_a() if party == 0 else x.signed_a()


def product(party: int, x: Masked, y: Masked, times: Callable[..., Words]) -> Words:
    """x times y for two masked values of whose masks a, b the workers have shares (Beaver 1991).

    z_i = delta_x delta_y (party 0 only) + delta_x b_i + a_i delta_y,  m = a times b

    times: `ring.mul` or `ring.matmul`, which sum over pairs of factors.
    Returns a partial. No round, and nothing is dealt.
    """
    b = y.delta + y.a if party == 0 else y.a
    return times((x.delta, b), (x.a, y.delta))


def select(party: int, deal: Deal, x: Masked, y: Masked) -> Words:
    """[x y] for a bit x and a masked value or another bit y, with a dealt c = rho * a.

    x y = (delta_x + sign_x rho) (delta_y + sign_y a), multiplied out

    What is known to the provider about a bit's sign is nothing, so that this is no partial, and c
    is dealt: 8 bytes an element. No round.
    """
    a, b = x.signed_a(), y.signed_a()
    if party == 0:
        b = y.delta + b
    c = deal["c"] * (x.sign if y.sign is None else x.sign * y.sign)
    return ring.mul((x.delta, b), (a, y.delta)) + c


def complete(party: int, deal: Deal, x: Words) -> Words:
    """[x] of a partial, in fresh shares, with a dealt sharing of m. 8 bytes an element; no round.

    To a value about to be revealed it is all that is needed: its shares are uniform but for x.
    """
    return x + deal["m"]


def unhide(party: int, deal: Deal, x: Masked) -> Masked:
    """A masked value of whose mask the workers have no shares -> the same, with dealt shares of it.

    8 bytes an element; no round.
    """
    return Masked(x.delta, deal["a"])


def mask(party: int, deal: Deal, x: Words, hidden: bool) -> Generator[Words, Words, Masked]:
    """A partial -> x opened under a mask a = sum of s_i + m, uniform on the ring (Beaver 1991).

    1. open  delta = x - a,  each worker's share being x_i - s_i

    hidden: whether m may be other than 0. If not, the s_i are shares of a; else there are none.
    One round; 8 bytes an element, sent by each to each.
    """
    delta = yield x - deal["s"]
    return Masked(delta, None if hidden else deal["s"])


def offset(d: int, zone: int) -> int:
    """What truncation by d adds to make its input nonnegative: d floor(2^(zone - 1) / d)."""
    return d * (2 ** (zone - 1) // d)


def truncate(
    party: int, deal: Deal, x: Words, d: int, zone: int
) -> Generator[Words, Words, tuple[Masked, Masked]]:
    """[x / d] for a public d > 0, rounded up or down, with mean error 0; multiples of d exact.

    For |x| < 2^(zone - 1) - d, and then it cannot fail. Dealt: shares of -(r div d), for a uniform
    r = sum of s_i - m. With O = `offset(d, zone)`:

    1. open  c = x + O + r,  each worker's share being x_i + s_i (and O, party 0)
    2. a wrap of c needs r >= 2^64 - (x + O), and then c < x + O < 2^zone. If any c is that small
       the run is broken off. Else c = x + O + r without a wrap, and
       y = c div d - r div d - O / d,  the error of two floors being under a unit

    So y is masked: delta = c div d - O / d, a = -(r div d); and so is x: delta = c - O, a = -r, of
    which the workers have no shares. x - d y is what rounding dropped, in (-d, d).

    Returns:
        y and x; y's a is None where no shares were dealt.
    Raises:
        Flagged: an element of c is below 2^zone; with probability 2^(zone - 64) an element.

    One round; 8 bytes an element, sent by each to each, and 8 dealt if y needs shares of its mask.
    The exact truncation of Escudero et al. 2020/338, section 5, less its second quotient. The
    rounding is a function of the public c.
    """
    share = x + deal["s"]
    if party == 0:
        share += np.uint64(offset(d, zone))
    c = yield share
    if c.size and c.min() < 2**zone:
        raise Flagged
    y = c // np.uint64(d)
    y -= np.uint64(offset(d, zone) // d)
    return Masked(y, deal.get("q")), Masked(c - np.uint64(offset(d, zone)), None)


def truncate_exactly(
    party: int, deal: Deal, x: Words, d: int, bits: int = 64
) -> Generator[Words, Words, tuple[Words, Masked]]:
    """[x / d] likewise, for -O <= x < 2^(bits - 1) - O with O = `offset(d, bits - 1)`.

    There it never fails, and no run is broken off (Escudero et al. 2020/338, section 5; the two
    quotients make the wrap of c public knowledge). Dealt: shares of r div d (floor) with r read as
    unsigned and as signed, for a uniform r = sum of s_i - m.

    1. open  c = x + O + r
    2. x + O = c - r with r signed where the top bit of c is 0, unsigned where it is 1; so
       y = c div d (party 0 only) - [r div d, the one that c's top bit selects] - O / d

    Returns:
        y, a share: which quotient served is not known to the provider, so that it knows no mask of
        y; and x, of whose mask -r the workers have no shares.

    One round; 8 bytes an element, sent by each to each, and 16 dealt.
    """
    share = x + deal["s"]
    shift = np.uint64(offset(d, bits - 1))
    if party == 0:
        share += shift
    c = yield share
    top = c >> np.uint64(bits - 1)
    y = top * (deal["signed"] - deal["unsigned"]) - deal["signed"]
    if party == 0:
        y += c // np.uint64(d) - shift // np.uint64(d)
    return y, Masked(c - shift, None)


TIMES = {"mul": ring.mul, "matmul": ring.matmul}
