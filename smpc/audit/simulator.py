"""The definition of semi-honest security, made executable.

A protocol is secure against a party if there is a simulator that is given that party's inputs and
outputs, and nothing else, and makes a view such that (view, the other worker's outputs) has the
distribution that it has in the protocol, whatever the inputs (Canetti 2000, section 4; Lindell
2017, eprint 2016/046, definition 4.1, for functionalities that are random). Inputs and outputs are
shares; whoever compares knows all the inputs. `ideal` holds the functionalities and simulators.
Part of some outputs is public, such as a masked value's delta. Truncation's is c, from which the
functionality chooses whether to round up or down: that is what the protocol does, and less than a
rounding drawn by itself.

A worker's view is its shares of inputs, what is dealt to it, and what is opened; it draws nothing
else. The orchestrator, which has no inputs, sees what is opened, and both shares of what is
revealed. The provider sees the masks that it makes. Both are simulated by a run on zeros.

What is shown, and how:

Exactly, on Z_2^4 (`check`). The workers' own code runs on every combination of secrets and random
values at once; the two joint distributions are compared as counts, with no tolerance.
- Over everything: sharing, mask, refresh, reveal, AND gates of two and three inputs.
- Over all secrets, and all random values but the party's own shares of what is named, which are
  drawn once, and are the same in both worlds: truncation (the input), product
  (inputs and masks), AND gates of four inputs and a node of the comparison's tree (inputs, masks,
  and products of masks but those that make an output's share), the whole comparison (all).
- With these and the secrets drawn: product of matrices, one mask kept for two products.
Each comparison is exact for the shares that were drawn; shares of other values are only sampled.
For the orchestrator and the provider they are all of worker1's, and the orchestrator's view is what
is opened; how that splits into what the two workers send is looked at on Z_2^64 only.

Statistically, on Z_2^64 (`check_samples`). The parties' ends exchange their messages, with keys
from the operating system, for a few secrets. Compared with samples of what is ideal are the means
of each bit, of each product of two bits and of each product of three values' lowest bits, as -1
and 1. By Hoeffding's inequality and a union bound, a correct protocol fails any of the tests of
`run_all` with probability at most `LEVEL`. What else many bits tell together is not looked at.

By composition (Canetti 2000, theorem 5), and not by enumeration: the comparison on rings of more
than 4 bits, whose tree has several levels of such nodes; programs of several instructions; the
dealing, which is here done with uniform shares in the place of AES-CTR streams.
"""

import itertools
import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from smpc.audit import ideal
from smpc.audit.chance import LEVEL
from smpc.audit.openings import Store, given
from smpc.audit.transcript import ORCHESTRATOR, PARTIES, PROVIDER, WORKERS
from smpc.audit.variables import (
    Enumeration,
    Held,
    Lanes,
    Sampling,
    columns,
    elements,
    field_like,
    fresh_shares,
    lanes,
    packed,
    unpacked,
)
from smpc.semi2k import arithmetic, comparison
from smpc.semi2k.arithmetic import Bits
from smpc.semi2k.parties import Provider, Worker, pack, raw, unpack, words
from smpc.semi2k.program import Program
from smpc.semi2k.randomness import Stream, new_key


class Result(NamedTuple):
    """How far what a party sees is from what is ideal.

    Attributes:
        protocol, party: names.
        method: "exact" or "statistical".
        compared: points enumerated or elements sampled, of both worlds.
        distance: exact: the total variation distance, a Fraction, its mean over secrets, which is
            0 only if it is 0 for each. Statistical: the largest difference of
            two means.
        limit: the largest distance that passes; 0 for an exact comparison.
    """

    protocol: str
    party: str
    method: str
    compared: int
    distance: Fraction | float
    limit: float

    @property
    def passed(self):
        """Whether the two worlds look the same."""
        return self.distance <= self.limit


def run_all():
    """Compare every protocol for every party, both ways: a list of `Result`.

    The samples are 4096 for each of two secrets.
    """
    g_terms, node = comparison.terms(last=True), comparison.terms(last=False)
    both = [ideal.Sharing, ideal.Mask, ideal.Product, ideal.MatrixProduct, ideal.KeptMask]
    both += [ideal.Comparison, ideal.Refresh, ideal.Reveal]
    small = [protocol() for protocol in both]
    small += [ideal.Truncation(d=2), ideal.Truncation(d=3)]
    small += [ideal.AndGates((term,)) for term in g_terms] + [ideal.AndGates(node)]
    large = [protocol(bits=64) for protocol in both] + [ideal.Truncation(bits=64, d=1000)]
    results = [check(protocol, party) for protocol in small for party in PARTIES]
    for protocol in large:
        results += check_samples(protocol, 2, 4096, LEVEL / len(large))
    return results


