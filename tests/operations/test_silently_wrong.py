"""What PySyft's encrypted API gets wrong without a word, under semi2k: right, or refused."""

import pytest
import syft
import torch
import torch.nn.functional as F
from syft.generic.frameworks.hook import hook_args
from torch import nn

from tests.operations.conftest import eighths, is_secret, revealed, secret
from tests.operations.refusals import refused

X, Y = eighths(4, 3), eighths(4, 3, seed=2)
WEIGHTS, BIAS = eighths(2, 3, seed=1), eighths(2, seed=3)


def close(tensor, expected, units=1, digits=3):
    """Whether a secret tensor is what it should be, to so many units."""
    (value,) = revealed([tensor], digits)
    assert value.shape == expected.shape
    return (value - expected).abs().max() <= units * 10.0**-digits + 1e-9


GRADIENTS = {
    "transpose": lambda x, y: x.transpose(0, 1) @ y,
    "permute": lambda x, y: x.permute(1, 0) @ y,
    "index": lambda x, y: x[1:, 0] * y[:3, 1],
    "one row": lambda x, y: x[2] * y[0],
    "list": lambda x, y: x[[0, 0, 3]] * y[[1, 2, 2]],
    "expand": lambda x, y: x[:, :1].expand(4, 3) * y,
    "sum(dim)": lambda x, y: x.sum(1) * y.sum(dim=1),
    "mean(dim)": lambda x, y: x.mean(0) * y[0],
    "1 - a": lambda x, y: (1 - x) * y,
    "flatten": lambda x, y: x.flatten() * y.flatten(),
    "nn.Flatten": lambda x, y: nn.Flatten()(x.unsqueeze(2)) * y,
    "cat": lambda x, y: torch.cat([x, y], dim=1) * torch.cat([y, x], dim=1),
    "stack": lambda x, y: torch.stack([x, y])[1] * torch.stack([x, y])[0],
    "squeeze": lambda x, y: x.unsqueeze(1).squeeze(1) * y,
    "view().t()": lambda x, y: x.view(3, 4).t() * y,
    "chunk": lambda x, y: x.chunk(2)[1] * y[:2],
    "unbind": lambda x, y: x.unbind(1)[2] * y[:, 0],
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_through(parties, name):
    plain = [x.clone().requires_grad_() for x in (X, Y)]
    shared = [secret(x, parties, requires_grad=True) for x in (X, Y)]
    for tensors in (plain, shared):
        GRADIENTS[name](*tensors).sum().backward()
    for x, x_ in zip(shared, plain, strict=True):
        assert close(x.grad, x_.grad)


class Sliced(nn.Module):
    """Two layers with something of no effect between."""

    def __init__(self, between):
        super().__init__()
        self.one, self.two, self.between = nn.Linear(3, 4), nn.Linear(4, 2), between

    def forward(self, x):
        return self.two(self.between(self.one(x)))


@pytest.mark.parametrize(
    "between",
    [lambda h: h[:, :], lambda h: h.view(-1, 4).t().t(), lambda h: 1 - (1 - h), lambda h: +h],
    ids=["h[:, :]", "views", "1 - (1 - h)", "+h"],
)
def test_the_layer_before_trains(parties, between):
    torch.manual_seed(0)
    net = Sliced(between).double()
    twin = Sliced(between).double()
    twin.load_state_dict({name: (p * 8).round() / 8 for name, p in net.state_dict().items()})
    net.load_state_dict(twin.state_dict())
    others = {"crypto_provider": parties.crypto_provider, "protocol": "semi2k"}
    net.fix_precision().share(*parties.workers, **others, requires_grad=True)
    before = twin.one.weight.detach().clone()
    for model, x in ((net, secret(X, parties)), (twin, X)):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.125)
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    assert (twin.one.weight - before).abs().max() > 0.1
    assert close(net.one.weight, twin.one.weight.detach())
    assert close(net.two.weight, twin.two.weight.detach(), 2)


def test_the_bias_after_a_layer_without(parties):
    x, w, b = (secret(value, parties) for value in (X, WEIGHTS, BIAS))
    assert close(F.linear(x, w), F.linear(X, WEIGHTS))
    assert close(F.linear(x, w, b), F.linear(X, WEIGHTS, BIAS))
    assert close(F.linear(x, w, bias=b), F.linear(X, WEIGHTS, BIAS))
    assert close(F.linear(x, w), F.linear(X, WEIGHTS))


