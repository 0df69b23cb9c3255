"""`said`, of the files that a training leaves: those asked for, with nothing else in them."""

import hashlib
import math
import pathlib
import re

import msgpack
import torch

from smpc import checkpoint, report
from smpc.audit.meaning import PARAMETERS
from smpc.audit.transcript import values_of
from smpc.files import FileError
from smpc.model import load_model
from smpc.semi2k import storage

DIGEST = 32  # bytes at the end of a checkpoint's file
N_WEIGHTS = sum(map(math.prod, PARAMETERS))
# A line of the journal in which a private training counts.
TAKEN = r'{{"time": "[-\dT:+]{{25}}", "what": "taken", "batch": {}, "before": "{}"}}\n'
SLACK = 1 << 13  # bytes that torch's file of a model has beside its numbers


def workers(arguments):
    """Their ids."""
    return [f"worker{i + 1}" for i in range(arguments["n_workers"])]


def wrong_files(folder, arguments):
    """Files in the folders of the results and of the checkpoint that nobody asked for, and files
    that are missing. (How many a worker has in the checkpoint, `wrong_checkpoint` looks at.)"""
    asked = [folder / name for name in report.FILES]
    if arguments["transcript"]:
        path = pathlib.Path(arguments["transcript"])
        asked += [path, values_of(path)]
    if arguments["save_model"]:
        asked.append(pathlib.Path(arguments["save_model"]))
    there = [*folder.rglob("*")]
    if arguments["checkpoint"]:
        kept = pathlib.Path(arguments["checkpoint"])
        there += kept.rglob("*")
        asked += [kept / name for name in checkpoint.FILES]
        asked += [file for name in workers(arguments) for file in kept.glob(f"{name}/*.shares")]
        asked += journals(arguments)
        there += [other for file in journals(arguments)[:1] for other in file.parent.iterdir()]
    folders = {parent.resolve() for file in asked for parent in file.parents}
    asked, there = ({*map(pathlib.Path.resolve, paths)} for paths in (asked, there))
    found = [f"{path} is there, and nobody asked for it" for path in there - asked - folders]
    return sorted(found + [f"{path} is not there" for path in asked if not path.is_file()])


def wrong_model(arguments):
    """A model's file that has more in it than the weights."""
    if not arguments["save_model"]:
        return []
    path, module = pathlib.Path(arguments["save_model"]), torch.nn.Module()
    for number, (n_out, n_in) in enumerate(PARAMETERS[::2], 1):  # of the others are the biases
        setattr(module, f"fc{number}", torch.nn.Linear(n_in, n_out))
    try:
        load_model(module, path)
    except FileError as error:
        return [str(error)]
    size, most = path.stat().st_size, 4 * N_WEIGHTS + SLACK
    return [f"{path} has {size} bytes, and the weights take {most}"] if size > most else []


def wrong_checkpoint(record):
    """A checkpoint that has more in it than the record, and each worker's shares of the weights."""
    arguments = record["arguments"]
    if not arguments["checkpoint"]:
        return []
    folder = pathlib.Path(arguments["checkpoint"])
    try:
        progress = storage.read(folder / "progress")
    except storage.CheckpointError as error:
        return [str(error)]
    names = checkpoint.DEFINING
    names += checkpoint.OF_A_PRIVATE_RUN if arguments["private"] else ()
    expected = {
        "format": storage.FORMAT,
        "save": progress.get("save"),
        "step": len(record["steps"]),
        "arguments": {name: arguments[name] for name in names},
        **{name: record[name] for name in ("steps", "tests")},
        "position": None,
    }
    if not is_save(progress.get("save")) or not _holds(folder / "progress", expected):
        return [f"{folder}/progress has something else in it than the record"]
    found = []
    if size := (folder / "lock").stat().st_size:
        found.append(f"{folder}/lock has {size} bytes")
    for worker in workers(arguments):
        found += wrong_shares(folder / worker, worker, progress)
    return found


def journals(arguments):
    """The files in which a private training counts how often each batch was used."""
    if not (arguments["private"] and arguments["checkpoint"]):
        return []
    kept = pathlib.Path(arguments["checkpoint"])
    return [kept.with_name(f"{kept.name}.privacy") / f"{name}.jsonl" for name in workers(arguments)]


def wrong_journals(record):
    """Journals of a private training that have more in them than its batches, in order."""
    batches = [step["batch"] for step in record["steps"]]
    return [
        f"{path} has something else in it than the batches that were used"
        for path in journals(record["arguments"])
        if not _is_of(path.read_bytes().splitlines(keepends=True), batches)
    ]


def _is_of(lines, batches):
    """Whether each line says that a batch was used, and holds the SHA-256 of the one before."""
    befores = [b"", *lines]
    expected = [
        TAKEN.format(batch, hashlib.sha256(before).hexdigest())
        for batch, before in zip(batches, befores, strict=False)
    ]
    return len(lines) == len(batches) and all(
        re.fullmatch(pattern.encode(), line) for pattern, line in zip(expected, lines, strict=True)
    )


def is_save(name):
    """Whether it is a name that a save draws."""
    return isinstance(name, str) and bool(re.fullmatch(r"[0-9a-f]{32}", name))


def _holds(path, fields):
    """Whether a file holds these fields, in this order, and nothing else."""
    return path.read_bytes()[:-DIGEST] == msgpack.packb(fields)


def wrong_shares(folder, worker, progress):
    """What has no place in a worker's folder: it has the last save, and the one before it."""
    last = folder / f"{progress['step']}.shares"
    paths = [*folder.glob("*.shares")]
    if last not in paths or len(paths) > 2:
        return [f"{folder} has {', '.join(sorted(path.name for path in paths)) or 'nothing'}"]
    found = []
    for path in paths:
        try:
            fields = storage.read(path)
            save, shares = fields["about"]["run"], fields["shares"]
        except (storage.CheckpointError, LookupError, TypeError) as error:
            found.append(f"{path}: {error}")
            continue
        about = {"run": progress["save"] if path == last else save, "step": int(path.stem)}
        expected = {"format": storage.FORMAT, "worker": worker, "about": about}
        expected |= {"shapes": PARAMETERS, "shares": shares}
        if not (is_save(save) and len(shares) == 8 * N_WEIGHTS and _holds(path, expected)):
            found.append(f"{path}: it has something else in it than shares of the weights")
    return found
