"""What syft 0.2.9 returned on its own stack (Python 3.8.18, torch 1.4.0), it returns here.

Every constant below was printed there by the same expression.
"""

import importlib.metadata
import sys

import pytest
import torch

from smpc import compat
from tests.conftest import reveal

INTEGERS = [7, -7, 6, -6]


def in_place(operation):
    tensor = torch.tensor(INTEGERS)
    operation(tensor)
    return tensor


def true_divide_in_place(tensor):
    tensor /= 4


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (lambda: torch.tensor(INTEGERS) / 2, [3, -3, 3, -3]),
        (lambda: torch.tensor(INTEGERS) // 2, [3, -3, 3, -3]),
        (lambda: torch.tensor(INTEGERS) / torch.tensor([2, 2, -4, 4]), [3, -3, -1, -1]),
        (lambda: torch.tensor(INTEGERS) // torch.tensor([2, 2, -4, 4]), [3, -3, -1, -1]),
        (lambda: torch.tensor(INTEGERS).div(4), [1, -1, 1, -1]),
        (lambda: torch.div(torch.tensor(INTEGERS), 4), [1, -1, 1, -1]),
        (lambda: 100 / torch.tensor(INTEGERS), [14, -14, 16, -16]),
        (lambda: 100 // torch.tensor(INTEGERS), [14, -14, 16, -16]),
        (lambda: in_place(true_divide_in_place), [1, -1, 1, -1]),
        (lambda: in_place(lambda tensor: tensor.div_(4)), [1, -1, 1, -1]),
        (lambda: torch.tensor([7.0, -7.0]) / 2, [3.5, -3.5]),
        (lambda: torch.tensor([7.0, -7.0]) // 2, [3.0, -3.0]),
        (lambda: torch.tensor([7, -7]) / 2.0, [3.5, -3.5]),
    ],
)
def test_division(parties, expression, expected):
    result = expression()
    assert result.tolist() == expected
    assert result.is_floating_point() == isinstance(expected[0], float)


def test_fixed_precision(parties):
    x = torch.tensor([1.5, -2.25, 3.0]).fix_precision()
    assert (x / 2).float_precision().tolist() == [0.75, -1.125, 1.5]
    assert (x // 2).float_precision().tolist() == [0.75, -1.125, 1.5]
    assert (x / x).float_precision().tolist() == [1.0, 1.0, 1.0]
    assert (x * x).float_precision().tolist() == pytest.approx([2.25, 5.062, 9.0])


def test_send_and_get(parties):
    sent = torch.tensor([7, -7, 6]).send(parties.workers[0])
    assert (sent / 2).get().tolist() == [3, -3, 3]
    assert (sent + sent).get().tolist() == [14, -14, 12]
    assert sent.get().tolist() == [7, -7, 6]


@pytest.mark.parametrize("protocol", ["snn", "fss"])
def test_protocols(share, protocol):
    a, b = share([1.0, -2.0, 3.0, 0.0], protocol), share([1.0, 2.0, -3.0, 0.5], protocol)
    c = share([[1.0, -2.0], [3.0, 4.0]], protocol)
    close = {"abs": 0.0021}  # two units: syft divides each of the two shares on its own
    assert reveal(a > b).tolist() == [0, 0, 1, 0]
    assert reveal(a <= b).tolist() == [1, 1, 0, 1]
    assert reveal(a == b).tolist() == [1, 0, 0, 0]
    assert reveal(a.relu()).tolist() == pytest.approx([1, 0, 3, 0], **close)
    assert reveal(a.argmax()).item() == 2
    assert reveal(a * b).tolist() == pytest.approx([1, -4, -9, 0], **close)
    assert reveal((c @ c).view(-1)).tolist() == pytest.approx([-5, -10, 15, 10], **close)
    assert reveal((c @ c.t()).sum(dim=1)).tolist() == pytest.approx([0, 20], **close)


def test_autograd(share):
    a, b = share([[1.0, -2.0], [3.0, 4.0]], "snn"), share([[2.0, 0.0], [-1.0, 1.0]], "snn")
    loss = ((a @ b).relu() * 2).sum()
    loss.backward()
    assert reveal(loss).item() == pytest.approx(20, abs=0.004)
    assert reveal(a.grad).view(-1).tolist() == pytest.approx([4, -2, 4, 0], abs=0.004)
    assert reveal(b.grad).view(-1).tolist() == pytest.approx([8, 6, 4, 8], abs=0.004)


def linear_and_sgd(parties, **options):
    net = torch.nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[1.0, -2.0]]))
    net.fix_precision().share(
        *parties.workers, crypto_provider=parties.crypto_provider, requires_grad=True
    )
    return net, torch.optim.SGD(net.parameters(), lr=0.1, **options).fix_precision()


def test_chained_sgd(parties, share):
    net, optimizer = linear_and_sgd(parties)
    data, target = share([[1.0, 1.0], [2.0, -1.0]], "snn"), share([[1.0], [0.0]], "snn")
    losses = []
    for _ in range(4):
        optimizer.zero_grad()
        loss = ((net(data) - target) ** 2).sum()
        loss.backward()
        optimizer.step()
        losses.append(reveal(loss).item())
    assert losses == pytest.approx([20.0, 4.16, 1.798, 0.785], abs=0.006)
    assert reveal(net.weight).view(-1).tolist() == pytest.approx([0.203, 0.237], abs=0.004)


@pytest.mark.parametrize("option", [{"momentum": 0.9}, {"weight_decay": 0.1}])
def test_sgd_refuses_what_it_does_not_do(parties, share, option):
    net, optimizer = linear_and_sgd(parties, **option)
    net(share([[1.0, 1.0]], "snn")).sum().backward()
    with pytest.raises(NotImplementedError, match=f"no {next(iter(option))}"):
        optimizer.step()


def test_plain_sgd_is_still_torch_s(parties):
    """The patches of SGD and F.linear leave ordinary parameters to torch."""
    layer = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5, momentum=0.5)
    before = layer.weight.detach().clone()
    x = torch.tensor([[1.0, 2.0]])
    layer(x).sum().backward()
    optimizer.step()
    assert torch.allclose(layer.weight, before - 0.5 * x)
    optimizer.zero_grad()
    assert layer.weight.grad is None


@pytest.mark.parametrize("package", ["torch", "syft", "torchvision"])
@pytest.mark.parametrize("version", ["1.4.0", None])
def test_other_versions_are_refused(monkeypatch, package, version):
    installed = importlib.metadata.version

    def pretended(name):
        if name != package:
            return installed(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", pretended)
    with pytest.raises(compat.UnsupportedVersion, match=rf"^{package} .* {version or 'none'} is"):
        compat.check_versions()


def test_other_pythons_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 8, 18, "final", 0))
    with pytest.raises(compat.UnsupportedVersion, match=r"Python 3\.8\.18 is not supported"):
        compat.check_versions()
