"""The conditions on the initial sharpness against dense Hessians of the whole network, opposing weights written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import finite, models_with_states

from theory import InputError, Model, State, hessian, random_start
from theory.initial_sharpness import (
    below_three_alpha,
    in_initial_range,
    sharpness_above,
    sharpness_below,
    target_limits,
)


def _top(sigma: np.ndarray, sigma_o: np.ndarray, beta: np.ndarray, c: float, b: np.ndarray, b_o: np.ndarray) -> float:
    """Largest eigenvalue over (c, b, b_o) for dense second moments, from L = ½(cb−β)ᵀΣ(cb−β) + ½c²b_oᵀΣ_o b_o."""
    arm, arm_o = (sigma @ (2 * c * b - beta))[None], 2 * c * (sigma_o @ b_o)[None]
    blocks = [
        [np.array([[b @ sigma @ b + b_o @ sigma_o @ b_o]]), arm, arm_o],
        [arm.T, c**2 * sigma, np.zeros((b.size, b_o.size))],
        [arm_o.T, np.zeros((b_o.size, b.size)), c**2 * sigma_o],
    ]
    return float(np.linalg.eigvalsh(np.block(blocks))[-1])


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 4),
    finite(-1, 2).map(lambda e: 10**e),
    finite(-1, 1).map(lambda e: 10**e),
    finite(-1.5, 0.7).map(lambda e: 10**e),
    st.booleans(),
)
def test_range_in_both_cases_for_rotated_second_moments(
    seed: int, d1: int, d2: int, alpha: float, c: float, size: float, isotropic: bool
) -> None:
    rng = np.random.default_rng(seed)
    moments, rotation = rng.uniform(0, 2, d1), np.linalg.qr(rng.normal(size=(d1, d1)))[0]
    u = rng.normal(size=d2)
    u /= np.linalg.norm(u)
    beta, b, b_o = 3 * rng.normal(size=d1), size * rng.normal(size=d1), c * rng.normal(size=d2) / np.sqrt(d2)
    sigma_o = alpha * (np.eye(d2) if isotropic else np.outer(u, u))
    top = _top(rotation.T @ np.diag(moments) @ rotation, sigma_o, beta, c, b, b_o)
    s = np.linalg.norm(b_o) if isotropic else u @ b_o
    model, state = Model([alpha], rotation @ beta, moments), State(c, rotation @ b, [s])
    assume(abs(top / (3 * alpha * c**2) - 1) > 1e-9 and abs(top / (alpha * c**2) - 1) > 1e-9)
    assert below_three_alpha(model, state) == (top < 3 * alpha * c**2)
    assert in_initial_range(model, state) == (alpha * c**2 < top < 3 * alpha * c**2)


@given(st.integers(0, 2**32 - 1), finite(1.0, 30.0), finite(0.1, 3.0), st.booleans())
def test_range_at_its_upper_end_for_any_covariance(seed: int, alpha: float, c: float, long: bool) -> None:
    # The target is lengthened until LAPACK sees 3αc² reached; the condition must turn there.
    rng = np.random.default_rng(seed)
    moments, b = rng.uniform(0, 2.5, 3), rng.normal(size=3) * c * (0.6 if long else 0.1)
    s, beta = rng.uniform(0, 0.5) * c, rng.normal(size=3)

    def excess(length: float) -> float:
        return _top(np.diag(moments), np.array([[alpha]]), length * beta, c, b, np.array([s])) - 3 * alpha * c**2

    low, high = 0.0, 1e4 * alpha * c**2
    assume(excess(low) < 0 < excess(high))
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
    state = State(c, b, [s])
    assume(low > 1e-3)
    assert below_three_alpha(Model([alpha], beta * low * (1 - 1e-6), moments), state)
    assert not below_three_alpha(Model([alpha], beta * high * (1 + 1e-6), moments), state)


@given(models_with_states(), finite(0.3, 3.0))
@example((Model([2.0], [0.0], [1.0]), State(1.0, [0.0], [0.0])), 1.0)
@example((Model([1.0], [0.0], [1.0]), State(0.0, [0.0], [0.0])), 1.0)
def test_above_and_below_any_level(case: tuple[Model, State], factor: float) -> None:
    model, state = case
    top = np.linalg.eigvalsh(hessian(model, state))[-1]
    level = factor * top
    # LAPACK's rounding decides nearer to the level.
    assume(top > 0 and abs(factor - 1) > 1e-12)
    assert sharpness_below(model, state, level) == (factor > 1)
    assert sharpness_above(model, state, level) == (factor < 1)


def test_a_level_on_a_pole_is_decided_by_its_arm() -> None:
    # s = 0: αc² = 20 is the sharpness itself; s ≠ 0 couples it and lifts the sharpness above it.
    model = Model([20.0], [0.0], [1.0])
    states = State([1.0, 1.0], [[0.0], [0.0]], [[0.0], [1e-5]])
    assert sharpness_above(model, states, 20.0).tolist() == [False, True]
    assert sharpness_below(model, states, 20.0).tolist() == [False, False]
    # A pole's own eigenvalue counts where the rest lies below it.
    assert sharpness_below(model, states.at(0), 20.0 * (1 + 1e-15))


@given(finite(1.01, 100), finite(0, 100), st.sampled_from([-1, 1]), st.integers(0, 2**32 - 1))
def test_limits_on_the_target_from_both_sides(alpha: float, k: float, side: int, seed: int) -> None:
    limits, length = target_limits(alpha, k), 1 / np.sqrt(1 + k)
    rng = np.random.default_rng(seed)
    b_o = rng.normal(size=3)
    b_o *= np.sqrt(k / (1 + k)) / np.linalg.norm(b_o)

    def below(limit: float, direction: np.ndarray) -> bool:
        beta = limit * (1 + side * 1e-6) * np.eye(3)[0]
        return _top(np.eye(3), alpha * np.eye(3), beta, 1.0, length * direction, b_o) < 3 * alpha

    turned = rng.normal(size=3)
    turned /= np.linalg.norm(turned)
    assert below(limits.every_direction, -np.eye(3)[0]) == (side < 0)
    assert below(limits.orthogonal, np.eye(3)[1]) == (side < 0)
    assert below(limits.some_direction, np.eye(3)[0]) == (side < 0)
    assert below(limits.every_direction, turned) or side > 0
    assert not below(limits.some_direction, turned) or side < 0


@given(finite(0.01, 100), finite(0, 100), st.sampled_from([-1, 1]))
def test_limit_of_the_initial_decrease(alpha: float, k: float, side: int) -> None:
    # c' = b·β − ‖b‖² − αs² for b along β, the worst direction
    beta, length = target_limits(alpha, k).decrease * (1 + side * 1e-9), 1 / np.sqrt(1 + k)
    assert (beta * length - length**2 - alpha * k / (1 + k) > 0) == (side > 0)


def test_below_alpha_one_no_target_is_safe() -> None:
    limits = target_limits(1.0, 3.0)
    assert limits.every_direction == limits.orthogonal == 0
    assert target_limits(0.2, 3.0).some_direction == 0


def test_the_reference_start_outside_of_the_range() -> None:
    model, start = Model([5.0], 4.0 * np.eye(50)[0], np.ones(50)), random_start(50, 10.0, seed=0)
    assert not in_initial_range(model, start)
    assert np.linalg.norm(2 * start.b - model.beta) == pytest.approx(4.027, abs=5e-4)
    assert 14 * np.linalg.norm(start.b) == pytest.approx(3.852, abs=5e-4)
    for alpha, beta in ((10.0, 3.0), (20.0, 3.0)):
        assert in_initial_range(Model([alpha], beta * np.eye(50)[0], np.ones(50)), random_start(50, 20.0, seed=0))


def test_several_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="one opposing pair, the model has 2"):
        in_initial_range(Model([1.0, 2.0], [1.0], [1.0]), State(1.0, [1.0], [1.0, 1.0]))
