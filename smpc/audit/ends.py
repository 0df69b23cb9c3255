"""A protocol's two worlds on Z_2^64: the parties' own ends on their real messages, and samples.

The ends have keys from the operating system and speak over the simulation's network, which is
tapped: what a party receives is what it sees, and what it draws from its keys. One run computes
with the same few secrets in each of n elements, which are the samples; in `repeated` they are runs.
"""

import numpy as np

from smpc.audit.transcript import ORCHESTRATOR, PROVIDER
from smpc.audit.variables import Sampling, columns, unpacked
from smpc.audit.worlds import ideal_revealed, of_workers, seen_inputs, simulated
from smpc.semi2k.arithmetic import Bits
from smpc.semi2k.network import Network
from smpc.semi2k.owner import Owner
from smpc.semi2k.program import name_of
from smpc.semi2k.provider import Provider
from smpc.semi2k.run import Run
from smpc.semi2k.session import OWNERS
from smpc.semi2k.wire import Roster, pack, unpack, words
from smpc.semi2k.worker import Worker

MOST_ATTEMPTS = 100


class Tap(Network):
    """The network of the simulation, which keeps what each party receives.

    Attributes:
        received: id -> a list of (sender, message).
    """

    def __init__(self, roster):
        super().__init__(roster)
        self.received = {}

    def carry(self, sender, receiver, message):
        """See `Network`."""
        self.received.setdefault(receiver, []).append((sender, message))
        return super().carry(sender, receiver, message)


class WatchedRun(Run):
    """A worker's run, which keeps what it is opened.

    Attributes:
        opened: pairs (instruction, array or `Bits`), in order.
    """

    def __init__(self, *args):
        self.opened = []
        super().__init__(*args)

    def given(self, opened_words, opened_bits):
        """See `Run`."""
        given = zip(self.waiting, super().given(opened_words, opened_bits), strict=True)
        for (_, _, ask), (number, generator, value) in given:
            self.opened.append((number, Bits(value) if isinstance(ask, Bits) else value))
            yield number, generator, value


class WatchedProvider(Provider):
    """The provider's end.

    Attributes:
        known: of its last attempt, register -> what it knows.
    """

    def _make(self, *args):
        self.known, corrections = super()._make(*args)
        return self.known, corrections


class Watched(Worker):
    """A worker's end, whose last run is kept in `watched`."""

    def RUN(self, *args):
        """See `Worker`."""
        self.watched = WatchedRun(*args)
        return self.watched


class Listener:
    """The orchestrator's end: says what it is told to, and takes what it is sent."""

    def receive(self, sender, message):
        """Nothing comes of it."""
        return []


