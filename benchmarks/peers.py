"""The same training by every system that one might pick instead, in one run, in one table.

    make bench-peers    # twelve minutes, and five gigabytes for the environments

The tutorial's network, items, batches, loss and step, from the same initial weights, one thread a
process. Other projects' systems run from `benchmarks/peers/train_*.py`, each in an environment of
its own below `.venv-peers/`, made from its lock in `benchmarks/peers/` with the Python it needs.
Every system is held to the plain losses of the first ten steps and to the plain count of correct
answers after them. One that cannot run here is a row that says why.
"""

import contextlib
import filecmp
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

import numpy

from benchmarks import training

SCRIPTS = training.REPOSITORY / "benchmarks" / "peers"
ENVIRONMENTS = training.REPOSITORY / ".venv-peers"
PYTHON = {"crypten": "3.9", "spu": "3.11", "tf_encrypted": "3.9"}  # that each environment needs

# By protocol, or by a peer's environment and argument: the first four columns of the table.
SYSTEMS = {
    "plain": ("plain PyTorch", "1", "–", "1 process"),
    "snn": ("syft 0.2.9 `snn`", "2 + 1", "orchestrator", "1 process (a)"),
    "fss": ("syft 0.2.9 `fss`", "2 + 1", "orchestrator", "1 process (a)"),
    "semi2k": ("**`semi2k`**", "2 + 1", "crypto provider", "1 process"),
    ("crypten", "TFP"): ("CrypTen 0.4.1, trusted first party", "2", "party 0", "2 processes"),
    ("crypten", "TTP"): ("CrypTen 0.4.1, trusted third party", "2 + 1", "dealer", "3 processes"),
    ("spu", "SEMI2K"): ("SPU 0.9.5 SEMI2K", "2", "party 0", "2 processes"),
    ("spu", "ABY3"): ("SPU 0.9.5 ABY3", "3", "nobody", "3 processes"),
    ("tf_encrypted", "processes"): ("TF Encrypted 0.9.1 ABY3", "3", "nobody", "4 processes (b)"),
    ("tf_encrypted", "one-process"): ("TF Encrypted 0.9.1 ABY3", "3", "nobody", "1 process"),
}
COLUMNS = (
    *("system", "parties", "who deals", "runs as", "s a step", "÷ `semi2k`", "s a test pass"),
    *("rounds", "bytes", "CPU s", "loss deviation", "correct of 640"),
)
NOTES = """
A step is one of 64 items, its loss revealed; a test pass is of 640 items, ten batches with the
argmax under encryption, and one number revealed. Rounds, bytes (all that are sent, dealing
included) and CPU seconds (all parties together) are of a step. Processes talk over loopback.
Deviation: of the first ten losses from the plain ones; above {loss:g} it is wrong. Correct: after
these ten steps, in the clear {correct}; further away than {tolerance} is wrong.

Rounds: semi2k's own count; CrypTen's calls of its communicator, SPU's sends, both of party 0. syft
counts none. TF Encrypted has none to count: its executor sends each tensor once it is there.
Bytes: each library's own count; TF Encrypted's is the kernel's, of its TCP connections, and in one
process nothing is sent.

Not all promise the same: CrypTen's masks come from torch's Mersenne Twister, and its divisions are
wrong by a wrap with a small probability; of `snn` and `fss` see the trust model in README.md.

(a) and a pool of processes that syft forks for each matrix product. (b) Three servers, and one that
directs them.
"""

LOSS_TOLERANCE = 0.02  # a loss is near 1; with three decimals, ten steps' roundings add up
CORRECT_TOLERANCE = 32  # of 640, for items on the border of two classes
SECONDS = 900  # that a peer may take
SETTINGS = training.ONE_THREAD | {
    "OMP_THREAD_LIMIT": "1",  # SPU's threads spin otherwise
    # The peers reuse freed memory, as semi2k does by itself.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 28),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "CUDA_VISIBLE_DEVICES": "",
}


class Unavailable(Exception):
    """A system cannot run here; the message says why, in one line."""


# ---- Environments --------------------------------------------------------------------------------


def candidates(version):
    """Paths at which a CPython `version`, as "3.9", may be: on PATH, below pyenv's root, uv's."""
    yield shutil.which(f"python{version}")
    pyenv = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    if uv := shutil.which("uv"):
        found = subprocess.run([uv, "python", "find", version], capture_output=True, text=True)
        yield found.stdout.strip()


def find_python(version):
    """The path of a CPython `version` that starts (pyenv's shims do not always)."""
    show = "import sys; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"
    for path in filter(None, candidates(version)):
        shown = subprocess.run([path, "-c", show], capture_output=True, text=True)
        if shown.stdout.split() == ["cpython", version]:
            return path
    raise Unavailable(f"needs Python {version}, which was not found")


