"""Negative controls: semi2k, broken on purpose in one place each, and caught by the audit.

The probabilities that they are caught with are the power of the tests: an alarm needs about 1e-10,
and each of these gives less than POWER, except that what is found among all pairs of values has a
bound that is no better than that.
"""

import hashlib
import random

import numpy as np
import pytest
import syft
import torch

from smpc.audit import attacks, chance, checks
from smpc.audit.openings import openings
from smpc.semi2k import arithmetic, comparison, parties, rounds
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.randomness import Stream
from smpc.semi2k.rounds import Session
from tests.audit.party import NAME

POWER = 1e-20


def caught(tests):
    """What the audit finds: name -> probability. Each is an alarm, by a wide margin."""
    found = {}
    for name, p in tests.alarms():
        found[name] = min(p, found.get(name, 1))
    return found


@pytest.fixture
def examined(recorded):
    """examined() -> what the audit finds in a recorded run."""

    def examined():
        tests = chance.Tests()
        checks.examine(recorded(), tests)
        return caught(tests)

    return examined


@pytest.fixture
def examined_once(parties, tmp_path):
    """examined_once() -> what the audit finds in one run of `resample`'s computation."""

    def examined_once():
        pairs, shares = checks.resample.draw(np.random.default_rng())
        path = tmp_path / "run.jsonl"
        checks.resample.record(path, 0, bytes(32), shares, pairs[0])
        tests = chance.Tests()
        checks.examine(checks.Transcript(path), tests)
        return caught(tests)

    return examined_once


@pytest.fixture
def resampled(parties, tmp_path):
    """resampled() -> what the audit finds in a worker's views under two secrets."""

    def resampled():
        tests = chance.Tests()
        checks.resampled(tmp_path, tests)
        return caught(tests)

    return resampled


def test_nothing_is_found_in_what_is_not_broken(recorded, resampled):
    transcript, tests = recorded(), chance.Tests()
    checks.examine(transcript, tests)
    assert tests.count > 3000
    assert tests.alarms() == []
    assert checks.trespasses(transcript) == []
    assert resampled() == {}


def test_seeded_generators_go_on_from_where_they_were(examined_once):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    examined_once()
    assert states() == before


def test_the_provider_receives_no_value_at_all(recorded):
    view = recorded().view("crypto_provider")
    assert view.arrays("dealt"), "what it sends"
    received = [e for e in view.arrays() if e.receiver == view.party != e.sender]
    assert received == []


def test_one_mask_for_a_whole_tensor(monkeypatch, examined):
    def mask(party, deal, x):
        a = np.full_like(x, deal["a"].flat[0])
        return Masked((yield x - a), a)

    monkeypatch.setattr(arithmetic, "mask", mask)
    assert examined()["opened by mask, step 0: one mask for all"] < POWER


def test_one_mask_for_all_that_is_compared(monkeypatch, examined):
    """As in syft's securenn.msb."""
    native = comparison.above_zero

    def above_zero(party, deal, x):
        return native(party, deal | {"r": np.full_like(deal["r"], deal["r"][0])}, x)

    monkeypatch.setattr(comparison, "above_zero", above_zero)
    assert examined()["opened by above_zero, step 0: one mask for all"] < POWER


def first_of_its_shape(native, kept):
    """`arithmetic.mask` with the first mask of this party's and of this shape, again and again."""

    def mask(party, deal, x):
        return native(party, kept.setdefault((party, x.shape), deal), x)

    return mask


def test_a_mask_used_twice(monkeypatch, examined_once):
    """For both operands of a product, in one run."""
    monkeypatch.setattr(arithmetic, "mask", first_of_its_shape(arithmetic.mask, {}))
    assert examined_once()["opened by mask and mask: one mask for both"] < POWER


