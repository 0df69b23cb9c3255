"""Each party in a process of its own: nothing passes between them but the bytes of the messages."""

import multiprocessing

import pytest
import torch

from smpc.audit.transcript import ANSWERED, ASKED, split_semi2k
from smpc.semi2k.network import Network
from smpc.semi2k.rounds import Session
from tests.audit.party import NAME, Remote, hold_keys, run_provider, run_worker


@pytest.fixture
def processes():
    """processes() -> pipes to worker1, worker2 and the provider, each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    started, pipes = [], []

    def start(target, *ends):
        process = context.Process(target=target, args=ends)
        process.start()
        started.append(process)
        for end in ends:
            end.close()  # it is the process's now, and ends with it

    def processes():
        dealing = [context.Pipe() for _ in range(2)]
        for _, theirs in dealing:
            mine, end = context.Pipe()
            pipes.append(mine)
            start(run_worker, end, theirs)
        mine, end = context.Pipe()
        pipes.append(mine)
        start(run_provider, end, *(ours for ours, _ in dealing))
        return pipes

    yield processes
    for pipe in reversed(pipes):
        pipe.close()
    for process in reversed(started):
        process.join(20)
        assert process.exitcode == 0
    assert len({process.pid for process in started}) == 3


def training_step(parties, share):
    """The tutorial's network on random items: the loss, and weights after it."""
    torch.manual_seed(1)
    data = share(torch.rand(8, 784), "semi2k")
    target = share(torch.eye(8, 10), "semi2k")
    layers = torch.nn.Linear(784, 128), torch.nn.Linear(128, 64), torch.nn.Linear(64, 10)
    relu = torch.nn.ReLU()
    net = torch.nn.Sequential(layers[0], relu, layers[1], relu, layers[2])
    net.fix_precision().share(
        *parties.workers,
        crypto_provider=parties.crypto_provider,
        protocol="semi2k",
        requires_grad=True,
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05).fix_precision()
    loss = ((net(data) - target) ** 2).sum() / 8
    loss.backward()
    optimizer.step()
    revealed = loss.get().float_precision().item()
    weights = layers[2].weight.copy().get().float_precision()
    return revealed, weights


@pytest.fixture
def values(monkeypatch):
    """All that the orchestrator sends and is answered, as raw values: (receiver, name, bytes)."""
    seen, request = [], Network.request

    def spy(self, sender, receiver, message, kind):
        reply = request(self, sender, receiver, message, kind)
        if sender.id == "me":
            arrays = split_semi2k(message, ASKED)[2]
            arrays += split_semi2k(reply, ANSWERED)[2] if reply else []
            seen.extend((receiver.id, name, array.tobytes()) for name, _, array in arrays)
        return reply

    monkeypatch.setattr(Network, "request", spy)
    return seen


def test_a_training_step_with_each_party_in_a_process_of_its_own(
    parties, share, new_session, processes, values, monkeypatch
):
    """With the same keys the loss, the weights and every value are as in a run in one process."""
    monkeypatch.setattr("smpc.semi2k.rounds.new_key", lambda: bytes(32))  # the data owners'
    everyone = (*parties.workers, parties.crypto_provider)
    results, said = [], []
    for remote in (False, True):
        values.clear()
        session = Session(NAME, parties.workers, parties.crypto_provider)
        monkeypatch.setattr(Session, "between", lambda *_, session=session: session)
        ends = [party.crypto_store.semi2k[NAME] for party in everyone]
        if remote:
            ends = [Remote(pipe) for pipe in processes()]
            ends[-1].receive(b"send the keys")
        else:
            hold_keys(ends[-1])
        for party, end in zip(everyone, ends, strict=True):
            monkeypatch.setitem(party.crypto_store.semi2k, NAME, end)
        results.append(training_step(parties, share))
        said.append(list(values))
    (loss, weights), (same_loss, same_weights) = results
    assert loss == same_loss
    assert torch.equal(weights, same_weights)
    assert len(said[0]) > 100
    assert said[0] == said[1]
