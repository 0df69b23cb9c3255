"""What a run prints and leaves behind: its lines, tables, `run.json` and `accuracy.png`."""

import _thread
import importlib.metadata
import io
import json
import platform
import signal
import statistics
import sys
import threading
from collections import deque

import matplotlib
import psutil
from tqdm import tqdm

from smpc import process
from smpc.files import FileError, named, write_whole

matplotlib.use("Agg")
from matplotlib import pyplot

# Correct answers of 640 after each epoch, as the tutorial prints them.
PUBLISHED = (227, 360, 401, 424, 449, 464, 469, 474, 481, 488)
PUBLISHED_ITEMS = 640
FILES = ("run.json", "accuracy.png")
VERSIONS_OF = ("syft", "torch", "torchvision", "numpy", "protobuf")


class Run:
    """The record of one run, and its progress bar on stderr (on a terminal only): items done and
    to do, the time left, items a second.

    Args:
        published: correct answers of `PUBLISHED_ITEMS` after each epoch, to be put beside its own.
        program: what its errors begin with.
    Attributes:
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
        interrupted: whether the user has asked to stop, or stdout cannot be written to; `trained`
            and `tested_batch` then raise KeyboardInterrupt, so that a step is never left half done.
    """

    def __init__(
        self, arguments, n_items, counters, published=PUBLISHED, program="train_encrypted.py"
    ):
        self.published, self._program = published, program
        self._quiet = arguments.get("write_plan")  # then nothing that is said is true
        self.arguments, self._read_counters = dict(arguments), counters
        self._counted, self.counters, self._usual = counters(), {}, {}
        self.steps, self.tests, self.plain_steps, self.twin = [], [], [], None
        self.interrupted, self._why = False, None
        self.allows = lambda epoch, batch: True
        self.bar = tqdm(total=n_items, unit=" items", disable=None)

    def restore(self, steps, tests):
        """Go on from the steps and tests of a run that was broken off."""
        self.steps, self.tests = steps, tests
        self.bar.update(sum(done["items"] for done in (*steps, *tests)))

    def has_trained(self, epoch, batch):
        """Whether this step has been taken, or may not be."""
        last = (self.steps[-1]["epoch"], self.steps[-1]["batch"]) if self.steps else (0, 0)
        return (epoch, batch) <= last or not self.allows(epoch, batch)

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

    def say(self, line):
        """Print a line to stdout, above the progress bar if there is one; if it cannot be, stop."""
        if self._quiet:
            return
        try:
            with process.to_stdout():
                tqdm.write(line, file=sys.stdout)
        except FileError as error:
            self._stop(2, f"{self._program}: error: {error}")

    def end(self, folder, reason):
        """Save the results so far, say in a line why and where, and end the program.

        Args:
            reason: KeyboardInterrupt, after what `interrupted` says; or a FileError.
        """
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

    def trained(self, epoch, batch, items, loss, seconds):
        """Record a training step."""
        self.steps.append(
            {"epoch": epoch, "batch": batch, "items": items, "loss": loss, "seconds": seconds}
        )
        self._count("training step")
        self._advance(items)

    def tested_batch(self, items):
        """Count a batch of a test pass."""
        self._advance(items)

    def tested(self, epoch, correct, items, seconds):
        """Record a test pass, and the memory that this process, which is all parties, holds."""
        memory = psutil.Process().memory_info().rss
        self.tests.append(
            {"epoch": epoch, "correct": correct, "items": items, "seconds": seconds}
            | {"memory": memory}
        )
        self._count("test pass")

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

    def summary(self):
        """The closing tables, as text: seconds of a batch and an item, and the accuracies."""
        lines = []
        if self.steps:
            batch = statistics.median(step["seconds"] for step in self.steps)
            item = statistics.median(step["seconds"] / step["items"] for step in self.steps)
            lines += ["Training, median seconds    a batch     an item"]
            lines += [f"  encrypted              {batch:10.6f}  {item:10.6f}"]
            if self.plain_steps:
                plain = statistics.median(self.plain_steps)
                plain_item = plain / self.steps[0]["items"]
                lines += [f"  plain PyTorch          {plain:10.6f}  {plain_item:10.6f}"]
                lines += [f"  ratio                  {batch / plain:10.0f}"]
        lines += self._counters_table()
        if self.tests:
            lines += [
                "",
                "Accuracy"
                + ("    published" if self.published else "")
                + "    this run"
                + ("    plain twin" if self.twin else ""),
            ]
        for index, test in enumerate(self.tests):
            line = f"  epoch {test['epoch']:<3}"
            if self.published:
                beside = index < len(self.published)
                published = _percent(self.published[index], PUBLISHED_ITEMS) if beside else "–"
                line += f"{published:>10}"
            here = _percent(test["correct"], test["items"])
            line += f"{here:>12}"
            if self.twin:
                line += f"{_percent(self.twin['correct'][index], test['items']):>14}"
            lines.append(line)
        if self.tests:
            first, last = (round(self.tests[i]["memory"] / 1e6) for i in (0, -1))
            lines += ["", f"Memory after the first epoch {first:,} MB, after the last {last:,} MB"]
        return "\n".join(lines)

    def _counters_table(self):
        if not self.counters:
            return []
        columns = list(self.counters)
        lines = ["", " " * 34 + "".join(f"{column:>15}" for column in columns)]

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

    def save(self, folder):
        """Write `run.json` to `folder`, and `accuracy.png` once there is a test pass.

        Raises:
            FileError: they cannot be written.
        """
        record = {
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

    def _figure(self):
        """The published curve and this run's (and the twin's), as the bytes of a PNG."""
        epochs = [test["epoch"] for test in self.tests]
        items = self.tests[0]["items"]
        curves = [
            ("published, 2020", "o--", range(1, 1 + len(self.published)), self.published,
             PUBLISHED_ITEMS),
        ] if self.published else []  # fmt: skip
        curves += [
            ("this run", "s-", epochs, [test["correct"] for test in self.tests], items),
        ]
        if self.twin:
            curves.append(("plain twin", "^:", epochs, self.twin["correct"], items))
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        for label, style, x, correct, of in curves:
            axes.plot(x, [100 * n / of for n in correct], style, label=label)
        axes.set(xlabel="epoch", ylabel="correct test items (%)", ylim=(0, 100))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
        png = io.BytesIO()
        figure.savefig(png, format="png")
        pyplot.close(figure)
        return png.getvalue()


def sent_by_all(counters):
    """Bytes of all messages of all parties, from `Counters.since`."""
    return sum(sum(sent.values()) for sent in counters["sent"].values())


def _percent(correct, items):
    return f"{100 * correct / items:.1f}%"
