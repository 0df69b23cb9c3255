"""What the crypto provider makes: masks, products of masks, quotients, what a comparison needs.

A dealt item has uniform fields and derived ones. Each worker draws its share of a uniform field
from the stream that it shares with the provider. Of a derived field all but the last worker draw
their shares, too; the last one's is what makes them add up (XOR, for bits), and that correction is
all that is sent. So what is dealt does not grow with the number of workers.

An item is made from the sums of the workers' draws and from `known`, the provider's part of each
value that the instruction reads: m of a partial (0 of a share), a of a masked value, rho of a bit.
"""

import math
from typing import NamedTuple

import numpy as np

from smpc.semi2k import comparison, ring
from smpc.semi2k.arithmetic import TIMES
from smpc.semi2k.ring import Words

# What the derived fields' shares add up to, by name; the provider's part of each result.
Made = tuple[dict[str, Words], tuple[Words, ...]]


class Field(NamedTuple):
    """A field of a dealt item.

    Attributes:
        name: what the worker's side of the protocol calls it.
        shape: of its array of words.
        boolean: whether it is XOR-shared, rather than additively.
        derived: whether the provider decides what its shares add up to.
    """

    name: str
    shape: tuple[int, ...]
    boolean: bool = False
    derived: bool = False

    @property
    def size(self):
        """Words in it."""
        return math.prod(self.shape)


class Mask(NamedTuple):
    """For `arithmetic.mask`."""

    shape: tuple[int, ...]

    def fields(self) -> list[Field]:
        """See `Field`."""
        return [Field("s", self.shape)]

    def make(self, sums: dict[str, Words], m: Words) -> Made:
        """({}, (a,)): a = s + m."""
        return {}, (sums["s"] + m,)


class Selection(NamedTuple):
    """For `arithmetic.select`: c, the product of the masks."""

    shape: tuple[int, ...]

    def fields(self) -> list[Field]:
        """See `Field`."""
        return [Field("c", self.shape, derived=True)]

    def make(self, sums: dict[str, Words], rho: Words, a: Words) -> Made:
        """({c}, (0,)): c = rho a; the result is a share."""
        return {"c": rho * a}, (zeros(self.shape),)


class Sharing(NamedTuple):
    """For `arithmetic.complete` and `arithmetic.unhide`: what the provider knows of a value."""

    shape: tuple[int, ...]
    name: str  # "m" for the one and "a" for the other

    def fields(self) -> list[Field]:
        """See `Field`."""
        return [Field(self.name, self.shape, derived=True)]

    def make(self, sums: dict[str, Words], known: Words) -> Made:
        """({m or a}, (0 or a,))."""
        rest = zeros(self.shape) if self.name == "m" else known
        return {self.name: np.broadcast_to(known, self.shape)}, (rest,)


class Truncation(NamedTuple):
    """For `arithmetic.truncate` by d; `shared`: whether the workers need shares of y's mask."""

    shape: tuple[int, ...]
    d: int
    zone: int
    shared: bool
    bits: int = 64

    def fields(self) -> list[Field]:
        """See `Field`."""
        quotient = [Field("q", self.shape, derived=True)] if self.shared else []
        return [Field("s", self.shape), *quotient]

    def make(self, sums: dict[str, Words], m: Words) -> Made:
        """({q}, (a of y, a of x)): q = -(r div d), which is y's mask; -r is x's."""
        minus_r = m - sums["s"]
        q = -((-minus_r & np.uint64(2**self.bits - 1)) // np.uint64(self.d))
        return {"q": q} if self.shared else {}, (q, minus_r)


class ExactTruncation(NamedTuple):
    """For `arithmetic.truncate_exactly` by d."""

    shape: tuple[int, ...]
    d: int
    bits: int = 64

    def fields(self) -> list[Field]:
        """See `Field`."""
        quotients = [Field(name, self.shape, derived=True) for name in ("unsigned", "signed")]
        return [Field("s", self.shape), *quotients]

    def make(self, sums: dict[str, Words], m: Words) -> Made:
        """(both quotients of r, (0, a of x)): y is a share; -r is x's mask."""
        r = (sums["s"] - m) & np.uint64(2**self.bits - 1)
        signed = ring.signed(r, self.bits) // np.int64(self.d)
        quotients = {"unsigned": r // np.uint64(self.d), "signed": signed.view(np.uint64)}
        return quotients, (zeros(self.shape), -r)


class Comparison(NamedTuple):
    """For `comparison.above_zero` of n elements of so many bits."""

    n: int
    bits: int

    def fields(self) -> list[Field]:
        """See `Field`."""
        n = comparison.padded(self.n)
        fields = [
            Field("rho_bits", (n // 64,), boolean=True),
            Field("rho", (n,), derived=True),
            Field("r", (self.bits, n // 64), boolean=True, derived=True),
        ]
        for level, terms, nodes in self._levels():
            n_masks = len(comparison.variables(terms))
            n_products = len(comparison.mask_products(terms))
            shape = (nodes, n // 64)
            fields += [
                Field(f"masks{level}", (n_masks, *shape), boolean=True),
                Field(f"products{level}", (n_products, *shape), boolean=True, derived=True),
            ]
        return fields

    def make(self, sums: dict[str, Words], a: Words) -> Made:
        """(the bits of r = -a, rho as ring elements, products of the tree's masks; (rho,))."""
        n = comparison.padded(self.n)
        rho = comparison.unpack(sums["rho_bits"])
        r = np.zeros(n, dtype=np.uint64)
        np.negative(a.ravel(), out=r[: self.n])
        derived = {"r": comparison.planes(r, self.bits), "rho": rho}
        for level, terms, _ in self._levels():
            derived[f"products{level}"] = products_of_masks(sums[f"masks{level}"], terms)
        return derived, (rho[: self.n].reshape(a.shape),)

    def _levels(self):
        """Each level of the tree, what its nodes compute, and how many there are."""
        fans = comparison.fan_ins(self.bits)
        levels = zip(fans, comparison.widths(self.bits), strict=True)
        for level, (fan_in, width) in enumerate(levels):
            yield level, comparison.terms(fan_in, level == len(fans) - 1), width // fan_in


def products_of_masks(masks: Words, terms: tuple[comparison.Term, ...]) -> Words:
    """For `comparison.and_gates`: the products of its masks, stacked."""
    masks = dict(zip(comparison.variables(terms), masks, strict=True))
    return np.stack(
        [
            np.bitwise_and.reduce([masks[name] for name in subset])
            for subset in comparison.mask_products(terms)
        ]
    )


def product_of_masks(op: str, a: Words, b: Words) -> Words:
    """For `arithmetic.product`: m, which nobody is dealt."""
    return TIMES[op]((a, b))


def zeros(shape: tuple[int, ...]) -> Words:
    """What the provider knows of a share: 0."""
    return np.broadcast_to(np.uint64(0), shape)
