"""Integers that semi2k shares, in no fixed precision, and the tensor that a chain ends in.

What is computed on numbers in fixed precision is in `tests.operations`.
"""

import pytest
import torch

from smpc.semi2k.tensor import semi2k_tensor_in
from tests.conftest import reveal
from tests.semi2k.conftest import ends, recorded, session_of

UNIT = 0.001  # of fixed precision with 3 digits


PUBLIC = {
    "integers": torch.tensor([[-1, -1], [2, 3]]),
    "one negative": torch.tensor([[-5, -5], [-5, -5]]),
    "zeros": torch.zeros(2, 2, dtype=torch.long),
}
VIEWS = {
    "first": lambda x: x[0],
    "column": lambda x: x[:, 1],
    "element": lambda x: x[1, 0],
    "backwards": lambda x: x[[1, 0]],
    "reshaped": lambda x: x.reshape(4),
    "viewed": lambda x: x.view(1, 4),
    "transposed": lambda x: x.t(),
    "expanded": lambda x: x.expand(3, 2, 2),
    "squeezed": lambda x: x.unsqueeze(0).squeeze(0),
    "summed": lambda x: x.sum(dim=0),
    "doubled": lambda x: x + x,
    "squared": lambda x: x * x,
    "product": lambda x: x @ x,
    "less": lambda x: 1 - x,
    "divided": lambda x: (x * 6) / 3,
    "above": lambda x: (x > 0) * 1,
    "positive": lambda x: x.relu(),
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PUBLIC)
def test_public_arrays_behind_a_secret_tensor(share_integers, name, view):
    """Of any sign, and whatever becomes of them: nobody is asked for anything."""
    public, operation = PUBLIC[name], VIEWS[view]
    x = share_integers([[7, -8], [9, 1]])
    y = operation(x * 0 + public)
    with recorded(session_of(x).network) as messages:
        assert torch.equal(y.get(), operation(public).long())
    assert messages == []


MIXTURES = {
    "sum": lambda x, p: x + p,
    "difference": lambda x, p: x - p,
    "difference, public first": lambda x, p: x.__rsub__(p),
    "product": lambda x, p: x * p,
    "matrix product": lambda x, p: x @ p,
    "matrix product, public first": lambda x, p: (x * 0 + p) @ x,
    "greater": lambda x, p: (x > p) * 1,
    "equal": lambda x, p: (x == p) * 1,
    "part": lambda x, p: (x * 0 + p)[0] * x,
    "cat": lambda x, p: torch.cat([x, x * 0 + p, x - p]),
    "stack": lambda x, p: torch.stack([x * 0 + p, x], dim=1),
    "half": lambda x, p: (x * p) / 2 * 2,
    "fractions": lambda x, p: ((x * 0 + p) / 4 + x / 2) * 4,
    "bits": lambda x, p: (x > 0) * p + (x > p) * x,
    "max": lambda x, p: torch.stack([x * 0 + p, x]).max(dim=0),
}


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("public", PUBLIC)
def test_public_and_secret_values_together(share_integers, public, name):
    operation, p = MIXTURES[name], PUBLIC[public]
    x = torch.tensor([[6, -8], [10, -1]])
    expected = operation(x, p)
    got = operation(share_integers(x), p)
    expected, got = (y.values if name == "max" else y for y in (expected, got))
    got = got.get()
    assert got.shape == expected.shape
    # what is divided by 2, or 4, is off by less than a unit, times what it is multiplied by
    units = {"half": 1, "fractions": 3}.get(name, 0)
    assert (got - expected).abs().max() <= units


@pytest.mark.parametrize("exact", [False, True])
def test_small_updates_add_up(parties, share, exact):
    """Fifty updates of 0.3 units are 15 units, whichever way each is rounded."""
    net = torch.nn.Linear(1000, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    net.fix_precision().share(
        *parties.workers,
        crypto_provider=parties.crypto_provider,
        protocol="semi2k",
        requires_grad=True,
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=0.02).fix_precision()
    data = share(torch.full((1, 1000), 0.015), "semi2k")
    one = share([[1.0]], "semi2k")  # so that the gradient is a product of two secrets
    session = session_of(data)
    session.exact = exact
    try:
        for _ in range(50):
            optimizer.zero_grad()
            (net(data) * one).sum().backward()
            optimizer.step()
        assert torch.allclose(reveal(net.weight), torch.tensor(-0.015), atol=UNIT)
    finally:
        session.exact = False


def test_integers_beside_fixed_precision_are_truncated_exactly(share, share_integers):
    """What a number is belongs to each value, and so does what its truncation promises."""
    reveal(share([1.5], "semi2k") * share([2.0], "semi2k"))
    large = share_integers([2**60] * 4096)
    assert semi2k_tensor_in(large).node.one == 1
    assert ((large / 4).copy().get() == 2**58).all()


def test_divisions_in_a_row(share_integers):
    """10^20 is beyond what one truncation divides by."""
    quotient = share_integers([3 * 10**18, -(10**18)]).div(10**10).div(10**10)
    assert abs(quotient.get()).max() <= 1


def test_refresh_changes_the_shares_and_not_the_value(share_integers):
    x = share_integers([1500, -2000])
    before, after = semi2k_tensor_in(x), semi2k_tensor_in(x.refresh())
    str(after)  # has it computed
    assert torch.equal(after.get(), torch.tensor([1500, -2000]))
    for worker in ends(after.session)[0]:
        assert not (worker.share(before.node.id) == worker.share(after.node.id)).any()


@pytest.mark.parametrize(
    "operation",
    [lambda x: x * 2**65, lambda x: x / 2**63, lambda x: x + 2**64, lambda x: x > 2**64],
)
def test_numbers_beyond_the_ring_are_refused(share_integers, operation):
    with pytest.raises(OverflowError):
        operation(share_integers([1, 2])).get()


@pytest.mark.parametrize("name", ["sqrt", "chunk", "cumsum", "exp", "__getitem__", "neg_"])
def test_a_layer_computes_nothing_itself(share, name):
    """As syft's layers do, one on the other: what is computed is with the tensor itself."""
    layer = semi2k_tensor_in(share([1.0, 2.0], "semi2k"))
    with pytest.raises(NotImplementedError, match=f"no {name} of a layer"):
        getattr(layer, name)(0)
