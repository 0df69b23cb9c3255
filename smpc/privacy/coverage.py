"""Whether a plan's programs are covered by its guarantee, found from the programs themselves.

What is computed from an owner's training items is followed from register to register, and by labels
from position to position, wherever the plan lets a value be stored. The instruction "noise" ends
it, if its noise is what the guarantee says; it may reach nothing that is revealed, to whomever.

What a weight is moved by the noise is compared with what the guarantee, the learning rate and the
batch say. But from a program alone it cannot be seen what an integer at the noise stands for, nor
that no item counts there more than C: that takes the script, from which everybody can make the same
programs again (docs/deployment.md).
"""

import math
from itertools import pairwise
from typing import NamedTuple

from smpc.privacy import accounting
from smpc.semi2k.compiler import LEAST_SIGMA

ROUNDING = "truncate", "truncate_exactly"
CLOSE = 1e-6  # relative: of floats that are computed twice, and of fractions that are rounded


class Update(NamedTuple):
    """What moves a weight: `rates`, of each epoch, times the mean of a batch.

    Attributes:
        rates: floats; the last stays.
        one: integers in the number 1, of a weight, a float.
        workers: how many add noise.
    """

    rates: tuple
    one: float
    workers: int

    def noise(self, guarantee, turn, items):
        """The standard deviation, in integers, of a worker's noise in a weight after a step."""
        rate = self.rates[min(turn // guarantee.steps, len(self.rates) - 1)]
        return guarantee.sigma / math.sqrt(self.workers) * rate * self.one / items


class Flow(NamedTuple):
    """What goes where in a program, without noise on its way: inputs, by their place.

    Attributes:
        outputs: of each output, the inputs that reach it, a frozenset.
        revealed, noised: those that reach what is revealed, and what noise is added to.
        noise: the least standard deviation, in integers, that noise has in an output which it
            reaches; None if there is no noise.
    """

    outputs: tuple
    revealed: frozenset
    noised: frozenset
    noise: float | None


def check(programs, positions, restore, guarantee, update):
    """Check that all that a plan may run is covered.

    Args:
        programs: name -> `semi2k.program.Program`.
        positions: in order, each with a program's `name` and labels, `inputs` and `outputs`: see
            `smpc.hosts.plans.Expected`. Each is run once at most.
        restore: (name, for each output the input that it is) of each that is run any number of
            times at no position.
        guarantee: an `accounting.Guarantee`; `update`: an `Update`.
    Raises:
        ValueError: something is not covered; the message is one line.
    """
    for program in programs.values():
        _check_noise(program, guarantee)
    for name, kept in restore:
        _check_restore(programs[name], kept)
    flows = {name: flow_of(program) for name, program in programs.items()}
    for number, position in enumerate(positions):
        program = programs[position.name]
        if (len(program.inputs), len(program.outputs)) != (
            len(position.inputs), len(position.outputs)
        ):  # fmt: skip
            raise ValueError(f"position {number} has other inputs or outputs than its program")
    holds = _holds(positions, flows)
    for number, position in enumerate(positions):
        if found := _of(holds, position, flows[position.name].revealed):
            raise ValueError(f"position {number} reveals of {min(found)} what has no noise")
    _check_uses(positions, flows, holds, guarantee, update)


def check_accounting(guarantee, workers, private, delta, epochs, clip):
    """Check that a guarantee is what the accountant says of these.

    Args:
        workers: how many add noise.
        private: ε; `delta`, `epochs`, `clip`: as of `accounting.guarantee`.
    Raises:
        ValueError: it is not, or there is none; the message is one line.
    """
    steps, coordinates = guarantee.steps, guarantee.coordinates
    about = private, delta, epochs, workers, clip, steps, coordinates, LEAST_SIGMA
    for name, value in accounting.guarantee(*about)._asdict().items():
        said = getattr(guarantee, name)
        alike = said == value if name == "correlation" else math.isclose(said, value, rel_tol=CLOSE)
        if not alike:
            raise ValueError(f"its guarantee has {name} {said}, which is to be {value}")


def flow_of(program):
    """The `Flow` of a `Program`."""
    reach = {register: frozenset([j]) for j, (register, _, _) in enumerate(program.inputs)}
    revealed = noised = frozenset()
    noises = []
    for instruction in program.instructions:
        found = frozenset().union(*(reach[register] for register in instruction.ins))
        if instruction.op == "reveal":
            revealed |= found
        if instruction.op == "noise":
            noises.append(_size(program, instruction))
            noised, found = noised | found, frozenset()
        reach |= dict.fromkeys(instruction.outs, found)
    outputs = tuple(reach[register] for register in program.outputs)
    return Flow(outputs, revealed, noised, min(noises, default=None))


def _size(program, noise):
    """The least standard deviation that an instruction's noise has in an output, which is that of
    the weight: what else is stored is finer."""
    sizes = {}
    for op, outs, ins, params in program.instructions:
        size = min((sizes[register] for register in ins if register in sizes), default=None)
        if outs == noise.outs:
            size = noise.params[1]
        if size is None:
            continue
        if op == "scale":
            size *= min(params[0], 2**64 - params[0])
        sizes |= dict.fromkeys(outs, size)
        if op in ROUNDING:
            sizes[outs[0]] = size / params[1]
    return min((sizes[register] for register in program.outputs if register in sizes), default=0)


def _check_noise(program, guarantee):
    """That the noise of a program, if it has any, is on every coordinate once, correlated as it is
    said to be, and in integers that are fine enough."""
    noises = [i for i in program.instructions if i.op == "noise"]
    if not noises:
        return
    if sum(math.prod(i.params[0]) for i in noises) != guarantee.coordinates:
        raise ValueError(f"a program's noise is not on all {guarantee.coordinates:,} coordinates")
    if sorted(i.params[3] for i in noises) != list(range(len(noises))):
        raise ValueError("a program adds noise to a value twice")
    for noise in noises:
        _, sigma, correlation, _ = noise.params
        if correlation != guarantee.correlation:
            raise ValueError(f"a program's noise is correlated by {correlation}")
        if sigma < LEAST_SIGMA:
            raise ValueError(f"a program's noise is of {sigma:,} integers, fewer than it is to be")


def _check_restore(program, kept):
    """That it masks values anew, each in its place, and does nothing else."""
    inputs = [register for register, _, _ in program.inputs]
    masked = {i.outs[0]: i.ins[0] for i in program.instructions if i.op == "mask"}
    if len(masked) < len(program.instructions) or kept != tuple(range(len(inputs))):
        raise ValueError("the program that masks a checkpoint anew does something else")
    if [masked.get(register) for register in program.outputs] != inputs:
        raise ValueError("the program that masks a checkpoint anew exchanges values")


def _batch(label):
    """The batch of training items that a value is, or None."""
    owner, which, items, *_ = [*label.split(" "), "", ""]
    return f"{owner} train {items}" if which == "train" else None


def _holds(positions, flows):
    """label -> the batches of training items that what goes by it may tell of, a frozenset;
    whichever position made it, in whatever order they are run."""
    labels = {label for position in positions for label in position.inputs}
    holds = {label: frozenset([batch]) for label in labels if (batch := _batch(label))}
    grows = True
    while grows:
        grows = False
        for position in positions:
            outputs = flows[position.name].outputs
            for label, inputs in zip(position.outputs, outputs, strict=True):
                before = holds.get(label, frozenset())
                after = before | _of(holds, position, inputs)
                if after != before:
                    holds[label], grows = after, True
    return holds


def _of(holds, position, inputs):
    """The batches in these inputs of a position."""
    return frozenset().union(*(holds.get(position.inputs[j], ()) for j in inputs))


def _check_uses(positions, flows, holds, guarantee, update):
    """That each item gets noise as often as the guarantee has epochs, so far apart that its uses
    share no noise, each position with noise being run after the one before; and enough of it."""
    noisy = [k for k, p in enumerate(positions) if flows[p.name].noise is not None]
    if len(noisy) > guarantee.epochs * guarantee.steps:
        raise ValueError(f"it has {len(noisy):,} steps, more than its guarantee")
    uses, band = {}, len(guarantee.correlation) + 1
    for turn, k in enumerate(noisy):
        before = f"{noisy[turn - 1]}."
        if turn and not any(label.startswith(before) for label in positions[k].inputs):
            raise ValueError(f"position {k} may be run before position {before[:-1]}")
        flow = flows[positions[k].name]
        batches = _of(holds, positions[k], flow.noised)
        items = max(1, sum(stop - start for _, start, stop in map(_items, batches)))
        if flow.noise < update.noise(guarantee, turn, items) * (1 - CLOSE):
            raise ValueError(f"position {k} adds less noise than its guarantee has")
        for batch in batches:
            turns = uses.setdefault(batch, [])
            if turns and turn - turns[-1] < band:
                raise ValueError(f"{batch} is used again at position {k}, before {band} steps")
            turns.append(turn)
    for batch, turns in uses.items():
        if len(turns) > guarantee.epochs:
            raise ValueError(f"{batch} is used {len(turns)} times in {guarantee.epochs} epochs")
    _check_disjoint(uses)


def _check_disjoint(batches):
    """That no item is in two batches."""
    for (owner, _, stop), (other, start, _) in pairwise(sorted(map(_items, batches))):
        if owner == other and start < stop:
            raise ValueError(f"item {start} of {owner} is in two batches")


def _items(batch):
    """Its owner, and where its items start and stop."""
    owner, _, span = batch.split(" ")
    return (owner, *map(int, span.split(":")))
