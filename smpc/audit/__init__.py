"""What each party of a run saw, and what can be made of it.

`transcript` records a run, whose messages `messages` takes apart, and reads it back, a party's view
at a time; `merged` puts together what parties on hosts of their own have recorded; `openings` tells
which instruction asked for each value that a view holds opened; `attacks` are functions of one
view; `chance` says how likely a guess is to agree with the truth by luck; `resample` runs some
workers' part again with everything else drawn anew; `checks` puts them together into the findings
that `report` prints and draws; `conduct` says where somebody did not keep to the rules.
`simulator` compares each protocol with what is `ideal` (and `ideal_truncation`,
`ideal_comparison`), exactly in small `worlds`, and statistically at the parties' own `ends`.
`python -m smpc.audit` runs all of it.
"""

PROGRAM = "python -m smpc.audit"
