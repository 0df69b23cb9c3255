"""Programs of several instructions, as in `ideal`: what is ideal for each is composed.

The functionality of a program computes it in the clear, instruction by instruction. The c's that
its truncations open are outputs, each uniform and public, which say how these round and whether the
run is broken off. The other outputs are each in fresh shares, or under a mask in fresh shares. Of
what is in between nothing is an output, and the simulator makes it of uniform values.
"""

import itertools
from functools import reduce
from typing import ClassVar

import numpy as np

from smpc.audit.ideal import SMALL, Input, Outcome, Output, Protocol
from smpc.audit.ideal_truncation import rounded, rounded_exactly
from smpc.audit.variables import random_bits
from smpc.semi2k import arithmetic, comparison, ring
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.program import LINEAR


class Composed(Protocol):
    """A program, of instructions on elements by themselves.

    An output is made by a mask, truncation, comparison, selection or completion, or is a weight
    less what a truncation made. Of every truncation what it masks, called "c of" its quotient, is
    one. One value may be revealed, by an instruction called "reveal".

    Args:
        d, zone: of its truncations.
    """

    conditioned = True

    def __init__(self, bits=SMALL, d=2, zone=SMALL - 1):
        super().__init__(bits)
        self.d, self.zone = d, zone
        self.makers = {out: step for step in self.steps(64) for out in step[2]}
        self.corrections = {z: field for z in self.outputs if (field := self._made_up_by(z))}
        self.free = tuple(self.corrections.values())

    def values(self):
        return super().values() if self.bits < 64 else range(-7, 8)

    def truncation(self, n, y, x, shared=True):
        """The instruction that makes y of x."""
        outs, params = (y, f"c of {y}"), ((n,), self.d, self.zone, shared)
        return f"truncate {y}", "truncate", outs, (x,), *params

    def truncations(self):
        """What its truncations mask: the name of it -> the label of the instruction."""
        return {outs[1]: label for label, op, outs, *_ in self.steps(64) if op == "truncate"}

    def _made_up_by(self, z):
        """The dealt field whose share makes up for that of an output, if it is not the same."""
        label, op, _, ins, *_ = self.makers[z]
        if op == "sub":
            return f"{self.makers[ins[1]][0]}.q"
        return {"complete": f"{label}.m", "select": f"{label}.c"}.get(op)

    def in_the_clear(self, secrets, opened):
        """Compute it.

        Args:
            opened: a function of a truncation's label, and of what this masks: the c.
        Returns:
            all values by name, ring elements; of truncations by label what they open; and bool
            (n,): where the run is broken off.
        """
        x = {name: secret.astype(np.uint64) for name, secret in secrets.items()}
        n = len(next(iter(x.values())))
        cs, anew = {}, np.zeros(n, bool)
        for label, op, outs, ins, *params in self.steps(n):
            arguments = [x[name] for name in ins]
            results = arguments  # in another form
            if op in ("truncate", "truncate_exactly"):
                shifted = arguments[0] + self._offset(op, params)
                c = cs[label] = self.reduced(opened(label, self.reduced(shifted)))
            if op == "truncate":
                delta, a, flagged = rounded(*arguments, c, *params[1:3], self.bits)
                results, anew = [delta + a, *arguments], anew | flagged
            elif op == "truncate_exactly":
                results = [rounded_exactly(*arguments, c, params[1], self.bits), *arguments]
            elif op == "above_zero":
                results = [(ring.signed(-arguments[0], params[1]) < 0).astype(np.uint64)]
            elif op in ("product", "select"):
                results = [ring.mul(arguments)]
            elif op in LINEAR:
                results = [LINEAR[op](*arguments, *params)]
            x |= zip(outs, map(self.reduced, results), strict=False)
        return x, cs, anew

    def _offset(self, op, params):
        """What a truncation adds to what it opens."""
        zone = params[2] if op == "truncate" else self.bits - 1
        return np.uint64(arithmetic.offset(params[1], zone))

    def functionality(self, coins, secrets, masks):
        x, cs, anew = self.in_the_clear(secrets, lambda label, _: self.uniform(coins, f"{label} c"))
        made = {
            name: Output(masks[name], secrets[name] - masks[name])
            if form in ("masked", "hidden")
            else Output(secrets[name])
            for name, (form, _) in self.inputs.items()
        }
        for step in self.steps(coins.n):
            made |= zip(step[2], self._made(coins, step, x, cs, made), strict=False)
        revealed = [x[ins[0]] for _, op, _, ins, *_ in self.steps(coins.n) if op == "reveal"]
        outputs = {name: made[name] for name in self.outputs}
        return Outcome(outputs, revealed[0] if revealed else None, anew)

    def _made(self, coins, step, x, cs, made):
        """What an instruction's results would be as outputs."""
        label, op, outs, ins, *params = step
        parts = [(made[name].shared, made[name].delta) for name in ins]
        if op in LINEAR and all(delta is not None for _, delta in parts):
            shared, delta = (
                None if any(part is None for part in same) else LINEAR[op](*same, *params)
                for same in zip(*parts, strict=True)
            )
            return (Output(shared, delta),)
        if op in ("truncate", "truncate_exactly"):
            masked = Output(None, cs[label] - self._offset(op, params))
            if op == "truncate_exactly":
                return Output(x[outs[0]]), masked
            delta, a, _ = rounded(x[ins[0]], cs[label], *params[1:3], self.bits)
            return Output(a if params[3] else None, delta, f"{label}.q"), masked
        if op == "above_zero" and outs[0] in self.outputs:
            e = random_bits(coins, f"{label} e").astype(np.uint64)
            return (Output(x[outs[0]] ^ e, e, f"{label}.rho"),)
        if op == "mask" and outs[0] in self.outputs:
            delta = self.uniform(coins, f"{label} delta")
            return (Output(x[ins[0]] - delta, delta, f"{label}.s"),)
        return [Output(x[out]) for out in outs]

    def known(self, coins, party, outputs):
        known = {}
        for z in self.outputs:
            label, op, outs, _, *params = self.makers[z]
            if op == "truncate" and z == outs[0]:
                known[f"{label}.q"] = outputs[z].a
            elif op in ("truncate", "truncate_exactly"):
                c = outputs[z].delta + self._offset(op, params)
                known[f"{label}.opened0"] = self.reduced(c)
            elif op == "above_zero":
                last = f"{label}.opened{len(comparison.fan_ins(params[1]))}"
                known |= {f"{label}.rho": outputs[z].a, last: outputs[z].delta.astype(bool)}
            elif op == "mask":
                known |= {f"{label}.s": outputs[z].a, f"{label}.opened0": outputs[z].delta}
        return known

    def corrected(self, coins, party, view, outputs, registers):
        shares = {}
        for z, field in self.corrections.items():
            _, op, _, ins, *_ = self.makers[z]
            wanted, found = outputs[z], registers[z]
            if isinstance(found, Masked):
                wanted, found = wanted.a, found.a
            sign = {"sub": np.uint64(2**64 - 1), "complete": np.uint64(1)}.get(op)
            if op == "select":
                signs = [registers[name].sign for name in ins]
                sign = reduce(np.multiply, [s for s in signs if s is not None])
            shares[field] = sign * (wanted - found)
        return shares

    def leakage(self, secrets, minus_r):
        def opened(label, shifted):
            return shifted - minus_r[label]

        _, _, anew = self.in_the_clear(secrets, opened)
        return anew


