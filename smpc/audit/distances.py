"""How far apart two distributions of what a party sees are, or two samples of it.

Both are given as columns of the same names, see `variables.columns`, unless it is said otherwise.
"""

import math
from fractions import Fraction

import numpy as np

from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.comparison import planes


def total_variation(one, other):
    """The distance of two joint distributions: a Fraction.

    Args:
        one, other: columns, as of `variables.columns`, of the same names; the points of each are
            equally likely.
    """
    keys, position = [np.uint64(0), np.uint64(0)], 0
    for name in _same_names(one, other):
        pair, width = [side[name][0] for side in (one, other)], one[name][1]
        if all((column == pair[0][0]).all() for column in pair):
            continue  # a single value
        if position + width > 64:
            raise ValueError("these are too many variables for a key of 64 bits")
        keys = [key | column << np.uint64(position) for key, column in zip(keys, pair, strict=True)]
        position += width
    found = [np.unique(key, return_counts=True) for key in keys]
    # (asked for the counts, numpy sorts; union1d hashes, which takes ten times as long)
    values, _ = np.unique(np.concatenate([at for at, _ in found]), return_counts=True)
    counts = np.zeros((2, len(values)), dtype=np.int64)
    for row, (at, times) in zip(counts, found, strict=True):
        row[np.searchsorted(values, at)] = times
    n, m = (int(row.sum()) for row in counts)
    return Fraction(int(np.abs(counts[0] * m - counts[1] * n).sum()), 2 * n * m)


def _same_names(one, other):
    if set(one) != set(other):
        raise ValueError(f"seen in one world only: {sorted(set(one) ^ set(other))[:3]}")
    return sorted(one)


def largest_difference(one, other):
    """How far the means of two samples are apart, and how many means there are: of each bit, of
    each product of two, and of each product of three columns' lowest bits, as -1 and 1.

    Args:
        one, other: columns of the same names, with as many samples each, a multiple of 64.
    """
    names = _same_names(one, other)
    firsts = np.cumsum([0, *(one[name][1] for name in names[:-1])])
    sides = [_bits([side[name] for name in names]) for side in (one, other)]
    n_words, size = sides[0].shape
    largest = _most_apart(sides)
    for i in range(size):
        largest = max(largest, _most_apart([side[:, i, None] ^ side[:, i + 1 :] for side in sides]))
    i, j = np.triu_indices(len(firsts), 1)  # pairs of columns, those of the first last
    lowest = [side[:, firsts] for side in sides]
    pairs = [low[:, i[::-1]] ^ low[:, j[::-1]] for low in lowest]
    for k in range(len(firsts)):
        behind = math.comb(len(firsts) - 1 - k, 2)  # pairs of columns that are all after this one
        both = zip(lowest, pairs, strict=True)
        triples = [low[:, k, None] ^ pair[:, :behind] for low, pair in both]
        largest = max(largest, _most_apart(triples))
    # of products of bits as -1 and 1, whose mean is 1 less twice the mean of their XOR
    return 2 * largest / (64 * n_words), size * (size + 1) // 2 + math.comb(len(firsts), 3)


def largest_of_bits(one, other):
    """The same of each bit by itself, of two views: name -> ring elements or bits (n, ...), or
    `Masked`."""
    sides = [_means(view, _same_names(one, other)) for view in (one, other)]
    return 2 * float(np.abs(np.subtract(*sides)).max()), len(sides[0])


def _means(view, names):
    """In what part of the samples each bit is set: (bits,)."""
    means = []
    for value in (view[name] for name in names):
        for part in (value.delta, value.a) if isinstance(value, Masked) else (value,):
            if part is not None:
                rows = np.ascontiguousarray(part).reshape(len(part), -1)
                rows = rows if rows.dtype == bool else np.unpackbits(rows.view(np.uint8), axis=1)
                means.append(rows.mean(axis=0))
    return np.concatenate(means)


def limit(tests, n, level):
    """The largest difference of two means that passes: if all samples are of one distribution, any
    of so many tests, of n samples of each side, exceeds it with probability `level` at most.

    By Hoeffding's inequality, of two means of n numbers in [-1, 1] each: P(|difference| >= t) <=
    2 exp(-n t^2 / 4).
    """
    return 2 * math.sqrt(math.log(2 * tests / level) / n)


def _most_apart(pair):
    """Two arrays of bits, see `_bits`: by how many ones a column of one and of the other differ at
    most."""
    one, other = (np.bitwise_count(side).sum(axis=0, dtype=np.int32) for side in pair)
    return int(np.abs(one - other).max(initial=0))


def _bits(columns_):
    """Columns -> all their bits: uint64 (n / 64, bits), a column for each, 64 samples to a word."""
    rows = [planes(np.ascontiguousarray(x), width) for x, width in columns_]
    return np.ascontiguousarray(np.concatenate(rows).T)
