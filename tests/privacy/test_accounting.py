"""The accounting: beside the closed form, and what it makes of noise that is not quite Gaussian."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from smpc.privacy.accounting import correlation, epsilon_of, gain, guarantee, noise_multiplier

DELTA = 1e-5
MNIST = {"workers": 2, "clip": 4, "steps": 15, "coordinates": 109_386, "grid_sigma": 2**30}


def exact_delta(epsilon, z, epochs):
    """δ(ε) of Gaussian events together (Balle, Wang 2018, arXiv 1805.06530, theorem 8)."""
    mu = math.sqrt(epochs) / z
    log_second = epsilon + norm.logcdf(-mu / 2 - epsilon / mu)
    return norm.cdf(mu / 2 - epsilon / mu) - math.exp(log_second)


def exact_epsilon(z, delta, epochs):
    return brentq(lambda e: exact_delta(e, z, epochs) - delta, 0, 1000, xtol=1e-12)


@pytest.mark.parametrize("mu, of_mu", [(0.268, 1), (0.502, 2), (0.719, 3), (1.666, 8)])
@pytest.mark.parametrize("epochs", [1, 20])
def test_noise_of_an_epsilon(mu, of_mu, epochs):
    """The noise of ε, μ being √epochs / z: the least that the closed form allows, to 1e-4."""
    z = noise_multiplier(of_mu, DELTA, epochs)
    assert abs(math.sqrt(epochs) / z - mu) <= 0.0006
    assert exact_delta(of_mu, z, epochs) <= DELTA < exact_delta(of_mu, z * (1 - 1e-4), epochs)
    assert epsilon_of(z, DELTA, epochs) <= of_mu


@pytest.mark.parametrize("delta", [1e-10, 1e-5, 1e-3])
@pytest.mark.parametrize("z, passes", [(30, 1), (4, 10), (1.5, 3)])
def test_epsilon_beside_the_closed_form(z, passes, delta):
    assert epsilon_of(z, delta, passes) == pytest.approx(exact_epsilon(z, delta, passes), rel=1e-5)


@pytest.mark.parametrize("small, delta", [(1e-5, 1e-5), (1e-3, 1e-15), (0.1, 1e-15)])
def test_the_ends_of_the_range(small, delta):
    """Where the accountant is coarse, noise is more than the least, never less."""
    z = noise_multiplier(small, delta, 1)
    assert exact_delta(small, z, 1) <= delta and epsilon_of(z, delta, 1) <= small


def test_more_costs_more():
    zs = [noise_multiplier(e, DELTA, 5) for e in (0.5, 1, 2, 4)]
    assert zs == sorted(zs, reverse=True) and len(set(zs)) == 4
    zs = [noise_multiplier(1, delta, 5) for delta in (1e-7, 1e-6, 1e-5)]
    assert zs == sorted(zs, reverse=True) and len(set(zs)) == 3
    of_passes = [epsilon_of(5, DELTA, passes) for passes in range(1, 5)]
    assert of_passes == sorted(of_passes) and len(set(of_passes)) == 4


@pytest.mark.parametrize("stated, of_worker, epochs", [(2, 2.95, 40), (8, 12.3, 20)])
def test_a_worker_who_gets_the_model(stated, of_worker, epochs):
    """Of two workers each knows half of the variance."""
    made = guarantee(stated, DELTA, epochs, **MNIST)
    assert abs(made.of_worker - of_worker) < 0.05
    half = made.noise_multiplier / math.sqrt(2)
    assert made.of_worker == pytest.approx(exact_epsilon(half, DELTA, epochs), rel=1e-6)
    assert len(made.correlation) == 14 and made.correlation[:3] == (32, 24, 20)
    norm_of_c = math.hypot(1, *(c / 64 for c in made.correlation))
    assert made.sigma == pytest.approx(made.noise_multiplier * 4 * norm_of_c)
    assert exact_delta(stated, made.noise_multiplier, epochs) <= DELTA


def test_more_workers_know_less_each():
    known = [guarantee(1, DELTA, 4, **{**MNIST, "workers": n}).of_worker for n in (2, 3, 5)]
    assert known == sorted(known, reverse=True) and 1 < known[-1] < known[0] < 1.5


def test_the_grid_is_paid_for():
    """η = 67 / σ² off ε, of each coordinate, step and worker unknown, and exp(η) off δ."""
    coarse = guarantee(1, DELTA, 4, **{**MNIST, "grid_sigma": 10**6})
    eta = 67 * 2 * 4 * 15 * 109_386 / 10**12
    assert 0.0005 < eta < 0.001
    z = coarse.noise_multiplier
    assert exact_delta(1 - eta, z, 4) <= DELTA * math.exp(-eta)
    assert exact_delta(1 - eta, z * (1 - 1e-4), 4) > DELTA * math.exp(-eta)
    of_worker = exact_epsilon(z / math.sqrt(2), DELTA * math.exp(-eta / 2), 4) + eta / 2
    assert coarse.of_worker == pytest.approx(of_worker, rel=1e-6)


@pytest.mark.parametrize("s", [1000, 1414, 50_000])
def test_rounded_and_discrete_gaussian(s):
    """Their probabilities differ by factors within the bound at each |x| <= 40s, by quadrature."""
    x = np.linspace(0, 40 * s, 10_001)[:, None]
    u, weight = np.polynomial.legendre.leggauss(20)
    u, weight = u / 2, weight / 2
    less_one = np.expm1(-(u**2) / (2 * s**2) - x * u / s**2) @ weight  # Q(x) / N(x) - 1
    assert less_one.min() >= -1 / (24 * s**2) * (1 + 1e-6)
    assert np.all(np.log1p(less_one) <= x[:, 0] ** 2 / (24 * s**4) * (1 + 1e-6) + 1e-15)
    assert 60 < (less_one.max() - less_one.min()) * s**2 < 67


@pytest.mark.parametrize("band", [1, 2, 10, 16])
def test_noise_of_which_sums_hold_less(band):
    """An item's part, spread by the correlation, is hidden as by independent noise; and the sums of
    all steps, which is what weights are made of, are off by less than with that."""
    steps = 60
    matrix = np.eye(steps)
    for k, c in enumerate(correlation(band), 1):
        matrix += c / 64 * np.eye(steps, k=-k)
    uses = np.zeros(steps)
    uses[3::band] = 1
    made = guarantee(1, DELTA, 4, **{**MNIST, "steps": band})
    spread = np.linalg.norm(matrix @ uses) / math.sqrt(uses.sum())
    assert made.sigma >= made.noise_multiplier * 4 * spread - 1e-9
    assert np.linalg.norm(matrix, axis=0)[0] * made.noise_multiplier * 4 == pytest.approx(
        made.sigma
    )
    off = np.tril(np.ones((steps, steps))) @ np.linalg.inv(matrix) * np.linalg.norm(matrix[:, 0])
    independent = np.tril(np.ones((steps, steps)))
    ratio = np.linalg.norm(off) / np.linalg.norm(independent)
    assert ratio == 1 if band == 1 else ratio < 0.95


@pytest.mark.parametrize(("band", "momentum"), [(1, 0), (1, 0.9), (10, 0), (10, 0.9), (16, 0.5)])
def test_what_momentum_makes_of_noise(band, momentum):
    """The largest row of what takes z to the velocity, steps being many."""
    steps = 300
    matrix = np.eye(steps)
    for k, c in enumerate(correlation(band), 1):
        matrix += c / 64 * np.eye(steps, k=-k)
    powers = np.tril(
        momentum ** abs(np.subtract.outer(np.arange(steps), np.arange(steps)).astype(float))
    )
    largest = np.linalg.norm(powers @ np.linalg.inv(matrix), axis=1).max()
    assert gain(correlation(band), momentum) == pytest.approx(largest, rel=1e-6)


def test_lines():
    """Each figure is there, rounded to the side that promises less."""
    made = guarantee(2, DELTA, 40, **MNIST)
    made = made._replace(noise_multiplier=12.61019, of_worker=2.9501)
    text = " ".join(made.lines())
    for part in [
        *("ε = 2,", "δ = 1e-05", "whoever gets the model", "ε = 2.96 for a worker", "Epochs: 40;"),
        *("C = 4 ", "Steps: 600;", "109,386 coordinates", "z = 12.6101.", "no amplification"),
        "one training item, added or removed",
    ]:
        assert part in text
    assert all(len(line) <= 100 for line in made.lines())


@pytest.mark.parametrize("value", [0, -1, 100.1, math.inf, math.nan])
def test_epsilon_out_of_range(value):
    for refuses in (noise_multiplier, lambda *args: guarantee(*args, **MNIST)):
        with pytest.raises(ValueError, match=r"^epsilon must be above 0 and at most 100, not .*$"):
            refuses(value, DELTA, 1)


@pytest.mark.parametrize("value", [0, -1e-5, 1, 2, 1e-16, math.nan])
def test_delta_out_of_range(value):
    for refuses in (noise_multiplier, lambda *args: guarantee(*args, **MNIST)):
        with pytest.raises(ValueError, match=r"^delta must be from 1e-15 to below 1, not .*$"):
            refuses(1, value, 1)


@pytest.mark.parametrize("few", [{"grid_sigma": 999, "steps": 1, "coordinates": 1}, {}])
def test_too_coarse_a_grid(few):
    """Below 1,000 integers a worker, or where many coordinates cost more than 1% of ε."""
    with pytest.raises(ValueError, match=r"^noise of [0-9,]+ integers is too coarse for ε = 1 .*$"):
        guarantee(1, DELTA, 1, **{**MNIST, "grid_sigma": 10**5, **few})
    few = {"grid_sigma": 1000, "steps": 1, "coordinates": 1}
    assert guarantee(1, DELTA, 1, **{**MNIST, **few}).epsilon == 1


def test_who_needs_no_accountant_imports_none():
    """It takes seconds."""
    code = "import sys, smpc.privacy.accounting; sys.exit('dp_accounting' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": "."})
    assert run.returncode == 0
