"""How far apart two distributions, or two samples, are said to be."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from smpc.audit import distances
from smpc.audit.variables import Sampling
from smpc.semi2k.arithmetic import Masked


def column(*values):
    return {"x": (np.array(values, dtype=np.uint64), 4)}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([0, 1, 2, 3], [3, 2, 1, 0], 0),
        ([0, 1], [0, 0, 1, 1], 0),
        ([0, 1, 2, 3], [0, 1, 2, 2], "1/4"),
        ([0, 0, 1], [0, 1], "1/6"),
        ([5], [6], 1),
    ],
)
def test_total_variation(one, other, expected):
    found = distances.total_variation(column(*one), column(*other))
    assert found == Fraction(expected)


def test_other_variables_are_not_compared():
    with pytest.raises(ValueError, match="one world only"):
        distances.total_variation(column(1), {"y": (np.ones(1, np.uint64), 4)})


def test_the_largest_difference_of_means():
    """Of bits, and of products of two and of three, as -1 and 1, against sums of floats."""
    coins, n = Sampling(128), 128
    sides = [
        {
            name: (coins.draw(f"{name} {side}", 2**w), w)
            for name, w in (("x", 3), ("y", 1), ("z", 2))
        }
        for side in range(2)
    ]
    means = []
    for side in sides:
        signs = {
            name: [1 - 2.0 * (words >> np.uint64(i) & np.uint64(1)) for i in range(w)]
            for name, (words, w) in side.items()
        }
        every = [bit for bits in signs.values() for bit in bits]
        products = [a * b for a, b in itertools.combinations(every, 2)]
        triple = np.prod([bits[0] for bits in signs.values()], axis=0)
        means.append([x.sum() / n for x in (*every, *products, triple)])
    largest, count = distances.largest_difference(*sides)
    assert largest == np.abs(np.subtract(*means)).max()
    assert count == len(means[0])


def test_the_largest_difference_of_single_bits():
    """Of all bits of elements, of a mask, and of bits: the one that is apart counts."""
    words = np.arange(8, dtype=np.uint64).reshape(4, 2)
    view = {"x": words, "y": Masked(words, None), "b": np.zeros((4, 3), bool)}
    assert distances.largest_of_bits(view, view) == (0, 2 * 2 * 64 + 3)
    for name, other in (
        ("x", words ^ np.uint64(2**63)),
        ("y", Masked(words | np.uint64(2**40), None)),
        ("b", np.ones((4, 3), bool)),
    ):
        assert distances.largest_of_bits(view, view | {name: other})[0] == 2


def test_the_limit_is_kept_by_what_is_of_one_distribution_and_by_nothing_constant():
    """Of fair bits, as -1 and 1, in two samples of 256."""
    limit = distances.limit(10**6, 256, 1e-9)
    assert 0.7 < limit < 0.8
    assert distances.limit(10**6, 1024, 1e-9) == limit / 2
    sides = [{"x": Sampling(256).draw("x", 2**64)} for _ in range(2)]
    assert distances.largest_of_bits(*sides)[0] < limit
    assert distances.largest_of_bits(sides[0], {"x": np.zeros(256, np.uint64)})[0] > limit
