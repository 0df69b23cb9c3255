"""Each party in a process of its own: nothing passes between them but the bytes of the messages."""

import itertools
import multiprocessing
from multiprocessing.connection import wait

import msgpack
import pytest
import syft
import torch

from smpc.semi2k.network import Counters, Network
from smpc.semi2k.session import OWNERS, Session
from smpc.semi2k.tensor import Parties
from smpc.semi2k.wire import raw
from tests.audit.conftest import shared
from tests.audit.party import DONE, HEARD, Heard, keys_held, run


class Pipes:
    """In the place of `Network`, the orchestrator's pipes to the parties' processes.

    Attributes:
        ends: of the owners, what shares a value; `counters`: stay at nothing.
    """

    def __init__(self, session, pipes):
        self.session, self.pipes, self.counters = session, pipes, Counters()
        self.ends = dict.fromkeys(OWNERS, self)

    def send(self, sender, messages):
        """Say this, and wait for what the workers answer, and for the others to be done."""
        waiting = {}
        for receiver, message in messages:
            pipe = self.pipes[receiver]
            pipe.send_bytes(message)
            if receiver in self.session.roster.workers:
                waiting[pipe] = receiver
            else:
                assert pipe.recv_bytes() == DONE
        while waiting:
            for pipe in wait(waiting):
                self.session.receive(waiting.pop(pipe), pipe.recv_bytes())

    def wait(self, done):
        """All that was sent has been answered."""

    def share(self, id, values, label):
        """The owners' process shares a value: there is nothing left to be said here."""
        (owner,) = OWNERS
        self.send("me", [(owner, msgpack.packb((id, values.shape, raw([values]))))])
        return []

    def heard(self):
        """(sender, receiver) -> a digest of what has been said, by everybody but the workers to the
        orchestrator."""
        found = {}
        for party, pipe in self.pipes.items():
            pipe.send_bytes(HEARD)
            digests = msgpack.unpackb(pipe.recv_bytes())
            found |= {(sender, party): digest for sender, digest in digests.items()}
        return found


@pytest.fixture
def processes():
    """processes(roster) -> party -> a pipe to it; each is in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.audit.party"])  # once, and not in each
    started, mine = [], {}

    def processes(roster):
        # the order in which each listens: keys come before inputs, and those before programs
        parties = (roster.provider, *roster.owners, roster.orchestrator, *roster.workers)
        pipes = {party: {} for party in parties}
        for one, other in itertools.combinations(parties, 2):
            pipes[one][other], pipes[other][one] = context.Pipe()
        mine.update(pipes.pop(roster.orchestrator))
        for party, own in pipes.items():
            ends = [(other, own[other]) for other in parties if other in own]
            process = context.Process(target=run, args=(party, roster, *ends))
            process.start()
            started.append(process)
        for pipe in itertools.chain(*(own.values() for own in pipes.values())):
            pipe.close()  # it is the processes' now
        return mine

    yield processes
    for pipe in mine.values():
        pipe.close()
    for process in started:
        process.join(20)
        assert process.exitcode == 0
    assert len({process.pid for process in started}) == len(mine) > 0


def training_step(among):
    """The tutorial's network on random items: the loss, and weights after it."""
    torch.manual_seed(1)
    data, target = shared(torch.rand(8, 784), among), shared(torch.eye(8, 10), among)
    layers = torch.nn.Linear(784, 128), torch.nn.Linear(128, 64), torch.nn.Linear(64, 10)
    relu = torch.nn.ReLU()
    net = shared(torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2]), among)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05).fix_precision()
    loss = ((net(data) - target) ** 2).sum() / 8
    loss.backward()
    optimizer.step()
    revealed = loss.get().float_precision().item()
    weights = layers[2].weight.copy().get().float_precision()
    return revealed, weights


@pytest.fixture
def heard(monkeypatch):
    """What each party has heard in this process: party -> `Heard`."""
    everyone, carry = {}, Network.carry

    def spy(self, sender, receiver, message):
        everyone.setdefault(receiver, Heard()).note(sender, message)
        return carry(self, sender, receiver, message)

    monkeypatch.setattr(Network, "carry", spy)
    return everyone


def a_session(among, monkeypatch):
    """A session between these parties, under the keys that are held, which sharing will find."""
    names = tuple(worker.id for worker in among.workers)
    with keys_held():
        session = Session.simulated("me", names, among.crypto_provider.id)
    parties = Parties(among.workers, among.crypto_provider, session)
    key = (*names, among.crypto_provider.id)
    monkeypatch.setitem(syft.local_worker.crypto_store.semi2k, key, parties)
    return session


@pytest.mark.parametrize("n_workers", [2, 3])
def test_a_training_step_with_each_party_in_a_process_of_its_own(
    of, processes, heard, monkeypatch, n_workers
):
    """With the same keys the loss, the weights and every message are as in a run in one process."""
    a_session(of(n_workers), monkeypatch)
    loss, weights = training_step(of(n_workers))
    said = {
        (sender, receiver): digest
        for receiver, by_sender in heard.items()
        for sender, digest in by_sender.as_dict().items()
        if receiver != "me"
    }
    session = a_session(of(n_workers), monkeypatch)
    session.network = Pipes(session, processes(session.roster))
    session._make_keys()
    same_loss, same_weights = training_step(of(n_workers))
    assert loss == same_loss
    assert torch.equal(weights, same_weights)
    workers = session.roster.workers
    assert said.keys() >= set(itertools.permutations(workers, 2))
    assert said == session.network.heard()
