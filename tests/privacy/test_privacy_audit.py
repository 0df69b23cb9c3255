"""The attacks of `make privacy-audit`, on small and on made-up data."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binom, binomtest, norm

from benchmarks import training
from benchmarks.privacy import __main__ as audit
from benchmarks.privacy import bound, canaries, membership
from smpc.privacy import twin

DELTA = 1e-5


# ---- What right guesses prove --------------------------------------------------------------------


def test_all_right_of_1000_prove_what_the_formula_says():
    chance = 0.05 ** (1 / 1000)
    most = math.log(chance / (1 - chance))
    assert bound.epsilon_shown(1000, 1000, 1000, 0) == pytest.approx(most, abs=1e-4)  # 5.8
    assert 5 < bound.epsilon_shown(1000, 1000, 1000, DELTA) < most


def test_what_luck_explains_proves_nothing():
    assert bound.epsilon_shown(500, 1000, 1000, DELTA) == 0
    assert bound.epsilon_shown(4, 4, 1000, DELTA) == 0
    assert bound.epsilon_shown(0, 0, 1000, DELTA) == 0


@pytest.mark.parametrize("right, guesses, canaries_", [(9, 10, 10), (37, 40, 200), (0, 7, 9)])
@pytest.mark.parametrize("epsilon, delta", [(0.0, 0.0), (1.3, 1e-3), (4.0, 0.01)])
def test_the_bound_is_that_of_the_theorem(right, guesses, canaries_, epsilon, delta):
    chance = math.exp(epsilon) / (1 + math.exp(epsilon))
    parts = [binom.pmf(k, guesses, chance) for k in range(guesses + 1)]
    worst = max((sum(parts[right - i : right]) / i for i in range(1, right + 1)), default=0)
    expected = min(1, sum(parts[right:]) + 2 * canaries_ * delta * worst)
    assert bound.p_value(right, guesses, canaries_, epsilon, delta) == pytest.approx(expected)


def test_more_right_than_guessed_is_refused():
    with pytest.raises(ValueError, match="3 right of 2 guesses of 5 canaries"):
        bound.p_value(3, 2, 5, 1, DELTA)


def test_randomized_response_is_seldom_accused():
    chance = 1 / (1 + math.exp(-1))
    rights = np.random.default_rng(0).binomial(400, chance, size=200)
    accused, halved = (
        [bound.p_value(int(right), 400, 400, epsilon, 0) < bound.LEVEL for right in rights]
        for epsilon in (1, 0.5)
    )
    assert sum(accused) <= 20  # 10 are expected
    assert sum(halved) >= 180  # of the true ε half is refuted


def test_the_surest_guesses_count():
    included = np.arange(200) % 2 == 0
    scores = np.where(included, 2.0, -2.0) * (1 + np.arange(200))
    scores[:100] = -scores[:100] / 1000  # the least sure are wrong
    assert bound.shown(scores, included, DELTA)[1:] == (100, 100, 200)


# ---- The attack on membership --------------------------------------------------------------------


def test_half_of_the_items_in_doubt_are_in_each_batch():
    included = membership.halves(6, 20, 30, 8, torch.Generator().manual_seed(0))
    counts = [included[:, start : start + 8][:, : 20 - start].sum(1) for start in (0, 8, 16)]
    assert [count.tolist() for count in counts] == [[4] * 6, [4] * 6, [2] * 6]
    assert included[:, 20:].all()
    assert len({tuple(row.tolist()) for row in included}) == 6


def test_likelihood_ratios_leave_the_attacked_model_out():
    random = np.random.default_rng(0)
    included = np.arange(12)[:, None] % 2 == np.arange(3) % 2
    said = random.normal(size=(12, 3)) + included
    scores = membership.likelihood_ratios(said, included)
    for model, item in np.ndindex(12, 3):
        others = np.arange(12) != model
        logarithms = [
            norm.logpdf(said[model, item], values.mean(), values.std(ddof=1))
            for values in (
                said[others & included[:, item], item],
                said[others & ~included[:, item], item],
            )
        ]
        assert scores[model, item] == pytest.approx(logarithms[0] - logarithms[1], rel=1e-5)


def test_the_rates_of_scores_that_are_known():
    members = np.repeat([True, False], 1000)
    scores = np.concatenate([np.arange(1000), np.arange(1000) - 100 + 0.5])
    rate = membership.rate_at(0.01, scores, members)
    # ten others are above 889, and so are 110 members
    assert rate.true_positives == pytest.approx(110 / 1000)
    interval = binomtest(110, 1000).proportion_ci(0.95, "exact")
    assert (rate.low, rate.high) == pytest.approx(tuple(interval))
    assert membership.rate_at(0.01, -scores, members)[1:3] == (0, 0)


def test_members_of_overfitted_models_are_found():
    torch.manual_seed(0)
    data, target = torch.randn(40, 50), torch.eye(3)[torch.randint(3, (40,))]
    included = membership.halves(24, 40, 40, 40, torch.Generator().manual_seed(0))
    layers = layers_of(24)
    schedule = twin.Schedule(60, 40, [0.2])
    list(
        twin.train_in_the_clear(
            layers, data, target, schedule, twin.Mechanism(None, 0), included=included
        )
    )
    said, members = membership.said_of(layers, data, target).numpy(), included.numpy()
    scores = membership.likelihood_ratios(said, members)
    assert membership.rate_at(0.01, scores, members).low > 0.1
    mixed = np.roll(members, 1, axis=0)  # what is found out about another model
    assert membership.rate_at(0.01, scores, mixed).low < 0.02


# ---- Canaries ------------------------------------------------------------------------------------


def layers_of(n_models):
    """Of small networks, 50-8-3."""
    nets = [
        torch.nn.Sequential(torch.nn.Linear(50, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        for _ in range(n_models)
    ]
    return twin.stacked(nets)


def shown(noise, per_batch=8, digits=None, clip=20.0, correlation=()):
    """What canaries prove of five epochs of 25 batches of 12 items."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    data, target = torch.randn(300, 50), torch.eye(3)[torch.randint(3, (300,))]
    planted = canaries.planted(data, target, 12, per_batch, generator)
    mechanism = twin.Mechanism(clip, noise * 20.0, correlation=correlation)
    schedule = twin.Schedule(5, 12, [1e-4])
    attacked = canaries.attack(layers_of(1), planted, schedule, mechanism, generator, digits)
    return bound.shown(*attacked, DELTA)


