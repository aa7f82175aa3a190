"""The curve of minima: sharpness by LAPACK, the flattest point by brute force, and where descent ends on it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from strategies import finite

from theory import (
    InputError,
    Model,
    State,
    balancedness,
    flow_limit,
    gradient,
    gradient_descent,
    gradient_flow,
    hessian,
    random_start,
    sharpness,
)
from theory.curvature import layer_sharpness
from theory.minima import (
    balancedness_drift,
    descent_limit,
    flattest_minimum,
    minimum_at,
    smallest_minimum_sharpness,
    smallest_minimum_sharpness_identity,
    stable_interval,
)
from theory.statements import all_statements


@st.composite
def models(draw: st.DrawFn, *, identity: bool = False) -> Model:
    """Any number of features and pairs over six decades; some targets and second moments are 0, Σβ is not."""
    d1, pairs = draw(st.integers(1, 4)), draw(st.integers(1, 2))
    wide = finite(-3, 3).map(lambda x: 10.0**x)
    beta = np.array(draw(st.lists(st.one_of(st.just(0.0), wide, wide.map(lambda x: -x)), min_size=d1, max_size=d1)))
    sigma = (
        np.ones(d1) if identity else np.array(draw(st.lists(st.one_of(st.just(0.0), wide), min_size=d1, max_size=d1)))
    )
    assume((sigma * beta).any())
    return Model(draw(st.lists(st.one_of(st.just(0.0), wide), min_size=pairs, max_size=pairs)), beta, sigma)


def _sharpness_at(model: Model, log_c_squared: np.ndarray) -> np.ndarray:
    """max(α c², largest eigenvalue of c²Σ + c⁻²(Σ^½β)(Σ^½β)ᵀ), dense."""
    pull = np.sqrt(model.covariance) * model.beta
    found = []
    for x in log_c_squared:
        ordinary = np.exp(x) * np.diag(model.covariance) + np.exp(-x) * np.outer(pull, pull)
        found.append(max(model.alpha.max() * np.exp(x), np.linalg.eigvalsh(ordinary)[-1]))
    return np.array(found)


@given(models(), finite(-3, 3))
@example(Model([20.0], [3.0], [1.0]), float(np.log(3.0)))
def test_a_minimum_is_one_and_its_sharpness_is_the_smaller_matrix_s(model: Model, log_c_squared: float) -> None:
    c = np.exp(log_c_squared / 2)
    state = minimum_at(model, [c, -c])
    scale = float(np.abs(model.curvatures).max() * (c + np.abs(model.beta).max()) ** 2)
    assert np.abs(gradient(model, state).vector).max() <= 1e-14 * scale
    expected = _sharpness_at(model, np.array([log_c_squared]))[0]
    np.testing.assert_allclose(sharpness(model, state), expected, rtol=1e-11)
    eigenvalues = np.linalg.eigvalsh(hessian(model, state.at(0)))
    assert eigenvalues[0] >= -1e-13 * eigenvalues[-1]


@given(models())
@example(Model([5.0], [4.0], [1.0]))
@example(Model([0.0], [0.0, 3.0], [10.0, 1.0]))  # the steepest feature has no target: a kink that α has no part in
@example(Model([0.0], [1.0, 0.0], [1.0, 1.0]))
def test_no_minimum_is_flatter_than_the_flattest(model: Model) -> None:
    flat = flattest_minimum(model)
    lowest = smallest_minimum_sharpness(model)
    at = 2 * np.log(float(flat.c))
    around = np.concatenate([np.linspace(-8, 8, 161), np.linspace(-1e-2, 1e-2, 41), [-1e-5, 1e-5]])
    values = _sharpness_at(model, at + around)
    assert lowest <= values.min() * (1 + 1e-10)
    assert lowest == pytest.approx(_sharpness_at(model, np.array([at]))[0], rel=1e-10)


@given(models(), finite(-4, 4))
def test_log_sharpness_is_convex_in_log_c_with_the_layers_shares_as_slope(model: Model, x: float) -> None:
    h = 1e-3
    left, middle, right = np.log(_sharpness_at(model, np.array([x - h, x, x + h])))
    assert left + right - 2 * middle >= -1e-10
    slope = 2 * float(layer_sharpness(model, minimum_at(model, np.exp(x / 2))).first_share) - 1
    # The slope lies between the secants on either side, whether the curve is smooth there or not.
    assert (middle - left) / h - 1e-6 <= slope <= (right - middle) / h + 1e-6


@given(finite(-2, 4), finite(-3, 3), st.integers(1, 4))
@example(np.log10(2.0), 0.0, 1)
def test_the_closed_form_for_identity_covariance(log_alpha: float, log_beta: float, d1: int) -> None:
    alpha, norm = 10**log_alpha, 10**log_beta
    model = Model([alpha, alpha / 3], norm * np.ones(d1) / np.sqrt(d1), np.ones(d1))
    assert smallest_minimum_sharpness(model) == pytest.approx(
        float(smallest_minimum_sharpness_identity(alpha, norm)), rel=1e-11
    )
    expected = norm / np.sqrt(alpha - 1) if alpha > 2 else norm
    assert float(flattest_minimum(model).c) ** 2 == pytest.approx(expected, rel=1e-6)


@given(models(), finite(1.001, 100.0))
def test_the_stable_minima_form_the_interval(model: Model, room: float) -> None:
    lowest = smallest_minimum_sharpness(model)
    low, high = stable_interval(model, 2 / (lowest * room))
    for c in (low, high):
        assert float(sharpness(model, minimum_at(model, c))) == pytest.approx(lowest * room, rel=1e-9)
    inside = np.exp(np.linspace(np.log(low), np.log(high), 9))
    assert (sharpness(model, minimum_at(model, inside)) <= lowest * room * (1 + 1e-9)).all()
    assert stable_interval(model, 2 / (lowest * 0.999)) is None


@pytest.mark.parametrize("alpha", [1.0, 20.0])
def test_the_interval_for_identity_covariance(alpha: float) -> None:
    threshold, norm = 15.0, 3.0
    low, high = stable_interval(Model([alpha], [norm], [1.0]), 2 / threshold)
    # c² + ‖β‖²/c² ≤ 2/η is quadratic in c²; αc² ≤ 2/η
    root = np.sqrt(threshold**2 - 4 * norm**2)
    assert low**2 == pytest.approx((threshold - root) / 2, rel=1e-11)
    assert high**2 == pytest.approx(min((threshold + root) / 2, threshold / alpha), rel=1e-11)


def _descend(alpha: float, norm: float, p: float, n: float, s: float, lr: float, steps: int) -> np.ndarray | None:
    """Σ = I descent from c = 1 as the setting writes it: the last (c, p, n, s), None if it diverged."""
    c = 1.0
    for _ in range(steps):
        d_c = -(p * (norm - c * p) - c * n * n) + alpha * c * s * s
        c, p, n, s = (
            c - lr * d_c,
            p + lr * c * (norm - c * p),
            n - lr * c * c * n,
            s - lr * alpha * c * c * s,
        )
        if not abs(c) + abs(p) + abs(s) < 1e6:
            return None
    return np.array([c, p, n, s])


@given(finite(0.5, 40.0), finite(0.5, 4.0), finite(-0.5, 0.5), finite(0.2, 0.9), finite(0.05, 1.9))
@example(20.0, 3.0, 0.0, 0.8, 0.8)  # the flow's limit, 60, lies above 2/η = 50
@example(20.0, 1.0, 0.0, 0.95, 1.8)  # 2/η = 22.2 is a third of the sharpness at the start
@example(5.0, 4.0, 0.0, 0.9, 0.5)
def test_descent_that_converges_ends_below_two_over_lr(alpha: float, norm: float, p: float, s: float, x: float) -> None:
    # x = ηαc² at the start; x = 1 makes s exactly 0.
    assume(abs(x - 1) > 1e-6)
    lr = x / alpha
    end = _descend(alpha, norm, p, np.sqrt(max(1 - p * p - s * s, 0.0)), s, lr, 3000)
    if end is None or abs(norm - end[0] * end[1]) + abs(end[0] * end[2]) + abs(end[0] * end[3]) > 1e-9:
        return
    final = max(alpha * end[0] ** 2, end[0] ** 2 + norm**2 / end[0] ** 2)
    # Close to the threshold deviations die out as slowly as they grow.
    assert final <= 2 / lr * (1 + 1e-3)
    assert smallest_minimum_sharpness_identity(alpha, norm) <= 2 / lr * (1 + 1e-3)
    low, high = stable_interval(Model([alpha], [norm], [1.0]), lr / (1 + 1e-3))
    assert low <= abs(end[0]) <= high


@pytest.mark.parametrize(("k", "low"), [(3.0, 0.95), (20.0, 0.95)])
def test_the_example_of_the_notes_ends_just_under_the_threshold(k: float, low: float) -> None:
    model, start = Model([20.0], 3.0 * np.eye(50)[0], np.ones(50)), random_start(50, k, seed=0)
    end = gradient_descent(model, start, 0.04, 4000).state.at(-1)
    assert low <= float(sharpness(model, end)) * 0.04 / 2 < 1
    assert float(sharpness(model, flow_limit(model, start))) == pytest.approx(60.0)


def test_the_exact_one_pitfall() -> None:
    model, start = Model([20.0], 3.0 * np.eye(50)[0], np.ones(50)), random_start(50, 20.0, seed=0)
    frozen = gradient_descent(model, start, 0.05, 2000).state
    assert (frozen.s[1:] == 0).all()
    assert float(sharpness(model, frozen.at(-1))) > 55  # 2/η = 40
    free = gradient_descent(model, start, 0.05 * (1 + 1e-9), 2000).state.at(-1)
    assert float(sharpness(model, free)) < 40


@pytest.mark.parametrize(("alpha", "norm"), [(5.0, 4.0), (20.0, 3.0), (1.5, 2.0)])
def test_the_flattest_minimum_attracts_only_below_its_threshold(alpha: float, norm: float) -> None:
    model = Model([alpha], [norm], [1.0])
    flat, lowest = flattest_minimum(model), smallest_minimum_sharpness(model)
    rng = np.random.default_rng(0)
    for factor, arrives in ((0.98, True), (1.02, False)):
        for _ in range(3):
            start = State.from_vector(flat.vector + 1e-3 * rng.normal(size=3), 1)
            run = gradient_descent(model, start, factor * 2 / lowest, 2500)
            at_rest = np.abs(gradient(model, run.state.at(-1)).vector).max() < 1e-6
            assert (at_rest and run.diverged_at is None) == arrives


@pytest.mark.parametrize(
    ("alpha", "norm", "k", "drift"), [(20.0, 3.0, 20, -1.9205), (5.0, 4.0, 10, -4.2962), (10.0, 3.0, 20, -2.2632)]
)
def test_the_drift_of_the_balance_along_the_flow(alpha: float, norm: float, k: float, drift: float) -> None:
    model = Model([alpha], [norm, 0.0], [1.0, 1.0])
    start = State(1.0, [0.0, (1 + k) ** -0.5], [(k / (1 + k)) ** 0.5])
    found = balancedness_drift(model, start)
    assert found == pytest.approx(drift, abs=6e-5)
    # The integrand along the package's other integration, by Simpson's rule on times that crowd at the start.
    grid = np.linspace(0, 1, 4001)
    times = 12 / norm * grid**2
    slope = gradient(model, gradient_flow(model, start, times).state)
    rate = (slope.c**2 - (slope.first_layer**2).sum(-1)) * 24 / norm * grid
    simpson = (rate[0] + rate[-1] + 4 * rate[1:-1:2].sum() + 2 * rate[2:-1:2].sum()) / 12000
    assert found == pytest.approx(simpson, rel=1e-6)


def test_descent_misses_the_flow_at_first_order_and_its_limit_at_second() -> None:
    model = Model([8.0, 3.0], [2.0, 1.0], [1.0, 0.4])
    start = State(1.2, [0.1, 0.5], [0.6, -0.3])
    rates = 0.012 / 2.0 ** np.arange(4)
    flow, drift = float(flow_limit(model, start).c), balancedness_drift(model, start)
    to_flow, to_limit, to_balance = [], [], []
    for lr in rates:
        end = gradient_descent(model, start, lr, round(25 / lr)).state.at(-1)
        to_flow.append(abs(float(end.c) ** 2 - flow**2))
        to_limit.append(abs(float(end.c) ** 2 - float(descent_limit(model, start, lr).c) ** 2))
        to_balance.append(abs(float(balancedness(end) - balancedness(start)) - lr * drift))
    for errors, order in ((to_flow, 1), (to_limit, 2), (to_balance, 2)):
        assert np.polyfit(np.log(rates), np.log(errors), 1)[0] == pytest.approx(order, abs=0.07)


@pytest.mark.parametrize(
    ("model", "start"),
    [
        (Model([1.0], [0.0, 3.0], [1.0, 1.0]), State(1.0, [0.8, 0.6], [0.1])),  # β has no part along the first feature
        (Model([1.0], [3.0, 1.0], [1.0, 0.0]), State(1.0, [0.5, 2.0], [0.3])),  # a feature that never moves
        (Model([0.0], [3.0], [1.0]), State(1.0, [0.6], [0.8])),  # a pair that never moves
        (Model([1.0], [0.0, 3.0], [1.0, 1.0]), State(-1.0, [0.1, -0.3], [0.2])),  # c below 0
        (Model([2.0], [-3.0, 1.0], [1.0, 0.5]), State(0.3, [-1.0, 1.5], [0.2])),  # Q below 0
    ],
)
def test_descent_ends_where_it_is_told(model: Model, start: State) -> None:
    """All weights, with an error that falls as η²."""
    errors = []
    for lr in (0.02, 0.01):
        end = gradient_descent(model, start, lr, round(60 / lr)).state.at(-1).vector
        errors.append(np.abs(descent_limit(model, start, lr).vector - end).max())
        assert errors[-1] < 0.3 * np.abs(flow_limit(model, start).vector - end).max()
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.2)


def test_the_end_follows_from_its_balance_exactly() -> None:
    model, start = Model([20.0], [3.0, 0.0], [1.0, 1.0]), State(1.0, [0.0, 0.6], [0.8])
    end = gradient_descent(model, start, 0.04, 4000).state.at(-1)  # it oscillated on the way
    q = float(balancedness(end))
    assert float(end.c) ** 2 == pytest.approx((q + np.hypot(q, 6)) / 2, rel=1e-10)


def test_statement_t8_applies_where_it_should() -> None:
    statement = all_statements()["T8"]
    model, start = Model([20.0], [3.0], [1.0]), State(1.0, [0.0], [1.0])
    assert statement.applies(model, start, 0.04)
    assert not statement.applies(model, start, 0.05)  # ηαc² = 1
    assert not statement.applies(Model([20.0], [0.0], [1.0]), start, 0.04)


def test_what_has_no_answer_is_refused_in_one_line() -> None:
    model, start = Model([1.0], [0.0, 2.0], [1.0, 0.0]), State(1.0, [0.0, 0.0], [1.0])
    for call in (
        lambda: flattest_minimum(model),
        lambda: stable_interval(model, 0.1),
        lambda: stable_interval(Model([1.0], [1.0], [1.0]), -0.1),
        lambda: minimum_at(model, 0.0),
        lambda: minimum_at(model, [1.0, np.inf]),
        lambda: balancedness_drift(Model([1.0], [0.0], [1.0]), State(1.0, [1.0], [1.0])),
        lambda: descent_limit(model, start, 0.0),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert balancedness_drift(Model([1.0], [4.0], [1.0]), State(2.0, [2.0], [0.0])) == 0.0  # already at rest
