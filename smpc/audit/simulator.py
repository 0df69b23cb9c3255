"""The definition of semi-honest security, made executable.

A protocol is secure against a party if there is a simulator that is given that party's inputs and
outputs, and nothing else, and makes a view such that (view, the other workers' outputs) has the
distribution that it has in the protocol, whatever the inputs (Canetti 2000, section 4; Lindell
2017, eprint 2016/046, definition 4.1, for functionalities that are random). Inputs and outputs are
shares; whoever compares knows all the inputs. `ideal` and its neighbours hold the functionalities
and simulators. Part of some outputs is public, such as a masked value's delta.

A worker's view is its part of the inputs, what is dealt to it, and what is opened; it draws nothing
else. A run that a truncation breaks off is a view, too: what was dealt and opened, and that it was
broken off, and nothing after. The orchestrator, which has no inputs, sees the shares of what is
revealed, and which runs were broken off: that its simulator makes from nothing. The provider sees
the masks that it makes, which are its output, of which the workers' outputs are a function; its
simulator makes them in a run on zeros. Which runs are made anew depends on its masks and on the
secrets together: that is handed to its simulator (`ideal_truncation.Truncation.leakage`). An owner
sees its value and its mask, and no share.

What is shown, and how:

Exactly, on rings of 2 to 5 bits, most on Z_2^4 (`check`), for two workers. The workers' own code
runs on every combination of secrets and random values at once, each a run of its own; the two joint
distributions are compared as counts, with no tolerance. Where runs may be broken off, those that
are and those that are not are compared together, so that nothing is conditioned on being accepted.
- Over everything: sharing, mask, mask of a partial, unhide, refresh, complete, reveal, truncation
  of a partial, AND gates of two and three inputs, the node of the comparison's tree that has two.
- Over all secrets, and all random values but the party's own shares of what is named, which are
  drawn once, and are the same in both worlds: truncation and exact truncation of a share, and
  truncation that is revealed (the input), exact truncation of a partial (r), product, what is
  linear, and a quotient as a factor (inputs, masks, quotients), select (the bit's mask), AND gates
  of four inputs and nodes of three and four (inputs, masks, and products of masks but those that
  make an output's share), product that is truncated, comparison of 2, 3 and 4 bits (all), ReLU (all
  but select's c); two masks, truncations or comparisons at once, and a remainder that enters the
  next truncation (all), two selects (all but their c).
- With these and the secrets drawn: product of matrices, one mask kept for two products, a bias
  joined to a product before that is truncated, two truncated products with a factor in common; and,
  with the masks of the inputs drawn, too, a whole program: product, truncation, comparison, select,
  mask, product with a bias, revealed, and a weight that is updated (`ideal_composed.Step`).
Each comparison is exact for the shares that were drawn; shares of other values are only sampled.
For the orchestrator and the provider they are all of worker1's, but for what hides the shares of
what is revealed. Truncation takes all numbers, also beyond those that it is right for; what it is
right for is checked by its functionality.

Statistically, on Z_2^64, for two workers, and for each two of three watching together. The parties'
ends exchange their messages, see `ends`, with keys from the operating system, for a few secrets.
Compared with samples of what is ideal are the means of each bit, of each product of two bits and of
each product of three values' lowest bits, as -1 and 1. By Hoeffding's inequality and a union bound,
a correct protocol fails any of the tests of `run_all` with probability at most `LEVEL`. What else
many bits tell together is not looked at.
- Samples are the elements of one run (`check_samples`): each protocol, a program with two
  instructions of each kind, so that what two of a kind have in common shows, and the whole program.
  Runs that count are compared with simulated ones on the condition that these count, too; and runs
  that are broken off for certain by themselves. All that the orchestrator and the provider are
  sent, but for the shares of what is revealed, is compared byte by byte: it is the same for all
  secrets. So but for these shares, and for which runs are made anew, the orchestrator sees nothing.
- Samples are runs of one session on arrays of 1, 2, 3 and 65 elements (`check_runs`): the whole
  program. A comparison fills words of 64 bits, and what fills them is looked at, too. Each bit is
  compared by itself; of the elements, and of what fills words, the first and last together.
- Samples are runs of a program with two truncations that were broken off and made anew
  (`check_attempts`), by a zone that is a quarter of the ring: the workers' view of both attempts
  together; the provider's masks in both, under the condition that the one was broken off and the
  other was not, as its simulator finds by what it is handed; how often that is, which is all that
  the orchestrator sees of it.

By composition (Canetti 2000, theorem 5), and not by enumeration: the comparison of more than 4
bits, whose tree has several levels of such nodes; other programs, and runs that use what others
have made; more workers than three; the dealing, which is here done with uniform shares in the place
of AES-CTR streams.
"""

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from smpc.audit import distances, ideal
from smpc.audit.chance import LEVEL
from smpc.audit.ends import samples
from smpc.audit.ideal import Refresh, Reveal
from smpc.audit.ideal_comparison import AndGates, Comparison, Select
from smpc.audit.ideal_composed import (
    BiasJoined,
    EachTwice,
    Remainder,
    Step,
    Twice,
    TwoProducts,
)
from smpc.audit.ideal_truncation import (
    BrokenOff,
    ExactTruncation,
    ProductTruncation,
    ReLU,
    TruncatedFactor,
    Truncation,
    TruncationRevealed,
)
from smpc.audit.repeated import at_edges, samples_of_attempts, samples_of_runs
from smpc.audit.transcript import ORCHESTRATOR, PARTIES, PROVIDER, WORKERS
from smpc.audit.variables import Enumeration, Held, columns
from smpc.audit.worlds import (
    Real,
    blanked,
    ideal_revealed,
    inputs_of,
    of_workers,
    outputs_of,
    secrets_of,
    simulated,
)
from smpc.semi2k import comparison
from smpc.semi2k.compiler import ZONE
from smpc.semi2k.session import OWNERS

