"""Truncation: in its promised range never off by a unit, without bias, exact on multiples; and its
flagged zone, at its edges."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from smpc.semi2k import arithmetic
from smpc.semi2k.arithmetic import Flagged, offset
from smpc.semi2k.compiler import MAGNITUDE
from tests.semi2k.conftest import check_in_step, new_session, reveal_integers, zones

SAMPLES = 1_000_000
DIVISORS = (10, 64, 1000, 10**6)


def check_quotients(x, y, d):
    """y is x / d up or down, without bias, and multiples of d are exact."""
    error = y - x // d  # in units; x // d is the floor
    remainder = x % d
    assert set(np.unique(error)) <= {0, 1}
    assert not error[remainder == 0].any(), "multiples of d are exact"
    assert abs((error - remainder / d).mean()) < 0.005


@pytest.mark.parametrize("d", DIVISORS)
@pytest.mark.parametrize(
    ("low", "high"),
    [
        (lambda o, d: -5 * d, lambda o, d: 5 * d),
        (lambda o, d: -o, lambda o, d: -o + 2**40),
        (lambda o, d: 2**63 - o - 2**40, lambda o, d: 2**63 - o),
        (lambda o, d: -o, lambda o, d: 2**63 - o),
    ],
    ids=["near zero", "least", "largest", "anywhere"],
)
def test_exact_truncation(share_integers, d, low, high):
    """Of integers in no fixed precision, of which nothing is known."""
    o = offset(d, 63)
    x = np.random.default_rng(0).integers(low(o, d), high(o, d), SAMPLES, dtype=np.int64)
    check_quotients(x, reveal_integers(share_integers(torch.from_numpy(x)) / d).numpy(), d)


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "with a zone"])
@pytest.mark.parametrize("d", [10, 1000])
def test_truncation_of_fixed_precision(session, exact, d):
    """In the whole range that is promised, |x| < 2^(zone - 1) - d; made anew it is right, too."""
    session.graph.one, session.exact = 1000, exact

    def divided(x):
        return session.reveal(session.graph.scaled(session.share(x), Fraction(1, d)))

    divided(np.zeros(200_000, np.int64))
    zone = (MAGNITUDE * 1000 * d).bit_length() + 1  # the least that its promise needs
    assert zones(session) == ([] if exact else [zone])
    most = 2 ** (zone - 1) - d
    x = np.random.default_rng(0).integers(1 - most, most, 200_000, dtype=np.int64)
    x[:4] = most - 1, 1 - most, 0, 17 * d
    check_quotients(x, divided(x), d)
    check_in_step(session)


@pytest.mark.parametrize("exact", [True, False])
def test_the_attribute_exact_decides(exact):
    """Without it a truncation has a zone, with it none, and so nothing is told."""
    session = new_session(2)
    session.graph.one, session.exact = 1000, exact
    session.reveal(session.graph.scaled(session.share(np.arange(5)), Fraction(1, 10)))
    assert (session.network.counters.told == 0) == exact


@pytest.mark.parametrize("d", DIVISORS)
def test_division_by_a_negative_number(share_integers, d):
    x = torch.arange(-50, 50) * d
    assert torch.equal(reveal_integers(share_integers(x) / -d), -torch.arange(-50, 50))


def test_products_on_the_ring(share_integers):
    x = torch.tensor([2**31, -(2**31), 3, -1])
    y = torch.tensor([2**30, 2**30, -5, -1])
    assert torch.equal(reveal_integers(share_integers(x) * share_integers(y)), x * y)


D, TRUNCATION_ZONE = 10, 41


def truncation(c, x):
    """Both parties' `truncate` of x, by D, with the r for which c is opened: their generators once
    c is opened, c itself, and -r div d."""
    with np.errstate(over="ignore"):
        x = np.uint64(x % 2**64)
        r = np.array([c], np.uint64) - x - np.uint64(offset(D, TRUNCATION_ZONE))
    minus_quotient = np.uint64(0) - r // np.uint64(D)
    deals = {"s": r, "q": minus_quotient}, {"s": 0 * r, "q": 0 * r}
    parties = [
        arithmetic.truncate(party, deal, share, D, TRUNCATION_ZONE)
        for party, (deal, share) in enumerate(zip(deals, (0 * r + x, 0 * r), strict=True))
    ]
    opened = sum(next(party) for party in parties)
    assert opened == np.uint64(c)
    return parties, opened, r


@pytest.mark.parametrize("x", [0, 12_340, -12_345, 2**40 - 11, 11 - 2**40])
@pytest.mark.parametrize("c", [2**41, 2**41 + 1, 2**63, 2**64 - 1])
def test_outside_the_zone_it_is_right(x, c):
    parties, opened, r = truncation(c, x)
    out = []
    for party in parties:
        with pytest.raises(StopIteration) as finished:
            party.send(opened)
        out.append(finished.value.value)
    (y, opened_x), (y_1, _) = out
    assert int((y.delta + y.a + y_1.a).view(np.int64)[0]) in {x // D, -(-x // D)}
    assert int((opened_x.delta - r).view(np.int64)[0]) == x, "it is x opened under -r, too"


@pytest.mark.parametrize("x", [0, 12_340, -12_345])
@pytest.mark.parametrize("c", [0, 1, 2**40, 2**41 - 1])
def test_inside_the_zone_it_is_flagged(x, c):
    parties, opened, _ = truncation(c, x)
    for party in parties:
        with pytest.raises(Flagged):
            party.send(opened)


@pytest.mark.parametrize("n", [0, 1, 7])
def test_one_flagged_element_of_many_is_enough(n):
    party = arithmetic.truncate(0, {"s": np.zeros(n, np.uint64)}, np.zeros(n, np.uint64), D, 41)
    c = next(party) + np.uint64(2**41)
    if n:
        c[-1] = 2**41 - 1
    with pytest.raises(Flagged if n else StopIteration):
        party.send(c)
