"""Bounds on the turning point and on the rise after it, against flows integrated here in the reduced variables."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import finite

from theory import InputError, Model, State, gradient_descent, gradient_flow
from theory.sharpening import c_squared_lower, c_squared_lower_after_turn, c_squared_upper, sharpening_rate_bound
from theory.turning_bounds import (
    TURNING_ALIGNMENT_LIMIT,
    TURNING_CURVATURE_LIMIT,
    TURNING_TIME_LIMIT,
    turning_bounds,
    turning_bounds_of,
)

Start = tuple[float, float, float, float, float]  # α, ‖β‖, p, s, c


def _flow(start: Start, time: float) -> tuple[Callable[[float], np.ndarray], float, float]:
    """Interpolated (c, p, n, s) of the flow with Σ = I, the time of its turn (inf if none), and c'(0)."""
    alpha, beta, p, s, c = start

    def velocity(_: float, y: np.ndarray) -> list[float]:
        c, p, n, s = y
        return [
            p * beta - c * (p * p + n * n + alpha * s * s),
            c * (beta - c * p),
            -c * c * n,
            -alpha * c * c * s,
        ]

    begin = [c, p, np.sqrt(max(c * c - p * p - s * s, 0.0)), s]
    run = solve_ivp(velocity, (0, time), begin, method="LSODA", rtol=1e-11, atol=1e-14, dense_output=True)
    speed = np.array([velocity(0.0, y)[0] for y in run.y.T])
    turns = np.flatnonzero((speed[:-1] < 0) & (speed[1:] >= 0))
    if speed[0] >= 0 or not turns.size:
        return run.sol, 0.0 if speed[0] >= 0 else np.inf, float(speed[0])
    low, high = run.t[turns[0]], run.t[turns[0] + 1]
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if velocity(0.0, run.sol(middle))[0] < 0 else (low, middle)
    return run.sol, float(high), float(speed[0])


@st.composite
def starts(draw: st.DrawFn) -> Start:
    """α from 1 to 10⁴, ‖β‖/c² from 0.1 to 100, any balanced start with bᵀβ ≥ 0, at any scale of c."""
    alpha, beta = 10 ** draw(finite(0, 4)), 10 ** draw(finite(-1, 2))
    first = draw(finite(0, np.pi / 2))  # s = cos, then p and n
    second = draw(finite(0, np.pi / 2))
    c = 10 ** draw(finite(-1, 1))
    return alpha, beta * c**2, np.sin(first) * np.sin(second) * c, np.cos(first) * c, c


@given(starts())
@example((1.0, 3.0, 0.0, 1.0, 1.0))  # α = 1: the pair is one more feature
@example((1.0, 3.0, 0.6, 0.0, 1.0))  # s = 0
@example((20.0, 3.0, 0.0, 0.0, 1.0))  # b across β, s = 0
@example((20.0, 3.0, 1.0, 0.0, 1.0))  # b along β: rises at once
@example((20.0, 0.5, 1.0, 0.0, 1.0))  # … or falls for ever
@example((20.0, 3.0, 0.0, 1.0, 1.0))
@example((20.0, 3.0, 0.0, -1.0, 1.0))  # the sign of s does not matter
def test_the_turning_point_lies_within_its_bounds(start: Start) -> None:
    alpha, beta, *_, c = start
    run, time, first = _flow(start, 12 / beta + 5 / c**2)
    bounds = turning_bounds(*start)
    if abs(first) < 1e-9 * alpha * c**3:
        return  # t₁ = 0 up to rounding
    assert time <= bounds.time_upper * (1 + 1e-7) + 1e-12
    assert time >= bounds.time_lower * (1 - 1e-7) - 1e-12
    if np.isfinite(time):
        at_turn = run(time)[0] ** 2
        assert at_turn >= bounds.c_squared_lower * (1 - 1e-7)
        assert at_turn <= bounds.c_squared_upper * (1 + 1e-7)
    assert np.isfinite(bounds.time_upper) == (beta > c**2 or first >= 0)


