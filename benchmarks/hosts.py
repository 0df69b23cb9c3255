"""A training step with each party on a host of its own: semi2k and SPU, near and far.

    make bench-hosts                            # twenty minutes; prints one table, writes
                                                # results/hosts.json and .png
    python -m benchmarks.hosts --without-spu    # ten minutes

semi2k in one process; as four processes that speak gRPC over mutual TLS; the same with a relay
between them that delays and limits as a LAN and as a WAN do (`benchmarks/relay.py`); and SPU's
processes in the same places, in the environment of `make bench-peers`. The tutorial's network with
its batches of 64, and network A of the papers with batches of 128: the same initial weights and
items for all, six epochs of ten steps, one thread a process.
"""

import contextlib
import json
import operator
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

import numpy
import psutil
from matplotlib.figure import Figure

from benchmarks import peers, training
from benchmarks.relay import HERE, PROFILES, measured, relayed
from smpc.hosts import configuration
from smpc.hosts.loopback import PROVIDER, SERVER, Loopback, LoopbackError, free_port
from smpc.pictures import BLUE, GREEN, ORANGE, SMALL, as_png, caption
from smpc.report import sent_by_all

# Of each network: its options, and how many items there are to train and to test.
NETWORKS = {"tutorial": ([], 640, 640), "network A": (training.NETWORK_A, 1280, 640)}
PLACES = ("loopback", "LAN", "WAN")
ONE_PROCESS, PROCESSES = "semi2k, 1 process", "semi2k, 4 processes, TLS"
SPU = {  # protocol and parties
    "SPU 0.9.5 SEMI2K, 2 processes": ("SEMI2K", 2),
    "SPU 0.9.5 ABY3, 3 processes": ("ABY3", 3),
}
LOOKS = {  # of each system in the picture: colour and hatch
    ONE_PROCESS: ("white", ""),
    PROCESSES: (BLUE, ""),
    **dict(zip(SPU, ((ORANGE, "///"), (GREEN, "...")), strict=True)),
}
TITLES = {"tutorial": "the tutorial's, 64 items", "network A": "network A, 128 items"}
PUBLISHED = {("network A", "LAN"): ("0.167", "0.098"), ("network A", "WAN"): ("4.51", "9.72")}
COLUMNS = (
    *("network", "place", "system", "s a step", "÷ semi2k", "rounds", "MB", "CPU s"),
    *("loss deviation", "published: TF Encrypted", "published: MP-SPDZ"),
)
NOTES = """
Seconds: the median of the steps after the first epoch, the loss of each revealed. ÷ semi2k: by the
four processes' in the same place. Rounds: semi2k's openings; SPU's sends, of one party. MB: what
all parties send in a step, dealing included, TLS and headers not. CPU seconds: of a step, of all
parties, the relay left out. Deviation: of the first ten losses from the plain ones; above {loss:g}
it is wrong.

Published, **not measured here**: seconds of a step of network A with batches of 128, each on its
authors' own machines, TF Encrypted's with the WAN that the relay imitates.

The relay has neither TCP's slow start nor losses. What it is to give (and was measured to give):
{relays}
"""


# ---- Where the parties are -----------------------------------------------------------------------


@contextlib.contextmanager
def placed(place, ports):
    """Hosts in one of `PLACES`, for a `with` block.

    Args:
        ports: name of a host -> the port of 127.0.0.1 that it listens on.
    Yields:
        name of a host -> name of any -> the port by which the first reaches it.
    """
    if place == "loopback":
        yield dict.fromkeys(ports, ports)
    else:
        with relayed(place, ports) as reached:
            yield {name: {**reached[name], name: ports[name]} for name in ports}


# ---- semi2k --------------------------------------------------------------------------------------


def run_hosts(network, place):
    """The figures of semi2k's four processes, as of `training.measure`."""
    options, n_train, n_test = NETWORKS[network]
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hosts, out = Loopback(folder, n_train=n_train, n_test=n_test), folder / "results"
        hosts.prepare()
        files = stack.enter_context(apart(hosts, place))
        script = [sys.executable, "-m", "benchmarks.hosts", network, folder / "used.json"]
        epochs = str(training.EPOCHS["semi2k"])
        more = ["--parties", files[SERVER], "--epochs", epochs, *options, "--out", out]
        peers.call([*script, "", *more, "--write-plan", hosts.plan], "no plan was made")
        for name in (*hosts.workers, PROVIDER):
            hosts.parties = files[name]
            stack.callback(end, hosts, name)
            hosts.start(name)
        pids = ",".join(str(process.pid) for process in hosts.running.values())
        peers.call([*script, pids, *more, "--plan", hosts.plan], "its run failed")
        record = json.loads((out / "run.json").read_text())
        used = json.loads((folder / "used.json").read_text())
    return {
        "step": statistics.median(step["seconds"] for step in record["steps"][training.STEPS :]),
        "cpu": statistics.median(used["cpu"][1:]) / training.STEPS,
        "rounds": record["counters"]["training step"]["rounds"],
        "bytes": statistics.median(map(operator.sub, used["sent"][1:], used["sent"])),
        "losses": [step["loss"] for step in record["steps"][: training.STEPS]],
    }


