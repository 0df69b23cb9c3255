"""What a view of semi2k's holds: which instruction asked for each value that was opened, and more.

A worker's view holds its key, programs, and what the others said, round by round as one array.
Running the worker's own end on the view tells the values apart: `Follower` is such an end, which
has nothing but the view to go by. The orchestrator's view, and the crypto provider's, hold nothing
that was opened.
"""

import functools
from typing import NamedTuple
from unittest import mock

import numpy as np

from smpc.audit.transcript import NOISE
from smpc.semi2k import comparison, provider
from smpc.semi2k.arithmetic import offset
from smpc.semi2k.noise import Noise
from smpc.semi2k.run import Run
from smpc.semi2k.wire import pack
from smpc.semi2k.worker import Worker

TRUNCATIONS = ("truncate", "truncate_exactly")


class Opening(NamedTuple):
    """A value that was opened to the workers; or one that an owner shared under a mask.

    Attributes:
        address: (run, attempt); of what an owner shared None.
        number: of the instruction in the run's program; of what an owner shared its id.
        op, params: of the instruction; "input" and () of what an owner shared.
        step: how many values the instruction had had opened before.
        value: uint64, of the shape that was asked for.
        mask: the view's share of its mask.
    """

    address: tuple | None
    number: int
    op: str
    params: tuple
    step: int
    value: np.ndarray
    mask: np.ndarray

    @property
    def bits(self):
        """Whether `value` is of XORed bits, 64 to a word, rather than of sums."""
        return self.op == "above_zero"

    @property
    def offset(self):
        """What was added to the secret, besides its mask."""
        if self.op == "truncate":
            _, d, zone, _ = self.params
            return offset(d, zone)
        return offset(self.params[1], 63) if self.op == "truncate_exactly" else 0

    @property
    def masked(self):
        """`value` as a mask plus or minus a secret, whatever was opened; of bits, as it is.

        Two of these that share a mask, be it of one instruction's or of two, differ by the sum or
        the difference of two secrets.
        """
        if self.op in TRUNCATIONS:  # x + O + r
            return self.value - np.uint64(self.offset)
        return self.value if self.bits else -self.value  # x - a


class _NotedRun(Run):
    """A run that tells a `Follower` what is opened in it, and what is multiplied."""

    def __init__(self, follower, *arguments):
        self.follower, self.steps = follower, {}
        super().__init__(*arguments)

    def resume(self, opened_words, opened_bits):
        """See `run.Run`."""
        for number, _, value in self.given(opened_words, opened_bits):
            op, _, _, params = self.program.instructions[number]
            step = self.steps[number] = self.steps.get(number, -1) + 1
            mask = self.deals[number][_mask_of(op, params, step)]
            self.follower.note(number, op, params, step, value, mask)
        super().resume(opened_words, opened_bits)

    def _start(self, op, arguments, params, deal):
        if op == "product":
            self.follower.factors += arguments
        return super()._start(op, arguments, params, deal)


def _mask_of(op, params, step):
    """The dealt field that masks what an instruction has opened at this step."""
    if op != "above_zero":
        return "s"
    return f"masks{step}" if step < len(comparison.fan_ins(params[1])) else "rho_bits"


class _Drawn(Noise):
    """A worker's noise, of what it has drawn for it before: an iterator over arrays."""

    def __init__(self, drawn):
        super().__init__()
        self._drawn = drawn

    def draw(self, sigma, n):
        """See `Noise`."""
        return next(self._drawn, np.empty(0, np.int64))


class Follower(Worker):
    """A worker's end that receives what the view of that worker holds.

    Attributes:
        openings: a list of `Opening`, as they came.
        factors: of each product, in order, the two factors, `Masked`.
        answers: what the end says: a list of (receiver, message).
    """

    def __init__(self, view):
        super().__init__(view.party, view.roster)
        self.openings, self.factors, self.answers = [], [], []
        self._kept = iter([view.value(entry) for entry in view.arrays("kept")])
        self._noises = iter([view.value(entry) for entry in view.arrays("drawn", name=NOISE)])
        self.RUN = self._begin
        for entry, fields in view.messages(receiver=view.party):
            self.answers += self.receive(entry.sender, pack(**fields))

    def _begin(self, party, program, *about):
        """See `Worker.RUN`: called when all that the run starts from has come."""
        return _NotedRun(self, party, program, *about)

    def _key(self, sender, key):
        out = super()._key(sender, key)
        self._noise = _Drawn(self._noises)
        return out

    def note(self, *opened):
        """Add an `Opening` of the run at hand."""
        self.openings.append(Opening(self._latest, *opened))

    def _input(self, sender, share, id, **fields):
        out = super()._input(sender, share, id, **fields)
        self._note_input(id)
        return out

    def _deal_input(self, sender, owner, share, corrections):
        before = set(self.values)
        out = super()._deal_input(sender, owner, share, corrections)
        for id in self.values.keys() - before:
            self._note_input(id)
        return out

    def _note_input(self, id):
        if id in self.values:  # the last worker's has come whole
            delta, mask, _ = self.values[id]
            self.openings.append(Opening(None, id, "input", (), 0, delta, mask))

    def _save(self, sender, run_id, step, **_):
        """Nothing: following a worker writes no files."""
        return [(sender, pack("done", step=step))]

    def _load(self, sender, run_id, step, ids, shapes):
        """What the worker has read from its file is in its view."""
        kept, start = next(self._kept), 0
        for id, shape in zip(ids, shapes, strict=True):
            size = int(np.prod(shape, dtype=np.int64))
            self.values[id] = kept[start : start + size].reshape(shape)
            start += size
        return [(sender, pack("done", step=step))]


def keys(held):
    """A context in which a provider's keys, in the order of its roster, are these."""
    return mock.patch.object(provider, "new_key", iter(held).__next__)


@functools.lru_cache(maxsize=8)
def follow(view):
    """The `Follower` of the worker whose view it is; None if it is no worker's."""
    return Follower(view) if view.party in view.roster.workers else None


def openings(view):
    """Every value that the view holds opened, with the view's share of its mask, as `Opening`s."""
    follower = follow(view)
    return follower.openings if follower else []


def unknown_to(views):
    """What is opened to workers who watch together, less all that they know of its mask.

    Yields:
        pairs (the first one's `Opening`, what is left of `masked`, or of bits).
    """
    for same in zip(*map(openings, views), strict=True):
        first, rest = same[0], same[0].masked
        for opening in same:
            rest = rest ^ opening.mask if first.bits else rest - opening.mask
        yield first, rest
