"""What runs in a party's own process: its end, and a pipe to every other. It knows nothing of syft.

A pipe is a channel between two parties, and so vouches for who is at its other end. For the test's
sake there are three more messages than the protocol's: the provider and the owners tell the
orchestrator when they have said all that came of a request (DONE), the orchestrator asks anybody
what it has heard (HEARD), and the owners for a value to be shared.
"""

import hashlib
import queue
import sys
import threading
from multiprocessing.connection import wait
from unittest import mock

import msgpack
import numpy as np

from smpc.semi2k.owner import Owner
from smpc.semi2k.provider import Provider
from smpc.semi2k.wire import words
from smpc.semi2k.worker import Worker

KEYS = [bytes(range(i, i + 32)) for i in range(6)]  # held, so that two runs can be compared
DONE, HEARD = b"done", b"heard"


def keys_held():
    """A context in which a provider makes these keys."""
    return mock.patch("smpc.semi2k.provider.new_key", iter(KEYS).__next__)


class Heard:
    """What a party has heard of each other, as a digest of all messages, in order."""

    def __init__(self):
        self.digests = {}

    def note(self, sender, message):
        """It has heard this."""
        digest = self.digests.setdefault(sender, hashlib.sha256())
        digest.update(len(message).to_bytes(8, "big") + message)

    def as_dict(self):
        """sender -> digest."""
        return {sender: digest.hexdigest() for sender, digest in self.digests.items()}


def end_of(party, roster):
    """A party's end."""
    if party in roster.workers:
        return Worker(party, roster)
    return (Provider if party == roster.provider else Owner)(party, roster)


def run(party, roster, *pipes):
    """A party's process, until the orchestrator hangs up; `pipes` to the others, in the order in
    which they are listened to."""
    if "syft" in sys.modules:
        raise RuntimeError("a party needs no syft")
    end, heard, out = end_of(party, roster), Heard(), queue.SimpleQueue()
    to = dict(pipes)
    threading.Thread(target=write, args=(to, out), daemon=True).start()
    listening = {pipe: other for other, pipe in pipes}
    with keys_held():
        while True:
            ready = wait(listening)
            for pipe, other in [pair for pair in listening.items() if pair[0] in ready]:
                try:
                    message = pipe.recv_bytes()
                except EOFError:
                    if other == roster.orchestrator:
                        return
                    del listening[pipe]
                    continue
                if message == HEARD:
                    out.put((other, msgpack.packb(heard.as_dict())))
                    continue
                for answer in answers(end, heard, other, message):
                    out.put(answer)
                if other == roster.orchestrator and not isinstance(end, Worker):
                    out.put((other, DONE))


def answers(end, heard, sender, message):
    """What comes of a message."""
    if isinstance(end, Owner) and sender == end.roster.orchestrator:
        id, shape, values = msgpack.unpackb(message)
        return end.share(id, words(values).view(np.int64).reshape(shape))
    heard.note(sender, message)
    return end.receive(sender, message)


def write(to, out):
    """Write what is to be said, while the party listens: two that write at once wait for nobody."""
    while True:
        receiver, message = out.get()
        to[receiver].send_bytes(message)
