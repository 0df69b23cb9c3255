"""What each party of a run saw, and what can be made of it.

`transcript` records a run, whose messages `messages` takes apart, and reads it back, a party's view
at a time; `merged` puts together what parties on hosts of their own have recorded; `scenarios` are
the runs that are recorded, with what `computations` makes of numbers.

What is certain: `ledger` holds every message against what the rules give, which `reference` (with
`reference_values`, `reference_comparison`, `reference_noise`, `streams` and `files`) computes once
more, and `expected` and `requests` compare; `conduct` says who must not see what; `meaning`
recomputes what is revealed in the clear; `refusals` compares errors; `said` and `left` look at what
the script prints and leaves behind.

What is likely: `openings` tells which instruction asked for each value that a view holds opened;
`masks` puts all of them to tests, as `chance` has them; `resample` and `resample_step` run some
workers' part again with everything else drawn anew; `attacks` are functions of one view, of which
`checks` says how well they do, and `report` prints and draws it. `simulator` compares each protocol
with what is `ideal` (and `ideal_truncation`, `ideal_comparison`, `ideal_composed`), exactly in
small `worlds`, and statistically at the parties' own `ends`, by `distances`, and in many small runs
(`repeated`).

`small` is all of it that needs no script, `examine` all of it for one recorded run; `python -m
smpc.audit` runs everything. docs/audit.md is the catalogue.
"""

from typing import NamedTuple

PROGRAM = "python -m smpc.audit"


class Finding(NamedTuple):
    """What the audit has found.

    Attributes:
        check: the name of what found it, a section of docs/audit.md.
        text: a line for the user.
    """

    check: str
    text: str

    def __str__(self):
        return f"{self.check}: {self.text}"
