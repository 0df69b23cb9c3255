"""A training step of the tutorial, round by round: what the workers open, who sends what to whom.

    python -m benchmarks.rounds     # ten seconds; prints two tables, draws docs/step.png

The tables go into docs/protocol.md, too.

The tutorial's network is trained for three steps; the third step's program, which every later one
is equal to, is run once more by one worker alone, to see what each of its rounds opens. A program
holds nothing secret, so that a batch of noise serves as well as MNIST. Bytes are those of the
arrays that a worker sends to each other worker; the rest of a message is about 70 bytes.
"""

import pathlib
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import train_encrypted as script
from smpc import syft_binding
from smpc.files import write_whole
from smpc.pictures import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, SMALL, as_png
from smpc.semi2k import compiler
from smpc.semi2k.arithmetic import Bits, Masked
from smpc.semi2k.program import MOVES, Program
from smpc.semi2k.run import Run, take
from smpc.semi2k.tensor import semi2k_tensor_in

DOCS = pathlib.Path(__file__).resolve().parent.parent / "docs"
PAGE, FIGURE = DOCS / "protocol.md", DOCS / "step.png"
BATCH, RATE, STEPS = 64, 0.02, 3
DIGITS = range(2, 8)
PASSED_ON = ("mask", "partial", "unhide", *MOVES)
KINDS = {  # colour and hatch
    "truncation": (BLUE, ""),
    "comparison": (ORANGE, "///"),
    "mask": (GREEN, "..."),
    "update": (PURPLE, "xxx"),
    "loss": (INK, ""),
}


class Watched(compiler.Compiler):
    """A compiler that notes how finely each truncation's input is held.

    Attributes:
        made: all such compilers, in order.
        steps: register of a quotient -> steps of the number that is rounded in the number 1.
    """

    made: ClassVar = []

    def __init__(self, *arguments):
        self.steps = {}
        super().__init__(*arguments)
        self.made.append(self)

    def _zone(self, steps, d, least):
        self.steps[self._count] = steps  # the next register is the quotient's
        return super()._zone(steps, d, least)


class Step(NamedTuple):
    """The program of a training step.

    Attributes:
        program: a `Program`.
        names: register of a parameter -> its name.
        steps: as of `Watched`.
    """

    program: Program
    names: dict
    steps: dict


class Opening(NamedTuple):
    """What one instruction opens in one round.

    Attributes:
        number: of the instruction; `kind`, a key of `KINDS`, and `what`: what it is for.
        boolean: whether it is bits; `size`: bytes from each worker to each other.
    """

    number: int
    kind: str
    what: str
    boolean: bool
    size: int


# ---- A real program ------------------------------------------------------------------------------


def train(net, workers, provider, digits=3, batch=BATCH):
    """Train `net`, images to ten outputs, for some steps on a batch of noise: the last `Step`.

    Between these parties no such net was trained before: what is compiled is kept.
    """

    def share(values):
        return values.fix_precision(precision_fractional=digits).share(
            *workers, crypto_provider=provider, protocol="semi2k", requires_grad=True
        )

    Watched.made.clear()
    names = {}  # of every step: a program is compiled once
    native, compiler.Compiler = compiler.Compiler, Watched
    try:
        data = share(torch.randn(batch, 1, 28, 28))
        target = share(torch.nn.functional.one_hot(torch.arange(batch) % 10, 10).float())
        net = share(net)
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
        optimizer = optimizer.fix_precision(precision_fractional=digits)
        for _ in range(STEPS):
            for name, parameter in net.named_parameters():
                names[semi2k_tensor_in(parameter).node] = name
            optimizer.zero_grad()
            loss = ((net(data) - target) ** 2).sum().refresh() / batch
            loss.backward()
            optimizer.step()
            loss.get()
    finally:
        compiler.Compiler = native
    made = Watched.made[-1]
    program = Program(made.key)
    registers = [register for register, _, _ in program.inputs]
    pairs = zip(registers, made.inputs, strict=True)
    names = {register: names[node] for register, node in pairs if node in names}
    return Step(program, names, made.steps)


