"""The protocols of semi2k, each with its ideal functionality and the simulator of a worker's view.

A protocol is a few instructions of `smpc.semi2k.program`. A functionality takes the secrets and
gives each worker its outputs: what is public, and a fresh share of what is not. A simulator gets
one worker's inputs and outputs, and makes its view, which is what it is dealt ("label.field") and
what is opened ("label.opened", numbered): what the outputs say (`known`), uniform values for the
rest, and, the worker's own code having run on these, the shares with which that ends in its share
of the output (`corrected`).
"""

from typing import ClassVar, NamedTuple

import numpy as np

from smpc.audit.variables import elements, shares_of
from smpc.semi2k import arithmetic
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.program import Program, pack_program

SMALL = 4  # bits of the ring that is enumerated


class Input(NamedTuple):
    """How the workers have a secret.

    Attributes:
        form: "share", "masked", "hidden" (masked, and they have no shares of its mask), "bit", or
            "xor" (of a bit, an XOR share). On Z_2^64, where an owner shares it, all are masked. Or
            "noise": each has a part of its own, and the secret is their sum; no program reads it.
        shape: of one element's secret.
    """

    form: str = "share"
    shape: tuple = ()


class Output(NamedTuple):
    """What a functionality gives the workers of one value.

    Attributes:
        shared: the value, or the mask of a masked one, given in fresh shares; or None.
        delta: of a masked value, public.
        variable: the name of the shares where they are what is dealt: "label.field".
    """

    shared: np.ndarray | None
    delta: np.ndarray | None = None
    variable: str | None = None

    def parts(self, coins, name, bits, n_workers, absent):
        """Each worker's, a list; `absent`'s share follows from those of the others."""
        shares = [None] * n_workers
        if self.shared is not None:
            variable = f"{{}}.{self.variable}" if self.variable else f"output {name} {{}}"
            shares = shares_of(coins, variable, self.shared, bits, n_workers, absent)
        return shares if self.delta is None else [Masked(self.delta, share) for share in shares]


class Outcome(NamedTuple):
    """What a functionality gives, over all points.

    Attributes:
        outputs: to the workers; name -> `Output`.
        revealed: to the orchestrator, ring elements, or None.
        anew: bool (n,): where the run is broken off, and that, and what was opened, is all that
            anybody is given; None: nowhere.
    """

    outputs: dict
    revealed: np.ndarray | None = None
    anew: np.ndarray | None = None


class Compiled(NamedTuple):
    """A protocol's program.

    Attributes:
        program, key: see `smpc.semi2k.program`.
        labels: of its instructions; `registers`: name -> number.
    """

    program: Program
    key: bytes
    labels: tuple
    registers: dict


class Protocol:
    """A protocol, its ideal functionality and its simulator.

    Attributes:
        name: what a table calls it.
        bits: of the ring.
        inputs: name -> `Input`; `outputs`: names; `inputs_given`: whether the workers have shares
            of the inputs beforehand; `reveals`: whether to the orchestrator; `broken_off`: whether
            on Z_2^64 every run of many elements is.
        corrections: name of an output -> "label.field" whose share makes up for it.
        conditioned: whether it has too many random values to enumerate all; then `free` are the
            beginnings of names of a worker's own that are enumerated all the same, and
            `few_secrets`, whether the secrets are not, and `few_masks`, nor what hides them.
    """

    name: str
    inputs: ClassVar = {"x": Input()}
    outputs = ("z",)
    inputs_given = True
    reveals = broken_off = False
    corrections: ClassVar = {}
    conditioned = few_secrets = few_masks = False
    free = ()

    def __init__(self, bits=SMALL):
        self.bits = bits

    def values(self):
        """A range: the secrets that it takes, read as signed."""
        return range(-(2 ** (self.bits - 1)), 2 ** (self.bits - 1))

    def held(self, variable):
        """Whether its enumeration is conditioned on this variable of a worker's own."""
        return self.conditioned and not variable.startswith(self.free)

    def hides_an_input(self, variable):
        """Whether this is a variable that hides a secret: part of its mask, or a share of it."""
        _, _, name = variable.partition(".")
        return name.partition(".")[0].partition("[")[0] in self.inputs

    def form(self, name):
        """The form of an input."""
        return self.inputs[name].form if self.bits < 64 else "masked"

    @property
    def read(self):
        """The names of the inputs that its program reads."""
        return [name for name, (form, _) in self.inputs.items() if form != "noise"]

    def steps(self, n):
        """Instructions (label, op, names of what it makes, of what it reads, parameters...)."""
        return []

    def program(self, n):
        """It, for n elements: `Compiled`."""
        steps, numbers, inputs = list(self.steps(n)), {}, []
        for name in self.read:
            register, (form, shape) = name, self.inputs[name]
            if form == "share" and self.form(name) == "masked":
                register = f"masked {name}"
                steps.insert(0, (f"unmask {name}", "unmask", (name,), (register,)))
            form = "share" if self.form(name) == "share" else "masked"
            inputs.append((numbers.setdefault(register, len(numbers)), form, (n, *shape)))
        instructions = []
        for _, op, outs, ins, *params in steps:
            registers = (
                tuple(numbers.setdefault(name, len(numbers)) for name in names)
                for names in (outs, ins)
            )
            instructions.append((op, *registers, tuple(params)))
        key = pack_program(instructions, inputs, tuple(numbers[name] for name in self.outputs))
        return Compiled(Program(key), key, tuple(label for label, *_ in steps), numbers)

    def functionality(self, coins, secrets, masks):
        """An `Outcome`; `masks`: of the inputs that are masked."""
        raise NotImplementedError

    def known(self, coins, party, outputs):
        """What a worker's outputs say of its view."""
        return {}

    def corrected(self, coins, party, view, outputs, registers):
        """The shares that make its own code end with these outputs; its registers are those that
        it ended with, these shares being 0."""
        return {name: outputs[z] - registers[z] for z, name in self.corrections.items()}

    def leakage(self, secrets, minus_r):
        """What the crypto provider is told, where a run may be broken off: whether it is.

        Args:
            minus_r: label of a truncation -> what masks the value that it divides.
        Returns:
            bool (n,).
        """
        raise NotImplementedError

    def uniform(self, coins, name, shape=()):
        """Uniform ring elements."""
        return elements(coins, name, 2**self.bits, shape)

    def reduced(self, x):
        """Ring elements."""
        return x & np.uint64(2**self.bits - 1)


