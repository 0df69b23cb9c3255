"""Whatever ends a run, what it has is saved, and a line says so; nothing else is written over."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from smpc import files, outputs, process
from smpc.files import FileError
from smpc.semi2k import storage
from tests import programs, records

TINY = "--epochs 1 --n-train-items 64 --n-test-items 64".split()
LONG = "--epochs 999 --n-train-items 64 --n-test-items 64 --checkpoint-every 1".split()


def command(*arguments, script="train_encrypted.py"):
    return [sys.executable, script, *map(str, arguments)]


def run(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, text=True, **options)


@contextlib.contextmanager
def begun(*arguments, **options):
    """A run of the script that has printed its first line."""
    with subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        assert process.stdout.readline().startswith("Train Epoch: 1 ")
        yield process


def assert_saved(out, checkpoint):
    """The results so far are in run.json, and no step of them is missing in the checkpoint."""
    record = records.read(out)
    assert record["interrupted"]
    progress = storage.read(checkpoint / "progress")
    assert len(record["steps"]) == progress["step"] >= 1
    assert progress["steps"] == record["steps"]
    for worker in ("worker1", "worker2"):
        fields = storage.read(checkpoint / worker / f"{progress['step']}.shares")
        assert fields["about"] == {"run": progress["save"], "step": progress["step"]}


# ---- signals


@pytest.mark.parametrize("number", process.SIGNALS)
def test_signals_while_training(tmp_path, number):
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    with begun(*LONG, "--out", out, "--checkpoint", checkpoint) as ended:
        ended.send_signal(number)
        _, errors = ended.communicate()
    assert ended.returncode == 128 + number
    assert errors == f"interrupted: the results so far are in {out}/\n"
    assert_saved(out, checkpoint)


@pytest.mark.thorough
def test_a_signal_to_the_processes_that_syft_forks_as_well(tmp_path):
    """As timeout(1) and systemd send it: the script does not wait for those that are gone."""
    sizes = "--epochs 99 --n-train-items 4 --batch-size 2 --n-test-items 2 --test-batch-size 2"
    sizes += " --activation quadratic"  # comparisons take seconds
    arguments = [*sizes.split(), "--protocol", "snn", "--out", tmp_path]
    with begun(*arguments, start_new_session=True) as ended:
        os.killpg(ended.pid, signal.SIGTERM)
        _, errors = ended.communicate()
    assert ended.returncode == 128 + signal.SIGTERM
    assert errors == f"interrupted: the results so far are in {tmp_path}/\n"
    assert records.read(tmp_path)["interrupted"]


@pytest.mark.parametrize("number", process.SIGNALS)
@pytest.mark.parametrize("program", ["train_encrypted.py", "predict_encrypted.py", "smpc.audit"])
def test_signals_while_importing(tmp_path, program, number):
    """A torch that sends the signal when it is imported."""
    (tmp_path / "torch").mkdir()
    text = f"import os, time\nos.kill(os.getpid(), {int(number)})\nraise SystemExit('not heeded')"
    (tmp_path / "torch" / "__init__.py").write_text(text)
    script = [sys.executable, *(["-m"] if program == "smpc.audit" else []), program, "m.pt"]
    ended = subprocess.run(
        script,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}"},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    assert ended.returncode == 128 + number
    assert (ended.stdout, ended.stderr) == ("", "interrupted before anything was done\n")


@pytest.mark.parametrize("number", process.SIGNALS)
def test_signals_between_importing_and_training(capsys, number):
    before = signal.signal(number, signal.SIG_DFL)

    @process.in_order("program")
    def main():
        os.kill(os.getpid(), number)
        pytest.fail("not heeded")

    try:
        with pytest.raises(SystemExit) as ended:
            main()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert ended.value.code == 128 + number
    assert capsys.readouterr() == ("", "interrupted: no results yet\n")


def test_forked_children_leave_signals_to_their_parent():
    """Whoever has set the handlers: a pool of syft's ends its processes by SIGTERM."""
    ask = f"[signal.getsignal(n) for n in {[int(number) for number in process.SIGNALS]}]"
    forked = f"""
import os, signal
from smpc import process
process.on_signals(lambda *_: None)
if not (child := os.fork()):
    os._exit({ask} != [signal.SIG_IGN, signal.SIG_DFL, signal.SIG_IGN])
assert os.waitpid(child, 0)[1] == 0
"""
    assert process.SIGNALS == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    subprocess.run([sys.executable, "-c", forked], check=True)


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    @process.in_order("program")
    def main():
        os.kill(os.getpid(), signal.SIGHUP)
        return "done"

    try:
        assert main() == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_two_runs_in_one_folder(tmp_path):
    """The second is refused; the first goes on, and its checkpoint is whole."""
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    arguments = [*LONG, "--out", out, "--checkpoint", checkpoint]
    with begun(*arguments) as first:
        second = run(*arguments, "--resume")
        first.send_signal(signal.SIGINT)
        first.communicate()
    assert second.returncode == 2
    assert second.stderr == f"train_encrypted.py: error: {checkpoint} is in use by another run\n"
    assert first.returncode == 130
    assert_saved(out, checkpoint)


