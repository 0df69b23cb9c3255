"""Which instruction asked for each value that a view of semi2k's holds opened.

A view holds programs, and what was opened round by round as one array. Running a worker's own code
on the view tells them apart: `Follower` is such a worker, which takes zeros for the shares and the
randomness that the view does not hold.
"""

from typing import NamedTuple

import numpy as np

from smpc.audit.transcript import WORKERS
from smpc.semi2k.arithmetic import Bits, offset
from smpc.semi2k.parties import Worker, pack, split, take, words


class Opening(NamedTuple):
    """A value that was opened.

    Attributes:
        run, number: of the program's run, and of the instruction in it.
        op, params: of the instruction.
        step: how many values the instruction had had opened before.
        bits: whether `value` is of XORed bits, 64 to a word, rather than of sums.
        value: uint64, of the shape that was asked for.
        mask: of a "mask", what the view knows of it: the sum of the shares of it that it holds.
    """

    run: int
    number: int
    op: str
    params: tuple
    step: int
    bits: bool
    value: np.ndarray
    mask: np.ndarray | int

    @property
    def masked(self):
        """`value` as a mask plus or minus a secret, whatever was opened; of bits, as it is.

        Two of these that share a mask, be it of one instruction's or of two, differ by the sum or
        the difference of two secrets.
        """
        if self.op == "mask":  # x - a
            return -self.value
        if self.op == "truncate":  # x + O + r
            return self.value - np.uint64(offset(self.params[1]))
        return self.value  # above_zero: r - x


class Store:
    """What `Worker` needs of a syft worker: the shares that it stores, by id."""

    def __init__(self):
        self.object_store, self.objects = self, {}
        self.get_obj = self.objects.__getitem__

    def register_obj(self, value, obj_id):
        """Keep a share."""
        self.objects[obj_id] = value

    def rm_obj(self, obj_id):
        """Forget it."""
        self.objects.pop(obj_id, None)


def given(run, words_, bits):
    """Which of a round's opened words and bits, bytes, each instruction that waits is given.

    Yields:
        the instruction's number in `run`, what it asked for, and what is opened, a uint64 array or
        `Bits` of one.
    """
    asked = run.asks()
    opened = [iter(split(words(w), a)) for w, a in zip((words_, bits), asked, strict=True)]
    for number, _, ask in run.waiting:
        boolean = isinstance(ask, Bits)
        value = next(opened[boolean])
        yield number, ask, Bits(value) if boolean else value


class Follower(Worker):
    """A worker's end that is fed what a view holds.

    Attributes:
        openings: a list of `Opening`, as they came; `replies`: its answers to what it was fed.
    """

    def __init__(self, party):
        super().__init__(Store())
        self.party, self.openings, self.replies, self.steps = party, [], [], {}

    def feed(self, fields):
        """Receive a message, given as its fields; one that gives a share away is a shape to it."""
        if fields["do"] == "store" and not isinstance(fields["share"], bytes):
            fields["share"] = np.zeros(fields["shape"], dtype=np.uint64).tobytes()
        self.replies.append(self.receive(pack(**fields)))

    def do_save(self, **fields):
        """Nothing: the shares that a checkpoint keeps are the worker's own."""

    def do_load(self, ids, folder, about, shapes):
        """What a worker reads from its own file is in no transcript."""
        for id, shape in zip(ids, shapes, strict=True):
            self._store(id, np.zeros(shape, dtype=np.uint64))

    def do_open(self, words_, bits):
        """Note what each instruction that waits is given, then go on."""
        for number, _, value in given(self.run, words_, bits):
            self._note(number, value)
        return super().do_open(words_, bits)

    def _note(self, number, value):
        op, _, _, params = self.run.program.instructions[number]
        step = self.steps[self.serial, number] = self.steps.get((self.serial, number), -1) + 1
        mask = self.run.deals[number]["a"] if op == "mask" else 0
        bits = isinstance(value, Bits)
        value = value.words if bits else value
        self.openings.append(Opening(self.serial, number, op, params, step, bits, value, mask))

    def _take(self, serial, program):
        drawn = program.words - (program.corrections if self.party else 0)
        corrections = np.zeros(program.corrections, np.uint64) if self.party else None
        if self.stream is not None:
            if not self.party or serial in self.dealt:
                return super()._take(serial, program)
            return take(program, self.stream.words(drawn), corrections)
        return take(program, np.zeros(drawn, np.uint64), corrections)


def follow(view):
    """A `Follower` for each worker whose messages the view holds, at the end of the run."""
    followers = []
    for party, worker in enumerate(WORKERS):
        messages = list(view.messages(receiver=worker))
        if any(fields["do"] == "run" for fields in messages):
            follower = Follower(party)
            if not any(fields["do"] == "store" for fields in messages):
                for entry in view.sharing:
                    if (entry.name, entry.receiver) == ("store", worker):
                        follower.feed(dict(entry.fields))
            for fields in messages:
                follower.feed(fields)
            followers.append(follower)
    return followers


def openings(view):
    """Every value that the view holds opened, with what it knows of the mask, as `Opening`s."""
    followed = [follower.openings for follower in follow(view)]
    with np.errstate(over="ignore"):
        return [
            same[0]._replace(mask=sum(opening.mask for opening in same))
            for same in zip(*followed, strict=True)
        ]
