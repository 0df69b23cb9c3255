"""An owner's end: whose values are shared among the workers, under masks.

The mask of a value comes from a stream of the owner's, whose key it has from the crypto provider;
the workers have shares of the mask. So the owner sends every worker the same, the value less its
mask; the provider never sees that, and the owner no worker's share.
"""

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from smpc.semi2k import wire
from smpc.semi2k.randomness import Stream
from smpc.semi2k.wire import Refused, Roster, pack, raw, words

Messages = list[tuple[str, bytes]]  # each with the party that it is for


def batch_of(owner, which, start, stop):
    """What some of an owner's items are called in a plan."""
    return f"{owner} {which} {start}:{stop}"


def batch_label(owner, which, start, stop, name, digits):
    """What a value of an owner's items is called in a plan."""
    return f"{batch_of(owner, which, start, stop)} {name}, {digits} digits"


def check_label(owner: str, label: str | None):
    """Raise Refused unless this owner may call so what it shares: nobody's values but its own."""
    if label is not None and not label.startswith(f"{owner} "):
        raise Refused(f"{owner} shares what it calls {label[:40]!r}")


class Owner:
    """An owner's end.

    Args:
        id: its name; `roster`: everybody's.
        part: the data that it shares when it is asked to: has `batch(which, start, stop, digits)`,
            which gives name -> int64 array; None: it shares what it is given.
    Attributes:
        read: called with what all workers together reveal to it in a run, (n,).
    """

    ROLE = wire.OWNER
    read: Callable[[NDArray[np.int64]], None] | None

    def __init__(self, id: str, roster: Roster, part=None):
        self.id, self.roster, self.part, self.read = id, roster, part, None
        self._shares = {}  # of what the latest run reveals: (address, worker) -> its share
        self._stream, self._shared, self._keys = None, itertools.count(), set()
        self._asked = -1  # the last number of a value that it was asked to share

    @property
    def has_key(self) -> bool:
        """As a worker's."""
        return self._stream is not None

    def receive(self, sender: str, message: bytes) -> Messages:
        """Take a message; see `Worker.receive`."""
        verb, fields = wire.read(message, self.roster.role(sender), self.ROLE)
        return getattr(self, f"_{verb}")(sender, **fields)

    def _key(self, sender, key):
        """The key of its stream."""
        if key in self._keys:
            raise Refused(f"{self.id} has had this key already")
        self._keys.add(key)
        self._stream = Stream(key, f"inputs of {self.id}")
        return []

    def _share(self, sender, ids, which, start, stop, digits):
        """Share its items from `start` to before `stop`, of the set `which`."""
        try:
            if self.part is None:
                raise ValueError("it has none")
            batch = self.part.batch(which, start, stop, digits)
        except ValueError as error:
            raise Refused(f"{self.id} cannot share items {start} to {stop}: {error}") from error
        if len(ids) != len(batch) or min(ids) <= self._asked:
            raise Refused(f"{self.id} shares {', '.join(batch)} once, and not as values {ids}")
        self._asked, messages = max(ids), []
        for id, (name, values) in zip(ids, batch.items(), strict=True):
            label = batch_label(self.id, which, start, stop, name, digits)
            messages += self.share(id, values, label)
        return messages

    def _revealed(self, sender, run, attempt, revealed):
        """A worker's share of what a run reveals to this owner; of the last, it is read."""
        where = (run, attempt), sender
        if (
            self.read is None
            or where in self._shares
            or where[0] < max(self._shares, default=where)[0]
        ):
            raise Refused(f"{self.id} does not read run {run}, {attempt}, or has read it already")
        shares = {w: share for w, share in self._shares.items() if w[0] == where[0]}
        self._shares = {**shares, where: words(revealed)}
        if len(self._shares) < len(self.roster.workers):
            return []
        if len({share.size for share in self._shares.values()}) > 1:
            raise Refused("workers reveal shares of different sizes")
        self.read(sum(self._shares.values()).view(np.int64))
        return [(self.roster.orchestrator, pack("read", run=run, attempt=attempt))]

    def share(self, id: int, values: NDArray[np.int64], label: str | None = None) -> Messages:
        """The messages that share `values` among the workers as value `id`.

        8 bytes an element to each worker, and 8 from the provider to the last; no round.
        """
        if self._stream is None:
            raise Refused(f"{self.id} has no key yet")
        share = next(self._shared)
        secret = np.array(values, dtype=np.int64, order="C").view(np.uint64)
        mask = self._stream.words((share, 0), secret.size).reshape(secret.shape)
        about = {"share": share, "id": id, "shape": secret.shape, "label": label}
        shared = pack("input", **about, delta=raw([secret - mask]))
        return [
            (self.roster.provider, pack("input", **about)),
            *((worker, shared) for worker in self.roster.workers),
        ]