# ---- standard streams


def stdout_error(errno):
    return f"train_encrypted.py: error: stdout: {os.strerror(errno)}"


def test_a_full_stdout(tmp_path):
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    with open("/dev/full", "w") as full:  # noqa: PTH123
        ended = subprocess.run(
            command(*LONG, "--out", out, "--checkpoint", checkpoint),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert ended.returncode == 2
    assert ended.stderr == f"{stdout_error(28)}: the results so far are in {out}/\n"
    assert_saved(out, checkpoint)


def test_a_reader_that_is_gone(tmp_path):
    """`| head -1`"""
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    with begun(*LONG, "--out", out, "--checkpoint", checkpoint) as ended:
        ended.stdout.close()
        errors = ended.stderr.read()
    assert ended.returncode == 2
    assert errors == f"{stdout_error(32)}: the results so far are in {out}/\n"
    assert_saved(out, checkpoint)


def test_a_reader_that_is_gone_at_the_end(tmp_path):
    """All results are there, and are said to be."""
    with begun(*TINY, "--out", tmp_path) as ended:
        for _ in range(3):
            ended.stdout.readline()
        ended.stdout.close()
        errors = ended.stderr.read()
    assert ended.returncode == 2
    assert errors == f"{stdout_error(32)}: the results so far are in {tmp_path}/\n"
    assert len(records.read(tmp_path)["tests"]) == 1


def test_closed_streams(tmp_path):
    """A closed stdout is found at once; without stderr a run is as ever, and no file takes its
    place."""
    ended = run(*TINY, "--out", tmp_path / "1", preexec_fn=lambda: os.close(1))
    assert ended.returncode == 2
    assert ended.stderr == "train_encrypted.py: error: stdout is closed\n"
    assert not (tmp_path / "1").exists()
    arguments = ["--out", tmp_path / "2", "--checkpoint", tmp_path / "c"]
    closed = "import os, sys\nos.close(2)\nsys.stderr = None"  # as Python finds it at its start
    (tmp_path / "sitecustomize.py").write_text(closed)
    ended = run(*TINY, *arguments, env=os.environ | {"PYTHONPATH": f"{tmp_path}"})
    assert ended.returncode == 0
    assert "Train Epoch: 1" in ended.stdout
    assert len(records.read(tmp_path / "2")["tests"]) == 1
    ended = run("--colour", preexec_fn=lambda: os.closerange(0, 3))
    assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", "")


@pytest.mark.parametrize(
    ("program", "number"), [("train_encrypted.py", 2), ("predict_encrypted.py", 2)]
)
def test_full_streams(program, number):
    """Of --help, and of an error."""
    with open("/dev/full", "w") as full:  # noqa: PTH123
        script = command("--help", script=program)
        ended = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, text=True)
        assert ended.returncode == number
        assert ended.stderr == f"{program}: error: stdout: {os.strerror(28)}\n"
        script = command("--colour", script=program)
        assert subprocess.run(script, stdout=full, stderr=full).returncode == number


def test_what_could_not_be_printed_is_not_forgotten():
    """Since the first failure nothing is printed any more: each line that is not says so."""
    lines = (
        "from smpc import process",
        "for _ in range(2):",
        "    try:",
        "        with process.to_stdout():",
        "            print('a digit')",
        "    except process.FileError as error:",
        "        process.tell(error)",
    )
    with open("/dev/full", "w") as full:  # noqa: PTH123
        script = [sys.executable, "-c", "\n".join(lines)]
        ended = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr == f"stdout: {os.strerror(28)}\n" * 2


# ---- what is written