class Sharing(Protocol):
    """A data owner shares x under a mask: delta, uniform and public, and shares of x - delta.

    The workers do nothing, and have what they receive as their outputs. The mask is the owner's and
    the provider's output.
    """

    name = "sharing"
    inputs: ClassVar = {"x": Input("masked")}
    outputs = ("x",)
    inputs_given = False

    def functionality(self, coins, secrets, masks):
        delta = self.uniform(coins, "delta")
        return Outcome({"x": Output(secrets["x"] - delta, delta)})


class Mask(Protocol):
    """delta, uniform and public, and x - delta in fresh shares."""

    name = "mask"
    outputs = ("y",)

    def steps(self, n):
        return [("mask", "mask", ("y",), ("x",), (n,), False)]

    def functionality(self, coins, secrets, masks):
        delta = self.uniform(coins, "delta")
        return Outcome({"y": Output(secrets["x"] - delta, delta, "mask.s")})

    def known(self, coins, party, outputs):
        return {"mask.s": outputs["y"].a, "mask.opened0": outputs["y"].delta}


class HiddenMask(Protocol):
    """delta, uniform and public, of a partial: of the mask nobody has a share."""

    name = "mask of a partial"
    inputs: ClassVar = {"x": Input("hidden")}
    outputs = ("y",)

    def steps(self, n):
        return [
            ("partial", "partial", ("p",), ("x",)),
            ("mask", "mask", ("y",), ("p",), (n,), True),
        ]

    def functionality(self, coins, secrets, masks):
        return Outcome({"y": Output(None, self.uniform(coins, "delta"))})

    def known(self, coins, party, outputs):
        return {"mask.opened0": outputs["y"].delta}


class Unhide(Protocol):
    """Shares of the mask of a value that is masked already."""

    name = "unhide"
    inputs: ClassVar = {"x": Input("hidden")}
    outputs = ("y",)

    def steps(self, n):
        return [("unhide", "unhide", ("y",), ("x",), (n,))]

    def functionality(self, coins, secrets, masks):
        mask = self.reduced(masks["x"])
        return Outcome({"y": Output(mask, secrets["x"] - mask, "unhide.a")})

    def known(self, coins, party, outputs):
        return {"unhide.a": outputs["y"].a}


class Refresh(Protocol):
    """x in fresh shares; `form`: in which it is given."""

    corrections: ClassVar = {"z": "complete.m"}

    def __init__(self, bits=SMALL, form="share"):
        super().__init__(bits)
        self.name = {"share": "refresh", "hidden": "complete"}[form]
        self.inputs = {"x": Input(form)}

    def steps(self, n):
        if self.inputs["x"].form == "share":
            return [("complete", "complete", ("z",), ("x",), (n,))]
        return [
            ("partial", "partial", ("p",), ("x",)),
            ("complete", "complete", ("z",), ("p",), (n,)),
        ]

    def functionality(self, coins, secrets, masks):
        return Outcome({"z": Output(secrets["x"])})


class Reveal(Protocol):
    """x to the orchestrator, which does not see the shares of x; to the workers, nothing."""

    outputs = ()
    reveals = True

    def __init__(self, bits=SMALL, form="share"):
        super().__init__(bits)
        self.name = {"share": "reveal", "hidden": "reveal of a partial"}[form]
        self.inputs = {"x": Input(form)}

    def steps(self, n):
        if self.inputs["x"].form == "share":
            return [("reveal", "reveal", (), ("x",), (n,))]
        return [("partial", "partial", ("p",), ("x",)), ("reveal", "reveal", (), ("p",), (n,))]

    def functionality(self, coins, secrets, masks):
        return Outcome({}, revealed=secrets["x"])


