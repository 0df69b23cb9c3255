"""What a private training amounts to: the noise for an (ε, δ), and the ε of a noise.

An item counts in one batch of each epoch, at most C there, and every coordinate of the sum gets
noise worth a standard deviation of zC: of an item, one Gaussian event of noise multiplier z an
epoch. They are composed by the `PLDAccountant` of dp-accounting; one item added or removed is what
differs.

The noise of a step is correlated with that of the b - 1 before, see `semi2k.noise`: what is known
is as if C G + z had been released, C being banded, its columns of norm |c|. The uses of a batch are
b steps apart or more, so that their columns have no step in common: σ = zC|c| is enough, however
the gradients depend on what was released before (Denisov et al. 2022, arXiv 2202.08312;
Choquette-Choo et al. 2023, arXiv 2306.08153).

The noise is not quite Gaussian: of each of m workers unknown it is the discrete Gaussian N of an
integer σ, in integers of which an item's part of C G is a whole number for each. Let Q be what
rounding the Gaussian of σ gives, which hides an integer as well as the Gaussian does, rounding
coming after it.

 1. Q(x) / N(x) = E exp(-u²/2σ²) cosh(xu/σ²), u being uniform on [-1/2, 1/2], times a factor from 1
    to 1 + 3 exp(-2π²σ²), by Poisson's summation formula. With exp(-t) >= 1 - t, cosh >= 1,
    E u² = 1/12 it is at least 1 - 1/24σ²; with sinh(t)/t <= exp(t²/6), t = x/2σ², at most
    exp(x²/24σ⁴).
 2. So as long as |x| <= 40σ the probabilities differ by a factor whose logarithm, upwards and
    downwards together, is below 67/σ²; over all coordinates, steps and workers, k: η = 67k/σ².
    Beyond 40σ is Q for no coordinate but with probability 3 exp(-800) k.
 3. With Q everywhere (ε, δ) holds by the accountant; so (ε + η, exp(η) (δ + exp(ε) 3 exp(-800) k))
    holds with N, for ε <= 100. The last term is below 1e-303 k, which is nothing beside δ.
"""

import functools
import math
from typing import NamedTuple

from smpc.semi2k.noise import UNIT

MOST_EPSILON, LEAST_DELTA = 100, 1e-15  # beyond which the accountant takes long, or is not exact
LEAST_SIGMA = 1000  # integers in the standard deviation of each worker's noise, for step 2
MOST_BAND = 16  # b: each worker remembers as many noises


class Guarantee(NamedTuple):
    """What a run guarantees before it starts.

    Attributes:
        epsilon, delta: towards whoever gets the model, or the noisy sum of every step.
        of_worker: ε at the same δ, towards a worker who gets them too and knows its own noise.
        noise_multiplier: z.
        epochs, clip, steps, coordinates: as of `guarantee`.
        correlation: of a step's noise with those before, as `semi2k.noise.Noise.add` takes it.
    """

    epsilon: float
    delta: float
    of_worker: float
    noise_multiplier: float
    epochs: int
    clip: float
    steps: int
    coordinates: int
    correlation: tuple[int, ...]

    @property
    def sigma(self) -> float:
        """The standard deviation of all workers' noise together, in each coordinate of a sum, and
        before it is correlated: zC|c|."""
        norm = math.hypot(1, *(c / UNIT for c in self.correlation))
        return self.noise_multiplier * self.clip * norm

    def lines(self) -> list[str]:
        """The guarantee in words: what is rounded in them is rounded to its weaker side."""
        z = math.floor(self.noise_multiplier * 1e4) / 1e4
        of_worker = math.ceil(self.of_worker * 100) / 100
        return [
            f"Differential privacy: ε = {self.epsilon:g}, δ = {self.delta:g}, for whoever gets the"
            " model;",
            f"ε = {of_worker:g} for a worker who gets it too, knowing its own part of the noise.",
            "It is about one training item, added or removed: what it is, and whether it is there.",
            f"Epochs: {self.epochs:,}; in each an item counts once, by a gradient of norm C ="
            f" {self.clip:g} at most.",
            f"Steps: {self.epochs * self.steps:,}; all {self.coordinates:,} coordinates get noise"
            f" worth zC, z = {z:.4f}.",
            "The batches are fixed and public: no amplification by sampling is claimed.",
        ]


