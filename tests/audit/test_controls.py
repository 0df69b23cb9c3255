"""Negative controls: semi2k, its masks or their source broken on purpose in one place
each, and caught by the audit. `test_conduct` has those of who does what.

The probabilities that they are caught with are the power of the tests: an alarm needs about 1e-10,
and each of these gives less than POWER, except that what is found among all pairs of values has a
bound that is no better than that.

A break depends on nothing but what the party at hand has, so that an end that follows a view is
broken likewise.
"""

import hashlib
import random
from unittest import mock

import numpy as np
import pytest
import torch

from smpc.audit import attacks, chance, checks, resample
from smpc.audit.ledger import Ledger
from smpc.audit.openings import openings
from smpc.audit.transcript import PROVIDER, WORKERS
from smpc.semi2k import provider, worker
from smpc.semi2k.compiler import Compiler
from smpc.semi2k.owner import Owner
from smpc.semi2k.randomness import Stream
from tests.audit.conftest import examined_in, found_in, said

POWER = 1e-20


@pytest.fixture
def plain_products(monkeypatch):
    """Products are shares: then a truncation's mask has no part but what the workers draw."""
    native = Compiler._product

    def product(self, op, node, x, y):
        value = native(self, op, node, x, y)
        return self._share(value, node.shape) if value.form == "partial" else value

    monkeypatch.setattr(Compiler, "_product", product)


@pytest.fixture
def dealt(monkeypatch):
    """dealt(op, change) has change(fields) take the place of uniform fields, at whoever draws them,
    of what is dealt for such an instruction."""

    def dealt(op, change):
        native = worker.take

        def take(program, drawn, corrections):
            items = native(program, drawn, corrections)
            for instruction, fields in zip(program.instructions, items, strict=True):
                if instruction.op == op:
                    fields |= change(fields)
            return items

        for module in (worker, provider):
            monkeypatch.setattr(module, "take", take)

    return dealt


# ---- What is not broken --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n_workers", [2, *(pytest.param(n, marks=pytest.mark.thorough) for n in (3, 5))]
)
def test_nothing_is_found_in_what_is_not_broken(recorded, n_workers):
    transcript = recorded(n_workers=n_workers)
    assert found_in(transcript) == []
    assert examined_in(transcript) == {}


def test_nothing_is_found_in_runs_made_anew(made_anew):
    transcript = made_anew()
    assert examined_in(transcript) == {}
    assert found_in(transcript) == []
    carried_through = [run.address for run in Ledger(transcript).runs]
    assert carried_through[0] == (0, len(said(transcript, "worker1", "anew", run=0)))


def test_nothing_is_found_under_another_secret(resampled):
    assert resampled() == {}


def test_seeded_generators_go_on_from_where_they_were(examined_once):
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    examined_once()
    assert states() == before


@pytest.mark.parametrize("party", [PROVIDER, "me"])
def test_who_receives_no_masked_value_at_all(recorded, party):
    view = recorded().view(party)
    received = {e.kind for e in view.arrays() if e.receiver == view.party != e.sender}
    assert received == {"public"} if party == PROVIDER else {"revealed"}
    assert openings(view) == []
    assert attacks.product_inputs(view) == []


# ---- Masks ---------------------------------------------------------------------------------------


def first_of_all(fields):
    """One number in all of the mask."""
    return {"s": np.full_like(fields["s"], fields["s"].flat[0])}


def of_this_shape(fields):
    """A mask that depends on nothing but its shape."""
    draws = np.random.default_rng(fields["s"].shape)
    return {"s": draws.integers(2**64, size=fields["s"].shape, dtype=np.uint64)}


@pytest.mark.parametrize("op", ["mask", "truncate"])
def test_one_mask_for_a_whole_tensor(dealt, plain_products, examined, op):
    """Of what is a factor; and of what is compared, as in syft's securenn.msb."""
    dealt(op, first_of_all)
    assert examined()[f"opened by {op}, step 0: one mask for all"] < POWER


