"""The negative controls of docs/audit.md, carried out: each breaks one line of the source, and the
audit is run on what is broken, in a process of its own.

    python -m tests.audit.broken                  # as JSON: what the audit finds under each control
    python -m tests.audit.broken reads            # only those whose names have this word, or others

The document is the only place where a control is written down. Its source is never changed: whoever
imports the module of a control is given it with that line broken. So that this takes no longer than
it must, one process imports what is not this project's, and forks a child for each control.
"""

import gc
import importlib
import json
import multiprocessing
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
from importlib.machinery import PathFinder, SourceFileLoader
from typing import NamedTuple

from tests import programs

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "audit.md"
SMALL = "small"  # unless the document says otherwise
QUICK = "products", "integers", "forms"  # scenarios that show most
AT_ONCE = 2
SECONDS = 300  # for one control, at most
# What the audit imports of others', before the fork.
PRELOADED = (
    *("numpy", "scipy.stats", "msgpack", "torch"),
    *("cryptography.hazmat.primitives.ciphers", "cryptography.hazmat.primitives.kdf.hkdf"),
)


class Control(NamedTuple):
    """A line that is broken on purpose.

    Attributes:
        check: the name of the check that must catch it; `what`: is broken, in words.
        file: which, from the repository's root.
        old, new: whole lines: one, and those beside it that say which it is; and what is there
            instead.
        run: a key of `RUNS`.
    """

    check: str
    what: str
    file: str
    old: str
    new: str
    run: str

    @property
    def name(self):
        """Of all controls, this one's."""
        return f"{self.check}: {self.what}"

    @property
    def module(self):
        """What is imported of its file."""
        return self.file.removesuffix(".py").replace("/", ".")

    def broken(self):
        """Its file's text, with the line broken.

        Raises:
            ValueError: the line does not stand there, or more than once.
        """
        text = "\n" + (REPOSITORY / self.file).read_text()
        if (times := text.count("\n" + self.old)) != 1:
            raise ValueError(f"{self.name}: stands {times} times in {self.file}")
        return text.replace("\n" + self.old, "\n" + self.new)[1:]


def controls(text):
    """The `Control`s in the text of the document."""
    found, check, run = [], None, SMALL
    parts = r"^## (.+)$|^Run with `(\w+)`:$|^```diff\n((?:.*\n)+?)```$"
    for title, named, block in re.findall(parts, text, re.MULTILINE):
        if title:
            check, run = title.strip("`"), SMALL
        elif named:
            run = named
        else:
            found.append(_control(check, run, block))
    return found


def checks_named(text):
    """The names of the checks that have a section in the text of the document."""
    return re.findall(r"^## `([a-z]+)`$", text, re.MULTILINE)


def _control(check, run, block):
    head, *lines = block.splitlines()
    file, what = re.fullmatch(r"# (\S+): (.+)", head).groups()
    if [line[0] for line in lines if line[0] != " "] not in (["-"], ["-", "+"]):
        raise ValueError(f"{what}: breaks more lines than one, or none")
    old, new = ("".join(f"{x[1:]}\n" for x in lines if x[0] in (" ", sign)) for sign in "-+")
    return Control(check, what, file, old, new, run)


# ---- Running one ---------------------------------------------------------------------------------


class Finder:
    """Finds the module of a control, broken: the first of `sys.meta_path`."""

    def __init__(self, control):
        self.module, self.text = control.module, control.broken()

    def find_spec(self, name, path, target=None):
        """See `importlib.abc.MetaPathFinder`."""
        if name != self.module:
            return None
        spec = PathFinder.find_spec(name, path)
        spec.loader = Loader(name, spec.origin)
        spec.loader.text = self.text
        return spec


class Loader(SourceFileLoader):
    """Loads a module from `text`, whatever its file has; tracebacks speak of the file."""

    def get_code(self, fullname):
        """See `importlib.abc.InspectLoader`."""
        return compile(self.text, self.path, "exec")


def small(folder, _):
    """The small audit, in this process; what takes no time first, and then all of it."""
    from smpc.audit import chance
    from smpc.audit.small import findings

    for name in QUICK:
        yield from scenario(name, folder)
    (folder / "all").mkdir()
    tests = chance.Tests()
    yield from findings(folder / "all", tests)
    yield from tests.findings()


def scenario(name, folder):
    """What is found in one of `scenarios.SCENARIOS`."""
    from smpc.audit import chance
    from smpc.audit.scenarios import SCENARIOS
    from smpc.audit.small import of_scenario

    tests = chance.Tests()
    yield from of_scenario(SCENARIOS[name], folder, tests)
    yield from tests.findings()


