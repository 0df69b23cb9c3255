"""Recorded runs of semi2k: small, in this process, each in a session of its own; and what the audit
finds in them."""

from types import SimpleNamespace

import numpy as np
import pytest
import syft
import torch

from smpc.audit import chance, masks, resample
from smpc.audit.examine import examined as examined_runs
from smpc.audit.ledger import Ledger
from smpc.audit.transcript import WORKERS, Recorder, Transcript
from smpc.semi2k.compiler import Compiler
from smpc.semi2k.randomness import new_key


@pytest.fixture(scope="session")
def of(parties):
    """of(n) -> n workers and the crypto provider."""
    more = [syft.VirtualWorker(syft.hook, id=f"worker{i}") for i in (3, 4, 5)]

    def of(n):
        workers = (*parties.workers, *more)[:n]
        return SimpleNamespace(workers=workers, crypto_provider=parties.crypto_provider)

    return of


@pytest.fixture
def new_session(monkeypatch):
    """new_session() -> the next sharing makes a session anew; the one there was is back after the
    test."""

    def new_session():
        for store in list(syft.local_worker.crypto_store.semi2k):
            monkeypatch.delitem(syft.local_worker.crypto_store.semi2k, store)

    return new_session


def shared(values, among):
    """A semi2k tensor of fixed precision, with gradients."""
    return values.fix_precision().share(
        *among.workers,
        crypto_provider=among.crypto_provider,
        protocol="semi2k",
        requires_grad=True,
    )


@pytest.fixture
def recorded(new_session, of, tmp_path):
    """recorded(after_sharing, n_workers) -> the `Transcript` of two training steps of a small
    network.

    after_sharing: called once everything is shared, before the first step.
    """

    def recorded(after_sharing=lambda: None, n_workers=2):
        new_session()
        path, among = tmp_path / "run.jsonl", of(n_workers)
        recorder = Recorder(path, {"protocol": "semi2k", "zone": 63})
        recorder.start()
        try:
            torch.manual_seed(1)
            data, target = (shared(x, among) for x in (2 * torch.rand(16, 16), torch.eye(16, 8)))
            net = torch.nn.Sequential(
                torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8)
            )
            shared(net, among)
            optimizer = torch.optim.SGD(net.parameters(), lr=0.02).fix_precision()
            recorder.inputs_are_shared()
            after_sharing()
            for _ in range(2):
                optimizer.zero_grad()
                loss = ((net(data) - target) ** 2).sum() / 16
                loss.backward()
                optimizer.step()
                loss.get()
        finally:
            recorder.stop()
        recorder.save()
        return Transcript(path)

    return recorded


def caught(tests):
    """What the audit finds: name, but for who sees it, -> probability. Each is an alarm."""
    found = {}
    for name, p in tests.alarms():
        name = name.removeprefix("chance: ").split(", to all")[0]
        found[name] = min(p, found.get(name, 1))
    return found


def examined_in(transcript):
    """What the audit finds in a recorded run by chance."""
    tests = chance.Tests()
    masks.examine(transcript, Ledger(transcript).secrets, tests)
    return caught(tests)


def found_in(transcript):
    """What it finds for certain: a list of `Finding`."""
    ((_, found),) = examined_runs([transcript], chance.Tests())
    return found


@pytest.fixture
def examined(recorded):
    """examined() -> what the audit finds in a recorded run."""
    return lambda: examined_in(recorded())


@pytest.fixture
def examined_once(parties, tmp_path):
    """examined_once() -> what the audit finds in one run of `resample`'s computation."""

    def examined_once():
        secrets, _ = resample.draw(np.random.default_rng())
        path = tmp_path / "run.jsonl"
        resample.record(path, WORKERS, {"worker1": new_key()}, secrets)
        return examined_in(Transcript(path))

    return examined_once


@pytest.fixture
def resampled(parties, tmp_path):
    """resampled() -> what the audit finds in workers' views under two secrets, of a small
    computation."""

    def resampled():
        tests = chance.Tests()
        resample.resampled(tmp_path, tests, repeats=1)
        return caught(tests)

    return resampled


@pytest.fixture
def widen(monkeypatch):
    """widen(zone) makes every zone so wide."""

    def widen(zone):
        native = Compiler._zone
        monkeypatch.setattr(
            Compiler, "_zone", lambda *args: None if native(*args) is None else zone
        )

    return widen


@pytest.fixture
def made_anew(widen, recorded):
    """made_anew() -> a recorded run of which the first of two runs was made anew."""

    def made_anew():
        widen(53)  # an attempt comes through with a probability of 3/8
        while not said(transcript := recorded(), "worker1", "anew", run=0):
            pass
        return transcript

    return made_anew


@pytest.fixture
def carried_through(recorded):
    """carried_through() -> a recorded run in which no run was made anew."""

    def carried_through():
        while said(transcript := recorded(), "worker1", "anew"):
            pass
        return transcript

    return carried_through


def said(transcript, sender, name, **fields):
    """The fields of each of these messages."""
    messages = transcript.view(sender).messages(sender=sender, name=name)
    return [f for _, f in messages if fields.items() <= f.items()]
