"""The driver of the peers' benchmark: what is shown of a system that cannot run, or runs wrong."""

import importlib.util
import json
import math
import os
import re
import subprocess
import sys

import numpy
import pytest

from benchmarks import peers

PLAIN = [1.13 - 0.03 * i for i in range(10)]
FIGURES = {"step": 0.1, "test": 1.5, "cpu": 0.2, "rounds": 45, "bytes": 8e6, "correct": 226}
PEER = ("crypten", "TFP")
HERE = "{}.{}".format(*sys.version_info)


def cells(figures, system=PEER):
    """A system's line of the table, by column."""
    line = peers.row(system, figures, {"step": 0.05}, PLAIN, 226)
    return dict(zip(peers.COLUMNS, line.strip("| ").split(" | "), strict=True))


def test_a_right_system_shows_its_figures():
    shown = cells(FIGURES | {"losses": [loss + 0.004 for loss in PLAIN]})
    assert shown["s a step"] == "0.1000"
    assert shown["÷ `semi2k`"] == "2.00"
    assert shown["bytes"] == "8,000,000"
    assert shown["loss deviation"] == "0.00400"
    assert shown["correct of 640"] == "226"


@pytest.mark.parametrize("loss", [PLAIN[6] + 0.1, PLAIN[6] - 0.1, math.inf, math.nan])
def test_one_loss_that_is_off_is_marked_wrong(loss):
    shown = cells(FIGURES | {"losses": [*PLAIN[:6], loss, *PLAIN[7:]]})
    assert shown["loss deviation"].startswith("**wrong:")
    assert "wrong" not in shown["correct of 640"]


def test_a_count_that_is_off_is_marked_wrong():
    shown = cells(FIGURES | {"losses": PLAIN, "correct": 64})
    assert shown["correct of 640"] == "**wrong: 64**"
    assert shown["loss deviation"] == "0.00000"


def test_what_a_library_does_not_count_is_a_dash():
    shown = cells(FIGURES | {"losses": PLAIN, "rounds": None, "bytes": None})
    assert (shown["rounds"], shown["bytes"]) == ("–", "–")


def test_a_peer_without_its_python_is_a_row_that_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(peers, "PYTHON", {"crypten": "2.0"})
    monkeypatch.setattr(peers, "candidates", lambda version: iter([None, sys.executable]))
    results = {"semi2k": FIGURES | {"losses": PLAIN}} | {
        system: peers.Unavailable("not today") for system in peers.SYSTEMS if system != "semi2k"
    }
    results[PEER] = peers.run(PEER, tmp_path / "task.npz")
    lines = peers.table(results, PLAIN, 226).splitlines()
    (line,) = (line for line in lines if "needs Python 2.0" in line)
    assert line.startswith("| CrypTen 0.4.1, trusted first party | 2 | party 0 |")
    assert "did not run" in line
    assert sum("did not run" in line for line in lines) == len(peers.SYSTEMS) - 1


def test_a_python_is_taken_by_what_it_says_of_itself(monkeypatch):
    monkeypatch.setattr(peers, "candidates", lambda version: iter([None, "", sys.executable]))
    assert peers.find_python(HERE) == sys.executable
    with pytest.raises(peers.Unavailable, match=r"needs Python 3\.2"):
        peers.find_python("3.2")


def test_a_command_that_fails_gives_its_last_word():
    command = [sys.executable, "-c", "print('first'); raise SystemExit('no such | package')"]
    with pytest.raises(peers.Unavailable, match=r"^no lock: no such \| package$") as raised:
        peers.call(command, "no lock")
    assert cells(raised.value)["s a step"] == "**did not run:** no lock: no such / package"


def test_a_command_that_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr(peers, "SECONDS", 0.2)
    with pytest.raises(peers.Unavailable, match=r"no end after 0\.2 s"):
        peers.call([sys.executable, "-c", "import time; time.sleep(600)"], "its run failed")


