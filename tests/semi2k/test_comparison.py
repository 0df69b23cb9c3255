"""Comparison: at its edges, on ties, and over the whole range."""

import functools
import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch

from smpc.semi2k import comparison, dealer
from smpc.semi2k.arithmetic import Masked
from smpc.semi2k.randomness import Stream, new_key
from tests.semi2k.conftest import instructions, reveal_integers, zones

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
def test_any_number_of_elements(session, n):
    x = np.arange(n) - n // 2
    revealed = session.reveal(session.graph.above_zero(session.share(x)))
    assert np.array_equal(revealed, x > 0)


def test_relu_and_its_comparison_agree(session):
    """The comparison is of what the truncation opened: the sign of any quotient is that of the
    number it was rounded from; within what is promised, and at its edges."""
    graph = session.graph
    graph.one = 1000
    most = 10**6 * 10**3 * 10**3
    x = np.array([0, 1, -1, 999, -999, 1000, -1000, 1001, most, -most, most - 1, 1 - most])
    product = graph.times("mul", session.share(x), session.share(np.ones(12, np.int64)))
    y = graph.scaled(product, Fraction(1, 1000))
    relu = session.reveal(graph.times("mul", graph.above_zero(y), y))
    assert (relu >= 0).all()
    assert (np.abs(relu - np.maximum(x, 0) / 1000) < 1).all()
    bits = {i.params[1] for i in instructions(session) if i.op == "above_zero"}
    assert bits == {max(zones(session))}, "over as many bits as the range needs"


@pytest.mark.parametrize("bits", range(2, 65))
def test_of_any_number_of_bits(bits):
    """Three workers' parts of the protocol, of the least and largest numbers in so many bits."""
    edge = 2 ** (bits - 1) - 1
    x = np.array([0, 1, -1, edge, -edge, edge // 2, -(edge // 2)])
    assert np.array_equal(above_zero(x, bits), x > 0)


def above_zero(x, bits):
    """What three parties' `above_zero` makes of x, int64, under a uniform mask."""
    words = Stream(new_key(), "test").words
    item = dealer.Comparison(x.size, bits)
    shares = [{}, {}, {}]
    sums, address = {}, itertools.count()
    for field in item.fields():
        if not field.derived:
            drawn = [words((next(address), 0), field.size).reshape(field.shape) for _ in shares]
            sums[field.name] = functools.reduce(np.bitwise_xor, drawn)
            for share, part in zip(shares, drawn, strict=True):
                share[field.name] = part
    a = words((next(address), 0), x.size)
    derived, (rho,) = item.make(sums, a)
    for field in item.fields():
        if field.derived:
            parts = [words((next(address), 0), field.size).reshape(field.shape) for _ in (0, 1)]
            combine = np.bitwise_xor if field.boolean else np.subtract
            parts.append(functools.reduce(combine, parts, derived[field.name]))
            for share, part in zip(shares, parts, strict=True):
                share[field.name] = part
    masked = Masked(x.view(np.uint64) - a, None)
    opened, bit = None, None
    parties = [comparison.above_zero(i, share, masked, bits) for i, share in enumerate(shares)]
    asks = [next(party) for party in parties]
    while bit is None:
        opened = functools.reduce(np.bitwise_xor, [ask.words for ask in asks])
        try:
            asks = [party.send(opened) for party in parties]
        except StopIteration as finished:
            bit = finished.value
    return bit.delta + bit.sign * rho


@pytest.mark.parametrize("bits", [2, 4, 5, 16, 17, 41, 48, 64])
def test_rounds_are_as_few_as_the_bits_need(bits):
    levels = next(n for n in (1, 2, 3) if 4**n >= bits)
    assert len(comparison.fan_ins(bits)) == levels


def test_unpack_undoes_planes():
    bits = np.random.default_rng(0).integers(0, 2**63, 256).astype(np.uint64)
    planes = comparison.planes(bits, 63)
    assert planes.shape == (63, 256 // 64)
    for i, plane in enumerate(planes):
        assert np.array_equal(comparison.unpack(plane), bits >> np.uint64(i) & np.uint64(1))