def test_the_bias_of_a_module(parties):
    layer = nn.Linear(3, 2).double()
    layer.weight.data, layer.bias.data = WEIGHTS.clone(), BIAS.clone()
    expected = layer(X).detach()
    others = {"crypto_provider": parties.crypto_provider, "protocol": "semi2k"}
    layer.fix_precision().share(*parties.workers, **others)
    assert close(layer(secret(X, parties)), expected)


def test_argmax_of_all_and_then_of_rows(parties):
    x = secret(X, parties)
    for call in (
        *(lambda x: torch.argmax(x), lambda x: torch.argmax(x, 1), lambda x: torch.argmax(x)),
        *(lambda x: torch.argmax(x, dim=1), lambda x: x.argmax(dim=1), lambda x: x.argmax()),
        lambda x: torch.argmax(x, dim=1, keepdim=True),
    ):
        assert close(call(x), call(X), 0)


def test_the_largest_index_is_a_number(parties):
    """It was 0.003 for 3."""
    x = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)
    assert torch.argmax(secret(x, parties), dim=1).get().float_precision().tolist() == [3.0]


@pytest.mark.parametrize("dropout", [lambda x: F.dropout(x, 0.5), nn.Dropout(0.5)])
def test_dropout_drops_in_training(parties, dropout):
    (value,) = revealed([dropout(secret(torch.ones(400).double(), parties))], 3)
    assert set(value.tolist()) == {0.0, 2.0}


@pytest.mark.parametrize(
    "dropout", [lambda x: F.dropout(x, 0.5, training=False), nn.Dropout(0.5).eval()]
)
def test_dropout_drops_nothing_else(parties, dropout):
    assert close(dropout(secret(X, parties)), X, 0)


