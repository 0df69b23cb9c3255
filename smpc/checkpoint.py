"""Where a run stands, kept in a folder, so that it can be broken off at any moment and go on.

    FOLDER/progress            the orchestrator's: arguments, revealed losses and counts, and the
                               step that the shares below belong to
    FOLDER/WORKER/STEP.shares  that worker's shares of the weights after so many training steps; it
                               writes and reads them itself

Nothing else is kept: no key, no dealt item, no opened value, and not what rounding dropped of the
last update, less than a unit of a weight. Each file is written whole, `progress` last; shares of
the step that `progress` names are there until it names another.
"""

import pathlib
import secrets

from smpc import syft_binding as semi2k
from smpc.arguments import folder
from smpc.semi2k import storage
from smpc.semi2k.storage import CheckpointError

# A run that differs in one of these arguments is another run.
DEFINING = (
    *("protocol", "precision_fractional", "n_workers", "activation", "seed", "lr"),
    *("batch_size", "n_train_items", "n_test_items"),
)


class Checkpoint:
    """The checkpoint of one run; without `args.checkpoint` it does nothing.

    Args:
        args: of the script: `checkpoint` (folder or None), `checkpoint_every` (training steps),
            `resume`, and `DEFINING`.
    Raises:
        CheckpointError: there is no checkpoint to go on from, or it is damaged or another run's; or
            there is one, and no `resume`.
    """

    def __init__(self, args):
        self.folder, self.every = args.checkpoint and pathlib.Path(args.checkpoint), None
        self.last = self.progress = None  # the step that `progress` names; what there is to restore
        if self.folder is None:
            return
        self.every = args.checkpoint_every
        self.arguments = {name: getattr(args, name) for name in DEFINING}
        folder("--checkpoint", self.folder)
        file = self.folder / "progress"
        if file.exists() != args.resume:
            holds, advice = ("no ", "leave out") if args.resume else ("a ", "go on from it with")
            raise CheckpointError(f"{self.folder} holds {holds}checkpoint: {advice} --resume")
        if args.resume:
            self.progress = storage.read(file)
            self._check(self.progress["arguments"])
            if len(self.progress["tests"]) > args.epochs:
                done = len(self.progress["tests"])
                raise CheckpointError(f"{self.folder} is of a run of {done} epochs: add --epochs")
        else:
            self.run_id = secrets.token_hex(8)

    def _check(self, arguments):
        for name, value in self.arguments.items():
            if arguments[name] != value:
                option = "--" + name.replace("_", "-")
                raise CheckpointError(
                    f"{self.folder} is of a run with {option} {arguments[name]}, not {value}"
                )

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
        self.run_id, self.last = self.progress["run"], self.progress["step"]
        semi2k.load_shares(list(model.parameters()), self.folder, self.run_id, self.last)
        for file in self.folder.glob(".progress.*"):
            file.unlink()  # what a write that was broken off has left
        run.restore(self.progress["steps"], self.progress["tests"])
        self.progress = None

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
        progress = {"run": self.run_id, "step": step, "arguments": self.arguments}
        progress |= {"steps": run.steps, "tests": run.tests}
        weights = list(model.parameters())
        try:
            if step != self.last:
                semi2k.save_shares(weights, self.folder, self.run_id, step, self.last)
            storage.write(self.folder / "progress", progress)
        except OSError as error:
            raise CheckpointError(f"--checkpoint {self.folder}: {error.strerror}") from error
        self.last = step
