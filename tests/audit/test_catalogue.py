"""Every negative control of docs/audit.md is caught, by the check under which it stands."""

import json
import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.audit import broken

TEXT = broken.DOCUMENT.read_text()
CONTROLS = broken.controls(TEXT)
CHECKS = (
    *("keys", "streams", "dealing", "openings", "results", "messages", "files", "chance"),
    *("resampled", "simulators", "attacks", "meaning", "outputs"),
)
MODULES = {
    f"smpc/semi2k/{module}.py"
    for module in (
        *("arithmetic", "comparison", "dealer", "randomness", "run", "worker", "provider"),
        *("owner", "session", "compiler", "wire", "network", "storage", "program", "ring"),
    )
}


# How many controls of each run and check `make test` carries out, and of each check; but none of
# what takes many seconds, and the first of every file.
MOST_KEPT, MOST, SLOW = 1, 6, ("many", "privately", "private_anew")
# Long runs, of which `test_audit` or `test_scenarios` finds nothing in what is not broken.
FOUND_ELSEWHERE = "small", "many", "script", "private_anew", "privately"


def carried_out(*names):
    """The outcomes that have these names."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.audit.broken", *names],
        cwd=broken.REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="session")
def outcomes(request):
    """The name of a control, or of a run of what is not broken -> what came of it; of those that
    tests were chosen of."""
    chosen = (item for item in request.session.items if "outcomes" in item.fixturenames)
    return carried_out(*(item.callspec.params["name"] for item in chosen))


def named(name, is_thorough):
    return pytest.param(name, marks=[pytest.mark.thorough] * is_thorough)


def each_control():
    """Parameters: the name of each; `thorough` are those beyond what is kept of their kind, but for
    the first that breaks a file."""
    kinds, kept, files = Counter(), Counter(), set()
    for control in CONTROLS:
        kinds[control.run, control.check] += 1
        more = kinds[control.run, control.check] > MOST_KEPT or kept[control.check] >= MOST
        more = (more or control.run in SLOW) and control.file in files
        kept[control.check] += not more
        yield named(control.name, more)
        files.add(control.file)


@pytest.mark.parametrize("name", [*each_control()])
def test_a_control_is_caught_by_the_check_that_it_stands_under(outcomes, name):
    outcome = outcomes[name]
    assert outcome["error"] is None  # what does not run to its end shows nothing
    assert name.split(":")[0] in {check for check, _ in outcome["found"]}


@pytest.mark.parametrize(
    "name",
    [
        named(broken.whole(run), run in FOUND_ELSEWHERE)
        for run in sorted({control.run for control in CONTROLS})
    ],
)
def test_nothing_is_found_in_what_is_not_broken(outcomes, name):
    assert outcomes[name] == {"found": [], "error": None}


def test_every_check_has_controls():
    assert broken.checks_named(TEXT) == [*CHECKS]
    for check in CHECKS:
        assert sum(control.check == check for control in CONTROLS) >= 2, check


def test_there_are_many_of_every_module():
    assert len({control.name for control in CONTROLS}) == len(CONTROLS) >= 55
    assert {control.file for control in CONTROLS} >= MODULES


def test_some_of_each_kind_are_not_thorough():
    """One of every check, one of every module, three of privacy's noise."""
    of_name = {control.name: control for control in CONTROLS}
    kept = [of_name[param.values[0]] for param in each_control() if not param.marks]
    for check in CHECKS:
        assert any(control.check == check for control in kept), check
    assert {control.file for control in kept} >= MODULES
    assert sum(control.run == "private" for control in kept) >= 3


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_control_breaks_one_line_that_is_there_once(control):
    text = (broken.REPOSITORY / control.file).read_text().splitlines()
    changed = control.broken().splitlines()
    assert len(text) - len(changed) in (0, 1)
    same = next(i for i, pair in enumerate(zip(text, changed, strict=False)) if len({*pair}) > 1)
    assert text[same + 1 :] == changed[same + 1 - (len(text) - len(changed)) :]


BLOCK = """## `openings`

```diff
# smpc/semi2k/wire.py: {what}
{lines}
```
"""


def control_of(lines, what="it is broken"):
    (control,) = broken.controls(BLOCK.format(what=what, lines=lines))
    return control


def test_a_line_that_is_not_there_is_no_control():
    for line in ("-    return msgpack", "-    raise Refused"):  # half a line; none
        with pytest.raises(ValueError, match="0 times"):
            control_of(line).broken()
    with pytest.raises(ValueError, match="2 times"):
        control_of("-    Raises:").broken()


def test_two_lines_are_no_control():
    for lines in ("-a\n-b\n+c", " a\n+b", " a", "-a\n+b\n+c"):
        with pytest.raises(ValueError, match="breaks more lines than one, or none"):
            control_of(lines)
