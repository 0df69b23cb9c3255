"""Bad input: one clear line on stderr, exit status 2, no traceback, nothing half-written."""

import importlib
import os
import pathlib
import shutil

import pytest

from smpc import arguments, mnist

PACKED = pathlib.Path("data/MNIST/raw")


@pytest.fixture(scope="module")
def script(parties):
    return importlib.import_module("train_encrypted")


@pytest.fixture
def run(script, monkeypatch, fails):
    """run(*arguments) -> the line on stderr of a run that ends with status 2."""

    def run(*values):
        monkeypatch.setattr("sys.argv", ["train_encrypted.py", *map(str, values)])
        return fails("train_encrypted.py", script.main)

    return run


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(
            ([option, value], f"{option}: invalid positive")
            for option in (
                *("--epochs", "--n-train-items", "--n-test-items", "--batch-size", "--lr"),
                *("--test-batch-size", "--log-interval"),
            )
            for value in ("0", "-1", "many", "nan")
        ),
        (["--lr", "inf"], "--lr: invalid positive"),
        *((["--private", value], "--private: invalid positive") for value in ("0", "-1", "nan")),
        *((["--private", 2, f"--{n}", 0], f"--{n}: invalid positive") for n in ("delta", "clip")),
        (["--private", 101], "--private: epsilon must be above 0 and at most 100, not 101"),
        (["--private", 2, "--delta", 1], "--private: delta must be from 1e-15 to below 1, not 1"),
        (["--private", 2, "--delta", 1e-16], "--private: delta must be from 1e-15 to below 1"),
        (["--private", 2, "--momentum", 1], "--momentum 1: use 0 to below 1"),
        (["--private", 2, "--momentum", -0.1], "--momentum -0.1: use 0 to below 1"),
        (["--private", 2, "--protocol", "snn"], "--private: --protocol snn has none, use semi2k"),
        (["--private", 2, "--clip", 0.01], "--clip 0.01 is taken up by rounding: use 0.02 or more"),
        (["--momentum", 0.9], "--momentum: is of a private training, say with --private EPSILON"),
        (["--clip", 2], "--clip: is of a private training"),
        (["--delta", 1e-6], "--delta: is of a private training"),
        (["--n-train-items", 60001], "MNIST has 60000"),
        (["--n-test-items", 10001], "MNIST has 10000"),
        (["--batch-size", 641], "a train batch of 641 is larger than the 640 train items"),
        (["--test-batch-size", 641], "a test batch of 641 is larger than the 640 test items"),
        (["--lr", 0.0001], "--lr 0.0001 is 0 in fixed precision with 3 decimal digits"),
        (["--lr", 1e30], "products overflow the ring"),
        (["--precision-fractional", 1], "rounds the weights to 0: use 2 or more"),
        (["--precision-fractional", -1], "rounds the weights to 0: use 2 or more"),
        (["--precision-fractional", 8], "products overflow the ring with semi2k, use 7 or less"),
        (["--precision-fractional", 99], "products overflow the ring with semi2k"),
        (["--precision-fractional", 6, "--protocol", "snn"], "with snn, use 5 or less"),
        (["--lr", 0.02, 0.0001], "--lr 0.0001 is 0 in fixed precision with 3 decimal digits"),
        (["--lr", 0.02, 0.01, "--epochs", 1], "--lr: 2 rates for 1 epochs"),
        (["--n-workers", 1], "--n-workers 1: semi2k is between 2 to 5 workers"),
        (["--n-workers", 6], "--n-workers 6: semi2k is between 2 to 5 workers"),
        (["--n-workers", "two"], "--n-workers: invalid int value"),
        (["--n-workers", 3, "--protocol", "snn"], "--n-workers 3: snn is between 2 workers"),
        (["--exact-truncation", "--protocol", "snn"], "--protocol snn has none, use semi2k"),
        (["--seed", -1], "--seed -1: use 0 to 2^63 - 1"),
        (["--resume"], "--resume: say with --checkpoint DIR what to go on from"),
        (["--checkpoint", "data", "--protocol", "snn"], "--protocol snn has none, use semi2k"),
        (["--checkpoint", "data", "--resume"], "data holds no checkpoint: leave out --resume"),
        (["--save-model", "data"], "--save-model data: a folder; name a file in it"),
        *(
            ([option, value], f"{option}: {message}")
            for option in ("--out", "--checkpoint", "--save-model", "--transcript", "--data-dir")
            for value, message in (
                ("", "an empty path"),
                ("two\nlines", "a path with control characters: 'two\\nlines'"),
                ("nothing\0more", "a path with control characters: 'nothing\\x00more'"),
                ("caf\udce9", "not UTF-8: 'caf\\udce9'"),
            )
        ),
        *(
            ([option, "long" * 63], "File name too long")  # for a temporary one, at least
            for option in ("--save-model", "--transcript")
        ),
        *(
            ([option, "long" * 2000], "File name too long")
            for option in ("--checkpoint", "--save-model", "--transcript", "--data-dir")
        ),
        (["two\nlines"], "unrecognized arguments: two\\nlines"),
        (["--protocol", "bgw"], "--protocol: invalid choice: 'bgw'"),
        (["--activation", "gelu"], "--activation: invalid choice: 'gelu'"),
        (
            ["--transcript", "run", "--n-test-items", 4096],
            "4096 items is too long to record, use 2048",
        ),
        (["--data-dir", "nowhere"], "train-images-idx3-ubyte.gz is missing"),
        (["--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_arguments(run, tmp_path, values, message):
    out = tmp_path / "results"
    assert message in run("--out", out, *values)
    assert not out.exists()


def test_the_least_learning_rate_is_accepted(script):
    assert script.parse_arguments(["--lr", "0.001"]).lr == [0.001]


@pytest.fixture
def copied(tmp_path):
    """A copy of the packed data, to damage."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in mnist.SHA256:
        shutil.copy(PACKED / f"{name}.gz", raw)
    return raw


def truncate(file):
    file.write_bytes(file.read_bytes()[:-1000])


def not_gzip(file):
    file.write_bytes(b"<html>404</html>")


def another_file(file):
    shutil.copy(file.with_name("t10k-labels-idx1-ubyte.gz"), file)


@pytest.mark.parametrize("damage", [truncate, not_gzip, another_file])
def test_damaged_data(run, copied, tmp_path, damage):
    file = copied / "t10k-images-idx3-ubyte.gz"
    damage(file)
    error = run("--data-dir", tmp_path / "data", "--out", tmp_path / "results")
    assert f"{file} is damaged" in error
    assert not (copied / "t10k-images-idx3-ubyte").exists()
    assert not (tmp_path / "results").exists()


def test_damaged_unpacked_data(run, copied, tmp_path):
    file = copied / "t10k-labels-idx1-ubyte"
    file.write_bytes(b"mine")
    error = run("--data-dir", tmp_path / "data", "--out", tmp_path / "results")
    assert f"{file} is damaged (wrong SHA-256): delete it" in error
    assert file.read_bytes() == b"mine", "what may be the user's is not overwritten"


def test_unpacked_data_needs_no_packed_file(copied, tmp_path):
    mnist.prepare(tmp_path / "data")
    for name in mnist.SHA256:
        (copied / f"{name}.gz").unlink()
    mnist.prepare(tmp_path / "data")


def test_out_not_writable(run, tmp_path):
    (tmp_path / "file").write_text("")
    assert "--out" in run("--out", tmp_path / "file")
    assert "Not a directory" in run("--out", tmp_path / "file" / "below")
    assert "File name too long" in run("--out", "long" * 2000)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_read_only(run, tmp_path):
    tmp_path.chmod(0o500)
    assert "Permission denied" in run("--out", tmp_path / "below")


def test_fss_without_its_hash(monkeypatch, run, tmp_path):
    monkeypatch.setattr(arguments.compat, "fss_is_available", lambda: False)
    assert "shaloop" in run("--protocol", "fss", "--out", tmp_path)
