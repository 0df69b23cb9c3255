"""Seconds, rounds, messages and bytes of a training step and a test pass, for each protocol.

    make bench          # about eight minutes; prints one table

Each system runs `train_encrypted.py` with the tutorial's arguments in a process of its own, with
one thread. A message is what one party sends another, whatever it is for. The ratio is of the wall
time of whole epochs of ten steps, everything within it, the losses that are revealed and printed
too: a median over epochs, the first included. syft's own protocols fork a process for each core at
every product, so that one thread suits them.
"""

import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from smpc.report import sent_by_all

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
EPOCHS = {"snn": 1, "fss": 1, "semi2k": 6}
STEPS = 10  # an epoch
NETWORK_A = ["--batch-size", "128", "--n-train-items", "1280"]  # of the papers: 784-128-128-10
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def run_here(protocol, out, *arguments):
    """In a process of its own: the script, with syft's messages counted by training step; with
    `NETWORK_A` as the arguments that network in the tutorial's place."""
    import numpy
    import torch

    import train_encrypted as script

    VirtualWorker = script.sy.VirtualWorker

    counts = {"messages": 0, "bytes": 0}
    figures = {}
    send = VirtualWorker._send_msg

    def counted_send(self, message, location):
        reply = send(self, message, location)
        counts["messages"] += 1
        counts["bytes"] += len(message) + len(reply)
        return reply

    def counted(part, function):
        def call(*args):
            before = counts | {"cpu": cpu_seconds(), "seconds": time.perf_counter()}
            function(*args)
            after = counts | {"cpu": cpu_seconds(), "seconds": time.perf_counter()}
            passes = figures.setdefault(part, [])
            passes.append({name: after[name] - before[name] for name in after})

        return call

    def recorded(args, model, run):
        """Leave the task as `benchmarks/peers/task.py` reads it, with the plain figures."""
        weights = [p.detach().numpy().T.copy() for p in model.parameters()]
        arrays = {f"weight{i}": weight for i, weight in enumerate(weights)}
        for part in ("train", "test"):
            loader = script.get_data_loader(args, train=part == "train")
            batches = [(data.flatten(1), script.one_hot_of(target)) for data, target in loader]
            for name, tensors in zip(("images", "labels"), zip(*batches, strict=True), strict=True):
                arrays[f"{part}_{name}"] = torch.stack(tensors).numpy()
        losses, correct, seconds = train_plain_twin(args, model, run)
        numpy.savez(pathlib.Path(out, "task.npz"), losses=losses, correct=correct, **arrays)
        return losses, correct, seconds

    VirtualWorker._send_msg = counted_send
    script.Net = network_a(script) if arguments else script.Net
    train_plain_twin, script.train_plain_twin = script.train_plain_twin, recorded
    script.train = counted("epoch", script.train)
    script.test = counted("test pass", script.test)
    sys.argv = ["train_encrypted.py", "--protocol", protocol, "--out", out]
    sys.argv += ["--epochs", str(EPOCHS[protocol]), "--data-dir", str(REPOSITORY / "data")]
    sys.argv += arguments
    script.main()
    pathlib.Path(out, "syft.json").write_text(json.dumps(figures))


def network_a(script):
    """The papers' network A, 784-128-128-10, as a class for the place of the script's `Net`."""
    nn = script.nn

    class NetworkA(script.Net):
        def __init__(self, activation):
            nn.Module.__init__(self)  # its layers draw their weights in order, and no others do
            self.activation = activation
            self.fc1, self.fc2 = nn.Linear(28 * 28, 128), nn.Linear(128, 128)
            self.fc3 = nn.Linear(128, 10)

    return NetworkA


def cpu_seconds():
    """Of this process, and of those it has started and that have ended."""
    return sum(os.times()[:4])


