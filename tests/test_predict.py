"""Prediction with shared weights, run as a user runs it."""

import importlib
import os
import re
import subprocess
import sys

import pytest
import torch

from smpc.model import ModelError, load_model, save_model
from tests import programs

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


@pytest.mark.parametrize(
    "started", [programs.forked, pytest.param(programs.anew, marks=pytest.mark.thorough)]
)
def test_prediction(trained, started):
    """As many are right as the test at the end of training said, but for ties of rounding."""
    model, correct = trained
    with started():
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
    torch.save(state_dict, tmp_path / "torch's.pt")
    save_model({"fc1.weight": state_dict["fc1.weight"]}, tmp_path / "other.pt")
    save_model([1, 2], tmp_path / "list.pt")
    bias = state_dict["fc3.bias"]
    save_model(state_dict | {"fc3.bias": bias.double()}, tmp_path / "double.pt")
    save_model(state_dict | {"fc3.bias": bias.to_sparse()}, tmp_path / "scattered.pt")
    for name, value in (("infinite", float("inf")), ("huge", 1e30)):
        bias[0] = value
        save_model(state_dict, tmp_path / f"{name}.pt")
    (tmp_path / "text.pt").write_text("no model")
    (tmp_path / "empty.pt").write_text("")
    (tmp_path / "folder.pt").mkdir()
    os.mkfifo(tmp_path / "fifo.pt")
    with (tmp_path / "sparse.pt").open("wb") as file:
        file.truncate(1 << 42)
    return tmp_path


NO_FILE = "not a file, but a folder, a device or a FIFO"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.pt"], "nothing.pt: No such file or directory"),
        (["text.pt"], "text.pt is damaged, or not a model"),
        (["empty.pt"], "empty.pt is damaged, or not a model"),
        (["torch's.pt"], "torch's.pt is damaged, or not a model that --save-model made"),
        (["other.pt"], "holds the weights of another network"),
        (["list.pt"], "holds the weights of another network"),
        (["double.pt"], "or of another type"),
        (["scattered.pt"], "or of another type"),
        (["infinite.pt"], "holds weights that are not finite"),
        (["folder.pt"], f"folder.pt: {NO_FILE}"),
        (["fifo.pt"], f"fifo.pt: {NO_FILE}"),
        (["/dev/zero"], f"/dev/zero: {NO_FILE}"),
        (["sparse.pt"], "sparse.pt: 4,398,046,511,104 bytes, more than the "),
        ([""], "an empty path"),
        (["m\0.pt"], "a path with control characters"),
        (["m" * 5000], "File name too long"),
        (["nothing.pt", "--test-batch-size", "700"], "a test batch of 700 is larger than the 640"),
        (["nothing.pt", "--precision-fractional", "8"], "products overflow the ring with semi2k"),
    ],
)
def test_bad_input(parties, broken, monkeypatch, fails, arguments, message):
    file, *options = arguments
    monkeypatch.setattr("sys.argv", ["predict_encrypted.py", file and str(broken / file), *options])
    program = importlib.import_module("predict_encrypted")
    assert message in fails(program.PROGRAM, program.main)


@pytest.mark.parametrize("hooked", [False, True])
def test_every_flipped_bit_of_a_model_is_found(request, tmp_path, hooked):
    """Wherever it is; with syft's hook or without."""
    if hooked:
        request.getfixturevalue("parties")
    model, file = torch.nn.Linear(3, 2), tmp_path / "m.pt"
    save_model({name: tensor + 1 for name, tensor in model.state_dict().items()}, file)
    content = file.read_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        file.write_bytes(flipped)
        with pytest.raises(ModelError, match="is damaged"):
            load_model(model, file)
    for length in range(0, len(content), 7):
        file.write_bytes(content[:length])
        with pytest.raises(ModelError, match="is damaged"):
            load_model(model, file)
    file.write_bytes(content)
    load_model(model, file)
    plain = torch.load(file, weights_only=True)
    assert all(torch.equal(plain[name], value) for name, value in model.state_dict().items())


def test_weights_beyond_the_ring(broken):
    result = run("predict_encrypted.py", broken / "huge.pt")
    assert result.returncode == 2
    line = f"predict_encrypted.py: error: {broken}/huge.pt: a value is too large to be shared"
    assert result.stderr == f"{line}, use fewer digits\n"