@pytest.fixture
def check(tmp_path):
    """check(**arguments) -> what `outputs.check` says of them; nothing at all is changed by it."""
    always = {"save_model": None, "transcript": None, "checkpoint": None, "n_workers": 2}
    always |= {"out": tmp_path / "out", "data_dir": tmp_path / "data"}
    hosts = tmp_path / "hosts"
    always |= {"parties": hosts / "parties.toml", "plan": hosts / "plan.json", "home": hosts / "me"}

    def state():
        return {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}

    def check(**arguments):
        before = state()
        with pytest.raises(FileError) as failed:
            outputs.check(SimpleNamespace(**always | arguments))
        assert state().items() >= {k: v for k, v in before.items() if k.is_file()}.items()
        return str(failed.value)

    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-labels-idx1-ubyte").write_text("data")
    for name in ("out", "c", "folder", "hosts", "hosts/me"):
        (tmp_path / name).mkdir()
    (tmp_path / "hosts" / "me" / "key.pem").write_text("a key")
    (tmp_path / "way").symlink_to(tmp_path / "out")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "target").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "out" / "run.json").write_text("{}")
    (tmp_path / "hard").hardlink_to(tmp_path / "out" / "run.json")
    (tmp_path / "data_too").hardlink_to(raw / "t10k-labels-idx1-ubyte")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "accuracy.png").symlink_to("/dev/null")
    return check


@pytest.mark.parametrize(
    ("path", "message"),
    [
        *((f"/dev/{name}", "a device or a FIFO; name a file") for name in ("null", "full", "zero")),
        ("fifo", "a device or a FIFO; name a file"),
        ("link", "a link; name a file itself"),
        ("dangling", "a link; name a file itself"),
        ("folder", "a folder; name a file in it"),
        ("out", "a folder; name a file in it"),
        ("target/below", "Not a directory"),
        ("out/run.json", "is in the place of --out "),
        ("way/run.json", "is in the place of --out "),
        ("out/../way/accuracy.png", "is in the place of --out "),
        ("hard", "is in the place of --out "),
        ("out/run.json/below", "Not a directory"),
        ("c/progress", "is in the place of the checkpoint's "),
        ("c/lock", "is in the place of the checkpoint's "),
        ("c/worker1", "is in the place of the checkpoint's "),
        ("c/worker2/3.shares", "is in the place of the checkpoint's "),
        ("data/MNIST/raw/t10k-labels-idx1-ubyte", "is in the place of the data "),
        ("data/MNIST/raw/train-labels-idx1-ubyte.gz", "is in the place of the data "),
        ("data_too", "is in the place of the data "),
        ("hosts/parties.toml", "is in the place of the parties' file "),
        ("hosts/plan.json", "is in the place of the plan "),
        ("hosts/me/key.pem", "is in the place of the server's "),
    ],
)
@pytest.mark.parametrize("option", ["save_model", "transcript"])
def test_what_is_never_written_over(check, tmp_path, option, path, message):
    line = check(checkpoint=tmp_path / "c", **{option: tmp_path / path})
    assert line.startswith(f"--{option.replace('_', '-')} {tmp_path / path}: ")
    assert message in line


@pytest.mark.parametrize(
    ("save_model", "transcript"),
    [("x", "x"), ("x.npz", "x"), ("way/x", "out/x"), ("new/x", "new/y/../x"), ("new", "new/x")],
)
def test_two_outputs_are_two_files(check, tmp_path, save_model, transcript):
    line = check(save_model=tmp_path / save_model, transcript=tmp_path / transcript)
    assert "is in the place of --transcript" in line


def test_folders_of_results_that_cannot_be_used(check, tmp_path):
    assert "linked/accuracy.png: a link" in check(out=tmp_path / "linked")
    assert "of the checkpoint's" in check(out=tmp_path / "c/worker1", checkpoint=tmp_path / "c")
    assert "Not a directory" in check(out=tmp_path / "target")


def test_outputs_that_can_be_written(tmp_path):
    """An earlier run's are replaced; everything may be in one folder."""
    arguments = {"data_dir": tmp_path, "out": tmp_path, "checkpoint": tmp_path, "n_workers": 2}
    arguments |= {"parties": None}
    arguments |= {"save_model": tmp_path / "m.pt", "transcript": tmp_path / "run.jsonl"}
    for name in ("m.pt", "run.jsonl", "run.jsonl.npz", "run.json", "accuracy.png"):
        (tmp_path / name).write_text("old")
    assert outputs.check(SimpleNamespace(**arguments)) == tmp_path
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