IMAGES = eighths(2, 3, 4, 4)
NOT_HOOKED = {
    "conv2d": lambda x: F.conv2d(x, x[:, :, :2, :2]),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "nn.AvgPool2d": nn.AvgPool2d(2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "nn.MaxPool2d": nn.MaxPool2d(2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1),
    "diag": lambda x: torch.diag(x[0, 0]),
    "chunk": lambda x: torch.chunk(x, 2, 3)[1],
}


@pytest.mark.parametrize("name", NOT_HOOKED)
def test_what_was_not_hooked(parties, name):
    call = NOT_HOOKED[name]
    assert close(call(secret(IMAGES, parties)), call(IMAGES))


def test_batch_norm(parties):
    for layer in (nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double().eval()):
        expected = layer(IMAGES).detach()
        layer = type(layer)(3).double().train(layer.training)
        others = {"crypto_provider": parties.crypto_provider, "protocol": "semi2k"}
        layer.fix_precision().share(*parties.workers, **others)
        assert close(layer(secret(IMAGES, parties)), expected, 5)


@pytest.mark.parametrize("name", ["equal", "asin", "sinh", "cosh", "atan"])
def test_what_semi2k_has_not(parties, name):
    x = secret(X, parties)
    args = (x,) if name == "equal" else ()
    refused(lambda: getattr(torch, name)(x, *args), NotImplementedError, f"no {name}:")
    refused(lambda: getattr(x, name)(*args), NotImplementedError, f"no {name}:")


def test_beside_a_plain_tensor(parties):
    """It ended in `__round__`."""
    x = secret(X, parties)
    assert close(x > torch.tensor(0.5), (X > 0.5).double(), 0)
    assert close(x > Y, (X > Y).double(), 0)
    assert close(x * torch.tensor(0.5) + Y, X * 0.5 + Y)


def test_boolean_masks(parties):
    x, mask = secret(X, parties, requires_grad=True), X > 0
    assert close(x[mask], X[mask], 0)
    assert close(x[:, torch.tensor([True, False, True])], X[:, [0, 2]], 0)
    x[mask].sum().backward()
    assert close(x.grad, mask.double(), 0)
    refused(lambda: x[x > 0], TypeError, "a secret index")


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_sigmoid_and_tanh(parties, name):
    for call in (getattr(torch, name), lambda x: getattr(x, name)()):
        assert close(call(secret(X, parties)), call(X), 3)


def test_a_reciprocal_at_three_digits(parties):
    """That of 1.0 could be 10,000."""
    ones = torch.ones(1000).double()
    assert close(secret(ones, parties).reciprocal(), ones)


def test_exp_of_two(parties):
    """It was off by one."""
    x = torch.tensor([2.0, -2.0]).double()
    assert close(secret(x, parties).exp(), x.exp(), 3)


# ---- Workers, and what they hold -----------------------------------------------------------------


def workers_named(prefix):
    """Three workers, made anew."""
    hook = syft.local_worker.hook
    return [syft.VirtualWorker(hook, id=f"{prefix} {i}") for i in range(3)]


def share_between(workers, values):
    """Values between the first two, the third dealing."""
    *between, provider = workers
    others = {"crypto_provider": provider, "protocol": "semi2k"}
    return values.fix_precision().share(*between, **others)


def test_workers_made_anew_under_the_same_names(parties):
    x = share_between(workers_named("anew"), X)
    y = share_between(workers_named("anew"), Y)
    assert close(y * 2, Y * 2, 0)
    assert close(x * 2, X * 2, 0)  # the old ones have theirs still
    refused(lambda: x + y, ValueError, "different parties")


def test_after_clear_objects(parties):
    """What semi2k's parties hold is no object of syft's; pending values stay what they are."""
    workers = workers_named("cleared")
    x = share_between(workers, X)
    pending = x * x
    for worker in workers:
        worker.clear_objects()
    syft.local_worker.clear_objects()
    assert close(pending, X * X)
    assert close(x + 1, X + 1, 0)
    assert is_secret(x)


@pytest.mark.parametrize(
    ("most", "divisors"), [(1, (3**9, 7**5, 11**4, 13**4, 17**3)), (10**4, (3**20, 7**5))]
)
def test_parts_that_are_kept_at_many_scales(parties, most, divisors):
    """What is divided by many numbers is kept in parts of a unit; what all of these are multiples
    of would leave the ring no room."""
    x = secret(X * most, parties, 5)
    expected = [X * most / divisor for divisor in divisors]
    joined = torch.cat([x / divisor for divisor in divisors])
    assert close(joined, torch.cat(expected), 1, 5)
    assert close(sum(x / divisor for divisor in divisors), sum(expected), len(divisors), 5)


@pytest.mark.parametrize("name", ["sqrt", "rsqrt", "reciprocal", "exp", "log", "sigmoid", "tanh"])
def test_functions_of_what_has_become_public(parties, name):
    """As x * 0 has, of which everybody knows what it is."""
    x = secret(X, parties)
    public = x * 0 + torch.tensor([0.25, 1.0, 2.5])
    expected = getattr(torch, name)((X * 0 + torch.tensor([0.25, 1.0, 2.5])).double())
    assert close(getattr(public, name)(), expected)
    assert close((public.exp() * x), X * torch.tensor([0.25, 1.0, 2.5]).double().exp(), 2)


@pytest.mark.parametrize("name", ["exp", "sqrt", "reciprocal", "log", "softplus"])
def test_sums_of_many_results(parties, name):
    """A result has no more digits than it says: many of them fit the ring together."""
    x = secret(torch.full((2000,), 6.0), parties)
    operation = getattr(F, name, None) or getattr(torch, name)
    expected = operation(torch.full((2000,), 6.0).double()).sum()
    assert close(operation(x).sum(), expected, 2000 * 1.5)


@pytest.mark.parametrize("local", [False, True], ids=["at the worker", "local_autograd"])
def test_sgd_with_pointers(parties, monkeypatch, local):
    """Which is syft's own: the gradients are made there, or here, and the updates are torch's."""
    # syft keeps a rule for arguments by name: after a linear without bias, of any test, it has none
    monkeypatch.setattr(hook_args, "hook_method_args_functions", {})
    worker, sent = parties.workers[0], {"local_autograd": True} if local else {}
    values = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    targets, losses = torch.tensor([[0.0], [0.0], [1.0], [1.0]]), {}
    for where in ("here", "there"):
        net, x, y = nn.Linear(2, 1), values, targets
        nn.init.constant_(net.weight, -1.5)
        nn.init.constant_(net.bias, 0.5)
        if where == "there":
            net.send(worker, **sent)
            x, y = (value.send(worker, **sent) for value in (x, y))
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        losses[where] = []
        for _ in range(5):
            optimizer.zero_grad()
            loss = ((net(x) - y) ** 2).sum()
            loss.backward()
            optimizer.step()
            losses[where].append((loss.get() if where == "there" else loss).item())
    assert losses["there"] == pytest.approx(losses["here"], rel=1e-5)
    assert losses["here"][-1] < losses["here"][0] / 2
