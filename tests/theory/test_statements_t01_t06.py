"""Statements T1 to T4 and T6: hypotheses, and T1's orders of convergence against maps written out here."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from scipy.integrate import quad_vec, solve_ivp
from strategies import models_with_states

from theory import Model, State, balancedness, gradient_descent, random_start
from theory.statements import all_statements


def test_hypotheses_as_predicates() -> None:
    identity, general = Model([2.0], [1.0, 1.0], [1.0, 1.0]), Model([2.0, 1.0], [1.0, 1.0], [1.0, 0.5])
    one, two = State(1.0, [0.0, 0.6], [0.8]), State(1.0, [0.0, 0.6], [0.8, 0.0])
    cases = [
        ("T1", general, two, 0.1, True),
        ("T2", identity, one, 0.1, True),
        ("T2", general, two, 0.1, False),
        ("T3", identity, one, 0.1, True),
        ("T3", general, two, 0.1, False),
        ("T3", identity, State(0.0, [0.0, 0.6], [0.8]), 0.1, False),
        ("T4", identity, one, 0.1, True),  # αcs² = 1.28 against D = 0.6 − 0.36
        ("T4", identity, State(1.0, [0.0, 0.6], [0.1]), 0.1, False),
        ("T4", identity, one, 2.0, False),  # c would pass through 0
        ("T6", general, two, 0.1, True),
        ("T6", identity, State(0.1, [0.0, 0.6], [0.8]), 0.1, False),
        ("T6", Model([2.0], [0.0, 0.0], [1.0, 1.0]), one, 0.1, False),
    ]
    for name, model, state, lr, expected in cases:
        assert all_statements()[name].applies(model, state, lr) == expected, (name, model, state)


MODEL, START = Model([6.0], [1.5, -1.0], [1.0, 0.5]), random_start(2, 3.0, seed=1)


def _velocity(y: np.ndarray) -> np.ndarray:
    """(c', b', s') of the flow, from the setting's loss by hand."""
    c, b, s = y[0], y[1:3], y[3:]
    r = MODEL.beta - c * b
    pull = c * MODEL.alpha * s**2
    return np.concatenate([b @ (MODEL.covariance * r) - pull, c * MODEL.covariance * r, -(c**2) * MODEL.alpha * s])


def _q(y: np.ndarray) -> float:
    return float(y[0] ** 2 - (y[1:] ** 2).sum())


def _descend(steps: int, time: float) -> np.ndarray:
    """The package's descent; the flow it is held against is written out above."""
    return gradient_descent(MODEL, START, time / steps, steps).state.vector[-1]


COUNTS = np.array([200, 400, 800, 1600, 3200])


def _slope(errors: list[float]) -> float:
    return float(np.polyfit(np.log(1 / COUNTS), np.log(np.abs(errors)), 1)[0])


def test_drift_of_balancedness_has_order_one_in_time_and_two_in_a_step() -> None:
    time = 1.0
    assert _slope([_q(_descend(int(n), time)) - _q(START.vector) for n in COUNTS]) == pytest.approx(1, abs=0.02)
    assert _slope([_q(_descend(1, time / n)) - _q(START.vector) for n in COUNTS]) == pytest.approx(2, abs=1e-4)


def test_drift_of_balancedness_tends_to_its_integral_along_the_flow() -> None:
    # Q(T) − Q(0) = η ∫ (c'² − ‖b'‖² − s'²) dt + O(η²)
    flow = solve_ivp(
        lambda _, y: _velocity(y), (0, 1), START.vector, "DOP853", dense_output=True, rtol=1e-12, atol=1e-13
    )
    integral, _ = quad_vec(lambda t: _q(_velocity(flow.sol(t))), 0, 1, epsrel=1e-10)
    left = [_q(_descend(int(n), 1.0)) - _q(START.vector) - integral / n for n in COUNTS]
    assert _slope(left) == pytest.approx(2, abs=0.05)


def test_descent_tends_to_the_flow_with_order_one() -> None:
    exact = solve_ivp(lambda _, y: _velocity(y), (0, 1), START.vector, "DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    assert _slope([float(np.linalg.norm(_descend(int(n), 1.0) - exact)) for n in COUNTS]) == pytest.approx(1, abs=0.02)


@given(models_with_states(max_alpha=10.0, max_beta=10.0))
def test_one_step_changes_balancedness_by_the_difference_of_squares(case: tuple[Model, State]) -> None:
    model, state = case
    lr = 1e-3
    after = gradient_descent(model, state, lr, 1).state
    c, b, s = state.c, state.b, state.s
    r = model.beta - c * b
    d_c = c * (model.alpha * s**2).sum() - (b * model.covariance * r).sum()
    d_b, d_s = c * model.covariance * r, c**2 * model.alpha * s
    expected = lr**2 * (d_c**2 - (d_b**2).sum() - (d_s**2).sum())
    squares = (after.vector**2).sum()
    assert balancedness(after)[1] - balancedness(state) == pytest.approx(expected, abs=1e-14 * squares)