def test_what_appears_while_a_run_goes_on_is_not_replaced(tmp_path):
    """A link, at the moment at which the file is put in its place."""
    path = tmp_path / "m.pt"
    with pytest.raises(OSError, match="a link; name a file itself"), files.whole(path) as file:
        file.write(b"weights")
        path.symlink_to("target")
    assert path.is_symlink()
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt"]


def test_outputs_that_cannot_be_written_at_the_end(tmp_path):
    """Their folder is gone by then: the results are saved, and the weights are in the checkpoint,
    from which the same command saves them elsewhere."""
    gone, out, checkpoint = (tmp_path / name for name in ("gone", "out", "checkpoint"))
    arguments = [*TINY, "--out", out, "--checkpoint", checkpoint]
    where = ["--save-model", gone / "m.pt", "--transcript", gone / "run.jsonl"]
    with begun(*arguments, *where) as ended:
        shutil.rmtree(gone)
        _, errors = ended.communicate()
    assert ended.returncode == 2
    assert errors == (
        f"train_encrypted.py: error: --save-model {gone}/m.pt: No such file or directory; "
        f"--transcript {gone}/run.jsonl: No such file or directory; what could be saved of the "
        f"results is in {out}/, and the weights stay in {checkpoint}/: save them with --resume\n"
    )
    record = records.read(out)
    assert (len(record["steps"]), len(record["tests"])) == (1, 1)
    ended = run(*arguments, "--resume", "--save-model", tmp_path / "m.pt")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert torch.load(tmp_path / "m.pt", weights_only=True)["fc1.weight"].shape == (128, 784)


def test_every_output_is_tried(tmp_path):
    """One that fails takes none of the others along."""
    saved = []

    def fails():
        raise FileError("--out full: No space left on device")

    args = SimpleNamespace(out="full", checkpoint=None)
    with pytest.raises(FileError, match="No space left on device; what could be saved"):
        outputs.save(args, fails, lambda: saved.append(1), lambda: saved.append(2))
    assert saved == [1, 2]


def test_a_full_disk_is_found_before_training(tmp_path):
    ended = run(*TINY, "--out", tmp_path / "out", preexec_fn=programs.Limit(1000))
    assert (ended.returncode, ended.stdout) == (2, "")
    line = f"train_encrypted.py: error: --out {tmp_path}/out/accuracy.png: File too large\n"
    assert ended.stderr == line
    assert not list((tmp_path / "out").iterdir())


def test_a_checkpoint_that_fills_the_disk(tmp_path):
    """The steps before it are saved."""
    out, checkpoint = tmp_path / "out", tmp_path / "checkpoint"
    arguments = [*LONG, "--out", out, "--checkpoint", checkpoint]
    ended = run(*arguments, preexec_fn=programs.Limit(100_000))
    assert ended.returncode == 2
    assert ended.stderr == (
        f"train_encrypted.py: error: --checkpoint {checkpoint}: File too large: "
        f"the results so far are in {out}/\n"
    )
    assert records.read(out)["steps"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk, which root alone may")
def test_a_disk_that_is_full_and_one_that_is_read_only(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", small]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        (small / "filling").write_bytes(bytes(80 << 10))  # what is left is less than the weights
        with begun(*TINY, "--out", tmp_path, "--save-model", small / "m.pt") as ended:
            _, errors = ended.communicate()
        assert ended.returncode == 2
        assert f"--save-model {small}/m.pt: No space left on device" in errors
        assert errors.count("\n") == 1
        assert [file.name for file in small.iterdir()] == ["filling"]
        assert len(records.read(tmp_path)["tests"]) == 1
        (small / "filling").write_bytes(bytes(250 << 10))
        ended = run(*TINY, "--out", small / "out")
        line = (
            f"train_encrypted.py: error: --out {small}/out/accuracy.png: No space left on device\n"
        )
        assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)
        subprocess.run(["mount", "-o", "remount,ro", small], check=True)
        ended = run(*TINY, "--out", small / "new")
        line = f"train_encrypted.py: error: --out {small}/new/accuracy.png: Read-only file system\n"
        assert (ended.returncode, ended.stdout, ended.stderr) == (2, "", line)
    finally:
        subprocess.run(["umount", small], check=True)
