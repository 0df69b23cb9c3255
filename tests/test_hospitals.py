"""examples/hospitals.py: as a user runs it, and what it refuses."""

import hashlib
import importlib
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from smpc.hosts import tables
from tests import records

FOLDER = pathlib.Path("examples/breast_cancer")
DATA = FOLDER / "breast_cancer.csv"
N_TRAIN, N_TEST = (152, 152, 152), (38, 38, 37)  # of each hospital


@pytest.fixture(scope="module")
def example(parties):
    return importlib.import_module("examples.hospitals")


@pytest.fixture
def refused(example, monkeypatch, fails):
    """refused(*arguments) -> the line on stderr of a run that ends with status 2."""

    def refused(*arguments):
        monkeypatch.setattr("sys.argv", ["hospitals", *map(str, arguments)])
        return fails("examples.hospitals", example.main)

    return refused


def test_the_file_is_the_credited_one():
    credit = (FOLDER / "README.md").read_text()
    assert hashlib.sha256(DATA.read_bytes()).hexdigest() in credit
    assert f"{DATA.stat().st_size:,}" in credit


def test_each_hospital_has_a_third(example):
    args = example.parse_arguments([])
    hospitals, whole = example.read_hospitals(args), tables.read(args.data)
    assert tuple(hospital.n_train for hospital in hospitals) == N_TRAIN
    assert tuple(hospital.n_test for hospital in hospitals) == N_TEST
    rows = np.concatenate([hospital.rows for hospital in hospitals])
    assert sorted(rows.tolist()) == sorted(whole.rows.tolist())


def test_a_hospital_standardises_by_its_own_training_rows(example):
    for hospital in example.read_hospitals(example.parse_arguments([])):
        features, _ = hospital.sets["train"]
        assert np.abs(features.mean(axis=0)).max() < 1e-5
        assert np.abs(features.std(axis=0) - 1).max() < 1e-5


def test_an_epoch(tmp_path):
    """The losses are the plain twin's, and of 113 answers two at most are other ones."""
    command = [sys.executable, "-m", "examples.hospitals", "--epochs", "1", "--out", tmp_path]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    record = records.read(tmp_path)
    twin = record["plain_twin"]
    assert [step["items"] for step in record["steps"]] == [32, 32, 32, 32, 24] * 3
    losses = [step["loss"] for step in record["steps"]]
    assert losses == pytest.approx(twin["losses"], abs=0.005)
    (test,), (correct,) = record["tests"], twin["correct"]
    assert test["items"] == sum(N_TEST) and abs(test["correct"] - correct) <= 2
    assert correct >= 107
    assert f"The twin in the clear: {correct}/113" in result.stdout
    ours = int(test["correct"])
    assert re.search(rf"epoch 1 +{ours} +{correct}\n", result.stdout)
    step = record["counters"]["training step"]
    assert len(step["sent"]["opening"]) == 3
    assert step["rounds"] <= 30 and step["opened"] <= 110_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", 0], "--epochs: invalid positive int value: '0'"),
        (["--lr", "nan"], "--lr: invalid positive float value: 'nan'"),
        (["--seed", -1], "--seed -1: use 0 to 2^63 - 1"),
        (["--precision-fractional", 8], "products overflow the ring"),
        (["--plan", "plan.json"], "--plan: say with --parties FILE who takes part"),
        (["--data", "nowhere.csv"], "nowhere.csv: No such file or directory"),
        (["--data", FOLDER], f"{FOLDER}: not a file, but a folder"),
        (["--data", FOLDER / "README.md"], "its first line is to have the number of rows"),
    ],
)
def test_what_is_refused(refused, arguments, message):
    assert message in refused(*arguments)


def test_another_table_is_refused(refused, tmp_path):
    for first, row in (("5,2,no,yes", "1,2,0"), ("5,30,a,b,c", ",".join(["1"] * 30 + ["0"]))):
        (tmp_path / "rows.csv").write_text("\n".join([first, *[row] * 5]))
        assert "use 30 columns and 2 classes" in refused("--data", tmp_path / "rows.csv")


def test_a_damaged_file_is_refused(refused, tmp_path):
    whole = DATA.read_text()
    path = tmp_path / "rows.csv"
    for content, message in (
        (whole[: len(whole) // 2].rpartition("\n")[0], "its first line says 569 rows, and it has"),
        (whole.replace("17.99,", "x17.99,", 1), "row 1, column 1: 'x17.99' is no number"),
        (whole.replace("17.99,", "", 1), "row 1 has 30 numbers, not 30 and the class"),
    ):
        path.write_text(content)
        line = refused("--data", path)
        assert f"error: {path}: " in line and message in line