def test_what_is_compared_under_one_mask_is_recovered(dealt, plain_products, recorded):
    """The attack on hidden values: their differences, to the last digit."""
    dealt("truncate", first_of_all)
    transcript = recorded()
    guess, factor = attacks.relu_inputs(transcript.view("worker1"))
    data, _, weights, bias, *_ = (x.view(np.int64) for x in checks.shared(transcript))
    hidden = (data.reshape(16, 16) @ weights.reshape(32, 16).T + factor * bias).ravel()
    assert factor == 1000
    assert np.array_equal((guess - guess[0]).view(np.int64), hidden - hidden[0])


def test_a_mask_used_twice(dealt, examined_once):
    """For two operands of products."""
    dealt("mask", of_this_shape)
    assert examined_once()["opened by mask and mask: one mask for both"] < POWER


@pytest.mark.parametrize(
    ("ops", "times"), [(("truncate", "mask"), 1), (("mask", "truncate_exactly"), 2)]
)
def test_a_mask_used_in_two_operations(dealt, plain_products, examined_once, ops, times):
    """The r of a truncation is the a of a factor's mask: of a share what is drawn, of a value under
    that mask, as the exact truncation's is here, what is drawn less the mask."""
    dealt("mask", of_this_shape)
    other = next(op for op in ops if op != "mask")
    dealt(other, lambda fields: {"s": np.uint64(times) * of_this_shape(fields)["s"]})
    assert examined_once()[f"opened by {' and '.join(ops)}: one mask for both"] < POWER


def test_a_mask_kept_over_an_optimisers_step(dealt, plain_products, examined):
    """The difference of what is opened in two steps is that of the updates of the weights."""

    def change(fields):  # of the first layer's weights
        return of_this_shape(fields) if fields["s"].shape == (32, 16) else {}

    dealt("truncate", change)
    found = examined()
    assert found["opened by truncate and truncate: one mask for both"] < POWER
    assert "opened: one mask for any two" in found


def test_a_truncation_masked_by_less_than_the_ring(dealt, plain_products, examined):
    dealt("truncate", lambda fields: {"s": fields["s"] >> np.uint64(2)})
    assert examined()["opened by truncate, step 0: bits"] < POWER


@pytest.mark.parametrize(
    ("level", "row"), [pytest.param(0, -1, marks=pytest.mark.thorough), (1, 0), (2, -1)]
)
def test_an_and_gate_with_a_zero_mask(dealt, examined, level, row):
    """Of one of a gate's inputs, at any level of the tree."""

    def change(fields):
        masks = fields[f"masks{level}"].copy()
        masks[row] = 0
        return {f"masks{level}": masks}

    dealt("above_zero", change)
    assert examined()[f"opened by above_zero, step {level}: rows"] < POWER


@pytest.mark.parametrize("level", [*range(2), pytest.param(2, marks=pytest.mark.thorough)])
def test_an_and_gate_with_two_equal_masks(dealt, examined, level):
    """The XOR of what is opened under them is that of two of the gate's inputs."""

    def change(fields):
        masks = fields[f"masks{level}"].copy()
        masks[-2] = masks[-1]
        return {f"masks{level}": masks}

    dealt("above_zero", change)
    assert examined()[f"opened by above_zero, step {level}: pairs of rows"] < POWER


@pytest.mark.parametrize("level", range(2))
def test_one_mask_for_all_nodes(dealt, examined, level):
    """Of a level of the tree that has several."""

    def change(fields):
        masks = fields[f"masks{level}"]
        return {f"masks{level}": np.broadcast_to(masks[:, :1], masks.shape)}

    dealt("above_zero", change)
    assert examined()[f"opened by above_zero, step {level}: neighbouring nodes"] < POWER


def test_shares_that_are_not_masked(monkeypatch, examined):
    """A data owner who sends every worker its values as they are."""
    native = Owner.share

    def share(self, id, values, label):
        with mock.patch.object(self._stream, "words", lambda address, n: np.zeros(n, np.uint64)):
            return native(self, id, values, label)

    monkeypatch.setattr(Owner, "share", share)
    found = examined()
    for name in WORKERS:
        assert found[f"{name}: bits of what is share"] < POWER


