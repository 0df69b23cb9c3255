"""torch's optimisers on shared weights, step by step beside the same on plain ones."""

import copy

import pytest
import torch
import torch.nn as nn

from tests.conftest import reveal

DIGITS = 4
UNIT = 10**-DIGITS
SGD = {
    "plain": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "Nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "decay": {"lr": 0.1, "weight_decay": 0.05},
    "dampening": {"lr": 0.2, "momentum": 0.5, "dampening": 0.3},
    "all": {"lr": 0.07, "momentum": 0.8, "nesterov": True, "weight_decay": 0.01},
    "maximize": {"lr": 0.01, "momentum": 0.3, "maximize": True},
}


@pytest.fixture
def share(parties):
    def share(tensor_or_module):
        return tensor_or_module.fix_precision(precision_fractional=DIGITS).share(
            *parties.workers,
            crypto_provider=parties.crypto_provider,
            protocol="semi2k",
            requires_grad=True,
        )

    return share


def fitting(make_optimizer, share, steps, make_schedule=None):
    """Fit a linear map, shared and in the clear: both models' weights after each step.

    Inputs and the first weights are multiples of 1/16, which four digits hold.
    """
    generator = torch.Generator().manual_seed(3)

    def sixteenths(*shape):
        return torch.randint(-16, 17, shape, generator=generator).float() / 16

    twin = nn.Linear(4, 3)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(sixteenths(*parameter.shape))
    model = share(copy.deepcopy(twin))
    pairs = [(model, make_optimizer(model.parameters())), (twin, make_optimizer(twin.parameters()))]
    schedules = [make_schedule(optimizer) for _, optimizer in pairs] if make_schedule else []
    x, y = sixteenths(8, 4), sixteenths(8, 3)
    batches = [(share(x), share(y)), (x, y)]
    for _ in range(steps):
        for (net, optimizer), (data, target) in zip(pairs, batches, strict=True):
            optimizer.zero_grad()
            ((net(data) - target) ** 2).sum().div(8).backward()
            optimizer.step()
        for schedule in schedules:
            schedule.step()
        yield [reveal(p) for p in model.parameters()], [p.detach() for p in twin.parameters()]


def check(steps, units):
    for shared, plain in steps:
        for one, other in zip(shared, plain, strict=True):
            assert torch.allclose(one, other, rtol=0, atol=units * UNIT)


@pytest.mark.parametrize("name", SGD)
def test_sgd(share, name):
    """The remainder of an update is kept, so that errors do not add up with the steps: each step is
    right to a unit for the weights, and to what their error and the products' make of the next."""
    check(fitting(lambda p: torch.optim.SGD(p, **SGD[name]), share, 8), 5)


SCHEDULES = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, gamma=0.3),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.2, total_steps=6),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 6),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(share, name):
    """They change rates, and OneCycleLR momentum, in each step, to floats of any digits."""
    options = {"lr": 0.1, "momentum": 0.9}
    check(fitting(lambda p: torch.optim.SGD(p, **options), share, 6, SCHEDULES[name]), 5)


def test_the_gradient_of_an_input(share):
    """Is there until the weights change, and then no wrong one is."""
    model, x = share(nn.Linear(2, 1)), share(torch.ones(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    weight = reveal(model.weight)
    model(x).sum().backward()
    read = x.grad
    optimizer.step()
    assert torch.allclose(reveal(read), weight.expand(3, 2), atol=UNIT)
    assert x.grad is read
    x.grad = None
    for _ in range(2):
        model(x).sum().backward()
        optimizer.step()
        with pytest.raises(RuntimeError, match="of an input is kept until"):
            _ = x.grad
    x.grad = None
    weight = reveal(model.weight)
    model(x).sum().backward()
    assert torch.allclose(reveal(x.grad), weight.expand(3, 2), atol=UNIT)


def test_rates_stay_what_they_are(share):
    model = share(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.00123, momentum=0.9)
    assert optimizer.fix_precision(precision_fractional=2) is optimizer
    assert optimizer.param_groups[0]["lr"] == 0.00123


def test_zero_grad_and_frozen_parameters(share):
    model = share(nn.Linear(2, 1))
    model.bias.requires_grad_(False)
    before = reveal(model.bias)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(share(torch.ones(3, 2))).sum().backward()
    assert model.bias.grad is None
    assert torch.allclose(reveal(model.weight.grad), torch.full((1, 2), 3.0), atol=UNIT)
    optimizer.step()
    assert torch.equal(reveal(model.bias), before)
    optimizer.zero_grad()
    assert model.weight.grad is None


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda p: torch.optim.RMSprop(p), NotImplementedError),
        (lambda p: torch.optim.Adagrad(p), NotImplementedError),
        (lambda p: torch.optim.LBFGS(p), (NotImplementedError, TypeError)),
    ],
)
def test_other_optimizers_are_refused(share, make, error):
    model = share(nn.Linear(2, 1))
    before = [reveal(p) for p in model.parameters()]
    with pytest.raises(error):
        optimizer = make(model.parameters())
        model(share(torch.ones(3, 2))).sum().backward()
        optimizer.step()
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(reveal(parameter), value)


def test_a_closure_and_a_mixture_are_refused(share):
    model = share(nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(NotImplementedError, match="closure"):
        optimizer.step(lambda: None)
    both = torch.optim.SGD([*model.parameters(), *nn.Linear(2, 1).parameters()], lr=0.1)
    with pytest.raises(TypeError, match="one for each"):
        both.step()


ADAM = {
    "plain": {"lr": 0.05, "eps": 1e-4},
    "decay": {"lr": 0.05, "eps": 1e-4, "weight_decay": 0.1},
    "betas": {"lr": 0.05, "eps": 1e-3, "betas": (0.5, 0.9)},
}


@pytest.mark.parametrize("make", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("name", ADAM)
def test_adam(share, make, name):
    """A step is the rate times what a root divides: right to some thousandths of the rate."""
    check(fitting(lambda p: make(p, **ADAM[name]), share, 6), 10)


def test_adam_leaves_what_has_no_gradient(share):
    """A root of nothing is divided by, and no step comes of it."""
    model = share(nn.Linear(2, 1, bias=False))
    before = reveal(model.weight)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(share(torch.tensor([[0.0, 1.0]]))).sum().backward()
        optimizer.step()
    after = reveal(model.weight)
    assert after[0, 0] == before[0, 0]
    assert torch.allclose(after[0, 1], before[0, 1] - 0.2, rtol=0, atol=5 * UNIT)


def test_amsgrad_is_refused(share):
    model = share(nn.Linear(2, 1))
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    model(share(torch.ones(3, 2))).sum().backward()
    with pytest.raises(NotImplementedError, match="amsgrad"):
        optimizer.step()
