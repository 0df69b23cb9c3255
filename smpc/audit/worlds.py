"""A protocol's two worlds: on a small ring the workers' own code at every point, and what is ideal.

Both give views, dicts of name -> ring elements (uint64), bits (bool) or `Masked`, whose first axis
counts points; a name of what is one worker's begins with that worker's number.
"""

import itertools
from collections import Counter
from functools import reduce

import numpy as np

from smpc.audit.variables import (
    elements,
    minus,
    packed,
    plus,
    random_bits,
    shares_of,
    uniform_like,
    unpacked,
)
from smpc.semi2k import arithmetic, comparison, dealer
from smpc.semi2k.arithmetic import Bits, Flagged, Masked
from smpc.semi2k.provider import known_of
from smpc.semi2k.run import Run


class Own:
    """A worker's noise: its part of the input that is noise, in the place of what it draws."""

    def __init__(self, protocol, inputs):
        self._parts = [inputs[name] for name in protocol.inputs if name not in protocol.read]

    def add(self, x, *_):
        """See `semi2k.noise.Noise`."""
        (part,) = self._parts
        return x + part


class SmallRun(Run):
    """A worker's run on a ring of `bits` bits; it knows the tree's gates as an instruction, too."""

    def __init__(self, bits, *args):
        self.bits = bits
        super().__init__(*args)

    def _start(self, op, arguments, params, deal):
        if op == "truncate_exactly":
            return arithmetic.truncate_exactly(self.party, deal, *arguments, params[1], self.bits)
        if op == "and_gates":
            shares = dict(zip(comparison.variables(*params), arguments, strict=True))
            dealt = deal["masks"], deal["products"]
            return comparison.and_gates(self.party, *dealt, shares, *params)
        return super()._start(op, arguments, params, deal)

    def _done(self, number, result):
        op, outs, _, _ = self.program.instructions[number]
        if op == "and_gates":
            self.registers |= zip(outs, result, strict=True)
        else:
            super()._done(number, result)


def drive(runs, labels, coins, opening):
    """Have runs, all at the same point of the same program, go on until they finish.

    Where each point is a run of its own, and what is opened makes the workers break off, the rest
    is computed with another value in its place, and forgotten.

    Args:
        labels: of the program's instructions.
        opening: a function of a name and what each run asks to have opened, arrays or `Bits`: what
            is, ring elements or bits.
    Returns:
        what was opened, by "label.opened", numbered; and bool (n,): where a run was broken off.
    """
    opened, anew, times = {}, np.zeros(coins.n, bool), Counter()
    while not runs[0].finished:
        given, flagged = ([], []), np.zeros(coins.n, bool)
        for waiting in zip(*(run.waiting for run in runs), strict=True):
            number, asks = waiting[0][0], [ask for _, _, ask in waiting]
            name = f"{labels[number]}.opened{times[number]}"
            times[number] += 1
            value = opening(name, asks)
            opened |= blanked({name: value}, anew)
            instruction = runs[0].program.instructions[number]
            if instruction.op == "truncate" and coins.apart:
                breaks_off = _breaks_off(runs[0].bits, value, *instruction.params[1:3])
                flagged |= breaks_off
                value = np.where(breaks_off, np.uint64(2 ** runs[0].bits - 1), value)
            given[value.dtype == bool].append(held(value).ravel())
        anew |= flagged
        words, bits = (np.concatenate([np.empty(0, np.uint64), *arrays]) for arrays in given)
        try:
            for run in runs:
                run.resume(words, bits)
        except Flagged:  # of samples, which are all of one run
            return opened, np.ones(coins.n, bool)
    return opened, anew


def _breaks_off(bits, value, d, zone):
    """Whether workers who open these break off; on Z_2^64, where only simulated ones do so for each
    element by itself, whether they are to."""
    return value < np.uint64(2**zone) if bits == 64 else flags(bits, d, zone)[value]


def flags(bits, d, zone):
    """For each element of the ring, whether workers who open it for a truncation break off."""
    flagged, nothing = np.zeros(2**bits, bool), np.zeros(1, np.uint64)
    for c in range(2**bits):
        side = arithmetic.truncate(1, {"s": nothing}, nothing, d, zone)
        next(side)
        try:
            side.send(np.array([c], np.uint64))
        except StopIteration:
            pass
        except Flagged:
            flagged[c] = True
    return flagged


