"""Comparison, what is selected by its bit, and the gates of its tree, each as in `ideal`."""

from types import SimpleNamespace
from typing import ClassVar, NamedTuple

import numpy as np

from smpc.audit.ideal import SMALL, Compiled, Input, Outcome, Output, Protocol
from smpc.audit.variables import random_bits
from smpc.semi2k import comparison, dealer, ring
from smpc.semi2k.program import Instruction


class Select(Protocol):
    """x y in fresh shares, for a bit x and a masked value y, or another bit."""

    corrections: ClassVar = {"z": "select.c"}
    conditioned = True
    free = ("select", "y")

    def __init__(self, form="masked"):
        super().__init__()
        self.name = {"masked": "select", "bit": "product of bits"}[form]
        self.inputs = {"x": Input("bit"), "y": Input(form)}

    def steps(self, n):
        return [("select", "select", ("z",), ("x", "y"), (n,))]

    def functionality(self, coins, secrets, masks):
        x, y = (secrets[name].astype(np.uint64) for name in "xy")
        return Outcome({"z": Output(x * y)})

    def corrected(self, coins, party, view, outputs, registers):
        signs = [registers[name].sign for name in "xy"]
        sign = signs[0] if signs[1] is None else signs[0] * signs[1]
        return {"select.c": sign * (outputs["z"] - registers["z"])}


class Comparison(Protocol):
    """e = (x > 0) XOR rho, uniform and public, and rho in fresh shares, for a masked x.

    Args:
        compared: how many of the lowest bits of x are compared.
    """

    inputs: ClassVar = {"x": Input("hidden")}
    outputs = ("b",)
    conditioned = True

    def __init__(self, bits=SMALL, compared=None):
        super().__init__(bits)
        self.compared = compared or bits
        self.name = "comparison" if compared is None else f"comparison of {compared} bits"

    def values(self):
        return range(1 - 2 ** (self.compared - 1), 2 ** (self.compared - 1))

    def steps(self, n):
        return [("compare", "above_zero", ("b",), ("x",), (n,), self.compared)]

    def functionality(self, coins, secrets, masks):
        return Outcome({"b": self.compared_with_zero(coins, secrets["x"])})

    def compared_with_zero(self, coins, x):
        """The bit x > 0."""
        e = random_bits(coins, "e")
        rho = (ring.signed(x, self.bits) > 0) ^ e
        return Output(rho.astype(np.uint64), e.astype(np.uint64), "compare.rho")

    def known(self, coins, party, outputs):
        e = np.uint64(1) & outputs["b"].delta
        last = f"compare.opened{len(comparison.fan_ins(self.compared))}"
        return {"compare.rho": outputs["b"].a, last: e.astype(bool)}


class Gates(NamedTuple):
    """What is dealt for `comparison.and_gates` alone, on n elements of one node each."""

    n: int
    terms: tuple

    def fields(self):
        """See `dealer.Field`."""
        masks = (len(comparison.variables(self.terms)), self.n // 64)
        products = (len(comparison.mask_products(self.terms)), self.n // 64)
        return [
            dealer.Field("masks", masks, boolean=True),
            dealer.Field("products", products, boolean=True, derived=True),
        ]

    def make(self, sums, *known):
        """The products of the masks."""
        return {"products": dealer.products_of_masks(sums["masks"], self.terms)}, ()


class AndGates(Protocol):
    """The AND of the bits in each of `terms`, in fresh shares; each bit is opened once, for all.

    It is part of an instruction, and stands here as one of its own: see `simulator.SmallRun`.
    """

    def __init__(self, terms):
        super().__init__()
        self.terms, self.variables = terms, comparison.variables(terms)
        n, gates = len(self.variables), len(terms)
        self.name = f"AND gate of {n}" if gates == 1 else f"node of {gates} AND gates"
        self.inputs = dict.fromkeys(self.variables, Input("xor"))
        self.outputs = tuple(" ".join(term) for term in terms)
        self.conditioned = n > 3
        products = comparison.mask_products(terms)
        self.all_masks = [products.index(tuple(sorted(term))) for term in terms]
        self.free = tuple(f"gates.products[{i}]" for i in self.all_masks)

    def program(self, n):
        ins = tuple(range(len(self.inputs)))
        outs = tuple(len(ins) + i for i in range(len(self.outputs)))
        item = Gates(n, self.terms)
        program = SimpleNamespace(
            instructions=(Instruction("and_gates", outs, ins, (self.terms,)),),
            inputs=tuple((register, "share", (n // 64,)) for register in ins),
            deals=(item,),
            fields=(item.fields(),),
            users={},
            needs=[0],
        )
        registers = dict(zip((*self.inputs, *self.outputs), (*ins, *outs), strict=True))
        return Compiled(program, b"", ("gates",), registers)

    def functionality(self, coins, secrets, masks):
        ands = (np.bitwise_and.reduce([secrets[name] for name in term]) for term in self.terms)
        return Outcome(dict(zip(self.outputs, map(Output, ands), strict=True)))

    def known(self, coins, party, outputs):
        products = np.zeros((coins.n, len(comparison.mask_products(self.terms))), bool)
        for i in set(range(products.shape[1])) - set(self.all_masks):
            products[:, i] = coins.draw(f"{party}.gates.products[{i}]", 2)
        return {"gates.products": products}

    def corrected(self, coins, party, view, outputs, registers):
        products = view[
            "gates.products"
        ].copy()  # that of all masks of a term makes up for the rest
        for i, z in zip(self.all_masks, self.outputs, strict=True):
            products[:, i] = outputs[z] ^ registers[z]
        return {"gates.products": products}
