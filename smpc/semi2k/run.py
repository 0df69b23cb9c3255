"""A run of a program at an end: how it is read and computed, and kept until it counts.

`Run` is a worker's; the provider computes what it knows by `provider.known_of`. The rest is the
same for both.
"""

from typing import NamedTuple

import numpy as np

from smpc.semi2k import arithmetic, comparison
from smpc.semi2k.arithmetic import TIMES, Bits, Masked
from smpc.semi2k.program import LINEAR, MOVES, Program, name_of
from smpc.semi2k.wire import Refused, split

# What a program may raise that is in itself, and no fault of the end that runs it.
FAILURES = ArithmeticError, AttributeError, LookupError, MemoryError, TypeError, ValueError


class Run:
    """One worker's run of a program: computes until it needs something opened, then asks.

    Args:
        party: 0 for worker1, and on.
        program: a `Program`.
        deals: for each instruction, a dict of this worker's shares of its dealt item.
        inputs: the values that it starts from, in the order of `program.inputs`.
        noise: this worker's `noise.Noise`.
    Attributes:
        registers: number -> what this worker holds of the value: an array or `Masked`.
        waiting: (instruction number, its generator, what it asked to have opened), in order.
        revealed: its shares of what is revealed, arrays.
    """

    def __init__(self, party, program, deals, inputs, noise):
        self.party, self.program, self.deals = party, program, deals
        self._noise = noise
        self.registers = {
            register: value for (register, _, _), value in zip(program.inputs, inputs, strict=True)
        }
        self.waiting, self.revealed = [], []
        self._needs = list(program.needs)
        self._ready = [number for number, needs in enumerate(self._needs) if not needs]
        self._compute()

    @property
    def finished(self):
        """Whether nothing waits for an opening any more."""
        return not self.waiting

    def asks(self):
        """(words, bits): what this worker wants opened in this round, each a list of arrays."""
        asked = [ask for _, _, ask in self.waiting]
        return (
            [ask for ask in asked if not isinstance(ask, Bits)],
            [ask.words for ask in asked if isinstance(ask, Bits)],
        )

    def given(self, opened_words, opened_bits):
        """What each instruction that waits is given: (number, generator, array or `Bits`)."""
        asked = self.asks()
        pieces = [
            iter(split(opened, [ask.shape for ask in asks]))
            for opened, asks in zip((opened_words, opened_bits), asked, strict=True)
        ]
        for number, generator, ask in self.waiting:
            yield number, generator, next(pieces[isinstance(ask, Bits)])

    def resume(self, opened_words, opened_bits):
        """Go on with what has been opened, flat uint64 arrays in the order of `asks`.

        Raises:
            Flagged: a truncation's opening lies in its zone; this run is over.
        """
        given = list(self.given(opened_words, opened_bits))
        self.waiting = []
        for number, generator, opened in given:
            self._step(number, generator, opened)
        self._compute()

    def _compute(self):
        while self._ready:
            number = self._ready.pop()
            op, _, ins, params = self.program.instructions[number]
            arguments = [self.registers[register] for register in ins]
            result = self._start(op, arguments, params, self.deals[number])
            if hasattr(result, "send"):
                self._step(number, result, None)
            else:
                self._done(number, result)

    def _step(self, number, generator, opened):
        try:
            self.waiting.append((number, generator, generator.send(opened)))
        except StopIteration as finished:
            self._done(number, finished.value)

    def _done(self, number, result):
        outs = self.program.instructions[number].outs
        results = result if len(outs) == 2 else (result,)
        for register, value in zip(outs, results, strict=False):
            self.registers[register] = value
            for user in self.program.users.get(register, ()):
                self._needs[user] -= 1
                if not self._needs[user]:
                    self._ready.append(user)

    def _start(self, op, arguments, params, deal):
        party = self.party
        if op in LINEAR:
            return _linear(op, arguments, params)
        match op:
            case "add_public":
                return _add_public(party, *arguments, *params)
            case "public":
                return Masked(params[0], np.broadcast_to(np.uint64(0), params[0].shape))
            case "partial":
                return arithmetic.partial(party, *arguments)
            case "unmask":
                return arithmetic.unmask(party, *arguments)
            case "product":
                return arithmetic.product(party, *arguments, TIMES[params[0]])
            case "select":
                return arithmetic.select(party, deal, *arguments)
            case "complete":
                return arithmetic.complete(party, deal, *arguments)
            case "noise":
                return self._noise.add(*arguments, *params[1:])
            case "unhide":
                return arithmetic.unhide(party, deal, *arguments)
            case "mask":
                return arithmetic.mask(party, deal, *arguments, params[1])
            case "truncate":
                _, d, zone, _ = params
                return arithmetic.truncate(party, deal, *arguments, d, zone)
            case "truncate_exactly":
                return arithmetic.truncate_exactly(party, deal, *arguments, params[1])
            case "above_zero":
                return comparison.above_zero(party, deal, *arguments, params[1])
            case "reveal":
                self.revealed.append(arithmetic.complete(party, deal, *arguments))
                return None
        raise RuntimeError(f"no such instruction: {op}")


