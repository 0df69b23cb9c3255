"""Run the audit, or look at what one party saw.

    python -m smpc.audit                                        # about three minutes: `make audit`
    python train_encrypted.py --transcript run.jsonl
    python -m smpc.audit run.jsonl                              # the same of this run of semi2k
    python -m smpc.audit --transcript run.jsonl --party worker1
    python -m smpc.audit server.jsonl transcripts/*.jsonl       # each party's, of one session

Without a file it records runs of its own, of each protocol, and compares them with others.
"""

import json
import pathlib
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from smpc import compat, process
from smpc.audit import PROGRAM, Finding
from smpc.process import fail

if __name__ == "__main__":
    process.prepare()  # for Ctrl-C while importing
process.prepare_syft(PROGRAM)

from smpc.arguments import Parser, path
from smpc.audit import (
    attacks,
    chance,
    checks,
    meaning,
    report,
    resample_step,
    scenarios,
    simulator,
    small,
)
from smpc.audit.examine import examined
from smpc.audit.merged import Merged
from smpc.audit.transcript import Transcript
from smpc.files import check_writable, named, prepare_folder, write_whole

SEED = 1


class Audit(NamedTuple):
    """What an audit has found.

    Attributes:
        rows: the pairs (view, results of its attacks).
        truth: the `checks.Truth` that all recorded runs shared.
        findings: a list of `Finding`: whatever should not be.
        tests: the `chance.Tests` that semi2k was put to.
        simulated: the simulators' results.
    """

    rows: list
    truth: object
    findings: list
    tests: chance.Tests
    simulated: list


def available():
    """syft's own protocols that there are here."""
    return ("snn", "fss") if compat.fss_is_available() else ("snn",)


def run_all(quick, folder, stock):
    """Everything that the audit does: an `Audit`.

    Args:
        quick: leave the simulators out, and what takes as long; train on 8 items in place of 64.
        folder: for the transcripts, a pathlib.Path.
        stock: those of syft's own protocols that are recorded and attacked, too.
    """
    tests, simulated, alone = chance.Tests(), [], folder / "small"
    alone.mkdir()
    with ThreadPoolExecutor(1) as beside:  # what the script runs is in processes of its own
        sizes = (8, 2) if quick else (64, 4)
        recorded = beside.submit(record_protocols, folder, (*stock, "semi2k"), *sizes)
        trained = None if quick else beside.submit(scenarios.script, folder)
        findings = [*small.findings(alone, tests, quick)]
        resample_step.resampled(alone, tests, quick)
        if not quick:
            simulated = simulator.run_all()
            findings += [
                Finding("simulators", f"{r.protocol}: {r.party} tells it from ideal")
                for r in simulated
                if not r.passed
            ]
        rows, truth = [], None
        for run in recorded.result():
            attacked, truth = attack(run.transcript, SEED, tests)
            findings += shortfalls(run.transcript.protocol, attacked)
            rows += attacked
        runs = [[run] for run in recorded.result() if run.transcript.protocol == "semi2k"]
        runs += [] if quick else trained.result()
    for session in runs:
        findings += examined_runs(session, tests)
    findings += sees_more(rows)
    return Audit(rows, truth, [*findings, *tests.findings()], tests, simulated)


def record_protocols(folder, protocols, n_train, n_test):
    """Have the script train a step and test a batch under each of these, and under semi2k once more
    with privacy: a list of `scenarios.Run`."""
    sizes = ["--epochs", 1, "--seed", SEED]
    sizes += ["--n-train-items", n_train, "--batch-size", n_train]
    sizes += ["--n-test-items", n_test, "--test-batch-size", n_test]
    runs = {protocol: ("--protocol", protocol) for protocol in protocols}
    runs["private"] = scenarios.PRIVATE
    return [
        scenarios.run_script(folder / f"{name}.jsonl", *arguments, *sizes)
        for name, arguments in runs.items()
    ]


