"""A run killed at any moment goes on from its checkpoint; a wrong checkpoint is refused."""

import itertools
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from smpc import files
from smpc.checkpoint import Checkpoint, CheckpointError
from smpc.semi2k import storage
from tests import records
from tests.conftest import reveal
from tests.semi2k.conftest import sessions_of_its_own  # noqa: F401 (each test is the first one)

ARGUMENTS = {
    "protocol": "semi2k",
    "precision_fractional": 3,
    "n_workers": 2,
    "activation": "relu",
    "seed": 1,
    "lr": 0.02,
    "batch_size": 64,
    "n_train_items": 640,
    "n_test_items": 640,
    "private": None,
}
OF_A_PRIVATE_RUN = {"delta": 1e-5, "clip": 8.0, "momentum": 0.0}


def test_killed_at_four_random_moments(tmp_path):
    """The losses stay those of the plain twin: over 20 unbroken runs none was off by 0.0061."""
    folder, out = tmp_path / "checkpoint", tmp_path / "results"
    command = [sys.executable, "train_encrypted.py", "--checkpoint", folder, "--out", out]
    command += "--resume --checkpoint-every 1 --epochs 6 --n-test-items 64 --plain-twin".split()

    draw = random.SystemRandom()
    moments = [(True, draw.uniform(0, 0.5)) for _ in range(3)]
    moments.insert(draw.randrange(4), (False, draw.uniform(0, 0.5)))
    print(moments)  # whether training has begun, and seconds from then, or from the start
    for begun, seconds in moments:
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            if begun:
                process.stdout.readline()
            time.sleep(seconds)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it had ended before"
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    record = records.read(out)
    numbers = [(step["epoch"], step["batch"]) for step in record["steps"]]
    assert numbers == list(itertools.product(range(1, 7), range(10)))
    assert [test["epoch"] for test in record["tests"]] == list(range(1, 7))
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(record["plain_twin"]["losses"], abs=0.02)


@pytest.fixture
def run(parties, tmp_path):
    """run(**arguments) -> the checkpoint in `tmp_path`, a small model that is shared anew, and a
    record, as the script makes them; `begin` has not been called. The run before is over."""
    locks = []

    def run(resume=False, sizes=(3, 2), **arguments):
        always = {"checkpoint": tmp_path / "c", "checkpoint_every": 1, "epochs": 2}
        always |= {"plan": None, "write_plan": None}
        arguments = {**ARGUMENTS, **always} | arguments
        model = torch.nn.Linear(*sizes).fix_precision()
        model.share(*parties.workers, crypto_provider=parties.crypto_provider, protocol="semi2k")
        record = SimpleNamespace(steps=[], tests=[])
        record.restore = lambda steps, tests: vars(record).update(steps=steps, tests=tests)
        while locks:
            locks.pop().close()  # as the end of a process does
        kept = Checkpoint(SimpleNamespace(**arguments, resume=resume))
        locks.append(kept.lock)
        return kept, model, record

    return run


def step(kept, model, record):
    """Another weight for the old one, a step in the record, and a checkpoint."""
    with torch.no_grad():
        model.weight.add_(model.weight)
    record.steps.append({"epoch": 1, "batch": len(record.steps), "items": 64})
    kept.after_step(model, record)


def resumed(run):
    """(the weight, the number of steps) that a new run begins with."""
    kept, model, record = run(resume=True)
    kept.begin(model, record)
    return reveal(model.weight), len(record.steps)


