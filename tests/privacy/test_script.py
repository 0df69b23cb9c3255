"""`--private` of the script: what it says, reveals and leaves; and a budget that is used once."""

import json
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from smpc.files import FileError
from smpc.privacy.budget import Budget
from tests import records

SIZES = "--n-train-items 10 --batch-size 4 --n-test-items 4 --test-batch-size 4".split()
PRIVATE = "--private 2 --epochs 2 --lr 0.001 --momentum 0.9".split()


def run(*arguments):
    command = [sys.executable, "train_encrypted.py", *PRIVATE, *SIZES, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_a_run(tmp_path):
    """The guarantee comes first; no loss is revealed, in words, in the record or by a worker."""
    checkpoint = tmp_path / "checkpoint"
    out = run("--out", tmp_path, "--plain-twin", "--checkpoint", checkpoint, "--n-workers", 3)
    first, *lines = out.split("\n")
    assert first.startswith("Differential privacy: ε = 2, δ = 1e-05, for whoever gets the model")
    assert any("for a worker who gets it too" in line for line in lines[:3])
    assert "Loss" not in out and out.count("Test set: Accuracy:") == 2
    record = records.read(tmp_path)
    assert [step["loss"] for step in record["steps"]] == [None] * 6
    assert [step["items"] for step in record["steps"]] == [4, 4, 2] * 2
    assert len(record["plain_twin"]["losses"]) == 6 and len(record["plain_twin"]["correct"]) == 2
    said = record["counters"]["training step"]["sent"]["running"]
    assert max(said[f"worker{i + 1}"] for i in range(3)) < 100, "a number, and of which run it is"
    for number in (1, 2, 3):
        journal = tmp_path / "checkpoint.privacy" / f"worker{number}.jsonl"
        taken = [json.loads(line)["batch"] for line in journal.read_text().splitlines()]
        assert taken == [0, 1, 2] * 2


def test_a_budget_that_is_used_up(tmp_path):
    """Whatever the checkpoint says, no batch is used more often than it may; what is left is
    used, up to the first batch of which nothing is."""
    checkpoint = tmp_path / "checkpoint"
    before = Budget(arguments(checkpoint))
    assert [before.take(batch) for batch in (0, 1, 2, 0, 1)] == [True] * 5
    del before
    out = run("--out", tmp_path, "--checkpoint", checkpoint, "--resume")
    assert out.count("The budget is used up: training ends before batch 0 of epoch 1\n") == 1
    assert records.read(tmp_path)["steps"] == []
    assert len(re.findall("Test set: Accuracy", out)) == 2


def arguments(checkpoint, **others):
    return SimpleNamespace(checkpoint=checkpoint, resume=False, n_workers=2, epochs=2, **others)


def begun(checkpoint):
    """As a run leaves it that has saved."""
    checkpoint.mkdir()
    (checkpoint / "progress").write_bytes(b"")
    return checkpoint


def test_what_journals_count(tmp_path):
    """The most that any worker has counted; of another worker's journal nothing is lost."""
    checkpoint = begun(tmp_path / "a")
    resumed = arguments(checkpoint)
    with pytest.raises(FileError, match=r"has no journals in .*a\.privacy"):
        Budget(resumed)
    (checkpoint / "progress").unlink()
    budget = Budget(arguments(checkpoint))
    assert budget.take(7) and budget.take(7) and not budget.take(7) and budget.take(8)
    for journal in budget._journals:
        journal.close()
    (checkpoint / "progress").write_bytes(b"")
    with pytest.raises(FileError, match="is of a run before: go on with --resume"):
        Budget(arguments(checkpoint))
    resumed.resume = True
    short = tmp_path / "a.privacy" / "worker2.jsonl"
    short.write_text("")
    again = Budget(resumed)
    assert not again.take(7) and again.take(8) and not again.take(8)
    for journal in again._journals:
        journal.close()
    resumed.epochs = 1
    assert not Budget(resumed).take(7), "it has been used more often than it may"


def test_a_copy_of_a_checkpoint(tmp_path):
    """It has no journals, and nobody knows what was used."""
    checkpoint = begun(tmp_path / "a")
    shutil.copytree(checkpoint, tmp_path / "b")
    args = arguments(tmp_path / "b")
    args.resume = True
    with pytest.raises(FileError, match="what was used of its budget is unknown"):
        Budget(args)


def test_without_a_checkpoint_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    budget = Budget(arguments(None))
    assert [budget.take(0) for _ in range(3)] == [True, True, False]
    assert not list(tmp_path.iterdir())