@contextlib.contextmanager
def apart(hosts, place):
    """Put `hosts`, a `Loopback`, into one of `PLACES`, for a `with` block.

    Yields:
        name of a host -> the path of a parties file of its own, in which the others have the
        addresses by which it reaches them.
    """
    text, parties = hosts.parties.read_text(), configuration.read(hosts.parties).parties
    ports = {name: int(p.address.split(":")[1]) for name, p in parties.items() if p.address}
    names = {port: name for name, port in ports.items()}
    files = {name: hosts.folder / f"{name}.toml" for name in parties}
    with placed(place, ports | {SERVER: free_port()}) as reached:  # whom nobody calls
        for host, file in files.items():
            seen = {port: f"{HERE}:{reached[host][name]}" for port, name in names.items()}
            file.write_text(re.sub(rf"{HERE}:(\d+)", lambda m: seen[int(m[1])], text))  # noqa: B023
        yield files


def end(hosts, name):
    """End a party, however it fares."""
    try:
        hosts.stop(name)
    except subprocess.TimeoutExpired:
        raise peers.Unavailable(f"{name} does not end") from None


def run_server(network, file, pids, *arguments):
    """In the server's process: the script, with the CPU seconds of the parties' processes, and of
    its own, in each epoch's training; and the bytes that all have sent at the end of each step and
    each test, of which the steps are most: what is dealt ahead is not dealt in the same step."""
    import train_encrypted as script

    parties = [psutil.Process(int(pid)) for pid in (*filter(None, pids.split(",")), os.getpid())]
    train, counters, used = script.train, script.semi2k.counters, {"cpu": [], "sent": []}

    def counted(*args):
        before = cpu_seconds(parties)
        train(*args)
        used["cpu"].append(cpu_seconds(parties) - before)

    def noted():
        if now := counters():  # none where a plan is written
            used["sent"].append(sent_by_all(vars(now)))
        return now

    script.train, script.semi2k.counters = counted, noted
    script.Net = training.network_a(script) if network == "network A" else script.Net
    sys.argv = ["train_encrypted.py", *arguments]
    script.main()
    pathlib.Path(file).write_text(json.dumps(used))


def cpu_seconds(processes):
    """That they have used so far."""
    return sum(used.user + used.system for used in (p.cpu_times() for p in processes))


# ---- SPU -----------------------------------------------------------------------------------------


def run_spu(protocol, n_parties, place, task):
    """The figures of SPU's processes, as `peers/train_spu.py` prints them."""
    names = [f"party{rank}" for rank in range(n_parties)]
    with placed(place, {name: free_port() for name in names}) as reached:
        ports = [[reached[host][name] for name in names] for host in names]
        command = [peers.make_environment("spu"), peers.SCRIPTS / "train_spu.py", task, protocol]
        return json.loads(peers.call([*command, json.dumps(ports)], "its run failed"))


def shorten(task):
    """Leave one batch to test in a task: only training is timed."""
    with numpy.load(task) as file:
        arrays = {name: file[name] for name in file.files}
    for name in ("test_images", "test_labels"):
        arrays[name] = arrays[name][:1]
    numpy.savez(task, **arrays)


# ---- The table -----------------------------------------------------------------------------------


def run(network, folder, peers_too):
    """All figures for one of `NETWORKS`: (place, system) -> figures, or why there are none; and the
    plain losses. Of SPU only if `peers_too`."""
    task = folder / f"{network}.npz"
    print("running", network, ONE_PROCESS, file=sys.stderr)
    one = training.measure("semi2k", task, NETWORKS[network][0])
    shorten(task)
    results = {("loopback", ONE_PROCESS): one}
    for place in PLACES:
        systems = {PROCESSES: (run_hosts, network, place)}
        for name, which in SPU.items() if peers_too else ():
            systems[name] = run_spu, *which, place, task
        for system, (function, *arguments) in systems.items():
            print("running", network, place, system, file=sys.stderr)
            try:
                results[place, system] = function(*arguments)
            except (peers.Unavailable, LoopbackError) as reason:
                results[place, system] = peers.Unavailable(reason)
    with numpy.load(task) as plain:
        return results, plain["losses"]


