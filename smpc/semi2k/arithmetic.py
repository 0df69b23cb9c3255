"""A worker's side of products and truncation.

Each function is one party's part of a two-party protocol, party 0 being worker1. Where parties must
speak it is a generator: it yields the shares that it wants opened and receives what they sum to
(a `Bits` array: what they XOR to). `deal` holds this party's shares of what the crypto provider
dealt for this one use. Shares are uint64 arrays over Z_2^64.

A function that reads more than sums and products from an element takes the ring's width as `bits`,
so that all randomness of Z_2^4 can be enumerated. There, too, elements are held in uint64, and what
is opened is reduced by whoever opens it; all else may stay mod 2^64, which 2^bits divides.
"""

from typing import NamedTuple

import numpy as np

from smpc.semi2k import ring


class Bits(NamedTuple):
    """XOR shares of bits, 64 to a uint64 word, where plain arrays are additive shares of words."""

    words: np.ndarray


class Masked(NamedTuple):
    """A shared value x that has been opened under a mask: x = delta + sign * a.

    A mask serves one value that does not change, in as many products as there are (ABY2.0, Patra et
    al. 2020/1225, section 3.1). `delta` and `sign` are public, `a` is this party's share of a mask
    that is uniform on the ring, or, for a comparison's bit, a uniform bit; then delta = x XOR a
    and sign = 1 - 2 delta. For a uniform mask `sign` is None and means 1.
    """

    delta: np.ndarray
    a: np.ndarray
    sign: np.ndarray | None = None

    def map(self, linear):
        """The masked form of linear(x), for a function that only moves elements about."""
        sign = None if self.sign is None else linear(self.sign)
        return Masked(linear(self.delta), linear(self.a), sign)

    def signed_a(self):
        """This party's share of x - delta."""
        return self.a if self.sign is None else self.sign * self.a


def share(secret, first):
    """A data owner's part: both parties' shares of `secret`, `first` being uniform."""
    return first, secret - first


def refresh(party, deal, x):
    """[x] in fresh shares, by a dealt sharing of zero; of a revealed value, all that is shown.

    No round.
    """
    return x + deal["zero"]


def mask(party, deal, x):
    """[x] -> x opened under a uniform mask a (Beaver 1991).

    1. open  delta = x - a

    One round; 8 bytes sent per element by each party.
    """
    delta = yield x - deal["a"]
    return Masked(delta, deal["a"])


def product(party, deal, x, y, times):
    """[z] = x times y for two masked values, with a dealt c = a times b (Beaver 1991).

    z = delta epsilon (party 0 only) + delta b + a epsilon + c

    x, y: Masked; times: `ring.mul` or `ring.matmul`, which sum over pairs of factors. No round.
    The mask of a comparison's bit carries a public sign, which c was dealt without; such a value is
    multiplied element by element only.
    """
    c = deal["c"]
    for factor in (x, y):
        if factor.sign is not None:
            c = factor.sign * c
    a, b = x.signed_a(), y.signed_a()
    if party == 0:
        b = y.delta + b
    return times((x.delta, b), (a, y.delta)) + c


def offset(d, bits=64):
    """What truncation by d adds to make its input nonnegative: d * floor(2^(bits - 2) / d)."""
    return d * (2 ** (bits - 2) // d)


def truncate(party, deal, x, d, bits=64):
    """[y] = x / d for a public d > 0, rounded up or down, with mean error 0; multiples of d exact.

    For -O <= x < 2^(bits - 1) - O with O = `offset(d, bits)`, read as signed; there it cannot fail
    (Escudero et al. 2020/338, section 5; the two quotients make the wrap of c public knowledge).

    Dealt: r uniform, and r div d (floor) with r read as unsigned and as signed.
    1. open  c = x + O + r
    2. x + O = c - r with r signed where the top bit of c is 0, unsigned where it is 1; so
       y = c div d (party 0 only) - [r div d, the one that c's top bit selects] - O / d

    One round; 8 bytes sent per element by each party. The rounding is a function of the public c.
    """
    share = x + deal["r"]
    if party == 0:
        share += np.uint64(offset(d, bits))
    c = yield share
    top = c >> np.uint64(bits - 1)
    y = top * (deal["signed"] - deal["unsigned"]) - deal["signed"]
    if party == 0:
        y += c // np.uint64(d) - np.uint64(offset(d, bits) // d)
    return y


def unmask(party, x):
    """[x] of a masked value: delta (party 0 only) + sign * a. No round."""
    return x.delta + x.signed_a() if party == 0 else x.signed_a()


def add_public(party, x, value):
    """[x + value] for a public array: party 0 adds it. No round."""
    return x + value if party == 0 else x + np.zeros_like(value)


TIMES = {"mul": ring.mul, "matmul": ring.matmul}
