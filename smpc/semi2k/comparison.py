"""A worker's side of comparison: is a shared value above zero?

The masked comparison of Damgård et al. 2019/599 (section 4), its borrow computed by a prefix tree
whose gates have four inputs, so that 64 bits take three levels: the crypto provider, which knows
all masks, deals the product of every set of masks that a gate needs, and a gate of any fan-in costs
one round.
"""

import functools
import itertools

import numpy as np

from smpc.semi2k.arithmetic import Bits, Masked

# At each level of the tree a node takes four neighbours, 3 the highest, each with generate g and
# propagate p, to  G = g3 + p3 g2 + p3 p2 g1 + p3 p2 p1 g0  and  P = p3 p2 p1 p0  over GF(2).
_G_TERMS = (("p3", "g2"), ("p3", "p2", "g1"), ("p3", "p2", "p1", "g0"))
_P_TERM = ("p3", "p2", "p1", "p0")
# How far apart a level's neighbours are in a word, and where the first of each four stand.
_SHIFTS = (1, 4, 16)
_FIRSTS = tuple(np.uint64(m) for m in (0x1111111111111111, 0x000F000F000F000F, 0x000000000000FFFF))


@functools.cache
def levels(bits=64):
    """How many levels the tree over `bits` positions has; its last leaves 4^levels bits a word."""
    return next(level for level in itertools.count(1) if 4**level >= bits)


@functools.cache
def terms(last):
    """The products that a node computes; at the tree's last level it needs no P."""
    return _G_TERMS if last else (*_G_TERMS, _P_TERM)


@functools.cache
def variables(terms):
    """The names of the bits in `terms`, which are opened under masks, in order."""
    return sorted({name for term in terms for name in term})


@functools.cache
def mask_products(terms):
    """The sets of two masks or more whose products are dealt for `terms`, in order."""
    return sorted(
        {
            subset
            for term in terms
            for size in range(2, len(term) + 1)
            for subset in itertools.combinations(sorted(term), size)
        }
    )


def lanes(n, bits=64):
    """`n` rounded up to whole words of the tree's last level, at least one."""
    width = 4 ** levels(bits)
    return max(1, -(-n // width)) * width


def above_zero(party, deal, x, bits=64):
    """[x > 0] as the opened form of a bit; and x itself opened under a mask.

    For -2^(bits - 1) < x < 2^(bits - 1), read as signed; below, for 64 bits.

    Dealt, for each element: r uniform, its bits as XOR shares, a bit rho, shared both ways, and
    what the tree needs.
    1. open  c = r - x, so that -x = c - r; x > 0 is the top bit of -x, which is the top bit of c
       XOR that of r XOR borrow, where borrow = (c mod 2^63 < r mod 2^63)
    2. generate g = NOT c AND r and propagate p = NOT (c XOR r), per bit, local since c is public;
       with g := c XOR r and p := 1 at the top bit, the tree's G is the top bit of -x
    3. three levels of the tree, one round each
    4. open  e = (x > 0) XOR rho;  then  [x > 0] = e + (1 - 2 e) [rho]

    Returns:
        the bit as Masked(e, rho, 1 - 2 e), and x as Masked(-c, r), both of x's shape.

    Five rounds; by each party 8 bytes sent per element for c and about 18.5 for the bits.
    """
    n = x.size
    flat = np.zeros(lanes(n, bits), dtype=np.uint64)
    flat[:n] = x.ravel()
    c = yield deal["r"] - flat
    r_bits, top = deal["r_bits"], np.uint64(1 << bits - 1)
    g = r_bits & (~c | top)
    p = (r_bits ^ ~c if party == 0 else r_bits) & ~top
    if party == 0:
        g, p = g ^ (c & top), p | top
    for level in range(levels(bits)):
        last = level == levels(bits) - 1
        g, p = yield from _tree_level(party, deal, g, p, level, last)
    e = yield Bits(g ^ deal["rho_bits"])
    e = unpack(e, bits)[:n].reshape(x.shape)

    def shaped(words):
        return words[:n].reshape(x.shape)

    bit = Masked(e, shaped(deal["rho"]), np.uint64(1) - np.uint64(2) * e)
    return bit, Masked(-shaped(c), shaped(deal["r"]))


def _tree_level(party, deal, g, p, level, last):
    """XOR shares (n words) of g and p of one level -> of the next, in a quarter of the words."""
    packed = {f"g{i}": _take(g, level, i) for i in range(4)}
    packed |= {f"p{i}": _take(p, level, i) for i in range(4)}
    masks, products = deal[f"masks{level}"], deal[f"products{level}"]
    gates = yield from and_gates(party, masks, products, packed, terms(last))
    g_next = functools.reduce(np.bitwise_xor, gates[: len(_G_TERMS)], packed["g3"])
    return g_next, None if last else gates[-1]


def and_gates(party, masks, products, bits, terms):
    """XOR shares of the AND of the bits in each of `terms`; each bit is opened once, for all.

    Args:
        masks: this party's shares of a mask for each of `variables(terms)`.
        products: of the products of masks named by `mask_products(terms)`.
        bits: name -> this party's share, packed words.

    One round.
    """
    names = variables(terms)
    opened = yield Bits(np.stack([bits[name] for name in names]) ^ masks)
    delta = dict(zip(names, opened, strict=True))
    shares = {(name,): mask for name, mask in zip(names, masks, strict=True)}
    shares |= zip(mask_products(terms), products, strict=True)
    return [_multiply_out(party, delta, shares, term) for term in terms]


def _take(words, level, i):
    """Neighbour i of every node of `level`, four words packed into one without a gap."""
    shift, first = _SHIFTS[level], _FIRSTS[level]
    neighbours = (words.reshape(4, -1) >> np.uint64(i * shift)) & first
    for k in range(1, 4):
        neighbours[0] |= neighbours[k] << np.uint64(k * shift)
    return neighbours[0]


def _multiply_out(party, delta, shares, term):
    """XOR share of the AND of the bits in `term`: the product of all (delta + mask), multiplied
    out, each product of masks being dealt."""
    out = None
    term = sorted(term)
    for size in range(party and 1, len(term) + 1):  # the product of the deltas is party 0's
        for subset in itertools.combinations(term, size):
            factor = shares.get(subset)
            for name in term:
                if name not in subset:
                    factor = delta[name] if factor is None else factor & delta[name]
            out = factor if out is None else out ^ factor
    return out


def unpack(words, bits=64):
    """Bits as the tree leaves them, in n / 4^levels words -> uint64 (n,) of 0 and 1."""
    # _take packs group k of level l into lane k * _SHIFTS[l]; groups are the leading axes of n
    depth = levels(bits)
    lanes = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(-1, 64)[:, : 4**depth]
    return lanes.reshape(-1, *[4] * depth).T.ravel().astype(np.uint64)
