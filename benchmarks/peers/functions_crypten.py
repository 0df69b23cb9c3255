"""The functions of CrypTen 0.4.1, as it comes, but for the bits after the point.

python functions_crypten.py ARGUMENTS.npz BITS
"""

import functools
import sys
import tempfile

import crypten
import crypten.communicator
import torch
from crypten.config import cfg
from functions import answer, arguments
from task import run_parties
from train_crypten import connect

FUNCTIONS = {
    "division": lambda x, y: x / y,
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    "log_softmax": lambda x: x.log_softmax(1),
    "reciprocal": lambda x: x.reciprocal(),
    "rsqrt": lambda x: x.inv_sqrt(),
    "sigmoid": lambda x: x.sigmoid(),
    "softmax": lambda x: x.softmax(1),
    "sqrt": lambda x: x.sqrt(),
    "tanh": lambda x: x.tanh(),
}


def party(pids, rank, path, bits, rendezvous):
    """One of the two parties; the first deals, and its values are the ones shared."""
    connect(rank, "TFP", rendezvous)
    cfg.encoder.precision_bits = bits
    crypten.init()

    def traffic():
        stats = crypten.communicator.get().get_communication_stats()
        return stats["rounds"], stats["bytes"]  # sent and received

    answers = {"bytes": None}
    for name, values in arguments(path).items():
        shared = [crypten.cryptensor(torch.from_numpy(value), src=0) for value in values]
        before = traffic()
        result = FUNCTIONS[name](*shared)
        after = traffic()
        answers[name] = answer(result.get_plain_text(), before, after)
    crypten.uninit()
    return answers


def main(path, bits):
    with tempfile.TemporaryDirectory() as folder:
        task = {"path": path, "bits": int(bits), "rendezvous": f"{folder}/rendezvous"}
        run_parties([functools.partial(party, rank=rank, **task) for rank in range(2)])


if __name__ == "__main__":
    main(*sys.argv[1:])
