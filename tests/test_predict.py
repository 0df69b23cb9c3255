"""Prediction with shared weights, run as a user runs it."""

import importlib
import re
import subprocess
import sys

import pytest
import torch

TINY = "--epochs 1 --n-train-items 64 --n-test-items 64 --plain-twin".split()


def run(script, *arguments):
    command = [sys.executable, script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(the model's file, the correct answers of 64 under encryption after training)"""
    folder = tmp_path_factory.mktemp("trained")
    result = run("train_encrypted.py", *TINY, "--save-model", folder / "m.pt", "--out", folder)
    assert result.returncode == 0, result.stderr
    assert f"the weights were revealed to the model's owner: {folder}/m.pt\n" in result.stdout
    return folder / "m.pt", int(re.search(r"Accuracy: (\d+)\.0/64", result.stdout)[1])


def test_prediction(trained):
    """As many are right as the test at the end of training said, but for ties of rounding."""
    model, correct = trained
    result = run("predict_encrypted.py", model, "--n-test-items", 64, "--test-batch-size", 48)
    assert result.returncode == 0, result.stderr
    one, batch = re.findall(r"images at once: (\d+) +median milliseconds: \d+\.\d\n", result.stdout)
    assert (one, batch) == ("1", "48")
    predicted = int(re.match(r"correct: (\d+) of 64\n", result.stdout)[1])
    assert abs(predicted - correct) <= 2


def test_the_saved_model_is_a_plain_one(trained):
    """In the clear, in float, its weights are whole thousandths of a trained network."""
    state_dict = torch.load(trained[0], weights_only=True)
    assert list(state_dict) == [f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")]
    thousandths = torch.cat([1000 * tensor.flatten() for tensor in state_dict.values()])
    assert torch.allclose(thousandths, thousandths.round(), atol=1e-3)
    assert 20 < thousandths.std() < 60


@pytest.fixture
def broken(trained, tmp_path):
    """A folder with models that cannot be used."""
    state_dict = torch.load(trained[0], weights_only=True)
    torch.save({"fc1.weight": state_dict["fc1.weight"]}, tmp_path / "other.pt")
    for name, value in (("infinite", float("inf")), ("huge", 1e30)):
        state_dict["fc3.bias"][0] = value
        torch.save(state_dict, tmp_path / f"{name}.pt")
    (tmp_path / "text.pt").write_text("no model")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt"], "nothing.pt: No such file or directory"),
        (["text.pt"], "text.pt is damaged, or not a model"),
        (["other.pt"], "holds the weights of another network"),
        (["infinite.pt"], "holds weights that are not finite"),
        (["nothing.pt", "--test-batch-size", "700"], "a test batch of 700 is larger than the 640"),
        (["nothing.pt", "--precision-fractional", "8"], "products overflow the ring with semi2k"),
    ],
)
def test_bad_input(parties, broken, monkeypatch, fails, arguments, message):
    file, *options = arguments
    monkeypatch.setattr("sys.argv", ["predict_encrypted.py", str(broken / file), *options])
    program = importlib.import_module("predict_encrypted")
    assert message in fails(program.PROGRAM, program.main)


def test_weights_beyond_the_ring(broken):
    result = run("predict_encrypted.py", broken / "huge.pt")
    assert result.returncode == 2
    line = f"predict_encrypted.py: error: {broken}/huge.pt: a value is too large to be shared"
    assert result.stderr == f"{line}, use fewer digits\n"
