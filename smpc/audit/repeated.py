"""Samples that are runs of one session on Z_2^64, each on few elements, and samples of what is
ideal for them.

A run is on inputs that are shared for it, at an address of its own. Its protocol is of instructions
on elements by themselves, so that what is ideal for a run is what is ideal for so many elements,
and, of planes of bits, for as many as fill their words.
"""

import numpy as np

from smpc.audit.ends import Ends, ideal_view
from smpc.audit.transcript import ORCHESTRATOR, PROVIDER
from smpc.audit.variables import Sampling, columns
from smpc.audit.worlds import ideal_revealed, simulated
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.comparison import padded

MOST = 10  # runs, for each that is made anew
ENOUGH = 8  # attempts to simulate, for each pair of which the first is broken off and no other


def samples_of_runs(protocol, secrets, n_workers, n):
    """Watch n runs, and simulate as many.

    Args:
        protocol: an `ideal.Protocol` on Z_2^64; secrets: name -> uint64 (elements, ...).
        n: a multiple of 64.
    Returns:
        by what watches, see `Ends.views`, what it sees and what is ideal, two dicts, name ->
        ring elements or bits, (n, elements, ...), or `Masked`.
    """
    ends, seen = Ends(protocol, n_workers), {}
    for run in range(n):
        for who, view in ends.execute(secrets, run).views().items():
            seen.setdefault(who, []).append(view)
    (size,) = {len(x) for x in secrets.values()}
    lanes = n * padded(size)
    many = {name: np.resize(x, (lanes, *x.shape[1:])) for name, x in secrets.items()}
    pairs = {}
    for who, views in seen.items():
        real, ideal = stacked(views), ideal_view(protocol, many, who, n_workers)
        pairs[who] = real, {name: _as_runs(value, real[name]) for name, value in ideal.items()}
    return pairs


def stacked(views):
    """Views of many runs as one, whose first axis counts runs."""
    return {name: _stacked([view[name] for view in views]) for name in views[0]}


def _stacked(values):
    if isinstance(values[0], Masked):
        parts = zip(*values, strict=True)
        return Masked(*(None if part[0] is None else np.stack(part) for part in parts))
    return _of_elements(np.stack(values))


def _of_elements(value):
    """An array (runs, elements, ...) in which the bits of each element have an axis."""
    return value[..., None] if value.dtype == bool and value.ndim == 2 else value


def _as_runs(value, like):
    """Elements as runs, each of as many of them as in `like`."""
    if isinstance(value, Masked):
        return value.map(lambda part: _as_runs(part, like.delta))
    runs = value.reshape(len(like), -1, *value.shape[1:])
    return _of_elements(runs[:, : like.shape[1]])


def at_edges(view, size):
    """Of a view of runs the elements at both ends, and of what fills words of bits likewise."""

    def some(value):
        if isinstance(value, Masked):
            return value.map(some)
        count = value.shape[1]
        return value[:, sorted({0, size - 1, size, count - 1}.intersection(range(count)))]

    return {name: some(value) for name, value in view.items()}


def samples_of_attempts(protocol, secrets, n_workers, n):
    """Watch runs on one element, until n have been broken off and made anew, and simulate them.

    Args:
        as of `samples_of_runs`; the protocol is an `ideal_composed.Composed`.
    Returns:
        by what watches the columns of what it sees and of what is ideal: of workers, all but one,
        and of the provider, the last two attempts of a run together; of the orchestrator, for n
        runs, whether the first attempt was broken off.
    """
    ends, seen, anew = Ends(protocol, n_workers), {}, []
    while len(seen.get(PROVIDER, ())) < n:
        if len(anew) == MOST * n:
            raise RuntimeError(f"of {len(anew)} runs of {protocol.name} few are made anew")
        ends.execute(secrets, len(anew))
        anew.append({"anew": np.array(ends.broken is not None)})
        if ends.broken is not None:
            views, (runs, known) = ends.views(), ends.broken
            views.pop(ORCHESTRATOR, None)  # that is compared where the samples are elements
            views = {who: view | _before(ends.joint(runs, who)) for who, view in views.items()}
            views[PROVIDER] = _made(ends, ends.provider.known) | _before(_made(ends, known))
            for who, view in views.items():
                seen.setdefault(who, []).append(view)
    many = {name: np.resize(x, ENOUGH * n) for name, x in secrets.items()}
    pairs = {
        who: (stacked(views), _attempts(protocol, many, who, n)) for who, views in seen.items()
    }
    told = ideal_revealed(protocol, Sampling(n), {k: x[:n] for k, x in many.items()}, n_workers)
    pairs[ORCHESTRATOR] = stacked(anew[:n]), {"anew": told["anew"]}
    return {
        who: tuple(columns(view, protocol.bits) for view in pair) for who, pair in pairs.items()
    }


def _before(view):
    """What was seen in the attempt before; the inputs are the same."""
    return {f"before, {name}": value for name, value in view.items() if "input" not in name}


def _made(ends, known):
    """What the provider knows of the inputs, and of what each truncation masks."""
    inputs = {f"input {name}": known[ends.compiled.registers[name]] for name in ends.inputs[0]}
    return inputs | {c: known[ends.compiled.registers[c]] for c in ends.protocol.truncations()}


def _attempts(protocol, secrets, who, n):
    """Two attempts in each of n runs, of which the first is broken off and the other is not."""
    coins = Sampling(len(next(iter(secrets.values()))), apart=True)
    view = _provider if who == PROVIDER else _workers
    first, second = (view(protocol, c, secrets, who) for c in (coins, Again(protocol, coins)))
    chosen = np.flatnonzero(first.pop("anew") & ~second.pop("anew"))[:n]
    first = {name: value for name, value in first.items() if "output" not in name}
    joint = second | _before(first)
    return {name: _take(value, chosen) for name, value in joint.items()}


def _take(value, chosen):
    return value.map(lambda part: part[chosen]) if isinstance(value, Masked) else value[chosen]


def _workers(protocol, coins, secrets, watching):
    return simulated(protocol, coins, secrets, watching, len(watching) + 1)


def _provider(protocol, coins, secrets, _):
    """What it makes, uniform whatever the secrets are, and what it is told."""
    made = {f"input {name}": protocol.uniform(coins, f"mask.{name}") for name in secrets}
    minus_r = {label: protocol.uniform(coins, label) for label in protocol.truncations().values()}
    made |= {c: minus_r[label] for c, label in protocol.truncations().items()}
    return made | {"anew": protocol.leakage(secrets, minus_r)}


class Again:
    """Random variables, the same where they hide inputs of a protocol, and others elsewhere."""

    def __init__(self, protocol, coins):
        self.protocol, self.coins, self.n, self.apart = protocol, coins, coins.n, coins.apart

    def draw(self, name, size):
        """See `Sampling`."""
        again = not self.protocol.hides_an_input(name)
        return self.coins.draw(f"{name} again" if again else name, size)
