"""Where a run stands, kept in a folder, so that it can be broken off at any moment and go on.

    FOLDER/lock                locked by the run that uses the folder
    FOLDER/progress            the orchestrator's: arguments, revealed losses and counts, and the
                               save and the step that the shares below belong to
    FOLDER/WORKER/STEP.shares  that worker's shares of the weights after so many training steps; it
                               writes and reads them itself

Nothing else is kept: no key, no dealt item, no opened value, and not what rounding dropped of the
last update, less than a unit of a weight. Each file is written whole, `progress` last; shares of
the step that `progress` names are there until it names another. Each save has a name of its own,
drawn at random, in all of its files, so that shares of two saves are never put together.
"""

import contextlib
import pathlib
import re
import secrets
from collections.abc import Iterator

from smpc import syft_binding as semi2k
from smpc.files import lock, named, prepare_folder
from smpc.process import tell
from smpc.semi2k import storage
from smpc.semi2k.storage import CheckpointError

# A run that differs in one of these arguments is another run.
DEFINING = (
    *("protocol", "precision_fractional", "n_workers", "activation", "seed", "lr"),
    *("batch_size", "n_train_items", "n_test_items"),
    "private",
)
OF_A_PRIVATE_RUN = ("delta", "clip", "momentum", "epochs")
FILES = ("progress", "lock")
# What a run may leave that was killed before its first checkpoint was whole.
BEGUN = re.compile(r"lock|\.progress\.\d+|\w+|\w+/\.?0\.shares(\.\d+)?")


class Checkpoint:
    """The checkpoint of one run; without `args.checkpoint` it does nothing.

    Args:
        args: of the script: `checkpoint` (folder or None), `checkpoint_every` (training steps),
            `resume`, `plan`, `write_plan`, `epochs`, `DEFINING`, and `OF_A_PRIVATE_RUN` of such.
    Raises:
        CheckpointError: the folder is in use; its checkpoint is damaged, another run's, or not
            to go on from, there being no `resume`; or with `resume` it is not a checkpoint's.
    """

    folder: pathlib.Path | None
    last: int | None  # a step
    last_save: str | None  # a name
    progress: dict | None

    def __init__(self, args):
        self.folder, self.every = args.checkpoint and pathlib.Path(args.checkpoint), None
        # what `progress` names; what there is to restore
        self.last = self.last_save = self.progress = None
        if self.folder is None:
            return
        self.every, self.planned = args.checkpoint_every, args.plan or args.write_plan
        names = (*DEFINING, *(OF_A_PRIVATE_RUN if args.private else ()))
        self.arguments = {name: getattr(args, name) for name in names}
        with named(f"--checkpoint {self.folder}", CheckpointError):
            prepare_folder(self.folder)
            if not (self.folder / "progress").exists():
                self._check_new(args.resume)
            try:
                self.lock = lock(self.folder / "lock")
            except BlockingIOError:
                raise CheckpointError(f"{self.folder} is in use by another run") from None
            begun = (self.folder / "progress").exists()
        if begun and not args.resume:
            raise CheckpointError(f"{self.folder} holds a checkpoint: go on from it with --resume")
        if not begun:
            if args.resume:
                tell(f"{self.folder} holds no checkpoint yet: starting anew")
            return
        self.progress = storage.read(self.folder / "progress")
        self._check(self.progress["arguments"])
        if (done := len(self.progress["tests"])) > args.epochs:
            raise CheckpointError(
                f"{self.folder} is of a run of {done} epochs: use --epochs {done} or more"
            )

    def _check_new(self, resume):
        """That nothing is lost if a run begins here; and if one is to be resumed, that it may have
        been killed before there was a checkpoint. The folder is left as it is if not."""
        if any(self.folder.glob("*/[1-9]*.shares")):
            raise CheckpointError(f"{self.folder} holds shares, but its file `progress` is gone")
        if resume:
            files = (file.relative_to(self.folder) for file in self.folder.rglob("*"))
            if not all(BEGUN.fullmatch(str(file)) for file in files):
                raise CheckpointError(f"{self.folder} holds no checkpoint: leave out --resume")

    def _check(self, arguments):
        for name, value in self.arguments.items():
            if arguments.get(name) != value:
                option = "--" + name.replace("_", "-")
                raise CheckpointError(
                    f"{self.folder} is of a run with {option} {arguments.get(name)}, not {value}"
                )

    @contextlib.contextmanager
    def kept(self, model, run) -> Iterator[None]:
        """For what trains and tests `model`: begins as `begin` does; from then on it is saved as
        `args` say, after each test, and where it is broken off.

        Raises:
            CheckpointError: as `begin` and `save` do.
        """
        self.begin(model, run)
        run.after_step = lambda: self.after_step(model, run)
        run.after_test = lambda: self.save(model, run)
        try:
            yield
        except KeyboardInterrupt:
            self.break_off(model, run)
            raise

    def begin(self, model, run):
        """Put the weights and the record back as they stood; or save the first, of a new run.

        Raises:
            CheckpointError: a worker's file is missing, damaged or another's.
        """
        if self.folder is None:
            return
        if self.progress is None:
            self.save(model, run)
            return
        self.last_save, self.last = self.progress["save"], self.progress["step"]
        weights, position = list(model.parameters()), self.progress["position"]
        semi2k.load_shares(weights, self.folder, self.last_save, self.last, position)
        for file in self.folder.glob(".progress.*"):
            file.unlink()  # what a write that was broken off has left
        run.restore(self.progress["steps"], self.progress["tests"])
        self.progress = None

    def break_off(self, model, run):
        """Save, unless a plan says when that is to be done."""
        if self.folder is not None and not self.planned:
            self.save(model, run)

    def after_step(self, model, run):
        """Save if it is time to."""
        if self.every and len(run.steps) % self.every == 0:
            self.save(model, run)

    def save(self, model, run):
        """Save the weights, after the updates so far, and the record.

        Raises:
            CheckpointError: a file cannot be written; the last checkpoint still stands.
        """
        if self.folder is None:
            return
        step = len(run.steps)
        with named(f"--checkpoint {self.folder}", CheckpointError):
            if step != self.last:
                save = secrets.token_hex(16)
                weights = list(model.parameters())
                semi2k.save_shares(weights, self.folder, save, step, self.last)
            else:
                save = self.last_save
            progress = {"save": save, "step": step, "arguments": self.arguments}
            progress |= {"steps": run.steps, "tests": run.tests, "position": semi2k.position()}
            storage.write(self.folder / "progress", progress)
        self.last_save, self.last = save, step
