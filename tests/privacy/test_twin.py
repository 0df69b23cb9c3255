"""The plain twin of private training, beside gradients of every item that torch makes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from smpc.privacy import twin
from smpc.privacy.clipping import Bounds

CLIP = 2.0
ACTIVATIONS = {"relu": F.relu, "quadratic": torch.square}


class Net(torch.nn.Module):
    def __init__(self, activation="relu"):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.fc1, self.fc2 = torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)
        self.fc3 = torch.nn.Linear(4, 3)

    def forward(self, x):
        return self.fc3(self.activation(self.fc2(self.activation(self.fc1(x)))))


@pytest.fixture
def items():
    """40 items, some of which have large gradients."""
    torch.manual_seed(0)
    return torch.randn(40, 6) * torch.logspace(-2, 1, 40)[:, None], torch.eye(3)[
        torch.arange(40) % 3
    ]


def gradient_of(net, data, target):
    """Of one item: that of all parameters, in one row."""
    loss = (net(data) - target).square().sum()
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(net.parameters()))])


def in_one_row(sums, index=0):
    """The same of what a step says of each layer."""
    parts = [part[index] for part in sums]
    return torch.cat([one.flatten() for part in parts for one in (part[:, :-1], part[:, -1])])


def steps_of(net, data, target, mechanism, schedule=None, **more):
    """The layers and the steps of one model."""
    layers = twin.stacked([net])
    schedule = schedule or twin.Schedule(1, len(data), [0.01])
    return layers, list(twin.train_in_the_clear(layers, data, target, schedule, mechanism, **more))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_no_item_counts_more_than_the_clip(items, activation):
    net = Net(activation)
    norms = []
    for data, target in zip(*items, strict=True):
        _, (step,) = steps_of(
            net, data[None], target[None], twin.Mechanism(CLIP, 0), activation=activation
        )
        own, counted = gradient_of(net, data, target), in_one_row(step.sums)
        factor = step.factors.item()
        assert torch.allclose(counted, factor * own, rtol=1e-4, atol=1e-6)
        norms.append((own.norm().item(), counted.norm().item(), factor))
    for norm, counted, factor in norms:
        assert counted <= CLIP * (1 + 1e-6)
        assert factor == 1 if norm < CLIP * (1 - 1e-5) else factor < 1
        assert factor == 0 or counted >= min(norm, CLIP * 2**-0.25) * (1 - 1e-4)
    assert {factor == 1 for *_, factor in norms} == {True, False}


def test_factors_at_every_threshold():
    thresholds = CLIP**2 * 2 ** torch.arange(0, 10, 0.5)
    below, at = (torch.nextafter(thresholds, end) for end in (torch.zeros(20), thresholds))
    assert twin.factors(below, CLIP)[0] == 1
    assert twin.factors(at, CLIP)[-1] == 0
    for squares in (below, at):
        assert ((twin.factors(squares, CLIP) * squares.sqrt()) <= CLIP * (1 + 1e-6)).all()
    worst = torch.tensor([math.inf, math.nan, 1e30])
    assert twin.factors(worst, CLIP).tolist() == [0, 0, 0]


def test_what_is_beyond_the_bounds_counts_nothing(items):
    data, target = items
    _, (step,) = steps_of(Net(), data, target, twin.Mechanism(CLIP, 0, Bounds(inputs=4)))
    assert (step.factors[0, data.norm(dim=1) > 4] == 0).all()
    assert (step.factors[0, data.norm(dim=1) < 1] > 0).all()
    _, (step,) = steps_of(Net(), data, target, twin.Mechanism(CLIP, 0, Bounds(errors=1)))
    far = step.losses[0] > 0.25  # the error of the last layer is twice a loss's root
    assert far.any() and (step.factors[0, far] == 0).all()


def test_without_clipping_and_noise_it_is_sgd(items):
    data, target = items
    net, schedule = Net(), twin.Schedule(3, 16, [0.004, 0.002], 0.9)
    trained = copy.deepcopy(net)
    layers, steps = steps_of(net, data, target, twin.Mechanism(None, 0), schedule)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1, momentum=0.9)
    losses = []
    for rate in (0.004, 0.002, 0.002):
        optimizer.param_groups[0]["lr"] = rate
        for x, t in zip(data.split(16), target.split(16), strict=True):
            optimizer.zero_grad()
            loss = (trained(x) - t).square().sum() / len(x)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert [(step.epoch, step.batch) for step in steps] == [
        (epoch, batch) for epoch in (1, 2, 3) for batch in (0, 1, 2)
    ]
    assert [step.losses.mean().item() for step in steps] == pytest.approx(losses, rel=1e-4)
    twin.put_into(net, layers)
    for one, other in zip(net.parameters(), trained.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5)
    assert torch.allclose(twin.outputs(layers, data)[0], trained(data), rtol=1e-3, atol=1e-4)


def test_the_noise_is_of_each_coordinate_and_step(items):
    data, target = items
    torch.manual_seed(0)
    net, schedule = Net(), twin.Schedule(50, 20, [1e-9])  # the weights stay where they are
    noise = 3.0
    _, noisy = steps_of(net, data, target, twin.Mechanism(CLIP, noise), schedule)
    _, exact = steps_of(net, data, target, twin.Mechanism(CLIP, 0), schedule)
    drawn = torch.stack(
        [in_one_row(a.sums) - in_one_row(b.sums) for a, b in zip(noisy, exact, strict=True)]
    )
    n = drawn.numel()  # 7,400; limits are six standard deviations
    assert abs(drawn.mean()) < 6 * noise / math.sqrt(n)
    assert abs(drawn.square().mean() / noise**2 - 1) < 6 * math.sqrt(2 / n)
    for gap in (1, 2):  # of steps: no noise is used twice
        assert abs((drawn[gap:] * drawn[:-gap]).mean()) < 6 * noise**2 / math.sqrt(n - gap * 74)


def test_the_noise_takes_part_of_the_last_away(items):
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    net, schedule = Net(), twin.Schedule(3, 20, [1e-9])
    correlated, independent = (
        steps_of(net, *items, twin.Mechanism(CLIP, 3, correlation=c), schedule, generator=one)[1]
        for c, one in zip(((32, 24), ()), generators, strict=True)
    )
    exact = steps_of(net, *items, twin.Mechanism(CLIP, 0), schedule)[1]
    y, z = (
        [in_one_row(a.sums) - in_one_row(b.sums) for a, b in zip(steps, exact, strict=True)]
        for steps in (correlated, independent)
    )
    for t in range(6):
        before = sum(c * y[t - k] for k, c in ((1, 0.5), (2, 0.375)) if t >= k)
        assert torch.allclose(y[t] + before, z[t], atol=1e-3)


def test_the_noise_comes_from_the_generator(items):
    def noise(generator):
        mechanism = twin.Mechanism(CLIP, 1)
        return in_one_row(steps_of(net, *items, mechanism, generator=generator)[1][0].sums)

    net = Net()
    assert noise(torch.Generator().manual_seed(5)).equal(noise(torch.Generator().manual_seed(5)))
    assert not noise(None).equal(noise(None))


def test_many_models_are_each_as_one_and_an_item_left_out_counts_nothing(items):
    data, target = items
    nets, schedule = [Net() for _ in range(3)], twin.Schedule(2, 20, [0.01], 0.9)
    included = torch.rand(3, 40, generator=torch.Generator().manual_seed(0)) < 0.5
    layers = twin.stacked(nets)
    together = list(
        twin.train_in_the_clear(
            layers, data, target, schedule, twin.Mechanism(CLIP, 0), included=included
        )
    )
    for index, net in enumerate(nets):
        zeroed = data.clone()
        zeroed[~included[index]] = 100  # beyond the bound of inputs
        alone, steps = steps_of(net, zeroed, target, twin.Mechanism(CLIP, 0), schedule)
        for one, other in zip(layers, alone, strict=True):
            assert torch.allclose(one[index], other[0], rtol=1e-4, atol=1e-6)
        for one, other in zip(together, steps, strict=True):
            assert torch.allclose(
                in_one_row(one.sums, index), in_one_row(other.sums), rtol=1e-3, atol=1e-4
            )


def test_weights_that_go_too_far_end_it(items):
    with pytest.raises(OverflowError, match="layer 1 have a norm of"):
        steps_of(Net(), *items, twin.Mechanism(CLIP, 1e6), twin.Schedule(1, 40, [1]))
    with pytest.raises(OverflowError, match="nan"):
        steps_of(Net(), *items, twin.Mechanism(CLIP, math.nan), twin.Schedule(1, 40, [1]))


def test_a_rate_for_each_epoch():
    schedule = twin.Schedule(4, 1, [0.3, 0.2])
    assert [schedule.rate(epoch) for epoch in (1, 2, 3, 4)] == [0.3, 0.2, 0.2, 0.2]
