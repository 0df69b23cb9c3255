"""The fast matrix product beside numpy's own integer product, which is slow and surely right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smpc.semi2k import ring
from smpc.semi2k.randomness import Stream, new_key


@pytest.fixture(params=[True, False], ids=["integers", "floats"], autouse=True, scope="module")
def has_avx512(request):
    """Both ways to the product, whatever the processor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "_HAS_AVX512", request.param)
        yield


def uniform(*shape):
    return Stream(new_key(), "test").words((0, 0), int(np.prod(shape))).reshape(shape)


@given(m=st.integers(0, 40), k=st.integers(0, 1200), n=st.integers(0, 40))
def test_matmul(m, k, n):
    x, y = uniform(m, k), uniform(k, n)
    assert np.array_equal(ring.matmul((x, y)), x @ y)


@pytest.mark.parametrize(
    ("x", "y"),
    [((784,), (784,)), ((3, 784), (784,)), ((784,), (784, 130)), ((2, 3, 64, 500), (500, 70))],
)
def test_matmul_of_other_dimensions(x, y):
    x, y = uniform(*x), uniform(*y)
    assert np.array_equal(ring.matmul((x, y)), x @ y)


@pytest.mark.parametrize(
    "extreme", [2**64 - 1, 2**63, 2**21, 2**21 - 1, (2**21 - 1) * (1 + 2**22), 2**43 + 2**21]
)
def test_the_largest_limbs_stay_exact(extreme):
    x = np.full((64, 1536), extreme, dtype=np.uint64)
    assert np.array_equal(ring.matmul((x, x.T)), x @ x.T)


def test_sums_of_products():
    pairs = [(uniform(50, 60), uniform(60, 70)) for _ in range(2)]
    assert np.array_equal(ring.matmul(*pairs), sum(x @ y for x, y in pairs))
    pairs = [(uniform(5, 1), uniform(5, 6)) for _ in range(2)]
    assert np.array_equal(ring.mul(*pairs), sum(x * y for x, y in pairs))
