"""Workers' views under one secret against their views under another, all that they hold the same.

Security says that the two are alike: given what some workers hold, inputs and randomness, what they
receive is distributed the same whatever the other inputs are. Here the keys of one worker or of
several are held, everything else is drawn anew, and a small computation with every kind of opening
and of message runs once for each of two secrets.
"""

import contextlib
import random
from fractions import Fraction

import numpy as np
import syft
import torch

from smpc.audit import openings
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER, Recorder
from smpc.semi2k.randomness import new_key
from smpc.semi2k.session import OWNERS, Session

SIZE = 48  # of the square matrices that are computed with
UNIT = 1000  # of fixed precision
STEP = {"run_id": "held", "step": 1}  # of the checkpoint


def record(path, workers, held, secrets):
    """Record a run in which these workers have these keys, and no attempt is broken off.

    (What has one broken off is uniform, whatever the secrets are, and so tells the workers nothing;
    but two runs can be compared message by message only if both have as many.)

    Args:
        path: of the transcript.
        workers: ids of all; `held`: id -> key, that the worker shares with the provider.
        secrets: a list of two uint64 matrices.
    """
    if not hasattr(torch, "torch_hooked"):  # which the recorder stands at, too
        syft.TorchHook(torch)
    anew = True
    while anew:
        recorder = Recorder(path, {"protocol": "semi2k"})
        with seeded_alike():
            recorder.start()
            try:
                anew = _compute(path.parent, workers, held, secrets)
            finally:
                recorder.stop()
    recorder.save()


@contextlib.contextmanager
def seeded_alike():
    """Seed all that has a seed: in every run alike, so that no mask may come of it. Afterwards all
    goes on from where it was."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    try:
        yield
    finally:
        for restore, state in zip(
            (random.setstate, np.random.set_state, torch.set_rng_state), states, strict=True
        ):
            restore(state)


def _compute(folder, workers, held, secrets):
    """Run the computation; how many attempts were broken off."""
    keys = [held.get(worker) or new_key() for worker in (*workers, *OWNERS)]
    with openings.keys(keys):
        session = Session.simulated(ORCHESTRATOR, workers, PROVIDER)
    session.keep_shares_in(folder)
    graph = session.graph
    graph.one = UNIT

    def divided(x):
        return graph.scaled(x, Fraction(1, UNIT))

    x, w = (session.share(secret.view(np.int64)) for secret in secrets)
    y = divided(graph.times("matmul", x, w))
    relu = graph.times("mul", graph.above_zero(y), y)
    z = divided(graph.times("mul", relu, x))
    session.want(z)
    session.compute()
    session.save([z], keep=None, **STEP)
    (again,) = session.load([z.shape], **STEP)
    session.exact = True
    product = divided(graph.times("mul", again, z))
    session.want(product)
    session.compute()
    session.reveal(graph.summed(w, (0, 1), False))  # which is the same under both secrets
    return session.network.counters.anew


def draw(rng):
    """Two pairs of secrets to tell apart, (SIZE, SIZE) each; their second is the same."""

    def matrix():
        return rng.integers(-4 * UNIT, 4 * UNIT, (SIZE, SIZE)).view(np.uint64)

    weights = matrix()
    return [(matrix(), weights), (matrix(), weights)]
