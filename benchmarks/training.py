"""Seconds, rounds, messages and bytes of a training step and a test pass, for each protocol.

    make bench          # about eight minutes; prints one table, writes results/cost.json and .png

Each system runs `train_encrypted.py` with the tutorial's arguments in a process of its own, with
one thread. A message is what one party sends another, whatever it is for. The ratios of the
protocols are of the wall time of whole epochs of ten steps, everything within it, the losses that
are revealed and printed too: a median over epochs, the first included; that to plain PyTorch is of
a median step. syft's own protocols fork a process for each core at every product, so that one
thread suits them.
"""

import contextlib
import json
import os
import pathlib
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from matplotlib.figure import Figure

from smpc.files import write_whole
from smpc.pictures import BLUE, as_png, caption
from smpc.report import sent_by_all

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "results"
PLAIN = "plain PyTorch"
EPOCHS = {"snn": 1, "fss": 1, "semi2k": 6}
STEPS = 10  # an epoch
COLUMNS = ("step", "epoch", "test", "rounds", "messages", "opened", "dealt", "bytes")
NETWORK_A = ["--batch-size", "128", "--n-train-items", "1280"]  # of the papers: 784-128-128-10
NOTE = """\
Seconds of a training step of 64 items, of an epoch of ten, of a test pass of 640 items;
and of a training step: rounds, messages, bytes opened by both workers, bytes dealt, and
bytes of all messages of all parties, each counted once. Network A: 784-128-128-10 with
batches of 128, that of the papers.
"""
BESIDE = {
    "xytext": (8, 0),
    "textcoords": "offset points",
    "va": "center",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 1},
}  # of what is said of a point in the picture
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

    def recorded(args, model, get_data_loader, run):
        """Leave the task as `benchmarks/peers/task.py` reads it, with the plain figures."""
        weights = [p.detach().numpy().T.copy() for p in model.parameters()]
        arrays = {f"weight{i}": weight for i, weight in enumerate(weights)}
        for part in ("train", "test"):
            loader = get_data_loader(args, part == "train")
            batches = [(data.flatten(1), script.one_hot_of(target)) for data, target in loader]
            for name, tensors in zip(("images", "labels"), zip(*batches, strict=True), strict=True):
                arrays[f"{part}_{name}"] = torch.stack(tensors).numpy()
        losses, correct, seconds = train_plain_twin(args, model, get_data_loader, run)
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


# ---- Table, record and picture -------------------------------------------------------------------


def machine():
    """The processor, its cores, how busy they are, and the Python, in one line."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        named = re.findall(
            r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M
        )
        model = (*named, model)[0]
    return (
        f"{model}, {os.cpu_count()} cores (load {os.getloadavg()[0]:.1f} before the run), "
        f"one thread a process; Python {platform.python_version()}"
    )


def table(rows):
    """The table in Markdown, its note and its ratios, as lines; `rows`: system -> figures."""
    yield NOTE
    yield "| system | s a step | s an epoch | s a test pass | " + " | ".join(COLUMNS[3:]) + " |"
    yield "| --- |" + " --- |" * len(COLUMNS)
    for system, figures in rows.items():
        cells = [f"{figures[column]:.4f}" for column in COLUMNS[:3]]
        cells += [f"{figures[c]:,}" if c in figures else "–" for c in COLUMNS[3:]]
        yield f"| {system} | " + " | ".join(cells) + " |"
    ours = rows["semi2k"]
    for protocol in ("snn", "fss"):
        theirs = rows[protocol]
        yield (
            f"\n{protocol} / semi2k: {theirs['epoch'] / ours['epoch']:.0f} of a training epoch, "
            f"{theirs['test'] / ours['test']:.0f} of a test pass"
        )
    yield f"\nsemi2k / plain PyTorch: {ours['step'] / rows[PLAIN]['step']:.0f} of a step"


@as_png
def picture(record):
    """Seconds of a step and what it sends, of the tutorial's network, as a PNG.

    Args:
        record: that of results/cost.json.
    """
    rows = {name: record["rows"][name] for name in (PLAIN, *EPOCHS)}
    rows = dict(sorted(rows.items(), key=lambda row: row[1]["step"]))
    figure = Figure(figsize=(9, 3))
    seconds, sent = figure.subplots(1, 2, sharey=True)
    for place, (name, figures) in enumerate(rows.items()):
        step, times = figures["step"], figures["step"] / rows[PLAIN]["step"]
        said = f"{step:.3g} s" + (f", {times:,.0f} × plain" if name != PLAIN else "")
        _dot(seconds, place, step, name, said)
        if "bytes" in figures:
            rounds = f", {figures['rounds']} rounds" if "rounds" in figures else ""
            said = f"{figures['bytes'] / 1e6:.1f} MB{rounds}, {figures['messages']:,} messages"
            _dot(sent, place, figures["bytes"] / 1e6, name, said)
        else:
            sent.annotate("nothing", (0, place), xycoords=sent.get_yaxis_transform(), **BESIDE)
    for axis, ticks in ((seconds, (0.001, 0.01, 0.1, 1, 10)), (sent, (1, 10, 100))):
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlim(ticks[0], ticks[-1] * (ticks[-1] / ticks[0]) ** 1.1)  # room for what is said
        axis.grid(visible=False, axis="y")
    seconds.set_title("seconds of a training step of 64 items", loc="left")
    sent.set_title("what all parties send in it, MB", loc="left")
    seconds.set_yticks(range(len(rows)), rows)
    seconds.set_ylim(len(rows) - 0.5, -0.5)
    caption(figure, f"Logarithmic scales. {record['machine']}")
    return figure


def _dot(axis, place, value, name, said):
    fill, weight = ("full", "bold") if name == "semi2k" else ("none", "normal")
    axis.semilogx(value, place, "o", markersize=8, color=BLUE, fillstyle=fill)
    axis.annotate(said, (value, place), weight=weight, **BESIDE)


def keep(path, record, draw):
    """Write a record as JSON to `path`, and beside it the PNG that `draw` makes of it; say so."""
    write_whole(path, json.dumps(record, indent=1, ensure_ascii=False).encode())
    write_whole(path.with_suffix(".png"), draw(record))
    print(f"\nwritten: {path.relative_to(REPOSITORY)} and {path.with_suffix('.png').name}")


def main():
    """Measure every system, print the table, write the record and the picture."""
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        task = pathlib.Path(folder, "task.npz")
        rows = {protocol: measure(protocol, task) for protocol in EPOCHS}
        rows = {PLAIN: plain(task)} | rows
        rows["semi2k, network A"] = measure("semi2k", arguments=NETWORK_A)
    rows = {
        system: {column: figures[column] for column in COLUMNS if column in figures}
        for system, figures in rows.items()
    }
    print("\n".join(table(rows)))
    keep(RESULTS / "cost.json", {"machine": where, "rows": rows}, picture)


if __name__ == "__main__":
    run_here(*sys.argv[1:]) if len(sys.argv) > 1 else main()
