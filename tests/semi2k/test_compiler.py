"""Where truncations, masks and rounds go: what a step of the tutorial takes, in counts; how wide a
zone is; and that nothing is rounded before it must be."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from smpc.semi2k.compiler import ANEW, LEAST, MAGNITUDE, ZONE, Compiler
from smpc.semi2k.graph import ancestors
from tests.conftest import reveal
from tests.semi2k.conftest import Training, instructions, new_session, session_of, zones


def compiled(session, node):
    """What the compiler makes of a value to reveal."""
    return Compiler(ancestors([node]), node, [], [], session.exact)


def ops(session):
    """How many of each instruction there are in all programs."""
    names = [instruction.op for instruction in instructions(session)]
    return {name: names.count(name) for name in set(names)}


def divided(graph, x, d=1000):
    return graph.scaled(x, Fraction(1, d))


def test_a_bias_joins_before_the_division():
    """x w / 1000 + b takes one truncation and one round, and is off by less than a unit."""
    session = new_session(2)
    graph = session.graph
    graph.one = 1000
    x, w, b = (session.share(np.array([[value]])) for value in (1500, -700, 33))
    y = session.reveal(graph.added("add", divided(graph, graph.times("matmul", x, w)), b))
    assert abs(y - (-1050 + 33)).max() < 1
    made = ops(session)
    assert made["truncate"] == 1
    assert session.network.counters.rounds == 1
    assert made.get("mask", 0) == 0, "nothing is masked anew"


def test_what_arrives_by_several_paths_is_added_before_it_is_rounded():
    """Ten thirds are ten, and not ten times a third that was rounded."""
    session = new_session(2)
    graph = session.graph
    graph.one = 1000
    x = session.share(np.array([100] * 50))
    one = session.share(np.array([1] * 50))
    products = [graph.scaled(graph.times("mul", x, one), Fraction(1, 3)) for _ in range(10)]
    products += [graph.scaled(graph.times("mul", one, x), Fraction(k, 7)) for k in (1, 2, 4)]
    total = products[0]
    for product in products[1:]:
        total = graph.added("add", total, product)
    revealed = session.reveal(total)
    exact = 10 * 100 / 3 + 100
    assert (np.abs(revealed - exact) < 1).all()
    assert len(zones(session)) == 1


def test_scale_belongs_to_the_node():
    """Public factors cost nothing, in whatever order they come, and a fraction that is whole in the
    end is rounded nowhere."""
    session = new_session(2)
    graph = session.graph
    graph.one = 1000
    x = session.share(np.array([5, -7]))
    y = graph.scaled(graph.scaled(graph.scaled(x, Fraction(1, 1000)), 30), Fraction(100, 3))
    assert session.reveal(graph.added("add", graph.scaled(y, 2), x)).tolist() == [15, -21]
    assert ops(session).get("truncate", 0) == ops(session).get("truncate_exactly", 0) == 0
    assert session.network.counters.rounds == 0


def test_integers_in_no_fixed_precision_are_truncated_exactly():
    session = new_session(2)
    graph, x = session.graph, session.share(np.array([2**60, -(2**60), 12]))
    revealed = session.reveal(graph.scaled(x, Fraction(1, 4)))
    assert revealed.tolist() == [2**58, -(2**58), 3]
    assert ops(session)["truncate_exactly"] == 1
    assert not zones(session)


@pytest.mark.parametrize("digits", [2, 3, 6, 7])
def test_how_wide_a_zone_is(digits):
    """As the documented magnitude needs; where it is less than LEAST, the truncation is exact."""
    session = new_session(2)
    graph, one = session.graph, 10**digits
    graph.one = one
    x = session.share(np.array([3 * one, -one // 2]))
    y = session.reveal(divided(graph, graph.times("mul", x, x), one))
    assert np.abs(y - [9 * one, one // 4]).max() < 1
    needed = (MAGNITUDE * one**2).bit_length() + 1
    promised = 2 ** (min(needed, ZONE) - 1) / one**2
    assert zones(session) == ([min(needed, ZONE)] if promised >= LEAST else [])
    assert (promised < LEAST) == (digits >= 6)


@pytest.mark.parametrize("n", [1, 2**10, 2**18, 2**19, 2**21])
def test_a_large_run_has_narrower_zones(n):
    """So that at most one in 2^ANEW is made anew."""
    session = new_session(2)
    session.graph.one = 1000
    x = session.graph.stored(0, (n,), "masked", lambda id: None)
    compiler = compiled(session, divided(session.graph, session.graph.times("mul", x, x)))
    ((elements, zone),) = compiler.zones
    assert elements == n
    assert n * 2.0 ** (zone - 64) <= 2.0**-ANEW
    assert zone == min(ZONE, 64 - ANEW - int(np.log2(n)))


class Tutorial(torch.nn.Module):
    """The tutorial's network."""

    def __init__(self):
        super().__init__()
        sizes = 784, 128, 64, 10
        self.layers = torch.nn.ModuleList(map(torch.nn.Linear, sizes, sizes[1:]))

    def forward(self, x):
        first, second, third = self.layers
        return third(F.relu(second(F.relu(first(x)))))


