"""TF Encrypted 0.9.1: ABY3 among three parties, each a process, over loopback, or all in one.

    python train_tf_encrypted.py TASK.npz processes|one-process

The steps that tfe.keras takes, written out: its models take no initial weights, and their backward
pass computes a gradient of the images, a large product that nothing uses.
"""

import contextlib
import functools
import multiprocessing
import os
import pathlib
import socket
import stat
import struct
import sys
import time
import warnings

from task import LR, Task, free_ports, measure, run_parties

# Read when TensorFlow is imported, which each process does for itself: it starts threads, and these
# do not survive a fork.
os.environ.update(TF_NUM_INTRAOP_THREADS="1", TF_NUM_INTEROP_THREADS="1", TF_CPP_MIN_LOG_LEVEL="3")
warnings.filterwarnings("ignore", "pkg_resources is deprecated")


def configured(ports):
    """tf_encrypted and its configuration: three servers at `ports`, or none and this process."""
    import tf_encrypted as tfe

    hosts = {f"server{i}": f"127.0.0.1:{port}" for i, port in enumerate(ports)}
    return tfe, tfe.RemoteConfig(hosts) if ports else tfe.LocalConfig()


def bytes_received():
    """What the TCP connections of this process have received, as the kernel counts it."""
    total = 0
    for path in pathlib.Path("/proc/self/fd").iterdir():
        descriptor = int(path.name)
        with contextlib.suppress(OSError):  # closed meanwhile, or not TCP
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                with socket.socket(fileno=os.dup(descriptor)) as connection:
                    info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 136)
                total += struct.unpack_from("=Q", info, 128)[0]  # tcpi_bytes_received: linux/tcp.h
    return total


def server(pids, rank, ports, received):
    """One of the three parties: it does what the orchestrator's graphs say."""
    _, config = configured(ports)
    running = config.start_server(f"server{rank}")
    while running:
        received[rank] = bytes_received()
        time.sleep(0.02)


def orchestrator(pids, path, ports, received):
    """It shares weights and data, and has the servers run each step as one graph."""
    tfe, config = configured(ports)
    if ports:
        config.connect_servers()
    tfe.set_config(config)
    tfe.set_protocol(tfe.protocol.ABY3())  # 64 bits, 16 of them fractional: its default
    task = Task(path)

    share = tfe.define_private_variable
    weights = [share(weight) for weight in task.weights]
    train = [(share(x), share(y)) for x, y in task.train]
    test = [(share(x), share(y)) for x, y in task.test]

    def forward(w, x):
        w0, b0, w1, b1, w2, b2 = w
        a0, above0 = tfe.relu_with_cmp(tfe.matmul(x, w0) + b0)
        a1, above1 = tfe.relu_with_cmp(tfe.matmul(a0, w1) + b1)
        return a0, above0, a1, above1, tfe.matmul(a1, w2) + b2

    @tfe.function
    def step(x, y):
        w = [weight.read_value() for weight in weights]
        a0, above0, a1, above1, output = forward(w, x)
        difference = output - y
        n = int(y.shape[0])
        loss = difference.square().reduce_sum() * (1 / n)
        d2 = difference * (2 / n)
        d1 = tfe.select(above1, 0, tfe.matmul(d2, w[4].transpose()))
        d0 = tfe.select(above0, 0, tfe.matmul(d1, w[2].transpose()))
        for i, (a, d) in enumerate(((x, d0), (a0, d1), (a1, d2))):
            tfe.assign(weights[2 * i], w[2 * i] - tfe.matmul(a.transpose(), d) * LR)
            tfe.assign(weights[2 * i + 1], w[2 * i + 1] - d.reduce_sum(axis=0) * LR)
        return loss.reveal().to_native()

    @tfe.function
    def count(x, y):
        w = [weight.read_value() for weight in weights]
        chosen = tfe.argmax(forward(w, x)[-1], axis=1)  # one-hot, in boolean shares
        return tfe.mul_ab(y, chosen).reduce_sum()

    def train_step(batch):
        x, y = train[batch]
        return step(x.read_value(), y.read_value()).numpy()

    def test_pass():
        counts = [count(x.read_value(), y.read_value()) for x, y in test]
        return sum(counts[1:], counts[0]).reveal().to_native().numpy()

    def traffic():
        time.sleep(0.2)  # until every server has looked
        return None, sum(received) + bytes_received() if ports else None

    return measure(task, train_step, test_pass, traffic, pids)


def main(path, how):
    ports = free_ports(3) if how == "processes" else []
    received = multiprocessing.get_context("fork").Array("q", len(ports))
    run_parties(
        [functools.partial(orchestrator, path=path, ports=ports, received=received)],
        [
            functools.partial(server, rank=rank, ports=ports, received=received)
            for rank in range(len(ports))
        ],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
