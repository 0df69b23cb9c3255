"""The protocols of semi2k, each with its ideal functionality and the simulator of a worker's view.

A functionality takes the secrets and gives each worker its outputs: what is public, and a fresh
share of what is not. A simulator gets one worker's inputs and outputs, and makes its view, which is
what it is dealt ("label.field") and what is opened ("label.opened", numbered).
"""

import functools
from typing import ClassVar, NamedTuple

import numpy as np

from smpc.audit.variables import (
    Lanes,
    elements,
    field_like,
    fresh_shares,
    packed,
    unpacked,
)
from smpc.semi2k import arithmetic, comparison, dealer, ring
from smpc.semi2k.arithmetic import Masked

SMALL = 4  # bits of the ring that is enumerated


class Protocol:
    """A protocol, its ideal functionality and its simulator.

    Attributes:
        name: what a table calls it.
        bits: of the ring.
        inputs: name -> shape of one element's secret.
        boolean: whether the secrets are bits, XOR-shared.
        conditioned: whether it has too many random values to enumerate all.
    """

    name: str
    inputs: ClassVar = {"x": ()}
    boolean = conditioned = False

    def __init__(self, bits=SMALL):
        self.bits = bits

    def values(self):
        """A range: the secrets that it takes, read as signed."""
        return range(-(2 ** (self.bits - 1)), 2 ** (self.bits - 1))

    def held(self, variable):
        """Whether its enumeration is conditioned on this variable."""
        return self.conditioned and variable.startswith("own.")

    def real(self, world, **shares):
        """Have both workers run it in a `simulator.Real`: the pair of their outputs.

        `shares` are pairs, too.
        """
        raise NotImplementedError

    def functionality(self, coins, **secrets):
        """(one worker's outputs, the other's); to the first, what is public, too."""
        raise NotImplementedError

    def simulator(self, coins, party, inputs, outputs):
        """A worker's view, but for its inputs: name -> ring elements or Lanes."""
        raise NotImplementedError

    def revealed(self, coins, **secrets):
        """What the orchestrator is to see of a value revealed to it: name -> ring elements."""
        return {}

    def program(self, n):
        """(label -> instruction, registers of the outputs), for n elements on Z_2^64."""
        raise NotImplementedError

    def uniform(self, coins, name, shape=()):
        """Uniform ring elements."""
        return elements(coins, name, 2**self.bits, shape)

    def fresh(self, coins, value, name="output"):
        """A functionality's outputs: `value` in fresh shares."""
        return fresh_shares(coins, name, value, self.bits)


class Sharing(Protocol):
    """A data owner shares x; the workers do nothing, and have its shares as their outputs."""

    name = "sharing"

    def real(self, world, x):
        return x

    def functionality(self, coins, x):
        return self.fresh(coins, x)

    def simulator(self, coins, party, inputs, outputs):
        return {"x": outputs}

    def program(self, n):
        return {}, 0


class Mask(Protocol):
    """delta, uniform and public, and x - delta in fresh shares."""

    name = "mask"

    def real(self, world, x):
        deals, _ = world.deal("mask", dealer.Mask((world.coins.n,)))
        return world.run("mask", arithmetic.mask, deals, x)

    def functionality(self, coins, x):
        delta = self.uniform(coins, "delta")
        one, other = self.fresh(coins, x - delta)
        return Masked(delta, one), Masked(delta, other)

    def simulator(self, coins, party, inputs, outputs):
        return {"mask.a": outputs.a, "mask.opened0": outputs.delta}

    def program(self, n):
        return {"mask": ("mask", (1,), (0,), ((n,),))}, 1