def rounds_of(step):
    """What is opened in each round of a step: a list of lists of `Opening`.

    A worker's run is fed zeros, and openings that no zone has.
    """
    program, purposes = step.program, purposes_of(step)
    dealt = take(program, np.zeros(program.drawn + program.corrections, np.uint64), None)
    zeros = [np.zeros(shape, np.uint64) for _, _, shape in program.inputs]
    inputs = [
        Masked(zero, zero) if form == "masked" else zero
        for zero, (_, form, _) in zip(zeros, program.inputs, strict=True)
    ]
    run, rounds, levels = Run(0, program, dealt, inputs, None), [], {}
    while not run.finished:
        rounds.append([])
        for number, _, ask in run.waiting:
            kind, what = purposes[number]
            array, boolean = (ask.words, True) if isinstance(ask, Bits) else (ask, False)
            if kind == "comparison":
                level = levels[number] = levels.get(number, 0) + 1
                what += f", level {level} of its tree" if array.ndim > 1 else ", hidden by a bit"
            rounds[-1].append(Opening(number, kind, what, boolean, array.nbytes))
        words, bits = (sum(ask.size for ask in asks) for asks in run.asks())
        with np.errstate(over="ignore"):
            run.resume(np.full(words, 2**63, np.uint64), np.zeros(bits, np.uint64))
    return rounds


# ---- What its openings are for -------------------------------------------------------------------


def purposes_of(step):
    """Instruction that opens something -> (key of `KINDS`, what it is for), in a step of a net
    of linear layers with ReLUs between them."""
    instructions = step.program.instructions
    made = {out: number for number, one in enumerate(instructions) for out in one.outs}
    layers, found, named = {}, {}, set()
    for number, (op, outs, ins, _) in enumerate(instructions):
        if op == "above_zero":
            layer = layers[outs[0]] = len(layers) + 1
            found[number] = "comparison", f"layer {layer}: sign"
            found[made[ins[0]]] = "truncation", f"layer {layer}: weighted sums"
    for number, (op, *_) in enumerate(instructions):
        if number not in found and op.startswith("truncate"):
            found[number] = _purpose_of_truncation(step, instructions[number], layers)
            if found[number] in named and found[number][0] == "truncation":
                # the last layer's sums again, more finely
                found[number] = "truncation", "output less target: gradient"
            named.add(found[number])
        elif number not in found and op == "mask":
            found[number] = "mask", _purpose_of_mask(step, number, made, layers, found)
    return found


def _purpose_of_mask(step, number, made, layers, found):
    instructions = step.program.instructions
    (out,), (value,) = instructions[number].outs, instructions[number].ins
    source = made.get(value)
    if source is None:
        return f"{step.names[value]}, masked"
    if source in found:
        return found[source][1]
    if instructions[source].op == "select":
        bit, factor = instructions[source].ins
        forward = found[made[factor]][1].endswith("weighted sums")
        what = "ReLU's output" if forward else "gradient, past the ReLU"
        return f"layer {layers[bit]}: {what}"
    bits = [ins[0] for op, _, ins, _ in _readers(step.program, out) if op == "select"]
    return f"layer {layers[bits[0]]}: gradient" if bits else "output less target: gradient"


def _purpose_of_truncation(step, truncation, layers):
    for op, _, ins, _ in _readers(step.program, truncation.outs[0]):
        if op == "select":
            return "truncation", f"layer {layers[ins[0]]}: gradient"
        if op == "sub" and ins[0] in step.names:
            return "update", f"update of {step.names[ins[0]]}"
        if op == "reveal":
            return "loss", "loss"
    if len(truncation.params[0]) == 1:  # at a scale that the bias cannot be added at
        return "update", "update of a bias, for its remainder"
    return "truncation", f"layer {len(layers) + 1}: weighted sums"


