"""Truncation, and what is made of the masks that it leaves, each as in `ideal`.

The c that is opened is an output, also of a run that is broken off for it: uniform and public. From
it the functionality chooses whether to round up or down: that is what the protocol does, and less
than a rounding drawn by itself. So on accepted runs c is uniform on [2^zone, 2^bits).
"""

from typing import ClassVar

import numpy as np

from smpc.audit.ideal import SMALL, Input, Outcome, Output, Protocol
from smpc.audit.ideal_comparison import Comparison
from smpc.semi2k import arithmetic, ring


def rounded(x, c, d, zone, bits):
    """What truncation by d is to make of x where it opens c: ring elements.

    Returns:
        of the quotient delta and the mask; and bool: where the run is broken off.
    """
    shift, divisor, most = arithmetic.offset(d, zone), np.uint64(d), np.uint64(2**bits - 1)
    r = c - x - np.uint64(shift) & most
    delta = c // divisor - np.uint64(shift // d)
    return delta, -(r // divisor) & most, c < np.uint64(2**zone)


def rounded_exactly(x, c, d, bits):
    """What exact truncation by d is to make of x where it opens c: ring elements."""
    shift, divisor = arithmetic.offset(d, bits - 1), np.uint64(d)
    v = x + np.uint64(shift) & np.uint64(2**bits - 1)
    negative = ring.signed(c - v) // np.int64(d)
    quotient = np.where(c < v, negative.view(np.uint64), (c - v) // divisor)
    return c // divisor - quotient - np.uint64(shift // d)


class Truncation(Protocol):
    """x / d, rounded as c says, masked by what is shared afresh; and x, masked by what is not.

    That is, with floors of quotients of integers, c div d - (c - x - O) div d - O / d.
    On a small ring it takes all numbers, also those for which it is not promised to be right.

    Args:
        d, zone: of the truncation; `form`: of x.
    """

    outputs = ("y", "t")
    conditioned = True
    free = ("truncate",)

    def __init__(self, bits=SMALL, d=2, zone=SMALL - 1, form="share"):
        super().__init__(bits)
        self.d, self.zone = d, zone
        self.offset = np.uint64(arithmetic.offset(d, zone))
        self.inputs = {"x": Input(form)}
        self.name = f"{'' if form == 'share' else 'partial '}truncation by {d} of {bits} bits"

    @property
    def most(self):
        """|x| is promised to be less."""
        return 2 ** (self.zone - 1) - self.d

    def values(self):
        return super().values() if self.bits < 64 else range(1 - self.most, self.most)

    def steps(self, n):
        partial = self.inputs["x"].form == "hidden"
        steps = [("partial", "partial", ("partial x",), ("x",))] if partial else []
        return [*steps, self.truncate(n, "partial x" if partial else "x")]

    def truncate(self, n, register):
        """The instruction that truncates."""
        params = (n,), self.d, self.zone, True
        return "truncate", "truncate", ("y", "t"), (register,), *params

    def truncated(self, secrets):
        """The value that it divides: ring elements."""
        return secrets["x"]

    def functionality(self, coins, secrets, masks):
        y, t, anew = self.rounded(coins, self.truncated(secrets))
        return Outcome({"y": y, "t": t}, anew=anew)

    def rounded(self, coins, x):
        """The two outputs for a value x, and where the run is broken off."""
        c = self.uniform(coins, "c")
        y, a, anew = rounded(x, c, self.d, self.zone, self.bits)
        value = ring.signed(x, self.bits)
        error = ring.signed(y + a, self.bits) * self.d - value
        wrong = (np.abs(error) >= self.d) | ((value % self.d == 0) & (error != 0))
        if (wrong & ~anew & (np.abs(value) < self.most)).any():
            raise RuntimeError("this is not x / d, rounded down or up")
        return Output(a, y, "truncate.q"), Output(None, c - self.offset), anew

    def known(self, coins, party, outputs):
        c = self.reduced(outputs["t"].delta + self.offset)
        return {"truncate.q": outputs["y"].a, "truncate.opened0": c}

    def leakage(self, secrets, minus_r):
        """For two values it is told otherwise with probability 2 |x - x'| / 2^bits at most, over
        r."""
        c = self.reduced(self.truncated(secrets) + self.offset - minus_r["truncate"])
        return c < np.uint64(2**self.zone)


class ProductTruncation(Truncation):
    """(x y) / d of two masked values: of the product nothing is dealt but the quotient."""

    free = ()

    def __init__(self, bits=SMALL, d=2, zone=SMALL - 1):
        super().__init__(bits, d, zone)
        self.name = "truncated product"
        self.inputs = {"x": Input("masked"), "y": Input("masked")}
        self.outputs = ("q", "t")

    def values(self):
        most = int(self.most**0.5)
        return super().values() if self.bits < 64 else range(-most, most)

    def steps(self, n):
        (label, op, _, *rest) = self.truncate(n, "x y")
        product = ("product", "product", ("x y",), ("x", "y"), "mul")
        return [product, (label, op, ("q", "t"), *rest)]

    def truncated(self, secrets):
        return self.reduced(secrets["x"] * secrets["y"])

    def functionality(self, coins, secrets, masks):
        q, t, anew = self.rounded(coins, self.truncated(secrets))
        return Outcome({"q": q, "t": t}, anew=anew)

    def known(self, coins, party, outputs):
        return super().known(coins, party, {"y": outputs["q"], "t": outputs["t"]})


class TruncatedFactor(Truncation):
    """(x / d) w in fresh shares, too: y's mask, which is not uniform, serves in a product."""

    outputs = ("y", "t", "z")
    corrections: ClassVar = {"z": "complete.m"}
    free = ("complete",)

    def __init__(self, bits=SMALL, d=2, zone=SMALL - 1):
        super().__init__(bits, d, zone)
        self.name = "truncated factor"
        self.inputs = {"x": Input(), "w": Input()}

    def steps(self, n):
        return [
            ("mask", "mask", ("opened w",), ("w",), (n,), False),
            *super().steps(n),
            ("product", "product", ("y w",), ("y", "opened w"), "mul"),
            ("complete", "complete", ("z",), ("y w",), (n,)),
        ]

    def functionality(self, coins, secrets, masks):
        y, t, anew = self.rounded(coins, secrets["x"])
        z = Output((y.delta + y.shared) * secrets["w"])
        return Outcome({"y": y, "t": t, "z": z}, anew=anew)


class ReLU(Truncation):
    """max(0, x) / d in fresh shares, too: the comparison is of what the truncation masked."""

    outputs = ("y", "t", "b", "z")
    free = ("select",)

    def __init__(self, bits=SMALL, d=2, zone=SMALL - 1):
        super().__init__(bits, d, zone)
        self.name = "ReLU"
        self.comparison = Comparison(bits, zone)

    def values(self):
        return self.comparison.values() if self.bits < 64 else super().values()

    def steps(self, n):
        return [
            *super().steps(n),
            ("compare", "above_zero", ("b",), ("t",), (n,), self.zone),
            ("select", "select", ("z",), ("b", "y"), (n,)),
        ]

    def functionality(self, coins, secrets, masks):
        y, t, anew = self.rounded(coins, secrets["x"])
        b = self.comparison.compared_with_zero(coins, secrets["x"])
        positive = ring.signed(secrets["x"], self.bits) > 0
        z = Output(np.where(positive, y.delta + y.shared, np.uint64(0)))
        return Outcome({"y": y, "t": t, "b": b, "z": z}, anew=anew)

    def known(self, coins, party, outputs):
        known = super().known(coins, party, outputs)
        known |= self.comparison.known(coins, party, outputs)
        return known | {"select.c": np.zeros(coins.n, np.uint64)}

    def corrected(self, coins, party, view, outputs, registers):
        return {"select.c": registers["b"].sign * (outputs["z"] - registers["z"])}


class TruncationRevealed(Truncation):
    """x / d to the orchestrator, and to the workers c alone; of a run broken off, nothing."""

    outputs = ("t",)
    reveals = True
    free = ("truncate", "reveal")

    def __init__(self, bits=SMALL, d=2, zone=SMALL - 1):
        super().__init__(bits, d, zone)
        self.name = "truncation, revealed"

    def steps(self, n):
        (label, op, outs, ins, shape, d, zone, _) = self.truncate(n, "x")
        return [
            (label, op, outs, ins, shape, d, zone, False),
            ("partial", "partial", ("y.",), ("y",)),
            ("reveal", "reveal", (), ("y.",), (n,)),
        ]

    def functionality(self, coins, secrets, masks):
        y, t, anew = self.rounded(coins, secrets["x"])
        return Outcome({"t": t}, revealed=y.delta + y.shared, anew=anew)

    def known(self, coins, party, outputs):
        return {"truncate.opened0": self.reduced(outputs["t"].delta + self.offset)}


class BrokenOff(Protocol):
    """A run that is broken off for certain, on Z_2^64, some opened value lying in half the ring:
    w, of which shares to reveal are ready before, is not revealed."""

    name = "broken off"
    inputs: ClassVar = {"x": Input(), "w": Input()}
    outputs = ()
    broken_off = True
    zone = 63

    def steps(self, n):
        return [
            ("reveal", "reveal", (), ("w",), (n,)),
            ("truncate", "truncate", ("y", "t"), ("x",), (n,), 1000, self.zone, True),
        ]

    def functionality(self, coins, secrets, masks):
        return Outcome({}, anew=np.ones(coins.n, bool))


class ExactTruncation(Protocol):
    """x / d in fresh shares, rounded as c says, and x, masked by what is not shared."""

    outputs = ("y", "t")
    conditioned = True

    def __init__(self, bits=SMALL, d=3, form="share"):
        super().__init__(bits)
        self.d, self.free = d, ("truncate",) if form == "share" else ("truncate.un", "truncate.si")
        self.offset = np.uint64(arithmetic.offset(d, bits - 1))
        self.inputs = {"x": Input(form)}
        self.name = f"exact {'' if form == 'share' else 'partial '}truncation by {d}"

    def values(self):
        offset = int(self.offset)
        return range(-offset, 2 ** (self.bits - 1) - offset)

    def steps(self, n):
        partial = self.inputs["x"].form == "hidden"
        steps = [("partial", "partial", ("partial x",), ("x",))] if partial else []
        x = "partial x" if partial else "x"
        return [*steps, ("truncate", "truncate_exactly", ("y", "t"), (x,), (n,), self.d)]

    def functionality(self, coins, secrets, masks):
        x, c = secrets["x"], self.uniform(coins, "c")
        y = rounded_exactly(x, c, self.d, self.bits)
        error = ring.signed(y, self.bits) - ring.signed(x, self.bits) // self.d
        if not set(np.unique(error)) <= {0, 1}:
            raise RuntimeError("this is not x / d, rounded down or up")
        return Outcome({"y": Output(y), "t": Output(None, c - self.offset)})

    def known(self, coins, party, outputs):
        nothing = np.zeros(coins.n, np.uint64)
        c = self.reduced(outputs["t"].delta + self.offset)
        return {"truncate.unsigned": nothing, "truncate.signed": nothing, "truncate.opened0": c}

    def corrected(self, coins, party, view, outputs, registers):
        chosen = registers["y"] - outputs["y"]
        top = (view["truncate.opened0"] >> np.uint64(self.bits - 1)).astype(bool)
        unused = self.uniform(coins, f"quotient not chosen {party}")
        return {
            "truncate.unsigned": np.where(top, chosen, unused),
            "truncate.signed": np.where(top, unused, chosen),
        }
