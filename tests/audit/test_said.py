"""What a training prints and leaves behind: nothing is found in it, and whatever is added is."""

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import train_encrypted as script
from smpc import report
from smpc.audit import said
from smpc.semi2k import storage

DRAWN = {}
SIZES = "--n-train-items 8 --batch-size 4 --n-test-items 8 --test-batch-size 8 --epochs 2".split()


class Said:
    """A run of the script.

    Attributes:
        folder: of its results; `checkpoint`, `model`, `transcript`: in it, all asked for.
        arguments: a dict; `stdout`, `stderr`: strings.
    """

    def __init__(self, folder, more):
        self.folder = folder / "results"
        self.checkpoint, self.model, self.transcript = (
            self.folder / name for name in ("kept", "model.pt", "run.jsonl")
        )
        options = ["--checkpoint", self.checkpoint, "--save-model", self.model, "--plain-twin"]
        options += ["--transcript", self.transcript, "--out", self.folder, *SIZES, *more]
        options = [*map(str, options)]
        command = [sys.executable, "train_encrypted.py", *options]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        self.arguments = vars(script.parse_arguments(options))
        self.stdout, self.stderr = run.stdout, run.stderr
        self.backup = shutil.copytree(self.folder, folder / "backup")

    def restore(self):
        """Everything is as the script has left it."""
        shutil.rmtree(self.folder)
        shutil.copytree(self.backup, self.folder)

    def found(self, **changed):
        """What is found, with these attributes in the place of its own."""
        said_ = {name: getattr(self, name) for name in ("stdout", "stderr", "folder", "arguments")}
        return said.found_in(**said_ | changed)

    def found_in_record(self, change):
        """What is found once `change` was called with what run.json holds."""
        path = self.folder / "run.json"
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record, indent=1, ensure_ascii=False))
        return self.found()


@pytest.fixture(autouse=True)
def each_picture_is_drawn_once(monkeypatch):
    """Of what a record says; drawing it anew takes most of the time."""

    def figure(run):
        about = json.dumps([run.tests, run.twin])
        return DRAWN[about] if about in DRAWN else DRAWN.setdefault(about, drawn(run))

    drawn = report.Run._figure
    monkeypatch.setattr(report.Run, "_figure", figure)


@pytest.fixture(scope="module")
def run_once(parties, tmp_path_factory):
    """A `Said`, with every option that has something written, and two digits more than usual."""
    return Said(tmp_path_factory.mktemp("said"), ["--precision-fractional", "5"])


@pytest.fixture
def run(run_once):
    """The same, whole."""
    yield run_once
    run_once.restore()


# ---- What is not broken --------------------------------------------------------------------------


def test_nothing_is_found(run):
    assert run.found() == []


def test_nothing_is_found_with_other_options(parties, tmp_path):
    options = ["--log-interval", "2", "--n-workers", "3", "--exact-truncation", "--epochs", "1"]
    command = [*SIZES, *options, "--out", str(tmp_path / "results")]
    run = subprocess.run(
        [sys.executable, "train_encrypted.py", *command], capture_output=True, text=True, check=True
    )
    arguments = vars(script.parse_arguments(command))
    assert said.found_in(run.stdout, run.stderr, tmp_path / "results", arguments) == []


def test_a_run_that_was_resumed_prints_its_last_part(run):
    lines = run.stdout.split("\n")
    first = next(n for n, line in enumerate(lines) if line.startswith("Train Epoch: 2"))
    arguments = run.arguments | {"resume": True}
    assert run.found_in_record(lambda record: record["arguments"].update(resume=True)) != []
    assert run.found(stdout="\n".join(lines[first:]), arguments=arguments) == []
    for where, number in ((first, 1), (first + 2, 3), (len(lines) - 1, len(lines) - first)):
        more = [*lines[first:where], "1.5", *lines[where:]]
        (found,) = run.found(stdout="\n".join(more), arguments=arguments)
        assert found == f"stdout, line {number}: '1.5' has no place there"


def test_a_progress_bar_is_no_secret(run):
    bar = "\r 50%|█████     | 16/32 [00:01<00:01, 12.34 items/s]"
    assert run.found(stderr=f"{bar}\r          \r{bar}\n") == []
    assert run.found(stderr=bar.replace("16/32", "16/32 7")) != []


# ---- What is printed -----------------------------------------------------------------------------


