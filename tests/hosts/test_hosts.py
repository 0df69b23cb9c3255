"""Whole trainings on hosts, each party a process of its own: as a user runs them."""

import importlib
import os
import random
import signal
import subprocess
import time
from types import SimpleNamespace

import pytest
import torch

from smpc.hosts import plans
from smpc.hosts.loopback import ONE_THREAD, PROVIDER, REPOSITORY, Loopback
from smpc.twin import train_plain_twin
from tests import records

DEADLINE = 120  # seconds after which something hangs


def finished(process):
    """(exit status, stdout, stderr) of a script that ends by itself."""
    out, err = process.communicate(timeout=DEADLINE)
    return process.returncode, out, err


def started(command):
    """The script, in a process."""
    return subprocess.Popen(
        [*map(str, command)], cwd=REPOSITORY, env=os.environ | ONE_THREAD, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def in_the_clear(parties):
    """in_the_clear(plan, *options) -> the losses of the plain twin, and its correct answers."""
    script = importlib.import_module("train_encrypted")

    def in_the_clear(plan, *options):
        args = script.parse_arguments(["--plain-twin", *map(str, options)])
        about = plans.read(plan).content["weights"]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(about["seed"])
            torch.empty(about["drawn"], dtype=torch.int64).random_(-(2**63), 2**63 - 1)
            model = script.Net(script.ACTIVATIONS["relu"])
        run = SimpleNamespace(stop_if_interrupted=lambda: None)
        losses, correct, _ = train_plain_twin(args, model, script.get_data_loader, run)
        return losses, correct

    return in_the_clear


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Hosts of which none serves yet."""
    hosts = Loopback(tmp_path_factory.mktemp("hosts"))
    hosts.prepare()
    return hosts


def test_the_tutorial_on_hosts(prepared, in_the_clear, tmp_path):
    """The tutorial's batches in the tutorial's order, and its weights: the losses are the plain
    twin's; every party ends in order, and its journal says what it gave away."""
    hosts, out = prepared, tmp_path / "results"
    hosts.write_plan("--epochs", 2)
    with hosts.serving():
        ended = finished(started(hosts.script_command("--plan", hosts.plan, "--out", out)))
        assert ended[0] == 0 and not ended[2], ended
        said = {name: hosts.stop(name) for name in (*hosts.workers, PROVIDER)}
    assert said == {name: (f"{name} has ended\n", "") for name in said}
    record = records.read(out)
    losses, correct = in_the_clear(hosts.plan, "--epochs", 2)
    assert [s["loss"] for s in record["steps"]] == pytest.approx(losses, abs=0.02)
    for test, expected in zip(record["tests"], correct, strict=True):
        assert abs(test["correct"] - expected) <= 0.025 * 640
    assert record["counters"]["training step"]["rounds"] == 18
    for name in hosts.workers:
        told = hosts.hosts("journal", hosts.folder / name)
        assert "revealed: 22 numbers" in told
        assert "640 items" in told


def test_killed_one_after_the_other(prepared, in_the_clear, tmp_path):
    """Whoever is killed, at whatever moment: the script says so in a line and ends, the others
    serve on, and in the end the losses are the plain twin's."""
    hosts, out = prepared, tmp_path / "results"
    options = ("--epochs", 4, "--n-test-items", 64, "--checkpoint-every", 2)
    hosts.write_plan(*options)
    command = hosts.script_command("--plan", hosts.plan, "--out", out, "--time-limit", 12)
    draw = random.SystemRandom()
    victims = [draw.choice(hosts.workers), PROVIDER, "the script"]
    draw.shuffle(victims)
    resume = []
    with hosts.serving():
        for victim in victims:
            script = started([*command, *resume])
            lines = draw.randrange(0, 4)
            for _ in range(lines):
                script.stdout.readline()
            time.sleep(draw.uniform(0, 0.3))
            print(victim, "after", lines, "lines")
            if victim == "the script":
                script.kill()
                assert script.wait(DEADLINE) == -signal.SIGKILL
            else:
                _, err = hosts.stop(victim, signal.SIGKILL)
                assert all("the session has ended" in line for line in err.splitlines()), err
                status, _, err = finished(script)
                *before, last = err.splitlines()
                assert all("no checkpoint yet" in line for line in before), err
                assert status == 1 and len(before) <= 1 and "--resume" in last, err
                hosts.start(victim, wait=False)  # late, perhaps, for the next session
            resume = ["--resume"]
        status, _, err = finished(started([*command, *resume]))
        assert status == 0, err
    record = records.read(out)
    losses, _ = in_the_clear(hosts.plan, *options)
    assert [s["loss"] for s in record["steps"]] == pytest.approx(losses, abs=0.02)
    assert len(record["tests"]) == 4


def test_a_plan_that_cannot_be_written(prepared):
    """One line, before anything is computed."""
    path = prepared.folder / "parties.toml" / "plan.json"
    status, _, err = finished(started(prepared.script_command("--write-plan", path)))
    assert status == 2 and err.count("\n") == 1, err
    assert err.startswith(f"train_encrypted.py: error: --write-plan {path}: "), err


@pytest.mark.parametrize("file", ["parties.toml", "server/key.pem", "server/certificate.pem"])
def test_a_plan_in_the_place_of_what_it_is_made_from(prepared, file):
    """One line, and the file is there still."""
    path = prepared.folder / file
    before = path.read_bytes()
    status, _, err = finished(started(prepared.script_command("--write-plan", path)))
    assert status == 2 and err.count("\n") == 1 and "is in the place of the " in err, err
    assert path.read_bytes() == before


def test_more_items_than_the_owners_have(prepared, tmp_path):
    """One line, before any host is called, and no plan."""
    options = ("--write-plan", tmp_path / "plan.json", "--n-train-items", 641)
    status, _, err = finished(started(prepared.script_command(*options)))
    assert status == 2 and err.endswith("the owners in the parties file have 640\n"), err
    assert err.count("\n") == 1 and not (tmp_path / "plan.json").exists()
