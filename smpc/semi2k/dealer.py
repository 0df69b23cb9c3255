"""What the crypto provider makes: masks, products of masks, truncation pairs, comparison masks.

A dealt item has uniform fields and derived ones. Each worker draws its share of a uniform field
from the stream that it shares with the provider. Of a derived field worker1 draws its share, too;
worker2's is what makes the two add up (XOR, for bits), and that correction is all that is sent.
"""

import math
from typing import NamedTuple

import numpy as np

from smpc.semi2k import comparison, ring
from smpc.semi2k.arithmetic import TIMES


class Field(NamedTuple):
    """A field of a dealt item.

    Attributes:
        name: what the worker's side of the protocol calls it.
        shape: of its uint64 array.
        boolean: whether it is XOR-shared, rather than additively.
        derived: whether the other fields determine it.
    """

    name: str
    shape: tuple
    boolean: bool = False
    derived: bool = False

    @property
    def size(self):
        """Words in it."""
        return math.prod(self.shape)


class Mask(NamedTuple):
    """For `arithmetic.mask`: a uniform a."""

    shape: tuple

    def fields(self):
        """See `Field`."""
        return [Field("a", self.shape)]

    def derive(self, secret):
        """Nothing: all of it is uniform."""
        return {}


class Product(NamedTuple):
    """For `arithmetic.product`: c, the product of two masks of this run or of an earlier one."""

    op: str
    shape: tuple

    def fields(self):
        """See `Field`."""
        return [Field("c", self.shape, derived=True)]

    def derive(self, secret, a, b):
        """c = a times b, of shape `shape`."""
        return {"c": TIMES[self.op]((a, b))}


class Truncation(NamedTuple):
    """For `arithmetic.truncate` by d: r, and r div d for r unsigned and signed, both floored."""

    shape: tuple
    d: int
    bits: int = 64

    def fields(self):
        """See `Field`."""
        return [
            Field("r", self.shape),
            Field("unsigned", self.shape, derived=True),
            Field("signed", self.shape, derived=True),
        ]

    def derive(self, secret):
        """Both quotients."""
        r = secret["r"]
        signed = ring.signed(r, self.bits) // np.int64(self.d)
        return {"unsigned": r // np.uint64(self.d), "signed": signed.view(np.uint64)}


class Comparison(NamedTuple):
    """For `comparison.above_zero` of n elements, n as `comparison.lanes` rounds it."""

    n: int
    bits: int = 64

    def fields(self):
        """See `Field`."""
        words = self.n // 4 ** comparison.levels(self.bits)
        fields = [
            Field("r", (self.n,)),
            Field("rho_bits", (words,), boolean=True),
            Field("r_bits", (self.n,), boolean=True, derived=True),
            Field("rho", (self.n,), derived=True),
        ]
        for level, terms in self._levels():
            width = self.n // 4 ** (level + 1)
            n_masks = len(comparison.variables(terms))
            n_products = len(comparison.mask_products(terms))
            fields += [
                Field(f"masks{level}", (n_masks, width), boolean=True),
                Field(f"products{level}", (n_products, width), boolean=True, derived=True),
            ]
        return fields

    def derive(self, secret):
        """The bits of r, rho as ring elements, and the products of the tree's masks."""
        rho = comparison.unpack(secret["rho_bits"], self.bits)
        derived = {"r_bits": secret["r"], "rho": rho}
        for level, terms in self._levels():
            derived[f"products{level}"] = products_of_masks(secret[f"masks{level}"], terms)
        return derived

    def _levels(self):
        """Each level of the tree, and what its nodes compute."""
        depth = comparison.levels(self.bits)
        return [(level, comparison.terms(level == depth - 1)) for level in range(depth)]


def products_of_masks(masks, terms):
    """For `comparison.and_gates`: the products of its masks, stacked."""
    masks = dict(zip(comparison.variables(terms), masks, strict=True))
    return np.stack(
        [
            np.bitwise_and.reduce([masks[name] for name in subset])
            for subset in comparison.mask_products(terms)
        ]
    )


class Zero(NamedTuple):
    """A fresh sharing of zero, to refresh what is about to be revealed."""

    shape: tuple

    def fields(self):
        """See `Field`."""
        return [Field("zero", self.shape, derived=True)]

    def derive(self, secret):
        """Zeros."""
        return {"zero": np.zeros(self.shape, dtype=np.uint64)}
