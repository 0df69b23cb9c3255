"""Workers' views under one secret against their views under another, all that they hold the same.

Security says that the two are alike: given what some workers hold, inputs and randomness, what they
receive is distributed the same whatever the other inputs are. Here the keys of some workers are
held, everything else is drawn anew, and a computation runs once for each of two secrets. This one
is small, and has every kind of opening and of message; `resample_step` has the training itself.

Then, in both runs,

- everything but the arrays is the same, at every party: who says what to whom, in which order, all
  fields, lengths, programs, and how much is drawn, read and written. What is revealed differs, and
  may: of the orchestrator's view, too, all but its arrays is compared;
- the arrays that the workers who hold their keys receive from the others have nothing to do with
  each other: neither is a small multiple of the other, but for something small, nor do any of their
  bits agree more often than by luck. Arrays of few words are put together for that.
"""

import contextlib
import itertools
import random
import sys
from fractions import Fraction

import numpy as np

from smpc.audit import chance, openings
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER, WORKERS, Recorder, Transcript
from smpc.semi2k.randomness import new_key
from smpc.semi2k.session import OWNERS, Session

SIZE = 48  # of the square matrices that are computed with
UNIT = 1000  # of fixed precision
STEP = {"run_id": "held", "step": 1}  # of the checkpoint
THREE = (*WORKERS, "worker3")
# Who takes part, and whose keys are held: each of two workers alone, and two of three together.
CASES = (
    *((WORKERS, (worker,)) for worker in WORKERS),
    (THREE, ("worker1", "worker3")),
)
HOOKED = "torch_hooked"  # which syft's hook gives torch


# ---- Recording -----------------------------------------------------------------------------------


def record(path, workers, held, secrets):
    """Record the small computation; see `record_until_carried_through`.

    Args:
        path: of the transcript.
        workers: ids of all; `held`: id -> key, that the worker shares with the provider.
        secrets: a pair of uint64 matrices.
    """
    record_until_carried_through(path, lambda _: _compute(path.parent, workers, held, secrets))


def record_until_carried_through(path, compute):
    """Record a run in which no attempt is broken off.

    (What has one broken off is uniform, whatever the secrets are, and so tells the workers nothing;
    but two runs can be compared message by message only if both have as many.)

    Args:
        path: of the transcript.
        compute: called with the `Recorder`; makes a session, and returns how many attempts were
            broken off.
    """
    hook()
    anew = True
    while anew:
        recorder = Recorder(path, {"protocol": "semi2k"})
        with seeded_alike():
            recorder.start()
            try:
                anew = compute(recorder)
            finally:
                recorder.stop()
    recorder.save()


def hook():
    """Where syft is loaded, have its hook leave torch's own functions where the recorder stands."""
    if (syft := sys.modules.get("syft")) and not hasattr(torch := sys.modules["torch"], HOOKED):
        syft.TorchHook(torch)


@contextlib.contextmanager
def seeded_alike():
    """Seed all that has a seed: in every run alike, so that no mask may come of it. Afterwards all
    goes on from where it was."""
    generators = [
        (random.seed, random.getstate, random.setstate),
        (np.random.seed, np.random.get_state, np.random.set_state),
    ]
    if torch := sys.modules.get("torch"):
        generators.append((torch.manual_seed, torch.get_rng_state, torch.set_rng_state))
    states = [state() for _, state, _ in generators]
    for seed, _, _ in generators:
        seed(1)
    try:
        yield
    finally:
        for (_, _, restore), state in zip(generators, states, strict=True):
            restore(state)


def holding(workers, held):
    """A context in which a session's keys are drawn anew, but for those that are held."""
    keys = (held.get(party) or new_key() for party in (*workers, *OWNERS))
    return openings.keys(keys)


def _compute(folder, workers, held, secrets):
    """Run the computation; how many attempts were broken off."""
    with holding(workers, held):
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
    session.reveal(graph.summed(w, (0, 1), False))
    return session.network.counters.anew


def draw(rng):
    """Two pairs of secrets to tell apart, images and weights, so to speak: uint64 (SIZE, SIZE)."""

    def matrix():
        return rng.integers(-4 * UNIT, 4 * UNIT, (SIZE, SIZE)).view(np.uint64)

    return [(matrix(), matrix()), (matrix(), matrix())]


def resampled(folder, tests, repeats=2):
    """Put the small computation under two secrets to the tests, in all `CASES`; those of two
    workers so many times."""
    random = np.random.default_rng()
    for workers, held in (*CASES[:-1] * repeats, CASES[-1]):
        recorded = record_both(folder, held, draw(random), workers, record)
        tell_apart("a small computation", *recorded, held, tests)


