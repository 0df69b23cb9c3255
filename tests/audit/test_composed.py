"""Programs of several instructions, and runs of few elements: what is broken in them, or between
two of their instructions, is told from what is ideal."""

import itertools

import numpy as np
import pytest

from smpc.audit import simulator
from smpc.audit.chance import LEVEL
from smpc.audit.ideal import Mask
from smpc.audit.ideal_comparison import Comparison
from smpc.audit.ideal_composed import (
    BiasJoined,
    EachTwice,
    Remainder,
    Step,
    Twice,
    TwoProducts,
)
from smpc.audit.simulator import OFTEN, RUNS
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER, WORKERS
from smpc.audit.variables import Sampling
from smpc.audit.worlds import Real
from smpc.semi2k import arithmetic, ring
from smpc.semi2k.compiler import ZONE
from smpc.semi2k.randomness import Stream
from smpc.semi2k.run import take

TWO_OF_THREE = {
    f"worker{i} and worker{j}, of 3 workers" for i, j in itertools.combinations((1, 2, 3), 2)
}


def distance(protocol, party):
    return simulator.check(protocol, party).distance


def failed(results):
    return {result.party for result in results if not result.passed}


def name_of(x):
    return getattr(x, "name", None) or str(getattr(x, "__name__", x))


# ---- Exactly, on a small ring --------------------------------------------------------------------


@pytest.mark.parametrize("party", ["worker1", pytest.param("worker2", marks=pytest.mark.thorough)])
@pytest.mark.parametrize(
    ("protocol", "field"),
    [
        (Twice("mask"), "s"),
        (Twice("truncation"), "s"),
        (Twice("comparison", 3), "masks0"),
        (Twice("comparison", 3), "rho_bits"),
        (Remainder(), "s"),
        (TwoProducts(3, 2, 2), "s"),
        (Step(3, 2, 2), "s"),
    ],
    ids=name_of,
)
def test_what_serves_in_two_instructions_is_caught(monkeypatch, protocol, field, party):
    """It is what the worker that does not watch has drawn."""
    draw = Real._draw

    def again(self, number, label, of):
        value = draw(self, number, label, of)
        if number != self.absent or of.name != field:
            return value
        return self.__dict__.setdefault(f"the first {field}", value)

    monkeypatch.setattr(Real, "_draw", again)
    assert distance(protocol, party) > 0


@pytest.mark.parametrize("party", WORKERS)
def test_a_selection_dealt_the_shares_of_another_is_caught(monkeypatch, party):
    shared = Real.shared

    def again(self, label, name, value, parts):
        if name == "c":
            parts = list(self.__dict__.setdefault("first", tuple(parts)))
        return shared(self, label, name, value, parts)

    assert distance(Twice("select", 2), party) == 0
    monkeypatch.setattr(Real, "shared", again)
    assert distance(Twice("select", 2), party) > 0


@pytest.mark.parametrize(
    ("protocol", "label", "field"),
    [
        (BiasJoined(3, 2, 2), "truncate q", "s"),
        (Remainder(), "truncate p", "s"),
        (TwoProducts(3, 2, 2), "truncate p", "s"),
        (Step(3, 2, 2), "mask", "s"),
        (Step(3, 2, 2), "truncate u", "s"),
        (Step(3, 2, 2), "compare", "rho_bits"),
    ],
    ids=name_of,
)
def test_one_instruction_without_a_mask_is_caught(monkeypatch, protocol, label, field):
    def dealt_value(self, where, name, value):
        return np.zeros_like(value) if (where, name) == (label, field) else value

    monkeypatch.setattr(Real, "dealt_value", dealt_value)
    assert distance(protocol, "worker1") > 0


@pytest.mark.parametrize("protocol", [TwoProducts(3, 2, 2), Step(3, 2, 2)], ids=name_of)
def test_a_program_that_reveals_without_fresh_shares_is_caught(monkeypatch, protocol):
    monkeypatch.setattr(arithmetic, "complete", lambda party, deal, x: x)
    assert distance(protocol, ORCHESTRATOR) > 0


@pytest.mark.parametrize("label", ["truncate q", "truncate p"])
def test_the_provider_learns_of_each_truncation(monkeypatch, label):
    """A simulator that is told of one of two makes another view."""

    def of_one(self, secrets, minus_r):
        def opened(where, shifted):
            never = np.full_like(shifted, 2**self.bits - 1)
            return shifted - minus_r[where] if where == label else never

        _, _, anew = self.in_the_clear(secrets, opened)
        return anew

    protocol = TwoProducts(3, 2, 2)
    assert distance(protocol, PROVIDER) == 0
    monkeypatch.setattr(TwoProducts, "leakage", of_one)
    assert distance(protocol, PROVIDER) > 0


def test_a_provider_that_is_told_which_truncation_it_was_is_caught(monkeypatch):
    execute, protocol = Real.execute, Twice("truncation")

    def tells(self, secrets):
        execute(self, secrets)
        self.made["which"] = self.opened["truncate z 1.opened0"] < 2**protocol.zone
        return self

    monkeypatch.setattr(Real, "execute", tells)
    assert distance(protocol, PROVIDER) > 0


