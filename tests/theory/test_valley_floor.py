"""Descent on the floor is descent until the crossing; the predicted spike against descent itself."""

from __future__ import annotations

import numpy as np
import pytest

from theory import InputError, State
from theory.configuration import DescentConfig
from theory.finite_sample import SampleMoments, sample_descent
from theory.onset import Onset, sample_onset
from theory.valley_floor import floor_descent, spike_after_onset

STEPS = 700


def _sample(seed: int, config: DescentConfig) -> SampleMoments:
    """Moments of 4,000 examples with outliers of one size, drawn by NumPy."""
    rng, n, p = np.random.default_rng(seed), 4000, 0.2
    x = rng.normal(size=(n, config.d1)) * np.sqrt(config.model.covariance)
    o = np.where(rng.random(n) < p, np.sqrt(config.alpha / p) * rng.choice([-1.0, 1.0], size=n), 0.0)
    return SampleMoments.from_samples(x, o, x @ config.model.beta + np.abs(o))


def _spike(moments: SampleMoments, start: State, lr: float, onset: Onset) -> tuple[float, float]:
    """Largest alternating part of s from the onset on in descent, and its prediction."""
    s = sample_descent(moments, start, lr, STEPS).state.s[:, 0]
    alternating = np.abs(s[2:] - 2 * s[1:-1] + s[:-2]) / 4
    return float(alternating[onset.step - 1 :].max()), spike_after_onset(moments, start, lr, onset)


def test_it_is_descent_up_to_the_crossing_and_on_the_floor_after_it() -> None:
    config = DescentConfig(d1=6, exponent=1.0)
    moments, start = _sample(0, config), config.initial_state
    crossing = sample_onset(moments, start, 0.04, max_steps=STEPS).crossing_step
    path = sample_descent(moments, start, 0.04, crossing).state
    for steps in (1, crossing):
        np.testing.assert_allclose(
            floor_descent(moments, start, 0.04, steps).vector, path.at(steps).vector, rtol=1e-12, atol=1e-15
        )
    later = floor_descent(moments, start, 0.04, crossing + 40)
    assert float(later.s[0]) == float(moments.floor(later))
    # Nothing acts on c but the drive: it rises to the limit that the oscillation keeps descent from.
    far = floor_descent(moments, start, 0.04, 3000)
    np.testing.assert_allclose(moments.gradient(far).vector, 0.0, atol=1e-9)
    assert 0.04 * moments.alpha * float(far.c) ** 2 > 2.1


def test_the_spike_after_a_late_onset_has_the_height_predicted() -> None:
    ratios, wrong = [], []
    for seed in range(12):
        config = DescentConfig(d1=6, exponent=1.0, start_seed=seed)
        moments, start = _sample(seed, config), config.initial_state
        onset = sample_onset(moments, start, 0.04, max_steps=STEPS)
        if onset.step is None:
            continue
        seen, told = _spike(moments, start, 0.04, onset)
        ratios.append(seen / told)
        # Control: the prediction for a sample of α one tenth larger.
        scale = np.append(np.ones(config.d1), np.sqrt(1.1))
        larger = SampleMoments(moments.gram * np.outer(scale, scale), moments.projection * scale, 100.0)
        wrong.append(seen / spike_after_onset(larger, start, 0.04, onset))
    assert len(ratios) >= 8
    assert 0.9 < np.median(ratios) < 1.1
    assert np.quantile(np.abs(np.log(ratios)), 0.8) < 0.15
    assert np.median(wrong) < 0.8


def test_there_is_no_spike_without_an_onset_and_bad_input_is_refused() -> None:
    config = DescentConfig(d1=6, exponent=1.0)
    moments, start = _sample(0, config), config.initial_state
    assert spike_after_onset(moments, start, 0.01, sample_onset(moments, start, 0.01, max_steps=50)) == 0.0
    with pytest.raises(InputError, match="lr is -1"):
        floor_descent(moments, start, -1.0, 5)
    with pytest.raises(InputError, match="steps is 0"):
        floor_descent(moments, start, 0.1, 0)
    with pytest.raises(InputError, match="shapes"):
        floor_descent(moments, State(1.0, [1.0], [1.0]), 0.1, 1)
