"""The wide and the deep network against autograd and LAPACK, the scalar model, and pinned counterexamples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import finite, models

import theory
from theory import InputError, Model, State
from theory.deep_network import (
    DeepState,
    balanced_final_sharpness,
    deep_descent,
    deep_gradient,
    layer_balancedness,
)
from theory.wide_network import (
    WideState,
    across_last_layer,
    balancedness_change,
    balancedness_matrix,
    erosion_rate,
    opposing_transfer,
    rank_one_curvature,
    rank_one_state,
    wide_descent,
    wide_flow,
    wide_gradient,
    wide_loss,
)


def _array(draw: st.DrawFn, *shape: int) -> np.ndarray:
    size = int(np.prod(shape))
    return np.array(draw(st.lists(finite(-3, 3), min_size=size, max_size=size))).reshape(shape)


@st.composite
def wide_cases(draw: st.DrawFn) -> tuple[Model, WideState]:
    model, m = draw(models(max_features=3, max_alpha=30.0, max_beta=5.0)), draw(st.integers(1, 4))
    d1, pairs = model.beta.size, model.alpha.size
    return model, WideState(_array(draw, m), _array(draw, m, d1), _array(draw, m, pairs))


@st.composite
def scalar_cases(draw: st.DrawFn) -> tuple[Model, State, np.ndarray]:
    """A model, a scalar state and a direction of width 2 to 4."""
    model, m = draw(models(max_features=3, max_pairs=2, max_alpha=30.0, max_beta=5.0)), draw(st.integers(2, 4))
    state = State(_array(draw), _array(draw, model.beta.size), _array(draw, model.alpha.size))
    return model, state, np.eye(m)[draw(st.integers(0, m - 1))] + draw(finite(-0.9, 0.9)) / m


def _autograd_wide_loss(model: Model, vector: torch.Tensor, m: int) -> torch.Tensor:
    d1 = model.beta.size
    a, first = vector[:m], vector[m:].reshape(m, -1)
    residual = first[:, :d1].T @ a - torch.tensor(model.beta)
    alpha = torch.tensor(model.alpha)
    main = residual @ torch.diag(torch.tensor(model.covariance)) @ residual / 2
    return main + (alpha * (first[:, d1:].T @ a) ** 2).sum() / 2 + alpha.sum() / 2


@given(wide_cases())
def test_wide_loss_and_gradient_equal_autograd(case: tuple[Model, WideState]) -> None:
    model, state = case
    m, vector = state.a.size, torch.tensor(state.vector)
    expected = torch.func.grad(lambda v: _autograd_wide_loss(model, v, m))(vector).numpy()
    np.testing.assert_allclose(wide_loss(model, state), _autograd_wide_loss(model, vector, m), rtol=1e-10)
    got = wide_gradient(model, state).vector
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-10 * (1 + np.abs(expected).max()))


@given(wide_cases(), finite(1e-4, 0.1))
def test_exact_laws_of_one_step_of_descent(case: tuple[Model, WideState], lr: float) -> None:
    model, state = case
    run = wide_descent(model, state, lr, 1)
    after = run.at(1)
    difference = balancedness_matrix(after) - balancedness_matrix(state)
    scale = 1 + np.abs(after.vector).max() ** 2
    np.testing.assert_allclose(difference, balancedness_change(model, state, lr), rtol=0, atol=1e-12 * scale)
    transferred = np.einsum("jmn,nj->mj", opposing_transfer(model, state, lr), state.S)
    np.testing.assert_allclose(after.S, transferred, rtol=0, atol=1e-12 * scale)
    factor = 1 - lr * model.alpha * (state.a @ state.a)
    np.testing.assert_allclose(state.a @ after.S, factor * (state.a @ state.S), rtol=0, atol=1e-11 * scale)


def test_flow_conserves_the_balancedness_matrix_and_descent_drifts_from_it_with_slope_one() -> None:
    rng = np.random.default_rng(3)
    model = Model([4.0, 2.0], [2.0, -1.0], [1.0, 0.4])
    start = WideState(0.6 * rng.normal(size=3), 0.5 * rng.normal(size=(3, 2)), 0.5 * rng.normal(size=(3, 2)))
    flow = wide_flow(model, start, np.linspace(0, 4, 9))
    q = balancedness_matrix(flow)
    np.testing.assert_allclose(q, np.broadcast_to(q[0], q.shape), atol=1e-9)
    steps = np.array([400, 800, 1600, 3200])
    distance = [np.abs(wide_descent(model, start, 4 / n, n).vector[-1] - flow.vector[-1]).max() for n in steps]
    drift = [np.abs(balancedness_matrix(wide_descent(model, start, 4 / n, n))[-1] - q[0]).max() for n in steps]
    for error in (distance, drift):
        assert np.polyfit(np.log(4 / steps), np.log(error), 1)[0] == pytest.approx(1, abs=0.15)


@given(scalar_cases(), finite(1e-4, 0.02))
@example((Model([20.0], [3.0], [1.0]), State(1.0, [0.1], [0.9]), np.array([0.6, 0.8])), 0.04)
def test_rank_one_start_is_the_scalar_model(case: tuple[Model, State, np.ndarray], lr: float) -> None:
    model, state, direction = case
    scalar = theory.gradient_descent(model, state, lr, 8).state
    wide = wide_descent(model, rank_one_state(state, direction), lr, 8)
    n = min(len(scalar.c), len(wide.a))
    embedded = rank_one_state(State(scalar.c[:n], scalar.b[:n], scalar.s[:n]), direction)
    # Runs that blow up lose their digits; up to there both stay together.
    scale = 1 + np.abs(embedded.vector).max(-1, keepdims=True)
    usable = scale[:, 0] < 1e3
    error = np.abs(wide.vector[:n] - embedded.vector) / scale
    assert error[: int(np.argmin(usable)) if not usable.all() else n].max(initial=0) < 1e-8
    if abs(state.c) > 1e-3:
        np.testing.assert_allclose(across_last_layer(embedded.at(0)), 0, atol=1e-12 * (1 + np.abs(state.s).max()))


@given(scalar_cases())
def test_hessian_at_a_rank_one_state_is_the_scalar_one_and_plus_minus_omega(
    case: tuple[Model, State, np.ndarray],
) -> None:
    model, state, direction = case
    m, n = direction.size, model.curvatures.size
    wide = torch.tensor(rank_one_state(state, direction).vector)
    values = np.linalg.eigvalsh(torch.func.hessian(lambda v: _autograd_wide_loss(model, v, m))(wide).numpy())
    omega = float(rank_one_curvature(model, state))
    extra = ([omega, -omega] + [0.0] * (n - 1)) * (m - 1)
    expected = np.sort(np.concatenate([np.linalg.eigvalsh(theory.hessian(model, state)), extra]))
    rounding = 1e-11 * (1 + np.abs(expected).max())
    np.testing.assert_allclose(values, expected, rtol=0, atol=rounding)
    assert omega <= float(theory.sharpness(model, state)) + rounding


def test_t5_fails_for_the_norm_of_the_last_layer_from_this_start() -> None:
    # Integrated here, by another method than the package's.
    alpha, beta = 12.0, np.array([0.28, 0.0])

    def velocity(_: float, v: np.ndarray) -> np.ndarray:
        a, w, s = v[:2], v[2:6].reshape(2, 2), v[6:]
        r = beta - w.T @ a
        return np.concatenate([w @ r - alpha * (a @ s) * s, np.outer(a, r).ravel(), -alpha * (a @ s) * a])

    start = np.array([0.4, -0.9, 0.56, 0.08, 0.06, 0.44, -0.29, 0.64])
    times = np.linspace(0, 40, 4001)
    squared = (solve_ivp(velocity, (0, 40), start, "Radau", times, rtol=1e-9, atol=1e-12).y[:2] ** 2).sum(0)
    low = int(squared[:200].argmin())
    high = low + int(squared[low:].argmax())
    assert times[[low, high]] == pytest.approx([1.39, 3.10], abs=0.02)
    assert squared[[low, high, -1]] == pytest.approx([0.436140, 0.437882, 0.432389], abs=2e-6)
    state = WideState(start[:2], start[2:6].reshape(2, 2), start[6:, None])
    flow = wide_flow(Model([alpha], beta, np.ones(2)), state, times)
    np.testing.assert_allclose((flow.a**2).sum(-1), squared, atol=1e-6)


@pytest.mark.parametrize(("seed", "lr"), [(2, 0.06), (3, 0.05), (5, 0.06)])
def test_oscillation_erodes_what_lies_across_the_last_layer(seed: int, lr: float) -> None:
    d1, m, alpha = 30, 4, 20.0
    rng = np.random.default_rng(seed)
    beta, a = rng.normal(size=d1), rng.normal(size=m)
    model = Model([alpha], 3 * beta / np.linalg.norm(beta), theory.power_law_covariance(d1, 1.0))
    first = 0.2 * rng.normal(size=(m, d1)) / np.sqrt(d1 * m)
    start = WideState(a / np.linalg.norm(a), first, 0.9 * rng.normal(size=(m, 1)) / np.sqrt(m))
    run = wide_descent(model, start, lr, 2000)
    squared = [np.linalg.norm(s[:, 0] - a * (a @ s[:, 0]) / (a @ a)) ** 2 for a, s in zip(run.a, run.S, strict=True)]
    window = slice(500, 2000)
    lost, predicted = np.log(squared[500] / squared[2000]), erosion_rate(model, run, lr)[window].sum()
    assert predicted > 0.1
    assert lost == pytest.approx(predicted, rel=0.01)
    # T9 with ‖a‖² for c², on window means.
    assert lr * alpha * (run.a[window] ** 2).sum(-1).mean() == pytest.approx(2, rel=0.02)
    drive = theory.drive(model, run.effective)[window].mean()
    assert alpha * (run.effective.s[window] ** 2).mean() == pytest.approx(drive, rel=0.2)


def test_nothing_lies_across_a_last_layer_of_zero_but_all_of_s() -> None:
    state = WideState([0.0, 0.0], [[1.0], [2.0]], [[3.0], [4.0]])
    np.testing.assert_array_equal(across_last_layer(state), state.S)


def _autograd_deep_loss(model: Model, vector: torch.Tensor, above: int) -> torch.Tensor:
    d1 = model.beta.size
    c, b, s = vector[:above].prod(), vector[above : above + d1], vector[above + d1 :]
    sigma, beta, alpha = (torch.tensor(x) for x in (model.covariance, model.beta, model.alpha))
    return (sigma * (c * b - beta) ** 2).sum() / 2 + (alpha * (c * s) ** 2).sum() / 2


@st.composite
def deep_cases(draw: st.DrawFn) -> tuple[Model, DeepState]:
    model, above = draw(models(max_features=3, max_pairs=2, max_alpha=30.0, max_beta=5.0)), draw(st.integers(1, 4))
    return model, DeepState(_array(draw, above), _array(draw, model.beta.size), _array(draw, model.alpha.size))


@given(deep_cases(), finite(1e-5, 1e-2))
def test_deep_gradient_equals_autograd_and_t7_holds(case: tuple[Model, DeepState], lr: float) -> None:
    model, state = case
    above = state.layers.size
    expected = torch.func.grad(lambda v: _autograd_deep_loss(model, v, above))(torch.tensor(state.vector)).numpy()
    scale = 1 + np.abs(expected).max()
    np.testing.assert_allclose(deep_gradient(model, state).vector, expected, rtol=1e-9, atol=1e-10 * scale)
    # Σ_w w ∂_wL = c_i ∂_{c_i}L for every layer: each Q_i is kept by the flow.
    first = expected[above:] @ state.vector[above:]
    np.testing.assert_allclose(state.layers * expected[:above], first, rtol=0, atol=1e-9 * scale)
    after = deep_descent(model, state, lr, 1).s[1]
    factor = 1 - lr * model.alpha * state.layers.prod() ** 2
    np.testing.assert_allclose(after, factor * state.s, rtol=1e-9, atol=1e-9 * (1 + np.abs(factor).max()))


@pytest.mark.parametrize("depth", [2, 3, 4, 6])
@pytest.mark.parametrize("alpha", [1.0, 5.0])
def test_balanced_flow_ends_at_the_sharpness_predicted(depth: int, alpha: float) -> None:
    model, above = Model([alpha], [2.4, -1.8], [1.0, 1.0]), depth - 1

    def velocity(_: float, v: np.ndarray) -> np.ndarray:
        return -deep_gradient(model, DeepState.from_vector(v, depth, 2)).vector

    start = DeepState(np.ones(above), [0.48, 0.36], [0.8])
    np.testing.assert_allclose(layer_balancedness(start), 0, atol=1e-15)
    solution = solve_ivp(velocity, (0, 60), start.vector, "DOP853", rtol=1e-11, atol=1e-13)
    end = DeepState.from_vector(solution.y[:, -1], depth, 2)
    np.testing.assert_allclose(layer_balancedness(end), 0, atol=1e-8)
    np.testing.assert_allclose(end.layers, 3 ** (1 / depth), rtol=1e-7)
    hessian = torch.func.hessian(lambda v: _autograd_deep_loss(model, v, above))(torch.tensor(end.vector))
    assert balanced_final_sharpness(model, depth) == pytest.approx(np.linalg.eigvalsh(hessian.numpy())[-1], rel=1e-6)
    assert balanced_final_sharpness(model, depth) == pytest.approx(max(alpha, depth) * 3 ** (2 - 2 / depth))


def test_bad_networks_are_refused() -> None:
    model = Model([1.0], [1.0], [0.5])
    with pytest.raises(InputError, match="shapes"):
        WideState([1.0, 2.0], [[1.0]], [[1.0], [1.0]])
    with pytest.raises(InputError, match="direction"):
        rank_one_state(State(1.0, [1.0], [1.0]), [0.0, 0.0])
    with pytest.raises(InputError, match="covariance"):
        balanced_final_sharpness(model, 3)
    with pytest.raises(InputError, match="depth is 1"):
        balanced_final_sharpness(model, 1)
    with pytest.raises(InputError, match="lr is 0"):
        wide_descent(model, WideState([1.0], [[1.0]], [[1.0]]), 0.0, 5)
