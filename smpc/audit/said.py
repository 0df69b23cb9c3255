"""What a training prints and leaves behind: that nothing is in it but what the tutorial tells.

Losses, counts, times, memory and bytes are public, and are in run.json; each number there is of its
own kind, so that no other can take its place, or hide in its digits. All that is printed and drawn
follows from these, but for the time of each step and the pointers' ids. What is looked at is a run
of train_encrypted.py under semi2k, in one process, that has come to its end.
"""

import contextlib
import io
import itertools
import json
import mmap
import pathlib
import re
import tempfile
from types import SimpleNamespace

import numpy as np

from smpc import report
from smpc.audit import left
from smpc.audit.transcript import ORCHESTRATOR, OWNERS, PROVIDER
from smpc.semi2k import network
from smpc.semi2k.compiler import LEAST_SIGMA

DAY = 86_400  # seconds
CLOCK = 2.0**-22  # seconds: no finer can time.time() tell them apart, until 2038
TOLD = 2.0**-63  # what a run tells is a multiple of it
MOST = 2**48  # of a number of bytes or messages
# What is printed of a tensor: nothing but ids.
CHAIN = r"\(Wrapper\)>AutogradTensor>FixedPrecisionTensor>\[AdditiveSharingTensor\]"
POINTER = r"\t-> \[PointerTensor \| me:\d{{1,12}} -> {}:\d{{1,12}}\]"
DEALER = rf"\t\*crypto provider: {PROVIDER}\*"
# On stderr: a progress bar, what clears it, and what is told of a checkpoint that is not there yet.
BAR = r" *\d+%\|[ ▏▎▍▌▋▊▉█]*\| \d+/\d+ \[[\d:]+<[\d:?]+, +[\d.?]+ ?items/s\] *"
ANEW = "{} holds no checkpoint yet: starting anew"


def found_in(stdout, stderr, folder, arguments):
    """Whatever has no place in what a training has printed and written: lines for the user.

    Args:
        stdout, stderr: strings.
        folder: of its results, a pathlib.Path, in which there was nothing before.
        arguments: of the script, a dict of all.
    """
    found = left.wrong_files(folder, arguments)
    anew = ANEW.format(arguments["checkpoint"])
    for line in re.split(r"[\r\n]+", stderr):
        if line != anew and not re.fullmatch(f"({BAR}| *)", line):
            found.append(f"stderr: {line!r} has no place there")
    if found:
        return found
    try:
        text = (folder / "run.json").read_text()
        record = json.loads(text)
    except (OSError, ValueError) as error:
        return [f"run.json cannot be read: {error}"]
    if wrong := wrong_record(record, arguments):
        return wrong
    run = as_it_was(record)
    return [
        *first_difference(stdout.split("\n"), *expected_lines(record, run), arguments["resume"]),
        *wrong_rendering(run, folder),
        *left.wrong_model(arguments),
        *left.wrong_checkpoint(record),
        *left.wrong_journals(record),
    ]


# ---- What follows from run.json ------------------------------------------------------------------


def as_it_was(record):
    """The `report.Run` that such a record is of."""
    runs = record["runs"]
    counted = SimpleNamespace(runs=runs["all"], anew=runs["anew"], told=runs["told"])
    with contextlib.redirect_stderr(io.StringIO()):  # so that there is no progress bar
        run = report.Run(record["arguments"], lambda: counted)
    run.restore(record["steps"], record["tests"])
    run.counters, run.plain_steps = record["counters"], record["plain_steps"]
    run.twin = record["plain_twin"]
    return run


def wrong_rendering(run, folder):
    """Files that are not, byte by byte, what comes of the record alone."""
    with tempfile.TemporaryDirectory() as again:
        run.save(pathlib.Path(again))
        return [
            f"{name} has something in it that does not follow from the numbers in run.json"
            for name in report.FILES
            if (folder / name).read_bytes() != pathlib.Path(again, name).read_bytes()
        ]