@pytest.mark.parametrize("module", [arithmetic, comparison])
def test_a_mask_used_in_two_operations(monkeypatch, examined_once, module):
    """The r of a truncation, or of a comparison, is the a of a factor's mask."""
    name = "truncate" if module is arithmetic else "above_zero"
    native, native_mask, kept = getattr(module, name), arithmetic.mask, {}

    def mask(party, deal, x):
        kept.setdefault(party, deal["a"])
        return native_mask(party, deal, x)

    def with_the_same(party, deal, *arguments):
        r = kept[party].reshape(deal["r"].shape)
        return native(party, deal | {"r": r}, *arguments)

    monkeypatch.setattr(arithmetic, "mask", mask)
    monkeypatch.setattr(module, name, with_the_same)
    assert examined_once()[f"opened by mask and {name}: one mask for both"] < POWER


def test_a_mask_kept_over_an_optimisers_step(monkeypatch, examined):
    """The difference of what is opened before and after it is the update of the weights."""
    native, kept = arithmetic.mask, {}

    def mask(party, deal, x):
        if x.shape == (32, 16):  # the first layer's weights
            deal = kept.setdefault(party, deal)
        return native(party, deal, x)

    monkeypatch.setattr(arithmetic, "mask", mask)
    found = examined()
    assert found["opened by mask and mask: one mask for both"] < POWER
    assert "opened: one mask for any two" in found


def test_randomness_dealt_twice(monkeypatch, examined):
    """A key, and a counter that starts again with each run."""
    native_init = Stream.__init__

    def words(self, n):
        native_init(self, self.key)
        return native_words(self, n)

    def init(self, key):
        self.key = key
        native_init(self, key)

    native_words = Stream.words
    monkeypatch.setattr(Stream, "__init__", init)
    monkeypatch.setattr(Stream, "words", words)
    found = examined()
    assert {"worker1: drawn twice", "crypto_provider: drawn twice"} <= set(found)


def test_a_triple_made_by_the_orchestrator(monkeypatch, recorded, parties):
    """As in syft's spdz: found by who sends what, and by the attack, which has the data back."""
    monkeypatch.setattr(
        Session, "between", classmethod(lambda cls, workers, provider: session_of(cls, workers))
    )

    def session_of(cls, workers):
        sessions = syft.local_worker.crypto_store.semi2k
        if NAME not in sessions:
            session = cls(NAME, tuple(workers), syft.local_worker)
            dealers.append(syft.local_worker.crypto_store.semi2k[NAME])
            ends[NAME] = session
        return ends[NAME]

    dealers, ends = [], {}
    transcript = recorded(after_sharing=lambda: dealers[0].send_keys())
    trespasses = checks.trespasses(transcript)
    assert "me draws from words" in trespasses
    assert "me sends worker2 what is dealt" in trespasses
    data = next(x for _, x in attacks.product_inputs(transcript.view("me")) if x.shape == (16, 16))
    owners = transcript.owners()
    one, two = (owners.arrays("share", receiver=worker)[0] for worker in checks.WORKERS)
    assert np.array_equal(data.ravel(), owners.value(one) + owners.value(two))


def test_a_share_sent_to_the_provider_as_numbers(monkeypatch, resampled):
    """Which is in no array, so that no transcript says that it is a share."""
    shares, deal = {}, parties.Provider._deal
    store = parties.Worker.do_store

    def do_store(self, id, shape, share):
        shares[self.party, id] = np.frombuffer(share, np.uint64).tolist()
        store(self, id, shape, share)

    def pack(**fields):
        to_the_provider = {} if "do" in fields else {"share": shares[0, "held 0"]}
        return parties.pack(**fields, **to_the_provider)

    monkeypatch.setattr(parties.Worker, "do_store", do_store)
    monkeypatch.setattr(rounds, "pack", pack)
    monkeypatch.setattr(
        parties.Provider, "_deal", lambda self, share, **fields: deal(self, **fields)
    )
    assert set(resampled()) == {
        "worker2 under another secret: numbers and names to crypto_provider"
    }


def test_a_share_answered_as_numbers(monkeypatch, resampled):
    """By worker1, to the orchestrator."""
    reply = parties.Worker._reply

    def with_a_share(self):
        fields = parties.unpack(reply(self))
        registers = {} if self.run is None or self.party else self.run.registers
        shares = [x.ravel().tolist() for x in registers.values() if isinstance(x, np.ndarray)]
        return parties.pack(**fields, shares=shares)

    monkeypatch.setattr(parties.Worker, "_reply", with_a_share)
    assert "worker2 under another secret: numbers and names to me" in resampled()


