"""Each operation of a semi2k tensor beside the same expression on plain torch tensors."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.conftest import reveal
from tests.semi2k.conftest import N_WORKERS, ends, recorded

UNIT = 0.001  # of fixed precision with 3 digits

# Eighths are whole numbers of units, so that what differs is the protocol's own rounding.
values = st.integers(-240, 240).map(lambda n: n / 8)
small_shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
full_shapes = hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=5)


def tensors(shapes):
    return hnp.arrays(np.float32, shapes, elements=values).map(torch.from_numpy)


def pairs(shapes):
    """Two tensors whose shapes broadcast."""
    return hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=4).flatmap(
        lambda both: st.tuples(*(tensors(shape) for shape in both.input_shapes))
    )


@pytest.fixture(scope="module", params=N_WORKERS, ids="{} workers".format)
def shared(request, parties):
    """shared(tensor) -> it in fixed precision, secret-shared, without gradients."""
    group = parties.of(request.param)

    def shared(tensor, digits=3):
        return tensor.fix_precision(precision_fractional=digits).share(
            *group.workers, crypto_provider=group.crypto_provider, protocol="semi2k"
        )

    return shared


def check(encrypted, expected, units=0):
    """`encrypted` is `expected` but for so many units."""
    revealed = reveal(encrypted)
    expected = torch.as_tensor(expected).float()
    assert revealed.shape == expected.shape
    assert torch.allclose(revealed, expected, rtol=1e-6, atol=units * UNIT + 1e-6)


UNARY = {
    "neg": (lambda x: -x, 0),
    "plus one": (lambda x: x + 1, 0),
    "one minus": (lambda x: 1 - x, 0),
    "times -3": (lambda x: x * -3, 0),
    "divided": (lambda x: x / 4, 1),
    "divided by a negative number": (lambda x: x / -7, 1),
    "divided and multiplied": (lambda x: x / 10 * 7, 7),
    "square": (lambda x: x * x, 1),
    "power 0": (lambda x: x**0, 0),
    "power 1": (lambda x: x**1, 0),
    "power 2": (lambda x: x**2, 1),
    "power 3": (lambda x: x**3, 60),
    "sum": (lambda x: x.sum(), 0),
    "mean": (lambda x: x.mean() if x.numel() else x.sum(), 1),
    "flat view": (lambda x: x.view(-1), 0),
    "reshape": (lambda x: x.reshape(1, -1) if x.numel() else x, 0),
    "relu": (lambda x: x.relu(), 0),
    "above": (lambda x: (x > 1.5) * 1, 0),
    "at least": (lambda x: (x >= -2) * 1, 0),
    "below": (lambda x: (x < 0) * 1, 0),
    "at most": (lambda x: (x <= 3) * 1, 0),
    "equal": (lambda x: (x == 2.5) * 1, 0),
    "copy": (lambda x: x + 0, 0),
}


@pytest.mark.parametrize("name", UNARY)
@settings(max_examples=12)
@given(x=tensors(small_shapes))
def test_unary(shared, name, x):
    operation, units = UNARY[name]
    check(operation(shared(x)), operation(x), units)


BINARY = {
    "add": (lambda x, y: x + y, 0),
    "sub": (lambda x, y: x - y, 0),
    "mul": (lambda x, y: x * y, 1),
    "gt": (lambda x, y: (x > y) * 1, 0),
    "ge": (lambda x, y: (x >= y) * 1, 0),
    "lt": (lambda x, y: (x < y) * 1, 0),
    "le": (lambda x, y: (x <= y) * 1, 0),
    "eq": (lambda x, y: (x == y) * 1, 0),
    "polynomial": (lambda x, y: x * y - x * 2 + y, 1),
}


@pytest.mark.parametrize("name", BINARY)
@settings(max_examples=12)
@given(xy=pairs(small_shapes))
def test_binary(shared, name, xy):
    operation, units = BINARY[name]
    check(operation(*map(shared, xy)), operation(*xy), units)


@pytest.mark.parametrize("name", ["add", "sub", "mul"])
@settings(max_examples=12)
@given(xy=pairs(small_shapes))
def test_secret_with_public(shared, name, xy):
    operation, units = BINARY[name]
    x, y = xy
    check(operation(shared(x), y.fix_precision()), operation(x, y), units)
    check(operation(x.fix_precision(), shared(y)), operation(x, y), units)


MATMUL_SHAPES = [
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 4)),
    ((2, 3), (3, 4)),
    ((5, 2, 3), (3, 4)),
    ((5, 2, 3), (5, 3, 4)),
    ((2, 1, 2, 3), (5, 3, 1)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 4)),
]


@pytest.mark.parametrize("shapes", MATMUL_SHAPES, ids=str)
def test_matmul(shared, shapes):
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randint(-80, 80, shape, generator=generator) * 0.125 for shape in shapes)
    check(shared(x) @ shared(y), x @ y, 1)
    check(shared(x) @ y.fix_precision(), x @ y, 1)
    check(x.fix_precision() @ shared(y), x @ y, 1)
    with pytest.raises(ValueError, match="do not go together"):
        (shared(x) @ shared(torch.zeros(7, 2))).get()


REDUCTIONS = {
    "sum": lambda x, **k: x.sum(**k),
    "mean": lambda x, **k: x.mean(**k),
    "max": lambda x, **k: x.max(**k),
    "min": lambda x, **k: x.min(**k),
    "argmax": lambda x, **k: x.argmax(**k),
    "argmin": lambda x, **k: x.argmin(**k),
}


def first_extreme(name, x, dim=None, keepdim=False):
    """torch's result; numpy's for the indices, since it takes the first of equal ones."""
    if name in ("argmax", "argmin"):
        return torch.as_tensor(getattr(np, name)(x.numpy(), axis=dim, keepdims=keepdim))
    if dim is None:
        return getattr(x, name)()
    result = getattr(x, name)(dim=dim, keepdim=keepdim)
    return result.values if name in ("max", "min") else result


@pytest.mark.parametrize("name", REDUCTIONS)
@settings(max_examples=10)
@given(x=tensors(full_shapes), data=st.data())
def test_reductions(shared, name, x, data):
    dim = data.draw(st.integers(-x.dim(), x.dim() - 1))
    keepdim = data.draw(st.booleans())
    units = 1 if name == "mean" else 0
    arguments = {"dim": dim, "keepdim": keepdim}
    check(REDUCTIONS[name](shared(x), **arguments), first_extreme(name, x, **arguments), units)
    check(REDUCTIONS[name](shared(x)), first_extreme(name, x), units)


def test_the_first_of_equal_ones(shared):
    x = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    check(shared(x).argmax(dim=1), torch.tensor([1, 0]))
    check(shared(x).argmin(dim=1), torch.tensor([0, 0]))


@settings(max_examples=15)
@given(x=tensors(full_shapes), data=st.data())
def test_indexing(shared, x, data):
    index = data.draw(hnp.basic_indices(x.shape, allow_ellipsis=True, allow_newaxis=True))
    parts = index if isinstance(index, tuple) else (index,)
    assume(all(part.step is None or part.step > 0 for part in parts if isinstance(part, slice)))
    check(shared(x)[index], x[index])


def test_indexing_by_a_list_or_a_tensor(shared):
    x = torch.arange(12).view(4, 3)  # syft's layers above take no tensor as an index
    raw = shared(x.float()).child.child
    for index in ([2, 0], torch.tensor([3, 3, 1])):
        assert torch.equal(raw[index].get(), 1000 * x[index])


def test_shapes(shared):
    x = torch.arange(24.0).view(2, 3, 4)
    check(shared(x).permute(2, 0, 1), x.permute(2, 0, 1))
    check(shared(x).transpose(0, 2), x.transpose(0, 2))
    check(shared(x[0]).t(), x[0].t())
    check(shared(x).view(6, 4).t().t(), x.view(6, 4))
    check(shared(x).unsqueeze(1).squeeze(1), x)
    check(shared(x[0]).expand(2, 3, 4), x[0].expand(2, 3, 4))
    check(torch.stack([shared(x), shared(x + 1)], dim=1), torch.stack([x, x + 1], dim=1))
    check(torch.cat([shared(x), shared(x + 1)], dim=2), torch.cat([x, x + 1], dim=2))


def test_in_place(shared):
    x = torch.tensor([1.5, -2.0])
    encrypted = shared(x)
    encrypted += shared(x)
    check(encrypted, 2 * x)
    encrypted -= 1
    check(encrypted, 2 * x - 1)
    raw = encrypted.child.child
    raw.neg_()
    check(encrypted, 1 - 2 * x)
    raw.mul_(3)
    check(encrypted, 3 - 6 * x)
    raw.zero_()
    check(encrypted, x * 0)


def test_refresh_changes_the_shares_and_not_the_value(shared):
    x = torch.tensor([1.5, -2.0])
    encrypted = shared(x)
    before = encrypted.child.child
    after = before.refresh()
    str(after)  # has it computed
    assert torch.equal(after.get(), torch.tensor([1500, -2000]))
    for worker in ends(after.session)[0]:
        assert not (worker.share(before.node.id) == worker.share(after.node.id)).any()


@pytest.mark.parametrize("digits", [2, 5, 7])
def test_other_precisions(shared, digits):
    x, y = torch.tensor([1.5, -0.25]), torch.tensor([0.5, 2.0])
    product = reveal(shared(x, digits) * shared(y, digits))
    assert torch.allclose(product, x * y, rtol=1e-6, atol=10.0**-digits)


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
    x = share_integers([[7, -8], [9, 1]]).child
    y = operation(x * 0 + public)
    with recorded(x.session.network) as messages:
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
    expected = expected.values if name == "max" else expected
    got = operation(share_integers(x).child, p).get()
    assert got.shape == expected.shape
    # what is divided by 2, or 4, is off by less than a unit, times what it is multiplied by
    units = {"half": 1, "fractions": 3}.get(name, 0)
    assert (got - expected).abs().max() <= units


def test_public_numbers_of_fixed_precision(shared):
    x, p = torch.tensor([[1.5, -2.0], [0.25, 3.0]]), torch.tensor([[-1.0, -0.5], [2.0, 0.125]])
    secret, public = shared(x), p.fix_precision()
    check(torch.cat([secret, shared(p)]) * 2, torch.cat([x, p]) * 2)
    check((secret * 0 + public)[0], p[0])
    check((secret * 0 + public).t() @ secret, p.t() @ x, 1)
    check((secret + public) / 8, (x + p) / 8, 1)
    check((secret * public).sum(), (x * p).sum(), 4)


# By how many units the loss and a gradient can be off at the most: less than one for each division,
# times what the result is then multiplied by. In the third, an error of one unit in z = x y^T is
# one of 2 |z| in z^2, and the four |z| add up to less than 6.4, the loss being 9.94; and a gradient
# is the sum of two products of 2 z with a factor of at most 2.
@pytest.mark.parametrize(
    ("expression", "loss_units", "gradient_units"),
    [
        (lambda x, y: (x * y).sum(), 4, 1),
        (lambda x, y: (x - y).sum() / 4, 1, 1),
        (lambda x, y: ((x @ y.t()) ** 2).sum(), 17, 9),
        (lambda x, y: (x @ y.t()).relu().sum(), 4, 1),
        (lambda x, y: (x + y).mean(), 1, 1),
        (lambda x, y: (x * 3 - y / 2).sum(), 4, 1),
        (lambda x, y: (-x * y).sum(), 4, 1),
        (lambda x, y: (x.reshape(4, 1) * 2).sum(), 0, 0),
        (lambda x, y: (x**1 - y).sum(), 1, 1),
    ],
)
def test_gradients(share, expression, loss_units, gradient_units):
    generator = torch.Generator().manual_seed(1)
    plain = [(torch.randint(-16, 16, (2, 2), generator=generator) * 0.125) for _ in range(2)]
    encrypted = [share(x, "semi2k") for x in plain]
    plain = [x.requires_grad_() for x in plain]
    loss = expression(*encrypted)
    loss.backward()
    expression(*plain).backward()
    check(loss, expression(*plain).detach(), loss_units)
    for secret, public in zip(encrypted, plain, strict=True):
        if public.grad is not None:
            check(secret.grad, public.grad, gradient_units)


def test_gradients_keep_six_digits_on_the_way(share):
    """Rounded to a thousandth, the gradient of x a would be 0 or 0.001 in place of 0.0003125, and
    that of x 0 or 0.1."""
    x, a, b = (share(torch.full((1, 1), value), "semi2k") for value in (1.0, 100.0, 0.01))
    loss = (((x @ a) @ b) ** 2).sum() / 64
    loss.backward()
    check(x.grad, [[0.03125]], 1.1)


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
    session = data.child.child.child.session
    session.exact = exact
    try:
        for _ in range(50):
            optimizer.zero_grad()
            (net(data) * one).sum().backward()
            optimizer.step()
        check(net.weight, torch.full((1, 1000), -0.015), 1)
    finally:
        session.exact = False


def test_integers_beside_fixed_precision_are_truncated_exactly(share, share_integers):
    """What a number is belongs to each value, and so does what its truncation promises."""
    reveal(share([1.5], "semi2k") * share([2.0], "semi2k"))
    large = share_integers([2**60] * 4096)
    assert large.child.node.one == 1
    assert ((large / 4).copy().get() == 2**58).all()


@pytest.mark.parametrize(
    ("operation", "error"),
    [
        (lambda x: x + 1e17, OverflowError),
        (lambda x: x > 1e17, OverflowError),
        (lambda x: x + torch.tensor([1e17, 0.0, 0.0]).fix_precision(), OverflowError),
        (lambda x: x.child.child * 2**65, OverflowError),
        (lambda x: x.child.child / 2**63, OverflowError),
        (lambda x: x.child.child[torch.tensor([True, False, True])], TypeError),
        (lambda x: x.child.child[torch.tensor([[0], [1]])], TypeError),
        (lambda x: x.child.child[True], TypeError),
    ],
)
def test_what_it_cannot_compute_with_is_refused(shared, operation, error):
    x = shared(torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(error):
        operation(x)


def test_divisions_in_a_row(share_integers):
    """10^20 is beyond what one truncation divides by."""
    quotient = share_integers([3 * 10**18, -(10**18)]).child.div(10**10).div(10**10)
    assert abs(quotient.get()).max() <= 1


@pytest.mark.parametrize("name", ["sqrt", "chunk", "cumsum", "exp"])
def test_what_it_has_not_is_refused(shared, name):
    raw = shared(torch.tensor([1.0, 2.0])).child.child
    with pytest.raises(NotImplementedError, match=f"semi2k has no {name}"):
        getattr(raw, name)()