def held(value):
    """A value as a worker's register or dealt field holds it: bits as planes."""
    if isinstance(value, Masked) or value.dtype != bool:
        return value
    return packed(value)


def blanked(view, anew):
    """A view, with nothing in it where runs are broken off."""

    def blank(value):
        if isinstance(value, Masked):
            return value.map(blank)
        return np.where(anew.reshape(-1, *[1] * (value.ndim - 1)), value.dtype.type(0), value)

    return {name: blank(value) for name, value in view.items()} if anew.any() else view


def of_workers(values, kind, workers):
    """A list of dicts, one for each worker -> name -> value, of some of them."""
    return {f"{w} {kind} {name}": value for w in workers for name, value in values[w].items()}


# ---- Secrets and inputs, the same in both worlds -------------------------------------------------


def secrets_of(protocol, coins):
    """All secrets that a protocol takes: name -> ring elements or bits."""
    values = protocol.values()
    residues = np.array([x % 2**protocol.bits for x in values], dtype=np.uint64)
    return {
        name: random_bits(coins, f"secret.{name}", shape)
        if form in ("xor", "bit")
        else residues[elements(coins, f"secret.{name}", len(values), shape)]
        for name, (form, shape) in protocol.inputs.items()
    }


def zeros_of(protocol, coins):
    """Zeros in the place of secrets."""
    return {
        name: np.zeros((coins.n, *shape), bool if form in ("xor", "bit") else np.uint64)
        for name, (form, shape) in protocol.inputs.items()
    }


def inputs_of(protocol, coins, secrets, n_workers, absent):
    """Share the secrets, as each input's form says; None: zeros, and shares of zero that are zero.

    Returns:
        for each worker a dict, name -> its part; and the masks, which the provider knows.
    """
    inputs, masks = [{} for _ in range(n_workers)], {}
    zeros = zeros_of(protocol, coins)
    for name, x in (secrets or zeros).items():
        form, a = protocol.form(name), None
        delta, sign, parts = None, None, [None] * n_workers
        if form in ("share", "xor", "noise") and secrets is None:
            parts = [x] * n_workers
        elif form in ("share", "xor", "noise"):
            parts = shares_of(coins, f"{{}}.{name}", x, protocol.bits, n_workers, absent)
        elif form == "masked":
            drawn = [f"{w}.{name}.a" for w in range(n_workers)]
            parts = [elements(coins, v, 2**protocol.bits, x.shape[1:]) for v in drawn]
            a = protocol.reduced(reduce(plus, parts))
        elif form == "hidden":
            a = elements(coins, f"mask.{name}", 2**protocol.bits, x.shape[1:])
        else:
            rho = random_bits(coins, f"mask.{name}")
            delta, a = (x ^ rho).astype(np.uint64), rho.astype(np.uint64)
            sign = np.uint64(1) - np.uint64(2) * delta
            parts = shares_of(coins, f"{{}}.{name}", a, protocol.bits, n_workers, absent)
        if a is not None:
            masks[name] = a
            delta = protocol.reduced(x - a) if delta is None else delta
            parts = [Masked(delta, part, sign) for part in parts]
        for worker, part in zip(inputs, parts, strict=True):
            worker[name] = part
    return inputs, masks


# ---- The simulated world -------------------------------------------------------------------------


def simulated(protocol, coins, secrets, watching, n_workers):
    """What is ideal for workers that watch together, all but one: their inputs, their simulated
    views, the other's outputs, and where the run is broken off."""
    (absent,) = set(range(n_workers)) - set(watching)
    inputs, masks = None, {}
    if protocol.inputs_given:
        inputs, masks = inputs_of(protocol, coins, secrets, n_workers, absent)
    outcome = protocol.functionality(coins, secrets, masks)
    outputs = outputs_of(protocol, coins, outcome, n_workers, absent)
    inputs = inputs or outputs  # of a sharing these are what the workers receive
    anew = np.zeros(coins.n, bool) if outcome.anew is None else outcome.anew
    view = seen_inputs(protocol, inputs, watching) | {"anew": anew}
    for worker in watching:
        dealt, opened = simulate(protocol, coins, worker, inputs[worker], outputs[worker])
        view |= {f"{worker} {name}": value for name, value in dealt.items()} | opened
    return view | blanked(of_workers(outputs, "output", {absent}), anew)