def _readers(program, register):
    """The instructions that read a register, and what masks it or moves its elements about."""
    for number in program.users.get(register, ()):
        yield program.instructions[number]
        if program.instructions[number].op in PASSED_ON:
            yield from _readers(program, program.instructions[number].outs[0])


def promises_of(step):
    """For each truncation: (what it is for, its zone or None, the magnitude that it promises)."""
    purposes, promises = purposes_of(step), []
    for number, (op, outs, _, params) in enumerate(step.program.instructions):
        if op.startswith("truncate"):
            d, zone = params[1], params[2] if op == "truncate" else None
            most = 2 ** (63 if zone is None else zone) // 2 - d
            promises.append((*purposes[number], zone, most / step.steps[outs[0]]))
    return promises


# ---- Tables and figure ---------------------------------------------------------------------------


def dealt_of(program):
    """Bytes that the provider sends the last worker, by instruction."""
    dealt = {}
    for instruction, fields in zip(program.instructions, program.fields, strict=True):
        size = 8 * sum(field.size for field in fields if field.derived)
        if size:
            dealt[instruction.op] = dealt.get(instruction.op, 0) + size
    return dealt


def table_of_rounds(step, rounds):
    """What a step opens, as lines."""
    dealt = dealt_of(step.program)
    parts = ", ".join(f"`{op}` {size:,}" for op, size in dealt.items())
    yield f"Dealt before: {sum(dealt.values()):,} bytes, to the last worker ({parts})."
    yield ""
    yield "| round | opened | bytes, from each worker to each other |"
    yield "| ---: | --- | ---: |"
    for number, openings in enumerate(rounds, 1):
        for opening in openings:
            yield f"| {number} | {opening.what} | {opening.size:,} |"
    total = sum(opening.size for openings in rounds for opening in openings)
    yield f"| {len(rounds)} | together | {total:,} |"


def table_of_promises(steps):
    """Of each kind of truncation the least magnitude, as lines; `steps`: digits -> `Step`."""
    columns = {
        "weighted sums": lambda kind, what: what.endswith("weighted sums"),
        "gradients": lambda kind, what: what.endswith("gradient"),
        "updates": lambda kind, what: kind == "update",
        "loss": lambda kind, what: kind == "loss",
    }
    yield "| digits | " + " | ".join(columns) + " |"
    yield "| ---: |" + " --- |" * len(columns)
    for digits, step in steps.items():
        promises, cells = promises_of(step), []
        for belongs in columns.values():
            found = [(least, zone) for *purpose, zone, least in promises if belongs(*purpose)]
            zones = sorted({str(zone or "exact") for _, zone in found})
            least = min(least for least, _ in found)
            cells.append(f"{least:,.{0 if least >= 10 else 1}f} ({', '.join(zones)})")
        yield f"| {digits} | " + " | ".join(cells) + " |"


def write(tables):
    """Print tables, name -> lines, and put each into its place in the page."""
    page = PAGE.read_text()
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
        table = "\n".join(lines)
        before, after = page.split(begin)[0], page.split(end)[1]
        page = f"{before}{begin}{table}{end}{after}"
        print(table, end="\n\n")
    PAGE.write_text(page)


@as_png
def picture(step, rounds):
    """The parties' lines, what passes between them, and how many bytes that is, as a PNG."""
    middles, height = [], 3.7
    for openings in rounds:
        middles.append(height + 0.25 * (len(openings) + 1))
        height += 0.4 + 0.5 * len(openings)
    figure = Figure(figsize=(10, 0.34 * height))
    lines, bars = figure.subplots(1, 2, width_ratios=(5, 1.6), sharey=True)
    _draw_lines(lines, step, rounds, middles, height)
    _draw_bars(bars, rounds, middles)
    return figure


