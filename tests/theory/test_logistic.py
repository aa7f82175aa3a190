"""The logistic loss against autograd, its exact laws, and the statements it breaks in numbers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import finite

from theory import InputError, State, balancedness
from theory.logistic import (
    LogisticModel,
    logistic_descent,
    logistic_drive,
    logistic_gradient,
    logistic_group_gap,
    logistic_group_losses,
    logistic_growth_factor,
    logistic_loss,
    secant_curvature,
)


@st.composite
def cases(draw: st.DrawFn, weight: float = 4.0) -> tuple[LogisticModel, State]:
    n, d1 = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    q = np.array(draw(st.lists(finite(-3, 3), min_size=n * d1, max_size=n * d1))).reshape(n, d1)
    model = LogisticModel(q, draw(finite(0.01, 1)), draw(finite(1e-3, 1e2)))
    b = draw(st.lists(finite(-weight, weight), min_size=d1, max_size=d1))
    return model, State(draw(finite(-weight, weight)), np.array(b), np.array([draw(finite(-weight, weight))]))


def _autograd_loss(model: LogisticModel, vector: torch.Tensor) -> torch.Tensor:
    """Example by example: labels, features and scores, not margins."""
    c, b, s = vector[0], vector[1:-1], vector[-1]
    total = torch.zeros((), dtype=torch.float64)
    p, h = model.fraction, (model.alpha / model.fraction) ** 0.5
    for row in torch.tensor(model.q):
        for label, share in ((1.0, 0.5), (-1.0, 0.5)):
            x = label * row
            for opposing, weight in ((0.0, 1 - p), (h, p)):
                score = c * (b @ x + s * opposing)
                loss = torch.nn.functional.binary_cross_entropy_with_logits(
                    score, torch.tensor((label + 1) / 2).double()
                )
                total = total + share * weight * loss / len(model.q)
    return total


@given(cases())
@example((LogisticModel([[1.0]], 1.0, 1.0), State(1.0, [0.0], [0.0])))
def test_loss_and_gradient_equal_autograd(case: tuple[LogisticModel, State]) -> None:
    model, state = case
    vector = torch.tensor(state.vector)
    expected = torch.func.grad(lambda v: _autograd_loss(model, v))(vector).numpy()
    assert logistic_loss(model, state) == pytest.approx(float(_autograd_loss(model, vector)), rel=1e-11, abs=1e-14)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logistic_gradient(model, state).vector, expected, rtol=1e-9, atol=1e-10 * scale + 1e-14)
    # −∂_cL = D − c s² A
    drive, pull = logistic_drive(model, state), state.c * state.s[0] ** 2 * secant_curvature(model, state)
    assert float(pull - drive) == pytest.approx(
        expected[0], abs=1e-14 + 1e-10 * (scale + abs(float(pull)) + abs(float(drive)))
    )


@given(cases())
@example((LogisticModel([[1.0]], 1.0, 1.0), State(1.0, [0.0], [0.0])))
def test_group_gap_is_the_difference_of_the_group_losses(case: tuple[LogisticModel, State]) -> None:
    model, state = case
    plus, minus = logistic_group_losses(model, state)
    gap = logistic_group_gap(model, state)
    assert plus - minus == pytest.approx(gap, abs=1e-12 * (1 + abs(plus) + abs(minus)))
    mirrored = State(state.c, state.b, -state.s)
    assert logistic_group_gap(model, mirrored) == pytest.approx(-gap, abs=1e-12 * (1 + abs(gap)))
    no_margin = State(state.c, np.zeros_like(state.b), state.s)
    z = state.c * state.s[0] * model.feature
    assert logistic_group_gap(model, no_margin) == pytest.approx(-z, abs=1e-12 * (1 + abs(z)))


@pytest.mark.parametrize("s", [0.1, 0.5, 2.0])
def test_group_gap_is_linear_for_any_symmetric_law_of_margins(s: float) -> None:
    model = LogisticModel([[1.0], [-1.0], [0.3], [-0.3]], 1.0, 4.0)
    assert logistic_group_gap(model, State(1.0, [1.0], [s])) == pytest.approx(-2 * s, rel=1e-12)
    lopsided = LogisticModel([[1.0], [-0.5]], 1.0, 4.0)
    assert abs(logistic_group_gap(lopsided, State(1.0, [1.0], [s])) + 2 * s) > 1e-3


def test_group_gap_has_slope_minus_two_sigma_at_zero() -> None:
    model = LogisticModel([[1.0], [-0.5]], 0.2, 0.2)
    z = 1e-5
    expected = -2 * np.mean(1 / (1 + np.exp(np.array([2.0, -1.0]))))
    assert logistic_group_gap(model, State(1.0, [2.0], [z])) / z == pytest.approx(expected, rel=1e-8)


@given(cases(1.5), finite(1e-3, 0.5))
def test_descent_multiplies_s_by_the_secant_factor_and_changes_q_exactly(
    case: tuple[LogisticModel, State], lr: float
) -> None:
    model, start = case
    # The descent of an autograd gradient, not the package's.
    before = torch.tensor(start.vector)
    slope = torch.func.grad(lambda v: _autograd_loss(model, v))(before).numpy()
    after = start.vector - lr * slope
    factor = float(logistic_growth_factor(model, start, lr))
    rounding = 1e-11 * (1 + np.abs(after).max() ** 2)
    assert after[-1] == pytest.approx(factor * start.s[0], abs=rounding)
    run = logistic_descent(model, start, lr, 3).state
    np.testing.assert_allclose(run.vector[1], after, rtol=0, atol=rounding)
    change = lr**2 * (slope[0] ** 2 - (slope[1:] ** 2).sum())
    assert np.diff(balancedness(run))[0] == pytest.approx(change, abs=rounding)


@given(finite(-700, 700), finite(-700, 700))
@example(0.0, 0.0)
@example(1e-300, 700.0)
@example(700.0, 1e-9)
def test_secant_curvature_neither_overflows_nor_cancels(z: float, margin: float) -> None:
    model = LogisticModel([[1.0]], 1.0, 1.0)
    got = float(secant_curvature(model, State(1.0, [margin], [z])))
    # Extended precision: up to 700 nothing overflows there.
    x, m = np.longdouble(abs(z)), np.longdouble(margin)
    sinhc = np.sinh(x) / x if x > 1e-10 else np.longdouble(1)
    assert got == pytest.approx(float(sinhc / (2 * (np.cosh(x) + np.cosh(m)))), rel=1e-12)


def test_secant_curvature_is_the_hessian_at_zero_and_falls_as_one_over_z() -> None:
    model, b = LogisticModel([[1.0], [-0.4], [2.0]], 0.3, 5.0), 1.3
    at_zero = torch.tensor([1.0, b, 0.0], dtype=torch.float64)
    hessian = torch.func.hessian(lambda v: _autograd_loss(model, v))(at_zero)[-1, -1]
    assert secant_curvature(model, State(1.0, [b], [0.0])) == pytest.approx(float(hessian), rel=1e-12)
    far = State(1.0, [b], [40.0])
    assert secant_curvature(model, far) == pytest.approx(5.0 / (2 * 40.0 * model.feature), rel=1e-6)


@pytest.mark.parametrize(("margin", "falls"), [(0.0, True), (1.316, True), (1.318, False), (2.5, False)])
def test_secant_curvature_first_falls_or_rises_by_the_margin(margin: float, falls: bool) -> None:
    model = LogisticModel([[1.0]], 1.0, 1.0)
    curvature = secant_curvature(model, State(np.ones(2), np.full((2, 1), margin), np.array([[0.0], [0.03]])))
    assert (curvature[1] < curvature[0]) == falls


def test_s_turns_where_the_hessian_reaches_two_over_lr() -> None:
    # Scale α so that the sharpness, rising along the same path of (c, b), passes 2/η in the middle of its rise.
    q, lr = np.array([[1.0], [1.2], [0.8], [-1.0]]), 1e-3
    silent = logistic_descent(LogisticModel(q, 0.1, 1.0), State(0.5, [0.4], [0.0]), lr, 3000).state
    unit = silent.c**2 * secant_curvature(LogisticModel(q, 0.1, 1.0), silent)
    alpha = 2 / (lr * unit[1500])
    model = LogisticModel(q, 0.1, float(alpha))
    # From step 1000 on: from the start, s would underflow.
    run = logistic_descent(model, State(silent.c[1000], silent.b[1000], [1e-12]), lr, 1000).state
    assert unit[1400] < unit[1500] < unit[1600]
    assert abs(int(np.abs(run.s[:, 0]).argmin()) - 500) <= 2


def test_edge_of_stability_holds_the_secant_curvature_not_the_sharpness() -> None:
    rng = np.random.default_rng(1)
    q = np.stack([1 + 0.5 * rng.uniform(-1, 1, 200), 0.3 * rng.normal(size=200)], axis=1)
    model, lr = LogisticModel(q, 0.1, 2000.0), 0.004
    run = logistic_descent(model, State(1.0, [0.3, 0.1], [0.05]), lr, 4000).state
    window = slice(100, 750)
    edge = lr * run.c**2 * secant_curvature(model, run)
    sharp = lr * run.c**2 * secant_curvature(model, State(run.c, run.b, np.zeros_like(run.s)))
    assert edge[window].mean() == pytest.approx(2, abs=5e-3)
    assert abs(sharp[window].mean() - 2) > 0.02
    # Separable: the sharpness falls far below the threshold by itself and the oscillation ends.
    assert sharp[-1] < 1
    assert abs(run.s[-1, 0]) < 1e-12


def test_t5_fails_with_a_mislabelled_example() -> None:
    q, p, alpha = np.array([2.452, 2.627, 2.36, -1.749, 2.839]), 0.7839, 0.5147
    h = np.sqrt(alpha / p)

    def velocity(_: float, v: np.ndarray) -> np.ndarray:
        c, b, s = v
        sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
        margin, z = c * b * q, c * s * h
        up, down = sigmoid(-margin - z), sigmoid(-margin + z)
        pull = (((1 - p) * sigmoid(-margin) + p / 2 * (up + down)) * q).mean()
        push = p / 2 * h * (down - up).mean()
        return np.array([pull * b - push * s, c * pull, -c * push])

    solution = solve_ivp(velocity, (0, 250), [1.0, 0.2474, 1.0661], "DOP853", np.linspace(0, 250, 2501), rtol=1e-10)
    c = solution.y[0]
    top = int(c.argmax())
    assert solution.t[top] == pytest.approx(1.5, abs=0.06)
    assert c[top] == pytest.approx(1.0334, abs=1e-4)
    assert c[-1] == pytest.approx(0.7977, abs=1e-4)
    slope = logistic_gradient(LogisticModel(q[:, None], p, alpha), State.from_vector(solution.y[:, 700], 1)).vector
    np.testing.assert_allclose(-slope, velocity(0, solution.y[:, 700]), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize(
    ("margin", "x", "from_small", "from_large"),
    [(0.0, 2.1, 0.778, 0.778), (1.0, 2.1, 1.217, 1.217), (2.5, 1.96, 0.0, 6.904), (2.5, 2.1, 7.435, 7.435)],
)
def test_two_cycle_of_s_at_fixed_c_and_margin(margin: float, x: float, from_small: float, from_large: float) -> None:
    # Supercritical below |M| = 1.317, subcritical above: at M = 2.5 it lives below the threshold x = 2 too.
    model = LogisticModel([[1.0]], 1.0, 1.0)

    def factor(z: float, lr: float) -> float:
        return float(logistic_growth_factor(model, State(1.0, [margin], [z]), lr))

    lr = x / float(secant_curvature(model, State(1.0, [margin], [0.0])))
    for z, expected in ((0.01, from_small), (8.0, from_large)):
        for _ in range(3000):
            z *= factor(z, lr)
        assert abs(z) == pytest.approx(expected, abs=2e-3)
        if expected:
            assert factor(z, lr) == pytest.approx(-1, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LogisticModel([1.0], 0.5, 1.0), "q has shape"),
        (lambda: LogisticModel([[np.nan]], 0.5, 1.0), "q has shape"),
        (lambda: LogisticModel([[1.0]], 1.5, 1.0), "fraction is 1.5"),
        (lambda: LogisticModel([[1.0]], 0.0, 1.0), "fraction is 0"),
        (lambda: LogisticModel([[1.0]], 0.5, 0.0), "alpha is 0"),
        (lambda: logistic_descent(LogisticModel([[1.0]], 0.5, 1.0), State(1.0, [1.0], [1.0]), 0.0, 1), "lr is 0"),
    ],
)
def test_bad_input_is_refused_in_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