def seen_inputs(protocol, inputs, workers):
    """The inputs of some workers; of a masked one that is to be a share, the share."""
    view = of_workers(inputs, "input", workers)
    for worker, (name, (form, _)) in itertools.product(workers, protocol.inputs.items()):
        value = inputs[worker][name]
        if form == "share" and isinstance(value, Masked):
            share = arithmetic.unmask(worker, value)
            view[f"{worker} input {name}"] = Masked(value.delta, share)
    return view


def outputs_of(protocol, coins, outcome, n_workers, absent):
    """Each worker's outputs, a list of dicts."""
    parts = {
        name: output.parts(coins, name, protocol.bits, n_workers, absent)
        for name, output in outcome.outputs.items()
    }
    return [{name: part[w] for name, part in parts.items()} for w in range(n_workers)]


def simulate(protocol, coins, party, inputs, outputs):
    """A worker's simulator: what is dealt to it, and what is opened."""
    program, _, labels, registers = protocol.program(coins.n)
    view, deals = protocol.known(coins, party, outputs), []
    for label, fields in zip(labels, program.fields, strict=True):
        names = {field.name: f"{label}.{field.name}" for field in fields}
        for field in fields:
            name, drawn = names[field.name], f"{party}.{names[field.name]}"
            if name in protocol.corrections.values():
                view[name] = np.zeros(field.shape, np.uint64)
            elif name not in view:
                view[name] = uniform_like(coins, drawn, field.shape, field.boolean, protocol.bits)
        deals.append({field: held(view[name]) for field, name in names.items()})
    ins = [held(inputs[name]) for name in protocol.read]
    run = SmallRun(protocol.bits, party, program, deals, ins, Own(protocol, inputs))

    def opening(name, asks):
        if name not in view:
            boolean = isinstance(asks[0], Bits)
            shape = asks[0].words.shape if boolean else asks[0].shape
            view[name] = uniform_like(coins, name, shape, boolean, protocol.bits)
        return view[name]

    opened, anew = drive([run], labels, coins, opening)
    if not anew.all():
        ended = outputs_at(protocol, run, registers)
        view |= protocol.corrected(coins, party, view, outputs, ended)
    dealt = {name: value for name, value in view.items() if ".opened" not in name}
    return dealt, opened


def outputs_at(protocol, run, registers):
    """The values that a run has ended with, by name; XOR shares as bits."""
    values = {name: run.registers.get(number) for name, number in registers.items()}
    xor = any(form == "xor" for form, _ in protocol.inputs.values())
    return {name: unpacked(value) for name, value in values.items()} if xor else values


def ideal_revealed(protocol, coins, secrets, n_workers):
    """What is ideal for the orchestrator: shares of what is revealed, and, made in a functionality
    of zeros, where the run is broken off."""
    zeros = zeros_of(protocol, coins)
    outcome = protocol.functionality(coins, secrets, zeros)
    anew = protocol.functionality(coins, zeros, zeros).anew
    anew = np.zeros(coins.n, bool) if anew is None else anew
    view = {"anew": anew}
    if outcome.revealed is not None:
        value, bits = outcome.revealed, protocol.bits
        shares = shares_of(coins, "revealed {}", value, bits, n_workers, n_workers - 1)
        view |= blanked({f"{w} revealed": share for w, share in enumerate(shares)}, anew)
    return view


# ---- The real world ------------------------------------------------------------------------------