# ---- Exactly, on a small ring --------------------------------------------------------------------


def check(protocol, party):
    """Compare what `party` sees with what is ideal, on every point: a `Result`.

    Args:
        protocol: an `ideal.Protocol` on a small ring.
        party: one of `transcript.PARTIES`.
    """
    held = Held(lambda variable: _held(protocol, party, variable))
    worlds = [_enumerate(world, protocol, party, held) for world in (_real, _ideal)]
    compared = sum(len(column) for world in worlds for column, _ in [*world.values()][:1])
    return Result(protocol.name, party, "exact", compared, total_variation(*worlds), 0)


def _held(protocol, party, variable):
    """For the orchestrator and the provider, all that is worker1's, where anything is."""
    all_own = protocol.conditioned and party not in WORKERS
    return protocol.held(variable) or (all_own and variable.startswith("own."))


def _enumerate(world, protocol, party, held):
    """The columns of a world, on as many points as its variables have combinations."""
    counted = Enumeration(64, held)
    world(protocol, party, counted)
    return world(protocol, party, Enumeration(counted.combinations, held))


def _real(protocol, party, coins):
    """The secrets, a worker's shares of them, what `party` sees, and the other's outputs.

    The shares are the party's own, or worker1's: whoever compares the worlds knows all inputs.
    """
    secrets = _secrets(protocol, coins)
    worker = WORKERS.index(party) if party in WORKERS else 0
    world = Real(coins, worker, protocol.bits)
    outputs = world.execute(protocol, secrets)
    if party == PROVIDER:
        view = world.made
    elif party == ORCHESTRATOR:
        view = world.opened | world.revealed
    else:
        view = {**world.dealt, **world.opened, "outputs": outputs[1 - worker]}
    secrets = {"secrets": tuple(secrets.values())}
    return columns({**secrets, **world.shares, **view}, protocol.bits)


def _ideal(protocol, party, coins):
    """The same, with the simulator's view and the functionality's outputs."""
    secrets = _secrets(protocol, coins)
    inputs = _inputs(protocol, coins, secrets)
    if party == PROVIDER:
        world = Real(coins, 0, protocol.bits)
        world.execute(protocol, _zeros(protocol, coins))
        view = world.made
    elif party == ORCHESTRATOR:
        view = _openings(protocol, coins) | protocol.revealed(coins, **secrets)
    else:
        view = _simulated(protocol, WORKERS.index(party), coins, secrets, inputs)
    secrets = {"secrets": tuple(secrets.values())}
    return columns({**secrets, **inputs, **view}, protocol.bits)


def _secrets(protocol, coins):
    if protocol.boolean:
        return {name: lanes(coins, f"secret.{name}", 1) for name in protocol.inputs}
    values = protocol.values()
    residues = np.array([x % 2**protocol.bits for x in values], dtype=np.uint64)
    return {
        name: residues[elements(coins, f"secret.{name}", len(values), shape)]
        for name, shape in protocol.inputs.items()
    }


def _zeros(protocol, coins):
    zeros = {name: np.zeros((coins.n, *s), np.uint64) for name, s in protocol.inputs.items()}
    return {name: Lanes(x, 1) for name, x in zeros.items()} if protocol.boolean else zeros


def _inputs(protocol, coins, secrets):
    """One worker's shares of the secrets."""
    return {
        name: fresh_shares(coins, f"own.{name}", x, protocol.bits)[0] for name, x in secrets.items()
    }


def _simulated(protocol, worker, coins, secrets, inputs):
    """What is ideal for a worker with these shares: its view and the other's outputs."""
    own, other = protocol.functionality(coins, **secrets)
    return {**protocol.simulator(coins, worker, inputs, own), "outputs": other}


def _openings(protocol, coins):
    """What is opened in a simulated run on zeros."""
    zeros = _zeros(protocol, coins)
    view = _simulated(protocol, 0, coins, zeros, zeros)  # and shares of zero that are zero
    return {name: value for name, value in view.items() if ".opened" in name}