@functools.cache  # a run asks for it more than once, and it takes seconds
def guarantee(
    epsilon: float,
    delta: float,
    epochs: int,
    workers: int,
    clip: float,
    steps: int,
    coordinates: int,
    grid_sigma: int,
) -> Guarantee:
    """The `Guarantee` with the least noise of which (ε, δ) is true, of the noise as it is drawn.

    Args:
        workers: how many add noise, two or more; each knows its own.
        clip: the norm that no item's gradient exceeds.
        steps: of an epoch; `coordinates`: of a gradient.
        grid_sigma: how many integers at least are in the standard deviation of a worker's noise.
    Raises:
        ValueError: ε or δ is out of range, or the integers are too coarse.
    """
    check(epsilon, delta)
    eta, eta_of_worker = (
        67 * parts * epochs * steps * coordinates / grid_sigma**2
        for parts in (workers, workers - 1)
    )
    if grid_sigma < LEAST_SIGMA or eta_of_worker > epsilon / 100:
        raise ValueError(
            f"noise of {grid_sigma:,} integers is too coarse for ε = {epsilon:g} over"
            f" {epochs * steps:,} steps of {coordinates:,} coordinates"
        )
    z = noise_multiplier(epsilon - eta, delta * math.exp(-eta), epochs)
    unknown = z * math.sqrt(1 - 1 / workers)  # of the noise, to a worker
    of_worker = epsilon_of(unknown, delta * math.exp(-eta_of_worker), epochs) + eta_of_worker
    band = correlation(min(steps, MOST_BAND))
    return Guarantee(epsilon, delta, of_worker, z, epochs, clip, steps, coordinates, band)


def correlation(band: int) -> tuple[int, ...]:
    """c_1 ... c_(b-1), in whole numbers of 1 / `UNIT`: of the square root of the matrix of prefix
    sums, which is near the best for what sums of all steps' gradients are off by (Fichtenberger,
    Henzinger, Upadhyay 2022, arXiv 2202.11205)."""
    c, rounded = 1.0, []
    for k in range(1, band):
        c *= (2 * k - 1) / (2 * k)
        rounded.append(round(c * UNIT))
    return tuple(rounded)


def gain(correlation: tuple[int, ...], momentum: float) -> float:
    """What momentum makes of a standard deviation of noise that is so correlated: the norm of the
    response to one step's z."""
    response, velocity = [], [0.0]
    for _ in range(1000):
        known = zip(correlation, reversed(response), strict=False)
        y = (not response) - sum(c / UNIT * before for c, before in known)
        response.append(y)
        velocity.append(momentum * velocity[-1] + y)
    return math.hypot(*velocity)


def noise_multiplier(epsilon: float, delta: float, epochs: int) -> float:
    """z, the least (to 1e-4 of it, upwards) with which `epochs` Gaussian events are (ε, δ)-DP.

    Raises:
        ValueError: ε or δ is out of range.
    """
    check(epsilon, delta)
    from dp_accounting import get_sigma_gaussian

    least = get_sigma_gaussian(epsilon, delta) * math.sqrt(epochs)  # the accountant has the word
    more = 1e-5
    while epsilon_of(least * (1 + more), delta, epochs) > epsilon:
        more *= 2
    return least * (1 + more)


def epsilon_of(z: float, delta: float, passes: int) -> float:
    """ε at `delta` of an item that counted in `passes` Gaussian events of noise multiplier z."""
    import dp_accounting as dp  # takes seconds, which is too long for whoever needs none of it

    accountant = dp.pld.PLDAccountant(dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    return accountant.compose(dp.GaussianDpEvent(z), passes).get_epsilon(delta)


def check(epsilon: float, delta: float):
    """Raise ValueError unless this is an ε and a δ that can be accounted for."""
    if not 0 < epsilon <= MOST_EPSILON:
        raise ValueError(f"epsilon must be above 0 and at most {MOST_EPSILON}, not {epsilon:g}")
    if not LEAST_DELTA <= delta < 1:
        raise ValueError(f"delta must be from {LEAST_DELTA:g} to below 1, not {delta:g}")