@pytest.mark.parametrize(
    ("alpha", "beta", "p", "n", "time", "curvature", "slack"),
    [
        # ‖β‖t₁ and αc(t₁)²/‖β‖ of paper-like starts, and how far the bounds on t₁ may be off.
        (2.0, 3.0, 0.0, 0.0, 0.4599, 0.5042, 1.4),
        (10.0, 3.0, 0.0, 0.0, 0.5647, 1.0373, 1.9),
        (20.0, 3.0, 0.0, 0.0, 0.5544, 1.2313, 2.1),
        (10000.0, 3.0, 0.0, 0.0, 0.4771, 1.7964, 2.6),
        (5.0, 4.0, 0.0, 11**-0.5, 0.5027, 0.7627, 2.0),
        (20.0, 3.0, 0.0, 21**-0.5, 0.5202, 1.4268, 2.3),
    ],
)
def test_known_turning_points_and_the_width_of_their_bounds(
    alpha: float, beta: float, p: float, n: float, time: float, curvature: float, slack: float
) -> None:
    s = np.sqrt(1 - p * p - n * n)
    model, start = Model([alpha], [beta, 0.0], [1.0, 1.0]), State(1.0, [p, n], [s])
    turn = gradient_flow(model, start, [2 / beta]).turning_time
    assert beta * turn == pytest.approx(time, abs=6e-5)
    height = gradient_flow(model, start, [turn]).state.c[0] ** 2
    assert alpha * height / beta == pytest.approx(curvature, abs=6e-5)
    bounds = turning_bounds_of(model, start)
    assert turn / slack < bounds.time_lower < turn < bounds.time_upper < turn * slack
    assert height / 2 < bounds.c_squared_lower < height < bounds.c_squared_upper < 2 * height


@given(starts(), finite(0.1, 10.0))
def test_the_bounds_scale_as_the_flow_does(start: Start, scale: float) -> None:
    alpha, beta, p, s, c = start
    one = turning_bounds(*start)
    other = turning_bounds(alpha, beta * scale**2, p * scale, s * scale, c * scale)
    assume(abs(beta / c**2 - 1) > 1e-9)  # from there on the upper bound is finite
    # c'(0) = 0 up to rounding: the two sides may disagree whether t₁ = 0.
    assume((one.time_upper == 0) == (other.time_upper == 0))
    for name, power in (("time_lower", 2), ("time_upper", 2), ("c_squared_lower", -2), ("c_squared_upper", -2)):
        np.testing.assert_allclose(getattr(other, name) * scale**power, getattr(one, name), rtol=1e-6, atol=1e-12)


def test_arrays_of_parameters_give_what_each_gives() -> None:
    alpha, beta = np.array([1.0, 5.0, 50.0])[:, None], np.array([0.5, 3.0])
    whole = turning_bounds(alpha, beta, 0.1, 0.9)
    for name in ("time_lower", "time_upper", "c_squared_lower", "c_squared_upper"):
        each = [[float(getattr(turning_bounds(a, b, 0.1, 0.9), name)) for b in beta] for a in alpha[:, 0]]
        np.testing.assert_allclose(getattr(whole, name), each, rtol=1e-14)
    model = Model([5.0], [3.0, 0.0], [1.0, 1.0])
    n = np.sqrt(1 - 0.01 - 0.81)
    starts = State(np.ones(2), [[0.1, n], [0.0, 1.0]], [[0.9], [0.0]])
    of = turning_bounds_of(model, starts)
    np.testing.assert_allclose(of.time_upper[0], whole.time_upper[1, 1], rtol=1e-12)
    assert "α ≥ 1" in of.hypotheses


def test_the_limits_of_strong_opposing_features() -> None:
    # w = αc²/‖β‖, T = ‖β‖t: w' = 2w(u − w(1−u²)), u' = (1−u²)(1 + uw), from w = 1/(2T), u = 2T; y = 1/w is regular.
    def velocity(_: float, z: np.ndarray) -> list[float]:
        y, u = z
        return [2 * (1 - u * u) - 2 * u * y, (1 - u * u) * (1 + u / y)]

    def turn(_: float, z: np.ndarray) -> float:
        return float(z[0] * z[1] - (1 - z[1] ** 2))

    begin = 1e-4
    run = solve_ivp(velocity, (begin, 1.0), [2 * begin] * 2, method="LSODA", rtol=1e-12, atol=1e-16, events=turn)
    (time,), ((inverse, u),) = run.t_events[0], run.y_events[0]
    np.testing.assert_allclose(
        [time, 1 / inverse, u],
        [TURNING_TIME_LIMIT, TURNING_CURVATURE_LIMIT, TURNING_ALIGNMENT_LIMIT],
        rtol=1e-8,
    )