def seeded_key():
    """32 bytes that follow from torch's seed."""
    return hashlib.sha256(bytes(torch.randint(0, 256, (32,)).tolist())).digest()


def test_keys_from_a_seeded_generator(monkeypatch, resampled):
    """Two runs with one seed have one mask for two secrets."""
    for module in (parties, rounds, checks.resample):
        monkeypatch.setattr(module, "new_key", seeded_key)
    found = resampled()
    for worker in checks.WORKERS:
        assert found[f"{worker} under another secret: opened by mask, step 0"] < POWER


def test_words_from_a_seeded_generator(monkeypatch, recorded):
    """As syft's: found in what the seed's generator draws."""

    def words(self, n):
        drawn = torch.empty(n, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
        return drawn.numpy().view(np.uint64)

    monkeypatch.setattr(Stream, "words", words)
    drawn = attacks.generator(1)
    transcript = recorded()
    for party in ("worker1", "worker2"):
        hits, looked_for = attacks.seeded_draws(transcript.view(party), drawn)
        assert hits >= 8
        assert chance.of_pairs(hits, looked_for * drawn.size / 2**64) < POWER


def test_a_truncation_masked_by_less_than_the_ring(monkeypatch, examined):
    native = arithmetic.truncate

    def truncate(party, deal, x, d):
        return native(party, deal | {"r": deal["r"] >> np.uint64(2)}, x, d)

    monkeypatch.setattr(arithmetic, "truncate", truncate)
    assert examined()["opened by truncate, step 0: bits"] < POWER


@pytest.mark.parametrize("level", range(3))
def test_an_and_gate_with_a_zero_mask(monkeypatch, examined, level):
    """Of one of a gate's inputs, at any level of the tree."""
    native = comparison.above_zero

    def above_zero(party, deal, x):
        masks = deal[f"masks{level}"].copy()
        masks[-1] = 0
        return native(party, deal | {f"masks{level}": masks}, x)

    monkeypatch.setattr(comparison, "above_zero", above_zero)
    assert examined()[f"opened by above_zero, step {level + 1}: rows"] < POWER


@pytest.mark.parametrize("level", range(3))
def test_an_and_gate_with_two_equal_masks(monkeypatch, examined, level):
    """The XOR of what is opened under them is that of two of the gate's inputs."""
    native = comparison.above_zero

    def above_zero(party, deal, x):
        masks = deal[f"masks{level}"].copy()
        masks[-2] = masks[-1]
        return native(party, deal | {f"masks{level}": masks}, x)

    monkeypatch.setattr(comparison, "above_zero", above_zero)
    assert examined()[f"opened by above_zero, step {level + 1}: pairs of rows"] < POWER


def test_shares_that_are_not_masked(monkeypatch, recorded):
    """A data owner who gives its values to one worker and zeros to the other."""
    native = Session.share

    def share(self, values):
        with monkeypatch.context() as patch:
            patch.setattr(self._owner, "words", lambda n: np.zeros(n, np.uint64), raising=False)
            return native(self, values)

    monkeypatch.setattr(Session, "share", share)
    tests = chance.Tests()
    checks.examine(recorded(), tests)
    assert caught(tests)["worker2: bits of what is share"] < POWER


def test_openings_are_told_apart(recorded):
    """What the controls rest on: each opening is found with the instruction that asked for it."""
    opened = openings(recorded().view("me"))
    compared = [o for o in opened if o.op == "above_zero" and o.run == 1]
    assert [(o.step, o.bits, o.value.shape) for o in compared] == [
        (0, False, (512,)),
        (1, True, (7, 128)),
        (2, True, (7, 32)),
        (3, True, (6, 8)),
        (4, True, (8,)),
    ]
    assert {o.op for o in opened} == {"mask", "truncate", "above_zero"}