def expected_lines(record, run):
    """Patterns of all lines on stdout: of what is guaranteed, the training, and its end."""
    arguments = record["arguments"]
    begin = [*map(re.escape, guaranteed(arguments))]
    steps = itertools.groupby(record["steps"], lambda step: step["epoch"])
    training = []
    for (epoch, of_epoch), test in zip(steps, record["tests"], strict=True):
        training += _of_epoch(epoch, of_epoch, arguments["n_train_items"])
        correct, n = test["correct"], test["items"]
        line = f"Test set: Accuracy: {correct}/{n} ({correct / n:.0%})"
        training += ["", re.escape(line), ""]
    end = []
    if model := arguments["save_model"]:
        end += [re.escape(f"the weights were revealed to the model's owner: {model}"), ""]
    pointers = [POINTER.format(worker) for worker in left.workers(arguments)]
    for what in ("model.fc3.bias is ", "the first batch's data is "):
        end += [re.escape(what) + CHAIN, *pointers, DEALER, ""]
    end += map(re.escape, run.summary().split("\n"))
    out = arguments["out"]
    end += ["", re.escape(f"written: {out}/run.json and {out}/accuracy.png"), ""]
    return begin, training, end


def guaranteed(arguments):
    """What a private training says before it begins."""
    if not arguments["private"]:
        return []
    from smpc.privacy import accounting  # here, since it takes seconds

    about = (arguments[name] for name in ("private", "delta", "epochs", "n_workers", "clip"))
    sizes_ = len(sizes(arguments)), left.N_WEIGHTS
    return accounting.guarantee(*about, *sizes_, LEAST_SIGMA).lines()


def _of_epoch(epoch, steps, n):
    done = 0
    for step in steps:
        if step["loss"] is not None:
            line = f"Train Epoch: {epoch} [{done}/{n} ({done / n:.0%})]\t"
            yield re.escape(f"{line}Loss: {step['loss']:.6f}\tTime: ") + r"\d{1,5}\.\d{3}s"
        done += step["items"]


def first_difference(lines, begin, training, end, resumed):
    """The first line that does not match its pattern. (A run that was resumed prints but the last
    part of a training, whichever goes furthest.)"""
    starts = range(len(training) + 1) if resumed else [0]
    matching = [_matching(lines, begin + training[start:] + end) for start in starts]
    if None in matching:
        return []
    number = max(matching)
    line = lines[number] if number < len(lines) else None
    return [f"stdout, line {number + 1}: {line!r} has no place there"]


def _matching(lines, patterns):
    """How many lines match their patterns before one does not; None if all do."""
    for number, (line, pattern) in enumerate(itertools.zip_longest(lines, patterns)):
        if line is None or pattern is None or not re.fullmatch(pattern, line, re.ASCII):
            return number
    return None


# ---- The kinds of numbers ------------------------------------------------------------------------


def whole(x):
    """A number of items, bytes or messages."""
    return type(x) is int and 0 <= x < MOST


def pages(x):
    """Bytes of memory that a process holds."""
    return whole(x) and x % mmap.PAGESIZE == 0


def seconds(x):
    """Of this process's performance counter."""
    return type(x) is float and 0 <= x < DAY


def ticks(x):
    """Seconds of the system's clock."""
    return seconds(x) and (x / CLOCK).is_integer()


def told(x):
    """What runs made anew may have told."""
    return type(x) is float and 0 <= x < 1 and (x / TOLD).is_integer()


def single(x):
    """A number in float32."""
    return type(x) is float and x == float(np.float32(x))


def revealed(x, digits):
    """What was revealed in so many decimal digits, and is in float32."""
    if not single(x) or not abs(x) < 2**52 / 10**digits:
        return False
    near = np.rint(x * 10**digits) + np.arange(-1, 2)  # of these float32 has not every one
    return x in (near.astype(np.float32) / np.float32(10**digits)).tolist()


def version(x):
    """Of a package."""
    return isinstance(x, str) and bool(re.fullmatch(r"[\w.+]{1,20}", x, re.ASCII))


def each(check, n):
    """A list of `n` of what passes `check`."""
    return lambda x: isinstance(x, list) and len(x) == n and all(map(check, x))