def recorded(network, results, losses):
    """What `run` has returned, for the record: a dict for each system and place, of its figures or
    with `unavailable`, why there are none."""
    for (place, system), figures in results.items():
        where = {"network": network, "place": place, "system": system}
        if isinstance(figures, peers.Unavailable):
            yield where | {"unavailable": str(figures)}
            continue
        deviation = numpy.abs(numpy.subtract(figures["losses"], losses)).max()  # nan, if one is
        kept = {name: figures[name] for name in ("step", "rounds", "bytes", "cpu")}
        yield where | kept | {"deviation": deviation.item()}


def row(one, rows):
    """A line of the table; `one` of the record's rows, by itself and among all."""
    network, place, system = (one[name] for name in ("network", "place", "system"))
    here = (r for r in rows if (r["network"], r["place"]) == (network, place))
    (ours,) = (r for r in here if r["system"] == PROCESSES)
    cells = [network, "–" if system == ONE_PROCESS else place]
    cells += [f"**{system}**" if system == PROCESSES else system]
    if "unavailable" in one:
        cells += [f"**did not run:** {one['unavailable']}".replace("|", "/"), *["–"] * 5]
    else:
        cells += [f"{one['step']:.4f}", "–"]
        if "step" in ours:
            cells[-1] = f"{one['step'] / ours['step']:.2f}"
        cells += [f"{one['rounds']:,}", f"{one['bytes'] / 1e6:.2f}", f"{one['cpu']:.4f}"]
        deviation = one["deviation"]
        cells += [peers.held(deviation, f"{deviation:.5f}", peers.LOSS_TOLERANCE)]
    return peers.line([*cells, *PUBLISHED.get((network, place), ("–", "–"))])


@as_png
def picture(record):
    """Seconds of a step of each system in each place, a column for each network, as a PNG.

    Args:
        record: that of results/hosts.json.
    """
    figure = Figure(figsize=(9, 5))
    columns = figure.subplots(1, len(NETWORKS), sharey=True, sharex=True)
    for axis, network in zip(columns, NETWORKS, strict=True):
        rows = [row for row in record["rows"] if row["network"] == network]
        places, names = [], []
        for one in rows:
            first = not names or one["system"] in (ONE_PROCESS, PROCESSES)
            places.append(places[-1] + (1.7 if first else 1) if places else 0)
            names.append(one["system"].removesuffix(", TLS"))
            _bar(axis, places[-1], one)
            if one["system"] == PROCESSES:
                axis.text(0, places[-1] - 0.55, one["place"], weight="bold", va="bottom")
        axis.set_yticks(places, names)
        axis.set(title=TITLES[network], xlabel="seconds of a step")
        axis.grid(visible=False, axis="y")
    columns[0].invert_yaxis()
    most = max(row.get("step", 0) for row in record["rows"])
    columns[0].set_xlim(0, 1.15 * most)
    caption(figure, record["machine"])
    return figure


def _bar(axis, place, one):
    if "unavailable" in one:
        axis.text(0, place, " did not run", va="center", fontsize=SMALL)
        return
    colour, hatch = LOOKS[one["system"]]
    ours = one["system"] in (ONE_PROCESS, PROCESSES)
    axis.barh(place, one["step"], 0.8, color=colour, hatch=hatch)
    weight = "bold" if ours else "normal"
    axis.text(one["step"], place, f" {one['step']:.3f}", va="center", fontsize=SMALL, weight=weight)


def relays():
    """What each relay is to give and gives, a line each."""
    lines = []
    for place in PLACES[1:]:
        rate, latency = PROFILES[place]
        there_and_back, measured_rate = measured(place)
        lines.append(
            f"{place}: {2e3 * latency:g} ms there and back ({1e3 * there_and_back:.2f}), "
            f"{8e-6 * rate:,.0f} Mbit/s each way ({8e-6 * measured_rate:,.0f})."
        )
    return "\n".join(lines)


def main(peers_too=True):
    """Run every system everywhere and print the table; write the record and the picture, if SPU is
    in them."""
    record = {"machine": peers.machine(), "relays": relays(), "rows": []}
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            results, losses = run(network, pathlib.Path(folder), peers_too)
            record["rows"] += recorded(network, results, losses)
    lines = [record["machine"], "", peers.line(COLUMNS), peers.line(["---"] * len(COLUMNS))]
    lines += [row(one, record["rows"]) for one in record["rows"]]
    notes = NOTES.format(loss=peers.LOSS_TOLERANCE, relays=record["relays"])
    print("\n".join([*lines, notes.rstrip()]))
    if peers_too:
        training.keep(training.RESULTS / "hosts.json", record, picture)


if __name__ == "__main__":
    if sys.argv[1:] in ([], ["--without-spu"]):
        main(peers_too=not sys.argv[1:])
    else:
        run_server(*sys.argv[1:])
