"""Steps of private training: beside the twin's without noise, with noise of the right size, and
refused where nobody has proven anything."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smpc.privacy import twin
from smpc.privacy.clipping import Bounds
from smpc.privacy.optimizer import PrivateSGD
from tests.conftest import reveal
from tests.operations.conftest import eighths, secret
from tests.semi2k.conftest import Net, ends, session_of, sessions_of_its_own  # noqa: F401 (likewise)

BOUNDS = {"relu": Bounds(), "quadratic": Bounds(weights=16, powers=2)}
CLIP, ITEMS = 2.0, 8


class Training:
    """A 4-3-2 network that is trained privately, and its twin without noise."""

    def __init__(self, parties, activation="relu", sigma=1e-4, net=None, **options):
        torch.manual_seed(3)
        net = net or Net(activation)
        self.parties, self.activation = parties, activation
        self.layers = twin.stacked([net])
        self.net = net.fix_precision(precision_fractional=3)
        self.net.share(
            *parties.workers,
            crypto_provider=parties.crypto_provider,
            protocol="semi2k",
            requires_grad=True,
        )
        options = {"lr": 0.5, "bounds": BOUNDS[activation]} | options
        self.optimizer = PrivateSGD(self.net, CLIP, sigma, len(parties.workers), **options)

    def step(self, data, target):
        self.optimizer.zero_grad()
        output = self.net(secret(data, self.parties, requires_grad=True))
        loss = ((output - secret(target, self.parties)) ** 2).sum().refresh() / len(data)
        loss.backward()
        self.optimizer.step()

    def weights(self):
        """Each layer's [W b], revealed."""
        parameters = [reveal(p).double() for p in self.net.parameters()]
        pairs = zip(parameters[::2], parameters[1::2], strict=True)
        return [torch.cat([w, b[:, None]], 1) for w, b in pairs]


def batches(steps):
    """Eighths, large and small, of which some items are clipped and some are not."""
    for i in range(steps):
        data = eighths(ITEMS, 4, most=2, seed=i) * torch.linspace(0.1, 2, ITEMS)[:, None].double()
        yield data, eighths(ITEMS, 2, most=1, seed=i + 7)


@pytest.mark.parametrize("workers", [2, 3])
@pytest.mark.parametrize("activation", ["relu", "quadratic"])
def test_beside_the_twin(parties, activation, workers):
    """Four steps with momentum, without noise to speak of: within what rounding moves."""
    data, target = (torch.cat(parts).float() for parts in zip(*batches(4), strict=True))
    options = {"lr": 0.1, "momentum": 0.9}
    training = Training(parties.of(workers), activation, **options)
    schedule = twin.Schedule(1, ITEMS, [options["lr"]], options["momentum"])
    mechanism = twin.Mechanism(CLIP, 0, BOUNDS[activation])
    factors = []
    for number, step in enumerate(
        twin.train_in_the_clear(
            training.layers, data, target, schedule, mechanism, activation=activation
        )
    ):
        items = slice(number * ITEMS, (number + 1) * ITEMS)
        training.step(data[items], target[items])
        factors.append(step.factors)
    assert 0.2 < (torch.stack(factors) < 1).float().mean() < 0.95, "some are clipped, some not"
    for weights, expected in zip(training.weights(), training.layers, strict=True):
        assert torch.allclose(weights, expected[0].double(), atol=0.012)


def test_the_noise_of_a_step(parties):
    """Of items that count nothing, weights move by noise alone: of zC|c| / B in all, whoever draws
    it, in every coordinate of each parameter."""
    sigma, lr = 40.0, 0.05
    training = Training(parties, sigma=sigma, net=nn.Sequential(nn.Linear(60, 60)), lr=lr)
    before = training.weights()[0]
    training.step(torch.full((ITEMS, 60), 100.0), torch.zeros(ITEMS, 60))
    moved = (training.weights()[0] - before) / (lr * sigma / ITEMS)
    for part in (moved, moved[:, -1]):  # of all, and of the bias
        n = part.numel()
        assert abs(part.square().mean().sqrt() - 1) < 5 / math.sqrt(2 * n)
        assert abs(part.mean()) < 5 / math.sqrt(n)


