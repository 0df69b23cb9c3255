"""A worker's view under one secret against its view under another, all that it holds kept the same.

Security says that the two are alike: given a worker's own inputs and randomness, what it receives
is distributed the same whatever the other inputs are. Here a worker's shares and its key are held,
everything else is drawn anew, and a small computation with every kind of opening runs once for each
of two secrets.
"""

import contextlib
import itertools
import random
from types import SimpleNamespace

import numpy as np
import syft
import torch
from syft.generic import id_provider

from smpc.audit.openings import Store
from smpc.audit.transcript import PROVIDER, WORKERS, Recorder
from smpc.semi2k.parties import pack, raw
from smpc.semi2k.randomness import Stream, new_key
from smpc.semi2k.rounds import Session
from smpc.semi2k.tensor import Semi2kTensor, install

SIZE = 48  # of the square matrices that are computed with
UNIT = 1000  # of fixed precision


def record(path, party, key, shares, secrets):
    """Record a run in which worker `party`, 0 or 1, has this key and these shares.

    Args:
        path: of the transcript.
        key: of the stream that the worker shares with the provider.
        shares: its shares of the secrets, a list of uint64 matrices; `secrets`: likewise.
    """
    if not hasattr(torch, "torch_hooked"):
        syft.TorchHook(torch)
    install()
    recorder = Recorder(path, {"protocol": "semi2k"})
    with _alike():
        recorder.start()
        try:
            session = _session(party, key)
            x, w = (
                _share(session, f"held {number}", party, *pair)
                for number, pair in enumerate(zip(shares, secrets, strict=True))
            )
            recorder.inputs_are_shared()
            y = x.matmul(w).div(UNIT).relu().mul(x).div(UNIT)
            session.compute([y.node])
        finally:
            recorder.stop()
    recorder.save()


@contextlib.contextmanager
def _alike():
    """Seed all that has a seed, and number syft's ids from 0: in every run alike, so that no mask
    may come of it. Afterwards all goes on from where it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    create_id = id_provider.create_random_id
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    id_provider.create_random_id = itertools.count().__next__
    try:
        yield
    finally:
        for restore, state in zip(
            (random.setstate, np.random.set_state, torch.set_rng_state), states, strict=True
        ):
            restore(state)
        id_provider.create_random_id = create_id


def _session(party, key):
    """A session of its own, in which the provider deals with this key to this worker."""
    worker1, worker2, provider = (
        SimpleNamespace(id=id, object_store=Store(), crypto_store=SimpleNamespace(semi2k={}))
        for id in (*WORKERS, PROVIDER)
    )
    session = Session("held", (worker1, worker2), provider)
    keys = [new_key(), new_key()]
    keys[party] = key
    provider.crypto_store.semi2k["held"].streams = [Stream(key) for key in keys]
    for number, worker in enumerate(session.workers):
        message = pack(do="key", party=number, key=keys[number])
        session.network.request(provider, worker, message, "sharing")
    return session


def _share(session, id, party, share, secret):
    """A shared tensor of which worker `party` has this share."""
    for number, worker in enumerate(session.workers):
        mine = share if number == party else secret - share
        message = pack(do="store", id=id, shape=mine.shape, share=raw([mine]))
        session.network.request(syft.local_worker, worker, message, "sharing")
    node = session.graph.stored(id, secret.shape, lambda id: None)
    return Semi2kTensor(session=session, node=node, crypto_provider=session.provider)


def draw(rng):
    """Two secrets to tell apart, (SIZE, SIZE) each, and what one worker holds of them."""

    def matrix():
        return rng.integers(-4 * UNIT, 4 * UNIT, (SIZE, SIZE)).view(np.uint64)

    weights = matrix()
    shares = [Stream(new_key()).words(SIZE * SIZE).reshape(SIZE, SIZE) for _ in range(2)]
    return [(matrix(), weights), (matrix(), weights)], shares
