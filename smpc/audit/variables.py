"""Random variables, enumerated or sampled, and what parties see of them, laid out in columns.

Elements of a ring are uint64 arrays (n, ...), whose first axis counts points of an enumeration or
samples; XOR-shared bits are `Lanes`.
"""

import math
from typing import NamedTuple

import numpy as np

from smpc.semi2k import comparison
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.randomness import Stream, new_key


class Lanes(NamedTuple):
    """Words of `width` bits, uint64 (..., n), one for each of n elements.

    Comparison sends and is dealt bits that its tree has packed; this is how they are looked at.
    """

    words: np.ndarray
    width: int


class Enumeration:
    """Random variables that take each combination of their values once over the points.

    Args:
        n: how many points.
        held: a `Held`: the variables that are conditioned on take one value.
    Attributes:
        combinations: how many points the variables drawn so far need.
    """

    def __init__(self, n, held):
        self.n, self.held, self.combinations = n, held, 1

    def draw(self, name, size):
        """A variable uniform on [0, size): uint64 (n,)."""
        if self.held.names(name):
            return np.full(self.n, self.held.value(name) % size, dtype=np.uint64)
        index = np.arange(self.n, dtype=np.uint64) // np.uint64(self.combinations)
        self.combinations *= size
        return index % np.uint64(size)


class Held:
    """Random values of the variables that are conditioned on, the same in both worlds.

    Args:
        names: a function of a variable's name: whether it is one of them.
    """

    def __init__(self, names):
        self.names, self.stream, self.values = names, Stream(new_key()), {}

    def value(self, name):
        """A 64-bit number."""
        if name not in self.values:
            self.values[name] = int(self.stream.words(1)[0])
        return self.values[name]


class Sampling:
    """Random variables, n independent samples of each."""

    def __init__(self, n):
        self.n, self.stream = n, Stream(new_key())

    def draw(self, name, size):
        """A variable uniform on [0, size), a power of two: uint64 (n,)."""
        return self.stream.words(self.n) & np.uint64(size - 1)


def elements(coins, name, size, shape=()):
    """For each point an array of variables, uniform on [0, size): uint64 (n, *shape)."""
    parts = [coins.draw(f"{name}[{i}]", size) for i in range(math.prod(shape))]
    return np.stack(parts, axis=-1).reshape(coins.n, *shape)


def lanes(coins, name, width, rows=()):
    """For each row and point a word of `width` bits: `Lanes` (*rows, n)."""
    parts = [coins.draw(f"{name}[{i}]", 2**width) for i in range(math.prod(rows))]
    return Lanes(np.stack(parts).reshape(*rows, coins.n), width)


def field_like(coins, name, field, bits):
    """A dealt field, or what is opened under it, for n elements, drawn uniformly."""
    if not field.boolean or field.shape == (coins.n,):
        return elements(coins, name, 2**bits, field.shape[1:])
    *rows, n_words = field.shape
    return lanes(coins, name, _nodes(n_words, coins.n, bits), tuple(rows))


def fresh_shares(coins, name, value, bits):
    """Ring elements or Lanes -> the same in two shares, of which the first is drawn."""
    if isinstance(value, Lanes):
        one = lanes(coins, name, value.width, value.words.shape[:-1])
        return one, Lanes(value.words ^ one.words, value.width)
    one = elements(coins, name, 2**bits, value.shape[1:])
    return one, value - one


def _nodes(n_words, n, bits):
    """Of the tree, per element, at the level that packs n elements in so many words."""
    return 4 ** comparison.levels(bits) * n_words // n


def unpacked(array, boolean, n, bits):
    """What is dealt or opened, as it is looked at: Lanes (..., n) of what the tree has packed.

    Args:
        array: uint64; if XOR-shared, (..., n / 4), (..., n / 16) or (..., n / 64), or (n,) if not
            packed yet.
        boolean: whether it is XOR-shared.
    """
    if not boolean or array.shape == (n,):
        return array
    *rows, n_words = array.shape
    fours = [4] * round(math.log(n // n_words, 4))
    digits = np.unpackbits(np.ascontiguousarray(array).view(np.uint8), bitorder="little")
    digits = digits.reshape(-1, n_words, n_words * 64 // n, *fours)
    # (rows, words, nodes, k_l, ..., k_0) -> (rows, k_0, ..., k_l, words, nodes): see comparison
    order = (0, *range(digits.ndim - 1, 2, -1), 1, 2)
    width = _nodes(n_words, n, bits)
    nodes = digits.transpose(order).reshape(*rows, n, -1)[..., :width].astype(np.uint64)
    return Lanes((nodes << np.arange(width, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64), width)


def packed(value, bits):
    """The inverse: `Lanes` (..., n) -> uint64 (..., words), as the tree of so many bits packs."""
    *rows, n = value.words.shape
    tree_width = 4 ** comparison.levels(bits)
    fours = [4] * round(math.log(tree_width // value.width, 4))
    digits = value.words[..., None] >> np.arange(value.width, dtype=np.uint64) & np.uint64(1)
    digits = digits.astype(np.uint8).reshape(-1, *fours, n // 4 ** len(fours), value.width)
    # (rows, k_0, ..., k_l, words, nodes) -> (rows, words, nodes, k_l, ..., k_0)
    order = (0, digits.ndim - 2, digits.ndim - 1, *range(digits.ndim - 3, 0, -1))
    whole = np.zeros((digits.size // tree_width, 64), np.uint8)
    whole[:, :tree_width] = digits.transpose(order).reshape(-1, tree_width)
    return np.packbits(whole, bitorder="little").view(np.uint64).reshape(*rows, -1)


def columns(view, bits):
    """A view, flattened: name -> (uint64 (n,), how many bits of it count).

    Args:
        view: name -> ring elements, Lanes, Masked or a tuple of such.
        bits: of the ring.
    """
    flat = {}
    for name, value in view.items():
        if isinstance(value, Lanes):
            for i, row in enumerate(value.words.reshape(-1, value.words.shape[-1])):
                flat[f"{name}[{i}]"] = row, value.width
        elif isinstance(value, Masked):
            flat |= columns({f"{name}.delta": value.delta, f"{name}.a": value.a}, bits)
        elif isinstance(value, tuple):
            flat |= columns({f"{name}.{i}": part for i, part in enumerate(value)}, bits)
        else:
            for i, column in enumerate(value.reshape(len(value), -1).T):
                flat[f"{name}[{i}]"] = column & np.uint64(2**bits - 1), bits
    return flat