class Ends:
    """All parties' ends, with fresh keys, for runs of one protocol.

    Attributes:
        compiled: see `ideal.Compiled`.
        inputs, outputs: of the latest run, of each worker dicts, name -> `Masked` or ring elements.
        broken: of the attempt before the one that counted, if there was one: the workers'
            `WatchedRun`s, and what the provider knew; else None.
    """

    def __init__(self, protocol, n_workers):
        self.protocol, (self.owner,) = protocol, OWNERS
        names = tuple(f"worker{i + 1}" for i in range(n_workers))
        self.roster = Roster(ORCHESTRATOR, PROVIDER, names, OWNERS)
        self.network, self.compiled = Tap(self.roster), None
        self.workers = [Watched(name, self.roster) for name in names]
        self.provider = WatchedProvider(PROVIDER, self.roster)
        ends = [*self.workers, self.provider, Listener(), Owner(self.owner, self.roster)]
        self.network.ends |= zip((*names, PROVIDER, ORCHESTRATOR, self.owner), ends, strict=True)
        self.network.send(ORCHESTRATOR, [(PROVIDER, pack("keys", owners=OWNERS))])

    def execute(self, secrets, run=0):
        """Share the secrets and run the protocol, as often as it takes, and each run on as many
        elements as the first; returns self."""
        key = None
        if self.compiled is None:
            self.compiled = self.protocol.program(len(next(iter(secrets.values()))))
            key = self.compiled.key
        else:
            self.network.received.clear()
        count = len(secrets) + len(self.protocol.outputs)  # of values of a run
        ids = range(run * count, (run + 1) * count)
        for id, x in zip(ids, secrets.values(), strict=False):
            shared = self.network.ends[self.owner].share(id, x.view(np.int64))
            self.network.send(self.owner, shared)
        self.inputs = [
            {name: worker.values[id] for name, id in zip(secrets, ids, strict=False)}
            for worker in self.workers
        ]
        attempt = self._attempts(run, ids, key)
        kept = [worker.unsettled.get((run, attempt), {}) for worker in self.workers]
        names = self.protocol.outputs
        self.outputs = [dict(zip(names, stored.values(), strict=True)) for stored in kept]
        return self

    def _attempts(self, run, ids, key):
        """Attempts at a run until one counts, whose number is returned; of the messages of those
        before nothing is kept."""
        received = self.network.received
        before = {party: len(messages) for party, messages in received.items()}
        self.broken = None
        for attempt in range(MOST_ATTEMPTS):
            for party, messages in received.items():
                del messages[before.get(party, 0) :]
            self._attempt(run, attempt, ids, key)
            heard = {unpack(message)["do"] for _, message in received[ORCHESTRATOR]}
            if heard == {"result"} or self.protocol.broken_off:
                return attempt
            self.broken = [worker.watched for worker in self.workers], self.provider.known
        raise RuntimeError(f"{self.protocol.name} was broken off {MOST_ATTEMPTS} times")

    def _attempt(self, run, attempt, ids, key):
        n_inputs = len(self.protocol.inputs)
        fields = {"run": run, "attempt": attempt, "program": name_of(self.compiled.key), "key": key}
        fields |= {"inputs": tuple(ids[:n_inputs]), "outputs": tuple(ids[n_inputs:])}
        fields |= {"counts": (), "forget": (), "position": None, "to": None}
        delete = tuple(id - len(ids) for id in ids[:n_inputs]) if run else ()
        message = pack("run", **fields, delete=delete)
        for party in (PROVIDER, *self.roster.workers):
            self.network.send(ORCHESTRATOR, [(party, message)])

    def view(self, run):
        """What a worker sees in a `WatchedRun`: what is dealt to it, and what is opened to it: two
        dicts."""
        dealt, opened, times = {}, {}, {}
        labels = self.compiled.labels
        for label, fields, deal in zip(labels, run.program.fields, run.deals, strict=True):
            for field in fields:
                value = deal[field.name]
                dealt[f"{label}.{field.name}"] = unpacked(value) if field.boolean else value
        for number, value in run.opened:
            times[number] = times.get(number, -1) + 1
            seen = unpacked(value.words) if isinstance(value, Bits) else value
            opened[f"{labels[number]}.opened{times[number]}"] = seen
        return dealt, opened

    def joint(self, runs, watching):
        """What some workers see together in their `WatchedRun`s."""
        views = {worker: self.view(runs[worker]) for worker in watching}
        _, view = views[watching[0]]
        for worker, (dealt, _) in views.items():
            view |= {f"{worker} {name}": value for name, value in dealt.items()}
        return view

    def views(self):
        """What is seen in the latest run, by what watches: numbers of workers, all but one; or the
        orchestrator's id, if it is sent anything."""
        runs, seen = [worker.watched for worker in self.workers], {}
        for watching in all_but_one(len(runs)):
            (absent,) = set(range(len(runs))) - set(watching)
            view = seen_inputs(self.protocol, self.inputs, watching) | self.joint(runs, watching)
            seen[watching] = view | of_workers(self.outputs, "output", {absent})
        if (revealed := self.revealed()) or self.protocol.reveals:
            seen[ORCHESTRATOR] = revealed
        return seen

    def revealed(self):
        """All that is in what the orchestrator receives, but names and numbers."""
        view, received = {}, self.network.received[ORCHESTRATOR]
        for sender, message in received:
            for field, value in unpack(message).items():
                if isinstance(value, bytes) and value:
                    view[f"{self.roster.workers.index(sender)} {field}"] = words(value)
        return view

    def said(self, party):
        """What the provider or the orchestrator receives, but for shares of what is revealed, and
        for how many attempts were made before, which is chance."""
        messages = [unpack(message) for _, message in self.network.received[party]]
        return [{**fields, "revealed": b"", "attempt": 0} for fields in messages]


def all_but_one(n_workers):
    """The sets of workers that watch together, each a tuple of their numbers."""
    numbers = range(n_workers)
    return [tuple(w for w in numbers if w != absent) for absent in numbers]


def samples(protocol, secrets, n_workers):
    """Watch one run, and simulate it.

    Args:
        protocol: an `ideal.Protocol` on Z_2^64.
        secrets: name -> uint64 (n, ...).
    Returns:
        the ends; and, by what watches, see `Ends.views`, the columns of what that sees, and of
        what is ideal.
    """
    ends = Ends(protocol, n_workers).execute(secrets)
    pairs = {
        who: (real, ideal_view(protocol, secrets, who, n_workers))
        for who, real in ends.views().items()
    }
    return ends, {
        who: tuple(columns(view, protocol.bits) for view in pair) for who, pair in pairs.items()
    }


def ideal_view(protocol, secrets, who, n_workers):
    """What is ideal for what watches, of a run that is not broken off, or one of which all are."""
    n = len(next(iter(secrets.values())))
    for _ in range(MOST_ATTEMPTS):
        coins = Sampling(n)
        if who == ORCHESTRATOR:
            view = ideal_revealed(protocol, coins, secrets, n_workers)
        else:
            view = simulated(protocol, coins, secrets, who, n_workers)
        if view.pop("anew").any() == protocol.broken_off:
            return view
    raise RuntimeError(f"{protocol.name} was broken off {MOST_ATTEMPTS} times")