class Product(Protocol):
    """x y in fresh shares; each is opened under a mask of its own."""

    name = "product"
    op = "mul"
    inputs: ClassVar = {"x": (), "y": ()}
    pairs = (("x", "y"),)  # of factors
    conditioned = True

    def held(self, variable):
        return super().held(variable) and ".c[" not in variable

    @property
    def times(self):
        """The product of ring elements."""
        return arithmetic.TIMES[self.op]

    def item(self, n, pair):
        """(label, what is dealt) for a product."""
        factors = tuple(np.zeros((1, *self.inputs[name]), np.uint64) for name in pair)
        return "product " + " ".join(pair), (self.op, (n, *self.times(factors).shape[1:]))

    def real(self, world, **shares):
        n, masked, masks = world.coins.n, {}, {}
        for name, x in shares.items():
            deals, made = world.deal(f"mask {name}", dealer.Mask((n, *self.inputs[name])))
            masked[name] = world.run(f"mask {name}", arithmetic.mask, deals, x)
            masks[name] = made["a"]
        outputs = []
        for pair in self.pairs:
            label, item = self.item(n, pair)
            deals, _ = world.deal(label, dealer.Product(*item), *(masks[name] for name in pair))
            product = functools.partial(arithmetic.product, times=self.times)
            outputs.append(world.run(label, product, deals, *(masked[name] for name in pair)))
        return tuple(zip(*outputs, strict=True))

    def functionality(self, coins, **secrets):
        products = (self.times(tuple(secrets[name] for name in pair)) for pair in self.pairs)
        outputs = [self.fresh(coins, z, f"output {i}") for i, z in enumerate(products)]
        return tuple(zip(*outputs, strict=True))

    def simulator(self, coins, party, inputs, outputs):
        view, masked = {}, {}
        for name, shape in self.inputs.items():
            label = f"mask {name}"
            a = self.uniform(coins, f"own.{label}.a", shape)
            delta = self.uniform(coins, f"delta {name}", shape)
            masked[name] = Masked(delta, a)
            view |= {f"{label}.a": a, f"{label}.opened0": delta}
        for pair, z in zip(self.pairs, outputs, strict=True):
            factors = (masked[name] for name in pair)
            rest = arithmetic.product(party, {"c": np.zeros_like(z)}, *factors, self.times)
            view[self.item(coins.n, pair)[0] + ".c"] = z - rest
        return view

    def program(self, n):
        count = len(self.inputs)
        registers = {name: count + i for i, name in enumerate(self.inputs)}
        instructions, outputs = {}, []
        for name, shape in self.inputs.items():
            out = registers[name]
            instructions[f"mask {name}"] = ("mask", (out,), (out - count,), ((n, *shape),))
        for pair in self.pairs:
            label, item = self.item(n, pair)
            outputs.append(2 * count + len(outputs))
            ins = tuple(registers[name] for name in pair)
            instructions[label] = ("product", (outputs[-1],), ins, item)
        return instructions, tuple(outputs)


class MatrixProduct(Product):
    """A row times a column, in fresh shares."""

    name = "matrix product"
    op = "matmul"
    inputs: ClassVar = {"x": (1, 2), "y": (2, 1)}

    def held(self, variable):
        return super().held(variable) or variable.startswith("secret.")


class KeptMask(Product):
    """x y and x z in fresh shares; x is opened once."""

    name = "kept mask"
    inputs: ClassVar = {"x": (), "y": (), "z": ()}
    pairs = (("x", "y"), ("x", "z"))

    def held(self, variable):
        return super().held(variable) or variable.startswith("secret.")


