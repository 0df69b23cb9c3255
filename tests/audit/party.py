"""What runs in a party's own process: its end, fed from pipes. It knows nothing of syft."""

import sys
from multiprocessing.connection import wait
from types import SimpleNamespace
from unittest import mock

from smpc.audit.openings import Store
from smpc.semi2k.network import Network
from smpc.semi2k.parties import Provider, Worker

NAME = "worker1 worker2 crypto_provider"  # of the session
KEYS = bytes(range(32)), bytes(range(32, 64))  # held, so that two runs can be compared


class Remote:
    """A party's end in another process; `receive` is a message there and back."""

    def __init__(self, pipe):
        self.pipe = pipe

    def receive(self, message):
        self.pipe.send_bytes(message)
        reply = self.pipe.recv_bytes()
        return reply[1:] if reply[:1] == b"+" else None


def serve(end, *pipes):
    """Answer requests until whoever made them hangs up."""
    if "syft" in sys.modules:
        raise RuntimeError("a party needs no syft")
    pipes = list(pipes)
    while pipes:
        for pipe in wait(pipes):
            try:
                reply = end.receive(pipe.recv_bytes())
            except EOFError:
                pipes.remove(pipe)
                continue
            pipe.send_bytes(b"-" if reply is None else b"+" + reply)


def run_worker(*pipes):
    """A worker's process, which the orchestrator and the provider speak to."""
    serve(Worker(Store()), *pipes)


def run_provider(pipe, *to_workers):
    """The provider's process. It sends the keys first, when it is told to."""
    workers = [
        SimpleNamespace(
            id=f"worker{i + 1}", crypto_store=SimpleNamespace(semi2k={NAME: Remote(to)})
        )
        for i, to in enumerate(to_workers)
    ]
    provider = Provider(SimpleNamespace(id="crypto_provider"), workers, Network(NAME))
    pipe.recv_bytes()
    hold_keys(provider)
    pipe.send_bytes(b"-")
    serve(provider, pipe)


def hold_keys(provider):
    """`send_keys` with the keys of this test."""
    with mock.patch("smpc.semi2k.parties.new_key", side_effect=KEYS):
        provider.send_keys()