def make_environment(name):
    """The Python of an environment with the exact lock installed, made if need be."""
    lock, folder = SCRIPTS / f"{name}.txt", ENVIRONMENTS / name
    installed, python = folder / lock.name, folder / "bin" / "python"
    if not (installed.exists() and filecmp.cmp(lock, installed, shallow=False)):
        venv = [find_python(PYTHON[name]), "-m", "venv", "--clear", folder]
        call(venv, "no environment was made")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += ["--no-deps", "-r", lock]  # the lock leaves out what a peer never imports
        call(pip, f"{lock.name} could not be installed")
        shutil.copy(lock, installed)
    return python


def call(command, failure):
    """What a command printed on stdout.

    Raises:
        Unavailable: with `failure` and the command's last word, if it failed or took `SECONDS`.
    """
    environment = os.environ | SETTINGS
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise Unavailable(f"{failure}: no end after {SECONDS} s") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # parties that are left
    if process.returncode:
        last = (errors.strip().splitlines() or [f"status {process.returncode}"])[-1]
        raise Unavailable(f"{failure}: {last}")
    return output


# ---- Runs ----------------------------------------------------------------------------------------


def run_protocol(protocol, task):
    """The figures of plain PyTorch or a protocol of syft; `semi2k` writes the task, for the others
    it must be theirs too."""
    if protocol == "plain":
        return training.plain(task)
    own = task.with_name(f"{protocol}.npz")
    try:
        figures = training.measure(protocol, own)
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"its run failed with status {error.returncode}") from None
    if not filecmp.cmp(task, own, shallow=False):
        raise RuntimeError(f"{protocol} ran from other weights or on other items")
    return figures


def run_peer(name, argument, task):
    """The figures that `peers/train_{name}.py` prints: see `measure` in `peers/task.py`."""
    command = [make_environment(name), SCRIPTS / f"train_{name}.py", task, argument]
    return json.loads(call(command, "its run failed").splitlines()[-1])


def run(system, task):
    """The figures of one of `SYSTEMS`, or the `Unavailable` in their place."""
    print("running", *SYSTEMS[system], file=sys.stderr)
    try:
        return run_protocol(system, task) if isinstance(system, str) else run_peer(*system, task)
    except Unavailable as reason:
        return reason


# ---- The table -----------------------------------------------------------------------------------


def held(value, text, tolerance):
    """`text`, marked where `value` is above `tolerance` or not a number."""
    return text if value <= tolerance else f"**wrong: {text}**"


def row(system, figures, semi2k, losses, correct):
    """A line of the table.

    Args:
        figures: of this system, or why there are none.
        semi2k: the figures of `semi2k`, for the ratio.
        losses, correct: the plain ones.
    """
    cells = list(SYSTEMS[system])
    if isinstance(figures, Unavailable):
        cells += [f"**did not run:** {figures}".replace("|", "/")]
        return line(cells + ["–"] * (len(COLUMNS) - len(cells)))
    cells += [f"{figures['step']:.4f}", f"{figures['step'] / semi2k['step']:.2f}"]
    cells += [f"{figures['test']:.3f}"]
    counts = (figures.get("rounds"), figures.get("bytes"))
    cells += ["–" if count is None else f"{count:,.0f}" for count in counts]
    cells += [f"{figures['cpu']:.4f}"]
    if system == "plain":
        return line([*cells, "–", str(correct)])
    deviation = numpy.abs(numpy.subtract(figures["losses"], losses)).max()  # nan, if one is
    off = abs(figures["correct"] - correct)
    cells += [held(deviation, f"{deviation:.5f}", LOSS_TOLERANCE)]
    return line([*cells, held(off, f"{figures['correct']:.0f}", CORRECT_TOLERANCE)])


def line(cells):
    return f"| {' | '.join(cells)} |"


def table(results, losses, correct):
    """The table and its notes, as text."""
    rows = [line(COLUMNS), line(["---"] * len(COLUMNS))]
    rows += [row(system, results[system], results["semi2k"], losses, correct) for system in SYSTEMS]
    notes = NOTES.format(loss=LOSS_TOLERANCE, correct=correct, tolerance=CORRECT_TOLERANCE)
    return "\n".join([*rows, notes.rstrip()])


def machine():
    """That of `training.machine`, and the peers' Pythons, in one line."""
    versions = ", ".join(f"{version} ({name})" for name, version in PYTHON.items())
    return f"{training.machine()}, the peers {versions}"


def main():
    """Run every system and print the table."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        task = pathlib.Path(folder, "semi2k.npz")
        results = {"semi2k": run("semi2k", task)}  # first: it writes the task
        if isinstance(results["semi2k"], Unavailable):
            raise SystemExit(f"semi2k: {results['semi2k']}")
        results |= {system: run(system, task) for system in SYSTEMS if system not in results}
        with numpy.load(task) as plain:
            print(f"{where}\n\n{table(results, plain['losses'], plain['correct'].item())}")


if __name__ == "__main__":
    main()
