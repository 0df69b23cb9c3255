"""Sessions of two, three and five workers, and what is checked at all their ends."""

import contextlib

import numpy as np
import pytest
import syft
import torch
import torch.nn.functional as F
from hypothesis import settings

from smpc.semi2k import arithmetic, worker
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.run import settle
from smpc.semi2k.session import OWNERS, Session
from tests.conftest import reveal

N_WORKERS = (2, 3, 5)
settings.register_profile("loaded", deadline=None)  # a machine under load is no failure
settings.load_profile("loaded")


@pytest.fixture(autouse=True)
def sessions_of_its_own(parties):
    """Every test starts with parties that have never spoken."""
    syft.local_worker.crypto_store.semi2k.clear()


@pytest.fixture(params=N_WORKERS, ids="{} workers".format)
def group(request, parties):
    """syft's workers and their crypto provider."""
    return parties.of(request.param)


def new_session(n):
    """A session of `n` workers, of which syft knows nothing."""
    return Session.simulated("me", [f"worker{i + 1}" for i in range(n)], "crypto_provider")


@pytest.fixture(params=N_WORKERS, ids="{} workers".format)
def session(request):
    """Sessions of two, three and five workers."""
    return new_session(request.param)


@pytest.fixture(scope="session")
def share_integers(parties):
    """share_integers(values) -> a semi2k tensor of int64, in no fixed precision."""

    def share_integers(values):
        return torch.as_tensor(values).share(
            *parties.workers, crypto_provider=parties.crypto_provider, protocol="semi2k"
        )

    return share_integers


def reveal_integers(tensor):
    """The int64 value of a shared tensor, which stays shared."""
    return tensor.copy().get()


def session_of(tensor):
    """The session that a shared tensor of any kind is in."""
    while not hasattr(tensor, "session"):
        tensor = tensor.child
    return tensor.session


def ends(session):
    """(the workers' ends in order, the crypto provider's)."""
    roster = session.roster
    at = session.network.ends
    return [at[id] for id in roster.workers], at[roster.provider]


def check_in_step(session):
    """What the ends hold goes together: every worker has the same values under the same deltas, and
    its shares of a mask add up to what the crypto provider knows."""
    workers, provider = ends(session)
    parts = [_that_count(session, w.values, w.unsettled) for w in workers]
    masks = _that_count(session, provider.masks, provider.unsettled)
    assert all(part.keys() == parts[0].keys() for part in parts)
    for id in parts[0]:
        values = [part[id] for part in parts]
        if not isinstance(values[0], Masked):
            continue
        assert all(np.array_equal(value.delta, values[0].delta) for value in values)
        if values[0].a is not None:
            assert np.array_equal(sum(value.a for value in values), masks[id])


def _that_count(session, values, unsettled):
    """What an end holds once it is told which attempt counts, and what is to be deleted."""
    values, unsettled = dict(values), dict(unsettled)
    settle(values, unsettled, session._counts, session._dead)
    return values


def instructions(session):
    """All instructions of the programs that are known."""
    _, provider = ends(session)
    return [i for program in provider.programs.values() for i in program.instructions]


def zones(session):
    """The zones of the truncations in them that have one."""
    return [i.params[2] for i in instructions(session) if i.op == "truncate"]


def counts(session):
    """How much there is of everything, at every end."""
    workers, provider = ends(session)
    owner = session.network.ends[OWNERS[0]]
    graph = session.graph
    return {
        "values": [len(w.values) for w in workers],
        "programs": [len(end.programs) for end in (*workers, provider)],
        "unsettled": [sum(map(len, end.unsettled.values())) for end in (*workers, provider)],
        "attempts": [len(end.unsettled) for end in (*workers, provider)],
        "heard": [len(w._heard) + len(w._half_inputs) + len(w._dealt) for w in workers],
        "masks": len(provider.masks),
        "owner": len(vars(owner)),
        "known": len(session._known),
        "to say": [len(x) for x in (session._to_forget, session._dead, session._counts)],
        "graph": [len(x) for x in (graph.pending, graph._made, session._wanted)],
    }