@pytest.mark.parametrize("where", [0, 1, 5, 12, 20, -2])
def test_another_line(run, where):
    lines = run.stdout.split("\n")
    lines.insert(where, "12345678901234567890")
    (found,) = run.found(stdout="\n".join(lines))
    number = where + 1 if where >= 0 else len(lines) + where
    assert found == f"stdout, line {number}: '12345678901234567890' has no place there"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("Loss: 1.", "Loss: 2."),
        ("Time: 0.", "Time: 0.1234567"),
        ("Time: 0.", "Time: 0.0, 0."),
        ("Train Epoch: 2", "Train Epoch: 3"),
        ("Accuracy: ", "Accuracy: 1"),
        ("-> worker1:", "-> worker1:1234567890123"),
        ("me:", "me:x"),
        ("rounds   ", "rounds  1"),
        ("made anew ", "made anew 1"),
        ("Memory after the first epoch ", "Memory after the first epoch 1"),
        ("written: ", "written:  "),
        ("\n", "\n\n"),
    ],
)
def test_a_line_with_something_else_in_it(run, old, new):
    assert old in run.stdout
    (found,) = run.found(stdout=run.stdout.replace(old, new, 1))
    assert found.startswith("stdout, line ")


@pytest.mark.parametrize("number", [0, 1, 3, 10, 17, -3])
def test_a_line_that_is_missing(run, number):
    lines = run.stdout.split("\n")
    del lines[number]
    (found,) = run.found(stdout="\n".join(lines))
    assert found.startswith("stdout, line ")


def test_something_on_stderr(run):
    assert run.found(stderr="warning: 17\n") == ["stderr: 'warning: 17' has no place there"]


# ---- What is written -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["more", ".hidden", "kept/more", "kept/worker1/more", "kept/worker3/2.shares", "a/folder/x"],
)
def test_another_file(run, name):
    file = run.folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    assert f"{file} is there, and nobody asked for it" in run.found()


@pytest.mark.parametrize("option", ["save_model", "transcript", "checkpoint"])
def test_a_file_that_nobody_asked_for(run, option):
    found = run.found(arguments=run.arguments | {option: None})
    path = run.arguments[option]
    assert found
    assert all(line.startswith(path) and line.endswith("nobody asked for it") for line in found)


@pytest.mark.parametrize("name", [*report.FILES, "model.pt", "kept/progress", "run.jsonl.npz"])
def test_a_file_that_is_missing(run, name):
    (run.folder / name).unlink()
    assert run.found() == [f"{run.folder / name} is not there"]


def add(*keys):
    """Another key in a dict of the record."""

    def change(record):
        for key in keys:
            record = record[key]
        record["more"] = 1

    return change


def put(value, *keys):
    """Another value in the record: `value` of the old one."""

    def change(record):
        for key in keys[:-1]:
            record = record[key]
        record[keys[-1]] = value(record[keys[-1]])

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(add(), add("steps", 0), add("tests", 1), add("versions"), add("arguments"), add("runs")),
        *(add("counters"), add("counters", "test pass"), add("plain_twin")),
        add("counters", "training step", "sent", "opening"),
        put(lambda x: x + 1.2345e-7, "steps", 0, "loss"),
        put(lambda x: x + 2**-23, "steps", 1, "seconds"),
        put(lambda x: x + 0.5, "tests", 0, "correct"),
        put(lambda x: x + 2**-64, "runs", "told"),
        put(lambda x: -1, "runs", "anew"),
        put(lambda x: 2**50, "tests", 0, "memory"),
        put(lambda x: str(x), "tests", 0, "memory"),
        put(lambda x: True, "tests", 0, "items"),
        put(lambda x: x + 1e-12, "plain_steps", 0),
        put(lambda x: x + 1e-12, "plain_twin", "losses", 0),
        put(lambda x: f"{x}-{2**70}", "versions", "torch"),
        put(lambda x: True, "interrupted"),
        put(lambda x: [*x, x[-1]], "steps"),
        put(lambda x: [*x, x[-1]], "tests"),
        put(lambda x: [*x, x[-1]], "plain_steps"),
        put(lambda x: x[::-1], "steps"),
        put(lambda x: dict(reversed(x.items())), "steps", 0),
        put(lambda x: dict(reversed(x.items())), "counters", "test pass"),
        put(lambda x: x + 1, "tests", 1, "memory"),
        put(lambda x: x[:-1], "tests"),
        put(lambda x: None, "steps", 0, "loss"),
        put(lambda x: 7, "steps", 0, "items"),
        put(lambda x: 7, "arguments", "seed"),
    ],
)
def test_another_thing_in_the_record(run, change):
    found = run.found_in_record(change)
    assert found
    assert all(line.startswith("run.json") for line in found)


