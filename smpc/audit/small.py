"""The audit of small runs of semi2k: what every break of it must show, without the script."""

import stat

from smpc.audit import Finding, refusals, resample
from smpc.audit.examine import examined
from smpc.audit.scenarios import SCENARIOS, many

KEPT = 2  # files of checkpoints that a worker keeps, at most


def findings(folder, tests, quick=True):
    """Everything that it finds for certain, as soon as it is found.

    Args:
        folder: for the transcripts, an empty one, a pathlib.Path.
        tests: the `chance.Tests` that what is opened is put to.
        quick: leave out what is large, and repetitions.
    Yields:
        `Finding`s.
    """
    for scenario in SCENARIOS.values():
        if not (quick and scenario is many):
            yield from of_scenario(scenario, folder, tests)
    yield from (Finding("messages", line) for line in refusals.found_in())
    resample.resampled(folder, tests, repeats=1 if quick else 2)


def of_scenario(scenario, folder, tests):
    """The same of one of `scenarios.SCENARIOS`."""
    before, transcripts = {*folder.rglob("*")}, scenario(folder)
    for transcript, (ledger, found) in zip(transcripts, examined(transcripts, tests), strict=True):
        yield from found
        yield from wrong_reveals(transcript, ledger)
    yield from wrong_files({*folder.rglob("*")} - before, transcripts)


def wrong_reveals(transcript, ledger):
    """Where more is revealed, or less, or to another, than the scenario has asked for."""
    arguments = transcript.arguments
    told = [run for run in ledger.runs if run.revealed.size]
    sizes, readers = [run.revealed.size for run in told], {run.to for run in told}
    if sizes != arguments["revealed"]:
        yield Finding("meaning", f"{sizes} numbers are revealed, not {arguments['revealed']}")
    if not readers <= {None, arguments.get("revealed_to")}:
        yield Finding("meaning", f"something is revealed to {readers}")


def wrong_files(paths, transcripts):
    """Files that are neither transcripts nor what a worker was seen to write, for itself alone."""
    written, kept = {}, {}
    for transcript in transcripts:
        for worker in transcript.roster.workers:
            view = transcript.view(worker)
            for entry in view.arrays("written"):
                written.setdefault(worker, set()).add(view.value(entry).tobytes())
    for path in sorted(path for path in paths if not path.is_dir()):
        worker = path.parent.name
        if path.suffix == ".shares" and worker in written:
            kept[worker] = kept.get(worker, 0) + 1
            if path.read_bytes() not in written[worker] or stat.S_IMODE(path.stat().st_mode) & 0o77:
                yield Finding("files", f"{path.name} of {worker} is not what it wrote, for itself")
        elif not path.name.endswith((".jsonl", ".jsonl.npz")):
            yield Finding("files", f"{path.name} has no place in {worker}")
    if max(kept.values(), default=0) > KEPT:
        yield Finding("files", f"more checkpoints are kept than {KEPT}")
