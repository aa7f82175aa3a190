"""Onset and spike of deep scalar networks: depth 2 is the scalar model's, others are descent's; κ is a rate."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from theory import InputError, Model
from theory.configuration import DescentConfig
from theory.deep_edge import deep_onset, deep_spike
from theory.deep_network import DeepState, balanced_final_sharpness, deep_descent, deep_gradient
from theory.onset import population_onset

CONFIG = DescentConfig(d1=5)


def _chain(depth: int, seed: int = 0, layers: list[float] | None = None) -> DeepState:
    start = DescentConfig(d1=5, start_seed=seed).initial_state
    return DeepState(np.ones(depth - 1) if layers is None else np.array(layers), start.b, start.s)


def _edge(depth: int, ratio: float = 1.2) -> float:
    return ratio * 2 / balanced_final_sharpness(CONFIG.model, depth)


@given(st.floats(0.02, 0.06), st.integers(0, 99), st.floats(0.5, 2.0))
@example(lr=0.0546875, seed=7, theta=1.0)  # c turns negative after the crossing
def test_depth_two_is_the_scalar_model(lr: float, seed: int, theta: float) -> None:
    start = DescentConfig(d1=5, start_seed=seed).initial_state
    (told,) = population_onset(CONFIG.model, start, lr, theta=theta, max_steps=300)
    onset, at = deep_onset(CONFIG.model, _chain(2, seed), lr, theta=theta, max_steps=300)
    # The two sum the same logarithms in different orders.
    assert (onset.step, onset.crossing_step, onset.seed) == (told.step, told.crossing_step, told.seed)
    np.testing.assert_allclose(onset.log_residue, told.log_residue, rtol=1e-9)
    assert at.layers.shape == (1,)
    turned = DeepState(-at.layers, -at.b, -at.s)
    turned_height, height = (deep_spike(CONFIG.model, weights, lr) for weights in (turned, at))
    assert turned_height == pytest.approx(height, rel=1e-9, nan_ok=True)


@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_onset_is_that_of_descent_and_the_spike_near_it(depth: int, seed: int) -> None:
    lr, chain = _edge(depth), _chain(depth, seed)
    onset, at = deep_onset(CONFIG.model, chain, lr, max_steps=400)
    run = deep_descent(CONFIG.model, chain, lr, 400)
    c, s = run.effective.c, run.s[:, 0]
    drive = (run.b * (CONFIG.model.beta - c[:, None] * run.b)).sum(-1)
    crossed = np.flatnonzero(lr * 20 * c**2 > 2)[0]
    seen = np.flatnonzero((s**2 > drive / (20 * c)) & (drive > 0) & (np.arange(c.size) > crossed))[0]
    assert (onset.crossing_step, onset.step) == (crossed, seen)
    np.testing.assert_allclose(at.vector[:-1], np.append(run.layers[seen], run.b[seen]), rtol=1e-9)
    assert math.log(abs(at.s[0])) == pytest.approx(math.log(abs(s[seen])), rel=1e-6)
    height = np.abs(c * s)[seen:].max()
    assert 1.0 < height / deep_spike(CONFIG.model, at, lr) < {2: 1.08, 3: 1.15, 4: 1.21, 5: 1.27}[depth]
    # Control: with the κ of depth 2 the spike would be higher by √κ.
    if depth > 2:
        flat = DeepState(np.array([float(at.layers.prod())]), at.b, at.s)
        assert deep_spike(CONFIG.model, flat, lr) > 1.7 * height


@given(st.lists(st.floats(0.3, 3.0), min_size=1, max_size=4))
def test_kappa_is_the_rate_at_which_the_product_falls(layers: list[float]) -> None:
    """ΔC/(−η ∂_C L) → κ = C² Σ c_i⁻² as η → 0, with an error of first order."""
    chain = _chain(len(layers) + 1, layers=layers)
    product = float(chain.layers.prod())
    slope = deep_gradient(CONFIG.model, chain)
    scalar = deep_gradient(CONFIG.model, DeepState(np.array([product]), chain.b, chain.s)).layers[0]
    if abs(scalar) < 1e-3:
        return
    kappa = product**2 * (chain.layers**-2).sum()
    eta = 1e-6 / np.abs(slope.layers).max()
    moved = float((chain.layers - eta * slope.layers).prod()) - product
    assert moved / (-eta * scalar) == pytest.approx(kappa, rel=1e-4)


def test_there_is_no_onset_below_the_threshold_nor_from_a_weight_of_zero() -> None:
    onset, _ = deep_onset(CONFIG.model, _chain(3), _edge(3, 0.8), max_steps=400)
    assert (onset.step, onset.crossing_step) == (None, None)
    chain = _chain(3)
    onset, _ = deep_onset(CONFIG.model, DeepState(chain.layers, chain.b, np.zeros(1)), _edge(3), max_steps=400)
    assert onset.step is None
    assert onset.crossing_step is not None
    with pytest.raises(InputError, match="lr is 0"):
        deep_onset(CONFIG.model, chain, 0.0)
    with pytest.raises(InputError, match="theta is -1"):
        deep_onset(CONFIG.model, chain, 0.1, theta=-1.0)
    with pytest.raises(InputError, match="lr is -1"):
        deep_spike(Model([2.0], [1.0], [1.0]), DeepState([1.0], [1.0], [1.0]), -1.0)