class Real:
    """Runs a protocol between the workers on every point, and notes what each party sees.

    Args:
        protocol: an `ideal.Protocol`.
        coins: an `Enumeration`.
        watching: the numbers of the workers whose view is wanted, all but one. Their shares are
            drawn; the other's are drawn, too, of a uniform field, and follow otherwise from the
            value, which has the same distribution.
    Attributes:
        inputs, dealt, outputs, revealed: lists of dicts, one for each worker; `opened`; `masks`: of
            the inputs; `made`: by the provider. Each dict is name -> ring elements, bits or Masked.
        anew: bool (n,): where the run was broken off.
        minus_r: of each truncation, by its label, what masks what it truncates.
    """

    def __init__(self, protocol, coins, watching):
        self.protocol, self.coins, self.n_workers = protocol, coins, len(watching) + 1
        (self.absent,) = set(range(self.n_workers)) - set(watching)
        self.dealt = [{} for _ in range(self.n_workers)]
        self.made, self.minus_r = {}, {}

    def execute(self, secrets):
        """Share the secrets, see `inputs_of`, and run the protocol; returns self."""
        protocol, coins = self.protocol, self.coins
        program, _, labels, registers = protocol.program(coins.n)
        self.inputs, self.masks = inputs_of(protocol, coins, secrets, self.n_workers, self.absent)
        self.made |= {f"mask of {name}": mask for name, mask in self.masks.items()}
        deals = self._deal(program, labels)
        runs = []
        for worker in range(self.n_workers):
            ins = [held(self.inputs[worker][name]) for name in protocol.read]
            noise = Own(protocol, self.inputs[worker])
            runs.append(SmallRun(protocol.bits, worker, program, deals[worker], ins, noise))
        self.opened, self.anew = drive(runs, labels, coins, self._opened)
        ended = [outputs_at(protocol, run, registers) for run in runs]
        self.outputs = [{name: end[name] for name in protocol.outputs} for end in ended]
        self.revealed = {
            f"{w} revealed": share for w, run in enumerate(runs) for share in run.revealed
        }
        return self

    def _opened(self, name, asks):
        """What the workers' shares sum to."""
        if isinstance(asks[0], Bits):
            return unpacked(reduce(np.bitwise_xor, (ask.words for ask in asks)))
        return self.protocol.reduced(reduce(np.add, asks))

    def _deal(self, program, labels):
        """What each worker is dealt, as `Provider` deals it: for each a list of dicts."""
        deals = [[] for _ in range(self.n_workers)]
        known = {
            register: self.masks.get(name, dealer.zeros(shape))
            for name, (register, _, shape) in zip(self.protocol.read, program.inputs, strict=True)
        }
        for label, instruction, item in zip(
            labels, program.instructions, program.deals, strict=True
        ):
            ins = [known[register] for register in instruction.ins]
            shares = [{} for _ in range(self.n_workers)]
            if item is None:
                results = (known_of(instruction, ins),)
            else:
                if isinstance(item, (dealer.Truncation, dealer.ExactTruncation)):
                    item = item._replace(bits=self.protocol.bits)
                shares, results = self._shares(label, item, ins)
            if isinstance(item, dealer.Truncation):
                self.minus_r[label] = results[1]
            known |= zip(instruction.outs, results, strict=False)
            for worker, share in enumerate(shares):
                deals[worker].append({name: held(value) for name, value in share.items()})
        return deals

    def _shares(self, label, item, ins):
        """Each worker's shares of an item, dicts, and what the provider knows of the results."""
        shares, sums = [{} for _ in range(self.n_workers)], {}
        fields = item.fields()
        for field in fields:
            for worker in range(self.n_workers):
                if worker != self.absent or not field.derived:
                    shares[worker][field.name] = self._draw(worker, label, field)
            if not field.derived:
                value = reduce(plus, (share[field.name] for share in shares))
                sums[field.name] = held(self.dealt_value(label, field.name, value))
        derived, results = item.make(sums, *ins)
        for field in fields:
            value = (derived if field.derived else sums)[field.name]
            value = unpacked(value) if field.boolean else value
            parts = [share.get(field.name) for share in shares]
            parts = self.shared(label, field.name, value, parts)
            for worker, part in enumerate(parts):
                shares[worker][field.name] = part
                self.dealt[worker][f"{label}.{field.name}"] = part
        return shares, results

    def _draw(self, worker, label, field):
        name = f"{worker}.{label}.{field.name}"
        boolean, bits = field.boolean, self.protocol.bits
        drawn = self.made[name] = uniform_like(self.coins, name, field.shape, boolean, bits)
        return drawn

    def dealt_value(self, label, field, value):
        """What the shares of a uniform field make."""
        return value

    def shared(self, label, field, value, parts):
        """The shares of a field: the absent worker's makes up for those of the others."""
        others = (part for worker, part in enumerate(parts) if worker != self.absent)
        parts[self.absent] = reduce(minus, others, value)
        return parts
