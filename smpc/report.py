"""What a run prints and leaves behind: its lines, tables, `run.json` and `accuracy.png`."""

import _thread
import contextlib
import importlib.metadata
import json
import pathlib
import platform
import signal
import statistics
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import psutil
from matplotlib.figure import Figure
from tqdm import tqdm

from smpc import process
from smpc.files import FileError, named, write_whole
from smpc.pictures import as_png
from smpc.semi2k.network import Counters, NetworkError
from smpc.semi2k.storage import CheckpointError

# Correct answers of 640 after each epoch, as the tutorial prints them.
PUBLISHED = (227, 360, 401, 424, 449, 464, 469, 474, 481, 488)
PUBLISHED_ITEMS = 640
FILES = ("run.json", "accuracy.png")
VERSION = 1  # of docs/run.schema.json, which says what is in run.json
VERSIONS_OF = ("syft", "torch", "torchvision", "numpy", "protobuf")


class Run:
    """The record of one run, and its progress bar on stderr (on a terminal only): items done and
    to do, the time left, items a second.

    Args:
        arguments: of the script: `epochs`, `n_train_items`, `n_test_items`, `protocol`,
            `precision_fractional`, and all that run.json is to say.
        counters: called for what has been said so far; gives None for other protocols.
        published: correct answers of `PUBLISHED_ITEMS` after each epoch, to be put beside its own.
        program: what its errors begin with.
    Attributes:
        done: items of the epoch under way that have been trained on.
        steps: a dict for each training step: epoch, batch, items, loss (None where it was not
            revealed) and seconds.
        tests: a dict for each test pass: epoch, correct, items, seconds and bytes of memory.
        plain_steps: seconds of each plain PyTorch step taken for comparison.
        counters: what the parties said in the last "training step" and the last "test pass" that
            took one attempt; of the last 21 such, that with the median of bytes, since on hosts a
            step is dealt for ahead of it: a dict for each, as made by
            `semi2k.network.Counters.since`; empty for other protocols.
        twin: what the plain twin did, as {"losses": [...], "correct": [...]}, or None.
        allows: of an epoch and a batch, called before each step: whether it may be taken.
        after_step, after_test: called once each has been recorded.
        interrupted: whether the user has asked to stop, or stdout cannot be written to; after the
            batch that is under way KeyboardInterrupt is raised, so that no step is left half done.
    """

    steps: list[dict]
    tests: list[dict]
    plain_steps: list[float]
    counters: dict[str, dict]
    twin: dict[str, list] | None
    allows: Callable[[int, int], bool]
    after_step: Callable[[], None]
    after_test: Callable[[], None]

    def __init__(
        self,
        arguments: dict,
        counters: Callable[[], Counters | None],
        published: Sequence[int] = PUBLISHED,
        program: str = "train_encrypted.py",
    ):
        self.published, self._program = published, program
        self._quiet = arguments.get("write_plan")  # then nothing that is said is true
        self.arguments, self._read_counters = dict(arguments), counters
        self._counted, self.counters, self._usual = counters(), {}, {}
        self.steps, self.tests, self.plain_steps, self.twin = [], [], [], None
        self.done, self.interrupted, self._why = 0, False, None
        self.allows = lambda epoch, batch: True
        self.after_step = self.after_test = lambda: None
        items = arguments["n_train_items"] + arguments["n_test_items"]
        self.bar = tqdm(total=arguments["epochs"] * items, unit=" items", disable=None)

    def restore(self, steps: list[dict], tests: list[dict]):
        """Go on from the steps and tests of a run that was broken off."""
        self.steps, self.tests = steps, tests
        self.bar.update(sum(done["items"] for done in (*steps, *tests)))

    def batches(self, epoch: int, private_loader: Iterable[tuple]) -> Iterator[tuple[int, tuple]]:
        """(index, (data, target)) of the training batches of an epoch: of all but those that were
        trained on before the run was broken off, and those that may not be."""
        self.done = 0
        last = (self.steps[-1]["epoch"], self.steps[-1]["batch"]) if self.steps else (0, 0)
        for index, (data, target) in enumerate(private_loader):
            if (epoch, index) > last and self.allows(epoch, index):
                yield index, (data, target)
            self.done += len(target)

    def test_batches(self, private_loader: Iterable[tuple]) -> Iterator[tuple]:
        """(data, target) of all test batches, each counted once the next is asked for."""
        for data, target in private_loader:
            yield data, target
            self._advance(len(target))

    @contextlib.contextmanager
    def ending(self, folder: pathlib.Path) -> Iterator[None]:
        """For what trains, tests and saves its results in `folder`: at its end come the closing
        tables. However else it ends, one line says so, and the results so far are saved."""
        process.on_signals(self.interrupt)
        try:
            yield
            self.say(f"\n{self.summary()}\n\nwritten: {folder}/run.json and {folder}/accuracy.png")
            self.stop_if_interrupted()
        except (KeyboardInterrupt, CheckpointError, NetworkError) as reason:
            self._end(folder, reason)
        except OverflowError as error:
            process.fail(error, self._program)

    def interrupt(self, number, _):
        """A signal handler: stop after the batch that is under way. That of syft's own protocols,
        which keep no checkpoint, may be waiting for processes that the signal has ended: at once.
        """
        self._stop(128 + number, "interrupted")
        if self.arguments["protocol"] != "semi2k":
            process.on_signals(signal.SIG_IGN)
            sys.unraisablehook = lambda _: self._interrupt_again(number)
            raise KeyboardInterrupt

    def _interrupt_again(self, number):
        """The interrupt came in one of syft's `__del__`, where what is raised is lost."""
        process.on_signals(self.interrupt)
        threading.Timer(0.1, _thread.interrupt_main, (number,)).start()

    def _stop(self, status, why):
        self.interrupted, self._why = True, self._why or (status, why)

    def say(self, line: str):
        """Print a line to stdout, above the progress bar if there is one; if it cannot be, stop."""
        if self._quiet:
            return
        try:
            with process.to_stdout():
                tqdm.write(line, file=sys.stdout)
        except FileError as error:
            self._stop(2, f"{self._program}: error: {error}")

    def _end(self, folder, reason):
        """Save the results so far, say in a line why and where, and end the program."""
        if isinstance(reason, FileError):
            self._stop(reason.status, f"{self._program}: error: {reason}")
        status, why = self._why
        try:
            self.save(folder)
            where = f"the results so far are in {folder}/"
        except FileError as error:
            where = f"no results: {error}"
        process.tell(f"{why}: {where}")
        raise SystemExit(status)

    def trained(self, epoch: int, batch: int, items: int, loss, start_time: float):
        """Record a training step.

        Args:
            loss: a float tensor without dimensions, revealed; or one that is still shared.
            start_time: of the step, by `time.time`.
        Raises:
            OverflowError: a loss that no training has.
        """
        step = {"epoch": epoch, "batch": batch, "items": items, "loss": None}
        if not loss.is_wrapper:
            step["loss"] = revealed = loss.item()
            # one that wrapped around the ring is anywhere in it; a true one is near 1
            if not -1 < revealed < 2**52 / 10 ** (2 * self.arguments["precision_fractional"]):
                raise OverflowError(f"a loss of {revealed:g}: training diverged, lower --lr")
        self.steps.append(step | {"seconds": time.time() - start_time})
        self._count("training step")
        self._advance(items)
        self.after_step()

    def tested(self, epoch: int, correct: float, items: int, start_time: float):
        """Record a test pass, and the memory that this process holds, which is all parties unless
        they are on hosts of their own.

        Args:
            correct: how many answers are; `start_time`: of the pass, by `time.time`.
        Raises:
            OverflowError: there cannot be so many.
        """
        if not 0 <= correct <= items:
            raise OverflowError(f"{correct:g} correct answers of {items}: values left the ring")
        seconds, memory = time.time() - start_time, psutil.Process().memory_info().rss
        self.tests.append(
            {"epoch": epoch, "correct": correct, "items": items, "seconds": seconds}
            | {"memory": memory}
        )
        self._count("test pass")
        self.after_test()

    def _count(self, what):
        counted = self._read_counters()
        if counted is not None:
            since = counted.since(self._counted)
            usual = self._usual.setdefault(what, deque(maxlen=21))
            if not since["anew"] or not usual:
                usual.append(since)
            self.counters[what] = sorted(usual, key=sent_by_all)[len(usual) // 2]
            self._counted = counted

    def _advance(self, items):
        try:
            self.bar.update(items)
        except OSError:
            self.bar.disable = True  # nobody sees it: its terminal is gone
        self.stop_if_interrupted()

    def stop_if_interrupted(self):
        """Raise KeyboardInterrupt if the user has asked to stop."""
        if self.interrupted:
            raise KeyboardInterrupt

    def compare(self, losses: list[float], correct: list[int], seconds: list[float]):
        """Put beside it what a plain twin did; its results only if they were asked for."""
        self.plain_steps = seconds
        if self.arguments["plain_twin"]:
            self.twin = {"losses": losses, "correct": correct}

    def summary(self) -> str:
        """The closing tables: accuracies; seconds; what was said; memory."""
        tables = self._accuracies(), self._times(), self._counters_table(), self._memory()
        return "\n\n".join("\n".join(table) for table in tables if table)

    def _accuracies(self):
        """Correct answers after each epoch, where all are of as many items, else percent."""
        if not self.tests:
            return []
        n_items = self.arguments["n_train_items"], self.arguments["n_test_items"]
        alike = not self.published or n_items == (PUBLISHED_ITEMS, PUBLISHED_ITEMS)
        ours = [test["correct"] for test in self.tests]
        columns = [("published", self.published, PUBLISHED_ITEMS)] if self.published else []
        columns += [("this run", ours, n_items[1])]
        columns += [("plain twin", self.twin["correct"], n_items[1])] if self.twin else []
        title = f"Correct of {n_items[1]:,}" if alike else "Correct, percent"
        lines = [f"{title:<18}" + "".join(f"{name:>12}" for name, *_ in columns)]
        for index, test in enumerate(self.tests):
            line = f"  epoch {test['epoch']:<10}"
            for _, correct, items in columns:
                cell = "–"
                if index < len(correct):
                    n = correct[index]
                    cell = f"{n:,.0f}" if alike else f"{100 * n / items:.1f}%"
                line += f"{cell:>12}"
            lines.append(line)
        if not alike:
            lines.append(
                f"  (The published run trained on {PUBLISHED_ITEMS} items and was tested on "
                f"{PUBLISHED_ITEMS}, this one on {n_items[0]:,} and {n_items[1]:,}.)"
            )
        return lines

    def _times(self):
        if not self.steps:
            return []
        batch = statistics.median(step["seconds"] for step in self.steps)
        item = statistics.median(step["seconds"] / step["items"] for step in self.steps)
        lines = ["Training, median seconds    a batch     an item"]
        lines += [f"  encrypted              {batch:10.6f}  {item:10.6f}"]
        if self.plain_steps:
            plain = statistics.median(self.plain_steps)
            plain_item = plain / self.steps[0]["items"]
            lines += [f"  plain PyTorch          {plain:10.6f}  {plain_item:10.6f}"]
            lines += [f"  ratio                  {batch / plain:10.0f}"]
        return lines

    def _memory(self):
        if not self.tests:
            return []
        first, last = (round(self.tests[i]["memory"] / 1e6) for i in (0, -1))
        return [f"Memory after the first epoch {first:,} MB, after the last {last:,} MB"]

    def _counters_table(self):
        if not self.counters:
            return []
        columns = list(self.counters)
        title = "What was said, and its time"
        lines = [f"{title:<34}" + "".join(f"{column:>15}" for column in columns)]

        def row(label, figure):
            figures = [figure(self.counters[column]) for column in columns]
            lines.append(f"  {label:<32}" + "".join(f"{figure:>15,}" for figure in figures))

        row("rounds", lambda c: c["rounds"])
        row("messages", lambda c: sum(c["messages"].values()))
        row("bytes opened, all workers", lambda c: c["opened"])
        row("bytes dealt", lambda c: c["dealt"])
        row("bytes sent by all, each once", sent_by_all)
        row("milliseconds, dealing", lambda c: round(1000 * c["seconds"]["dealing"]))
        row("milliseconds, workers", lambda c: round(1000 * c["seconds"]["online"]))
        all_runs = self._counted
        lines += [
            "",
            f"Runs of the workers: {all_runs.runs}, made anew {all_runs.anew} times. That told the "
            f"crypto provider of any one\nhidden value at most {all_runs.told:.1e} (a statistical "
            "distance: see docs/protocol.md).",
        ]
        return lines

    def save(self, folder: pathlib.Path):
        """Write `run.json` (docs/run.schema.json) to `folder`, and `accuracy.png` once there is a
        test pass.

        Raises:
            FileError: they cannot be written.
        """
        if self._quiet:
            return
        record = {
            "version": VERSION,
            "arguments": self.arguments,
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in VERSIONS_OF},
            "interrupted": self.interrupted,
            "steps": self.steps,
            "tests": self.tests,
            "counters": self.counters,
            "runs": self._runs(),
            "plain_steps": self.plain_steps,
            "plain_twin": self.twin,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False)
        with named(f"--out {folder}"):
            write_whole(folder / "run.json", text.encode())
            if self.tests:
                write_whole(folder / "accuracy.png", self._figure())

    def _runs(self):
        """How many runs the workers made, how many times one was made anew, and what that told."""
        counted = self._counted
        return counted and {"all": counted.runs, "anew": counted.anew, "told": counted.told}

    @as_png
    def _figure(self):
        """The published curve and this run's (and the twin's)."""
        items = self.tests[0]["items"]
        curves = [("this run", [test["correct"] for test in self.tests], items)]
        if self.published:
            curves.append(("published, 2020", self.published, PUBLISHED_ITEMS))
        if self.twin:
            curves.append(("plain twin", self.twin["correct"], items))
        figure = Figure(figsize=(7, 4.2))
        axes = figure.subplots()
        for number, (label, correct, of) in enumerate(curves):
            epochs = range(1, 1 + len(correct))
            axes.plot(epochs, [100 * n / of for n in correct], label=label, zorder=9 - number)
        axes.set(xlabel="epoch", ylabel="correct test items (%)", ylim=(0, 100))
        axes.legend(loc="lower right")
        return figure


def sent_by_all(counters: dict) -> int:
    """Bytes of all messages of all parties, from `Counters.since`."""
    return sum(sum(sent.values()) for sent in counters["sent"].values())
