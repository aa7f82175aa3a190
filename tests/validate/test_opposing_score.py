"""The score is 1 for two groups that carry everything, known in closed form for a Gaussian, 0 for one side alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from cases import planted
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sim import Architecture
from theory.command_line import InputError
from validate.cifar10 import load_embedded
from validate.network_run import NetworkConfig, run_network
from validate.opposing_groups import alternating_part
from validate.opposing_score import opposing_score, score_of_run
from validate.score_anchors import GaussianSurrogate, ShuffledLabels

# ∫ z² over the outer 2.5 % on each side of a normal: 2(z φ(z) + P(Z > z)) at z = 1.96.
Z = stats.norm.ppf(0.975)
GAUSSIAN = float(2 * (Z * stats.norm.pdf(Z) + stats.norm.sf(Z)))


def _bounce(direction: np.ndarray, steps: int = 40, drift: float = 0.1) -> np.ndarray:
    t = np.arange(steps)[:, None]
    return 2 - drift * t + (-1.0) ** t * direction


def _score(losses: np.ndarray, seed: int = 0) -> float:
    return opposing_score(losses[:20], losses[20:], np.random.default_rng(seed)).score


def test_landmarks() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    # At both ends: a small planted pair, and a direction without any tail.
    groups = np.zeros(n)
    groups[:50], groups[50:100] = 1.0, -1.0
    assert _score(_bounce(groups)) == pytest.approx(1.0)
    gaussian = opposing_score(*np.split(_bounce(rng.normal(size=n)), 2), np.random.default_rng(0))
    assert gaussian.score == pytest.approx(GAUSSIAN, abs=0.03)
    assert gaussian.energy == pytest.approx(1.0)
    assert gaussian.interval[0] <= GAUSSIAN <= gaussian.interval[1] or abs(gaussian.score - GAUSSIAN) < 0.02
    one_sided = np.zeros(n)
    one_sided[:50] = 1.0
    assert _score(_bounce(one_sided)) == 0.0
    assert _score(rng.normal(size=(40, n))) < 3 * GAUSSIAN / n
    uniform = _score(_bounce(rng.uniform(-1, 1, n)))
    assert uniform < 0.16


@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-3, 3))
def test_the_score_does_not_depend_on_units_drift_or_order(seed: int, scale: float, drift: float) -> None:
    losses = planted(seed, n=200, steps=30)
    steps = np.arange(30)[:, None]
    order = np.random.default_rng(seed).permutation(200)
    changed = scale * (losses[:, order] + drift * steps)
    halves = [part[:15] for part in (losses, changed)], [part[15:] for part in (losses, changed)]
    first, second = (
        opposing_score(select, evaluate, np.random.default_rng(0), resamples=5).score
        for select, evaluate in zip(*halves, strict=True)
    )
    assert second == pytest.approx(first, rel=1e-6)


def test_the_interval_covers_the_scores_of_other_draws_of_examples() -> None:
    def losses(seed: int) -> np.ndarray:
        return _bounce(np.random.default_rng(seed).standard_t(3, size=1000))

    inside = 0
    truth = np.mean([_score(losses(seed)) for seed in range(100, 160)])
    for seed in range(40):
        low, high = opposing_score(losses(seed)[:20], losses(seed)[20:], np.random.default_rng(seed)).interval
        inside += low <= truth <= high
    # 90 % nominal; resampling a heavy tail covers somewhat less. Below 26 of 40 it would be of no use.
    assert inside >= 26


def test_the_alternating_part_drops_drifts_and_keeps_period_two() -> None:
    t = np.arange(20.0)[:, None]
    assert np.abs(alternating_part(5 + 3 * t)).max() < 1e-12
    np.testing.assert_allclose(alternating_part((-1.0) ** t), (-1.0) ** t[1:-1])


def test_surrogates_keep_moments_and_lose_the_tail() -> None:
    images = load_embedded()
    surrogate = GaussianSurrogate(0).images(images)
    assert (surrogate.labels == images.labels).all()
    for label in (0, 8):
        own, drawn = (x.pixels[x.labels == label].reshape(200, -1).astype(float) for x in (images, surrogate))
        assert np.abs(drawn.mean(0) - own.mean(0)).mean() < 6
        # The leading principal direction keeps its variance, up to clipping and the spread of 200 draws.
        axis = np.linalg.svd(own - own.mean(0), full_matrices=False)[2][0]
        assert (drawn @ axis).var() == pytest.approx((own @ axis).var(), rel=0.35)
    assert not (surrogate.pixels == GaussianSurrogate(1).images(images).pixels).all()
    shuffled = ShuffledLabels(0).images(images)
    assert shuffled.pixels is images.pixels
    assert np.bincount(shuffled.labels).tolist() == [200] * 10
    # One in ten keeps its label.
    assert (shuffled.labels == images.labels).mean() == pytest.approx(0.1, abs=0.03)


def test_anchors_are_interventions_with_runs_of_their_own() -> None:
    plain = NetworkConfig(architecture=Architecture(hidden=(8,)), images_per_class=4, steps=3, measure_every=10)
    names, losses = {plain.name}, []
    for anchor in (GaussianSurrogate(3), ShuffledLabels(3)):
        config = replace(plain, intervention=anchor)
        names.add(config.name)
        losses.append(run_network(config, load_embedded(), torch.device("cpu"), progress=False)["loss"].values)
    assert len(names) == 3
    assert not np.allclose(*losses)


def test_a_run_without_windows_has_no_score() -> None:
    losses = planted(0, n=300, steps=400, size=20)
    measured = np.arange(0, 400, 10)
    run = xr.Dataset({"loss": (("step", "example"), losses)}, coords={"measured": measured}, attrs={"lr": 0.05})
    run["sharpness_iterate"] = "measured", np.where(measured < 200, 10.0, 41.0)
    score = score_of_run(run, np.random.default_rng(0))
    assert score is not None
    assert score == opposing_score(losses[200:275], losses[275:350], np.random.default_rng(0))
    run["sharpness_iterate"].values[:] = 10.0
    assert score_of_run(run, np.random.default_rng(0)) is None


def test_short_or_unlike_windows_are_refused() -> None:
    rng = np.random.default_rng(0)
    for select, evaluate in ((rng.normal(size=(3, 9)), rng.normal(size=(9, 9))), (np.ones((9, 9)), np.ones((9, 8)))):
        with pytest.raises(InputError):
            opposing_score(select, evaluate, rng)
