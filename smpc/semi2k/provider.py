"""The crypto provider's end: a state machine without input or output, as `worker` is.

It receives programs and the numbers of values, which hold shapes and what is public, and never a
share or an opened value. It makes the keys that it shares with every other party, knows every mask,
and sends the last worker corrections; nobody else is dealt anything.
"""

import math
from functools import reduce
from typing import NamedTuple

import numpy as np

from smpc.semi2k import dealer, wire
from smpc.semi2k.owner import check_label
from smpc.semi2k.program import LINEAR, Program
from smpc.semi2k.randomness import Stream, new_key
from smpc.semi2k.run import FAILURES, Order, is_made, order_of, own, settle, take
from smpc.semi2k.wire import Refused, pack, raw

AHEAD = 3  # positions of a plan that are dealt before they are asked for, at most


class Dealt(NamedTuple):
    """A position of a plan that was dealt for ahead.

    Attributes:
        position, name: the position, and its program's name.
        inputs: of each the number of the value that it was dealt for; its label where that is
            made by a position that was dealt ahead, too.
        masks: what the provider knows of its outputs, in order.
    """

    position: int
    name: bytes
    inputs: tuple
    masks: list


class Provider:
    """The crypto provider's end.

    Args:
        id: its name; `roster`: everybody's.
    Attributes:
        masks: of what the workers store masked, by number.
        unsettled: (run, attempt) -> number -> such a mask, of runs that may yet not count.
        consent, labels: as in `worker.Worker`.
    """

    ROLE = wire.PROVIDER

    def __init__(self, id, roster):
        self.id, self.roster = id, roster
        self.masks, self.unsettled, self.programs = {}, {}, {}
        self._streams, self._inputs, self._latest = {}, {}, (-1, 0)
        self._order = None  # that waits for its inputs
        self.consent, self.labels, self._public_id = None, {}, -1
        self._position, self._ahead = None, {}  # the latest; address -> `Dealt`

    def receive(self, sender, message):
        """Take a message; see `Worker.receive`."""
        verb, fields = wire.read(message, self.roster.role(sender), self.ROLE)
        with np.errstate(over="ignore"):
            return getattr(self, f"_{verb}")(sender, **fields)

    def _keys(self, sender, owners):
        """Make all keys anew, and send each worker its own, and each of these owners."""
        if len(set(owners)) < len(owners) or not set(self.roster.owners) >= set(owners):
            raise Refused(f"keys are for owners, each named once, not {owners}")
        parties = (*self.roster.workers, *owners)
        keys = {party: new_key() for party in parties}
        self._order, self._ahead = None, {}
        self._streams = {worker: Stream(keys[worker], "runs") for worker in self.roster.workers}
        self._inputs = {
            (owner, party): Stream(keys[party], f"inputs of {owner}")
            for owner in owners
            for party in (*self.roster.workers[:-1], owner)
        }
        return [(party, pack("key", key=key)) for party, key in keys.items()]

    def _public(self, sender, id, shape, label):
        """A value that everybody knows: its mask is 0."""
        if id <= self._public_id or self._is_taken(id):
            raise Refused(f"value {id} is there already, or was")
        if not label.startswith("public "):
            raise Refused(f"a public value that is called {label[:40]!r}")
        self._public_id = id
        self.masks[id], self.labels[id] = np.zeros(shape, np.uint64), label
        return self._go_on()

    def _input(self, sender, share, id, shape, label):
        """An owner shares a value, under a mask from its stream: the last worker's part of that."""
        owner, address = self._inputs.get((sender, sender)), (share, 0)
        if owner is None or address <= owner.last or self._is_taken(id):
            raise Refused(f"value {id} is there already, {sender} has shared {share} or has no key")
        check_label(sender, label)
        size = math.prod(shape)
        mask = owner.words(address, size)
        drawn = [self._inputs[sender, w].words(address, size) for w in self.roster.workers[:-1]]
        self.masks[id], self.labels[id] = mask.reshape(shape), label
        corrections = reduce(np.subtract, drawn, mask)
        message = pack("deal_input", owner=sender, share=share, corrections=raw([corrections]))
        return [(self.roster.workers[-1], message), *self._go_on()]

    def _is_taken(self, id):
        """As a worker's."""
        return id in self.masks or is_made(id, self._order, self.unsettled)

    def _run(
        self, sender, run, attempt, program, key, inputs, outputs, counts, delete, forget, **about
    ):
        """Deal for an attempt of a run, once all of its inputs have come; one before it is over."""
        address = run, attempt
        if address <= self._latest or not self._streams:
            raise Refused(f"run {run}, attempt {attempt}, after {self._latest}, or without keys")
        known = order_of(self.programs, program, key, inputs, outputs)
        settle(self.masks, self.unsettled, counts, delete)
        for id in delete:
            self.labels.pop(id, None)
        for name in forget:
            self.programs.pop(name, None)
        self.programs[program], self._latest = known, address
        self._order = Order(sender, address, program, known, inputs, outputs, **about)
        return self._go_on()

    def _go_on(self):
        """Deal for the run that was asked for, if all is there."""
        order = self._order
        if order is None or any(mask is None for mask in self._masks_of(order)):
            return []
        self._order = None
        self._label_restored(order)
        labels = order.check(self.consent, self.labels, self.masks.keys())
        dealt, messages = self._ahead.pop(order.address, None), []
        if dealt is not None and self._is_for(dealt, order):
            masks = dealt.masks
        else:  # what was dealt ahead is of no use
            self._ahead = {}
            masks, messages = self._deal(order.address, order.program, self._masks_of(order))
        self.unsettled[order.address] = dict(zip(order.outputs, masks, strict=True))
        self.labels |= labels
        self._position = order.position
        return messages

    def _label_restored(self, order):
        """Of weights from a checkpoint nobody tells the provider what they are, and to each worker
        its own file does: take them here for what the plan says where they are first used."""
        plan = self.consent and self.consent.plan
        expected = plan and order.position is not None and plan.expected(order.position)
        if expected:
            for id, label in zip(order.inputs, expected.inputs, strict=False):
                self.labels.setdefault(id, label)

    def _is_for(self, dealt, order):
        """Whether this was dealt for what is asked for."""
        return (dealt.position, dealt.name) == (order.position, order.name) and all(
            known in (id, self.labels.get(id))
            for known, id in zip(dealt.inputs, order.inputs, strict=True)
        )

    def ahead(self):
        """Deal for the plan's next position before it is asked for, if there is one, and it starts
        from what is known here. Called when there is nothing else to do; the messages that deal."""
        last = max(self._ahead, default=self._latest)
        if self._order is not None or self._position is None or len(self._ahead) == AHEAD:
            return []
        position = self._position + 1 + len(self._ahead)
        expected = self.consent and self.consent.plan and self.consent.plan.expected(position)
        if not expected:
            return []
        known = self._by_label()
        if any(label not in known for label in expected.inputs) or self._may_be_shared_anew(
            position, expected.inputs
        ):
            return []
        inputs, masks = zip(*(known[label] for label in expected.inputs), strict=True)
        if expected.name not in self.programs:
            self.programs[expected.name] = Program(self.consent.plan.programs[expected.name])
        address, program = (last[0] + 1, 0), self.programs[expected.name]
        with np.errstate(over="ignore"):
            made, messages = self._deal(address, program, masks)
        self._ahead[address] = Dealt(position, expected.name, inputs, made)
        return messages

    def _may_be_shared_anew(self, position, labels):
        """Whether any of these is of an owner's batch that has served so shortly before `position`
        that it may yet be forgotten, and shared again for it, under another mask."""
        recent = range(max(0, self._position - AHEAD + 1), position)
        served = {label for p in recent for label in self.consent.plan.expected(p).inputs}
        owners = self.roster.owners
        return any(label.split(" ")[0] in owners for label in served.intersection(labels))

    def _by_label(self):
        """label -> (number or label, mask) of all values that there are, and of those that will be
        made by what was dealt ahead."""
        masks = self.masks | self.unsettled.get(self._latest, {})
        known = {label: (id, masks[id]) for id, label in self.labels.items() if id in masks}
        for dealt in self._ahead.values():
            labels = self.consent.plan.expected(dealt.position).outputs
            known |= {label: (label, mask) for label, mask in zip(labels, dealt.masks, strict=True)}
        return known

    def _masks_of(self, order):
        """What it knows of each input of an order: None where that has not come."""
        return [
            self.masks.get(id) if form == "masked" else dealer.zeros(shape)
            for (_, form, shape), id in zip(order.program.inputs, order.inputs, strict=True)
        ]

    def _deal(self, address, program, masks):
        """Deal for an attempt of a run, on inputs with these masks.

        Returns:
            what it knows of the outputs, and the messages that deal.
        """
        if address <= self._streams[self.roster.workers[0]].last:
            raise Refused(f"{self.id} has dealt for run {address} already")
        try:
            known, corrections = self._make(address, program, masks)
        except FAILURES as error:
            raise Refused(f"{self.id} cannot deal for run {address}: {error}") from error
        outputs = [own(known[register]) for register in program.outputs]
        if not program.corrections:
            return outputs, []
        run, attempt = address
        message = pack("deal", run=run, attempt=attempt, corrections=raw(corrections))
        return outputs, [(self.roster.workers[-1], message)]

    def _make(self, address, program, masks):
        """What it knows of each register; and the last worker's shares of derived fields."""
        known = {}
        for (register, _, shape), mask in zip(program.inputs, masks, strict=True):
            known[register] = mask
            if mask.shape != shape:
                raise Refused(f"a program that takes a shape of {shape} for another value")
        *others, last = self._draw(address, program)
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

    def _draw(self, address, program):
        """Every worker's words for this run, cut into fields; of the last, the uniform ones."""
        *others, last = self.roster.workers
        every = program.drawn + program.corrections
        drawn = [take(program, self._streams[w].words(address, every), None) for w in others]
        blank = np.broadcast_to(np.uint64(0), program.corrections)
        words = self._streams[last].words(address, program.drawn)
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
        case "partial" | "noise":
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
