"""The flow's limit against SciPy's integrator on equations written out here, conservation laws and scaling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import finite, models_with_states

from theory import Model, State, flow_limit


def _flow_to(model: Model, start: State, time: float) -> State:
    lam, beta, alpha, d = model.covariance, model.beta, model.alpha, model.beta.size

    def velocity(_: float, y: np.ndarray) -> np.ndarray:
        c, b, s = y[0], y[1 : 1 + d], y[1 + d :]
        r = beta - c * b
        return np.concatenate([[(b * lam * r).sum() - c * (alpha * s**2).sum()], c * lam * r, -(c**2) * alpha * s])

    end = solve_ivp(velocity, (0, time), start.vector, method="LSODA", rtol=1e-10, atol=1e-13).y[:, -1]
    return State.from_vector(end, d)


@pytest.mark.parametrize("seed", range(8))
def test_the_flow_ends_there_for_any_covariance(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, pairs = int(rng.integers(1, 5)), int(rng.integers(1, 4))
    model = Model(rng.uniform(0.3, 20, pairs), 1 + rng.random(d), rng.uniform(0.3, 2, d))
    sign = -1.0 if seed % 2 else 1.0
    start = State(sign * rng.uniform(0.5, 3), sign * rng.random(d), 0.7 * rng.normal(size=pairs))
    limit, end = flow_limit(model, start), _flow_to(model, start, 80.0)
    np.testing.assert_allclose(end.vector, limit.vector, atol=1e-6)


@pytest.mark.parametrize(("length", "time"), [(3.0, 1e3), (30.0, 1e5)])
def test_very_negative_balancedness(length: float, time: float) -> None:
    # b starts long and along β: c → ‖β‖/‖b‖ small, and the end is slow, at the rate c²λ
    model, start = Model([2.0], [1.0, 1.0], [1.0, 0.5]), State(0.5, [length, length], [length])
    np.testing.assert_allclose(
        _flow_to(model, start, time).vector, flow_limit(model, start).vector, rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("c", "b", "s", "expected"),
    [
        (2.0, [1.0], [1.0], [np.sqrt(2), 0, 0]),  # Q = 2
        (-2.0, [1.0], [1.0], [-np.sqrt(2), 0, 0]),
        (1.0, [0.6], [0.8], [0, 0, 0]),  # Q = 0
        (
            1.0,
            [3.0],
            [4.0],
            [0, 3 * np.sqrt(24 / 25), 4 * np.sqrt(24 / 25)],
        ),  # Q = −24, equal rates: b and s in proportion
        (0.0, [3.0], [4.0], [0, 3, 4]),
        (1e-120, [3.0], [4.0], [0, 3, 4]),
    ],
)
def test_without_a_target(c: float, b: list[float], s: list[float], expected: list[float]) -> None:
    limit = flow_limit(Model([1.0], [0.0], [1.0]), State(c, b, s))
    np.testing.assert_allclose(limit.vector, expected, atol=1e-7)


def test_without_a_target_and_with_unequal_rates() -> None:
    model, start = Model([7.0], [0.0, 0.0], [1.0, 0.2]), State(1.0, [1.0, 1.0], [1.0])
    np.testing.assert_allclose(_flow_to(model, start, 60.0).vector, flow_limit(model, start).vector, atol=1e-6)


def test_weights_of_second_moment_zero_stay() -> None:
    model, start = Model([2.0, 0.0], [1.5, -9.0], [1.0, 0.0]), State(1.0, [0.5, 7.0], [0.3, -5.0])
    limit = flow_limit(model, start)
    np.testing.assert_allclose(_flow_to(model, start, 60.0).vector, limit.vector, atol=1e-7)
    assert (limit.b[1], limit.s[1]) == (7.0, -5.0)


def test_the_saddle_does_not_move_and_c_zero_takes_the_sign_of_its_drive() -> None:
    model = Model([2.0], [1.0, 1.0], [1.0, 1.0])
    saddle = State(0.0, [1.0, -1.0], [3.0])
    np.testing.assert_array_equal(flow_limit(model, saddle).vector, saddle.vector)
    start = State(0.0, [-1.0, -0.5], [0.3])
    np.testing.assert_allclose(_flow_to(model, start, 60.0).vector, flow_limit(model, start).vector, atol=1e-7)
    assert flow_limit(model, start).c < 0


@given(models_with_states(min_alpha=1e-3))
@example((Model([1.0], [4.0, 1e-307], [0.0, 1.0]), State(0.0, [0.0, 1.0], [0.0])))
@example((Model([1.0], [1e-12], [1.0]), State(1e3, [0.0], [0.0])))
@example((Model([1.0], [1e-12], [1.0]), State(1e-3, [1e3], [0.0])))
@example((Model([1.0], [1e3], [1.0]), State(1e-9, [0.0], [0.0])))
def test_the_limit_is_a_minimum_of_the_same_balancedness(case: tuple[Model, State]) -> None:
    model, start = case
    moves = model.covariance > 0
    assume((model.beta[moves] != 0).any() and (start.c != 0 or (start.b * model.covariance * model.beta).sum() != 0))
    limit = flow_limit(model, start)
    np.testing.assert_allclose(limit.c * limit.b[moves], model.beta[moves], rtol=1e-12, atol=1e-300)
    assert (limit.s == 0).all()
    np.testing.assert_allclose(limit.b[~moves], start.b[~moves], rtol=1e-15, atol=1e-300)
    before = start.c**2 - (start.b[moves] ** 2).sum() - (start.s**2).sum()
    unit = start.c**2 + (start.b**2).sum() + (start.s**2).sum() + np.abs(model.beta).max()
    assert limit.c**2 - (limit.b[moves] ** 2).sum() == pytest.approx(before, abs=1e-13 * unit)
    assert start.c == 0 or np.sign(limit.c) == np.sign(start.c)


@given(st.integers(0, 2**32 - 1), st.integers(-150, 150), finite(-1, 1), st.booleans())
def test_weights_scale_with_the_root_of_the_target(seed: int, power: int, log_beta: float, target: bool) -> None:
    rng, x = np.random.default_rng(seed), 10.0**power
    beta = 10.0**log_beta * rng.normal(size=3) * target
    start = State(rng.normal(), rng.normal(size=3), rng.normal(size=2))
    big = State(x * start.c, x * start.b, x * start.s)
    limit = flow_limit(Model([1.0, 2.0], beta, [1.0, 0.5, 0.2]), start)
    scaled = flow_limit(Model([1.0, 2.0], beta * x * x, [1.0, 0.5, 0.2]), big)
    np.testing.assert_allclose(scaled.vector / x, limit.vector, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("c", "beta", "expected_c", "expected_b"),
    [(1e150, 1e-150, 1e150, 1e-300), (1e200, 1e100, 1e200, 1e-100), (1e-200, 0.0, 1e-200, 0.0), (0.0, 0.0, 0.0, 0.0)],
)
def test_a_target_far_below_the_weights(c: float, beta: float, expected_c: float, expected_b: float) -> None:
    limit = flow_limit(Model([1.0], [beta], [1.0]), State(c, [0.0], [0.0]))
    assert (float(limit.c), float(limit.b[0])) == pytest.approx((expected_c, expected_b), rel=1e-12)
