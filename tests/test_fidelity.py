"""Encrypted gradients beside torch's own, for a small net with the tutorial's layers and loss."""

import copy

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import reveal


class SmallNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = torch.nn.Linear(6, 5)
        self.fc2 = torch.nn.Linear(5, 3)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(x)))


@pytest.mark.parametrize(
    "protocol", ["semi2k", "snn", pytest.param("fss", marks=pytest.mark.thorough)]
)
def test_gradients(parties, share, protocol):
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(4, 6, generator=generator)
    target = torch.eye(3)[[0, 2, 1, 0]]
    torch.manual_seed(0)
    net = SmallNet()
    twin = copy.deepcopy(net)
    net.fix_precision().share(
        *parties.workers,
        crypto_provider=parties.crypto_provider,
        protocol=protocol,
        requires_grad=True,
    )

    loss = ((net(share(data, protocol)) - share(target, protocol)) ** 2).sum() / 4
    loss.backward()
    twin_loss = ((twin(data) - target) ** 2).sum() / 4
    twin_loss.backward()

    assert reveal(loss).item() == pytest.approx(twin_loss.item(), abs=0.02)
    for parameter, twin_parameter in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(reveal(parameter.grad), twin_parameter.grad, rtol=0, atol=0.005)