def total_variation(one, other):
    """The distance of two joint distributions: a Fraction.

    Args:
        one, other: columns, as of `variables.columns`, of the same names; the points of each are
            equally likely.
    """
    keys, position = [np.uint64(0), np.uint64(0)], 0
    for name in _same_names(one, other):
        pair, width = [side[name][0] for side in (one, other)], one[name][1]
        if all((column == pair[0][0]).all() for column in pair):
            continue  # a single value
        if position + width > 64:
            raise ValueError("these are too many variables for a key of 64 bits")
        keys = [key | column << np.uint64(position) for key, column in zip(keys, pair, strict=True)]
        position += width
    found = [np.unique(key, return_counts=True) for key in keys]
    # (asked for the counts, numpy sorts; union1d hashes, which takes ten times as long)
    values, _ = np.unique(np.concatenate([at for at, _ in found]), return_counts=True)
    counts = np.zeros((2, len(values)), dtype=np.int64)
    for row, (at, times) in zip(counts, found, strict=True):
        row[np.searchsorted(values, at)] = times
    n, m = (int(row.sum()) for row in counts)
    return Fraction(int(np.abs(counts[0] * m - counts[1] * n).sum()), 2 * n * m)


def _same_names(one, other):
    if set(one) != set(other):
        raise ValueError(f"seen in one world only: {sorted(set(one) ^ set(other))}")
    return sorted(one)


class Real:
    """Runs a protocol between both workers on every point, and notes what each party sees.

    Args:
        coins: an `Enumeration`.
        worker: 0 or 1, whose view is wanted. Its shares are drawn; the other's are drawn, too, of
            a uniform field, and follow otherwise from the value, which has the same distribution.
        bits: of the ring.
    Attributes:
        shares: of the inputs, its own; `dealt`: to it; `opened`; `revealed`: both workers' shares;
            `made`: by the provider. Each is a dict, name -> ring elements or Lanes.
    """

    def __init__(self, coins, worker, bits):
        self.coins, self.worker, self.bits = coins, worker, bits
        self.shares, self.dealt, self.opened, self.revealed, self.made = {}, {}, {}, {}, {}

    def execute(self, protocol, secrets):
        """Share the secrets and run the protocol: both workers' outputs."""
        return protocol.real(self, **{name: self.share(name, x) for name, x in secrets.items()})

    def share(self, name, x):
        """Both workers' shares of a secret."""
        own, other = fresh_shares(self.coins, f"own.{name}", x, self.bits)
        self.shares[name] = own
        pair = self._ordered(own, other)
        return pair if isinstance(x, Lanes) else arithmetic.share(x, pair[0])

    def deal(self, label, item, *factors):
        """Both workers' shares of an item, a pair of dicts, and what they are shares of."""
        secret, own, other = {}, {}, {}
        for field in item.fields():
            name = field.name
            own[name] = self._draw(f"own.{label}.{name}", field)
            if not field.derived:
                other[name] = self._draw(f"other.{label}.{name}", field)
                secret[name] = self.dealt_value(field, own[name], other[name])
        secret |= item.derive(secret, *factors)
        for field in item.fields():
            name, value = field.name, secret[field.name]
            rest = value ^ own[name] if field.boolean else self._reduced(value - own[name])
            other[name] = rest
            seen = unpacked(own[name], field.boolean, self.coins.n, self.bits)
            self.dealt[f"{label}.{name}"] = seen
        return self._ordered(own, other), secret

    def dealt_value(self, field, one, two):
        """What the shares of a uniform field make."""
        return one ^ two if field.boolean else self._reduced(one + two)

    def run(self, label, protocol, *arguments):
        """Both workers' results of `protocol`, one worker's side; each argument is a pair."""
        sides = [protocol(party, *args) for party, args in enumerate(zip(*arguments, strict=True))]
        if not hasattr(sides[0], "send"):
            return tuple(sides)
        opened = None
        for number in itertools.count():
            asked, results = [], []
            for side in sides:
                try:
                    asked.append(side.send(opened))
                except StopIteration as finished:
                    results.append(finished.value)
            if results:
                return tuple(results)
            boolean = isinstance(asked[0], Bits)
            one, two = (ask.words if boolean else ask for ask in asked)
            opened = one ^ two if boolean else self._reduced(one + two)
            seen = unpacked(opened, boolean, self.coins.n, self.bits)
            self.opened[f"{label}.opened{number}"] = seen

    def _draw(self, name, field):
        drawn = self.made[name] = field_like(self.coins, name, field, self.bits)
        return packed(drawn, self.bits) if isinstance(drawn, Lanes) else drawn

    def _ordered(self, own, other):
        return (own, other) if self.worker == 0 else (other, own)

    def _reduced(self, x):
        return x & np.uint64(2**self.bits - 1)