def test_what_a_step_reveals(parties):
    """One number; and nothing of it stays: no gradient, and no noise that could be drawn again."""
    training = Training(parties)
    workers, _ = ends(session_of(training.net.fc1.weight))
    for batch in batches(3):
        training.step(*batch)
        reveals = [
            i
            for program in workers[0].programs.values()
            for i in program.instructions
            if i.op == "reveal"
        ]
        assert {i.params[0] for i in reveals} == {()}
        assert all(p.grad is None for p in training.net.parameters())
    graph = session_of(training.net.fc1.weight).graph
    assert not [node for node in graph.pending.values() if node.op in ("noise", "spent")]


def test_weights_beyond_their_bound(parties):
    """The training ends: their clipping may have been wrong."""
    training = Training(parties, sigma=10.0, lr=1.0)
    batch = next(batches(1))
    with pytest.raises(OverflowError, match=r"of [12] layers have a norm beyond 24.*lower --lr"):
        for _ in range(100):
            training.step(*batch)


def test_a_step_too_large_to_see_where_it_ends(parties):
    """From within their bound weights come no further than they are compared rightly."""
    training = Training(parties, sigma=10.0, lr=2.0)
    with pytest.raises(OverflowError, match=r"a step may move the weights by .* lower --lr"):
        training.step(*next(batches(1)))


class Unhooked(nn.Module):
    """Weights that are used without calling their layer; or a layer that is called twice."""

    def __init__(self, uses):
        super().__init__()
        self.fc1, self.fc2, self.uses = nn.Linear(4, 4), nn.Linear(4, 2), uses

    def forward(self, x):
        return self.uses(self, x)


@pytest.mark.parametrize(
    "uses",
    [
        lambda net, x: net.fc2(F.relu(F.linear(x, net.fc1.weight, net.fc1.bias))),
        lambda net, x: net.fc2(F.relu(net.fc1(F.relu(net.fc1(x))))),
        lambda net, x: net.fc2(x),
    ],
)
def test_each_layer_is_called_once(parties, uses):
    training = Training(parties, net=Unhooked(uses))
    with pytest.raises(NotImplementedError, match="each layer is called once"):
        training.step(*next(batches(1)))


def test_a_clip_that_rounding_takes_up(parties):
    with pytest.raises(ValueError, match=r"a clip of 0.002 is taken up by rounding, use 0.0029"):
        PrivateSGD(Net("relu"), 0.002, 1.0, 2, lr=0.1)


class Other(nn.Module):
    """Two layers, and something between."""

    def __init__(self, between):
        super().__init__()
        self.fc1, self.fc2, self.between = nn.Linear(4, 4), nn.Linear(4, 2), between

    def forward(self, x):
        return self.fc2(self.between(self.fc1(x)))


@pytest.mark.parametrize(
    "between",
    [
        torch.sigmoid,
        lambda x: F.relu(x) * 2,
        lambda x: F.relu(x) / 1000,
        lambda x: x * x / 1000,
        lambda x: x * x * x,
        lambda x: F.relu(x) - F.relu(x).mean(0),
        lambda x: F.relu(x.flip(0)),
        lambda x: x,
        lambda x: F.relu(-x),
        lambda x: x * x.flip(0),
        lambda x: F.softmax(x, 0),
    ],
)
def test_other_activations(parties, between):
    training = Training(parties, net=Other(between))
    with pytest.raises(NotImplementedError, match=r"F[.]relu or a square"):
        training.step(*next(batches(1)))


def test_a_batch_begins_with_zero_grad(parties):
    """From there on what is computed is right as far as the proof needs."""
    training = Training(parties)
    data = secret(eighths(ITEMS, 4), parties)
    with pytest.raises(RuntimeError, match="call zero_grad"):
        training.net(data)
    training.optimizer.zero_grad()
    training.net(data)


def test_squares_need_their_bounds(parties):
    training = Training(parties, "quadratic", bounds=Bounds())
    with pytest.raises(ValueError, match="powers=2"):
        training.step(*next(batches(1)))


def test_a_parameter_of_its_own():
    net = Other(F.relu)
    net.scale = nn.Parameter(torch.ones(1))
    with pytest.raises(NotImplementedError, match="Other"):
        PrivateSGD(net, CLIP, 1.0, 2, lr=0.1)


@pytest.mark.parametrize(
    "layer", [nn.Linear(4, 4, bias=False), nn.Conv2d(1, 2, 3), nn.BatchNorm1d(4), nn.Dropout()]
)
def test_other_layers(layer):
    net = nn.Sequential(nn.Linear(4, 4), layer)
    with pytest.raises(NotImplementedError, match=type(layer).__name__):
        PrivateSGD(net, CLIP, 1.0, 2, lr=0.1)