def test_the_limits_are_approached_at_order_one_half() -> None:
    ratios, errors = 10.0 ** np.array([4, 5, 6, 7]), []
    for ratio in ratios:
        run, time, _ = _flow((ratio, 1.0, 0.0, 1.0, 1.0), 1.0)
        c, p, *_ = run(time)
        errors.append(
            [time - TURNING_TIME_LIMIT, TURNING_CURVATURE_LIMIT - ratio * c * c, TURNING_ALIGNMENT_LIMIT - p / c]
        )
    assert (np.array(errors) > 0).all()
    slopes = np.polyfit(np.log(ratios), np.log(errors), 1)[0]
    np.testing.assert_allclose(slopes, -0.5, atol=0.02)


def test_descent_turns_where_the_flow_does_to_first_order() -> None:
    model, start = Model([20.0], [3.0, 0.0], [1.0, 1.0]), State(1.0, [0.0, 21**-0.5], [(20 / 21) ** 0.5])
    turn = gradient_flow(model, start, [0.5]).turning_time
    lowest = gradient_flow(model, start, [turn]).state.c[0]
    rates = 0.002 / 2.0 ** np.arange(5)
    errors = [abs(gradient_descent(model, start, lr, round(0.3 / lr)).state.c.min() - lowest) for lr in rates]
    assert np.polyfit(np.log(rates), np.log(errors), 1)[0] == pytest.approx(1, abs=0.05)


@given(starts())
@example((20.0, 3.0, 0.0, 0.99, 1.0))
@example((1.0, 3.0, 0.6, 0.0, 1.0))
def test_c_squared_lies_within_its_bounds_before_and_after_the_turn(start: Start) -> None:
    alpha, beta, p, _, c = start
    alpha = min(alpha, 300.0)
    run, turn, _ = _flow((alpha, *start[1:]), 12 / beta + 5 / c**2)
    times = np.array([0.0, 0.1, 0.3, 0.6, 1.0, 2.0, 4.0]) / beta
    c_squared = np.array([run(t)[0] ** 2 for t in times])
    assert (c_squared <= c_squared_upper(times, beta, c**2) * (1 + 1e-7)).all()
    assert (c_squared >= c_squared_lower(times, alpha, beta, c**2, min(p / c, 1.0)) * (1 - 1e-7)).all()
    assume(np.isfinite(turn))
    height, projection, _, opposing = run(turn)
    rise = np.array([run(turn + t)[0] ** 2 for t in times])
    after = c_squared_lower_after_turn(times, alpha, beta, height**2, min(projection / height, 1.0), opposing)
    assert (rise <= c_squared_upper(times, beta, height**2) * (1 + 1e-7)).all()
    assert (rise >= after * (1 - 1e-7)).all()


def test_the_bounds_on_the_rise_are_close_in_a_paper_like_run() -> None:
    start = (20.0, 3.0, 0.0, (20 / 21) ** 0.5, 1.0)
    run, turn, _ = _flow(start, 8.0)
    height, projection, _, opposing = run(turn)
    times = np.linspace(0, 4, 41)
    c_squared = np.array([run(turn + t)[0] ** 2 for t in times])
    after = c_squared_lower_after_turn(times, 20.0, 3.0, height**2, projection / height, opposing)
    assert (c_squared_upper(times, 3.0, height**2) / c_squared).max() < 1.65
    assert (after / c_squared).min() > 0.85
    assert after[-1] == pytest.approx(3.0, rel=1e-6)
    whole = np.array([run(t)[0] ** 2 for t in times])
    assert (c_squared_lower(times, 20.0, 3.0, 1.0, 0.0) / whole).min() > 0.3
    rates = np.gradient(20.0 * np.array([run(t)[0] ** 2 for t in np.linspace(0, 5, 5001)]), 1e-3)
    assert 0.7 < rates.max() / sharpening_rate_bound(20.0, 3.0) <= 1


@given(finite(0, 1e3), finite(1e-3, 1e3), finite(1e-6, 1e3))
def test_both_bounds_are_exact_along_beta(time: float, beta: float, c_squared: float) -> None:
    """For b = cβ/‖β‖, s = 0 the flow is logistic; written out with another arrangement of exponentials."""
    x = np.exp(-2 * beta * time)
    expected = beta * c_squared / (c_squared * (1 - x) + beta * x)
    assert c_squared_upper(time, beta, c_squared) == pytest.approx(expected, rel=1e-9)
    assert c_squared_lower(time, 5.0, beta, c_squared, 1.0) == pytest.approx(expected, rel=1e-9)
    assert c_squared_lower_after_turn(time, 5.0, beta, c_squared, 1.0, 0.0) == pytest.approx(
        max(expected, c_squared), rel=1e-9
    )


