"""Each party on a host of its own, over mutual TLS, with the data at its owners.

`configuration` reads the file that all hosts share: who takes part, where, with which certificate;
`certificates` makes a party's key and certificate, and loads them. `parts` are the owners' shares
of MNIST, `owners` gives their items to the script by number. A `plan` is all that a run will do:
`planning` writes it down, `plans` holds a party to it, and `journal` keeps what a party did and
gave away. `channels` carry the messages of `smpc.semi2k`'s ends; `party` is a host's part in a
session, `serve` runs it, `health` asks if it is up. `python -m smpc.hosts COMMAND` is all of it.
"""

PROGRAM = "python -m smpc.hosts"
