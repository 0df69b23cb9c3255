"""That the runs recorded for the audit have in them what they promise, and reveal what is right."""

import hashlib
import os

import numpy as np
import pytest
import torch

from smpc.audit import chance, scenarios
from smpc.audit.computations import UNIT, Private, Training
from smpc.audit.examine import examined
from smpc.audit.scenarios import SIZES
from smpc.audit.transcript import OWNERS, PROVIDER
from smpc.semi2k import compiler, noise, storage
from smpc.semi2k.network import Network
from smpc.semi2k.program import LINEAR, OTHERS, Program
from smpc.semi2k.randomness import Stream
from smpc.semi2k.wire import words
from tests.audit.conftest import said

DOORS = (
    *((Network, "carry"), (Stream, "words"), (noise, "discrete_gaussian")),
    *((storage, "write"), (os, "urandom")),
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Name of a scenario -> its transcripts; of all but those that take long."""
    folder = tmp_path_factory.mktemp("scenarios")
    long = scenarios.many, scenarios.private_anew
    chosen = {name: s for name, s in scenarios.SCENARIOS.items() if s not in long}
    return {name: scenario(folder) for name, scenario in chosen.items()}


@pytest.fixture
def run(runs):
    """run(name) -> the one transcript of a scenario."""

    def run(name):
        (transcript,) = runs[name]
        return transcript

    return run


def asked(transcript, **fields):
    """The fields of each run that the provider was asked to deal for, in order."""
    view = transcript.view(PROVIDER)
    messages = [f for _, f in view.messages(receiver=PROVIDER, name="run")]
    return [f for f in messages if fields.items() <= f.items()]


def programs(transcript):
    """Each program that was sent, in order."""
    return [Program(f["key"]) for f in asked(transcript) if f["key"] is not None]


def instructions(transcript, *ops):
    """Those of these kinds in all programs."""
    every = (i for program in programs(transcript) for i in program.instructions)
    return [instruction for instruction in every if instruction.op in ops]


def inputs(transcript):
    """What the owner has shared, in order: int64 arrays."""
    view, first = transcript.view(OWNERS), transcript.roster.workers[0]
    masks = [view.value(entry) for entry in view.arrays("drawn", name="words")]
    messages = [fields for _, fields in view.messages(receiver=first, name="input")]
    return [
        (words(fields["delta"]) + mask).view(np.int64).reshape(fields["shape"])
        for fields, mask in zip(messages, masks, strict=True)
    ]


def results(transcript, verb="result"):
    """What each run reveals, in order, if it does: int64 (n,)."""
    shares = {}
    for worker in transcript.roster.workers:
        for fields in said(transcript, worker, verb):
            where = fields["run"], fields["attempt"]
            shares.setdefault(where, []).append(words(fields["revealed"]))
    return [sum(parts).view(np.int64) for parts in shares.values() if parts[0].size]


def is_near(result, exact, within=1):
    """Whether this is the exact value, but for roundings that are less than `within` together."""
    return (np.abs(result - np.ravel(exact)) < within).all()


def is_equal(result, exact):
    return np.array_equal(result, np.ravel(exact))


# ---- Every operation, form and size --------------------------------------------------------------


def test_every_operation_is_in_some_program(runs):
    every = [i for ts in runs.values() for t in ts for i in instructions(t, *LINEAR, *OTHERS)]
    assert {instruction.op for instruction in every} == LINEAR.keys() | OTHERS.keys()
    hidden = {i.params[1] for i in every if i.op == "mask"}
    factor = {i.params[3] for i in every if i.op == "truncate"}
    left = {i.params[1] for i in every if i.op == "matmul_public"}
    product = {i.params[0] for i in every if i.op == "product"}
    assert hidden == factor == left == {False, True}
    assert product == {"mul", "matmul"}
    assert {len(t.roster.workers) for ts in runs.values() for t in ts} == {2, 3, 4, 5}


def test_products(run):
    x, w = inputs(run("products"))
    y, cubes, right, left, affine, rows, total = results(run("products"))
    public = np.arange(18).reshape(6, 3) - 9
    assert is_near(y, x @ w / UNIT)
    y = y.reshape(4, 3)
    # the square is a factor, and off by less than 1 as such
    exact = y**3 / UNIT**2 + y**2 / UNIT - y + 7 * UNIT
    assert is_near(cubes, exact, np.abs(y).ravel() / UNIT + 2)
    assert is_equal(right, x @ public)
    assert is_equal(left, public.T @ x.T)
    assert is_equal(affine, y * public[:4] + public[2:])
    assert is_equal(rows, np.concatenate([x.reshape(8, 3), y])[[0, 11, 3], :2].sum(0) * 3)
    assert is_near(total, (x[1] * x).sum() / UNIT)


def test_images(run):
    x, kernels = inputs(run("images"))
    y, back, rows = results(run("images"))
    images = torch.from_numpy(np.pad(x, ((0, 0), (1, 1), (2, 2)))).double()[:, None]
    kernels = torch.from_numpy(kernels.T).double().reshape(3, 1, 3, 3)
    sums = torch.nn.functional.conv2d(images, kernels, stride=(2, 3)) / UNIT
    assert is_near(y, sums.relu().permute(0, 2, 3, 1).numpy())
    y = torch.from_numpy(y.astype(float)).reshape(2, 3, 3, 3).permute(0, 3, 1, 2)
    gradient = torch.nn.functional.conv_transpose2d(y, kernels, stride=(2, 3)) / UNIT
    padded = torch.nn.functional.pad(gradient, (0, 10 - gradient.shape[3]))
    assert is_near(back, padded[:, 0].numpy(), 9)
    assert is_equal(rows, 3 * x * np.array([1, 0, 0, 2, 0])[:, None])


def test_comparisons(run):
    x, w = inputs(run("comparisons"))
    relu, largest, place, same, both = results(run("comparisons"))
    y = x @ w / UNIT
    assert is_near(relu, np.maximum(y, 0))
    assert is_near(largest, y.max(1))
    assert is_near(y[np.arange(5), place], y.max(1), 2)
    assert is_equal(same, y <= 0)
    assert is_equal(both, (y > 0) & (x[:, :1] > 0))
    assert 0 < same.sum() < same.size and 0 < both.sum() < both.size


def test_numbers_of_few_bits(run):
    transcript = run("few_bits")
    bits = [i.params[1] for i in instructions(transcript, "above_zero")]
    assert bits[::2] == [64] * 8 and bits[1::2] == [2, 3, 4, 5, 8, 11, 15, 21]
    p, q = (values > 0 for values in inputs(transcript))
    off = p.astype(int) - q
    exact = p, off > 0, p.sum(1) > 0, off.sum(1) > 0, off.sum() > 0, p, p, p
    for result, expected in zip(results(transcript), exact, strict=True):
        assert is_equal(result, expected)


def test_integers(run):
    transcript = run("integers")
    x, y = inputs(transcript)
    quotient, same, place = results(transcript)
    assert is_near(quotient, x * y / 7)
    assert is_equal(same, x == y)
    assert is_equal(place, (x + 10 * y).argmax())
    assert instructions(transcript, "truncate_exactly") and not instructions(transcript, "truncate")


def test_forms(run):
    transcript = run("forms")
    x, y, w = inputs(transcript)
    chosen, masked, fine, product = (x > 0) * y, x @ w / UNIT, x * y / UNIT, x * y
    hidden, sum_, sums, rounded, positive, total, *again = results(transcript)
    assert is_near(hidden, y @ w / UNIT)
    hidden = hidden.reshape(3, 2)
    assert is_near(sum_, (hidden + 1) * masked / UNIT, np.abs(hidden + 1).ravel() / UNIT + 1)
    assert is_equal(sums, hidden.sum(1) + chosen.sum(1))
    assert is_near(rounded, fine * chosen / UNIT, np.abs(chosen).ravel() / UNIT + 1)
    assert is_equal(positive, product > 0)
    assert is_near(total, (product * fine).sum(), np.abs(product).sum())
    for result, exact in zip(again, (x, chosen, product), strict=True):
        assert is_equal(result, exact)
    read = [form for program in programs(transcript) for _, form, _ in program.inputs]
    assert set(read) == {"share", "masked"}
    assert instructions(transcript, "unhide") and instructions(transcript, "partial")
    assert any(fields["delete"] for fields in asked(transcript))


def test_sizes(run):
    transcript = run("sizes")
    shared, revealed = inputs(transcript), results(transcript)
    assert len(shared) == len(revealed) == 2 * (1 + len(SIZES))
    for x, y, *both in zip(shared[::2], shared[1::2], revealed[::2], revealed[1::2], strict=True):
        for relu in both:
            assert is_near(relu, np.maximum(x * y / 100, 0))
    for op in ("truncate", "truncate_exactly", "above_zero", "select"):
        shapes = [i.params[0] for i in instructions(transcript, op)]
        assert {(), *((n,) for n in SIZES)} == set(shapes)


def test_many(tmp_path):
    """The results are right, and the audit finds nothing."""
    (transcript,) = scenarios.many(tmp_path)
    tests = chance.Tests()
    ((_, found),) = examined([transcript], tests)
    assert found == tests.alarms() == []
    x, y = inputs(transcript)
    total, relu, squares = results(transcript)
    outer = x @ y / UNIT
    assert outer.size > 2.2e6
    # what a rounding adds is within ±1, with mean 0; ten times its standard deviation
    assert is_near(total, outer.sum(), 10 * outer.size**0.5)
    some = outer[::6, ::6]
    assert is_near(relu, np.maximum(some, 0).sum(), 10 * some.size**0.5)
    some = outer[::4, ::4]  # each off by 1, and its square by twice itself and 1
    assert is_near(squares, (some**2).sum(), 10 * ((2 * some) ** 2).sum() ** 0.5 + some.size)
    first, *_ = programs(transcript)
    assert first.drawn > 2.2e6
    large = {e.sender for e in transcript.entries if e.kind == "drawn" and e.bytes > 8 * 2.2e6}
    assert large == {*transcript.roster.workers, PROVIDER}


# ---- Trainings -----------------------------------------------------------------------------------


def trained(n_steps):
    """`Training` in the clear: the loss and the outputs before each of so many steps."""
    images, labels, *weights = (values / UNIT for values in Training.numbers())
    for _ in range(n_steps):
        first, first_bias, second, second_bias = weights
        sums = images @ first + first_bias
        hidden = np.maximum(sums, 0)
        outputs = hidden @ second + second_bias
        yield ((outputs - labels) ** 2).sum() / Training.BATCH, outputs
        grad = 2 * (outputs - labels) / Training.BATCH
        back = (sums > 0) * (grad @ second.T)
        grads = images.T @ back, back.sum(0), hidden.T @ grad, grad.sum(0)
        weights = [w - g / Training.RATE for w, g in zip(weights, grads, strict=True)]


def is_trained(losses, first=0):
    """Whether these are the losses of steps from `first` on: each made of a dozen numbers, about 1,
    that are off by a few units of 0.001."""
    exact = [loss for loss, _ in trained(first + len(losses))][first:]
    return np.allclose(np.ravel(losses) / UNIT, exact, rtol=0, atol=0.03)


def test_trainings(run):
    for name in ("public_weights", "exact"):
        losses = results(run(name))
        assert len(losses) == 2 and is_trained(losses)
    transcript = run("training")
    *first_steps, first_test, third, fourth, second_test = results(transcript)
    assert is_trained([*first_steps, third, fourth])
    *_, (_, outputs), _, (_, last_outputs) = trained(5)
    _, labels, *_ = Training.numbers()
    for count, exact in ((first_test, outputs), (second_test, last_outputs)):
        assert count == (exact.argmax(1) == labels.argmax(1)).sum()
    # the second step takes weights and what the first one's rounding dropped; others are alike
    first, second, *_ = programs(transcript)
    assert len(second.inputs) == len(first.inputs) + len(Training.SHAPES)
    assert [form for _, form, _ in second.inputs] == ["masked"] * len(second.inputs)
    _, ran, after, *_ = asked(transcript)
    images, labels = 0, 1
    assert {*ran["inputs"]} - {images, labels} <= {*after["delete"]}
    masks = {i.params[0] for i in instructions(transcript, "mask")}
    assert masks.isdisjoint(Training.SHAPES), "weights that are masked anew"


def test_private_trainings(run):
    """Every step adds noise to each gradient, correlated with that of the steps before."""
    transcript = run("private")
    assert {i.params[3] for i in instructions(transcript, "noise")} == {0, 1, 2, 3}
    assert {i.params[2] for i in instructions(transcript, "noise")} == {Private.CORRELATION}
    assert [result.tolist() for result in results(transcript)] == [[1]] * 6, "no loss"
    keys = transcript.view("worker1").arrays("drawn", name="urandom")
    assert len(keys) == 2, "one of its own with each that it is sent"


@pytest.mark.thorough
def test_private_steps_that_are_made_anew(tmp_path):
    (transcript,) = scenarios.private_anew(tmp_path)
    assert said(transcript, "worker1", "anew")
    assert instructions(transcript, "noise")


def test_public_weights(run):
    transcript = run("public_weights")
    public = [fields for fields in said(transcript, "me", "public") if "values" in fields]
    _, _, *weights = Training.numbers()
    values = [words(f["values"]).view(np.int64).reshape(f["shape"]) for f in public]
    for value, weight in zip(values[::2], weights, strict=True):
        assert np.array_equal(value, weight)
    assert len(inputs(transcript)) == 2


def test_a_run_is_made_anew(run):
    transcript = run("made_anew")
    anew = {(f["run"], f["attempt"]) for f in said(transcript, "worker2", "anew")}
    counted = [f["counts"] for f in asked(transcript)]
    runs_ = {fields["run"] for fields in asked(transcript)}
    assert anew and max(runs_) > min(run for run, _ in anew)
    assert not anew & {address for addresses in counted for address in addresses}
    losses = results(transcript)
    assert len(losses) == len(runs_) and is_trained(losses)
    assert all(i.params[2] > 50 for i in instructions(transcript, "truncate"))
    assert compiler.ZONE == 41


def written(transcript):
    """(worker, name) of each file that was written -> its bytes."""
    entries = [entry for entry in transcript.entries if entry.kind == "written"]
    views = map(transcript.view, (entry.sender for entry in entries))
    return {
        (entry.sender, entry.name): view.value(entry).tobytes()
        for entry, view in zip(entries, views, strict=True)
    }


def kept(transcript):
    """(worker, name) of each file that was read -> the SHA-256 that was noted."""
    entries = [entry for entry in transcript.entries if entry.kind == "kept"]
    return {(entry.sender, entry.fields["file"]): entry.fields["sha256"] for entry in entries}


def test_a_checkpoint_and_its_resume(runs):
    before, after = runs["checkpoint"]
    assert before.path < after.path
    assert is_trained(results(before)) and is_trained(results(after), first=len(results(before)))
    assert (len(results(before)), len(results(after))) == (3, 2)
    files = written(before)
    assert [*files] == [(w, f"{step}.shares") for step in (1, 3) for w in ("worker1", "worker2")]
    assert kept(after) == {
        where: hashlib.sha256(content).hexdigest()
        for where, content in files.items()
        if where[1] == "3.shares"
    }
    (masked, *_) = programs(after)
    assert [i.op for i in masked.instructions] == ["mask"] * len(Training.SHAPES)
    assert {form for _, form, _ in masked.inputs} == {"share"}
    keys = [f["key"] for t in (before, after) for f in said(t, PROVIDER, "key")]
    assert len(set(keys)) == len(keys) == 6


def test_an_exact_training_and_its_checkpoints(run):
    transcript = run("exact")
    assert not instructions(transcript, "truncate")
    assert {name for _, name in written(transcript)} == {"1.shares", "2.shares"}
    ran = [fields["outputs"] for fields in asked(transcript)]
    masked = [fields["inputs"] for fields in asked(transcript)][1::2]
    assert len(ran) == 4 and ran[1::2] == masked, "after each save the weights are masked"


# ---- What sessions do besides --------------------------------------------------------------------


def test_new_keys(run):
    transcript = run("new_keys")
    keys = [fields["key"] for fields in said(transcript, PROVIDER, "key")]
    drawn = transcript.view(PROVIDER).arrays("drawn", name="urandom")
    assert [transcript.view(PROVIDER).value(entry).tobytes() for entry in drawn] == keys
    assert len(keys) == len(set(keys)) == 2 * 6
    x, y = inputs(transcript)
    square, product = results(transcript)
    assert is_near(square, x * x / UNIT) and is_near(product, x * y / UNIT)


def test_a_program_that_is_forgotten_is_sent_again(run):
    transcript = run("forgotten")
    names = [fields["program"] for fields in asked(transcript)]
    assert names[0] == names[3] and len(set(names[:4])) == 3
    assert all(fields["key"] is not None for fields in asked(transcript)[:5])
    assert len(names) > 130 and len(set(names[4:])) == 1
    assert names[0] in asked(transcript)[3]["forget"]
    x, y = inputs(transcript)
    for result, exact in zip(
        results(transcript)[:4],
        (np.maximum(x * y, 0), (x * y).sum(), x * y, np.maximum(x * y, 0)),
        strict=True,
    ):
        assert is_equal(result, exact)


def test_what_is_revealed_to_the_owner(run):
    transcript = run("to_owner")
    (places,) = results(transcript, "revealed")
    ((_, outputs),) = trained(1)
    assert is_equal(places, outputs.argmax(1))
    assert len(results(transcript)) == 1 and is_trained(results(transcript))
    assert len(said(transcript, OWNERS, "read")) == 1


# ---- Whichever it is -----------------------------------------------------------------------------


def test_nothing_stays_changed(tmp_path):
    """Whatever a scenario raises: neither doors nor constants."""
    before = [getattr(*door) for door in DOORS], compiler.ZONE, compiler.MAGNITUDE

    def fail(*_):
        raise RuntimeError("in the middle")

    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(RuntimeError, match="in the middle"),
    ):
        patch.setattr(Training, "step", fail)
        scenarios.made_anew(tmp_path)
    assert ([getattr(*door) for door in DOORS], compiler.ZONE, compiler.MAGNITUDE) == before
    assert not [*tmp_path.iterdir()]
