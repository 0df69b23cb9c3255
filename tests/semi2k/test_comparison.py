"""Comparison: at its edges, on ties, and over the whole range."""

import numpy as np
import pytest
import torch

from smpc.semi2k import comparison
from tests.semi2k.conftest import reveal_integers

EDGES = [0, 1, -1, 2, -2, 2**61, -(2**61), 2**61 - 1, 1 - 2**61, 2**62, -(2**62), 2**63 - 1]


def test_above_zero_at_the_edges(share_integers):
    x = torch.tensor([*EDGES, 1 - 2**63])
    assert torch.equal(reveal_integers(share_integers(x) > 0), (x > 0).long())
    assert torch.equal(reveal_integers(share_integers(x).relu()), x.clamp(min=0))


@pytest.mark.parametrize("name", ["__gt__", "__ge__", "__lt__", "__le__", "__eq__"])
def test_every_pair_of_edges(share_integers, name):
    edges = torch.tensor([x for x in EDGES if abs(x) <= 2**61])
    x, y = edges[:, None].repeat(1, len(edges)), edges[None, :].repeat(len(edges), 1)
    compared = getattr(share_integers(x), name)(share_integers(y))
    expected = (x == y) if name == "__eq__" else getattr(x, name)(y)
    assert torch.equal(reveal_integers(compared), expected.long())


def test_a_hundred_thousand_of_every_magnitude(share_integers):
    generator = np.random.default_rng(0)
    x = generator.integers(-(2**63) + 1, 2**63 - 1, 100_000) >> generator.integers(0, 63, 100_000)
    x = torch.from_numpy(x)
    assert torch.equal(reveal_integers(share_integers(x) > 0), (x > 0).long())


@pytest.mark.parametrize("n", [0, 1, 63, 64, 65, 200])
def test_any_number_of_elements(share_integers, n):
    x = torch.arange(n) - n // 2
    assert torch.equal(reveal_integers(share_integers(x) > 0), (x > 0).long())


def test_unpack_undoes_what_the_tree_packs():
    bits = np.random.default_rng(0).integers(0, 2, 256).astype(np.uint64)
    words = bits
    for level in range(comparison.levels()):
        words = comparison._take(words, level, 0)
    assert len(words) == 256 // 64
    assert np.array_equal(comparison.unpack(words), bits)