def test_what_does_not_change_the_record(run):
    """The numbers are in the file as json writes them, and nothing is between them."""
    path = run.folder / "run.json"
    text = path.read_text()
    for changed in (f"{text}\n", text.replace(": ", ":  ", 1), text.replace("0.02", "0.0200", 1)):
        path.write_text(changed)
        (found,) = run.found()
        assert found.startswith("run.json has something in it that does not follow")


def test_another_thing_in_the_picture(run):
    path = run.folder / "accuracy.png"
    png = path.read_bytes()
    for changed in (png + b"more", png[:-20] + b"x" + png[-19:]):
        path.write_bytes(changed)
        (found,) = run.found()
        assert found.startswith("accuracy.png has something in it that does not follow")


def test_another_thing_in_the_model(run):
    """Another file in torch's archive, or something before it."""
    path = run.folder / "archive"
    path.write_bytes(run.model.read_bytes()[:-66] + b"\0\0")
    with zipfile.ZipFile(path, "a") as file:
        folder, _ = file.namelist()[0].split("/", 1)
        file.writestr(f"{folder}/more", bytes(1 << 14))
    body = path.read_bytes()[:-2] + (64).to_bytes(2, "little")
    path.unlink()
    run.model.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
    (found,) = run.found()
    assert found.startswith(f"{run.model} has ")
    run.model.write_bytes(b"more" + body + hashlib.sha256(b"more" + body).hexdigest().encode())
    assert run.found()


@pytest.mark.parametrize("field", ["more", "arguments", "steps", "save", "position"])
def test_another_thing_in_the_progress(run, field):
    path = run.checkpoint / "progress"
    fields = storage.read(path)
    fields[field] = [1] if field in ("steps", "position") else f"{'0' * 31}g"
    storage.write(path, fields)
    assert run.found()[0].startswith(f"{path}")


def test_the_progress_in_another_order(run):
    path = run.checkpoint / "progress"
    fields = storage.read(path)
    fields["steps"] = [dict(reversed(step.items())) for step in fields["steps"]]
    storage.write(path, fields)
    assert run.found() == [f"{path} has something else in it than the record"]


@pytest.mark.parametrize("name", ["progress", "worker1/2.shares"])
def test_what_is_damaged(run, name):
    path = run.checkpoint / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    (found,) = run.found()
    assert f"{path} is damaged" in found


def test_something_in_the_lock(run):
    (run.checkpoint / "lock").write_bytes(b"12")
    assert run.found() == [f"{run.checkpoint}/lock has 2 bytes"]


@pytest.mark.parametrize("number", [2, 4])
def test_another_thing_among_the_shares(run, number):
    """Of the last save, and of the one before it."""
    path = run.checkpoint / "worker1" / f"{number}.shares"
    fields = storage.read(path)
    for change in (
        {"more": 1},
        {"shares": fields["shares"] + bytes(8)},
        {"worker": "worker2"},
        {"about": {"run": "0" * 31, "step": number}},
    ):
        storage.write(path, fields | change)
        assert all(line.startswith(f"{path}: ") for line in run.found() or [""]), change


def test_a_third_save(run):
    folder = run.checkpoint / "worker2"
    shutil.copy(folder / "4.shares", folder / "1.shares")
    (found,) = run.found()
    assert found.startswith(f"{folder} has 1.shares, ")


# ---- The kinds of numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("digits", range(2, 8))
def test_what_is_revealed_has_so_many_digits(digits):
    """In float32, as torch has it."""
    rng = np.random.default_rng(digits)
    for magnitude in (0.01, 1, 100, 10**6):
        for number in (rng.random(100) * magnitude * 10**digits).astype(np.int64).tolist():
            x = float(np.float32(number) / np.float32(10**digits))
            assert said.revealed(x, digits), (number, digits)
    finer = float(np.float32(0.123456789))
    assert said.revealed(finer, digits) == (digits == 7 and said.revealed(finer, 7))
    assert not said.revealed(0.1 + 1e-12, digits)
    assert not said.revealed(1, digits)
