"""Every negative control of docs/audit.md is caught, by the check under which it stands."""

import json
import os
import subprocess
import sys

import pytest

from tests.audit import broken

TEXT = broken.DOCUMENT.read_text()
CONTROLS = broken.controls(TEXT)
CHECKS = (
    *("keys", "streams", "dealing", "openings", "results", "messages", "files", "chance"),
    *("resampled", "simulators", "attacks", "meaning", "outputs"),
)


def carried_out(*words):
    """What `broken` says of the controls that have these words in their names."""
    run = subprocess.run(
        [sys.executable, "-m", "tests.audit.broken", *words],
        cwd=broken.REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture(scope="session")
def outcomes():
    """The name of a control, or of a run of what is not broken -> what came of it."""
    return carried_out()


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_control_is_caught_by_the_check_that_it_stands_under(outcomes, control):
    outcome = outcomes[control.name]
    assert outcome["error"] is None  # what does not run to its end shows nothing
    assert control.check in {check for check, _ in outcome["found"]}


@pytest.mark.parametrize("run", sorted({control.run for control in CONTROLS}))
def test_nothing_is_found_in_what_is_not_broken(outcomes, run):
    assert outcomes[run] == {"found": [], "error": None}


def test_every_check_has_controls():
    assert broken.checks_named(TEXT) == [*CHECKS]
    for check in CHECKS:
        assert sum(control.check == check for control in CONTROLS) >= 2, check


def test_there_are_many_of_every_module():
    assert len({control.name for control in CONTROLS}) == len(CONTROLS) >= 55
    modules = ("arithmetic", "comparison", "dealer", "randomness", "run", "worker", "provider")
    modules += ("owner", "session", "compiler", "wire", "network", "storage", "program", "ring")
    assert {control.file for control in CONTROLS} >= {f"smpc/semi2k/{m}.py" for m in modules}


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
