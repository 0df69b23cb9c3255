"""The audit of small runs of semi2k: what every break of it must show, without the script."""

import itertools

from smpc.audit import Finding, chance, refusals, resample
from smpc.audit.examine import examined
from smpc.audit.scenarios import SCENARIOS, many


def findings(folder, tests, quick=True):
    """Everything that it finds for certain, as soon as it is found.

    Args:
        folder: for the transcripts, a pathlib.Path.
        tests: the `chance.Tests` that what is opened is put to.
        quick: leave out what is large, and repetitions.
    Yields:
        `Finding`s.
    """
    chosen = [scenario for scenario in SCENARIOS.values() if not (quick and scenario is many)]
    transcripts = itertools.chain.from_iterable(scenario(folder) for scenario in chosen)
    for _, found in examined(transcripts, tests):
        yield from found
    yield from (Finding("messages", line) for line in refusals.found_in())
    resample.resampled(folder, tests, repeats=1 if quick else 2)


def found_in(folder):
    """All that it finds, quick: a list of `Finding`."""
    tests = chance.Tests()
    found = [*findings(folder, tests)]
    return [*dict.fromkeys([*found, *tests.findings()])]