def attack(transcript, seed, tests):
    """Make every attack on every view, and put those on semi2k to the tests.

    Returns:
        the pairs (view, results), for the parties that are to learn nothing, the orchestrator's
        first; and the `checks.Truth`.
    """
    truth, drawn, roster = checks.truth_of(transcript), attacks.generator(seed), transcript.roster
    views = map(transcript.view, (roster.orchestrator, *roster.workers, roster.provider))
    rows = [(view, checks.attack(view, truth, drawn)) for view in views]
    for view, results in rows if transcript.protocol == "semi2k" else ():
        for result in results:
            name = f"attacks: {view.party}: {result.secret} by {result.attack}"
            tests.add(name, result.luck)
    return rows, truth


def shortfalls(protocol, rows):
    """Where an attack on syft's protocols did not recover what it is known to."""
    if protocol == "semi2k":
        return []
    return [f for view, results in rows for f in checks.shortfalls(protocol, view.party, results)]


def sees_more(rows):
    """Where a party is sent more kinds of values in a private training than in the same one
    without, or the orchestrator more numbers: a list of `Finding`."""
    received = {
        (view.is_private, view.party): report.saw(view)["received"]["arrays"]
        for view, _ in rows
        if view.protocol == "semi2k"
    }
    found = []
    for (is_private, party), arrays in received.items():
        before = received[False, party]
        more = sorted(arrays.keys() - before.keys())
        if "revealed" in arrays and arrays["revealed"] != before.get("revealed"):
            more.append("revealed")
        if is_private and more:
            found.append(Finding("messages", f"{party} sees more with privacy: {', '.join(more)}"))
    return found


def examined_runs(runs, tests):
    """What is wrong with trainings by the script, of which later ones go on from earlier ones."""
    examined_ = examined((run.transcript for run in runs), tests)
    for run, (ledger, found) in zip(runs, examined_, strict=True):
        yield from found
        yield from meaning.found_in(ledger, run.transcript)
        yield from run.left()


def run_recorded(paths):
    """What the audit does of a training that is recorded: all but what needs runs of its own.

    Args:
        paths: of its transcript, or of each party's.
    Returns:
        an `Audit`.
    """
    transcript, tests = Merged(paths), chance.Tests()
    if transcript.protocol != "semi2k":
        fail(f"{paths[0]} is of {transcript.protocol}, and the rules are those of semi2k", PROGRAM)
    rows, truth = attack(transcript, transcript.arguments["seed"], tests)
    ((ledger, findings),) = examined([transcript], tests)
    findings += [Finding("messages", line) for line in transcript.contradictions()]
    findings += meaning.found_in(ledger, transcript)
    return Audit(rows, truth, [*findings, *tests.findings()], tests, [])


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
        end(run_recorded([*map(pathlib.Path, args.transcripts)]))
    with named(f"--out {args.out}"):
        out = prepare_folder(args.out)
        for file in (out / "audit.json", out / "audit.png"):
            check_writable(file)
    with tempfile.TemporaryDirectory() as folder:
        audit = run_all(False, pathlib.Path(folder), available())
    with named(f"--out {args.out}"):
        write_whole(
            out / "audit.json", (json.dumps(report.as_json(audit), indent=1) + "\n").encode()
        )
        write_whole(out / "audit.png", report.picture(audit.truth, audit.rows))
    n, exact = len(audit.simulated), sum(r.method == "exact" for r in audit.simulated)
    end(
        audit,
        f"semi2k: {n} views compared with simulated ones, {exact} of them exactly",
        f"written: {out}/audit.json and {out}/audit.png",
    )


def end(audit, *more):
    """Print what was found, and these lines, and end the program."""
    for finding in dict.fromkeys(audit.findings):
        process.tell(f"FAILED {finding}")
    with process.to_stdout():
        print(f"{report.table(audit.rows)}\n")
        print(
            f"semi2k: the least of {audit.tests.count:,} probabilities is {audit.tests.least:.1e}; "
            f"alarm below {audit.tests.alarm_below:.1e}",
            *more,
            sep="\n",
        )
    raise SystemExit(bool(audit.findings))


if __name__ == "__main__":
    main()
