"""Run the audit, or look at what one party saw.

    python -m smpc.audit                                        # about two minutes: `make audit`
    python train_encrypted.py --transcript run.jsonl && \\
    python -m smpc.audit --transcript run.jsonl --party worker1
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
from smpc.audit.transcript import PARTIES, Transcript
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
        for party in report.NAMES:
            view = transcript.view(party)
            results = checks.attack(view, truth, drawn)
            rows.append((view, results))
            if protocol == "semi2k":
                for result in results:
                    tests.add(f"{party}: {result.secret} by {result.attack}", result.luck)
            else:
                failures += checks.shortfalls(protocol, party, results)
    checks.examine(transcript, tests)
    checks.resampled(folder, tests)
    simulated = [] if quick else simulator.run_all()
    found = conduct.found_in(transcript, most=2)
    found += [f"{name}: p = {p:.1e}" for name, p in tests.alarms()]
    found += [f"{r.protocol}: {r.party} tells it from ideal" for r in simulated if not r.passed]
    return rows, truth, failures + [f"semi2k: {line}" for line in found], tests, simulated


def parse_arguments(argv):
    parser = Parser(__doc__.split("\n")[0], PROGRAM)
    parser.add_argument("--transcript", type=path, metavar="FILE", help="look at this run")
    parser.add_argument("--party", help=f"whose view to print: {', '.join(PARTIES)}, ...")
    parser.add_argument(
        "--out", type=path, default="results", help="folder for audit.json and audit.png"
    )
    args = parser.parse_args(argv)
    if (args.transcript is None) != (args.party is None):
        fail("--transcript and --party go together", PROGRAM)
    return args


@process.in_order(PROGRAM)
def main(argv=None):
    args = parse_arguments(argv)
    if args.transcript:
        view = Transcript(pathlib.Path(args.transcript)).view(args.party)
        with process.to_stdout():
            print(report.listing(view))
        return
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
    for failure in failures:
        process.tell(f"FAILED {failure}")
    exact = sum(result.method == "exact" for result in simulated)
    with process.to_stdout():
        print(report.table(rows))
        print(
            f"\nsemi2k: the least of {tests.count:,} probabilities is "
            f"{found['semi2k']['least']:.1e}; alarm below {found['semi2k']['alarm_below']:.1e}"
        )
        print(
            f"semi2k: {len(simulated)} views compared with simulated ones, {exact} of them exactly"
        )
        print(f"written: {out}/audit.json and {out}/audit.png")
    raise SystemExit(bool(failures))


if __name__ == "__main__":
    main()