def table(checks, may_lack=False):
    """A dict with these keys, in this order, or with some of them, in any; each with what passes
    its check."""
    return lambda x: (
        isinstance(x, dict)
        and (x.keys() <= checks.keys() if may_lack else [*x] == [*checks])
        and all(checks[name](value) for name, value in x.items())
    )


# ---- run.json ------------------------------------------------------------------------------------


def wrong_record(record, arguments):
    """What in run.json is not of the kind that belongs there, or not in order."""
    checks = kinds(arguments)
    if not isinstance(record, dict) or list(record) != list(checks):
        return [f"run.json has other keys than {', '.join(checks)}"]
    found = [
        f"run.json: what is under {name!r} is not of its kind"
        for name, check in checks.items()
        if not check(record[name])
    ]
    return found or out_of_order(record)


def kinds(arguments):
    """What belongs under each key of run.json: name -> check."""
    batches, epochs = len(sizes(arguments)), arguments["epochs"]
    digits, plain = arguments["precision_fractional"], arguments["plain_twin"]

    def none(x):
        return x is None

    def loss(x):
        return x is None or revealed(x, digits)

    def correct(x):
        return revealed(x, 0) and 0 <= x <= arguments["n_test_items"]

    twin = {"losses": each(single, epochs * batches), "correct": each(whole, epochs)}
    step = dict.fromkeys(("epoch", "batch", "items"), whole) | {"loss": loss, "seconds": ticks}
    test = {"epoch": whole, "correct": correct, "items": whole, "seconds": ticks, "memory": pages}
    counters = dict.fromkeys(("training step", "test pass"), counted(arguments))
    return {
        "version": lambda x: x == report.VERSION,
        "arguments": lambda x: x == json.loads(json.dumps(arguments)),
        "versions": table(dict.fromkeys(("python", *report.VERSIONS_OF), version)),
        "interrupted": lambda x: x is False,
        "steps": each(table(step), epochs * batches),
        "tests": each(table(test), epochs),
        "counters": table(counters, may_lack=True),
        "runs": table({"all": whole, "anew": whole, "told": told}),
        "plain_steps": each(ticks, (epochs if plain else 1) * batches),
        "plain_twin": table(twin) if plain else none,
    }


def counted(arguments):
    """The check of `network.Counters` as they are written down."""
    parties = (ORCHESTRATOR, PROVIDER, OWNERS, *left.workers(arguments))
    names = set(network.KINDS.values())
    by_party = table(dict.fromkeys(parties, whole), may_lack=True)
    return table(
        {
            "messages": table(dict.fromkeys(names, whole), may_lack=True),
            "sent": table(dict.fromkeys(names, by_party), may_lack=True),
            **dict.fromkeys(("rounds", "opened", "dealt", "runs", "anew"), whole),
            "told": told,
            "seconds": table(dict.fromkeys(("online", "dealing"), seconds)),
        }
    )


def sizes(arguments):
    """How many items each batch of an epoch has."""
    n, batch = arguments["n_train_items"], arguments["batch_size"]
    return [min(batch, n - start) for start in range(0, n, batch)]


def out_of_order(record):
    """Steps and tests that are not those of the arguments, and losses that nobody asked for."""
    arguments = record["arguments"]
    epochs = range(1, arguments["epochs"] + 1)
    steps = [
        {
            "epoch": epoch,
            "batch": batch,
            "items": items,
            "told": not (batch % arguments["log_interval"] or arguments["private"]),
        }
        for epoch in epochs
        for batch, items in enumerate(sizes(arguments))
    ]
    tests = [{"epoch": epoch, "items": arguments["n_test_items"]} for epoch in epochs]
    done = [step | {"told": step["loss"] is not None} for step in record["steps"]]
    found = []
    for what, expected, there in (("step", steps, done), ("test", tests, record["tests"])):
        for number, (one, other) in enumerate(zip(expected, there, strict=True)):
            if one.items() - other.items():
                found.append(f"run.json: {what} {number} is not the one that was to come")
    return found
