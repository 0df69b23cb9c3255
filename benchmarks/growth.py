"""How the cost of `semi2k` grows with the batch, the width of the first layer, and the items.

    make bench-growth     # some five minutes; prints three tables, writes growth.json and .png

Each row is a run of `train_encrypted.py` in a process of its own, with one thread. Seconds, rounds
and bytes are those of a training step (the median of the seconds, without the first epoch, in which
kept masks are made), or, where items grow, of an epoch; memory is the most that the process held,
all parties together. A slope is the exponent of a power law, fitted by least squares to the
logarithms: 1 is growth in proportion.
"""

import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile

from matplotlib.figure import Figure

from benchmarks.training import ONE_THREAD, REPOSITORY, keep, machine
from smpc.pictures import SMALL, as_png, caption

RECORD = REPOSITORY / "benchmarks" / "growth.json"
BATCHES, WIDTHS = (16, 32, 64, 128, 256, 512, 1024), (64, 128, 256, 512, 1024)
ITEMS = (640, 1280, 2560, 5120, 10240)
FIGURES = ("seconds", "rounds", "MB opened", "MB dealt", "MB of memory")


def run_here(width, arguments):
    """In a process of its own: the script, the first layer of `width`; prints the peak memory."""
    import train_encrypted as script

    class Net(script.Net):
        def __init__(self, activation):
            super().__init__(activation)
            self.fc1 = script.nn.Linear(28 * 28, width)
            self.fc2 = script.nn.Linear(width, 64)

    script.Net = Net
    sys.argv = ["train_encrypted.py", *arguments]
    script.main()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def measure(width=128, batch=64, items=None):
    """The `FIGURES` of one run; of an epoch of `items`, or of a step if there are none given."""
    epochs, n_items = (1, items) if items else (4, 2 * batch)
    with tempfile.TemporaryDirectory() as out:
        arguments = f"--epochs {epochs} --n-train-items {n_items} --batch-size {batch}".split()
        arguments += ["--n-test-items", "64", "--out", out, "--data-dir", str(REPOSITORY / "data")]
        result = subprocess.run(
            [sys.executable, "-m", "benchmarks.growth", str(width), *arguments],
            check=True,
            cwd=REPOSITORY,
            env=os.environ | ONE_THREAD,
            stdout=subprocess.PIPE,
            text=True,
        )
        record = json.loads(pathlib.Path(out, "run.json").read_text())
    step, memory = record["counters"]["training step"], int(result.stdout.split()[-1]) / 1024
    seconds = [step["seconds"] for step in record["steps"] if items or step["epoch"] > 1]
    n_steps, seconds = (len(seconds), sum(seconds)) if items else (1, statistics.median(seconds))
    opened, dealt = step["opened"], step["dealt"]
    per_step = (step["rounds"], opened / 1e6, dealt / 1e6)
    return dict(zip(FIGURES, (seconds, *(n_steps * x for x in per_step), memory), strict=True))


def slope(sizes, values):
    """The exponent b of the power law a x^b nearest to the values."""
    x, y = ([math.log(number) for number in numbers] for numbers in (sizes, values))
    return statistics.linear_regression(x, y).slope


@as_png
def picture(record):
    """Small multiples on logarithmic axes, a column for what grows and a row for each figure, as a
    PNG; `record`: that of growth.json."""
    groups = record["groups"]
    figure = Figure(figsize=(9, 10))
    axes = figure.subplots(len(FIGURES), len(groups), sharex="col", sharey="row")
    for column, group in enumerate(groups):
        sizes = group["sizes"]
        for row, name in enumerate(FIGURES):
            axis, values = axes[row][column], [figures[name] for figures in group["rows"]]
            axis.loglog(sizes, values, base=2, clip_on=False)
            axis.set_title(
                f"slope {slope(sizes, values):.2f}", fontsize=SMALL, weight="normal", loc="right"
            )
            axis.yaxis.set_major_formatter("{x:,g}")
            axis.minorticks_off()
        axes[-1][column].set(xlabel=group["what"], xticks=sizes, xticklabels=sizes)
    for row, name in enumerate(FIGURES):
        values = [figures[name] for group in groups for figures in group["rows"]]
        least, most = (math.log2(x) for x in (min(values), max(values)))
        axes[row][0].set_ylim(2 ** math.floor(least), 2 ** math.ceil(most))
        axes[row][0].set_ylabel(name)
    caption(figure, f"Logarithmic scales. {record['machine']}")
    return figure


def main():
    """Measure every size, print the tables and draw them."""
    where = machine()
    groups = [
        ("items a batch, a step", BATCHES, [measure(batch=batch) for batch in BATCHES]),
        ("width, a step", WIDTHS, [measure(width=width) for width in WIDTHS]),
        ("items, an epoch", ITEMS, [measure(items=items) for items in ITEMS]),
    ]
    for what, sizes, rows in groups:
        print(f"| {what} | " + " | ".join(FIGURES) + " |")
        print("| --- |" + " --- |" * len(FIGURES))
        for size, figures in zip(sizes, rows, strict=True):
            cells = [f"{figures['seconds']:.3f}", f"{figures['rounds']:,}"]
            cells += [f"{figures[name]:,.1f}" for name in FIGURES[2:]]
            print(f"| {size:,} | " + " | ".join(cells) + " |")
        slopes = (slope(sizes, [figures[name] for figures in rows]) for name in FIGURES)
        print("| slope | " + " | ".join(f"{b:.2f}" for b in slopes) + " |\n")
    groups = [dict(zip(("what", "sizes", "rows"), group, strict=True)) for group in groups]
    record = {"machine": where, "groups": groups}
    keep(RECORD, record, picture)


if __name__ == "__main__":
    run_here(int(sys.argv[1]), sys.argv[2:]) if len(sys.argv) > 1 else main()