def _linear(op, arguments, params):
    if not isinstance(arguments[0], Masked):
        return LINEAR[op](*arguments, *params)
    if arguments[0].sign is not None and op not in MOVES:
        raise TypeError(f"a bit is not masked as numbers are: {op} takes its shares")
    if op in MOVES:
        return arguments[0].map(lambda x: MOVES[op](x, *params))
    masks = [x.a for x in arguments]
    a = None if any(a is None for a in masks) else LINEAR[op](*masks, *params)
    return Masked(LINEAR[op](*(x.delta for x in arguments), *params), a)


def _add_public(party, x, value):
    """x + value for a public array: to a masked value's delta, or to party 0's share."""
    if not isinstance(x, Masked):
        return x + value if party == 0 else x + np.zeros_like(value)
    delta = x.delta + value
    return Masked(delta, None if x.a is None else np.broadcast_to(x.a, delta.shape))


class Order(NamedTuple):
    """What an end was asked to run.

    Attributes:
        sender: who asked; `address`: (run, attempt).
        name: of the program; `program`: a `Program`.
        inputs, outputs: numbers of values.
        position, to: see `wire.GRAMMAR`.
    """

    sender: str
    address: tuple
    name: bytes
    program: Program
    inputs: tuple
    outputs: tuple
    position: int | None
    to: str | None

    def check(self, consent, labels, stored):
        """Have the end's consent, if it is bound to a plan, to run this on values of these labels.

        Args:
            consent: see `smpc.hosts.plans.Consent`, or None.
            labels: number of a value -> what it is.
            stored: the numbers of all values that the end stores.
        Returns:
            the labels of the outputs. One that is stored under the number of an input is that
            value, in another form, and keeps its label.
        Raises:
            Refused: the plan has something else at this position, or it has been run already.
        """
        if consent is None:
            return {}
        kept = {id: self.inputs.index(id) for id in self.outputs if id in self.inputs}
        if any(id in stored and id not in kept for id in self.outputs):
            raise Refused("a run may store nothing in the place of another value")
        where = [kept.get(id) for id in self.outputs]
        consent.check(self, [labels.get(id) for id in self.inputs], where)
        return {id: f"{self.position}.{j}" for j, id in enumerate(self.outputs) if id not in kept}


def order_of(programs, name, key, inputs, outputs):
    """The program of that name: known, or read from `key`.

    Raises:
        Refused: it is neither, or does not fit the inputs and outputs named.
    """
    if key is not None and name_of(key) != name:
        raise Refused("a program goes by the SHA-256 of what is in it")
    if key is None and name not in programs:
        raise Refused("a program that is not known here")
    try:
        program = programs[name] if key is None else Program(key)
    except ValueError as error:
        raise Refused(str(error)) from error
    if (len(inputs), len(outputs)) != (len(program.inputs), len(program.outputs)):
        raise Refused("a program on more or fewer values than it takes")
    return program


def is_made(id, order, unsettled):
    """Whether a value of this number is to be made by an `Order`, or None, or has been made by an
    attempt that may yet count; in the place of an input it was there before."""
    to_be_made = order is not None and id in order.outputs and id not in order.inputs
    return to_be_made or any(id in made for made in unsettled.values())


def count(values, unsettled, counts):
    """Store what the attempts that count have made. It may be said twice: what was lost with one
    message is said again in the next."""
    for address in counts:
        values.update(unsettled.pop(address, {}))


def settle(values, unsettled, counts, delete):
    """The same; and drop what all other attempts have made, and forget what is to be deleted."""
    count(values, unsettled, counts)
    unsettled.clear()
    for id in delete:
        values.pop(id, None)


def own(value):
    """The value in arrays of its own: what was drawn or opened in a run is large, and used up."""
    if isinstance(value, Masked):
        return Masked(*(None if part is None else own(part) for part in value))
    value = np.asarray(value)
    return value if value.base is None and value.flags.c_contiguous else np.array(value, order="C")


def take(program, drawn, corrections):
    """Cut a worker's words into the fields of each dealt item.

    Args:
        drawn: uniform words for all fields, or, of the last worker, for those not derived.
        corrections: the last worker's shares of the derived fields, else None.
    Returns:
        for each instruction a dict, name -> uint64 array.
    Raises:
        Refused: the corrections are of another size.
    """
    position, sources = {False: 0, True: 0}, {False: drawn, True: corrections}
    if corrections is not None and corrections.size != program.corrections:
        raise Refused(f"{corrections.size} words are dealt where {program.corrections} are needed")
    taken = []
    for fields in program.fields:
        shares = {}
        for field in fields:
            corrected = field.derived and corrections is not None
            start = position[corrected]
            position[corrected] = start + field.size
            shares[field.name] = sources[corrected][start : start + field.size].reshape(field.shape)
        taken.append(shares)
    return taken
