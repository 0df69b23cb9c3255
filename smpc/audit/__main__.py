"""Run the audit, or look at what one party saw.

    python -m smpc.audit                                        # about two minutes: `make audit`
    python train_encrypted.py --transcript run.jsonl
    python -m smpc.audit run.jsonl                              # the same of this run of semi2k
    python -m smpc.audit --transcript run.jsonl --party worker1
    python -m smpc.audit server.jsonl transcripts/*.jsonl       # each party's, of one session

Without a file it records runs of its own, of each protocol, and compares them with others.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from smpc import compat, process
from smpc.audit import PROGRAM
from smpc.process import fail

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing
try:
    compat.prepare()
except compat.UnsupportedVersion as unsupported:
    fail(unsupported, PROGRAM)

from smpc.arguments import Parser, path
from smpc.audit import attacks, chance, checks, conduct, report, simulator
from smpc.audit.merged import Merged
from smpc.audit.transcript import Transcript
from smpc.files import check_writable, named, prepare_folder, write_whole

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SEED = 1
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def record(protocol, folder, n_train, n_test):
    """Have train_encrypted.py train a step and test a batch in a process of its own.

    Returns:
        the `Transcript`, read from disk.
    """
    path = folder / f"{protocol}.jsonl"
    command = [sys.executable, "train_encrypted.py", "--protocol", protocol, "--epochs", 1]
    command += ["--n-train-items", n_train, "--batch-size", n_train, "--seed", SEED]
    command += ["--n-test-items", n_test, "--test-batch-size", n_test]
    command += ["--out", folder, "--transcript", path]
    run = subprocess.run(
        [*map(str, command)],
        cwd=REPOSITORY,
        env=os.environ | ONE_THREAD,
        capture_output=True,
        text=True,
    )
    if run.returncode:
        fail(f"{protocol} could not be run: {run.stderr.strip().splitlines()[-1]}", PROGRAM)
    return Transcript(path)


def run_all(quick, folder):
    """Everything that the audit does.

    Args:
        quick: leave the simulators out, and train on 8 items in place of 64.
        folder: for the transcripts, a pathlib.Path.
    Returns:
        the pairs (view, results of its attacks); the `checks.Truth` that all runs shared; failures,
        lines for the user; the `chance.Tests` that semi2k was put to; and the simulators' results.
    """
    n_train, n_test = (8, 2) if quick else (64, 4)
    rows, failures, tests = [], [], chance.Tests()
    drawn = attacks.generator(SEED)
    for protocol in ["snn", "fss", "semi2k"] if compat.fss_is_available() else ["snn", "semi2k"]:
        transcript = record(protocol, folder, n_train, n_test)
        truth = checks.truth_of(transcript)
        attacked = [(view, checks.attack(view, truth, drawn)) for view in views_of(transcript)]
        rows += attacked
        if protocol != "semi2k":
            for view, results in attacked:
                failures += checks.shortfalls(protocol, view.party, results)
    tests_of(transcript, attacked, tests)
    checks.resampled(folder, tests)
    simulated = [] if quick else simulator.run_all()
    found = conduct.found_in(transcript, most=2) + alarms(tests)
    found += [f"{r.protocol}: {r.party} tells it from ideal" for r in simulated if not r.passed]
    return rows, truth, failures + [f"semi2k: {line}" for line in found], tests, simulated


def views_of(transcript):
    """Those of the parties that are to learn nothing: the orchestrator's first."""
    roster = transcript.roster
    return [*map(transcript.view, (roster.orchestrator, *roster.workers, roster.provider))]


def tests_of(transcript, rows, tests):
    """Put a run of semi2k's to the tests; `rows`: (view, results of its attacks) pairs."""
    for view, results in rows:
        for result in results:
            tests.add(f"{view.party}: {result.secret} by {result.attack}", result.luck)
    checks.examine(transcript, tests)


def alarms(tests):
    """Lines for the user."""
    return [f"{name}: p = {p:.1e}" for name, p in tests.alarms()]


def run_recorded(paths):
    """What the audit does of a training that is recorded: all but what needs runs of its own.

    Args:
        paths: of its transcript, or of each party's.
    Returns:
        the pairs (view, results of its attacks), failures, and the `chance.Tests`.
    """
    transcript, tests = Merged(paths), chance.Tests()
    if transcript.protocol != "semi2k":
        fail(f"{paths[0]} is of {transcript.protocol}, and the rules are those of semi2k", PROGRAM)
    truth, drawn = checks.truth_of(transcript), attacks.generator(transcript.arguments["seed"])
    rows = [(view, checks.attack(view, truth, drawn)) for view in views_of(transcript)]
    tests_of(transcript, rows, tests)
    failures = transcript.contradictions()
    failures += conduct.found_in(transcript, conduct.promised(transcript))
    return rows, failures + alarms(tests), tests


def parse_arguments(argv):
    parser = Parser(__doc__.split("\n")[0], PROGRAM)
    parser.add_argument(
        "transcripts", type=path, nargs="*", metavar="FILE", help="audit this run, or each party's"
    )
    parser.add_argument("--transcript", type=path, metavar="FILE", help="look at this run")
    parser.add_argument("--party", help="whose view of it to print, such as worker1")
    parser.add_argument(
        "--out", type=path, default="results", help="folder for audit.json and audit.png"
    )
    args = parser.parse_args(argv)
    if (args.transcript is None) != (args.party is None):
        fail("--transcript and --party go together", PROGRAM)
    if args.transcripts and args.transcript:
        fail("a transcript to audit, or --transcript to look at: give one of them", PROGRAM)
    return args


@process.in_order(PROGRAM)
def main(argv=None):
    args = parse_arguments(argv)
    if args.transcript:
        view = Transcript(pathlib.Path(args.transcript)).view(args.party)
        with process.to_stdout():
            print(report.listing(view))
        return
    if args.transcripts:
        rows, failures, tests = run_recorded([*map(pathlib.Path, args.transcripts)])
        end(rows, failures, tests)
    with named(f"--out {args.out}"):
        out = prepare_folder(args.out)
        for file in (out / "audit.json", out / "audit.png"):
            check_writable(file)
    with tempfile.TemporaryDirectory() as folder:
        rows, truth, failures, tests, simulated = run_all(False, pathlib.Path(folder))
    found = report.as_json(rows, failures, tests, simulated)
    with named(f"--out {args.out}"):
        write_whole(out / "audit.json", (json.dumps(found, indent=1) + "\n").encode())
        write_whole(out / "audit.png", report.picture(truth, rows))
    exact = sum(result.method == "exact" for result in simulated)
    end(
        *(rows, failures, tests),
        f"semi2k: {len(simulated)} views compared with simulated ones, {exact} of them exactly",
        f"written: {out}/audit.json and {out}/audit.png",
    )


def end(rows, failures, tests, *more):
    """Print what was found, and these lines, and end the program."""
    for failure in failures:
        process.tell(f"FAILED {failure}")
    with process.to_stdout():
        print(f"{report.table(rows)}\n")
        print(
            f"semi2k: the least of {tests.count:,} probabilities is {tests.least:.1e}; "
            f"alarm below {tests.alarm_below:.1e}",
            *more,
            sep="\n",
        )
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
