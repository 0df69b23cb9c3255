"""semi2k once more, for the audit: what all workers and the provider hold and say in a run.

It is written from docs/protocol.md and shares nothing with `smpc.semi2k`, so that whoever breaks a
line there does not break it here. It knows what nobody in a run does: everybody's randomness, and
so every value. All workers are computed at once; a step's shares are lists, one for each.

Words, uint64, are over Z_2^64; bits are in planes: see `reference_comparison`.
"""

import math
from typing import NamedTuple

import msgpack
import numpy as np

from smpc.audit import reference_comparison as comparison
from smpc.audit import reference_values as values
from smpc.audit.reference_values import LINEAR, TIMES, Bits, Held, Words, Wrong, plus, total

WITH_ARRAY = ("public", "mul_public", "matmul_public", "add_public")


class Field(NamedTuple):
    """Of a dealt item: `boolean`, shared by XOR; `derived`, decided by the provider."""

    name: str
    shape: tuple
    boolean: bool = False
    derived: bool = False


class Step(NamedTuple):
    """An instruction: see `smpc.semi2k.program.Instruction`; and the fields dealt for it."""

    op: str
    outs: tuple
    ins: tuple
    params: tuple
    fields: tuple


class Program:
    """A program as its bytes say.

    Attributes:
        steps: a list of `Step`; inputs: (register, form, shape) of each; outputs: registers.
        drawn: words that the last worker draws; corrections: that it is sent.
        widest: of the zones of its truncations, 0 if there are none.
        sigmas: of its noise, in integers.
    """

    def __init__(self, key):
        instructions, self.inputs, self.outputs = msgpack.unpackb(key, use_list=False)
        self.steps = [
            Step(op, outs, ins, _decoded(op, params), tuple(_fields(op, params)))
            for op, outs, ins, params in instructions
        ]
        zones = (step.params[2] for step in self.steps if step.op == "truncate")
        self.widest = max(zones, default=0)
        self.sigmas = [step.params[1] for step in self.steps if step.op == "noise"]
        fields = [field for step in self.steps for field in step.fields]
        self.drawn = sum(math.prod(field.shape) for field in fields if not field.derived)
        self.corrections = sum(math.prod(field.shape) for field in fields if field.derived)


def _decoded(op, params):
    """A public array in the place of its shape and its words."""
    if op not in WITH_ARRAY:
        return params
    shape, raw, *rest = params
    array = np.frombuffer(raw, "<u8")
    return (np.full(shape, array[0]) if array.size == 1 else array.reshape(shape), *rest)


def _fields(op, params):
    match op, params:
        case "mask", (shape, _):
            yield Field("s", shape)
        case "select", (shape,):
            yield Field("c", shape, derived=True)
        case (("complete" | "reveal"), (shape,)):
            yield Field("m", shape, derived=True)
        case "unhide", (shape,):
            yield Field("a", shape, derived=True)
        case "truncate", (shape, _, _, shared):
            yield Field("s", shape)
            if shared:
                yield Field("q", shape, derived=True)
        case "truncate_exactly", (shape, _):
            yield Field("s", shape)
            yield Field("unsigned", shape, derived=True)
            yield Field("signed", shape, derived=True)
        case "above_zero", (shape, bits):
            for field in comparison.fields(math.prod(shape), bits):
                yield Field(*field)


# ---- What the provider deals ---------------------------------------------------------------------