(OWNER,) = OWNERS
SIZES = (1, 2), (2, 2), (3, 2), (65, 2), (1, 3)  # elements of an array, and workers
RUNS = 256
OFTEN = 62  # a zone, so that some 44 of a hundred runs with two truncations are broken off


class Result(NamedTuple):
    """How far what a party sees is from what is ideal.

    Attributes:
        protocol, party: names.
        method: "exact", "statistical" or "messages".
        compared: points enumerated or elements sampled, of both worlds; or messages.
        distance: exact: the total variation distance, a Fraction, its mean over secrets, which is
            0 only if it is 0 for each. Statistical: the largest difference of two means. Messages:
            how many are not the same for all secrets.
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

    The samples are 4096 for each of two secrets, or 1024 of programs of many values, and half as
    many of three workers (these compare in a ReLU, and not again by itself); or 256 runs.
    """
    results = [check(protocol, party) for protocol in small() for party in PARTIES]
    results.append(check(ideal.Sharing(), OWNER))
    cases = [(protocol, 2) for protocol in large()]
    cases += [(protocol, 3) for protocol, _ in cases if not isinstance(protocol, Comparison)]
    level = LEVEL / (len(cases) + len(SIZES) + 2)
    for protocol, n_workers in cases:
        n = 1024 if isinstance(protocol, EachTwice | ReLU | Step) else 4096
        results += check_samples(protocol, n_workers, 2, n if n_workers == 2 else n // 2, level)
    for size, n_workers in SIZES:
        results += check_runs(Step(64, 10, ZONE), size, n_workers, RUNS, level)
    for n_workers in (2, 3):
        results += check_attempts(TwoProducts(64, 10, OFTEN), n_workers, RUNS, level)
    return results


def small():
    """The protocols on small rings: on Z_2^4, a truncation on Z_2^5, with room for its d, and
    programs of more variables on smaller ones."""
    protocols = [ideal.Sharing(), ideal.Mask(), ideal.HiddenMask(), ideal.Unhide()]
    protocols += [kind(form=form) for kind in (Refresh, Reveal) for form in ("share", "hidden")]
    protocols += [ideal.Noised()]
    protocols += [ideal.Product(), ideal.MatrixProduct(), ideal.KeptMask(), ideal.Linear()]
    protocols += [Truncation(d=2), Truncation(d=3), Truncation(form="hidden"), Truncation(5, 3, 4)]
    protocols += [ProductTruncation(), TruncatedFactor(), TruncationRevealed(), ReLU()]
    protocols += [ExactTruncation(d=2), ExactTruncation(d=3), ExactTruncation(form="hidden")]
    protocols += [Comparison(), Comparison(compared=3), Comparison(compared=2)]
    protocols += [Select("masked"), Select("bit")]
    protocols += [AndGates((term,)) for term in comparison.terms(4, last=True)]
    protocols += [AndGates(comparison.terms(fan_in, last=False)) for fan_in in (2, 3, 4)]
    protocols += [Twice("mask"), Twice("truncation"), Twice("comparison", 3), Twice("select", 2)]
    return [*protocols, Remainder(), *(kind(3, 2, 2) for kind in (BiasJoined, TwoProducts, Step))]


def large():
    """The protocols on Z_2^64, with truncations as the compiler makes them. What is part of another
    of these is not compared by itself."""
    protocols = [kind(bits=64) for kind in (ideal.Sharing, ideal.Mask, ideal.HiddenMask)]
    protocols += [kind(bits=64) for kind in (ideal.Unhide, Refresh, Reveal, ideal.Product)]
    protocols += [kind(bits=64) for kind in (ideal.MatrixProduct, ideal.Linear)]
    protocols += [kind(64, 1000, ZONE) for kind in (Truncation, TruncationRevealed, ReLU)]
    protocols += [ExactTruncation(64, 1000), Comparison(64), BrokenOff(64)]
    kinds = BiasJoined, TwoProducts, Remainder, EachTwice, Step
    return protocols + [kind(64, 10, ZONE) for kind in kinds]


# ---- Exactly, on a small ring --------------------------------------------------------------------


def check(protocol, party):
    """Compare what `party` sees with what is ideal, on every point: a `Result`.

    Args:
        protocol: an `ideal.Protocol` on a small ring.
        party: one of `transcript.PARTIES`, or of a `Sharing` OWNER.
    """
    held = Held(lambda variable: _held(protocol, party, variable))
    worlds = [_enumerate(world, protocol, party, held) for world in (_real, _ideal)]
    compared = sum(len(column) for world in worlds for column, _ in [*world.values()][:1])
    return Result(protocol.name, party, "exact", compared, distances.total_variation(*worlds), 0)


def _watching(party):
    """The number of the worker whose view is compared: the party's own, or worker1's."""
    return WORKERS.index(party) if party in WORKERS else 0


def _held(protocol, party, variable):
    """For the orchestrator and the provider, all that is worker1's, where anything is, but what
    hides the shares of what is revealed."""
    if variable.startswith("secret."):
        return protocol.few_secrets
    if protocol.few_masks and protocol.hides_an_input(variable):
        return True
    worker, _, own = variable.partition(".")
    if worker != str(_watching(party)):
        return False
    if party in WORKERS:
        return protocol.held(own)
    return protocol.conditioned and not own.startswith("reveal")


def _enumerate(world, protocol, party, held):
    """The columns of a world, each combination of its variables' values at as many points."""
    counted = Enumeration(64, held)
    world(protocol, party, counted)
    n = math.lcm(counted.combinations, 64)  # bits fill whole words
    return columns(world(protocol, party, Enumeration(n, held)), protocol.bits)


def _real(protocol, party, coins):
    """The secrets, a worker's part of them, what `party` sees, and the other's outputs."""
    secrets, worker = secrets_of(protocol, coins), _watching(party)
    world = Real(protocol, coins, (worker,)).execute(secrets)
    view = {f"secret {name}": value for name, value in secrets.items()}
    if party == OWNER:
        return view | world.masks | of_workers(world.outputs, "output", (0, 1))
    view |= of_workers(world.inputs, "input", (worker,)) | {"anew": world.anew}
    if party == PROVIDER:
        return view | world.made
    if party == ORCHESTRATOR:
        return view | blanked(world.revealed, world.anew)
    view |= {f"{worker} {name}": value for name, value in world.dealt[worker].items()}
    outputs = of_workers(world.outputs, "output", {1 - worker})
    return view | world.opened | blanked(outputs, world.anew)


def _ideal(protocol, party, coins):
    """The same, with the simulator's view and the functionality's outputs."""
    secrets, worker = secrets_of(protocol, coins), _watching(party)
    view = {f"secret {name}": value for name, value in secrets.items()}
    if party in WORKERS:
        return view | simulated(protocol, coins, secrets, (worker,), 2)
    if party == OWNER:
        outcome = protocol.functionality(coins, secrets, {})
        masks = {name: output.shared for name, output in outcome.outputs.items()}
        outputs = outputs_of(protocol, coins, outcome, 2, 1)
        return view | masks | of_workers(outputs, "output", (0, 1))
    inputs, _ = inputs_of(protocol, coins, secrets, 2, 1)
    view |= of_workers(inputs, "input", (worker,))
    if party == ORCHESTRATOR:
        return view | ideal_revealed(protocol, coins, secrets, 2)
    world = Real(protocol, coins, (worker,)).execute(None)
    anew = world.anew  # False, of a protocol that has no truncation
    if world.minus_r:
        anew = protocol.leakage(secrets, world.minus_r)
    return view | world.made | {"anew": anew}


# ---- Statistically, on Z_2^64 --------------------------------------------------------------------


def check_samples(protocol, n_workers, n_secrets, n, level):
    """Compare samples of what each party sees with samples of what is ideal: a list of `Result`.

    Of n workers any n - 1 watch together. What the orchestrator and the provider are sent, but for
    shares of what is revealed, is compared byte by byte, and must be the same for all secrets.

    Args:
        protocol: an `ideal.Protocol` on the ring of 64 bits.
        n_secrets: how many secrets (or pairs, or triples), at most five.
        n: samples for each, a multiple of 64.
        level: the probability that a correct protocol fails for any party.
    """
    found, said = {}, {PROVIDER: [], ORCHESTRATOR: []}
    for secrets in _examples(protocol, n_secrets, n):
        ends, pairs = samples(protocol, secrets, n_workers)
        for who, worlds in pairs.items():
            found.setdefault(who, []).append(distances.largest_difference(*worlds))
        for party, messages in said.items():
            messages.append(ends.said(party))
    results = []
    for who, differences in found.items():
        party = _named(who, n_workers)
        results.append(_statistical(protocol.name, party, differences, n, level / len(found)))
    for party, (first, *others) in said.items():
        count, name = len(first) * (1 + len(others)), _named(party, n_workers)
        distance = Fraction(sum(other != first for other in others))
        results.append(Result(protocol.name, name, "messages", count, distance, 0))
    return results


def _statistical(name, party, differences, n, level):
    """A `Result` of differences of means, (the largest, of how many) pairs, of n samples each."""
    limit = distances.limit(sum(count for _, count in differences), n, level)
    distance = max(difference for difference, _ in differences)
    return Result(name, party, "statistical", 2 * n * len(differences), distance, limit)


def check_runs(protocol, size, n_workers, n, level):
    """The same, of n runs on arrays of `size` elements, for workers and orchestrator: a list.

    Each bit of all elements is looked at by itself, and those of the elements at the ends together.
    """
    (*_, secrets), results = _examples(protocol, 4, size), []
    pairs = samples_of_runs(protocol, secrets, n_workers, n)
    for who, worlds in pairs.items():
        edges = (columns(at_edges(view, size), protocol.bits) for view in worlds)
        found = distances.largest_difference(*edges), distances.largest_of_bits(*worlds)
        (together, pairs_of), (alone, bits) = found
        found = [(max(together, alone), pairs_of + bits)]
        name, party = f"{protocol.name}, arrays of {size}", _named(who, n_workers)
        results.append(_statistical(name, party, found, n, level / len(pairs)))
    return results


def check_attempts(protocol, n_workers, n, level):
    """The same, of n runs on one element, which were broken off and made anew."""
    (*_, secrets), results = _examples(protocol, 4, 1), []
    pairs = samples_of_attempts(protocol, secrets, n_workers, n)
    for who, worlds in pairs.items():
        found = [distances.largest_difference(*worlds)]
        name, party = f"{protocol.name}, made anew", _named(who, n_workers)
        results.append(_statistical(name, party, found, n, level / len(pairs)))
    return results


def _named(who, n_workers):
    """What a table calls those who watch: of more than two workers it says how many there are."""
    who = who if isinstance(who, str) else " and ".join(f"worker{i + 1}" for i in who)
    return who if n_workers == 2 else f"{who}, of {n_workers} workers"


def _examples(protocol, count, n):
    """Secrets, each the same in all of n elements: the ends of what the protocol takes, and more.

    At most five.
    """
    least, most = protocol.values().start, protocol.values().stop - 1
    picks = [0, most, least, 1, (least + 2 * most) // 3]
    for i in range(count):
        yield {
            name: np.full((n, *shape), picks[(i + j) % len(picks)] % 2**64, dtype=np.uint64)
            for j, (name, (_, shape)) in enumerate(protocol.inputs.items())
        }