def record_both(folder, held, secrets, workers, record):
    """Record a run under each of two secrets: two `Transcript`s.

    Args:
        held: ids of the workers whose keys are the same; `workers`: of all.
        record: called with the path, `workers`, the keys and a secret.
    """
    keys, transcripts = {worker: new_key() for worker in held}, []
    for number, secret in enumerate(secrets):
        path = folder / f"{'-'.join(held)}-of-{len(workers)}-{number}.jsonl"
        record(path, workers, keys, secret)
        transcripts.append(Transcript(path))
    return transcripts


# ---- Comparing -----------------------------------------------------------------------------------


def tell_apart(what, one, other, held, tests):
    """Test all that is public for being the same in two transcripts, and all that the workers who
    hold their keys receive for having nothing to do with each other.

    Args:
        what: was computed, for the names of the tests; `held`: these workers' ids.
    Raises:
        RuntimeError: they do not hold the same.
    """
    name = f"resampled: {' and '.join(held)} of {len(one.roster.workers)}, {what}: "
    differences = [_difference(one.view(party), other.view(party)) for party in one.parties]
    for party, difference in zip(one.parties, differences, strict=True):
        told = f"{name}all but arrays at {party}"
        if difference is None:
            tests.add(told, 1.0)
        else:  # luck has no part in it
            tests.add(f"{told}: {difference}", 0.0)
    if any(differences):
        return  # there is no telling which array belongs to which
    views = [[transcript.view(worker) for worker in held] for transcript in (one, other)]
    for pair in zip(*views, strict=True):
        _check_holdings(*pair)
    with np.errstate(over="ignore"):
        unrelated(name, *map(_opened, views), tests)
        unrelated(name, *map(_received, views), tests)


def _difference(one, other):
    """Where the views of a party differ in more than arrays: a few words; None if nowhere."""
    pairs = itertools.zip_longest(*map(_without_arrays, (one, other)))
    for a, b in pairs:
        if a != b:
            sender, receiver, kind, verb, *_ = a or b
            return f"{verb} ({kind}) from {sender} to {receiver} differs"
    return None


def _without_arrays(view):
    """What a party receives, sends, draws, reads and writes, but for what is in arrays that are not
    public; a file's digest is left out, too."""
    for entry in view.entries:
        fields = None if entry.kind == "kept" else entry.fields
        public = view.value(entry).tobytes() if entry.kind == "public" else None
        yield (*entry[2:7], entry.dtype, entry.shape, fields, public)


def _check_holdings(one, other):
    for pair in zip(*(_held(view) for view in (one, other)), strict=True):
        if not np.array_equal(*pair):
            raise RuntimeError(f"{one.party} does not hold the same under both secrets")


def _held(view):
    """A worker's key, and what it draws: arrays."""
    return [view.value(e) for e in (*view.arrays("dealt", name="key"), *view.arrays("drawn"))]


def _opened(views):
    """What is opened to workers, less all that they know of its mask: (name, bits, array)s."""
    for o, rest in openings.unknown_to(views):
        which = f"input {o.number}" if o.op == "input" else f"{o.op}, step {o.step}"
        yield f"opened by {which}", o.bits, rest


def _received(views):
    """What came from others as it came: (name, bits, array)s; no keys, which are held."""
    held = {view.party for view in views}
    for view in views:
        for e in view.arrays("masked", "dealt", receiver=view.party):
            if e.sender not in held and e.name != "key":
                name = f"{e.name} from {e.sender} to {e.receiver}"
                yield name, e.name == "bits", view.value(e)


def unrelated(name, ones, others, tests):
    """Test arrays under one secret against those under another: those of few words together.

    Args:
        ones, others: iterables of (name, whether it is of bits, uint64 array) triples, as many.
    """
    few = {}
    for (what, bits, a), (_, _, b) in zip(ones, others, strict=True):
        if a.size < chance.FEW:
            few.setdefault(bits, []).append((a.ravel(), b.ravel()))
        else:
            _unlike(f"{name}{what}", bits, a, b, tests)
    for bits, pairs in few.items():
        a, b = map(np.concatenate, zip(*pairs, strict=True))
        _unlike(f"{name}{'bits' if bits else 'words'} of what has few", bits, a, b, tests)


def _unlike(name, bits, a, b, tests):
    tests.add(name, chance.bits_agree(a, b))
    if not bits:
        tests.add(f"{name}, multiples", chance.related(a, b))
