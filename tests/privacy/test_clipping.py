"""No item counts more than the bound, whatever it is; and little less than it may."""

import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpc.operations import number
from smpc.privacy import clipping
from smpc.privacy.clipping import N_THRESHOLDS, STEPS, Bounds, Layer
from smpc.syft_binding.wrapper import number_in
from tests.operations.conftest import secret
from tests.semi2k.conftest import session_of, sessions_of_its_own  # noqa: F401 (of the tests here)

SIZES = ((3, 5), (2, 3))  # (outputs, inputs) of two layers
N_ITEMS = 6
CLIP, BOUNDS = 4.0, Bounds()
SMALLEST = 2 ** (-1 / 4) * 0.995  # of CLIP, that is left of an item that is clipped at all


class Passed:
    """What passed two layers, made of integers.

    Args:
        taken: of each layer, in units, (items, inputs); `errors`: in steps, (items, outputs).
    """

    def __init__(self, parties, taken, errors, digits=3, weight=0.5):
        self._taken, self._errors, self._one = taken, errors, 10**digits

        def shared(integers, parts=1):
            inside = (
                integers + 0.1 * np.sign(integers)
            ) / self._one  # what is cut off is not of it
            tensor = secret(torch.tensor(inside), parties, digits)
            self._session = session_of(tensor)
            return number.scale(number_in(tensor), self._one / parts)

        self.layers = [
            Layer(
                number_in(secret(torch.full((m, n), weight), parties, digits)),
                number_in(secret(torch.zeros(m), parties, digits)),
                shared(a, self._one),
                clipping.opened(shared(e, STEPS), STEPS, BOUNDS.largest_error()),
            )
            for (m, n), a, e in zip(SIZES, taken, errors, strict=True)
        ]

    def reveal(self, x, parts=STEPS):
        """The integers of a Number that is whole in `parts` of 1."""
        return self._session.reveal(number.scale(x, parts // x.one).node)

    def norms(self, errors=None):
        """Of each item's gradient, from the integers themselves, with these errors or its own."""
        norms = []
        for i in range(len(self._taken[0])):
            square = 0
            for e, a in zip(errors or self._errors, self._taken, strict=True):
                own = sum(int(x) ** 2 for x in e[i]), sum(int(x) ** 2 for x in a[i])
                square += own[0] * (own[1] + self._one**2)
            norms.append(math.sqrt(square) / STEPS / self._one)
        return norms

    def clipped_norms(self, clip=CLIP):
        """Likewise, after clipping."""
        errors = clipping.clipped_errors(self.layers, clip, BOUNDS)
        return self.norms([self.reveal(e) for e in errors])

    def counts(self):
        """Whether each item is within all bounds."""
        size = lambda x, one: np.sqrt((x.astype(float) ** 2).sum(1)) / one  # noqa: E731
        within = [size(a, self._one) < BOUNDS.inputs for a in self._taken]
        within += [size(e, STEPS) < BOUNDS.errors for e in self._errors]
        return np.all(within, axis=0)


def passed(largest_input, largest_error):
    """A strategy for (taken, errors): of all magnitudes up to these, in numbers."""

    def of(n, largest, one):
        magnitude = st.floats(0, math.log10(largest * one / math.sqrt(n)))
        row = st.tuples(magnitude, st.lists(st.floats(-1, 1), min_size=n, max_size=n))
        rows = st.lists(row, min_size=2 * N_ITEMS, max_size=2 * N_ITEMS)
        return rows.map(lambda rows: np.array([[int(10**m * x) for x in xs] for m, xs in rows]))

    taken = st.tuples(*(of(n, largest_input, 1000) for _, n in SIZES))
    errors = st.tuples(*(of(m, largest_error, STEPS) for m, _ in SIZES))
    return st.tuples(taken, errors)


@given(passed(largest_input=1500, largest_error=3000))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_item_counts_more(parties, case):
    """At any magnitude up to what is possible, within the bounds and beyond: never above the clip;
    0 beyond a bound; within, what is below the clip stays, and what is not keeps the most of it."""
    items = Passed(parties, *case)
    before, after, counts = items.norms(), items.clipped_norms(), items.counts()
    assert max(after) <= CLIP
    most = CLIP * 2 ** ((N_THRESHOLDS - 1) / 4)
    for norm, clipped, is_within in zip(before, after, counts, strict=True):
        if not is_within or norm > most:
            assert clipped == 0
        elif norm < CLIP * 0.99:
            assert clipped == norm
        elif norm < most * 0.99:
            assert clipped >= SMALLEST * min(norm, CLIP) - 0.01
        else:
            assert clipped == 0 or clipped >= SMALLEST * CLIP - 0.01


@pytest.mark.parametrize("k", [0, 1, 7, 11])
def test_at_each_threshold(parties, k):
    """Norms just below a threshold, at it and above; the inputs being 0, so that an error is the
    whole gradient. (What each factor of a norm is given, a step, is 2 of 100,000 of its square.)"""
    slack = clipping.slack(5, BOUNDS)
    assert slack == math.sqrt(5 * (BOUNDS.inputs**2 + 1)) / STEPS
    squares, factors = clipping.thresholds(CLIP - slack, N_THRESHOLDS)
    edge = math.isqrt(int(squares[k]) * STEPS)
    near = 3 + edge // 50_000
    steps = [edge - near, edge - 1, edge, edge + 1, edge + 2, edge + near]
    errors = np.array([[n, 0, 0] for n in steps]), np.zeros((N_ITEMS, 2), int)
    taken = np.zeros((N_ITEMS, 5), int), np.zeros((N_ITEMS, 3), int)
    after = Passed(parties, taken, errors).clipped_norms()
    assert max(after) <= CLIP
    for i, factor in ((0, factors[k]), (5, factors[k + 1])):
        assert abs(after[i] - steps[i] * factor / STEPS**2) <= 1.1 / STEPS


@pytest.mark.parametrize("clip", [0.5, 1, 4, 8, 100.3])
def test_thresholds(clip):
    """Their factors take each norm below the clip, exactly, and lose little."""
    squares, factors = clipping.thresholds(clip, N_THRESHOLDS)
    for square, factor in zip(squares.tolist(), factors.tolist(), strict=True):
        norm = factor * factor * square
        assert clip**2 * (1 - 3e-2) < norm / STEPS**3 <= clip**2
    assert (np.diff(squares) > 0).all() and (np.diff(factors) < 0).all()
    assert factors[0] == STEPS


@pytest.mark.parametrize("which", ["inputs", "errors"])
@pytest.mark.parametrize("layer", [0, 1])
def test_the_bounds(parties, which, layer):
    """One step inside of a bound an item counts, one beyond it does not; and far beyond, where its
    norm leaves the ring, neither."""
    one = 1000 if which == "inputs" else STEPS
    bound = getattr(BOUNDS, which) * one
    taken = [np.ones((N_ITEMS, n), int) for _, n in SIZES]
    errors = [np.full((N_ITEMS, m), 3) for m, _ in SIZES]
    array = taken[layer] if which == "inputs" else errors[layer]
    array[:] = 0
    array[:, 1] = [bound - 1, bound, bound + 1, 2 * bound, 23 * bound, -bound - 1]
    after = Passed(parties, taken, errors).clipped_norms()
    assert after[0] > 0 and max(after) <= CLIP
    assert after[1:] == [0] * (N_ITEMS - 1)


def test_an_item_that_leaves_the_ring(parties):
    """What the weights' bounds make impossible for what counts: no other item counts more for it,
    and it counts nothing if its inputs are beyond their bound."""
    taken = [np.ones((N_ITEMS, n), int) * 1000 for _, n in SIZES]
    errors = [np.full((N_ITEMS, m), STEPS) for m, _ in SIZES]
    taken[0][0], errors[1][0] = 70 * 1000, 2**45
    after = Passed(parties, taken, errors).clipped_norms()
    assert after[0] == 0 and 0 < max(after[1:]) <= CLIP


@pytest.mark.parametrize(("weight", "expected"), [(6.19, 0), (6.2, 1), (8, 1), (10, 2)])
def test_weights_beyond_their_bound(parties, weight, expected):
    """Two layers, of 15 and of 6 weights: norms of 24 are beyond."""
    zeros = [np.zeros((N_ITEMS, n), int) for _, n in SIZES]
    items = Passed(parties, zeros, [x[:, :m] for x, (m, _) in zip(zeros, SIZES, strict=True)],
                   weight=weight)  # fmt: skip
    beyond = clipping.beyond(items.layers, BOUNDS)
    assert items.reveal(beyond, beyond.one).item() == expected * 1000
    norms = [weight * math.sqrt(m * n) for m, n in SIZES]
    assert sum(norm > BOUNDS.weights for norm in norms) == expected


@pytest.mark.parametrize("digits", [2, 3, 4])
def test_other_digits(parties, digits):
    one = 10**digits
    taken = [np.full((N_ITEMS, n), one) for _, n in SIZES]
    errors = [np.full((N_ITEMS, m), 5 * STEPS) for m, _ in SIZES]
    items = Passed(parties, taken, errors, digits=digits)
    after = items.clipped_norms()
    assert min(after) >= SMALLEST * CLIP and max(after) <= CLIP