def _draw_lines(axis, step, rounds, middles, end):
    places = {"orchestrator": 0.0, "worker1": 1.1, "worker2": 4.1, "crypto_provider": 5.2}
    for party, x in places.items():
        axis.vlines(x, 0.4, end + 1.6, color=MUTED, linewidth=0.8, zorder=0)
        axis.text(x, 0, party, ha="center", va="center", weight="bold")

    def arrow(y, one, other, text, at, style="->"):
        ends = (places[one], y), (places[other], y)
        axis.annotate("", ends[1], ends[0], arrowprops={"arrowstyle": style, "shrinkA": 0})
        axis.text(
            at, y, text, ha="center", va="center", fontsize=SMALL, linespacing=1.15, bbox=WHITE
        )

    for y, other in zip((1.0, 1.6, 2.2), ("crypto_provider", "worker1", "worker2"), strict=True):
        at = 0.55 if other == "worker1" else 2.6
        arrow(y, "orchestrator", other, "run" if at < 1 else "run: the program's name", at)
    dealt = sum(dealt_of(step.program).values())
    axis.text(4.65, 2.75, f"{dealt / 1e6:.2f} MB\ndealt", ha="center", va="center", fontsize=SMALL)
    arrow(3.3, "crypto_provider", "worker2", "", 4.65)
    for number, (openings, y) in enumerate(zip(rounds, middles, strict=True), 1):
        text = "\n".join(opening.what for opening in openings)
        arrow(y, "worker1", "worker2", text, 2.6, "<->")
        axis.text(1.0, y, number, ha="right", va="center", fontsize=SMALL, color=MUTED)
    arrow(end + 0.3, "worker1", "orchestrator", "result", 0.55)
    arrow(end + 0.9, "worker2", "orchestrator", "result: a share of the loss, 8 bytes", 2.6)
    axis.set(xlim=(-0.6, 5.9), ylim=(end + 1.8, -0.6))
    axis.axis("off")


def _draw_bars(axis, rounds, middles):
    for openings, y in zip(rounds, middles, strict=True):
        left = 0
        for opening in openings:
            size = opening.size / 1e3
            colour, hatch = KINDS[opening.kind]
            axis.barh(y, size, 0.6, left, color=colour, hatch=hatch)
            left += size
        axis.text(left + 12, y, f"{left:,.1f}", va="center", fontsize=SMALL)
    looks = [
        Patch(facecolor=colour, hatch=hatch, label=kind) for kind, (colour, hatch) in KINDS.items()
    ]
    axis.legend(handles=looks, loc="upper right")
    total = sum(opening.size for openings in rounds for opening in openings)
    axis.set_xlabel(f"kB from each worker to each other\n{total / 1e6:.2f} MB together")
    axis.set_xlim(0, 1.25 * max(sum(one.size for one in openings) for openings in rounds) / 1e3)
    axis.spines["left"].set_visible(False)
    axis.tick_params(left=False, labelleft=False)
    axis.grid(visible=False)


WHITE = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}


def main():
    """Print the tables and draw the figure."""
    hook = script.sy.TorchHook(torch)
    torch.set_num_threads(1)
    torch.manual_seed(1)
    syft_binding.install()
    steps = {}
    for digits in DIGITS:
        workers = [script.sy.VirtualWorker(hook, id=f"worker{i + 1}") for i in range(2)]
        provider = script.sy.VirtualWorker(hook, id="crypto_provider")
        net = script.Net(script.ACTIVATIONS["relu"])
        steps[digits] = train(net, workers, provider, digits)
    rounds = rounds_of(steps[3])
    write({"rounds": table_of_rounds(steps[3], rounds), "promises": table_of_promises(steps)})
    write_whole(FIGURE, picture(steps[3], rounds))
    print(f"written: docs/{FIGURE.name} and the tables of docs/{PAGE.name}")


if __name__ == "__main__":
    main()
