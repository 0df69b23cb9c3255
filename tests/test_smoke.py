"""The script, run as a user runs it: a process of its own, on a few training and test items."""

import contextlib
import json
import re
import signal
import subprocess
import sys

import pytest

from smpc import report
from tests import programs

SMALL = (
    "--epochs 1 --n-train-items 16 --n-test-items 16 --batch-size 16 --test-batch-size 16".split()
)
TRAIN_LINE = r"Train Epoch: 1 \[0/16 \(0%\)\]\tLoss: \d\.\d{6}\tTime: \d+\.\d{3}s"
TEST_LINE = r"Test set: Accuracy: (\d+)\.0/16 \((\d+)%\)"


def run(*arguments):
    command = [sys.executable, "train_encrypted.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("protocol", ["semi2k", "snn", "fss"])
def test_run(tmp_path, protocol):
    with programs.anew() if protocol == "semi2k" else contextlib.nullcontext():
        result = run(*SMALL, "--protocol", protocol, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.split("\n")
    assert re.fullmatch(TRAIN_LINE, lines[0])
    assert (lines[1], lines[3]) == ("", "")
    correct, percent = map(int, re.fullmatch(TEST_LINE, lines[2]).groups())
    assert percent == round(100 * correct / 16)
    for part in ("FixedPrecisionTensor>[AdditiveSharingTensor]", "-> worker2:", "crypto_provider*"):
        assert result.stdout.count(part) == 2, "the chains of fc3.bias and of the first batch"
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["arguments"]["protocol"] == protocol
    assert record["versions"]["syft"] == "0.2.9"
    assert [test["correct"] for test in record["tests"]] == [correct]
    assert [f"Loss: {step['loss']:.6f}" in lines[0] for step in record["steps"]] == [True]
    assert not record["interrupted"]


@pytest.mark.parametrize("protocol", ["semi2k", "snn"])
def test_fidelity_and_true_counts(tmp_path, protocol):
    """The encrypted losses are the plain twin's; a last, shorter batch counts its own items."""
    sizes = "--n-train-items 6 --batch-size 4 --n-test-items 5 --test-batch-size 4".split()
    result = run(
        *("--epochs", 1, "--protocol", protocol, "--plain-twin", "--out", tmp_path), *sizes
    )
    assert result.returncode == 0, result.stderr
    assert re.findall(r"\[(\d+)/6 \((\d+)%\)\]", result.stdout) == [("0", "0"), ("4", "67")]
    assert re.search(r"Accuracy: \d+\.0/5 \(\d+%\)", result.stdout)
    record = json.loads((tmp_path / "run.json").read_text())
    assert [step["items"] for step in record["steps"]] == [4, 2]
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(record["plain_twin"]["losses"], abs=0.02)


@pytest.mark.parametrize(
    "arguments", [["--n-workers", 3], ["--exact-truncation"], ["--lr", 0.05, 0.02, "--epochs", 3]]
)
def test_options_of_semi2k(tmp_path, arguments):
    """The losses are the plain twin's, whoever holds the shares and however they are truncated."""
    sizes = "--n-train-items 32 --batch-size 16 --n-test-items 16 --test-batch-size 16".split()
    result = run(*("--epochs", 2, "--plain-twin", "--out", tmp_path), *sizes, *arguments)
    assert result.returncode == 0, result.stderr
    record = json.loads((tmp_path / "run.json").read_text())
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(record["plain_twin"]["losses"], abs=0.02)
    exact, n_workers = "--exact-truncation" in arguments, record["arguments"]["n_workers"]
    assert (record["runs"]["told"] == 0) == exact
    assert len(record["counters"]["training step"]["sent"]["opening"]) == n_workers


def test_quadratic_activation(tmp_path):
    result = run(*SMALL, "--activation", "quadratic", "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    assert re.match(TRAIN_LINE, result.stdout)


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
        record = json.loads((tmp_path / "run.json").read_text())
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
    """After 250 steps of the tutorial's net a process holds what it held after 50, within 1%."""
    sizes = "--n-train-items 80 --batch-size 8 --n-test-items 8 --test-batch-size 8".split()
    result = run("--epochs", 25, *sizes, "--out", tmp_path)
    assert result.returncode == 0, result.stderr
    memory = [test["memory"] for test in json.loads((tmp_path / "run.json").read_text())["tests"]]
    assert memory[-1] <= 1.01 * memory[4]


def test_interrupt(tmp_path):
    """Ctrl-C: one line, and the results so far."""
    command = [sys.executable, "train_encrypted.py", "--epochs", "999", "--out", tmp_path]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors == f"interrupted: the results so far are in {tmp_path}/\n"
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["interrupted"]
    assert len(record["steps"]) >= 1


def test_a_loss_that_left_the_ring(tmp_path):
    """Every learning rate in range is computed with; one that makes the weights explode ends."""
    sizes = "--n-train-items 24 --batch-size 8 --n-test-items 8 --test-batch-size 8".split()
    result = run(*sizes, "--lr", 4e6, "--out", tmp_path)
    assert result.returncode == 2
    assert re.fullmatch(r"train_encrypted.py: error: .* training diverged, .*\n", result.stderr)
    assert not list(tmp_path.iterdir())