class Truncation(Protocol):
    """c, uniform and public, and in fresh shares x / d, rounded as c says.

    That is, with floors of quotients of integers, c div d - (c - x - O) div d - O / d.
    """

    conditioned = True

    def __init__(self, bits=SMALL, d=3):
        super().__init__(bits)
        self.name, self.d = f"truncation by {d}", d
        self.offset = arithmetic.offset(d, bits)

    def values(self):
        return range(-self.offset, 2 ** (self.bits - 1) - self.offset)

    def held(self, variable):
        return variable.startswith("own.x")

    def real(self, world, x):
        item = dealer.Truncation((world.coins.n,), self.d, self.bits)
        deals, _ = world.deal("truncate", item)
        truncate = functools.partial(arithmetic.truncate, d=self.d, bits=self.bits)
        return world.run("truncate", truncate, deals, x)

    def functionality(self, coins, x):
        c, d = self.uniform(coins, "c"), np.uint64(self.d)
        v = (x + np.uint64(self.offset)) & np.uint64(2**self.bits - 1)
        negative = ring.signed(c - v) // np.int64(self.d)
        quotient = np.where(c < v, negative.view(np.uint64), (c - v) // d)
        y = c // d - quotient - np.uint64(self.offset // self.d)
        error = ring.signed(y, self.bits) - ring.signed(x, self.bits) // self.d
        if not set(np.unique(error)) <= {0, 1}:
            raise RuntimeError("this is not x / d, rounded down or up")
        one, other = self.fresh(coins, y)
        return (c, one), other

    def simulator(self, coins, party, inputs, outputs):
        c, y = outputs
        chosen = -y
        if party == 0:
            chosen += c // np.uint64(self.d) - np.uint64(self.offset // self.d)
        top = (c >> np.uint64(self.bits - 1)).astype(bool)
        unused = self.uniform(coins, "quotient not chosen")
        return {
            "truncate.r": self.uniform(coins, "r"),
            "truncate.unsigned": np.where(top, chosen, unused),
            "truncate.signed": np.where(top, unused, chosen),
            "truncate.opened0": c,
        }

    def program(self, n):
        return {"truncate": ("truncate", (1,), (0,), ((n,), self.d))}, 1


class Gates(NamedTuple):
    """What is dealt for `comparison.and_gates` alone, on n elements of one node each."""

    n: int
    terms: tuple

    def fields(self):
        """See `dealer.Field`."""
        masks = (len(comparison.variables(self.terms)), self.n // 4)
        products = (len(comparison.mask_products(self.terms)), self.n // 4)
        return [
            dealer.Field("masks", masks, boolean=True),
            dealer.Field("products", products, boolean=True, derived=True),
        ]

    def derive(self, secret):
        """The products of the masks."""
        return {"products": dealer.products_of_masks(secret["masks"], self.terms)}


class AndGates(Protocol):
    """The AND of the bits in each of `terms`, in fresh shares; each bit is opened once, for all."""

    boolean = True

    def __init__(self, terms):
        super().__init__()
        self.terms, self.variables = terms, comparison.variables(terms)
        self.name = f"AND gate of {len(self.variables)}" if len(terms) == 1 else "node of AND gates"
        self.inputs = dict.fromkeys(self.variables, ())
        self.conditioned = len(self.variables) > 3
        products = comparison.mask_products(terms)
        self.all_masks = [products.index(tuple(sorted(term))) for term in terms]

    def held(self, variable):
        of_output = {f"own.gates.products[{i}]" for i in self.all_masks}
        return super().held(variable) and variable not in of_output

    def real(self, world, **shares):
        n = world.coins.n
        deals, _ = world.deal("gates", Gates(n, self.terms))

        def gates(party, deal, *bits):
            bits = (packed(bit, SMALL) for bit in bits)
            return self.run(party, deal["masks"], deal["products"], bits)

        outputs = world.run("gates", gates, deals, *(shares[name] for name in self.variables))
        return tuple(tuple(unpacked(z, True, n, SMALL) for z in output) for output in outputs)

    def run(self, party, masks, products, bits):
        """A worker's side."""
        named = dict(zip(self.variables, bits, strict=True))
        return comparison.and_gates(party, masks, products, named, self.terms)

    def functionality(self, coins, **secrets):
        outputs = []
        for i, term in enumerate(self.terms):
            z = np.bitwise_and.reduce([secrets[name].words for name in term])
            outputs.append(self.fresh(coins, Lanes(z, 1), f"output {i}"))
        return tuple(zip(*outputs, strict=True))

    def simulator(self, coins, party, inputs, outputs):
        masks_field, products_field = Gates(coins.n, self.terms).fields()
        masks = field_like(coins, "own.gates.masks", masks_field, SMALL)
        opened = field_like(coins, "opened", masks_field, SMALL)
        products = np.zeros((products_field.shape[0], coins.n), np.uint64)
        for i in range(len(products)):
            if i not in self.all_masks:
                products[i] = coins.draw(f"own.gates.products[{i}]", 2)
        # the worker's own code, and then the product of all masks of a term makes up for the rest
        worker = self.run(party, masks.words, products, (inputs[v].words for v in self.variables))
        next(worker)
        try:
            worker.send(opened.words)
        except StopIteration as finished:
            for i, z, rest in zip(self.all_masks, outputs, finished.value, strict=True):
                products[i] = z.words ^ rest
        view = {"masks": masks, "products": Lanes(products, 1), "opened0": opened}
        return {f"gates.{name}": value for name, value in view.items()}


class Comparison(Protocol):
    """e = (x > 0) XOR rho and c = r - x, uniform and public, and rho and r in fresh shares."""

    name = "comparison"
    conditioned = True

    def values(self):
        return range(1 - 2 ** (self.bits - 1), 2 ** (self.bits - 1))

    def real(self, world, x):
        deals, _ = world.deal("compare", dealer.Comparison(world.coins.n, self.bits))
        compare = functools.partial(comparison.above_zero, bits=self.bits)
        return world.run("compare", compare, deals, x)

    def functionality(self, coins, x):
        e, c = coins.draw("e", 2), self.uniform(coins, "c")
        rho = (ring.signed(x, self.bits) > 0).astype(np.uint64) ^ e
        rho, other_rho = self.fresh(coins, rho, "own.compare.rho")
        r, other_r = self.fresh(coins, c + x, "own.compare.r")
        return (Masked(e, rho), Masked(-c, r)), (Masked(e, other_rho), Masked(-c, other_r))

    def simulator(self, coins, party, inputs, outputs):
        bit, x = outputs
        fields = {field.name: field for field in dealer.Comparison(coins.n, self.bits).fields()}
        view = {"rho": bit.a, "r": x.a, "opened0": -x.delta}
        for name, field in fields.items():
            if name not in view:
                view[name] = field_like(coins, f"own.compare.{name}", field, self.bits)
        depth = comparison.levels(self.bits)
        for level in range(depth):
            masks = fields[f"masks{level}"]
            view[f"opened{level + 1}"] = field_like(coins, f"opened{level}", masks, self.bits)
        view[f"opened{depth + 1}"] = Lanes(bit.delta, 1)
        return {f"compare.{name}": value for name, value in view.items()}

    def program(self, n):
        return {"compare": ("above_zero", (1, 2), (0,), ((n,),))}, (1, 2)


class Refresh(Protocol):
    """x in fresh shares."""

    name = "refresh"

    def real(self, world, x):
        deals, _ = world.deal(self.name, dealer.Zero((world.coins.n,)))
        return world.run(self.name, arithmetic.refresh, deals, x)

    def functionality(self, coins, x):
        return self.fresh(coins, x)

    def simulator(self, coins, party, inputs, outputs):
        return {"refresh.zero": outputs - inputs["x"]}

    def program(self, n):
        return {"refresh": ("refresh", (1,), (0,), ((n,),))}, 1


class Reveal(Refresh):
    """x to the orchestrator, which does not see the shares of x; to the workers, nothing."""

    name = "reveal"

    def real(self, world, x):
        world.revealed["revealed"] = super().real(world, x)
        return (), ()

    def functionality(self, coins, x):
        return (), ()

    def simulator(self, coins, party, inputs, outputs):
        return {"reveal.zero": self.uniform(coins, "zero")}

    def revealed(self, coins, x):
        return {"revealed": self.fresh(coins, x)}

    def program(self, n):
        return {"reveal": ("reveal", (), (0,), ((n,),))}, ()
