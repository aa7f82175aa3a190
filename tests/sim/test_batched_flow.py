"""The batched flow against theory's integrator, SciPy on the raw examples, its order, and what the flow conserves."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import models, states
from torch import Tensor

import theory
from sim import batched_flow
from sim.batched_descent import descend_batch, stack_states
from sim.batched_flow import flow_batch
from sim.deep_network import balancedness_matrices, split_layers
from sim.second_moments import Moments, population_batch, population_moments
from sim.update_rules import GradientDescent
from theory import InputError, Model, State
from theory.configuration import DescentConfig
from theory.deep_network import balanced_final_sharpness
from theory.wide_network import WideState, wide_flow

CPU = torch.device("cpu")
CONFIGS = [DescentConfig(d1=10, alpha=alpha, start_seed=seed) for alpha in (1.0, 5.0, 20.0) for seed in (0, 1)]
MODELS, STARTS = [c.model for c in CONFIGS], [c.initial_state for c in CONFIGS]


def _normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _layers(seed: int, widths: tuple[int, ...], *batch: int) -> list[Tensor]:
    return [0.5 * _normal(seed + 7 * i, *batch, m, n) for i, (n, m) in enumerate(pairwise(widths))]


def _weights(data: object, at: int = -1) -> np.ndarray:
    return data["weights"].values[at]  # type: ignore[index]


@pytest.mark.parametrize("rtol", [1e-6, 1e-9, 1e-12])
def test_the_flow_is_the_theorys_to_its_tolerance(rtol: float, device: torch.device) -> None:
    times = np.linspace(0, 3, 31)
    data = flow_batch(
        population_batch(MODELS, device),
        stack_states(STARTS).to(device),
        times,
        rtol=rtol,
        atol=1e-3 * rtol,
        keep_weights=True,
    )
    for run, (model, start) in enumerate(zip(MODELS, STARTS, strict=True)):
        expected = theory.gradient_flow(model, start, times).state
        # Errors of steps add up: no more than a hundred tolerances, and theory's own error (seen: 10⁻¹¹).
        np.testing.assert_allclose(
            data["weights"].values[:, run, 0], expected.vector, rtol=0, atol=100 * rtol + 3e-11, err_msg=str(run)
        )
        np.testing.assert_allclose(data["loss"][:, run], theory.loss(model, expected), rtol=0, atol=1e4 * rtol + 1e-9)
        if rtol == 1e-12:
            np.testing.assert_allclose(data["sharpness"][:, run], theory.sharpness(model, expected), rtol=1e-9)


@settings(max_examples=15)
@given(data=st.data())
def test_any_model_and_state_flow_as_theory_says(data: st.DataObject) -> None:
    model = data.draw(models(max_alpha=20, max_beta=5))
    model = Model(model.alpha, model.beta, np.minimum(model.covariance, 10.0))
    here = [data.draw(states(model, max_weight=3)) for _ in range(2)]
    got = flow_batch(population_batch([model] * 2, CPU), stack_states(here), [0.5], keep_weights=True)
    for run, state in enumerate(here):
        expected = theory.gradient_flow(model, state, [0.5]).state.vector[0]
        np.testing.assert_allclose(_weights(got)[run, 0], expected, rtol=0, atol=1e-7)


def test_halving_the_step_divides_the_error_by_two_to_the_fifth() -> None:
    # α = 1, so that step × sharpness is small: stiffer models show higher orders before they show theirs.
    calm, starts = MODELS[:2], STARTS[:2]
    exact = [
        theory.gradient_flow(m, s, [0.4], rtol=1e-13, atol=1e-15).state.vector[0]
        for m, s in zip(calm, starts, strict=True)
    ]
    steps = np.array([0.04, 0.02, 0.01])
    errors = []
    for step in steps:
        # A tolerance that no error misses leaves the largest step as the step.
        data = flow_batch(
            population_batch(calm, CPU),
            stack_states(starts),
            np.arange(1, round(0.4 / step) + 1) * step,
            rtol=1e6,
            largest_step=step,
            keep_weights=True,
        )
        errors.append(np.abs(_weights(data)[:, 0] - exact).max(-1))
    np.testing.assert_allclose(np.polyfit(np.log(steps), np.log(errors), 1)[0], 5.0, atol=0.25)


def test_descent_approaches_the_flow_in_proportion_to_the_step() -> None:
    layers = _layers(1, (5, 4, 3, 1), 2)
    moments = population_moments(Model([4.0], [1.0, -1.0, 0.5, 0.2], [1.0, 0.5, 0.2, 0.1]), CPU)
    end = _weights(flow_batch(moments, layers, [0.8], keep_weights=True))
    lrs = np.array([0.008, 0.004, 0.002, 0.001])
    distances = []
    for lr in lrs:
        steps = round(0.8 / lr)
        data = descend_batch(moments, layers, GradientDescent(lr), steps, record_every=steps, keep_weights=True)
        distances.append(np.linalg.norm(_weights(data) - end, axis=-1))
    np.testing.assert_allclose(np.polyfit(np.log(lrs), np.log(distances), 1)[0], 1.0, atol=0.05)


def test_a_deep_flow_is_scipys_on_the_raw_examples_and_keeps_its_balance() -> None:
    widths = (4, 3, 3, 2, 1)
    z, y = _normal(2, 25, 4), _normal(3, 25)
    moments = Moments(z.T @ z / 25, z.T @ y / 25, y @ y / 25)
    layers = _layers(4, widths, 3)
    times = [0.0, 0.7, 2.0]
    flows = [
        flow_batch(of, layers, times, rtol=1e-11, atol=1e-13, keep_weights=True) for of in (moments, moments.diagonal)
    ]

    def loss(weights: Tensor) -> Tensor:
        x, begin = z, 0
        for n, m in pairwise(widths):
            x, begin = x @ weights[begin : begin + m * n].reshape(m, n).T, begin + m * n
        return ((x[:, 0] - y) ** 2).mean() / 2

    slope = torch.func.grad(loss)
    for run in range(3):
        start = torch.cat([layer[run].flatten() for layer in layers]).numpy()
        solution = solve_ivp(
            lambda _, w: -slope(torch.from_numpy(w)).numpy(), (0, 2), start, "DOP853", times, rtol=1e-12, atol=1e-14
        )
        for data in flows:
            np.testing.assert_allclose(data["weights"][:, run], solution.y.T, rtol=0, atol=1e-9)
    kept = split_layers(torch.from_numpy(_weights(flows[0]))[:, None], widths)
    for new, old in zip(balancedness_matrices(kept), balancedness_matrices(layers), strict=True):
        torch.testing.assert_close(new, old, rtol=0, atol=1e-10)
    for name in ("balancedness", "imbalance"):
        np.testing.assert_allclose(flows[0][name], flows[0][name][:1].values.repeat(3, 0), atol=1e-10)
    # Control: descent over the same time does not keep them.
    descent = descend_batch(moments, layers, GradientDescent(0.02), 100)
    assert float(abs(descent["balancedness"][-1] - descent["balancedness"][0]).max()) > 1e-4


def test_a_wide_flow_is_the_theorys() -> None:
    model = Model([9.0, 4.0], [1.0, -2.0, 0.5], [1.0, 0.5, 0.25])
    start = 0.5 * _normal(5, 2, 3, 6)
    data = flow_batch(population_batch([model] * 2, CPU), start, [1.5], rtol=1e-10, pairs=2, keep_weights=True)
    for run in range(2):
        state = WideState(start[run, :, 0], start[run, :, 1:4], start[run, :, 4:])
        expected = wide_flow(model, state, np.array([0.0, 1.5]))
        np.testing.assert_allclose(_weights(data)[run, :, 0], expected.a[-1], atol=1e-8)
        np.testing.assert_allclose(data["opposing"][-1, run], expected.effective.s[-1], atol=1e-8)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_a_balanced_flow_ends_at_the_sharpness_of_its_depth(depth: int) -> None:
    model = Model([3.0], [0.6, 0.8, 1.0], np.ones(3))
    unit = _normal(depth, 1, 4).abs()
    unit = unit / unit.norm()
    layers = [unit[None], *[torch.ones(1, 1, 1, dtype=torch.float64)] * (depth - 1)]
    data = flow_batch(population_batch([model], CPU), layers, [40.0])
    assert float(data["sharpness"][-1, 0]) == pytest.approx(balanced_final_sharpness(model, depth), rel=1e-6)


def test_a_flow_at_rest_steps_by_its_sharpness_and_without_that_by_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    # At rest no error holds the step back: only stability does.
    times = np.linspace(20, 60, 41)
    moments, start = population_batch(MODELS, CPU), stack_states(STARTS)

    def products(data: object) -> np.ndarray:
        return (data["flow_step"] * data["sharpness"]).values  # type: ignore[index]

    held = flow_batch(moments, start, times, rtol=1e-6, atol=1e-9)
    assert products(held).max() <= 3.3
    assert products(held).max() > 2.9
    monkeypatch.setattr(batched_flow, "STABILITY", np.inf)
    loose = flow_batch(moments, start, times, rtol=1e-6, atol=1e-9)
    assert products(loose).max() > 3.3
    assert float(held["steps_rejected"].sum()) < 0.5 * float(loose["steps_rejected"].sum())


def test_each_run_takes_its_own_steps() -> None:
    moments, start = population_batch(MODELS, CPU), stack_states(STARTS)
    together = flow_batch(moments, start, [1.0], keep_weights=True)
    assert len(set(together["steps_taken"].values.tolist())) > 3
    for run in (0, 5):
        alone = flow_batch(population_batch(MODELS[run : run + 1], CPU), start[run : run + 1], [1.0], keep_weights=True)
        assert int(alone["steps_taken"][0]) == int(together["steps_taken"][run])
        np.testing.assert_allclose(_weights(alone)[0], _weights(together)[run], rtol=1e-13)


def test_at_a_minimum_and_at_the_origin_the_flow_stands_still() -> None:
    model = Model([2.0], [1.0], [1.0])
    start = stack_states([State(1.0, [1.0], [0.0]), State(0.0, [0.0], [0.0])])
    data = flow_batch(population_batch([model] * 2, CPU), start, [0.0, 5.0], keep_weights=True)
    assert (_weights(data) == start.numpy()).all()
    assert (data["steps_taken"] < 50).all()


def test_weights_that_are_not_finite_are_told_and_spare_the_others() -> None:
    start = stack_states(STARTS[:2]).clone()
    start[0, 0, 3] = torch.nan
    data = flow_batch(population_batch(MODELS[:2], CPU), start, [0.5, 1.0])
    assert data["diverged_at"].values.tolist() == [0.5, -1.0]
    assert np.isnan(data["loss"][:, 0]).all()
    assert np.isfinite(data["loss"][:, 1]).all()


def test_float32_flows_to_its_own_tolerance() -> None:
    start = stack_states(STARTS)
    data = flow_batch(population_batch(MODELS, CPU), start.float(), [1.0], rtol=1e-5, atol=1e-7, keep_weights=True)
    exact = flow_batch(population_batch(MODELS, CPU), start, [1.0], keep_weights=True)
    assert data["weights"].dtype == np.float32
    np.testing.assert_allclose(_weights(data), _weights(exact), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"times": []}, "increase"),
        ({"times": [0.0, 0.0]}, "increase"),
        ({"times": [-1.0]}, "increase"),
        ({"times": [np.inf]}, "increase"),
        ({"rtol": 1e-17}, "rtol is 1e-17"),
        ({"rtol": np.nan}, "rtol is nan"),
        ({"atol": 0.0}, "atol is 0"),
        ({"largest_step": 0.0}, r"largest_step is 0\.0"),
        ({"max_steps": 3}, "more than 3 steps to time 1"),
    ],
)
def test_what_cannot_be_integrated_is_refused(options: dict[str, object], words: str) -> None:
    arguments = {"times": [1.0]} | options
    with pytest.raises(InputError, match=words) as caught:
        flow_batch(population_batch(MODELS, CPU), stack_states(STARTS), **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
