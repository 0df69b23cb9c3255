"""A protocol's two worlds on Z_2^64: the parties' own ends on their real messages, and samples.

The ends have keys from the operating system and speak over the simulation's network, which is
tapped: what a party receives is what it sees, and what it draws from its keys. One run computes
with the same few secrets in each of n elements, which are the samples.
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
    """All parties' ends, with fresh keys, for one run of one protocol.

    Attributes:
        inputs, outputs: of each worker, dicts, name -> `Masked` or ring elements.
    """

    def __init__(self, protocol, n_workers):
        self.protocol, (self.owner,) = protocol, OWNERS
        names = tuple(f"worker{i + 1}" for i in range(n_workers))
        self.roster = Roster(ORCHESTRATOR, PROVIDER, names, OWNERS)
        self.network = Tap(self.roster)
        self.workers = [Watched(name, self.roster) for name in names]
        ends = [*self.workers, Provider(PROVIDER, self.roster), Listener()]
        ends.append(Owner(self.owner, self.roster))
        self.network.ends |= zip((*names, PROVIDER, ORCHESTRATOR, self.owner), ends, strict=True)
        self.network.send(ORCHESTRATOR, [(PROVIDER, pack("keys", owners=OWNERS))])

    def execute(self, secrets):
        """Share the secrets and run the protocol, as often as it takes; returns self."""
        for id, x in enumerate(secrets.values()):
            shared = self.network.ends[self.owner].share(id, x.view(np.int64))
            self.network.send(self.owner, shared)
        ids = {name: id for id, name in enumerate(secrets)}
        self.inputs = [{n: worker.values[i] for n, i in ids.items()} for worker in self.workers]
        n = len(next(iter(secrets.values())))
        self.compiled = self.protocol.program(n)
        before = {party: len(received) for party, received in self.network.received.items()}
        for attempt in range(MOST_ATTEMPTS):
            for party, received in self.network.received.items():
                del received[before.get(party, 0) :]
            self._attempt(attempt, tuple(ids.values()))
            heard = {unpack(message)["do"] for _, message in self.network.received[ORCHESTRATOR]}
            if heard == {"result"} or self.protocol.broken_off:
                break
        else:
            raise RuntimeError(f"{self.protocol.name} was broken off {attempt} times")
        names = self.protocol.outputs
        kept = [worker.unsettled.get((0, attempt), {}) for worker in self.workers]
        self.outputs = [dict(zip(names, stored.values(), strict=True)) for stored in kept]
        return self

    def _attempt(self, attempt, inputs):
        key, first = self.compiled.key, len(inputs)
        outputs = tuple(range(first, first + len(self.protocol.outputs)))
        program = {"program": name_of(key), "key": key, "inputs": inputs, "outputs": outputs}
        nothing = {"counts": (), "delete": (), "forget": (), "position": None, "to": None}
        message = pack("run", run=0, attempt=attempt, **program, **nothing)
        for party in (PROVIDER, *self.roster.workers):
            self.network.send(ORCHESTRATOR, [(party, message)])

    def view(self, worker):
        """What a worker sees, which is dealt to it, and what is opened to it: two dicts."""
        dealt, opened, times = {}, {}, {}
        run, labels = self.workers[worker].watched, self.compiled.labels
        for label, fields, deal in zip(labels, run.program.fields, run.deals, strict=True):
            for field in fields:
                value = deal[field.name]
                dealt[f"{label}.{field.name}"] = unpacked(value) if field.boolean else value
        for number, value in run.opened:
            times[number] = times.get(number, -1) + 1
            seen = unpacked(value.words) if isinstance(value, Bits) else value
            opened[f"{labels[number]}.opened{times[number]}"] = seen
        return dealt, opened

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


def samples(protocol, secrets, n_workers):
    """Watch one run, and simulate it.

    Args:
        protocol: an `ideal.Protocol` on Z_2^64.
        secrets: name -> uint64 (n, ...).
    Returns:
        the ends; and, by what watches (numbers of workers, all but one; or the orchestrator's id,
        if it is sent anything), the columns of what that sees, and of what is ideal.
    """
    n, pairs = len(next(iter(secrets.values()))), {}
    ends = Ends(protocol, n_workers).execute(secrets)
    views = [ends.view(worker) for worker in range(n_workers)]
    for absent in range(n_workers):
        watching = tuple(worker for worker in range(n_workers) if worker != absent)
        real = seen_inputs(protocol, ends.inputs, watching)
        for worker in watching:
            real |= {f"{worker} {name}": value for name, value in views[worker][0].items()}
        real |= views[watching[0]][1] | of_workers(ends.outputs, "output", {absent})
        pairs[watching] = real, _accepted(simulated, protocol, n, secrets, watching, n_workers)
    if (real := ends.revealed()) or protocol.reveals:
        pairs[ORCHESTRATOR] = real, _accepted(ideal_revealed, protocol, n, secrets, n_workers)
    return ends, {
        who: tuple(columns(view, protocol.bits) for view in pair) for who, pair in pairs.items()
    }


def _accepted(world, protocol, n, *args):
    """An ideal view of a run that is not broken off, or one of which all are."""
    for _ in range(MOST_ATTEMPTS):
        view = world(protocol, Sampling(n), *args)
        if view.pop("anew").any() == protocol.broken_off:
            return view
    raise RuntimeError(f"{protocol.name} was broken off {MOST_ATTEMPTS} times")
