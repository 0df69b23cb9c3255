"""Truncation: in its whole range never off by a unit, without bias, exact on multiples."""

import numpy as np
import pytest
import torch

from smpc.semi2k.arithmetic import offset
from tests.semi2k.conftest import reveal_integers

SAMPLES = 1_000_000
DIVISORS = (10, 64, 1000, 10**6)


@pytest.mark.parametrize("d", DIVISORS)
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (lambda d: -5 * d, lambda d: 5 * d),
        (lambda d: -offset(d), lambda d: -offset(d) + 2**40),
        (lambda d: 2**63 - offset(d) - 2**40, lambda d: 2**63 - offset(d)),
        (lambda d: -offset(d), lambda d: 2**63 - offset(d)),
    ],
    ids=["near zero", "least", "largest", "anywhere"],
)
def test_truncation(share_integers, d, low, high):
    x = np.random.default_rng(0).integers(low(d), high(d), SAMPLES, dtype=np.int64)
    y = reveal_integers(share_integers(torch.from_numpy(x)) / d).numpy()
    error = y - x // d  # in units; x // d is the floor
    remainder = x % d
    assert set(np.unique(error)) <= {0, 1}
    assert not error[remainder == 0].any(), "multiples of d are exact"
    mean_error = (error - remainder / d).mean()
    assert abs(mean_error) < 0.005


@pytest.mark.parametrize("d", DIVISORS)
def test_division_by_a_negative_number(share_integers, d):
    x = torch.arange(-50, 50) * d
    assert torch.equal(reveal_integers(share_integers(x) / -d), -torch.arange(-50, 50))


def test_products_on_the_ring(share_integers):
    x = torch.tensor([2**31, -(2**31), 3, -1])
    y = torch.tensor([2**30, 2**30, -5, -1])
    assert torch.equal(reveal_integers(share_integers(x) * share_integers(y)), x * y)