@pytest.mark.parametrize("name", peers.PYTHON)
def test_every_environment_is_locked(name):
    lock = (peers.SCRIPTS / f"{name}.txt").read_text()
    for requirement in re.split(r"\n(?=\S)", lock.strip()):
        assert re.match(r"[\w.-]+==\S+ \\\n +--hash=sha256:[0-9a-f]{64}", requirement)
    assert "://" not in lock
    assert (peers.SCRIPTS / f"train_{name}.py").exists()


def task_module():
    """`benchmarks/peers/task.py`, which the peers' scripts import."""
    spec = importlib.util.spec_from_file_location("task", peers.SCRIPTS / "task.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.thorough
def test_the_task_that_a_run_leaves_is_the_one_it_ran(tmp_path):
    """In numpy alone: the plain losses and count from the weights and items that peers read."""
    figures = peers.run("semi2k", tmp_path / "semi2k.npz")
    task = task_module().Task(tmp_path / "semi2k.npz")
    with numpy.load(tmp_path / "semi2k.npz") as plain:
        losses, correct = plain["losses"], plain["correct"].item()

    w0, b0, w1, b1, w2, b2 = task.weights

    def forward(x):
        a0 = numpy.maximum(x @ w0 + b0, 0)
        a1 = numpy.maximum(a0 @ w1 + b1, 0)
        return a0, a1, a1 @ w2 + b2

    for (x, y), loss in zip(task.train, losses, strict=True):
        a0, a1, output = forward(x)
        assert ((output - y) ** 2).sum() / 64 == pytest.approx(loss, abs=1e-5)
        d2 = (output - y) / 32
        d1 = d2 @ w2.T * (a1 > 0)
        d0 = d1 @ w1.T * (a0 > 0)
        for weight, step in zip(
            task.weights,
            (x.T @ d0, d0.sum(0), a0.T @ d1, d1.sum(0), a1.T @ d2, d2.sum(0)),
            strict=True,
        ):
            weight -= 0.02 * step
    hits = sum((forward(x)[-1].argmax(1) == y.argmax(1)).sum() for x, y in task.test)
    assert hits == pytest.approx(correct, abs=1)
    assert "wrong" not in peers.row("semi2k", figures, figures, losses, correct)


def test_a_peer_is_measured_after_its_first_epoch():
    task = task_module()
    batches, passes = [], []

    class Work:
        train = range(10)

    def train_step(batch):
        batches.append(batch)
        return len(batches)

    def test_pass():
        passes.append(len(batches))
        return 200.4 + len(passes)

    figures = task.measure(Work, train_step, test_pass, lambda: (30 * len(batches), None), pids=[])
    assert batches == [*range(10)] * task.EPOCHS + [0]
    assert passes == [10 * epoch for epoch in range(1, task.EPOCHS + 1)]
    assert figures["losses"] == list(range(1, 11))
    assert figures["correct"] == 201
    assert (figures["rounds"], figures["bytes"]) == (30, None)


def run_parties(source):
    """What a program that begins with `from task import run_parties` prints, and its status."""
    command = [sys.executable, "-c", f"from task import run_parties\n{source}"]
    environment = os.environ | {"PYTHONPATH": str(peers.SCRIPTS)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_parties_figures_are_the_first_ones_with_the_bytes_of_all():
    ended = run_parties(
        """
import time
party = lambda rank: lambda pids: time.sleep(0.2 * rank) or {"step": rank + 1, "bytes": 10 + rank}
dealer = lambda pids: None
server = lambda pids: time.sleep(600)
run_parties([party(0), party(1)], [dealer, server])
"""
    )
    assert json.loads(ended.stdout) == {"step": 1, "bytes": 21}
    assert ended.returncode == 0


def test_a_party_that_fails_ends_them_all():
    ended = run_parties(
        "import time\nrun_parties([lambda pids: time.sleep(600), lambda pids: 1 // 0])"
    )
    assert ended.returncode == 1
    assert "ZeroDivisionError" in ended.stderr.splitlines()[-1]