# ---- What is fused -------------------------------------------------------------------------------


class BiasJoined(Composed):
    """(x y + d v) / d: the bias is added before the division, and all three masks enter its r."""

    name = "bias joined to a product"
    inputs: ClassVar = {name: Input("masked") for name in "xyv"}
    outputs = ("q", "c of q")
    few_secrets = True

    def steps(self, n):
        return [
            ("product", "product", ("x y",), ("x", "y"), "mul"),
            ("scale", "scale", ("d v",), ("v",), self.d),
            ("partial", "partial", ("d v.",), ("d v",)),
            ("add", "add", ("x y + d v",), ("x y", "d v.")),
            self.truncation(n, "q", "x y + d v"),
        ]


class TwoProducts(Composed):
    """x y / d and x z / d, truncated at once, and one of them revealed: x's mask serves twice, and
    the run is broken off if either c says so."""

    name = "two truncated products"
    inputs: ClassVar = {name: Input("masked") for name in "xyz"}
    outputs = ("q", "c of q", "c of p")
    few_secrets = reveals = True

    def steps(self, n):
        return [
            ("product x y", "product", ("x y",), ("x", "y"), "mul"),
            ("product x z", "product", ("x z",), ("x", "z"), "mul"),
            self.truncation(n, "q", "x y"),
            self.truncation(n, "p", "x z", shared=False),
            ("partial", "partial", ("p.",), ("p",)),
            ("reveal", "reveal", (), ("p.",), (n,)),
        ]


class Remainder(Composed):
    """x / d, and (y + e) / d, e being what the first rounding dropped: its mask enters the second
    r, which the first made."""

    name = "remainder"
    inputs: ClassVar = {"x": Input(), "y": Input()}
    outputs = ("q", "c of q", "p", "c of p")

    def steps(self, n):
        return [
            self.truncation(n, "q", "x"),
            ("scale", "scale", ("d q",), ("q",), self.d),
            ("sub", "sub", ("e",), ("c of q", "d q")),
            ("partial", "partial", ("e.",), ("e",)),
            ("add", "add", ("y + e",), ("y", "e.")),
            self.truncation(n, "p", "y + e"),
        ]


