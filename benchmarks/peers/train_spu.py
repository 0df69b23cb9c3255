"""SPU 0.9.5: two parties (SEMI2K) or three (ABY3), each a process, over loopback.

    python train_spu.py TASK.npz SEMI2K|ABY3 [PORTS]

PORTS, as JSON, is a list for each party: the ports of 127.0.0.1 by which it reaches each of all,
its own being the one that it listens on. Without, they reach each other directly.

The gradients are jax's own, as SPU's examples have it.
"""

import functools
import json
import pathlib
import pickle
import re
import sys
import tempfile

import numpy
from task import LR, Task, free_ports, measure, run_parties

PARTIES = {"SEMI2K": 2, "ABY3": 3}
WEIGHTS = [f"weight{i}" for i in range(6)]
TRAFFIC = re.compile(r"Link details: total send bytes (\d+), recv bytes \d+, send actions (\d+)")


def functions():
    """A training step and a test batch, for jax: functions of arrays, the six weights first."""
    import jax
    import jax.numpy as jnp
    from spu import experimental

    def forward(weights, x):
        w0, b0, w1, b1, w2, b2 = weights
        z0 = x @ w0 + b0
        a0 = jnp.where(z0 > 0, z0, 0)  # its gradient needs no second comparison
        z1 = a0 @ w1 + b1
        a1 = jnp.where(z1 > 0, z1, 0)
        return a1 @ w2 + b2

    def step(*arguments):
        *weights, x, y = arguments
        # what is multiplied twice is opened once (SEMI2K; ABY3 opens nothing for a product)
        weights = [experimental.make_cached_var(w) if w.ndim > 1 else w for w in weights]
        x = experimental.make_cached_var(x)

        def loss(weights):
            return ((forward(weights, x) - y) ** 2).sum() / len(y)

        value, gradients = jax.value_and_grad(loss)(weights)
        return [w - LR * g for w, g in zip(weights, gradients)], experimental.reveal(value)

    def count(*arguments):
        *weights, x, label, correct = arguments
        return correct + (jnp.argmax(forward(weights, x), axis=1) == label).sum()

    return step, count


class Party:
    """One party's end of SPU: its link to the others, its variables, what it runs; `settings`, of
    its `RuntimeConfig`: what is not as it comes."""

    def __init__(self, rank, protocol, ports, folder, **settings):
        import spu
        from spu import libspu

        self.rank, self.n_parties = rank, len(ports)
        self.log = pathlib.Path(folder, f"party{rank}.log")
        options = libspu.logging.LogOptions()
        options.enable_console_logger = False
        options.system_log_path = str(self.log)
        libspu.logging.setup_logging(options)

        parties = libspu.link.Desc()
        for i, port in enumerate(ports):
            parties.add_party(f"party{i}", f"127.0.0.1:{port}")
        self.link = libspu.link.create_brpc(parties, rank)
        # The defaults: FM64 with 18 fractional bits, and truncation that is never wrong by a wrap,
        # as semi2k's; `trunc_allow_msb_error` would save rounds.
        config = libspu.RuntimeConfig(
            protocol=getattr(libspu.ProtocolKind, protocol), field=libspu.FieldType.FM64
        )
        config.max_concurrency = 1
        config.enable_pphlo_profile = True  # logs what the link carried in each run
        for name, value in settings.items():
            setattr(config, name, value)
        self.io, self.runtime = spu.Io(len(ports), config), spu.Runtime(self.link, config)

    def share(self, name, array):
        """Share an array that party 0 knows; the others know its name alone."""
        import spu
        from spu import libspu

        if self.rank == 0:
            mine, *others = self.io.make_shares(array, spu.Visibility.VIS_SECRET)
            for i, other in enumerate(others):
                self.link.send(i + 1, pickle.dumps((other.meta, other.share_chunks)))
        else:
            mine = libspu.Share()
            mine.meta, mine.share_chunks = pickle.loads(self.link.recv(0))
        self.runtime.set_var(name, mine)

    def compiled(self, function, example, outputs):
        """`function` as SPU runs it: on variables, given by their names, into `outputs`."""
        import spu
        from spu.utils import frontend

        names = [f"in{i}" for i in range(len(example))]
        secret = [spu.Visibility.VIS_SECRET] * len(example)
        program, _ = frontend.compile(
            frontend.Kind.JAX, function, example, {}, names, secret, lambda _: outputs
        )

        def run(*inputs):
            self.runtime.run(spu.Executable(program.name, list(inputs), outputs, program.code))

        return run

    def revealed(self, name):
        """The value of a variable that has been revealed to all."""
        return self.io.reconstruct([self.runtime.get_var(name)] * self.n_parties)

    def traffic(self):
        """Sends and bytes so far."""
        runs = TRAFFIC.findall(self.log.read_text())
        return sum(int(actions) for _, actions in runs), sum(int(sent) for sent, _ in runs)


def run_party(pids, rank, path, protocol, ports, folder):
    """One of the parties: all run the same. Party 0 makes the shares."""
    # imported in the party's own process: the threads that jax and SPU start do not survive a fork
    from spu import experimental

    step, count = functions()
    party, task = Party(rank, protocol, ports, folder), Task(path)
    for name, weight in zip(WEIGHTS, task.weights):
        party.share(name, weight)
    for i, (x, y) in enumerate(task.train):
        party.share(f"x{i}", x)
        party.share(f"y{i}", y)
    for i, (x, y) in enumerate(task.test):
        party.share(f"test{i}", x)
        party.share(f"label{i}", y.argmax(axis=1).astype(numpy.int32))
    zero = numpy.array(0, numpy.int32)
    party.share("zero", zero)

    run_step = party.compiled(step, [*task.weights, *task.train[0]], [*WEIGHTS, "loss"])
    x, y = task.test[0]
    label = y.argmax(axis=1).astype(numpy.int32)
    run_count = party.compiled(count, [*task.weights, x, label, zero], ["correct"])
    run_reveal = party.compiled(experimental.reveal, [zero], ["revealed"])

    def train_step(batch):
        run_step(*WEIGHTS, f"x{batch}", f"y{batch}")
        return party.revealed("loss")

    def test_pass():
        total = "zero"
        for batch in range(len(task.test)):
            run_count(*WEIGHTS, f"test{batch}", f"label{batch}", total)
            total = "correct"
        run_reveal(total)
        return party.revealed("revealed")

    return measure(task, train_step, test_pass, party.traffic, pids)


def main(path, protocol, ports=None):
    n_parties = PARTIES[protocol]
    ports = json.loads(ports) if ports else [free_ports(n_parties)] * n_parties
    with tempfile.TemporaryDirectory() as folder:
        task = {"path": path, "protocol": protocol, "folder": folder}
        run_parties(
            [
                functools.partial(run_party, rank=rank, ports=reached, **task)
                for rank, reached in enumerate(ports)
            ]
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
