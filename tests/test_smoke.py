"""The script, run as a user runs it: a process of its own, on a few training and test items."""

import contextlib
import re
import subprocess
import sys

import pytest

from smpc import report
from tests import programs, records

TRAIN_LINE = r"Train Epoch: 1 \[{}/{} \({}%\)\]\tLoss: \d\.\d{{6}}\tTime: \d+\.\d{{3}}s"
TEST_LINE = r"Test set: Accuracy: (\d+)\.0/{} \((\d+)%\)"


def run(*arguments):
    command = [sys.executable, "train_encrypted.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("protocol", "n_train", "n_test"),
    [
        ("semi2k", 6, 5),
        ("snn", 4, 4),  # a batch of syft's own takes seconds
        pytest.param("fss", 4, 4, marks=pytest.mark.thorough),
        *(pytest.param(name, 6, 5, marks=pytest.mark.thorough) for name in ("snn", "fss")),
    ],
)
def test_run(tmp_path, protocol, n_train, n_test):
    """What is printed and left; the losses are the plain twin's, and a last, shorter batch counts
    its own items."""
    arguments = f"--epochs 1 --n-train-items {n_train} --n-test-items {n_test} --plain-twin".split()
    arguments += ["--protocol", protocol, "--batch-size", 4, "--test-batch-size", 4]
    with programs.anew() if protocol == "semi2k" else contextlib.nullcontext():
        result = run(*arguments, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    starts = range(0, n_train, 4)
    *train_lines, before, test_line, after = result.stdout.split("\n")[: len(starts) + 3]
    for line, start in zip(train_lines, starts, strict=True):
        percent = round(100 * start / n_train)
        assert re.fullmatch(TRAIN_LINE.format(start, n_train, percent), line)
    assert (before, after) == ("", "")
    correct, percent = map(int, re.fullmatch(TEST_LINE.format(n_test), test_line).groups())
    assert percent == round(100 * correct / n_test)
    for part in ("FixedPrecisionTensor>[AdditiveSharingTensor]", "-> worker2:", "crypto_provider*"):
        assert result.stdout.count(part) == 2, "the chains of fc3.bias and of the first batch"
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    record = records.read(tmp_path)
    assert record["arguments"]["protocol"] == protocol
    assert record["versions"]["syft"] == "0.2.9"
    assert [test["correct"] for test in record["tests"]] == [correct]
    assert [step["items"] for step in record["steps"]] == [min(4, n_train - s) for s in starts]
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(record["plain_twin"]["losses"], abs=0.02)
    for line, loss in zip(train_lines, losses, strict=True):
        assert f"Loss: {loss:.6f}" in line
    assert not record["interrupted"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--n-workers", 3, "--lr", 0.05, 0.02, "--epochs", 3],
        ["--exact-truncation", "--activation", "quadratic", "--precision-fractional", 4],
    ],
)
def test_options_of_semi2k(tmp_path, arguments):
    """The losses are the plain twin's, whoever holds the shares, however they are truncated, and
    with another activation."""
    sizes = "--n-train-items 32 --batch-size 16 --n-test-items 16 --test-batch-size 16".split()
    result = run(*("--epochs", 2, "--plain-twin", "--out", tmp_path), *sizes, *arguments)
    assert result.returncode == 0, result.stderr
    record = records.read(tmp_path)
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(record["plain_twin"]["losses"], abs=0.02)
    exact, n_workers = "--exact-truncation" in arguments, record["arguments"]["n_workers"]
    assert (record["runs"]["told"] == 0) == exact
    assert len(record["counters"]["training step"]["sent"]["opening"]) == n_workers


def within_the_bands(record):
    """Whether each epoch's accuracy is within 2.5 points of the published curve and within 1.5 of
    the plain twin's."""
    correct = [test["correct"] / 6.4 for test in record["tests"]]
    return all(
        abs(ours - theirs / 6.4) <= points
        for others, points in ((report.PUBLISHED, 2.5), (record["plain_twin"]["correct"], 1.5))
        for ours, theirs in zip(correct, others, strict=True)
    )


def test_the_tutorial(tmp_path):
    """The default run: ten epochs beside the published curve and the plain twin.

    Rounding is random: over 20 runs an epoch's count had a standard deviation of two items, and one
    run left a band, at epoch 2. So one run of two has to stay in them.
    """
    for _ in range(2):
        result = run("--plain-twin", "--out", tmp_path)
        assert result.returncode == 0, result.stderr
        record = records.read(tmp_path)
        step, test_pass = record["counters"]["training step"], record["counters"]["test pass"]
        assert step["rounds"] == 18
        assert sum(step["messages"].values()) == 42
        assert step["opened"] <= 2_900_000
        assert step["dealt"] <= 2_000_000
        assert report.sent_by_all(step) <= 5_000_000
        assert test_pass["rounds"] == 37
        if within_the_bands(record):
            return
    pytest.fail(f"left the bands twice: {record['tests']}")


def test_memory_is_flat(tmp_path):
    """After 100 steps of the tutorial's net a process holds what it held after 20, within 0.4%."""
    sizes = "--n-train-items 80 --batch-size 8 --n-test-items 8 --test-batch-size 8".split()
    result = run("--epochs", 10, *sizes, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    memory = [test["memory"] for test in records.read(tmp_path)["tests"]]
    assert memory[-1] <= 1.004 * memory[1]


def test_a_loss_that_left_the_ring(tmp_path):
    """Every learning rate in range is computed with; one that makes the weights explode ends."""
    sizes = "--n-train-items 24 --batch-size 8 --n-test-items 8 --test-batch-size 8".split()
    result = run(*sizes, "--lr", 4e6, "--out", tmp_path)
    assert result.returncode == 2
    assert re.fullmatch(r"train_encrypted.py: error: .* training diverged, .*\n", result.stderr)
    assert not list(tmp_path.iterdir())
