"""The comparison of semi2k once more, as in `reference`.

Bits are in planes: uint64 (bits, n / 64), bit i of every element, 64 elements to a word. A level of
the tree takes nodes of up to four neighbours i = 0, 1, ... (the highest last), each with generate
gi and propagate pi, and opens each of these bits, but the highest g, under a mask.
"""

import itertools
from functools import reduce

import numpy as np

from smpc.audit.reference_values import Bits, Held, total


def tree(bits):
    """Of each level: neighbours to a node, nodes, and planes that it starts from."""
    planes = bits
    depth = next(depth for depth in range(1, 4) if 4**depth >= bits)
    levels = []
    for level in range(depth):
        fan_in = 4 if level < depth - 1 else -(-bits // 4 ** (depth - 1))
        nodes = -(-planes // fan_in)
        levels.append((fan_in, nodes, planes))
        planes = nodes
    return levels


def gates(fan_in, last):
    """The products of bits that a node makes, each as the names of its bits, sorted; the highest
    neighbour's g is added to their sum. At all levels but the last the product of all p comes
    last."""
    top = fan_in - 1
    products = [
        tuple(sorted([f"g{i}", *(f"p{j}" for j in range(i + 1, fan_in))])) for i in range(top)
    ]
    products.reverse()
    return products if last else [*products, tuple(sorted(f"p{i}" for i in range(fan_in)))]


def opened_names(products):
    """The bits that are opened, in the order of their masks."""
    return sorted({name for product in products for name in product})


def dealt_sets(products):
    """The sets of bits whose masks' products are dealt, in order."""
    sets = set()
    for product in products:
        for size in range(2, len(product) + 1):
            sets |= set(itertools.combinations(product, size))
    return sorted(sets)


def fields(n, bits):
    """(name, shape, boolean, derived) of what is dealt for the comparison of n elements."""
    words = max(1, -(-n // 64))
    yield "rho_bits", (words,), True, False
    yield "rho", (64 * words,), False, True
    yield "r", (bits, words), True, True
    levels = tree(bits)
    for level, (fan_in, nodes, _) in enumerate(levels):
        products = gates(fan_in, level == len(levels) - 1)
        yield f"masks{level}", (len(opened_names(products)), nodes, words), True, False
        yield f"products{level}", (len(dealt_sets(products)), nodes, words), True, True


def to_planes(x, bits):
    """The lowest bits of each element, uint64 (n,), in planes; beyond the last there are zeros."""
    octets = np.ascontiguousarray(x).view(np.uint8).reshape(-1, 8)
    of_each = np.unpackbits(octets, axis=1, bitorder="little", count=bits)
    padded = np.zeros((bits, 64 * max(1, -(-len(of_each) // 64))), np.uint8)
    padded[:, : len(of_each)] = of_each.T
    return np.packbits(padded, axis=1, bitorder="little").view(np.uint64)


def from_plane(plane):
    """The bits of a plane, uint64 (n / 64,), as 0 and 1: uint64 (n,)."""
    return np.unpackbits(plane.view(np.uint8), bitorder="little").astype(np.uint64)


def known(bits, sums, a):
    """What the provider knows of the bit of a value that is masked by `a`, and what it derives."""
    rho = from_plane(sums["rho_bits"])
    derived = {"rho": rho, "r": to_planes(-a.ravel(), bits)}
    levels = tree(bits)
    for level, (fan_in, _, _) in enumerate(levels):
        products = gates(fan_in, level == len(levels) - 1)
        mask_of = dict(zip(opened_names(products), sums[f"masks{level}"], strict=True))
        derived[f"products{level}"] = np.stack(
            [reduce(np.bitwise_and, map(mask_of.get, chosen)) for chosen in dealt_sets(products)]
        )
    return [rho[: a.size].reshape(a.shape)], derived


def above_zero(x, bits, shares):
    """x > 0, for what is masked: the bit, `Held`. Yields what is to be opened."""
    n_workers, size, shape = len(shares["rho"]), x.delta.size, x.delta.shape
    delta, r_shares = to_planes(x.delta.ravel(), bits), shares["r"]
    ones = ~np.uint64(0)
    g = [share & delta for share in r_shares]  # of NOT r AND delta
    g[0] = g[0] ^ delta
    p = [share.copy() for share in r_shares]  # of NOT (r XOR delta)
    p[0] ^= ~delta
    for worker in range(n_workers):
        g[worker][-1] = r_shares[worker][-1] ^ (delta[-1] if worker == 0 else np.uint64(0))
        p[worker][-1] = ones if worker == 0 else 0
    levels = tree(bits)
    for level, (fan_in, nodes, planes) in enumerate(levels):
        g, p = ([_below(x, nodes * fan_in - planes) for x in shares_] for shares_ in (g, p))
        last = level == len(levels) - 1
        dealt = shares[f"masks{level}"], shares[f"products{level}"]
        g, p = yield from _level(g, p, fan_in, last, *dealt)
    result = [part[0] for part in g]
    asked = [part ^ rho for part, rho in zip(result, shares["rho_bits"], strict=True)]
    e = yield Bits(asked, total(result, True))
    rho = [share[:size].reshape(shape) for share in shares["rho"]]
    return Held("bit", rho, from_plane(e)[:size].reshape(shape))


def _below(planes, missing):
    """Planes of zeros below the lowest."""
    return np.concatenate([np.zeros((missing, planes.shape[1]), np.uint64), planes])


def _level(g, p, fan_in, last, masks, mask_products):
    """Each worker's g and p of the next level."""
    products = gates(fan_in, last)
    names = opened_names(products)
    bits = [
        {f"g{i}": g_[i::fan_in] for i in range(fan_in)}
        | {f"p{i}": p_[i::fan_in] for i in range(fan_in)}
        for g_, p_ in zip(g, p, strict=True)
    ]
    hidden = [np.stack([of[name] for name in names]) for of in bits]
    asked = [x ^ mask for x, mask in zip(hidden, masks, strict=True)]
    opened = yield Bits(asked, total(hidden, True))
    delta, made = dict(zip(names, opened, strict=True)), []
    for worker, of in enumerate(bits):
        share_of = {(name,): mask for name, mask in zip(names, masks[worker], strict=True)}
        share_of |= zip(dealt_sets(products), mask_products[worker], strict=True)
        ands = [_and(product, delta, share_of, worker == 0) for product in products]
        g_next = reduce(np.bitwise_xor, ands if last else ands[:-1], of[f"g{fan_in - 1}"])
        made.append((g_next, None if last else ands[-1]))
    return [pair[0] for pair in made], [pair[1] for pair in made]


def _and(product, delta, share_of, is_first):
    """A share of the AND of bits, each what is opened XOR its mask: summed over which of them
    contribute their masks."""
    share = np.zeros_like(delta[product[0]])
    for size in range(len(product) + 1):
        for masked in itertools.combinations(product, size):
            opened = [delta[name] for name in product if name not in masked]
            if masked:
                opened.append(share_of[masked])
            if masked or is_first:
                share = share ^ reduce(np.bitwise_and, opened)
    return share