# ---- By samples of the parties' own ends ---------------------------------------------------------


def deal(monkeypatch, change):
    """Have provider and workers cut what they draw into fields, and change(instructions, fields)
    these: for each instruction a dict."""

    def changed(program, drawn, corrections):
        taken = take(program, np.array(drawn), corrections)
        change(program.instructions, taken)
        return taken

    monkeypatch.setattr("smpc.semi2k.provider.take", changed)
    monkeypatch.setattr("smpc.semi2k.worker.take", changed)


@pytest.mark.parametrize(
    ("op", "field", "times", "n_workers"),
    [
        ("mask", "s", 1, 2),
        ("truncate", "s", 3, 2),
        ("truncate_exactly", "s", 2**64 - 1, 2),
        ("above_zero", "masks0", 1, 2),
        ("above_zero", "rho_bits", 1, 2),
        ("truncate", "s", 1, 3),
    ],
)
def test_words_that_serve_in_two_instructions_are_caught(monkeypatch, op, field, times, n_workers):
    """They, or three times as much, or as much less than 0."""

    def again(instructions, taken):
        first, *_, last = (
            shares for i, shares in zip(instructions, taken, strict=True) if i.op == op
        )
        last[field] = first[field] * np.uint64(times)

    deal(monkeypatch, again)
    results = simulator.check_samples(EachTwice(64, 10, ZONE), n_workers, 1, 512, LEVEL)
    assert failed(results) == (set(WORKERS) if n_workers == 2 else TWO_OF_THREE)


def masks_of_comparison(change):
    """A change of what masks a comparison's first level."""

    def changed(instructions, taken):
        for instruction, shares in zip(instructions, taken, strict=True):
            if instruction.op == "above_zero":
                shares["masks0"] = change(shares["masks0"])

    return changed


def nothing_for_what_fills_a_word(masks):
    """Of one element."""
    return masks & np.uint64(1)


def the_first_for_what_fills_a_word(masks):
    """The mask of the first of three elements is that of the last bit, too."""
    return masks & np.uint64(2**63 - 1) | masks << np.uint64(63)


def the_first_word_again(masks):
    return np.broadcast_to(masks[..., :1], masks.shape)


def nothing_for_one(instructions, taken):
    """A mask of one element is 0."""
    for instruction, shares in zip(instructions, taken, strict=True):
        if instruction.op == "mask" and shares["s"].size == 1:
            shares["s"] = np.zeros_like(shares["s"])


@pytest.mark.parametrize(
    ("change", "size", "protocol"),
    [
        (masks_of_comparison(nothing_for_what_fills_a_word), 1, Comparison(64, 4)),
        (masks_of_comparison(the_first_for_what_fills_a_word), 3, Comparison(64, 4)),
        (masks_of_comparison(the_first_word_again), 65, Comparison(64, 4)),
        (nothing_for_one, 1, Mask(64)),
    ],
    ids=name_of,
)
def test_what_is_wrong_with_few_elements_is_caught(monkeypatch, change, size, protocol):
    assert failed(simulator.check_runs(protocol, size, 2, RUNS, LEVEL)) == set()
    deal(monkeypatch, change)
    assert failed(simulator.check_runs(protocol, size, 2, RUNS, LEVEL)) == set(WORKERS)


def test_randomness_of_an_attempt_that_was_broken_off_is_caught(monkeypatch):
    """Half of what is drawn for the next, less what has it not be broken off again."""
    draw = Stream.words

    def words(self, address, n):
        drawn, (_, attempt) = draw(self, address, n), address
        if attempt:
            drawn[n // 2 :] = self.before + np.uint64(2**61)
        self.before = drawn[n // 2 :].copy()
        return drawn

    monkeypatch.setattr(Stream, "words", words)
    results = simulator.check_attempts(TwoProducts(64, 10, OFTEN), 2, RUNS, LEVEL)
    assert failed(results) == {*WORKERS, PROVIDER}


# ---- What the comparisons stand on ---------------------------------------------------------------


def test_what_a_step_computes():
    """Its functionality, for the values that it is right for."""
    protocol, coins, d = Step(64, 10, ZONE), Sampling(4096), 10
    secrets = {name: coins.draw(name, 16) - np.uint64(8) for name in protocol.inputs}
    values, _, anew = protocol.in_the_clear(secrets, lambda label, _: coins.draw(label, 2**64))
    x, w, v, y, h, o, u, new = (
        ring.signed(values[name]) for name in ("x", "w", "v", "y", "h", "o", "u", "new w")
    )
    assert not anew.any()
    assert np.array_equal(h, np.where(x * w > 0, y, 0))
    assert np.array_equal(new, w - u)
    for quotient, of in ((y, x * w), (o, h * w + d * v), (u, x * h)):
        error = quotient * d - of
        assert np.abs(error).max() < d
        assert not error[of % d == 0].any()
        assert (error != 0).any()
