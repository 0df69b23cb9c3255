"""Each party on a host of its own, over mutual TLS, with the data at its owners.

`configuration` reads the file that all hosts share: who takes part, where, with which certificate;
`certificates` makes a party's key and certificate, and loads them. `parts` are the owners' shares
of MNIST, `tables` their rows of numbers; `owners` gives their items to the script by number. A
`plan` is all that a run will do: `planning` writes it down, `plans` holds a party to it, and
`journal` keeps what a party did and gave away. `channels` carry the messages of `smpc.semi2k`'s
ends; `party` is a host's part in a session, `serve` runs it, `health` asks if it is up.
`python -m smpc.hosts COMMAND` is all of it.
"""

import os

# gRPC reads these once, when it is imported, which only modules of this package do.
# TLS 1.3 cannot be asked for; 1.2 gets one cipher that no party's elliptic-curve key can serve.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-RSA-AES256-GCM-SHA384"
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # one line is said of an error, and it is ours

PROGRAM = "python -m smpc.hosts"


def on_hosts(args, *about):
    """The `script.OnHosts` of a training, of these and what else it takes; None without
    `args.parties`."""
    if not args.parties:
        return None
    from smpc.hosts.script import OnHosts  # here, since only this needs gRPC

    return OnHosts(args, *about)
