"""The model's loss and derivatives against autograd, which knows nothing of sympy; the sharpness against LAPACK."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from strategies import models_with_states

import theory
from theory import InputError, Model, State


def _autograd_loss(model: Model, vector: torch.Tensor) -> torch.Tensor:
    """The loss as the setting writes it, not coordinate by coordinate."""
    d1 = model.beta.size
    c, b, s = vector[0], vector[1 : 1 + d1], vector[1 + d1 :]
    residual = c * b - torch.tensor(model.beta)
    alpha = torch.tensor(model.alpha)
    main = residual @ torch.diag(torch.tensor(model.covariance)) @ residual / 2
    return main + (alpha * (c * s) ** 2).sum() / 2 + alpha.sum() / 2


@given(models_with_states())
def test_loss_gradient_and_hessian_equal_autograd(case: tuple[Model, State]) -> None:
    model, state = case
    vector = torch.tensor(state.vector)
    loss, slope, curvature = (
        theory.loss(model, state),
        theory.gradient(model, state).vector,
        theory.hessian(model, state),
    )
    expected = torch.func.grad(lambda v: _autograd_loss(model, v))(vector).numpy()
    expected_curvature = torch.func.hessian(lambda v: _autograd_loss(model, v))(vector).numpy()
    np.testing.assert_allclose(loss, _autograd_loss(model, vector), rtol=1e-10)
    np.testing.assert_allclose(slope, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
    scale = np.abs(expected_curvature).max()
    np.testing.assert_allclose(curvature, expected_curvature, rtol=1e-9, atol=1e-9 * scale)


@given(models_with_states())
@example((Model([0.0], [0.0], [0.0]), State(0.0, [0.0], [0.0])))
@example((Model([1.0], [1.0], [1.0]), State(1.0, [0.5], [0.0])))
@example((Model([1.0, 1.0], [1.0, 1.0], [1.0, 1.0]), State(1.0, [1.0, 1.0], [1.0, 1.0])))
def test_sharpness_is_the_largest_eigenvalue(case: tuple[Model, State]) -> None:
    model, state = case
    eigenvalues = np.linalg.eigvalsh(theory.hessian(model, state))
    # LAPACK's own error is relative to the largest magnitude.
    rounding = 1e-12 * np.abs(eigenvalues).max()
    assert theory.sharpness(model, state) == pytest.approx(eigenvalues[-1], rel=1e-10, abs=rounding)


@given(models_with_states(max_alpha=100.0))
def test_layer_shares_are_those_of_the_top_eigenvector(case: tuple[Model, State]) -> None:
    model, state = case
    values, vectors = np.linalg.eigh(theory.hessian(model, state))
    layers = theory.layer_sharpness(model, state)
    block = theory.hessian(model, state)[1:, 1:]
    assert layers.first == pytest.approx(np.linalg.eigvalsh(block)[-1], rel=1e-12, abs=1e-300)
    if values[-1] - values[-2] > 1e-3 * np.abs(values).max() > 0:
        assert layers.first_share == pytest.approx((vectors[1:, -1] ** 2).sum(), abs=1e-6)


@pytest.mark.parametrize(
    ("alpha", "beta", "k", "expected"), [(5, 4, 10, 15.05), (10, 3, 20, 29.54), (20, 3, 20, 58.81)]
)
def test_reference_values_of_the_initial_sharpness(alpha: float, beta: float, k: float, expected: float) -> None:
    model = Model([alpha], beta * np.eye(50)[0], np.ones(50))
    assert round(float(theory.sharpness(model, theory.random_start(50, k, seed=0))), 2) == expected


def test_a_batch_of_states_gives_what_each_state_gives() -> None:
    model = Model([4.0, 9.0], [1.0, -2.0], [1.0, 0.3])
    rng = np.random.default_rng(0)
    batch = State(rng.normal(size=7), rng.normal(size=(7, 2)), rng.normal(size=(7, 2)))
    for function in (theory.loss, theory.sharpness, theory.drive):
        whole = function(model, batch)
        np.testing.assert_allclose(whole, [function(model, batch.at(i)) for i in range(7)], rtol=1e-13)


def test_group_gap_is_linear_and_total_is_their_mixture() -> None:
    model, p = Model([8.0], [1.0], [1.0]), 0.1
    state = State(2.0, [0.5], [0.3])
    plus, minus = theory.group_losses(model, state, p)
    assert plus - minus == pytest.approx(-2 * 8.0 * 2.0 * 0.3 / p)
    main = theory.loss(Model([0.0], [1.0], [1.0]), State(2.0, [0.5], [0.0]))
    assert (1 - p) * main + p / 2 * (plus + minus) == pytest.approx(theory.loss(model, state))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1.0], [1.0, 2.0], [1.0]), "beta has 2 entries"),
        (([-1.0], [1.0], [1.0]), "negative"),
        (([float("nan")], [1.0], [1.0]), "alpha is"),
        (([[1.0]], [1.0], [1.0]), "one dimension"),
    ],
)
def test_bad_models_are_refused_in_one_line(arguments: tuple, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        Model(*arguments)
    assert "\n" not in str(caught.value)