def test_canaries_are_beyond_the_clip_and_in_by_coins():
    data, target = torch.zeros(100, 20), torch.eye(3)[torch.zeros(100, dtype=torch.long)]
    planted = canaries.planted(data, target, 10, 6, torch.Generator().manual_seed(0))
    places = torch.arange(100) % 10 < 6
    assert torch.allclose(planted.data[places].norm(dim=1), torch.tensor(float(canaries.NORM)))
    assert (planted.data[~places] == 0).all() and planted.included[~places].all()
    assert 15 < planted.included[places].sum() < 45  # of 60, five standard deviations or so
    assert (data == 0).all()


def test_a_broken_training_is_found_and_a_private_one_is_not():
    z = math.sqrt(5) / 0.502  # epsilon = 2 for five epochs
    assert shown(z).epsilon < 2
    assert shown(0).epsilon > 3
    assert shown(z / 10).epsilon > 2
    assert shown(z, clip=None).epsilon > 2
    assert shown(z, per_batch=4, digits=3).epsilon > 2


def test_the_attack_undoes_the_correlation():
    z, band = math.sqrt(5) / 1.666, (32, 24, 20)  # epsilon = 8 for five epochs
    of_band = math.hypot(1, *(c / 64 for c in band))
    assert 1 < shown(z * of_band, correlation=band).epsilon < 8
    assert shown(0, correlation=band).epsilon > 3


def test_equations_of_sums_are_least_squares_of_independent_noise():
    """Beside what is written out: all x in one matrix, times C."""
    torch.manual_seed(0)
    batches, band, seen = [0, 1, 0, 1, 0], [1, 32 / 64, 24 / 64], []
    for batch in batches:
        shapes = ((2, 4), (2, 3)), ((2, 6), (2, 5))  # two canaries' [a 1] and δ, of two layers
        added = [(torch.randn(a), torch.randn(d)) for a, d in shapes]
        rest = [torch.randn(d[1], a[1]) for a, d in shapes]
        seen.append(canaries.Seen(batch, added, rest))
    x = np.zeros((5, 3 * 4 + 5 * 6, 4))
    for t, one in enumerate(seen):
        for i in range(2):
            parts = [torch.outer(d[i], a[i]).flatten() for a, d in one.added]
            x[t, :, 2 * one.batch + i] = torch.cat(parts).numpy()
    y = np.stack([torch.cat([rest.flatten() for rest in one.rest]).numpy() for one in seen])
    c = np.array([[band[t - u] if 0 <= t - u < 3 else 0 for u in range(5)] for t in range(5)])
    cx, cy = (np.tensordot(c, one, 1).reshape(5 * 42, -1) for one in (x, y))
    gram, product = canaries.equations_of_sums(seen, (32, 24))
    assert np.allclose(gram, cx.T @ cx, atol=1e-4)
    assert np.allclose(product, cx.T @ cy[:, 0], atol=1e-4)


def test_sets_are_told_apart_where_least_squares_cannot():
    random = np.random.default_rng(0)
    losses, coins = random.random((2, 6)) + 1, np.array([1, 0, 0, 1, 1, 0])
    scores = canaries.scores_of_sets(losses.T @ losses, losses.T @ (losses @ coins), 1e-6)
    assert ((scores > 0) == coins).all()


# ---- The table -----------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon_shown, status", [(1.0, 0), (2.5, 1)])
def test_a_bound_on_the_wrong_side_ends_with_1(
    monkeypatch, tmp_path, capsys, epsilon_shown, status
):
    def found(variant, *_):
        epsilon = 3.0 if variant.broken else min(epsilon_shown, variant.epsilon + 0.5)
        return bound.Shown(epsilon, 9, 10, 20)

    rates = [membership.Rate(f, 0.1, 0.05, 0.2)._asdict() for f in audit.FALSE_POSITIVES]
    members = {"models": 4, "items": 5, "trained_on": 6, "right": 0.8, "rates": rates}
    members["curve"] = [[0.1, 1], [0.2, 1]]
    monkeypatch.setattr(training, "REPOSITORY", tmp_path)
    monkeypatch.setattr(audit, "RESULTS", tmp_path)
    monkeypatch.setattr(audit.mnist, "prepare", lambda _: None)
    monkeypatch.setattr(audit, "items_of", lambda *_, **__: (None, None))
    monkeypatch.setattr(audit, "attack_members", lambda epsilon, *_: members | {"epsilon": epsilon})
    monkeypatch.setattr(audit, "prove", found)
    assert audit.main() == status
    assert capsys.readouterr().out.count("WRONG") == status
    assert (tmp_path / "privacy.json").exists()
    assert (tmp_path / "privacy.png").read_bytes().startswith(b"\x89PNG")
