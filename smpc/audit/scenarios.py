"""Runs of semi2k that are recorded for the audit: more than one step of a training.

`SCENARIOS` compute in this process, each in sessions of its own, without syft: every operation,
form and size, runs made anew, checkpoints, new keys. `script` has the script itself train, in
processes of their own.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple
from unittest import mock

import numpy as np

from smpc.audit import PROGRAM, Finding
from smpc.audit.computations import (
    ALL,
    UNIT,
    Private,
    Training,
    Value,
    divided,
    equal,
    relu,
    tournament,
)
from smpc.audit.transcript import ORCHESTRATOR, OWNERS, PROVIDER, Recorder, Transcript
from smpc.process import fail
from smpc.semi2k import compiler
from smpc.semi2k.session import Session

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
SIZES = 1, 3, 63, 65
MOST_STEPS = 40  # of which every other is made anew, or more often
PRIVATE = "--private", 8, "--clip", 1, "--lr", 0.02  # of the script: little noise, on few items
MANY = 1536  # rows, and columns, of what has more than 2.2 million elements


@contextlib.contextmanager
def recorded(path, n_workers=2, unit=UNIT, **declared):
    """A new session of so many workers, recorded at `path` unless something is raised.

    Args:
        unit: of fixed precision, that what is shared is in; 1: it is in none.
        declared: what is unlike other sessions, see `requests.Requests`.
    """
    recorder = Recorder(path, {"protocol": "semi2k", "revealed": [], **declared})
    recorder.start()
    try:
        workers = [f"worker{i + 1}" for i in range(n_workers)]
        session = Session.simulated(ORCHESTRATOR, workers, PROVIDER)
        session.graph.one = unit
        session.asked = recorder.arguments["revealed"]
        yield session
    finally:
        recorder.stop()
    recorder.save()


def share(session, *shapes):
    """Numbers within ±4, as `Value`s of these shapes; in every session the same."""
    random = np.random.default_rng(1)
    one = 4 * session.graph.one
    return [Value.shared(session, random.integers(-one, one + 1, shape)) for shape in shapes]


# ---- Every operation -----------------------------------------------------------------------------


def products(folder):
    """Products of every kind, sums, public factors, and elements that are moved about."""
    path = folder / "products.jsonl"
    with recorded(path) as session:
        x, w = share(session, (4, 6), (6, 3))
        y = divided(x @ w)
        y.reveal()
        square = divided(y * y)
        (divided(square * y) + square - y + 7 * UNIT).reveal()
        public = np.arange(18).reshape(6, 3) - 9
        (x @ public).reveal()
        x.T.left(public.T).reveal()
        (y * public[:4] + public[2:]).reveal()
        rows = x.moved("reshape", (8, 3)).cat(y, 0)[("list", 0, 11, 3), ("slice", 0, 2, None)]
        (rows * 3).sum(0).reveal()
        divided(x[1, "..."].moved("expand", (4, 6)) * x).sum().reveal()
    return [Transcript(path)]


def images(folder):
    """A convolution and its gradient: windows of images with zeros around, and what is put back
    from them; and rows taken more than once, put back."""
    path = folder / "images.jsonl"
    with recorded(path) as session:
        x, kernels = share(session, (2, 5, 6), (9, 3))
        inside = ALL, ("slice", 1, 6, None), ("slice", 2, 8, None)
        around = x.moved("place", (2, 7, 10), inside)
        lines = around.moved("unfold", (3, 3), (2, 3)).moved("reshape", (18, 9))
        y = relu(divided(lines @ kernels))
        y.reveal()
        back = divided(y @ kernels.T).moved("reshape", (2, 3, 3, 3, 3))
        back.gathered("fold", (7, 10), (2, 3)).reveal()
        rows = ALL, ("list", 0, 3, 3)
        (x[rows] * 3).gathered("scatter", (2, 5, 6), rows).reveal()
    return [Transcript(path)]


def comparisons(folder):
    """ReLU, the largest of each row and its place, equality; and numbers of a few bits."""
    path = folder / "comparisons.jsonl"
    with recorded(path, 5) as session:
        x, w = share(session, (5, 4), (4, 7))
        y = divided(x @ w)
        relu(y).reveal()
        for best in tournament(y):
            best.reveal()
        equal(y, y + y.positive()).reveal()
        (y.positive() * x[ALL, ("slice", 0, 1, None)].positive()).reveal()
    return [Transcript(path)]


def few_bits(folder):
    """Comparisons of numbers that are known to be small: of 2, 3, 4, 5, 8, 11, 15 and 21 bits."""
    path = folder / "few-bits.jsonl"
    with recorded(path) as session:
        x, y = share(session, (5, 7), (5, 7))
        for compared in (
            lambda: x.positive(),
            lambda: x.positive() - y.positive(),
            lambda: x.positive().sum(1),
            lambda: (x.positive() - y.positive()).sum(1),
            lambda: (x.positive() - y.positive()).sum(),
            lambda: x.positive() * UNIT - y.positive(),
            lambda: x.positive() * (9 * UNIT) - y.positive(),
            lambda: x.positive() * UNIT**2 - y.positive(),
        ):
            compared().positive().reveal()
    return [Transcript(path)]


def integers(folder):
    """Numbers that are in no fixed precision: all that is divided is divided exactly."""
    path = folder / "integers.jsonl"
    with recorded(path, unit=1) as session:
        x, y = share(session, (9,), (9,))
        (x * y / 7).reveal()
        equal(x, y).reveal()
        tournament((x + y * 10).moved("reshape", (1, 9)))[1].reveal()
    return [Transcript(path)]


def forms(folder):
    """Values stored in each form, and used in it; some are deleted."""
    path = folder / "forms.jsonl"
    with recorded(path, 3) as session:
        x, y, w = share(session, (3, 4), (3, 4), (4, 2))
        masked = divided(x @ w).want()
        chosen = (x.positive() * y).want(factor=False)  # a share
        fine = divided(x * y).want(factor=False)  # a share, in thousandths
        session.compute()
        hidden = divided(y @ w)
        hidden.reveal()
        divided(hidden * masked + masked).reveal()
        (hidden.sum(1) + chosen.sum(1)).reveal()
        divided(fine.rounded() * chosen).reveal()
        del masked, hidden
        product = x * y  # of whose mask the workers have no share
        product.positive().reveal()
        (product * fine).sum().reveal()
        for value in (x, chosen, product):
            value.refreshed().reveal()
    return [Transcript(path)]


# ---- Every size ----------------------------------------------------------------------------------


def sizes(folder):
    """One element and a few, around what fills a word of bits; truncated in both ways."""
    path = folder / "sizes.jsonl"
    with recorded(path, unit=100) as session:
        for shape in ((), *((n,) for n in SIZES)):
            x, y = share(session, shape, shape)
            for session.exact in (False, True):
                relu(divided(x * y)).reveal()
    return [Transcript(path)]


def many(folder):
    """More words drawn for one run than two million, and as many elements opened; and more
    comparisons than a step of a training has."""
    path = folder / "many.jsonl"
    with recorded(path) as session:
        x, y = share(session, (MANY, 1), (1, MANY))
        divided(x @ y).rounded().sum().reveal()
        some = ("slice", 0, MANY, 6)
        relu(divided(x[some, ALL] @ y[ALL, some])).sum().reveal()
        third = ("slice", 0, MANY, 4)
        fresh = divided(x[third, ALL] @ y[ALL, third]).refreshed()
        (fresh * fresh).sum().reveal()
    return [Transcript(path)]


# ---- Trainings -----------------------------------------------------------------------------------


def training(folder):
    """Two epochs of two steps, with tests: the weights stay masked, and what rounding drops of an
    update is kept."""
    path = folder / "training.jsonl"
    with recorded(path, 3) as session:
        network = Training(session)
        for _ in range(2):
            network.step()
            network.step()
            network.test()
    return [Transcript(path)]


def public_weights(folder):
    """Two steps from weights that everybody knows."""
    path = folder / "public-weights.jsonl"
    with recorded(path, public=True) as session:
        network = Training(session, public=True)
        for _ in range(2):
            network.step()
    return [Transcript(path)]


def private(folder):
    """Steps of which each has noise, correlated with that of the two before; and, after new keys,
    two more."""
    path = folder / "private.jsonl"
    with recorded(path, 3, keys=2) as session:
        network = Private(session)
        for _ in range(4):
            network.step()
        session._make_keys()
        for _ in range(2):
            network.step()
    return [Transcript(path)]


def private_anew(folder):
    """The same, until some steps were made anew: what was drawn for them is forgotten."""
    return _until_made_anew(folder / "private-anew.jsonl", Private)


def made_anew(folder):
    """Steps until some were made anew, and one more."""
    return _until_made_anew(folder / "made-anew.jsonl", Training)


def _until_made_anew(path, training):
    """A `Training` with zones so wide that it soon has steps made anew."""
    wide = {"ZONE": 62, "MAGNITUDE": 2**50, "ANEW": 1}
    with recorded(path, zone=63) as session, mock.patch.multiple(compiler, **wide):
        network = training(session)
        for _ in range(MOST_STEPS):
            if session.network.counters.anew >= 6:
                break
            network.step()
        network.step()
    return [Transcript(path)]


def checkpoint(folder):
    """Two checkpoints, and a session that goes on from the second: two transcripts."""
    paths = [folder / f"checkpoint-{i}.jsonl" for i in (1, 2)]
    with recorded(paths[0]) as session:
        session.keep_shares_in(folder / "shares")
        network = Training(session)
        network.step()
        network.save(step=1)
        network.step()
        network.step()
        network.save(step=3, keep=1)
    with recorded(paths[1]) as session:
        session.keep_shares_in(folder / "shares")
        network = Training(session, step=3)
        network.step()
        network.step()
    return [*map(Transcript, paths)]


def exact(folder):
    """Two steps that truncate exactly, so that weights become shares, and a checkpoint after
    each."""
    path = folder / "exact.jsonl"
    with recorded(path, 4) as session:
        session.exact = True
        session.keep_shares_in(folder / "exact")
        network = Training(session)
        network.step()
        network.save(step=1)
        network.step()
        network.save(step=2, keep=1)
    return [Transcript(path)]


# ---- What sessions do besides --------------------------------------------------------------------


def new_keys(folder):
    """Keys made anew between two runs, as after a fork; what is stored serves on. Five workers."""
    path = folder / "new-keys.jsonl"
    with recorded(path, 5, keys=2) as session:
        (x,) = share(session, (3,))
        divided(x * x).reveal()
        session._make_keys()
        (y,) = share(session, (3,))
        divided(x * y).reveal()
    return [Transcript(path)]


def forgotten(folder):
    """More programs than are kept, so that one is sent again; and many runs of another."""
    path = folder / "forgotten.jsonl"
    with recorded(path) as session, mock.patch.object(session, "MOST_PROGRAMS", 2):
        x, y = share(session, (2,), (2,))
        for operation in (relu, Value.sum, Value.refreshed, relu):
            operation(x * y).reveal()
        for _ in range(130):
            divided(x * y).reveal()
    return [Transcript(path)]


def to_owner(folder):
    """Predictions that are revealed to the owner, and to nobody else; and a step."""
    path = folder / "to-owner.jsonl"
    with recorded(path, 3, revealed_to=OWNERS) as session:
        session.network.ends[OWNERS].read = lambda values: None
        network = Training(session)
        predicted = network.predicted().node
        session.asked.append(predicted.size)
        session.reveal_to(predicted, OWNERS)
        network.step()
    return [Transcript(path)]


# Each records in a folder, a pathlib.Path, and gives a list of `Transcript`, in order.
SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        *(
            products,
            images,
            comparisons,
            few_bits,
            integers,
            forms,
            sizes,
            many,
            training,
            public_weights,
        ),
        *(made_anew, checkpoint, exact, new_keys, forgotten, to_owner),
        *(private, private_anew),
    )
}


# ---- The script ----------------------------------------------------------------------------------


class Run(NamedTuple):
    """A training by the script that has come to its end.

    Attributes:
        transcript: its `Transcript`.
        stdout, stderr: what it has printed, strings.
        out: the folder of its results, a pathlib.Path.
    """

    transcript: Transcript
    stdout: str
    stderr: str
    out: pathlib.Path

    def left(self):
        """What it has printed and written besides what it was to: a list of `Finding`."""
        from smpc.audit import said  # here, since it needs torch

        arguments = self.transcript.arguments
        lines = said.found_in(self.stdout, self.stderr, self.out, arguments)
        return [Finding("outputs", line) for line in lines]


def run_script(path, *arguments):
    """Have train_encrypted.py train in a process of its own; a line for the user if that fails.

    Args:
        path: of the transcript, a pathlib.Path; its results go to a new folder beside it.
        arguments: of the script, besides.
    Returns:
        the `Run`.
    """
    out = path.with_suffix("")
    command = [sys.executable, "train_encrypted.py", *arguments]
    command += ["--out", out, "--transcript", path]
    ended = subprocess.run(
        [*map(str, command)],
        cwd=REPOSITORY,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
    )
    if ended.returncode:
        fail(f"{path.stem} could not be run: {ended.stderr.strip().splitlines()[-1]}", PROGRAM)
    return Run(Transcript(path), ended.stdout, ended.stderr, out)


def script(folder):
    """Trainings by the script, recorded in a folder, a pathlib.Path: one of two epochs, which
    reveals the weights, and one that goes on from its checkpoint; one of three workers, which
    compares nothing but in its test; and a private one.

    Returns:
        lists of `Run`, in each of which the later ones go on from the earlier ones.
    """
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(train, folder) for train in (_train_exactly, _train_privately)]
        return [_train_and_go_on(folder), *([other.result()] for other in others)]


def _train_and_go_on(folder):
    """A list of two `Run`s; what each has left stays as it was at its end."""
    items = ("--n-train-items", 48, "--batch-size", 16, "--n-test-items", 8, "--test-batch-size", 4)
    first, second = folder / "checkpoint", folder / "checkpoint-of-resumed"
    saved = "--checkpoint", first, "--save-model", folder / "model.pt"
    begun = run_script(folder / "begun.jsonl", *items, *saved, "--epochs", 2)
    shutil.copytree(first, second)
    saved = "--checkpoint", second, "--resume", "--save-model", folder / "resumed.pt"
    return [begun, run_script(folder / "resumed.jsonl", *items, *saved, "--epochs", 3)]


def _train_exactly(folder):
    items = ("--n-train-items", 8, "--batch-size", 4, "--n-test-items", 4, "--test-batch-size", 4)
    kind = ("--n-workers", 3, "--exact-truncation", "--activation", "quadratic", "--epochs", 1)
    return run_script(folder / "exactly.jsonl", *items, *kind)


def _train_privately(folder):
    """Each step's noise is correlated with that of the step before."""
    items = ("--n-train-items", 16, "--batch-size", 8, "--n-test-items", 4, "--test-batch-size", 4)
    kind = (*PRIVATE, "--momentum", 0.5, "--epochs", 2, "--plain-twin")
    saved = "--checkpoint", folder / "kept", "--save-model", folder / "private.pt"
    return run_script(folder / "privately.jsonl", *items, *kind, *saved)
