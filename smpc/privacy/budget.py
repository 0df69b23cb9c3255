"""How often each batch has been used, kept by each worker in a journal of its own.

    CHECKPOINT.privacy/WORKER.jsonl

The noise of a private training is made for so many passes over the data. A run that is broken off
and goes on takes some steps again, and each is another fact about the items in its batch: it counts
as a pass, before it is taken, where no checkpoint can take it back. Simulated, one process holds
all of it, and whoever can write the journals can cut them: here they are advice. On hosts of their
own the workers' consent counts, see `smpc.hosts.plans`.
"""

import pathlib
from collections import Counter

from smpc.files import FileError, named, prepare_folder
from smpc.hosts.journal import Journal


class Budget:
    """The passes that are left of a run's; without `args.checkpoint` none can be taken again.

    Args:
        args: of the script: `checkpoint`, `resume`, `n_workers`, and `epochs`, which is how many
            passes there are.
    Raises:
        FileError: the journals are of another run; or of a checkpoint that is to be gone on from
            there are none, such as of a copy.
    """

    def __init__(self, args):
        self._epochs, self._journals, self._used = args.epochs, [], Counter()
        if not args.checkpoint:
            return
        checkpoint = pathlib.Path(args.checkpoint)
        folder = checkpoint.with_name(f"{checkpoint.name}.privacy")
        files = [folder / f"worker{i + 1}.jsonl" for i in range(args.n_workers)]
        begun = (checkpoint / "progress").exists()
        if begun and not all(file.is_file() for file in files):
            raise FileError(
                f"{checkpoint} has no journals in {folder}: what was used of its budget is unknown"
            )
        if not args.resume and any(file.exists() for file in files):
            raise FileError(f"{folder} is of a run before: go on with --resume, or elsewhere")
        with named(folder):
            prepare_folder(folder)
        self._journals = [Journal(file) for file in files]
        for journal in self._journals:
            taken = Counter(e["batch"] for e in journal.entries() if e["what"] == "taken")
            self._used |= taken  # the larger of each

    def take(self, batch: int) -> bool:
        """Whether a batch may be used once more; if so it has been, in every journal on disk."""
        if self._used[batch] >= self._epochs:
            return False
        self._used[batch] += 1
        for journal in self._journals:
            journal.note("taken", durable=True, batch=batch)
        return True
