"""Workers' views under two secrets: of a small computation, and of the training itself."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import train_encrypted as script
from smpc.audit import chance, checks, resample, resample_step
from smpc.audit.transcript import WORKERS
from smpc.semi2k import session, wire, worker
from smpc.semi2k.owner import Owner
from smpc.semi2k.randomness import Stream
from smpc.semi2k.session import Session
from smpc.semi2k.wire import pack
from smpc.semi2k.worker import Worker
from tests.audit.conftest import caught
from tests.audit.test_controls import POWER

FIRST_LAYER = 784 * 128


@pytest.fixture
def trained(parties, tmp_path):
    """trained() -> two secrets, and the `Transcript`s of the training under each, worker2's key
    being the same."""

    def trained():
        secrets = resample_step.draw(np.random.default_rng())
        record = resample_step.record
        return secrets, resample.record_both(tmp_path, WORKERS[1:], secrets, WORKERS, record)

    return trained


@pytest.fixture
def told_apart(trained):
    """told_apart() -> what the audit finds in the training under two secrets."""

    def told_apart():
        tests = chance.Tests()
        resample.tell_apart("a training", *trained()[1], WORKERS[1:], tests)
        return caught(tests)

    return told_apart


def revealed(transcript):
    """What all workers' shares make: int64 (n,)."""
    view = transcript.view(transcript.roster.orchestrator)
    shares = [
        np.concatenate([view.value(e) for e in view.arrays("revealed", sender=worker)])
        for worker in transcript.roster.workers
    ]
    return sum(shares).view(np.int64)


def in_the_clear(secret):
    """The losses of the two steps."""
    net, losses = script.Net(script.ACTIVATIONS["relu"]), []
    net.load_state_dict(secret.weights)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02)
    for data, target in secret.loader(None, train=True):
        optimizer.zero_grad()
        loss = ((net(data) - script.one_hot_of(target)) ** 2).sum() / len(data)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---- What is not broken --------------------------------------------------------------------------


def test_a_small_computation_under_two_secrets(parties, tmp_path):
    tests = chance.Tests()
    resample.resampled(tmp_path, tests)
    assert tests.alarms() == []
    assert tests.count == 9_558
    assert all(name.startswith("resampled: ") for name, _ in tests.results)


@pytest.mark.parametrize(
    ("quick", "count"), [(True, 10_531), pytest.param(False, 34_570, marks=pytest.mark.thorough)]
)
def test_a_training_under_two_secrets(parties, tmp_path, quick, count):
    tests = chance.Tests()
    resample_step.resampled(tmp_path, tests, quick)
    assert tests.alarms() == []
    assert tests.count == count


def test_what_is_compared_is_the_training(trained):
    """On two secrets of which every part differs; two losses and a count are revealed of each."""
    secrets, transcripts = trained()
    for secret, transcript in zip(secrets, transcripts, strict=True):
        *losses, correct = revealed(transcript) / 1000
        assert losses == pytest.approx(in_the_clear(secret), abs=0.02)
        assert correct in range(resample_step.BATCH + 1)
    (one, other), sizes = map(checks.shared, transcripts), []
    for a, b in zip(one, other, strict=True):
        assert (a != b).any()
        sizes.append(a.size)
    images, labels = 16 * 784, 16 * 10
    biases_and_weights = [FIRST_LAYER, 128, 128 * 64, 64, 64 * 10, 10]
    assert sizes == [images, labels, images, labels, images, 16, *biases_and_weights]


def test_a_worker_who_does_not_hold_the_same(parties, tmp_path):
    def record(path, workers, held, secrets):
        resample.record(path, workers, {}, secrets)

    secrets = resample.draw(np.random.default_rng())
    recorded = resample.record_both(tmp_path, WORKERS[:1], secrets, WORKERS, record)
    with pytest.raises(RuntimeError, match="worker1 does not hold the same under both secrets"):
        resample.tell_apart("nothing", *recorded, WORKERS[:1], chance.Tests())


@pytest.mark.thorough
def test_it_needs_no_syft(tmp_path):
    """Nor do the errors and the scenarios: whoever has but a host's packages can run all."""
    code = f"""
import pathlib, sys
from smpc.audit import chance, refusals, resample, scenarios
tests, folder = chance.Tests(), pathlib.Path({str(tmp_path)!r})
resample.resampled(folder, tests, repeats=1)
assert len(scenarios.training(folder)) == 1
assert not tests.alarms() and not refusals.found_in() and "syft" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- What is broken ------------------------------------------------------------------------------


def test_a_mask_of_the_weights_from_a_seed(monkeypatch, told_apart):
    """That of the first layer's initial weights: then they differ by what the weights do."""
    native = Stream.words

    def words(self, address, n):
        drawn = native(self, address, n)
        seeded = np.random.default_rng(1).integers(2**64, size=n, dtype=np.uint64)
        return seeded if n == FIRST_LAYER else drawn

    monkeypatch.setattr(Stream, "words", words)
    found = told_apart()
    name = "resampled: worker2 of 2, a training: "
    assert found[f"{name}opened by input 6, multiples"] < POWER
    assert {line.removeprefix(name).split(",")[0] for line in found} == {
        "opened by input 6",
        "corrections from crypto_provider to worker2",
    }