# ---- Statistically, on Z_2^64 --------------------------------------------------------------------


def check_samples(protocol, n_secrets, n, level):
    """Compare samples of what each party sees with samples of what is ideal: a list of `Result`.

    Args:
        protocol: an `ideal.Protocol` on the ring of 64 bits.
        n_secrets: how many secrets (or pairs, or triples), at most five.
        n: samples for each, a multiple of 64.
        level: the probability that a correct protocol fails for any party.
    """
    found = {}
    for secrets in _examples(protocol, n_secrets, n):
        for party, worlds in _samples(protocol, secrets, n).items():
            found.setdefault(party, []).append(largest_difference(*worlds))
    results = []
    for party, differences in found.items():
        # two means of n numbers in [-1, 1]: P(|difference| >= t) <= 2 exp(-n t^2 / 4)
        tests = len(found) * sum(count for _, count in differences)
        limit = 2 * math.sqrt(math.log(2 * tests / level) / n)
        distance = max(difference for difference, _ in differences)
        compared = 2 * n * len(differences)
        results.append(Result(protocol.name, party, "statistical", compared, distance, limit))
    return results


def _examples(protocol, count, n):
    """Secrets, each the same in all of n elements: the ends of what the protocol takes, and more.

    At most five.
    """
    least, most = protocol.values().start, protocol.values().stop - 1
    picks = [0, most, least, 1, (least + 2 * most) // 3]
    for i in range(count):
        yield {
            name: np.full((n, *shape), picks[(i + j) % len(picks)] % 2**64, dtype=np.uint64)
            for j, (name, shape) in enumerate(protocol.inputs.items())
        }


def _samples(protocol, secrets, n):
    """party -> (columns of what it sees, columns of what is ideal)."""
    parties, coins = Parties(), Sampling(n)
    outputs = parties.run(protocol, secrets)
    pairs = {}
    for worker, party in enumerate(WORKERS):
        view = {**parties.views[worker], "outputs": outputs[1 - worker]}
        inputs = _inputs(protocol, coins, secrets)
        simulated = _simulated(protocol, worker, coins, secrets, inputs)
        pairs[party] = view, {**inputs, **simulated}
    sent = {
        name: fresh_shares(coins, name, value, 64)
        for name, value in _openings(protocol, coins).items()
    }
    if parties.sent:
        shares = {name: parties.views[0][name] for name in secrets}
        ideal_view = sent | protocol.revealed(coins, **secrets)
        inputs = _inputs(protocol, coins, secrets)
        pairs[ORCHESTRATOR] = {**shares, **parties.sent}, {**inputs, **ideal_view}
    return {
        party: tuple(columns(view, protocol.bits) for view in pair) for party, pair in pairs.items()
    }


def largest_difference(one, other):
    """How far the means of two samples are apart, and how many means there are.

    Args:
        one, other: columns of the same names, with as many samples each.
    """
    names = _same_names(one, other)
    firsts = np.cumsum([0, *(one[name][1] for name in names[:-1])])
    sides = [_signs([side[name] for name in names]) for side in (one, other)]
    n, size = sides[0].shape
    means = sides[0].mean(axis=0) - sides[1].mean(axis=0)
    products = (sides[0].T @ sides[0] - sides[1].T @ sides[1]) / n
    largest = max(np.abs(means).max(), np.abs(products).max())
    lowest = [side[:, firsts] for side in sides]
    for i in range(len(firsts)):
        one, other = ((side[:, i, None] * side).T @ side for side in lowest)
        largest = max(largest, np.abs(one - other).max() / n)
    return float(largest), size * (size + 1) // 2 + math.comb(len(firsts), 3)


def _signs(columns_):
    """Columns -> float32 (n, bits), every bit as -1 or 1."""
    bits = [
        np.unpackbits(column[:, None].view(np.uint8), axis=1, bitorder="little")[:, :width]
        for column, width in columns_
    ]
    return np.concatenate(bits, axis=1).astype(np.float32) * 2 - 1


class Parties:
    """Both workers' and the provider's ends, with fresh keys, for one run of one protocol.

    Attributes:
        views: of each worker, and `sent`: both workers' shares of what is opened and revealed,
            name -> ring elements, Lanes or a pair of such.
    """

    def __init__(self):
        self.workers = Watched(), Watched()
        self.provider = Provider(PROVIDER, (0, 1), self)
        self.provider.send_keys()
        self.views, self.sent = ({}, {}), {}

    def request(self, sender, receiver, message, kind):
        """In the place of `Network.request`, for the provider."""
        self.workers[receiver].receive(message)

    def run(self, protocol, secrets):
        """Share the secrets, arrays by name, and run the protocol; both workers' outputs."""
        n = len(next(iter(secrets.values())))
        self._share(secrets)
        instructions, registers = protocol.program(n)
        inputs = tuple(range(len(secrets)))
        key = (tuple(instructions.values()), inputs, (), (), (), ())
        common = {"serial": 1, "program": 0, "key": key, "inputs": inputs}
        self.provider.receive(pack(**common, delete=()))
        self._open(pack(do="run", **common, outputs=(), constants=(), delete=()))
        labels = tuple(instructions)
        asked = []
        for view, worker in zip(self.views, self.workers, strict=True):
            dealt = zip(labels, Program(key).fields, worker.deals, strict=True)
            for label, fields, deal in dealt:
                for field, _ in fields:
                    seen = unpacked(deal[field.name], field.boolean, n, 64)
                    view[f"{label}.{field.name}"] = seen
            view |= _numbered(worker.opened, labels, n)
            asked.append(_numbered(worker.asked, labels, n))
        self.sent |= {name: (share, asked[1][name]) for name, share in asked[0].items()}
        return [_read(worker.registers, registers) for worker in self.workers]

    def _share(self, secrets):
        owner = Stream(new_key())
        for id, (name, x) in enumerate(secrets.items()):
            shares = arithmetic.share(x, owner.words(x.size).reshape(x.shape))
            for view, worker, share in zip(self.views, self.workers, shares, strict=True):
                worker.receive(pack(do="store", id=id, shape=x.shape, share=raw([share])))
                view[name] = share

    def _open(self, message):
        """Add up what the workers ask for, until they finish, as `Session` does."""
        finished = False
        while not finished:
            one, two = (unpack(worker.receive(message)) for worker in self.workers)
            if one["revealed"]:
                self.sent["revealed"] = words(one["revealed"]), words(two["revealed"])
            finished = one["finished"]
            opened = words(one["words"]) + words(two["words"])
            bits = words(one["bits"]) ^ words(two["bits"])
            message = pack(do="open", words_=raw([opened]), bits=raw([bits]))


def _numbered(values, labels, n):
    """Pairs (instruction, array or Bits) -> by "label.opened", numbered, as they are looked at."""
    named, times = {}, {}
    for instruction, value in values:
        number = times[instruction] = times.get(instruction, -1) + 1
        boolean = isinstance(value, Bits)
        seen = unpacked(value.words if boolean else value, boolean, n, 64)
        named[f"{labels[instruction]}.opened{number}"] = seen
    return named


def _read(registers, which):
    """What is in a register, or a tuple of what is in several."""
    return tuple(registers[i] for i in which) if isinstance(which, tuple) else registers[which]


class Watched(Worker):
    """A worker that keeps all that it receives in a run, and what it makes of it.

    Attributes:
        deals: for each instruction.
        asked, opened: pairs (instruction, array or Bits), in order.
        registers: at the end.
    """

    def __init__(self):
        super().__init__(Store())
        self.deals, self.asked, self.opened, self.registers = [], [], [], {}

    def do_open(self, words_, bits):
        """See `Worker`."""
        for instruction, ask, value in given(self.run, words_, bits):
            self.asked.append((instruction, ask))
            self.opened.append((instruction, value))
        return super().do_open(words_, bits)

    def _take(self, serial, program):
        self.deals = super()._take(serial, program)
        return self.deals

    def _finish(self):
        self.registers = self.run.registers
        super()._finish()
