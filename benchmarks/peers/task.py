"""What every peer computes, and how it is measured: the part that all peers' scripts share.

It runs in each peer's own environment and needs numpy alone. A peer's script is run as
`python SCRIPT TASK.npz SYSTEM`; the last line that it prints is its figures, as JSON.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import statistics
import time
from queue import Empty

import numpy

EPOCHS = 6  # as benchmarks/training.py runs semi2k; the first warms up and is not timed
LR = 0.02


class Task:
    """The initial weights, the batches and their order.

    Attributes:
        weights: [(784, 128), (128,), (128, 64), (64,), (64, 10), (10,)], float32: a layer is
            x @ weight + bias.
        train: ten pairs of images (64, 784) and one-hot labels (64, 10), float32.
        test: ten pairs of images (64, 784) and one-hot labels (64, 10), float32.
    """

    def __init__(self, path):
        with numpy.load(path) as file:
            self.weights = [file[f"weight{i}"] for i in range(6)]
            self.train = list(zip(file["train_images"], file["train_labels"]))
            self.test = list(zip(file["test_images"], file["test_labels"]))


def cpu_seconds(pids):
    """CPU seconds that the processes have used so far, all their threads included."""
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)  # clock_getcpuclockid(3)


def measure(task, train_step, test_pass, traffic, pids):
    """Train for `EPOCHS` epochs, with a test pass after each.

    Args:
        train_step: takes the index of a training batch, updates the weights and returns the
            revealed loss of before, as a float.
        test_pass: returns the revealed number of correct answers of the 640 test items.
        traffic: returns what the library has counted so far, as (rounds, bytes), None for either
            that it does not count. A last training step is run for it alone.
        pids: the processes of all parties, whose CPU time is read.
    Returns:
        the losses of the first epoch; `correct` answers after it; `step` and `test`, median seconds
        after the first epoch; `cpu`, CPU seconds of all `pids` a step; `rounds` and `bytes` of a
        step, as this process counts them.
    """
    losses, correct, steps, cpu, tests = [], [], [], [], []
    for _ in range(EPOCHS):
        cpu_before = cpu_seconds(pids)
        for batch in range(len(task.train)):
            started = time.perf_counter()
            losses.append(float(train_step(batch)))
            steps.append(time.perf_counter() - started)
        cpu.append((cpu_seconds(pids) - cpu_before) / len(task.train))
        started = time.perf_counter()
        correct.append(round(float(test_pass())))
        tests.append(time.perf_counter() - started)
    before = traffic()
    train_step(0)
    counted = [None if b is None else a - b for a, b in zip(traffic(), before)]
    return {
        "losses": losses[: len(task.train)],
        "correct": correct[0],
        "step": statistics.median(steps[len(task.train) :]),
        "test": statistics.median(tests[1:]),
        "cpu": statistics.median(cpu[1:]),
        "rounds": counted[0],
        "bytes": counted[1],
    }


def free_ports(count):
    """Ports of the loopback interface that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def run_parties(parties, servers=()):
    """Run every party in a process of its own and print the first one's figures, with the bytes of
    all the others added, as JSON.

    Args:
        parties: functions of `pids` that return the figures of `measure`.
        servers: functions of `pids` that deal or serve, if need be until they are ended.
    `pids` is an array of the process numbers of all of them, complete once they have met.
    """
    context = multiprocessing.get_context("fork")  # no library has started a thread yet
    queue, pids = context.Queue(), context.Array("i", len(parties) + len(servers))

    def run(rank, function):
        pids[rank] = os.getpid()
        figures = function(pids)
        if rank < len(parties):
            queue.put((rank, figures))
            signal.pause()  # until it is killed: of how a library ends nothing is wanted

    processes = [
        context.Process(target=run, args=(rank, function))
        for rank, function in enumerate([*parties, *servers])
    ]
    for process in processes:
        process.start()
    figures = {}
    try:
        while len(figures) < len(parties):
            with contextlib.suppress(Empty):
                rank, figures[rank] = queue.get(timeout=1)
            if any(process.exitcode for process in processes):
                raise SystemExit(1)  # it has said why, and the others would wait for it
    finally:
        for process in processes:
            process.kill()
    if figures[0]["bytes"] is not None:
        figures[0]["bytes"] = sum(party["bytes"] for party in figures.values())
    print(json.dumps(figures[0]))
