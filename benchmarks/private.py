"""All of MNIST with differential privacy: what it costs in accuracy, and in seconds of a step.

    make private          # some forty minutes; prints two tables, writes results/private.json

For each ε `train_encrypted.py --private` trains on all 60,000 items, in a process of its own with
one thread, and beside it its plain twin: the same clipping, and noise of the same kind, in the
clear. Then steps are taken with privacy and without, in turn.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

from benchmarks.training import ONE_THREAD, REPOSITORY
from smpc.files import write_whole

RATES = {8: ("0.06", "0.15"), 2: ("0.05",)}  # by ε: of each epoch, the last stays
EPOCHS, BATCH, STEPS, TURNS = 10, 3000, 4, 3
WHOLE = f"--epochs {EPOCHS} --n-train-items 60000 --n-test-items 10000 --test-batch-size 1000"
SHORT = f"--epochs 1 --n-train-items {STEPS * BATCH} --n-test-items 64"


def run(*arguments):
    """What a run of the script leaves in `run.json`."""
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "train_encrypted.py", "--batch-size", str(BATCH), "--out", out]
        subprocess.run(
            [*command, "--data-dir", str(REPOSITORY / "data"), *arguments],
            check=True,
            cwd=REPOSITORY,
            env=os.environ | ONE_THREAD,
            stdout=subprocess.DEVNULL,
        )
        return json.loads(pathlib.Path(out, "run.json").read_text())


def trained(epsilon):
    """Correct test items after each epoch, of the encrypted run and of its twin, and seconds of all
    steps."""
    options = ("--private", str(epsilon), "--lr", *RATES[epsilon], "--momentum", "0.9")
    record = run(*options, *WHOLE.split(), "--plain-twin")
    return {
        "encrypted": [test["correct"] for test in record["tests"]],
        "twin": record["plain_twin"]["correct"],
        "seconds": sum(step["seconds"] for step in record["steps"]),
    }


def step_seconds(*options):
    """The median of a short run's steps, the first, in which kept masks are made, left out."""
    steps = run(*SHORT.split(), *options)["steps"]
    return statistics.median(step["seconds"] for step in steps[1:])


def main():
    """Train, measure, print the tables."""
    runs = {epsilon: trained(epsilon) for epsilon in RATES}
    print(f"Correct of 10,000, δ = 1e-5, {EPOCHS} epochs in batches of {BATCH:,}:\n")
    numbers = " | ".join(map(str, range(1, EPOCHS + 1)))
    print(f"| ε | after epoch | {numbers} | minutes of steps |")
    print("| --- | --- |" + " --- |" * (EPOCHS + 1))
    for epsilon, found in runs.items():
        for who, minutes in (("encrypted", f"{found['seconds'] / 60:.0f}"), ("twin", "")):
            cells = " | ".join(f"{correct:,.0f}" for correct in found[who])
            print(f"| {epsilon} | {who} | {cells} | {minutes} |")
    turns = [(step_seconds("--private", "8"), step_seconds()) for _ in range(TURNS)]
    with_privacy, without = map(statistics.median, zip(*turns, strict=True))
    ratio = statistics.median(a / b for a, b in turns)
    print(f"\nSeconds of a step of {BATCH:,} items: {with_privacy:.2f} with privacy, {without:.2f}")
    print(f"without; {ratio:.2f} times as many (the median of {TURNS} pairs of runs).")
    record = {"runs": runs, "step": {"private": with_privacy, "plain": without, "ratio": ratio}}
    path = REPOSITORY / "results" / "private.json"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(record, indent=1).encode())


if __name__ == "__main__":
    main()
