"""The graph: what is public is computed at once, exactly; equal operations make one node."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smpc.semi2k.graph import Graph, ancestors


@pytest.fixture(scope="module")
def graph():
    """A graph, and `x` of it, a stored value of shape (2, 2)."""
    return Graph()


def stored(graph, shape=(2, 2), id=0):
    return graph.stored(id, shape, "masked", lambda id: None)


def value(node):
    """Of a public node, in fractions."""
    if (number := node.number_in_all) is not None:
        return [number] * node.size
    values, factor = node.params
    return [int(element) * factor for element in values.flat]


arrays = st.lists(st.integers(-(2**31), 2**31), min_size=4, max_size=4)
factors = st.fractions(-100, 100, max_denominator=100)


@settings(max_examples=30)
@given(a=arrays, b=arrays, f=factors, g=factors)
def test_public_values_are_exact(graph, a, b, f, g):
    x, y = (graph.scaled(graph.array(np.array(v).reshape(2, 2)), k) for v, k in ((a, f), (b, g)))
    exact_x, exact_y = [n * f for n in a], [n * g for n in b]
    pairs = list(zip(exact_x, exact_y, strict=True))
    assert value(graph.added("add", x, y)) == [p + q for p, q in pairs]
    assert value(graph.added("sub", x, y)) == [p - q for p, q in pairs]
    assert value(graph.times("mul", x, y)) == [p * q for p, q in pairs]
    assert value(graph.summed(x, (0, 1), False)) == [sum(exact_x)]
    assert value(graph.moved("index", x, (("slice", 1, None, None),))) == exact_x[2:]
    assert value(graph.moved("permute", x, (1, 0))) == [exact_x[i] for i in (0, 2, 1, 3)]
    assert value(graph.concatenated([x, y], 0)) == exact_x + exact_y
    assert value(graph.above_zero(x)) == [p > 0 for p in exact_x]
    product = [[exact_x[0], exact_x[1]], [exact_x[2], exact_x[3]]]
    columns = [[exact_y[0], exact_y[2]], [exact_y[1], exact_y[3]]]
    assert value(graph.times("matmul", x, y)) == [
        sum(p * q for p, q in zip(row, column, strict=True))
        for row in product
        for column in columns
    ]


@pytest.mark.parametrize(
    "operation",
    [
        lambda g: g.constant(2**63, ()),
        lambda g: g.times("mul", g.array([2**62, 1]), g.array([4, 1])),
        lambda g: g.added("add", g.array([2**62, 1]), g.array([2**62, 1])),
        lambda g: g.scaled(stored(g), 2**63),
        lambda g: g.scaled(stored(g), Fraction(1, 2**63)),
    ],
)
def test_what_is_beyond_the_ring_is_refused(graph, operation):
    with pytest.raises(OverflowError, match=r"too large|within"):
        operation(graph)


def test_equal_operations_make_one_node(graph):
    x = stored(graph)
    assert graph.times("mul", x, x) is graph.times("mul", x, x)
    assert graph.refreshed(x) is not graph.refreshed(x)
    assert graph.moved("permute", graph.moved("permute", x, (1, 0)), (1, 0)) is x
    assert graph.scaled(graph.scaled(x, 6), Fraction(1, 6)) is x
    assert graph.moved("reshape", x, (2, 2)) is x


def test_nothing_pending_is_kept_that_nothing_refers_to():
    graph = Graph()
    x = stored(graph)
    y = graph.times("mul", x, x)
    z = graph.added("add", y, x)
    assert ancestors([z]) == [y, z]
    assert len(graph.pending) == 2
    del y, z
    assert not graph.pending
    assert not graph._made


def test_a_stored_value_that_nothing_refers_to_is_deleted():
    deleted, graph = [], Graph()
    x = graph.stored(7, (1,), "share", deleted.append)
    y = graph.scaled(x, 2)
    del x
    assert deleted == []
    del y
    assert deleted == [7]


@pytest.mark.parametrize("shapes", [((2, 3), (2, 3)), ((), (2, 2)), ((3,), (2,))])
def test_shapes_that_do_not_go_together(graph, shapes):
    one, other = (stored(graph, shape, i) for i, shape in enumerate(shapes))
    with pytest.raises(ValueError, match="do not go together"):
        graph.times("matmul", one, other)