def resampled(folder, _):
    """A small computation under two secrets."""
    from smpc.audit import chance, resample

    tests = chance.Tests()
    resample.resampled(folder, tests, repeats=1)
    yield from tests.findings()


def refusals(folder, _):
    """What the ends say when they refuse something."""
    from smpc.audit import Finding, refusals

    yield from (Finding("messages", line) for line in refusals.found_in())


def simulators(folder, _):
    """The simulators of a few protocols, those that are quick on a small ring."""
    from smpc.audit import Finding, ideal, simulator
    from smpc.audit.ideal_comparison import Comparison, Select
    from smpc.audit.ideal_truncation import Truncation
    from smpc.audit.transcript import WORKERS

    for protocol in (ideal.Mask(), Truncation(d=2), Comparison(compared=2), Select("masked")):
        for worker in WORKERS:
            result = simulator.check(protocol, worker)
            if not result.passed:
                yield Finding("simulators", f"{result.protocol}: {worker} tells it from ideal")


# What is run in a copy of the repository: the script, and the audit of that run.
OF_THE_SCRIPT = """
import json, pathlib
from smpc.audit import __main__ as audit, chance, scenarios
from tests import programs
sizes = ["--n-train-items", 8, "--batch-size", 8, "--n-test-items", 2, "--test-batch-size", 2]
sizes += ["--epochs", 1, "--seed", audit.SEED]
with programs.forked():
    run = scenarios.run_script(pathlib.Path("run.jsonl").resolve(), *sizes, *MORE)
tests = chance.Tests()
audit.attack(run.transcript, audit.SEED, tests)
for find in (tests.findings, lambda: audit.examined_runs([run], tests), tests.findings):
    for finding in find():
        print(json.dumps(finding))
"""


def script(folder, control, more="()"):
    """A short training by the script, in a copy of the repository that is broken on disk.

    Args:
        more: what its further arguments are, in Python.
    """
    shutil.copytree(REPOSITORY / "smpc", folder / "smpc", ignore=lambda *_: {"__pycache__"})
    shutil.copy(REPOSITORY / "train_encrypted.py", folder)
    (folder / "data").symlink_to(REPOSITORY / "data")
    (folder / programs.AUDITED).write_text(OF_THE_SCRIPT.replace("MORE", more))
    if control is not None:
        (folder / control.file).write_text(control.broken())
    command = [sys.executable, programs.AUDITED]
    with programs.forked():
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    yield from map(json.loads, run.stdout.splitlines())
    if run.returncode:
        raise RuntimeError(run.stderr)


def privately(folder, control):
    """The same, private."""
    yield from script(folder, control, "scenarios.PRIVATE")


RUNS = {run.__name__: run for run in (small, resampled, refusals, simulators, script, privately)}


def outcome(job):
    """What comes of a run, with a line broken if there is a control.

    Args:
        job: (the name of the run, a `Control` or None).
    Returns:
        {"found": pairs (check, text), up to the first of the control's check; "error": what the run
        ended with before that, a traceback, or None}.
    """
    (name, control), found = job, []
    start = RUNS.get(name, lambda folder, _: scenario(name, folder))
    try:
        if any(module.startswith("smpc") for module in sys.modules):
            raise RuntimeError("some of what is to be broken has been imported already")
        if control is not None:
            sys.meta_path.insert(0, Finder(control))
        with tempfile.TemporaryDirectory() as folder:
            for check, text in start(pathlib.Path(folder), control):
                found.append((check, text))
                if control is not None and check == control.check:
                    break
        return {"found": found, "error": None}
    except BaseException:
        return {"found": found, "error": traceback.format_exc()}


def all_outcomes(jobs):
    """The outcome of each, in order."""
    for module in PRELOADED:
        importlib.import_module(module)
    if any(name in (script.__name__, privately.__name__) for name, _ in jobs):
        programs.server()  # before they are forked, for all of them
    gc.freeze()  # or each of them copies what was imported
    with multiprocessing.get_context("fork").Pool(AT_ONCE, maxtasksperchild=1) as pool:
        outcomes = pool.imap(outcome, jobs)
        return [outcomes.next(timeout=SECONDS) for _ in jobs]


def whole(run):
    """What an outcome is called of a run of what is not broken."""
    return f"nothing is broken: {run}"


def main(*words):
    """Print, as JSON, the outcomes of all controls, and of each run of what is not broken; or of
    those whose names have one of some words."""
    every = controls(DOCUMENT.read_text())
    jobs = {whole(run): (run, None) for run in dict.fromkeys(control.run for control in every)}
    jobs |= {control.name: (control.run, control) for control in every}
    names = [name for name in jobs if not words or any(word in name for word in words)]
    outcomes = all_outcomes([jobs[name] for name in names])
    json.dump(dict(zip(names, outcomes, strict=True)), sys.stdout, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