class Noised(Protocol):
    """x and each worker's own noise: delta, uniform and public, of the sum, which is given in fresh
    shares and revealed. Of its own part a worker knows what it drew, and of the others' nothing.

    (Noise is uniform here, where in truth it is a Gaussian: then so is each part beside the sum.)
    """

    name = "noise"
    inputs: ClassVar = {"x": Input(), "e": Input("noise")}
    outputs = ("z",)
    reveals = True

    def __init__(self, bits=SMALL // 2):
        super().__init__(bits)

    def steps(self, n):
        return [
            ("noise", "noise", ("y",), ("x",), (n,), 1, (), 0),
            ("mask", "mask", ("z",), ("y",), (n,), False),
            ("reveal", "reveal", (), ("y",), (n,)),
        ]

    def functionality(self, coins, secrets, masks):
        delta, y = self.uniform(coins, "delta"), self.reduced(secrets["x"] + secrets["e"])
        return Outcome({"z": Output(y - delta, delta, "mask.s")}, revealed=y)

    def known(self, coins, party, outputs):
        return {"mask.s": outputs["z"].a, "mask.opened0": outputs["z"].delta}


class Product(Protocol):
    """x y in fresh shares; each is opened under a mask of its own, and the product is a partial."""

    name = "product"
    op = "mul"
    inputs: ClassVar = {"x": Input(), "y": Input()}
    pairs = (("x", "y"),)  # of factors
    conditioned = True
    free = ("complete",)

    def __init__(self, bits=SMALL):
        super().__init__(bits)
        self.outputs = tuple(" ".join(pair) for pair in self.pairs)
        self.corrections = {z: f"complete {z}.m" for z in self.outputs}

    def times(self, pair):
        """The product of a pair of arrays."""
        return arithmetic.TIMES[self.op](pair)

    def steps(self, n):
        steps = [
            (f"mask {name}", "mask", (f"opened {name}",), (name,), (n, *shape), False)
            for name, (_, shape) in self.inputs.items()
        ]
        for x, y in self.pairs:
            opened = f"opened {x}", f"opened {y}"
            shapes = (np.zeros((1, *self.inputs[name].shape), np.uint64) for name in (x, y))
            shape = (n, *self.times(tuple(shapes)).shape[1:])
            z = f"{x} {y}"
            steps.append((f"product {z}", "product", (f"partial {z}",), opened, self.op))
            steps.append((f"complete {z}", "complete", (z,), (f"partial {z}",), shape))
        return steps

    def functionality(self, coins, secrets, masks):
        products = (self.times(tuple(secrets[name] for name in pair)) for pair in self.pairs)
        return Outcome(dict(zip(self.outputs, map(Output, products), strict=True)))


class MatrixProduct(Product):
    """A row times a column, in fresh shares."""

    name = "matrix product"
    op = "matmul"
    inputs: ClassVar = {"x": Input(shape=(1, 2)), "y": Input(shape=(2, 1))}
    few_secrets = True


class KeptMask(Product):
    """x y and x z in fresh shares; x is opened once."""

    name = "kept mask"
    inputs: ClassVar = {"x": Input(), "y": Input(), "z": Input()}
    pairs = (("x", "y"), ("x", "z"))
    few_secrets = True


class Linear(Protocol):
    """w y + w + x for w = 3 x - y + 1, in fresh shares: what is linear, in each of the forms."""

    name = "linear in all forms"
    inputs: ClassVar = {"x": Input("masked"), "y": Input("masked")}
    corrections: ClassVar = {"z": "complete.m"}
    conditioned = True
    free = ("complete",)

    def steps(self, n):
        one = np.ones(n, np.uint64).tobytes()
        return [
            ("scale", "scale", ("3 x",), ("x",), 3),
            ("subtract", "sub", ("3 x - y",), ("3 x", "y")),
            ("add 1", "add_public", ("w",), ("3 x - y",), (n,), one),
            ("product", "product", ("w y",), ("w", "y"), "mul"),
            ("partial", "partial", ("w.",), ("w",)),
            ("add partials", "add", ("w y + w",), ("w y", "w.")),
            ("unmask", "unmask", ("x.",), ("x",)),
            ("add a share", "add", ("w y + w + x",), ("w y + w", "x.")),
            ("complete", "complete", ("z",), ("w y + w + x",), (n,)),
        ]

    def functionality(self, coins, secrets, masks):
        x, y = secrets["x"], secrets["y"]
        w = np.uint64(3) * x - y + np.uint64(1)
        return Outcome({"z": Output(w * y + w + x)})
