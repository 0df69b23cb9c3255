"""The crypto provider's end: a state machine without input or output, as `worker` is.

It receives programs and the numbers of values, which hold shapes and what is public, and never a
share or an opened value. It makes the keys that it shares with every other party, knows every mask,
and sends the last worker corrections; nobody else is dealt anything.
"""

import math
from functools import reduce

import numpy as np

from smpc.semi2k import dealer, wire
from smpc.semi2k.program import LINEAR
from smpc.semi2k.randomness import Stream, new_key
from smpc.semi2k.run import FAILURES, order_of, own, settle, take
from smpc.semi2k.wire import Refused, pack, raw


class Provider:
    """The crypto provider's end.

    Args:
        id: its name; `roster`: everybody's.
    Attributes:
        masks: of what the workers store masked, by number.
        unsettled: (run, attempt) -> number -> such a mask, of runs that may yet not count.
    """

    ROLE = wire.PROVIDER

    def __init__(self, id, roster):
        self.id, self.roster = id, roster
        self.masks, self.unsettled, self.programs = {}, {}, {}
        self._streams, self._inputs, self._latest = {}, {}, (-1, 0)

    def receive(self, sender, message):
        """Take a message; see `Worker.receive`."""
        verb, fields = wire.read(message, self.roster.role(sender), self.ROLE)
        with np.errstate(over="ignore"):
            return getattr(self, f"_{verb}")(sender, **fields)

    def _keys(self, sender):
        """Make all keys anew, and send each party its own."""
        parties = (*self.roster.workers, *self.roster.owners)
        keys = {party: new_key() for party in parties}
        self._streams = {worker: Stream(keys[worker], "runs") for worker in self.roster.workers}
        self._inputs = {
            (owner, party): Stream(keys[party], f"inputs of {owner}")
            for owner in self.roster.owners
            for party in (*self.roster.workers[:-1], owner)
        }
        return [(party, pack("key", key=key)) for party, key in keys.items()]

    def _input(self, sender, share, id, shape):
        """An owner shares a value, under a mask from its stream: the last worker's part of that."""
        owner, address = self._inputs.get((sender, sender)), (share, 0)
        if owner is None or address <= owner.last or id in self.masks:
            raise Refused(f"value {id} is there already, {sender} has shared {share} or has no key")
        size = math.prod(shape)
        mask = owner.words(address, size)
        drawn = [self._inputs[sender, w].words(address, size) for w in self.roster.workers[:-1]]
        self.masks[id] = mask.reshape(shape)
        corrections = reduce(np.subtract, drawn, mask)
        message = pack("deal_input", owner=sender, share=share, corrections=raw([corrections]))
        return [(self.roster.workers[-1], message)]

    def _run(self, sender, run, attempt, program, key, inputs, outputs, counts, delete, forget):
        """Deal for an attempt of a run."""
        address = run, attempt
        if address <= self._latest or not self._streams:
            raise Refused(f"run {run}, attempt {attempt}, after {self._latest}, or without keys")
        order = order_of(self.programs, program, key, inputs, outputs)
        settle(self.masks, self.unsettled, counts, delete)
        for name in forget:
            self.programs.pop(name, None)
        self.programs[program], self._latest = order, address
        try:
            masks, corrections = self._deal(order, inputs)
        except FAILURES as error:
            raise Refused(f"{self.id} cannot deal for run {address}: {error}") from error
        made = zip(order.outputs, outputs, strict=True)
        forms = {id: masks[register] for register, id in made}
        self.unsettled[address] = {id: own(mask) for id, mask in forms.items()}
        if not order.corrections:
            return []
        message = pack("deal", run=run, attempt=attempt, corrections=raw(corrections))
        return [(self.roster.workers[-1], message)]

    def _deal(self, program, inputs):
        """What it knows of each register; and the last worker's shares of derived fields."""
        known = {}
        for (register, form, shape), id in zip(program.inputs, inputs, strict=True):
            known[register] = self.masks[id] if form == "masked" else dealer.zeros(shape)
            if known[register].shape != shape:
                raise Refused(f"a program that takes a shape of {shape} for another value")
        *others, last = self._draw(program)
        corrections = []
        for number, instruction in enumerate(program.instructions):
            ins = [known[register] for register in instruction.ins]
            item = program.deals[number]
            if item is None:
                results = (known_of(instruction, ins),)
            else:
                shares = [drawn[number] for drawn in (*others, last)]
                derived, results = item.make(summed(program.fields[number], shares), *ins)
                for field in program.fields[number]:
                    if field.derived:
                        subtract = np.bitwise_xor if field.boolean else np.subtract
                        drawn = (share[field.name] for share in shares[:-1])
                        corrections.append(reduce(subtract, drawn, derived[field.name]))
            known |= zip(instruction.outs, results, strict=False)
        return known, corrections

    def _draw(self, program):
        """Every worker's words for this run, cut into fields; of the last, the uniform ones."""
        *others, last = self.roster.workers
        every = program.drawn + program.corrections
        drawn = [take(program, self._streams[w].words(self._latest, every), None) for w in others]
        blank = np.broadcast_to(np.uint64(0), program.corrections)
        words = self._streams[last].words(self._latest, program.drawn)
        return [*drawn, take(program, words, blank)]


def known_of(instruction, ins):
    """What the provider knows of the result of an instruction for which nothing is dealt."""
    op, _, _, params = instruction
    if op in LINEAR:
        return LINEAR[op](*ins, *params)
    match op:
        case "product":
            return dealer.product_of_masks(params[0], *ins)
        case "add_public":
            return np.broadcast_to(ins[0], np.broadcast_shapes(ins[0].shape, params[0].shape))
        case "public":
            return dealer.zeros(params[0].shape)
        case "unmask":
            return dealer.zeros(ins[0].shape)
        case "partial":
            return ins[0]
    raise RuntimeError(f"no such instruction: {op}")


def summed(fields, shares):
    """What all workers' draws of each uniform field make."""
    return {
        field.name: reduce(
            np.bitwise_xor if field.boolean else np.add, (share[field.name] for share in shares)
        )
        for field in fields
        if not field.derived
    }