def measure(protocol, task=None, arguments=()):
    """One protocol's figures, from a run in a process of its own.

    Args:
        task: where to leave the run's initial weights, items and plain losses, as an npz file.
        arguments: `NETWORK_A`, for that in the place of the tutorial's.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "benchmarks.training", protocol, out, *arguments]
        subprocess.run(
            command,
            check=True,
            cwd=REPOSITORY,
            env=os.environ | ONE_THREAD,
            stdout=subprocess.DEVNULL,
        )
        record = json.loads(pathlib.Path(out, "run.json").read_text())
        syft = json.loads(pathlib.Path(out, "syft.json").read_text())
        if task:
            shutil.copy(pathlib.Path(out, "task.npz"), task)
    # (in the first epoch kept masks are made and programs are sent)
    steps = [step["seconds"] for step in record["steps"][-STEPS * max(1, EPOCHS[protocol] - 1) :]]
    figures = {
        "step": statistics.median(steps),
        "epoch": statistics.median(epoch["seconds"] for epoch in syft["epoch"]),
        "test": statistics.median(test["seconds"] for test in syft["test pass"]),
        "cpu": statistics.median(epoch["cpu"] for epoch in syft["epoch"]) / STEPS,
        "losses": [step["loss"] for step in record["steps"][:STEPS]],
        "correct": record["tests"][0]["correct"],
    }
    sent = {name: syft["epoch"][-1][name] // STEPS for name in ("messages", "bytes")}
    if record["counters"]:
        counters = record["counters"]["training step"]
        figures |= {
            "rounds": counters["rounds"],
            "messages": sum(counters["messages"].values()) + sent["messages"],
            "opened": counters["opened"],
            "bytes": sent_by_all(counters) + sent["bytes"],
            "dealt": counters["dealt"],
        }
    else:
        figures |= sent
    return figures


def plain(task):
    """The same weights, batches and steps in torch alone, without syft's hook; `task` is the path
    of what `measure` left."""
    import numpy
    import torch

    torch.set_num_threads(1)
    with numpy.load(task) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}
    layers = []
    for i in (0, 2, 4):
        weight, bias = arrays[f"weight{i}"].T.contiguous(), arrays[f"weight{i + 1}"]
        layers += [torch.nn.Linear(*weight.shape[::-1]), torch.nn.ReLU()]
        layers[-2].weight.data, layers[-2].bias.data = weight, bias
    model = torch.nn.Sequential(*layers[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    batches = list(zip(arrays["train_images"], arrays["train_labels"], strict=True))
    steps, epochs, tests = [], [], []
    cpu = time.process_time()
    for _ in range(30):
        epoch_started = time.perf_counter()
        for data, target in batches:
            started = time.perf_counter()
            optimizer.zero_grad()
            loss = ((model(data) - target) ** 2).sum() / len(data)
            loss.backward()
            optimizer.step()
            steps.append(time.perf_counter() - started)
        epochs.append(time.perf_counter() - epoch_started)
    cpu = (time.process_time() - cpu) / len(steps)
    for _ in range(30):
        started = time.perf_counter()
        with torch.no_grad():
            for data, target in zip(arrays["test_images"], arrays["test_labels"], strict=True):
                (model(data).argmax(dim=1) == target.argmax(dim=1)).sum()
        tests.append(time.perf_counter() - started)
    step, epoch, test = map(statistics.median, (steps, epochs, tests))
    return {"step": step, "epoch": epoch, "test": test, "cpu": cpu}


def main():
    """Measure every system and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        task = pathlib.Path(folder, "task.npz")
        rows = {protocol: measure(protocol, task) for protocol in EPOCHS}
        rows = {"plain PyTorch": plain(task)} | rows
        rows["semi2k, network A"] = measure("semi2k", arguments=NETWORK_A)
    columns = ("step", "epoch", "test", "rounds", "messages", "opened", "dealt", "bytes")
    print(
        "Seconds of a training step of 64 items, of an epoch of ten, of a test pass of 640 items;"
    )
    print(
        "and of a training step: rounds, messages, bytes opened by both workers, bytes dealt, and"
    )
    print("bytes of all messages of all parties, each counted once. Network A: 784-128-128-10 with")
    print("batches of 128, that of the papers.\n")
    print("| system | s a step | s an epoch | s a test pass | " + " | ".join(columns[3:]) + " |")
    print("| --- |" + " --- |" * len(columns))
    for system, figures in rows.items():
        cells = [f"{figures[column]:.4f}" for column in columns[:3]]
        cells += [f"{figures[c]:,}" if c in figures else "–" for c in columns[3:]]
        print(f"| {system} | " + " | ".join(cells) + " |")
    ours = rows["semi2k"]
    for protocol in ("snn", "fss"):
        theirs = rows[protocol]
        print(
            f"\n{protocol} / semi2k: {theirs['epoch'] / ours['epoch']:.0f} of a training epoch, "
            f"{theirs['test'] / ours['test']:.0f} of a test pass"
        )
    print(f"\nsemi2k / plain PyTorch: {ours['step'] / rows['plain PyTorch']['step']:.0f} of a step")


if __name__ == "__main__":
    run_here(*sys.argv[1:]) if len(sys.argv) > 1 else main()