@pytest.mark.parametrize("n", [2, 3])
def test_a_step_of_the_tutorial(parties, n):
    """18 rounds; at most 2.9 MB opened by two workers, each of which sends the other half of it; at
    most 2.0 MB dealt, whatever the number of workers."""
    group = parties.of(n)
    sharing = {"crypto_provider": group.crypto_provider, "protocol": "semi2k"}
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(64, 784, generator=generator).fix_precision()
    target = torch.eye(10)[torch.arange(64) % 10].fix_precision()
    data, target = (x.share(*group.workers, **sharing, requires_grad=True) for x in (data, target))
    net = Tutorial().fix_precision().share(*group.workers, **sharing, requires_grad=True)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02).fix_precision()
    network = session_of(data).network
    for _ in range(3):
        start = network.counters.copy()
        optimizer.zero_grad()
        loss = ((net(data) - target) ** 2).sum().refresh() / 64
        loss.backward()
        optimizer.step()
        loss.get()
    since = network.counters.since(start)
    attempts = since["runs"] + since["anew"]
    assert since["runs"] == 1
    assert since["rounds"] == 18 or since["anew"]
    assert since["opened"] / n * 2 <= 2.9e6 * attempts
    assert since["sent"]["dealing"]["crypto_provider"] <= 2.0e6 * attempts


def bounds(training, weights, digits):
    """By how much the loss, and each gradient, of a step of `Training` can be off at the most, from
    weights and data that fixed precision has exactly: one truncation after the other is off by less
    than a unit, and of gradients by less than a unit of six digits, if these are more."""
    unit, fine = 10.0**-digits, 10.0 ** -max(digits, 6)
    x, target = training.batch()
    w1, b1, w2, b2 = (weights[f"{layer}.{part}"] for layer in ("fc1", "fc2") for part in PARTS)
    z = x @ w1.T + b1
    squares = training.activation == "quadratic"
    a = z**2 if squares else z.clamp(min=0)
    off_a = 2 * z.abs() * unit + unit**2 + unit if squares else unit * torch.ones_like(z)
    error = a @ w2.T + b2 - target
    off_error = off_a @ w2.T.abs() + unit
    off_loss = (error.abs() * off_error + off_error**2 / 2).sum() + unit
    off_error = off_error + fine
    back = error @ w2
    off_back = off_error @ w2.abs() + fine
    if squares:  # times 2 z
        off_back = 2 * (z.abs() + unit) * off_back + 2 * back.abs() * unit + fine
    off = {
        "fc2.weight": off_error.T @ (a.abs() + off_a) + error.T.abs() @ off_a,
        "fc2.bias": off_error.sum(dim=0),
        "fc1.weight": off_back.T @ x.abs(),
        "fc1.bias": off_back.sum(dim=0),
    }
    return off_loss, {name: error + unit for name, error in off.items()}  # they are revealed


PARTS = ("weight", "bias")


@pytest.mark.parametrize("activation", ["relu", "quadratic"])
@pytest.mark.parametrize("digits", [3, 4, 6, 7])
def test_gradients_beside_torch(group, activation, digits):
    """The errors are those of the roundings, and small beside the gradients."""
    training = Training(group, activation, digits=digits)
    for _ in range(3):
        training.next_batch()
        before = training.weights()
        loss, gradients, _ = training.in_the_clear(before)
        off_loss, off = bounds(training, before, digits)
        assert abs(reveal(training.step()).double() - loss) < off_loss
        for name, parameter in training.net.named_parameters():
            error = (reveal(parameter.grad).double() - gradients[name]).abs()
            assert (error < off[name] + 1e-6).all()  # syft makes float32 of what is revealed
        largest = max(gradient.abs().max() for gradient in gradients.values())
        assert max(error.max() for error in off.values()) < 0.03 * 10.0 ** (3 - digits) * largest
