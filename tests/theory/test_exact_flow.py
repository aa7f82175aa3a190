"""The flow in closed form and the integrated flow, each the other's oracle; a third integration is written out here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from strategies import finite

from theory import InputError, Model, State, balancedness, flow_limit, gradient_descent, gradient_flow
from theory.exact_flow import exact_flow

Case = tuple[Model, State, float]


def _case(curvature: float, beta: npt.ArrayLike, c: float, b: npt.ArrayLike, s: float, time: float) -> Case:
    """A pair with the features' own second moment if s ≠ 0, an idle one of another strength if not."""
    target = np.asarray(beta, dtype=float)
    alpha = curvature if s else 3 * curvature + 1
    return Model([alpha], target, np.full(target.size, curvature)), State(c, np.asarray(b, dtype=float), [s]), time


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any sign of Q and c, any direction of b, for as long as rounding is not magnified past the tolerance.

    A start's part along the growing eigenvector is resolved to 1e-16, and the flow multiplies it by e^{μt}.
    """
    d1 = draw(st.integers(1, 4))
    entries = st.lists(finite(-4, 4), min_size=d1, max_size=d1)
    curvature = draw(finite(0.1, 10))
    beta, b = np.array(draw(entries)), np.array(draw(entries))
    c, s = draw(finite(-3, 3)), draw(st.sampled_from([0.0, 0.0, 0.7]))
    mu = np.hypot(np.linalg.norm(beta), (c * c - b @ b - s * s) / 2)
    return _case(curvature, beta, c, b, s, draw(finite(0, 6)) / (1 + mu) / curvature)


def _distance(found: State, expected: State) -> float:
    scale = max(np.linalg.norm(expected.vector), 1e-3)  # far below it the integrator's absolute tolerance rules
    return float(np.linalg.norm(found.vector - expected.vector) / scale)


@given(cases())
@example(_case(1.0, [3.0], 1.0, [1.0], 0.0, 2.0))
@example(_case(1.0, [0.0, 0.0], 1.0, [0.6, 0.8], 0.0, 3.0))  # β = 0 and Q = 0: no exponential at all
@example(_case(2.0, [1.0], 0.0, [0.0], 0.0, 1.0))
@example(_case(1.0, [2.5e-162], 0.0, [1.0], 0.0, 0.7))  # a target whose square underflows
@example(_case(1.0, [2.0], 1.0, [-0.6], 0.7, 1.5))  # α = 1: the pair is one more feature of target 0
def test_closed_form_equals_an_integration_written_out_here(case: Case) -> None:
    model, start, time = case
    curvature, d1 = model.covariance[0], model.beta.size

    def velocity(_: float, y: np.ndarray) -> np.ndarray:
        c, b, s = y[0], y[1 : 1 + d1], y[-1]
        residual = model.beta - c * b
        return np.concatenate(
            [
                [curvature * (b @ residual) - model.alpha[0] * c * s**2],
                c * curvature * residual,
                [-model.alpha[0] * c * c * s],
            ]
        )

    begin = np.concatenate([[start.c], start.b, start.s])
    end = solve_ivp(velocity, (0, max(time, 1e-300)), begin, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    found = exact_flow(model, start, [time]).state.vector[0]
    np.testing.assert_allclose(found, end, rtol=1e-9, atol=1e-9 * max(np.abs(end).max(), 1e-3))


@given(cases())
@example(_case(1.0, [4.0, 0.0], -2.0, [1.0, 3.0], 0.0, 1.0))
def test_gradient_flow_equals_the_closed_form(case: Case) -> None:
    model, start, time = case
    times = np.linspace(0, time, 5) if time > 1e-12 else np.zeros(1)
    flow, exact = gradient_flow(model, start, times).state, exact_flow(model, start, times).state
    for i in range(times.size):
        assert _distance(flow.at(i), exact.at(i)) <= 1e-9


@given(cases(), finite(0, 1))
def test_flowing_twice_is_flowing_once_and_keeps_the_balance(case: Case, share: float) -> None:
    model, start, time = case
    middle = exact_flow(model, start, [share * time]).state.at(0)
    twice = exact_flow(model, middle, [(1 - share) * time]).state.at(0)
    once = exact_flow(model, start, [time]).state.at(0)
    np.testing.assert_allclose(twice.vector, once.vector, atol=1e-11 * (1 + np.abs(start.vector).max()))
    size = float(start.vector @ start.vector)
    assert balancedness(once) == pytest.approx(float(balancedness(start)), abs=1e-11 * (1 + size))


def test_the_formula_with_a_dense_matrix_exponential_and_quadrature() -> None:
    beta, z = np.array([1.0, -2.0, 0.5]), np.array([0.8, 0.3, 0.4, -1.1])
    q = z[0] ** 2 - z[1:] @ z[1:]
    a = np.zeros((4, 4))
    a[0, 1:] = a[1:, 0] = beta
    a[np.diag_indices(4)] = [q / 2, -q / 2, -q / 2, -q / 2]
    nodes, weights = np.polynomial.legendre.leggauss(30)
    t = 0.7
    integral = sum(
        w * t / 2 * np.sum((expm(a * t * (x + 1) / 2) @ z) ** 2) for x, w in zip(nodes, weights, strict=True)
    )
    expected = expm(a * t) @ z / np.sqrt(1 + integral)
    found = exact_flow(Model([1.0], beta, np.ones(3)), State(z[0], z[1:], [0.0]), [t]).state.vector[0, :4]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("b", [[0.3, 0.4], [-2.0, 1.0], [0.0, 0.0], [5.0, 5.0]])
def test_long_times_end_in_the_limit_of_the_flow(b: list[float]) -> None:
    model, start = Model([9.0], [3.0, -1.0], [2.0, 2.0]), State(0.7, b, [0.0])
    times = [1e3, 1e6, 1e15, 1e300]
    end = exact_flow(model, start, times).state
    limit = flow_limit(model, start)
    np.testing.assert_allclose(np.abs(end.c), float(limit.c), rtol=1e-14)
    np.testing.assert_allclose(end.c[:, None] * end.b, np.tile(model.beta, (4, 1)), rtol=1e-13, atol=1e-14)


def test_a_start_against_beta_falls_to_the_origin() -> None:
    # Q = 0, b = −cβ/‖β‖: c² = ‖β‖/((1 + ‖β‖/c₀²) e^{2‖β‖t} − 1), from (c²)' = −2c²(‖β‖ + c²)
    t = np.array([0.0, 0.5, 2.0, 4.0])
    c = exact_flow(Model([1.0], [2.0], [1.0]), State(1.0, [-1.0], [0.0]), t).state.c
    np.testing.assert_allclose(c**2, 2 / (3 * np.exp(4 * t) - 1), rtol=1e-6)


def test_critical_points_stay() -> None:
    model = Model([1.0], [2.0, 0.0], [1.0, 1.0])
    for start in (State(0.0, [0.0, 1.5], [0.0]), State(0.0, [0.0, 0.0], [0.0]), State(2.0, [1.0, 0.0], [0.0])):
        end = exact_flow(model, start, [1.0, 1e3]).state.vector
        np.testing.assert_allclose(end, [start.vector] * 2, rtol=1e-12, atol=1e-15)


@given(finite(0.3, 2.0), finite(-1.5, 1.5), finite(-1.5, 1.5))
def test_descent_approaches_the_closed_form_at_first_order(c: float, b1: float, b2: float) -> None:
    model, start = Model([1.0], [1.5, 0.0], [1.0, 1.0]), State(c, [b1, b2], [0.8])
    steps = np.array([100, 200, 400])
    expected = exact_flow(model, start, [1.0]).state.at(0)
    errors = [_distance(gradient_descent(model, start, 1 / n, int(n)).state.at(-1), expected) for n in steps]
    # Richardson: where the leading coefficient happens to be small the slope is not yet seen; the error is then tiny.
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(slope - 1) < 0.1 or max(errors) < 1e-4


@pytest.mark.parametrize(
    ("model", "s", "times", "words"),
    [
        (Model([2.0], [1.0], [1.0]), 0.5, [1.0], "one second moment"),
        (Model([2.0], [1.0, 1.0], [1.0, 0.5]), 0.0, [1.0], "one second moment"),
        (Model([2.0], [1.0], [1.0]), 0.0, [-1.0], "at least 0"),
        (Model([2.0], [1.0], [1.0]), 0.0, [float("inf")], "at least 0"),
    ],
)
def test_what_has_no_closed_form_is_refused(model: Model, s: float, times: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        exact_flow(model, State(1.0, np.ones(model.beta.size), [s]), times)
    assert "\n" not in str(caught.value)