def share_of(end):
    """A share that an end stores, as a number that may stand in a message."""
    return int(end.share(min(end.values)).flat[0]) % 2**48


@pytest.mark.parametrize("verb", ["result", "done"])
def test_a_share_in_a_number_that_a_worker_says(monkeypatch, resampled, verb):
    fields = wire.GRAMMAR[wire.WORKER, wire.ORCHESTRATOR]
    monkeypatch.setitem(fields, verb, fields[verb] | {"told": wire.number})
    native, acting = Worker.receive, []

    def receive(self, sender, message):
        acting[:] = [self]
        return native(self, sender, message)

    def telling(do, **about):
        return pack(do, **about, **({"told": share_of(*acting)} if do == verb else {}))

    monkeypatch.setattr(Worker, "receive", receive)
    monkeypatch.setattr(worker, "pack", telling)
    found = resampled()
    assert {name.split(":")[1] for name in found} == {
        " worker1 of 2, a small computation",
        " worker2 of 2, a small computation",
        " worker1 and worker3 of 3, a small computation",
    }
    assert all(re.search(rf": {verb} .message. from worker\d to me differs$", n) for n in found)


def test_a_share_in_a_number_that_the_orchestrator_says(monkeypatch, resampled):
    """In a field that has another use where there is a plan, and none here."""
    ends = {}
    native = Session._compute

    def compute(self, *args):
        ends["worker"] = self.network.ends["worker1"]
        return native(self, *args)

    def telling(do, **fields):
        more = {"position": share_of(ends["worker"])} if do == "run" else {}
        return pack(do, **fields | more)

    monkeypatch.setattr(Session, "_compute", compute)
    monkeypatch.setattr(session, "pack", telling)
    found = resampled()
    assert {name.rpartition(": ")[2] for name in found} == {
        f"run (message) from me to {party} differs"
        for party in ("crypto_provider", "worker1", "worker2", "worker3")
    }


def test_a_length_that_depends_on_the_secret(monkeypatch, resampled):
    """What an owner calls a value says how many of its numbers are positive."""
    native = Owner.share

    def share(self, id, values, label):
        return native(self, id, values, f"owners {'.' * int((values > 0).sum() % 100)}")

    monkeypatch.setattr(Owner, "share", share)
    found = resampled()
    told = {name.rpartition(": ")[2] for name in found}
    assert "input (message) from owners to crypto_provider differs" in told
    assert "input (message) from owners to worker1 differs" in told


def test_how_much_is_drawn_depends_on_the_secret(monkeypatch, resampled):
    native = Owner.share

    def share(self, id, values, label):
        np.random.randint(2, size=int((values > 0).sum()))
        return native(self, id, values, label)

    monkeypatch.setattr(Owner, "share", share)
    assert {name.rpartition(": ")[2] for name in resampled()} == {
        "randint (drawn) from owners to owners differs"
    }


# ---- The tests themselves ------------------------------------------------------------------------


def found_in(ones, others):
    """The alarms that pairs of arrays give."""
    tests = chance.Tests()
    with np.errstate(over="ignore"):
        resample.unrelated("", ones, others, tests)
    return {name for name, _ in tests.alarms()}


@pytest.fixture
def drawn():
    """Uniform words, and small ones: uint64 (1000,) each."""
    rng = np.random.default_rng()
    return rng.integers(2**64, size=1000, dtype=np.uint64), rng.integers(
        2**20, size=1000, dtype=np.uint64
    )


@pytest.mark.parametrize("factors", [(1, 1), (1, -1), (1, 3), (3, 1), (-3, 1), (2, 3)])
@pytest.mark.parametrize("few", [False, True])
def test_a_mask_that_is_a_multiple(drawn, factors, few):
    """Also in values of three words, of which there are many."""
    mask, secret = drawn
    k, m = (np.int64(factor).astype(np.uint64) for factor in factors)
    arrays = mask * k + secret, mask * m - secret
    n = 300 if few else 1
    ones, others = ([("x", False, part) for part in np.array_split(a, n)] for a in arrays)
    assert {name for name in found_in(ones, others) if name.endswith("multiples")} == {
        f"{'words of what has few' if few else 'x'}, multiples"
    }


@pytest.mark.parametrize("few", [False, True])
def test_bits_under_one_mask(drawn, few):
    mask, secret = drawn
    n = 300 if few else 1
    ones, others = (
        [("x", True, part) for part in np.array_split(a, n)] for a in (mask, mask ^ secret)
    )
    assert found_in(ones, others) == {"bits of what has few" if few else "x"}


def test_what_is_unrelated(drawn):
    mask, _ = drawn
    other = np.random.default_rng().integers(2**64, size=1000, dtype=np.uint64)
    for bits in (False, True):
        assert found_in([("x", bits, mask)], [("x", bits, other)]) == set()