def zone_offset(d, zone):
    """O of docs/protocol.md."""
    return d * (2 ** (zone - 1) // d)


def _known(step, sums, ins):
    """What the provider knows of what a step makes: a list; and the derived fields, by name."""
    op, params = step.op, step.params
    if op in LINEAR:
        return [LINEAR[op](*ins, *params)], {}
    zeros = np.zeros(ins[0].shape, np.uint64) if ins else None
    match op:
        case "product":
            return [TIMES[params[0]](*ins)], {}
        case "add_public":
            return [ins[0] + np.zeros_like(params[0])], {}
        case "public":
            return [np.zeros(params[0].shape, np.uint64)], {}
        case "unmask":
            return [zeros], {}
        case "partial" | "noise":
            return [ins[0]], {}
        case "mask":
            return [sums["s"] + ins[0]], {}
        case "select":
            return [np.zeros(params[0], np.uint64)], {"c": ins[0] * ins[1]}
        case "complete" | "reveal":
            return [np.zeros(params[0], np.uint64)], {"m": np.broadcast_to(ins[0], params[0])}
        case "unhide":
            return [ins[0]], {"a": np.broadcast_to(ins[0], params[0])}
        case "truncate":
            r = sums["s"] - ins[0]
            q = -(r // np.uint64(params[1]))
            return [q, -r], {"q": q} if params[3] else {}
        case "truncate_exactly":
            r = sums["s"] - ins[0]
            d = params[1]
            signed = (r.view(np.int64) // np.int64(d)).view(np.uint64)
            return [zeros, -r], {"unsigned": r // np.uint64(d), "signed": signed}
        case "above_zero":
            return comparison.known(params[1], sums, ins[0])
    raise Wrong(f"there is no {op}")


class Deal:
    """What is dealt for one attempt.

    Args:
        program: a `Program`; masks: what the provider knows of each input.
        draws: of each worker, the words that it draws: the last fewer than the others.
    Attributes:
        known: register -> what the provider knows of it.
        corrections: uint64 (program.corrections,), for the last worker.
        shares: of each step, name of a field -> each worker's share of it.
    """

    def __init__(self, program, masks, draws):
        self.known = {
            register: mask for (register, _, _), mask in zip(program.inputs, masks, strict=True)
        }
        self.n_workers, self.shares = len(draws), []
        self._draws, self._places = draws, [0] * len(draws)
        corrections = [np.empty(0, np.uint64)]
        for step in program.steps:
            shares = {field.name: self._cut(field) for field in step.fields}
            sums = {
                field.name: total(shares[field.name], field.boolean)
                for field in step.fields
                if not field.derived
            }
            made, derived = _known(step, sums, [self.known[register] for register in step.ins])
            for field in step.fields:
                if field.derived:
                    others = shares[field.name]
                    last = plus(
                        derived[field.name], total(others, field.boolean), field.boolean, -1
                    )
                    others.append(last)
                    corrections.append(last.ravel())
            self.known |= zip(step.outs, made, strict=False)
            self.shares.append(shares)
        self.corrections = np.concatenate(corrections)
        if self._places != [len(words) for words in draws]:
            raise Wrong("not every word that is drawn is in one field")

    def _cut(self, field):
        """The next words of each worker that draws this field: each serves in one, and once."""
        size, shares = math.prod(field.shape), []
        for worker, words in enumerate(self._draws[:-1] if field.derived else self._draws):
            start = self._places[worker]
            self._places[worker] = start + size
            shares.append(words[start : start + size].reshape(field.shape))
        return shares


# ---- What the workers compute --------------------------------------------------------------------


class Attempt:
    """One attempt at a run, by all workers.

    Args:
        program: a `Program`; inputs: a list of `Held`; deal: a `Deal`.
        noises: all workers' `reference_noise.Noises`.
    Attributes:
        said: of each round, of each worker, the (words, bits) that it sends to be opened.
        secrets: (instruction, how many it had had opened before) -> what is left of it where the
            mask is 0: of a mask, whose sign is another, less the value.
        flagged: whether it was broken off.
        revealed: of each worker, its words of what is revealed; outputs: a list of `Held`.
    """

    def __init__(self, program, inputs, deal, noises):
        self.program, self.deal, self.n = program, deal, deal.n_workers
        self._noises = noises
        self.registers = {
            register: value for (register, _, _), value in zip(program.inputs, inputs, strict=True)
        }
        self.said, self.secrets, self.flagged = [], {}, False
        self._revealed, self._times, self._waiting = [], {}, []
        given = {register for register, _, _ in program.inputs}
        self._needs = [set(step.ins) - given for step in program.steps]
        # what became ready last is begun first
        self._ready = [number for number, needs in enumerate(self._needs) if not needs]
        self._go_on()
        while self._waiting and not self.flagged:
            self._round()
        self.revealed = [_joined(x[w] for x in self._revealed) for w in range(self.n)]
        self.outputs = [] if self.flagged else [self.registers[r] for r in program.outputs]

    def _round(self):
        waiting, self._waiting = self._waiting, []
        asks = [ask for _, _, ask in waiting]
        kinds = [[ask for ask in asks if isinstance(ask, kind)] for kind in (Words, Bits)]
        self.said.append(
            [tuple(_joined(ask.shares[w] for ask in asks) for asks in kinds) for w in range(self.n)]
        )
        for number, generator, ask in waiting:
            step, value = self.program.steps[number], total(ask.shares, isinstance(ask, Bits))
            times = self._times[number] = self._times.get(number, -1) + 1
            self.secrets[number, times] = ask.secret
            if step.op == "truncate" and (value < np.uint64(2 ** step.params[2])).any():
                self.flagged = True
            self._advance(number, generator, value)
        if not self.flagged:  # else nothing more is begun, and no noise drawn
            self._go_on()

    def _advance(self, number, generator, value):
        try:
            self._waiting.append((number, generator, generator.send(value)))
        except StopIteration as end:
            self._done(number, end.value)

    def _go_on(self):
        while self._ready:
            number = self._ready.pop()
            step, shares = self.program.steps[number], self.deal.shares[number]
            xs = [self.registers[register] for register in step.ins]
            made = self._begin(step, shares, xs)
            if hasattr(made, "send"):
                self._advance(number, made, None)
            else:
                self._done(number, made)

    def _done(self, number, made):
        step = self.program.steps[number]
        made = made if len(step.outs) == 2 else (made,)
        for register, value in zip(step.outs, made, strict=False):
            self.registers[register] = value
            for user, needs in enumerate(self._needs):
                if register in needs:
                    needs.remove(register)
                    if not needs:
                        self._ready.append(user)

    def _begin(self, step, shares, xs):
        op, params = step.op, step.params
        if op in LINEAR:
            return values.linear(op, xs, params)
        match op:
            case "public":
                zeros = np.zeros(params[0].shape, np.uint64)
                return Held("masked", [zeros] * self.n, params[0])
            case "add_public":
                return values.add_public(*xs, *params)
            case "partial":
                return Held("share", values.first(xs[0].delta, self.n))
            case "unmask":
                return Held("share", values.unmasked(xs[0]))
            case "product":
                self._check_masks(step, xs)
                return Held("share", values.product(*xs, TIMES[params[0]]))
            case "select":
                self._check_masks(step, xs)
                return Held("share", values.select(*xs, shares["c"]))
            case "complete":
                return Held("share", values.sums(xs[0].parts, shares["m"]))
            case "noise":
                parts = self._noises.parts(xs[0].parts[0].shape, *params[1:])
                return Held("share", values.sums(xs[0].parts, parts))
            case "unhide":
                return Held("masked", shares["a"], xs[0].delta)
            case "reveal":
                self._revealed.append(values.sums(xs[0].parts, shares["m"]))
                return None
            case "mask":
                return self._mask(step, shares, *xs)
            case "truncate" | "truncate_exactly":
                return self._truncate(step, shares, *xs)
            case "above_zero":
                return comparison.above_zero(xs[0], params[1], shares)
        raise Wrong(f"there is no {op}")

    def _check_masks(self, step, xs):
        """That the workers' shares of masks are of what the provider takes for these masks."""
        for register, x in zip(step.ins, xs, strict=True):
            if x.parts is None or (total(x.parts) != self.deal.known[register]).any():
                raise Wrong(f"a {step.op} of what the workers have no shares of the mask of")

    def _clear(self, step, x):
        """What a share or partial is, all together."""
        return total(x.parts) + self.deal.known[step.ins[0]]

    def _mask(self, step, shares, x):
        asked = [part - s for part, s in zip(x.parts, shares["s"], strict=True)]
        delta = yield Words(asked, -self._clear(step, x))
        return Held("masked", None if step.params[1] else shares["s"], delta)

    def _truncate(self, step, shares, x):
        """Both ways: with a zone, and exactly."""
        exact, d = step.op == "truncate_exactly", np.uint64(step.params[1])
        offset = np.uint64(zone_offset(step.params[1], 63 if exact else step.params[2]))
        asked = values.sums(x.parts, shares["s"])
        asked[0] = asked[0] + offset
        c = yield Words(asked, self._clear(step, x))
        as_masked = Held("masked", None, c - offset)
        quotient = c // d - offset // d
        if not exact:
            return Held("masked", shares.get("q"), quotient), as_masked
        top = c >= np.uint64(2**63)
        pairs = zip(shares["unsigned"], shares["signed"], strict=True)
        parts = [-np.where(top, unsigned, signed) for unsigned, signed in pairs]
        parts[0] = parts[0] + quotient
        return Held("share", parts), as_masked


def _joined(arrays):
    """Words, one array after the other."""
    return np.concatenate([np.empty(0, np.uint64), *map(np.ravel, arrays)])