# ---- Two instructions of a kind at once ----------------------------------------------------------


class Twice(Composed):
    """Two instructions of a kind, each on values of its own, in one round."""

    forms: ClassVar = {
        "mask": ("share",),
        "truncation": ("share",),
        "comparison": ("hidden",),
        "select": ("bit", "masked"),
    }

    def __init__(self, kind, bits=SMALL):
        self.kind, forms = kind, self.forms[kind]
        pairs = itertools.product("12", zip("xy", forms, strict=False))
        self.inputs = {f"{x} {i}": Input(form) for i, (x, form) in pairs}
        made = ("z {}", "c of z {}") if kind == "truncation" else ("z {}",)
        self.outputs = tuple(name.format(i) for i in "12" for name in made)
        self.name = f"two {kind}s"
        super().__init__(bits)

    def steps(self, n):
        return [self._step(n, f"{self.kind} {i}", *(f"{x} {i}" for x in "zxy")) for i in "12"]

    def _step(self, n, label, z, x, y):
        match self.kind:
            case "mask":
                return label, "mask", (z,), (x,), (n,), False
            case "truncation":
                return self.truncation(n, z, x)
            case "comparison":
                return label, "above_zero", (z,), (x,), (n,), 2
            case "select":
                return label, "select", (z,), (x, y), (n,)


class EachTwice(Composed):
    """Two instructions of each kind that there is."""

    name = "two of each kind"
    inputs: ClassVar = {"x 1": Input(), "x 2": Input()}
    reveals = True
    outputs = tuple(
        f"{z} {i}" for i in "12" for z in ("c of y", "c of v", "positive", "masked", "w")
    )

    def steps(self, n):
        steps = [step for i in "12" for step in self._steps(n, lambda z, i=i: f"{z} {i}")]
        return [
            *steps,
            ("sum", "add", ("v",), ("v 1", "v 2")),
            ("reveal", "reveal", (), ("v",), (n,)),
        ]

    def _steps(self, n, of):
        x, y, b, z, p, u, v = map(of, ("x", "y", "positive", "z", "p", "u", "v"))
        exact = (v, f"c of {v}"), (of("u masked"),), (n,), self.d
        return [
            self.truncation(n, y, x),
            (of("compare"), "above_zero", (b,), (f"c of {y}",), (n,), 4),
            (of("select"), "select", (z,), (b, y), (n,)),
            (of("mask"), "mask", (of("masked"),), (z,), (n,), False),
            (of("product"), "product", (p,), (of("masked"), y), "mul"),
            (of("complete"), "complete", (of("w"),), (p,), (n,)),
            (of("mask p"), "mask", (of("p masked"),), (p,), (n,), True),
            (of("unhide"), "unhide", (u,), (f"c of {y}",), (n,)),
            (of("times"), "product", (of("u masked"),), (u, of("masked")), "mul"),
            (of("truncate exactly"), "truncate_exactly", *exact),
        ]


# ---- A whole program -----------------------------------------------------------------------------


class Step(Composed):
    """A training step of one neuron, and one behind it:
    y = x w / d, h = max(0, y) masked, h w / d + v revealed, and w less x h / d kept as a weight."""

    name = "step"
    inputs: ClassVar = {name: Input("masked") for name in "xwv"}
    outputs = ("new w", "c of y", "c of o", "c of u")
    reveals = few_secrets = few_masks = True

    def steps(self, n):
        return [
            ("product x w", "product", ("x w",), ("x", "w"), "mul"),
            self.truncation(n, "y", "x w"),
            ("compare", "above_zero", ("b",), ("c of y",), (n,), min(self.zone, 8)),
            ("select", "select", ("z",), ("b", "y"), (n,)),
            ("mask", "mask", ("h",), ("z",), (n,), False),
            ("product h w", "product", ("h w",), ("h", "w"), "mul"),
            ("scale", "scale", ("d v",), ("v",), self.d),
            ("partial d v", "partial", ("d v.",), ("d v",)),
            ("add", "add", ("h w + d v",), ("h w", "d v.")),
            self.truncation(n, "o", "h w + d v", shared=False),
            ("partial o", "partial", ("o.",), ("o",)),
            ("reveal", "reveal", (), ("o.",), (n,)),
            ("product x h", "product", ("x h",), ("x", "h"), "mul"),
            self.truncation(n, "u", "x h"),
            ("update", "sub", ("new w",), ("w", "u")),
        ]