def test_what_a_checkpoint_holds(run, tmp_path):
    """Each worker's file holds its shares alone, which are noise; no file holds anything else."""
    kept, model, record = run()
    kept.begin(model, record)
    for _ in range(3):
        step(kept, model, record)
    weight = reveal(model.weight)
    assert sorted(str(file.relative_to(kept.folder)) for file in kept.folder.rglob("*")) == [
        *("lock", "progress", "worker1", "worker1/2.shares", "worker1/3.shares"),
        *("worker2", "worker2/2.shares", "worker2/3.shares"),
    ]
    shares = []
    for worker in ("worker1", "worker2"):
        file = kept.folder / worker / "3.shares"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        fields = storage.read(file)
        assert fields.keys() == {"worker", "about", "shapes", "shares"}
        assert fields["about"].keys() == {"run", "step"}
        shares.append(np.frombuffer(fields["shares"], np.uint64))
        assert (np.abs(shares[-1].view(np.int64)) > 2**32).all()
    values = (shares[0] + shares[1]).view(np.int64) / 1000
    assert np.allclose(values[:6].reshape(2, 3), weight)
    fields = storage.read(kept.folder / "progress")
    assert fields.keys() == {"save", "step", "arguments", "steps", "tests", "position"}


def broken_off_after(written, monkeypatch):
    """Have the next write but `written` be broken off, as by a kill."""
    left = iter(range(written))

    def write(path, content, *mode):
        if next(left, None) is None:
            path.with_name(f".{path.name}.0").write_bytes(content[: len(content) // 2])
            raise KeyboardInterrupt
        files.write_whole(path, content, *mode)

    monkeypatch.setattr(storage, "write_whole", write)


def test_broken_off_at_every_write(run, monkeypatch, tmp_path):
    """Whatever file is the last that was written, a run goes on from a whole checkpoint."""
    kept, model, record = run()
    kept.begin(model, record)
    weights = [reveal(model.weight)]
    for written in range(4):
        with monkeypatch.context() as patch:
            broken_off_after(written, patch)
            try:
                step(kept, model, record)
            except KeyboardInterrupt:
                assert written < 3  # of the two workers' files and `progress`
        weights.append(reveal(model.weight))
        weight, n_steps = resumed(run)
        assert n_steps == (4 if written == 3 else 0)
        assert torch.equal(weight, weights[n_steps])


@pytest.mark.parametrize("written", range(3))
def test_broken_off_before_the_first_checkpoint(run, monkeypatch, capsys, tmp_path, written):
    """Killed at any write of the first save, a run begins anew with --resume, and says so."""
    kept, model, record = run()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        broken_off_after(written, patch)
        kept.begin(model, record)
    assert capsys.readouterr().err == ""
    kept, model, record = run(resume=True)
    line = f"{tmp_path}/c holds no checkpoint yet: starting anew\n"
    assert capsys.readouterr() == ("", line)
    kept.begin(model, record)
    step(kept, model, record)
    weight, n_steps = resumed(run)
    assert n_steps == 1
    assert torch.equal(weight, reveal(model.weight))
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.rglob(".*"))


def test_nothing_to_resume_from(run, tmp_path, capsys):
    """No folder, or an empty one: a run begins; another's files: it does not."""
    run(resume=True)
    assert "starting anew" in capsys.readouterr().err
    run(resume=True)
    assert "starting anew" in capsys.readouterr().err
    (tmp_path / "c" / "letter.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="holds no checkpoint: leave out --resume"):
        run(resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_shares_whose_record_is_gone_are_kept(run, tmp_path, resume):
    kept, model, record = run()
    kept.begin(model, record)
    step(kept, model, record)
    (tmp_path / "c" / "progress").unlink()
    with pytest.raises(CheckpointError, match="holds shares, but its file `progress` is gone"):
        run(resume=resume)
    assert (tmp_path / "c" / "worker1" / "1.shares").exists()


def test_shares_of_two_saves_of_a_step_are_not_mixed(run, monkeypatch, tmp_path):
    """A save broken off between the workers; the run, resumed, comes to the same step again."""
    kept, model, record = run()
    kept.begin(model, record)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        broken_off_after(1, patch)
        step(kept, model, record)
    first = (tmp_path / "c/worker1/1.shares").read_bytes()
    kept, model, record = run(resume=True)
    kept.begin(model, record)
    step(kept, model, record)
    weight, n_steps = resumed(run)
    assert n_steps == 1
    assert torch.equal(weight, reveal(model.weight))
    (tmp_path / "c/worker1/1.shares").write_bytes(first)
    with pytest.raises(CheckpointError, match=r"worker1/1\.shares is of another run"):
        resumed(run)


def test_a_folder_in_use(run, tmp_path):
    """The second of two runs is refused, and changes nothing."""
    kept, model, record = run()
    kept.begin(model, record)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for resume in (False, True):
        arguments = ARGUMENTS | {"checkpoint": kept.folder, "checkpoint_every": 1, "epochs": 2}
        arguments |= {"plan": None, "write_plan": None}
        with pytest.raises(CheckpointError, match="c is in use by another run"):
            Checkpoint(SimpleNamespace(**arguments, resume=resume))
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    step(kept, model, record)
    assert resumed(run)[1] == 1


def damage(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def fifo(file):
    file.unlink()
    os.mkfifo(file)


def folder(file):
    file.unlink()
    file.mkdir()


def another_version(file):
    fields = storage.read(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "FORMAT", "semi2k checkpoint 0")
        storage.write(file, fields)


BAD = {
    "damaged progress": (lambda c: damage(c / "progress"), "progress is damaged"),
    "truncated progress": (lambda c: (c / "progress").write_bytes(b""), "progress is damaged"),
    "damaged shares": (lambda c: damage(c / "worker2/1.shares"), "1.shares is damaged"),
    "missing shares": (lambda c: (c / "worker1/1.shares").unlink(), "1.shares: No such file"),
    "a FIFO": (lambda c: fifo(c / "progress"), "progress: not a file"),
    "a folder": (lambda c: folder(c / "worker1/1.shares"), "1.shares: not a file"),
    "another version": (lambda c: another_version(c / "progress"), "of another version"),
    "another party": (
        lambda c: shutil.copy(c / "worker1/1.shares", c / "worker2/1.shares"),
        "holds shares of worker1",
    ),
    "another step": (
        lambda c: shutil.copy(c / "worker1/0.shares", c / "worker1/1.shares"),
        "is of another run",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_checkpoints(run, tmp_path, name):
    kept, model, record = run()
    kept.begin(model, record)
    step(kept, model, record)
    harm, message = BAD[name]
    harm(tmp_path / "c")
    with pytest.raises(CheckpointError, match=message):
        resumed(run)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_a_checkpoint_of_another_run(run, name):
    kept, model, record = run()
    kept.begin(model, record)
    with pytest.raises(CheckpointError, match=f"is of a run with --{name.replace('_', '-')} "):
        run(resume=True, **{name: 17}, **(OF_A_PRIVATE_RUN if name == "private" else {}))


def test_a_private_run_keeps_its_epochs(run):
    """Its noise is made for so many."""
    private = {"private": 2.0, **OF_A_PRIVATE_RUN}
    kept, model, record = run(**private)
    kept.begin(model, record)
    with pytest.raises(CheckpointError, match="is of a run with --epochs 2, not 3"):
        run(resume=True, **private, epochs=3)


def test_a_checkpoint_of_more_epochs(run):
    kept, model, record = run()
    kept.begin(model, record)
    record.tests += [{"epoch": 1}, {"epoch": 2}]
    kept.save(model, record)
    with pytest.raises(CheckpointError, match="is of a run of 2 epochs: use --epochs 2 or more"):
        run(resume=True, epochs=1)


def test_a_checkpoint_of_another_model(run):
    kept, model, record = run()
    kept.begin(model, record)
    kept, model, record = run(resume=True, sizes=(3, 4))
    with pytest.raises(CheckpointError, match="is of another model"):
        kept.begin(model, record)


def test_a_checkpoint_is_not_written_over(run):
    kept, model, record = run()
    kept.begin(model, record)
    with pytest.raises(CheckpointError, match="holds a checkpoint: go on from it with --resume"):
        run()


def test_a_checkpoint_that_cannot_be_written(run, monkeypatch):
    kept, model, record = run()
    kept.begin(model, record)

    def full(path, content, *mode):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(storage, "write_whole", full)
    with pytest.raises(CheckpointError, match="c: No space left on device"):
        step(kept, model, record)
