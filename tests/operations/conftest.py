"""Operations on secret tensors beside torch's on plain ones."""

import math

import torch

from smpc.semi2k.tensor import semi2k_tensor_in
from smpc.syft_binding.wrapper import Semi2kWrapper
from tests.semi2k.conftest import (  # noqa: F401 (the fixtures are for the tests here, too)
    sessions_of_its_own,
    share_integers,
)


def eighths(*shape, most=4, seed=0):
    """Multiples of 1/8, which fixed precision of three digits has exactly: float64, within `most`,
    no two alike next to each other."""
    n, steps = math.prod(shape), 16 * most + 1
    order = (torch.arange(n) * 19 + 7 * seed + 5) % steps
    return (order.reshape(shape) - 8 * most).double() / 8


def secret(values, parties, digits=3, requires_grad=False):
    """A plain tensor, shared in fixed precision."""
    return values.fix_precision(precision_fractional=digits).share(
        *parties.workers,
        crypto_provider=parties.crypto_provider,
        protocol="semi2k",
        requires_grad=requires_grad,
    )


def is_secret(value):
    """Whether this is a tensor that semi2k shares."""
    return isinstance(value, Semi2kWrapper)


def revealed(tensors, digits):
    """What tensors of one precision are, float64, each rounded, and revealed at once."""
    if not tensors:
        return []
    ends = [semi2k_tensor_in(tensor) for tensor in tensors]
    session, sizes = ends[0].session, [math.prod(end.shape) for end in ends]
    graph = session.graph
    rounded = [graph.rounded(end.node, 1) for end in ends]
    lines = [graph.moved("reshape", x, (n,)) for x, n in zip(rounded, sizes, strict=True)]
    values = torch.from_numpy(session.reveal(graph.concatenated(lines, 0)).copy())
    parts = (values.double() / 10**digits).split(sizes)
    return [part.reshape(end.shape) for part, end in zip(parts, ends, strict=True)]
