"""What is computed on secret numbers: each operation of torch's with its gradient beside it.

The modules, from the bottom up; each imports only what stands before it:

    number      Number; sums, products, moves, a comparison with zero; gradients
    registry    which function computes what torch calls by a name
    functions   reciprocal, roots, exponentials and what is made of them
    pointwise   element by element: arithmetic, comparisons, choices
    shapes      elements moved about, taken and put together
    reductions  sums, means, extremes
    layers      linear, convolutions, pooling, normalisation, dropout
    losses      softmax, cross-entropy and the other losses

Each module imports `semi2k`'s graph at the most, and nothing of syft's: what torch calls comes here
by way of `smpc.syft_binding.wrapper`. `docs/operations.md` is a table of all of them, made by a
command that runs each.
"""

from smpc.operations import layers, losses, reductions  # noqa: F401 (they register theirs)
from smpc.operations.number import Leaf, Number, backward
from smpc.operations.registry import OPERATIONS

__all__ = ["OPERATIONS", "Leaf", "Number", "backward"]
