"""Random variables, enumerated or sampled, and what parties see of them, laid out in columns.

Elements of a ring are uint64 arrays (n, ...), whose first axis counts points of an enumeration or
samples; bits are bool arrays (n, ...). A variable is drawn once: asked for again by its name, it
has the same values.
"""

import functools
import itertools
import math

import numpy as np

from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.randomness import Stream, new_key


class Enumeration:
    """Random variables that take each combination of their values once over the points.

    Args:
        n: how many points, each of them a run of its own.
        held: a `Held`: the variables that are conditioned on take one value.
    Attributes:
        combinations: how many points the variables drawn so far need.
    """

    apart = True

    def __init__(self, n, held):
        self.n, self.held, self.combinations = n, held, 1
        self._drawn, self._points = {}, np.arange(n, dtype=np.uint64)

    def draw(self, name, size):
        """The variable of that name, uniform on [0, size): uint64 (n,)."""
        if name not in self._drawn:
            self._drawn[name] = self._enumerated(name, size)
        return self._drawn[name]

    def _enumerated(self, name, size):
        if self.held.names(name):
            return np.full(self.n, self.held.value(name) % size, dtype=np.uint64)
        before, self.combinations = self.combinations, self.combinations * size
        if (
            self.combinations & self.combinations - 1 == 0
        ):  # powers of two, and several times faster
            return self._points >> np.uint64(before.bit_length() - 1) & np.uint64(size - 1)
        return self._points // np.uint64(before) % np.uint64(size)


class Held:
    """Random values of the variables that are conditioned on, the same in both worlds.

    Args:
        names: a function of a variable's name: whether it is one of them.
    """

    def __init__(self, names):
        self.names, self.values = names, {}
        self._stream, self._addresses = Stream(new_key(), "held"), itertools.count()

    def value(self, name):
        """A 64-bit number."""
        if name not in self.values:
            self.values[name] = int(self._stream.words((next(self._addresses), 0), 1)[0])
        return self.values[name]


class Sampling:
    """Random variables, n independent samples of each.

    Args:
        apart: whether each is a run of its own; else they are elements of the same.
    """

    def __init__(self, n, apart=False):
        self.n, self.apart, self._drawn = n, apart, {}
        self._stream, self._addresses = Stream(new_key(), "samples"), itertools.count()

    def draw(self, name, size):
        """The variable of that name, uniform on [0, size), a power of two: uint64 (n,)."""
        if name not in self._drawn:
            words = self._stream.words((next(self._addresses), 0), self.n)
            self._drawn[name] = words & np.uint64(size - 1)
        return self._drawn[name]


def elements(coins, name, size, shape=()):
    """For each point an array of variables, uniform on [0, size): uint64 (n, *shape)."""
    parts = [coins.draw(f"{name}[{i}]", size) for i in range(math.prod(shape))]
    return np.stack(parts, axis=-1).reshape(coins.n, *shape) if shape else parts[0]


def random_bits(coins, name, shape=()):
    """For each point an array of bits: bool (n, *shape)."""
    return elements(coins, name, 2, shape).astype(bool)


def uniform_like(coins, name, shape, boolean, width):
    """Uniform values for a dealt field, or for what is opened, of n elements.

    Args:
        shape: (n, ...) of ring elements; (..., n / 64) of planes of bits.
        boolean: whether it is XOR-shared; `width`: bits of the ring.
    """
    if boolean:
        return random_bits(coins, name, shape[:-1])
    return elements(coins, name, 2**width, shape[1:])


def shares_of(coins, name, value, width, n_workers, absent):
    """Fresh shares of ring elements, or XOR shares of bits: a list, one for each worker.

    All but `absent`'s, which makes up for the rest, are drawn, as `name`, a format of the worker's
    number.
    """
    shares = [None] * n_workers
    for worker in set(range(n_workers)) - {absent}:
        draw = random_bits if value.dtype == bool else functools.partial(elements, size=2**width)
        shares[worker] = draw(coins, name.format(worker), shape=value.shape[1:])
    shares[absent] = functools.reduce(minus, (s for s in shares if s is not None), value)
    return shares


def plus(one, other):
    """What two shares, of ring elements or of bits, make together."""
    return one ^ other if one.dtype == bool else one + other


def minus(value, share):
    """What is left of a value, ring elements or bits, beside one share."""
    return value ^ share if value.dtype == bool else value - share


def packed(values):
    """Bits, bool (n, ...), as planes: uint64 (..., n / 64)."""
    last = np.ascontiguousarray(np.moveaxis(values, 0, -1))
    return np.packbits(last, axis=-1, bitorder="little").view(np.uint64)


def unpacked(planes):
    """The inverse: planes, uint64 (..., n / 64), as bool (n, ...)."""
    octets = np.ascontiguousarray(planes).view(np.uint8)
    values = np.unpackbits(octets, axis=-1, bitorder="little").astype(bool)
    return np.ascontiguousarray(np.moveaxis(values, -1, 0))


def columns(view, width):
    """A view, flattened: name -> (uint64 (n,), how many bits of it count).

    The bits along the last axis of an array of two or more are one column.

    Args:
        view: name -> ring elements, bits or Masked.
        width: bits of the ring.
    """
    flat = {}
    for name, value in view.items():
        if isinstance(value, Masked):
            parts = {f"{name}.delta": value.delta, f"{name}.a": value.a}
            flat |= columns({k: part for k, part in parts.items() if part is not None}, width)
        elif value.dtype == bool:
            lanes = value.shape[-1] if value.ndim > 1 else 1
            rows = value.reshape(len(value), -1, lanes).astype(np.uint64)
            words = (rows << np.arange(lanes, dtype=np.uint64)).sum(axis=-1, dtype=np.uint64)
            for i, column in enumerate(words.T):
                flat[f"{name}[{i}]"] = column, lanes
        else:
            for i, column in enumerate(value.reshape(len(value), -1).T):
                flat[f"{name}[{i}]"] = column & np.uint64(2**width - 1), width
    return flat
