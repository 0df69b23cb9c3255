"""The workers' noise once more, for `reference`: what each drew for itself, and adds of it.

It is written from docs/protocol.md ("Noise"). What a worker drew is in its own view, and in no
other; that it is made under a key of the worker's own is `ledger`'s to show. `examine` looks at
what was made, which is random: whether it is as large as the program says, and has to do with none
that was made at another worker or step.
"""

import itertools
from typing import NamedTuple

import numpy as np

from smpc.audit import chance
from smpc.audit.reference_values import Wrong

UNIT = 64  # of the coefficients
LOW = 16  # bits of noise that are uniform, if its standard deviation is LARGE
LARGE = 2**20


class Drawn(NamedTuple):
    """Noise that was drawn: before it is correlated.

    Attributes:
        worker: its number; `slot`: of the instruction; `sigma`: that it asks for.
        values: int64 (n,).
    """

    worker: int
    slot: int
    sigma: int
    values: np.ndarray


class Noises:
    """All workers' noise.

    Args:
        drawn: of each worker what it drew, arrays int64 (n,), in order.
    Attributes:
        used: a list of `Drawn`, in the order in which programs have asked for it.
    """

    def __init__(self, drawn):
        self._left, self.used = [[*of_one] for of_one in drawn], []
        self.forget()

    def forget(self):
        """The workers have new keys, and remember nothing."""
        self._past, self._made, self._address = {}, {}, None

    def begin(self, address, counts):
        """An attempt begins; those of `counts` count, and no others that were made before."""
        for counted in counts:
            for slot, (noises, most) in self._made.get(counted, {}).items():
                self._past[slot] = [noises, *self._past.get(slot, ())][:most]
        self._made, self._address = {address: {}}, address

    def parts(self, shape, sigma, correlation, slot):
        """What each worker adds: a list of uint64 arrays of this shape.

        Raises:
            Wrong: a worker has drawn none, or of another size.
        """
        size, noises = int(np.prod(shape, dtype=np.int64)), []
        past = [before for before in self._past.get(slot, ()) if before[0].size == size]
        for worker in range(len(self._left)):
            noise, taken = self._next(worker, size, sigma, slot), np.zeros(size, np.int64)
            for c, before in zip(correlation, past, strict=False):
                taken += c * before[worker]
            noises.append(noise - np.floor_divide(taken + UNIT // 2, UNIT))
        self._made[self._address][slot] = noises, len(correlation)
        return [noise.astype(np.uint64).reshape(shape) for noise in noises]

    def _next(self, worker, size, sigma, slot):
        left = self._left[worker]
        if not left or left[0].size != size:
            raise Wrong(f"worker {worker + 1} draws no noise for {size} elements")
        values = left.pop(0)
        self.used.append(Drawn(worker, slot, sigma, values))
        return values

    def unused(self):
        """How many arrays were drawn that no program has asked for."""
        return sum(map(len, self._left))


def examine(used, tests):
    """Test what was drawn.

    Args:
        used: a list of `Drawn`.
        tests: `chance.Tests`; each name begins with "chance: ".
    """
    by_slot, workers = {}, sorted({noise.worker for noise in used})
    for noise in used:
        by_slot.setdefault((noise.worker, noise.slot), []).append(noise)
    for worker in workers:
        name = f"chance: noise of worker{worker + 1}: "
        own = [noise for noise in used if noise.worker == worker]
        for some in (own, *(by_slot[where] for where in by_slot if where[0] == worker)):
            tests.add(f"{name}standard deviation", chance.spread([n[2:] for n in some]))
        signs = np.concatenate([n.values[n.values != 0] > 0 for n in own])
        tests.add(f"{name}signs", chance.two_sided(signs.sum(), signs.size))
        if large := [n.values for n in own if n.sigma >= LARGE]:
            low = np.concatenate(large).view(np.uint64)
            tests.add(f"{name}low bits", chance.two_sided(chance.ones(low)[:LOW], low.size))
        before = [pair for (w, _), some in by_slot.items() if w == worker for pair in _steps(some)]
        _unrelated(f"{name}that of the step before", before, tests)
        for other in workers[worker + 1 :]:
            theirs = [noise for noise in used if noise.worker == other]
            same = zip(own, theirs, strict=False)
            _unrelated(f"{name}that of worker{other + 1}", [*same], tests)


def _steps(some):
    """Each beside the one before, where they are of one size."""
    return [(a, b) for a, b in itertools.pairwise(some) if a.values.size == b.values.size]


def _unrelated(name, pairs, tests):
    """Test pairs of `Drawn` for having the same signs, or elements."""
    if not pairs:
        return
    agree = sum(int(((a.values < 0) == (b.values < 0)).sum()) for a, b in pairs)
    size = sum(a.values.size for a, _ in pairs)
    tests.add(f"{name}: signs", chance.two_sided(agree, size))
    equal = sum(int((a.values == b.values).sum()) for a, b in pairs)
    least = min(min(a.sigma, b.sigma) for a, b in pairs)
    tests.add(f"{name}: elements", chance.at_least(equal, size, 0.4 / least))
