"""An owner's end: whose values are shared among the workers, under masks.

The mask of a value comes from a stream of the owner's, whose key it has from the crypto provider;
the workers have shares of the mask. So the owner sends every worker the same, the value less its
mask; the provider never sees that, and the owner no worker's share.
"""

import itertools

import numpy as np

from smpc.semi2k import wire
from smpc.semi2k.randomness import Stream
from smpc.semi2k.wire import Refused, pack, raw


class Owner:
    """An owner's end.

    Args:
        id: its name; `roster`: everybody's.
    """

    ROLE = wire.OWNER

    def __init__(self, id, roster):
        self.id, self.roster = id, roster
        self._stream, self._shared, self._keys = None, itertools.count(), set()

    def receive(self, sender, message):
        """Take a message; see `Worker.receive`. It is the key of a stream."""
        _, fields = wire.read(message, self.roster.role(sender), self.ROLE)
        if fields["key"] in self._keys:
            raise Refused(f"{self.id} has had this key already")
        self._keys.add(fields["key"])
        self._stream = Stream(fields["key"], f"inputs of {self.id}")
        return []

    def share(self, id, values):
        """The messages that share `values`, an int64 array, among the workers as value `id`.

        8 bytes an element to each worker, and 8 from the provider to the last; no round.
        """
        if self._stream is None:
            raise Refused(f"{self.id} has no key yet")
        share = next(self._shared)
        secret = np.array(values, dtype=np.int64, order="C").view(np.uint64)
        mask = self._stream.words((share, 0), secret.size).reshape(secret.shape)
        about = {"share": share, "id": id, "shape": secret.shape}
        shared = pack("input", **about, delta=raw([secret - mask]))
        return [
            (self.roster.provider, pack("input", **about)),
            *((worker, shared) for worker in self.roster.workers),
        ]
