"""CrypTen 0.4.1: two parties, each a process, over loopback; with TTP a third process deals.

    python train_crypten.py TASK.npz TFP|TTP

The steps that its autograd takes, written out, since it computes a gradient of the images too, a
large product that nothing uses.
"""

import functools
import os
import sys
import tempfile

import crypten
import crypten.communicator
import torch
from crypten.config import cfg
from task import LR, Task, measure, run_parties


def connect(rank, provider, rendezvous):
    torch.set_num_threads(1)
    cfg.mpc.provider = provider
    cfg.communicator.verbose = True  # count rounds and bytes
    cfg.functions.max_method = "pairwise"  # for ten classes half the seconds of the default
    os.environ.update(
        WORLD_SIZE="2",
        RANK=str(rank),
        RENDEZVOUS=f"file://{rendezvous}",
        DISTRIBUTED_BACKEND="gloo",
        GLOO_SOCKET_IFNAME="lo",
    )


def party(pids, rank, path, provider, rendezvous):
    """One of the two parties. Both call everything; party 0's values are the ones shared."""
    connect(rank, provider, rendezvous)
    crypten.init()
    task = Task(path)

    def share(array):
        return crypten.cryptensor(torch.from_numpy(array), src=0)

    train, test = (
        [(share(x), share(y)) for x, y in batches] for batches in (task.train, task.test)
    )

    weights = [share(w) for w in task.weights]

    def forward(x):
        w0, b0, w1, b1, w2, b2 = weights
        z0 = x.matmul(w0) + b0
        above0 = z0 > 0
        a0 = z0 * above0
        z1 = a0.matmul(w1) + b1
        above1 = z1 > 0
        a1 = z1 * above1
        return a0, above0, a1, above1, a1.matmul(w2) + b2

    def train_step(batch):
        x, y = train[batch]
        a0, above0, a1, above1, out = forward(x)
        difference = out - y
        loss = difference.square().sum() / len(y)
        d2 = difference * (2 / len(y))
        d1 = d2.matmul(weights[4].t()) * above1
        d0 = d1.matmul(weights[2].t()) * above0
        for i, (a, d) in enumerate(((x, d0), (a0, d1), (a1, d2))):
            weights[2 * i] -= a.t().matmul(d) * LR
            weights[2 * i + 1] -= d.sum(0) * LR
        return loss.get_plain_text()

    def test_pass():
        correct = 0
        for x, y in test:
            chosen = forward(x)[-1].argmax(dim=1)
            correct += (chosen * y).sum()
        return correct.get_plain_text()

    def traffic():
        stats = crypten.communicator.get().get_communication_stats()
        # Sent and received are both counted, and party 0 is at one end of every link.
        return stats["rounds"], stats["bytes"] if rank == 0 else 0

    figures = measure(task, train_step, test_pass, traffic, pids)
    crypten.uninit()
    return figures


def third_party(pids, rendezvous):
    connect(2, "TTP", rendezvous)
    crypten.mpc.provider.TTPServer()


def main(path, provider):
    with tempfile.TemporaryDirectory() as folder:
        rendezvous = f"{folder}/rendezvous"
        task = {"path": path, "provider": provider, "rendezvous": rendezvous}
        parties = [functools.partial(party, rank=rank, **task) for rank in range(2)]
        dealer = functools.partial(third_party, rendezvous=rendezvous)
        run_parties(parties, [dealer] if provider == "TTP" else [])


if __name__ == "__main__":
    main(*sys.argv[1:])
