"""A worker's noise: discrete Gaussians that nobody else knows, correlated from step to step.

The sum of a step's gradients is released with y_t = z_t - round(Σ c_k y_(t-k)), k = 1 ... b - 1,
z_t being independent: so what one step adds the next ones take away in part, and what a sum of many
steps holds is less noise than independent noise would leave. With C the banded lower triangular
matrix of 1, c_1, c_2, ... what is known is as if C G + z had been released, G being the steps' sums
(Denisov et al. 2022, arXiv 2202.08312; bands: Choquette-Choo et al. 2023, arXiv 2306.08153). The
proof, on integers, is in docs/privacy.md.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from smpc.semi2k.gaussian import discrete_gaussian
from smpc.semi2k.randomness import Address, fresh

UNIT = 2**6  # of the c_k, which are whole numbers of 1 / UNIT


class Noise:
    """What a worker remembers of the noise that it added: of attempts that counted, and of the one
    under way. It is kept in no file; where it is lost, what follows is independent of it."""

    def __init__(self):
        self._words = None  # a worker that adds no noise has no key of its own
        self._past, self._made, self._address = {}, {}, None  # by slot; by address, by slot

    def begin(self, address: Address, counts: Iterable[Address]):
        """Begin an attempt; those of `counts` are over and count, and no others will."""
        for counted in counts:
            for slot, (y, most) in self._made.get(counted, {}).items():
                self._past[slot] = [y, *self._past.get(slot, ())][:most]  # the latest first
        self._made, self._address = {address: {}}, address

    def draw(self, sigma: int, n: int) -> NDArray[np.int64]:
        """`n` discrete Gaussians under a key that nobody else gets: (n,)."""
        self._words = self._words or fresh("noise")
        return discrete_gaussian(self._words, sigma, n)

    def add(
        self, x: NDArray[np.uint64], sigma: int, correlation: tuple[int, ...], slot: int
    ) -> NDArray[np.uint64]:
        """A share or partial -> the same of x + e, e being the sum of all workers' parts.

        Args:
            sigma: the standard deviation of z.
            correlation: c_1, c_2, ..., whole numbers of 1 / `UNIT`.
            slot: which of the values that noise is added to again and again this is.

        No round, and nothing is dealt: each worker adds its own part to its own share.
        """
        z = self.draw(sigma, x.size)
        past = [y for y in self._past.get(slot, ()) if y.shape == z.shape]
        before = sum((c * y for c, y in zip(correlation, past, strict=False)), np.zeros_like(z))
        y = z - (before + UNIT // 2) // UNIT
        self._made[self._address][slot] = y, len(correlation)
        return x + y.view(np.uint64).reshape(x.shape)