class Force:
    """Has truncations of a session's runs open what they are told to, at every worker.

    Attributes:
        where: (attempt, number of the truncation in it) -> c of its first element, or None for the
            true one; called at every truncation.
        seen: how many truncations every attempt came to: (run, attempt) -> number.
    """

    def __init__(self, monkeypatch, session):
        self.where, self.seen, self.session = lambda attempt, number: None, {}, session
        self._native = arithmetic.truncate
        monkeypatch.setattr(worker.arithmetic, "truncate", self._truncate)

    def _truncate(self, party, deal, x, d, zone):
        address = ends(self.session)[0][party]._latest
        number = self.seen.setdefault((party, address), 0)
        self.seen[party, address] += 1
        generator = self._native(party, deal, x, d, zone)
        c = yield next(generator)
        if (forced := self.where(address[1], number)) is not None and c.size:
            c = c.copy()
            c.flat[0] = forced
        try:
            generator.send(c)
        except StopIteration as finished:
            return finished.value
        raise AssertionError("a truncation takes one round")


@pytest.fixture
def force(monkeypatch):
    """force(session) -> a `Force`."""
    return lambda session: Force(monkeypatch, session)


@contextlib.contextmanager
def recorded(network, harm=None):
    """A list of the (sender, receiver, message) that pass a network meanwhile, in order.

    Args:
        harm: called with the number of a message, what it is, and a function that carries it as it
            should be; what it returns is what the receiver says.
    """
    messages, carry = [], network.carry

    def recording(*message):
        messages.append(message)
        if harm is None:
            return carry(*message)
        return harm(len(messages) - 1, message, lambda: carry(*message))

    network.carry = recording
    try:
        yield messages
    finally:
        network.carry = carry


class Net(torch.nn.Module):
    """4-3-2, with ReLUs, or squares, between."""

    def __init__(self, activation):
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(4, 3), torch.nn.Linear(3, 2)
        self.activation = {"relu": lambda x: F.relu(x), "quadratic": lambda x: x * x}[activation]

    def forward(self, x):
        return self.fc2(self.activation(self.fc1(x)))


class Training:
    """A small net that is trained under encryption, each step on another batch.

    Attributes:
        net: the net; `session`: what it is shared in; `activation`: "relu" or "quadratic".
    """

    def __init__(self, group, activation="relu", lr=0.1, digits=3):
        self._sharing = {"crypto_provider": group.crypto_provider, "protocol": "semi2k"}
        self.activation = activation
        self._group, self._lr, self._digits = group, lr, digits
        self._generator = torch.Generator().manual_seed(0)
        torch.manual_seed(0)
        self.net = Net(activation).fix_precision(precision_fractional=digits)
        self.net.share(*group.workers, **self._sharing, requires_grad=True)
        optimizer = torch.optim.SGD(self.net.parameters(), lr=lr)
        self._optimizer = optimizer.fix_precision(precision_fractional=digits)
        self.session = session_of(self.net.fc1.weight)
        self.next_batch()

    def next_batch(self):
        """Draw what the next step is on: eighths, which fixed precision has exactly."""
        self._data = torch.randint(-8, 9, (3, 4), generator=self._generator) / 8
        self._target = torch.randint(0, 2, (3, 2), generator=self._generator) * 2.0 - 1

    def share(self, values):
        """`values` in fixed precision, shared."""
        number = torch.as_tensor(values).fix_precision(precision_fractional=self._digits)
        return number.share(*self._group.workers, **self._sharing, requires_grad=True)

    def batch(self):
        """(data, target) of the next step, float64 (3, 4) and (3, 2)."""
        return self._data.double(), self._target.double()

    def output(self):
        """Of the net, for the batch."""
        with torch.no_grad():
            return self.net(self.share(self._data))

    def step(self):
        """One step; the loss, to be revealed."""
        data, target = self.share(self._data), self.share(self._target)
        self._optimizer.zero_grad()
        loss = ((self.net(data) - target) ** 2).sum() / 2
        loss.backward()
        self._optimizer.step()
        return loss

    def weights(self):
        """The weights, revealed: a dict of float64 tensors."""
        return {name: reveal(p).double() for name, p in self.net.named_parameters()}

    def in_the_clear(self, weights):
        """(the loss, the gradients, the weights after) of a step from these, in float64."""
        twin = Net(self.activation).double()
        twin.load_state_dict(weights)
        data, target = self.batch()
        loss = ((twin(data) - target) ** 2).sum() / 2
        loss.backward()
        gradients = {name: p.grad for name, p in twin.named_parameters()}
        after = {name: weights[name] - self._lr * g for name, g in gradients.items()}
        return loss.item(), gradients, after