def test_a_mask_of_which_one_worker_knows_all(monkeypatch, recorded):
    """One key for everybody: worker1's share of an input's mask is the mask, and the attack has the
    data back."""
    monkeypatch.setattr(provider, "new_key", lambda: bytes(32))
    transcript = recorded()
    data, *_ = checks.shared(transcript)
    inputs = [x for _, x in attacks.product_inputs(transcript.view("worker1"))]
    assert np.array_equal(next(x for x in inputs if x.shape == (16, 16)).ravel(), data)
    assert examined_in(transcript)["worker2: bits of what is dealt"] < POWER


# ---- Randomness ----------------------------------------------------------------------------------


def test_an_address_that_serves_twice(monkeypatch, examined):
    """A key, and a counter that starts again with each run."""
    native = Stream.words

    def words(self, address, n):
        self.last = (-1, 0)
        return native(self, (0, 0), n)

    monkeypatch.setattr(Stream, "words", words)
    found = examined()
    assert {"worker1: drawn twice", "crypto_provider: drawn twice"} <= set(found)


def test_an_attempt_that_uses_the_r_of_the_one_before(monkeypatch, made_anew):
    native = Stream.words

    def words(self, address, n):
        run, attempt = address
        self.last = (-1, 0)
        return native(self, (run, 0 if attempt == 1 else attempt), n)

    monkeypatch.setattr(Stream, "words", words)
    found = examined_in(made_anew())
    assert {"worker1: drawn twice", "crypto_provider: drawn twice"} <= set(found)
    assert found["opened by truncate and truncate: one mask for both"] < POWER


def seeded_key():
    """32 bytes that follow from torch's seed."""
    return hashlib.sha256(bytes(torch.randint(0, 256, (32,)).tolist())).digest()


def test_keys_from_a_seeded_generator(monkeypatch, resampled):
    """Two runs with one seed have one mask for two secrets."""
    monkeypatch.setattr(resample, "new_key", seeded_key)
    found = resampled()
    for held in ("worker1 of 2", "worker2 of 2", "worker1 and worker3 of 3"):
        for opened in ("input 0", "input 1", "mask, step 0"):
            name = f"resampled: {held}, a small computation: opened by {opened}, multiples"
            assert found[name] < POWER


def test_words_from_a_seeded_generator(monkeypatch, recorded):
    """As syft's: found in what the seed's generator draws."""

    def words(self, address, n):
        drawn = torch.empty(n, dtype=torch.int64).random_(-(2**63), 2**63 - 1)
        return drawn.numpy().view(np.uint64)

    monkeypatch.setattr(Stream, "words", words)
    drawn = attacks.generator(1)
    transcript = recorded()
    for party in WORKERS:
        hits, looked_for = attacks.seeded_draws(transcript.view(party), drawn)
        assert hits >= 8
        assert chance.of_pairs(hits, looked_for * drawn.size / 2**64) < POWER


def test_openings_are_told_apart(recorded):
    """What the controls rest on: each opening is found with the instruction that asked for it, and
    with the view's share of its mask."""
    transcript = recorded(n_workers=3)
    views = [openings(transcript.view(name)) for name in transcript.roster.workers]
    compared = [o for o in views[0] if o.bits and o.address[0] == 1]
    assert [(o.step, o.value.shape) for o in compared] == [
        (0, (7, 11, 8)),
        (1, (7, 3, 8)),
        (2, (4, 1, 8)),
        (3, (8,)),
    ]
    assert {o.op for o in views[0]} == {"input", "mask", "truncate", "above_zero"}
    for same in zip(*views, strict=True):
        assert len({(o.address, o.number, o.op, o.step, o.value.tobytes()) for o in same}) == 1
    inputs = [same for same in zip(*views, strict=True) if same[0].op == "input"]
    for same, value in zip(inputs, checks.shared(transcript), strict=True):
        assert np.array_equal((same[0].value + sum(o.mask for o in same)).ravel(), value)
