"""A worker's side of comparison: is a masked value above zero?

The masked comparison of Damgård et al. 2019/599 (section 4), its borrow computed by a prefix tree
whose gates have up to four inputs, so that 64 bits take three levels: the crypto provider, which
knows all masks, deals the product of every set of masks that a gate needs, and a gate of any fan-in
costs one round.

Bits are held in planes, uint64 (bits, n / 64): plane i has bit i of every element, 64 to a word.
"""

import functools
import itertools
from collections.abc import Generator

import numpy as np

from smpc.semi2k.arithmetic import Bits, Deal, Masked
from smpc.semi2k.ring import Words

Term = tuple[str, ...]  # of a node: the names of the bits that it multiplies


@functools.cache
def fan_ins(bits: int) -> tuple[int, ...]:
    """How many neighbours a node takes at each level of the tree over two bits or more: at most
    four, in as few levels as there can be, and no more than needed at the last."""
    depth = next(depth for depth in itertools.count(1) if 4**depth >= bits)
    return (*[4] * (depth - 1), -(-bits // 4 ** (depth - 1)))


@functools.cache
def widths(bits: int) -> list[int]:
    """How many planes each level starts from: the bits, rounded up to whole nodes, and on."""
    fans = fan_ins(bits)
    nodes = [bits]
    for fan in fans:
        nodes.append(-(-nodes[-1] // fan))
    return [node * fan for node, fan in zip(nodes[1:], fans, strict=True)]


@functools.cache
def terms(fan_in: int, last: bool) -> tuple[Term, ...]:
    """The products over GF(2) that a node computes, besides g of its highest neighbour.

    Of neighbours i, each with generate gi and propagate pi, it makes with three, for example,
    G = g2 + p2 g1 + p2 p1 g0 and P = p2 p1 p0; at the tree's last level it needs no P.
    """
    top = fan_in - 1
    above = [tuple(f"p{j}" for j in range(top, i, -1)) for i in range(top, -1, -1)]
    g_terms = [(*ps, f"g{top - i}") for i, ps in enumerate(above) if ps]
    return tuple(g_terms if last else [*g_terms, (*above[-1], "p0")])


@functools.cache
def variables(terms: tuple[Term, ...]) -> list[str]:
    """The names of the bits in `terms`, which are opened under masks, in order."""
    return sorted({name for term in terms for name in term})


@functools.cache
def mask_products(terms: tuple[Term, ...]) -> list[Term]:
    """The sets of two masks or more whose products are dealt for `terms`, in order."""
    return sorted(
        {
            subset
            for term in terms
            for size in range(2, len(term) + 1)
            for subset in itertools.combinations(sorted(term), size)
        }
    )


def padded(n):
    """`n` rounded up to whole words of bits, at least one: a multiple of 64."""
    return max(1, -(-n // 64)) * 64


def planes(x: Words, bits: int) -> Words:
    """The lowest `bits` bits of (n,), n = 64 m -> planes, (bits, m)."""
    n_bytes = -(-bits // 8)
    columns = np.ascontiguousarray(x.view(np.uint8).reshape(-1, 8)[:, :n_bytes].T)  # (bytes, n)
    # bit j of byte k of every element, packed: numpy packs what is not 0 as 1
    rows = (columns[i // 8] & np.uint8(1 << i % 8) for i in range(bits))
    return np.stack([np.packbits(row, bitorder="little") for row in rows]).view(np.uint64)


def unpack(words: Words) -> Words:
    """A plane, (n / 64,) -> its bits, (n,) of 0 and 1."""
    return np.unpackbits(words.view(np.uint8), bitorder="little").astype(np.uint64)


def above_zero(party: int, deal: Deal, x: Masked, bits: int) -> Generator[Bits, Words, Masked]:
    """[x > 0] as the opened form of a bit, for a masked x with |x| < 2^(bits - 1).

    Of its mask -r the crypto provider deals all that is needed: for each element the lowest `bits`
    bits of r as XOR shares, a bit rho, shared both ways, and the tree's masks and their products.
    That x is known mod 2^bits is enough, whatever r is beyond.

    1. -x = r - delta; x > 0 is the top bit of -x, which is the top bit of r XOR that of delta XOR
       borrow, where borrow = (r < delta) in the bits below. Generate g = NOT r AND delta and
       propagate p = NOT (r XOR delta), per bit, are local since delta is public; with g := r XOR
       delta and p := 1 at the top bit, the tree's G is the top bit of -x
    2. the tree's levels, one round each: three for 17 to 64 bits
    3. open  e = (x > 0) XOR rho;  then  [x > 0] = e + (1 - 2 e) [rho]

    Returns:
        Masked(e, rho, 1 - 2 e), of x's shape.

    Four rounds for 17 to 64 bits. For 41 bits each worker sends each other about 13 bytes an
    element, and about 52 are dealt.
    """
    n = x.delta.size
    flat = np.zeros(padded(n), dtype=np.uint64)
    flat[:n] = x.delta.ravel()
    delta, r = planes(flat, bits), deal["r"]
    g = r & delta
    g[-1] = r[-1]
    p = r.copy()
    p[-1] = 0
    if party == 0:
        g ^= delta
        p ^= ~delta
        p[-1] = ~np.uint64(0)
    for level, fan_in in enumerate(fan_ins(bits)):
        last = level == len(fan_ins(bits)) - 1
        g, p = yield from _tree_level(party, deal, g, p, level, fan_in, last)
    e = yield Bits(g[0] ^ deal["rho_bits"])
    e = unpack(e)[:n].reshape(x.delta.shape)
    return Masked(e, deal["rho"][:n].reshape(e.shape), np.uint64(1) - np.uint64(2) * e)


def _tree_level(party, deal, g, p, level, fan_in, last):
    """XOR shares of the planes of g and p of one level -> of the next, a fan-in's part as many."""
    if missing := -len(g) % fan_in:  # below the lowest: nothing generates there
        g, p = (np.concatenate([np.zeros((missing, x.shape[1]), np.uint64), x]) for x in (g, p))
    bits = {f"g{i}": g[i::fan_in] for i in range(fan_in)}
    bits |= {f"p{i}": p[i::fan_in] for i in range(fan_in)}
    masks, products = deal[f"masks{level}"], deal[f"products{level}"]
    gates = yield from and_gates(party, masks, products, bits, terms(fan_in, last))
    g_gates = gates if last else gates[:-1]
    g_next = functools.reduce(np.bitwise_xor, g_gates, bits[f"g{fan_in - 1}"])
    return g_next, None if last else gates[-1]


def and_gates(
    party: int, masks: Words, products: Words, bits: dict[str, Words], terms: tuple[Term, ...]
) -> Generator[Bits, Words, list[Words]]:
    """XOR shares of the AND of the bits in each of `terms`; each bit is opened once, for all.

    Args:
        masks: this worker's shares of a mask for each of `variables(terms)`.
        products: of the products of masks named by `mask_products(terms)`.
        bits: name -> this worker's share.

    One round.
    """
    names = variables(terms)
    opened = yield Bits(np.stack([bits[name] for name in names]) ^ masks)
    delta = dict(zip(names, opened, strict=True))
    shares = {(name,): mask for name, mask in zip(names, masks, strict=True)}
    shares |= zip(mask_products(terms), products, strict=True)
    return [_multiply_out(party, delta, shares, sorted(term)) for term in terms]


def _multiply_out(party, delta, shares, names, masked=()):
    """XOR share of the AND of the bits `names`, each delta + mask, times the masks of `masked`:
    multiplied out, each product of masks being dealt, and that of the deltas alone party 0's."""
    if not names:
        if masked:
            return shares[masked]
        return ~np.uint64(0) if party == 0 else np.uint64(0)
    first, *rest = names
    with_delta = _multiply_out(party, delta, shares, rest, masked)
    return delta[first] & with_delta ^ _multiply_out(party, delta, shares, rest, (*masked, first))