@given(finite(1, 50), finite(0.5, 5), finite(0.05, 1), finite(0, 0.95), finite(0, 1))
@example(1.0, 3.0, 0.2, 0.6, 0.5)
@example(15.0, 3.0, 0.2, 0.6, 1.0)  # ρ = 2αc₁² = 2‖β‖
def test_the_lower_bounds_are_the_comparison_they_are_said_to_be(
    alpha: float, beta: float, height: float, u: float, share: float
) -> None:
    """Their differential equations integrated, with the integrals in place of their closed forms."""
    shift, s_squared = np.arctanh(u), share * height * (1 - u * u)

    def least(t: float, z: np.ndarray) -> np.ndarray:
        slope = np.tanh(beta * t + shift)
        left = s_squared * np.exp(-2 * alpha * height * t)
        return np.array(
            [
                2 * alpha - 2 * (alpha - 1) * slope**2 - 2 * beta * slope * z[0],
                2 + 2 * (alpha - 1) * left * z[1] - 2 * beta * slope * z[1],
            ]
        )

    times = np.array([0.0, 0.2, 1.0]) / beta
    run = solve_ivp(least, (0, times[-1]), [1 / height] * 2, t_eval=times, method="LSODA", rtol=1e-11, atol=1e-13)
    any_time = c_squared_lower(times, alpha, beta, height, u)
    np.testing.assert_allclose(any_time, 1 / run.y[0], rtol=1e-7)
    after = c_squared_lower_after_turn(times, alpha, beta, height, u, np.sqrt(s_squared))
    best = np.maximum(np.maximum(1 / run.y[1], any_time), height)
    # The chord gives away a little; without opposing weight nothing.
    assert (after <= best * (1 + 1e-7)).all()
    assert (after >= best * (0.8 if s_squared else 1 - 1e-7)).all()


def test_the_bound_after_the_turn_with_its_integrals_by_quadrature() -> None:
    alpha, beta, height, u, s, t = 20.0, 3.0, 0.2, 0.6, 0.3, 0.3
    nodes, weights = np.polynomial.legendre.leggauss(40)
    x, weights = t * (nodes + 1) / 2, t * weights / 2
    growth = np.cosh(beta * x + np.arctanh(u)) ** 2 / np.cosh(np.arctanh(u)) ** 2
    end = np.cosh(beta * t + np.arctanh(u)) ** 2 / np.cosh(np.arctanh(u)) ** 2
    k, rate = (alpha - 1) * s**2 / (alpha * height), 2 * alpha * height
    e = np.exp(k * (1 - np.exp(-rate * t)))
    # E(t)/E(x) under its chord, from E(t) at x = 0 to 1 at x = t
    chord = 1 + (e - 1) * (np.exp(-rate * x) - np.exp(-rate * t)) / (1 - np.exp(-rate * t))
    assert (chord >= np.exp(k * (np.exp(-rate * x) - np.exp(-rate * t)))).all()
    expected = end / (e / height + 2 * (weights * growth * chord).sum())
    assert expected > max(height, float(c_squared_lower(t, alpha, beta, height, u)))
    assert c_squared_lower_after_turn(t, alpha, beta, height, u, s) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.9, 3.0, 0.0, 1.0), "alpha"),
        ((float("nan"), 3.0, 0.0, 1.0), "alpha"),
        ((2.0, 0.0, 0.0, 1.0), "beta"),
        ((2.0, 3.0, -0.1, 0.5), "projection"),
        ((2.0, 3.0, 0.8, 0.7), "p² \\+ s²"),
        ((2.0, 3.0, 0.8, 0.7, -2.0), "c is"),
    ],
)
def test_parameters_outside_the_hypotheses_are_refused(arguments: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        turning_bounds(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "start", "words"),
    [
        (Model([2.0], [3.0], [0.5]), State(1.0, [0.0], [1.0]), "covariance 1"),
        (Model([2.0, 3.0], [3.0], [1.0]), State(1.0, [0.0], [1.0, 0.0]), "one opposing pair"),
        (Model([2.0], [3.0], [1.0]), State(1.0, [0.0], [0.5]), "Q ="),
        (Model([2.0], [0.0], [1.0]), State(1.0, [0.0], [1.0]), "beta is 0"),
    ],
)
def test_models_outside_the_hypotheses_are_refused(model: Model, start: State, words: str) -> None:
    with pytest.raises(InputError, match=words):
        turning_bounds_of(model, start)
