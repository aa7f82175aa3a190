"""The finite sample through its moments, against raw examples, autograd and the map written out; unequal groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import fsolve
from strategies import finite

import theory
from theory import InputError, Model, State
from theory.finite_sample import SampleMoments, lag_series, sample_descent
from theory.unequal_groups import biased_amplitude, biased_edge, biased_loss, biased_model, groups_trade_places


@st.composite
def samples(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, State]:
    """Any few examples with at least one outlier, targets of any kind, and any state."""
    n, d = draw(st.integers(1, 12)), draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    scale = 10 ** draw(finite(-2, 2))
    o = np.where(rng.random(n) < 0.5, rng.normal(size=n), 0.0) * scale
    o[0] = scale
    state = State(draw(finite(-10, 10)), rng.normal(size=d) * 3, rng.normal(size=1) * 3)
    return rng.normal(size=(n, d)), o, rng.normal(size=n) * draw(finite(0, 100)), state


def _raw_loss(x: np.ndarray, o: np.ndarray, y: np.ndarray, vector: torch.Tensor) -> torch.Tensor:
    z = torch.tensor(np.column_stack([x, o]))
    return ((vector[0] * (z @ vector[1:]) - torch.tensor(y)) ** 2).mean() / 2


def _opposing_data(seed: int, alpha: float, n: int = 800, d: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, d))
    o = np.where(rng.random(n) < 0.1, np.sqrt(10 * alpha) * rng.choice([-1.0, 1.0], size=n), 0.0)
    return x, o, rng.normal(size=d)


@given(samples())
@example((np.zeros((1, 0)), np.array([1.0]), np.array([0.0]), State(0.0, [], [0.0])))
def test_loss_gradient_and_hessian_equal_autograd_on_the_examples(case) -> None:
    x, o, y, state = case
    moments = SampleMoments.from_samples(x, o, y)
    vector = torch.tensor(state.vector)
    expected = [
        f(lambda v: _raw_loss(x, o, y, v))(vector).numpy() for f in (lambda g: g, torch.func.grad, torch.func.hessian)
    ]
    found = [moments.loss(state), moments.gradient(state).vector, moments.hessian(state)]
    # Rounding is relative to the terms that cancel, not to what is left.
    size = (1 + np.abs(state.vector).max()) ** 4 * (np.abs(moments.gram).max() + np.abs(moments.projection).max() + 1)
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-13 * (size + moments.target_square))


@given(samples())
def test_a_sample_is_a_population_model_without_opposing_pairs(case) -> None:
    x, o, y, state = case
    moments = SampleMoments.from_samples(x, o, y)
    model, rotation = moments.model()
    rotated = State(state.c, state.first_layer @ rotation, np.empty(0))
    slope = theory.gradient(model, rotated)
    back = np.concatenate([slope.c[None], rotation @ slope.b])
    size = (1 + np.abs(state.vector).max()) ** 3 * (np.abs(moments.gram).max() + np.abs(moments.projection).max())
    np.testing.assert_allclose(back, moments.gradient(state).vector, atol=1e-9 * size)
    top = np.linalg.eigvalsh(moments.hessian(state))[-1]
    assert float(theory.sharpness(model, rotated)) == pytest.approx(top, rel=1e-8, abs=1e-9 * size)


@given(samples().filter(lambda case: abs(case[3].c) > 0.1))
def test_the_floor_is_where_the_examples_pull_nothing(case) -> None:
    x, o, y, state = case
    moments = SampleMoments.from_samples(x, o, y)
    on_floor = State(state.c, state.b, moments.floor(state)[None])
    pulls = o * (float(state.c) * (x @ state.b + on_floor.s[0] * o) - y)
    assert abs(pulls.mean()) <= 1e-12 * (np.abs(o).max() * (np.abs(y).max() + 100 * np.abs(x).sum() + 1))
    # ∂_s L = αc²(s − s*)
    expected = moments.alpha * state.c**2 * (state.s[0] - on_floor.s[0])
    np.testing.assert_allclose(moments.gradient(state).s[0], expected, rtol=1e-9, atol=1e-9 * (1 + abs(expected)))


def test_the_floor_of_a_fitted_sample_counts_the_outliers_up_to_chance_correlation_with_o() -> None:
    x, o, beta = _opposing_data(0, 20.0)
    moments = SampleMoments.from_samples(x, o, x @ beta + np.abs(o))
    counted = np.sign(o).sum() / np.abs(np.sign(o)).sum()
    assert moments.imbalance(beta) == pytest.approx(counted, rel=1e-12)
    assert 2.0 * moments.floor(State(2.0, beta / 2, [0.0])) == pytest.approx(counted, rel=1e-12)
    assert abs(2.0 * moments.floor(State(2.0, 0 * beta, [0.0])) - counted) > 1e-3


def test_descent_on_the_moments_is_descent_on_the_examples_and_obeys_the_recursion() -> None:
    x, o, beta = _opposing_data(1, 20.0)
    y, lr, n = x @ beta + np.abs(o), 0.02, len(o)
    moments = SampleMoments.from_samples(x, o, y)
    start = State(1.0, np.full(4, 0.2), [0.8])
    state = sample_descent(moments, start, lr, 40).state
    c, b, s = 1.0, np.full(4, 0.2), 0.8
    for t in range(40):
        np.testing.assert_allclose(state.at(t).vector, [c, *b, s], rtol=1e-9, atol=1e-11)
        g = x @ b + s * o
        e = c * g - y
        c, b, s = c - lr * (e @ g) / n, b - lr * c * (e @ x) / n, s - lr * c * (e @ o) / n
    floor, rate = moments.floor(state), lr * moments.alpha * state.c**2
    deviation = state.s[:, 0] - floor
    # δ_n = ∏(1 − x) δ_0 − Σ_j ∏_{k>j}(1 − x_k) Δs*_j
    growth = np.append(np.cumprod((1 - rate[:-1])[::-1])[::-1], 1.0)
    expected = growth[0] * deviation[0] - (growth[1:] * np.diff(floor)).sum()
    assert deviation[-1] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rate", [0.5, 1.5])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_each_term_of_the_lag_gains_an_order_in_the_rate_of_drift(rate: float, order: int) -> None:
    """On a prescribed path; what `order` terms leave falls like rate^(order + 1)."""
    errors, paces = [], np.array([0.04, 0.02, 0.01, 0.005])
    for pace in paces:
        time = np.arange(-int(6 / pace), int(6 / pace))
        square = 1 + 0.2 * np.tanh(pace * time)
        floor, x = 1 / np.sqrt(square), rate * square
        s = np.empty_like(floor)
        s[0] = floor[0] + lag_series(floor[:8], x[:8], 4)[0]
        for t in range(time.size - 1):
            s[t + 1] = s[t] - x[t] * (s[t] - floor[t])
        lag = lag_series(floor, x, order)
        errors.append(np.abs(s[: lag.size] - floor[: lag.size] - lag).max())
    slope = np.polyfit(np.log(paces), np.log(errors), 1)[0]
    assert slope == pytest.approx(order + 1, abs=0.12)


@pytest.mark.parametrize("order", [1, 2])
def test_the_lag_holds_in_the_sample_itself(order: int) -> None:
    """The drift's rate goes like 1/α; the window ends before the oscillation."""
    sizes, errors = np.array([200.0, 400.0, 800.0, 1600.0]), []
    for alpha in sizes:
        rng = np.random.default_rng(0)
        v = rng.normal(size=3) * np.sqrt(alpha / 2000)
        covariance, beta = np.diag([1.0, 0.7, 0.5]), np.array([3.0, 1.0, -0.5])
        gram = np.block([[covariance, v[:, None]], [v[None], np.array([[alpha]])]])
        moments = SampleMoments(gram, np.append(covariance @ beta, 0.1 * alpha + v @ beta), 100.0)
        lr = 2 / (alpha * 1.9)
        state = sample_descent(moments, State(1.0, np.full(3, 0.15), [0.5]), lr, int(2 * alpha)).state
        rate = lr * alpha * state.c**2
        end = int(np.argmax(rate > 1.8))
        lag = lag_series(moments.floor(state), rate, order)
        error = np.abs(state.s[: lag.size, 0] - moments.floor(state)[: lag.size] - lag)
        rising = np.flatnonzero((rate[:end] > 1.2) & (np.arange(end) > rate[:end].argmin()))
        errors.append(error[rising[rising.size // 8 :]].max())
    slope = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert slope == pytest.approx(order + 1, abs=0.1)


# --- unequal groups ---------------------------------------------------------------------------------------------


@st.composite
def groups(draw: st.DrawFn) -> tuple[float, float, float, State]:
    """p₊, p₋ (either may vanish), α and a state with one ordinary feature."""
    plus, minus = draw(finite(0, 0.5)), draw(finite(0, 0.5))
    if plus + minus < 1e-3:
        plus = 0.1
    weights = [draw(finite(-5, 5)) for _ in range(3)]
    return plus, minus, draw(finite(0.1, 100)), State(weights[0], [weights[1]], [weights[2]])


@given(groups())
@example((0.3, 0.0, 4.0, State(1.0, [2.0], [0.5])))
def test_losses_of_unequal_groups_equal_the_loss_on_enumerated_points(case) -> None:
    plus, minus, alpha, state = case
    p, beta = plus + minus, 2.0
    delta, size = (plus - minus) / p, np.sqrt(alpha / p)
    c, b, s = float(state.c), float(state.b[0]), float(state.s[0])
    total, by_group = 0.0, {}
    # x = ±1, o ∈ {0, size, −size}: six points, each with its probability
    for o, weight in ((0.0, 1 - p), (size, plus), (-size, minus)):
        losses = [(c * (b * x + s * o) - beta * x - abs(o)) ** 2 / 2 for x in (-1.0, 1.0)]
        total += weight * np.mean(losses)
        by_group[np.sign(o)] = np.mean(losses)
    model = Model([alpha], [beta], [1.0])
    scale = 1e-11 * (1 + alpha / p) * 1e4
    assert float(biased_loss(model, state, delta)) == pytest.approx(total, rel=1e-11, abs=scale)
    moments = SampleMoments.from_model(model, delta)
    assert float(moments.loss(state)) == pytest.approx(total, rel=1e-11, abs=scale)
    found = theory.group_losses(model, state, p)
    np.testing.assert_allclose(found, [by_group[1], by_group[-1]], rtol=1e-11, atol=scale)
    assert found[1] - found[0] == pytest.approx(2 * alpha * c * s / p, rel=1e-9, abs=scale)
    constant = alpha * (1 - delta**2) / 2
    biased = theory.loss(biased_model(model, delta), State(state.c, state.first_layer, np.empty(0)))
    assert float(biased) + constant == pytest.approx(total, rel=1e-11, abs=scale)


@given(finite(0.1, 100), finite(-0.99, 0.99), finite(1.05, 3))
def test_the_edge_is_where_the_floor_has_curvature_two_over_lr(alpha: float, delta: float, stretch: float) -> None:
    lr = 2 / (alpha * 2 * max(abs(delta), 1e-3) * stretch)
    c = np.sqrt(biased_edge(alpha, lr, delta))
    # finite differences of the opposing part alone, (α/2)(c²s² − 2δcs + 1), over (s, c)
    model, point, step = Model([alpha], [0.0], [0.0]), np.array([delta / c, c]), 1e-4

    def value(shift: np.ndarray) -> float:
        s, c_ = point + shift
        return float(biased_loss(model, State(c_, [0.0], [s]), delta))

    axes = np.eye(2) * step
    matrix = [[value(a + b) - value(a - b) - value(b - a) + value(-a - b) for b in axes] for a in axes]
    top = np.linalg.eigvalsh(np.array(matrix) / (4 * step**2))[-1]
    assert top == pytest.approx(2 / lr, rel=2e-3)
    assert c**4 >= delta**2
    assert np.isnan(biased_edge(alpha, 2.1 / (alpha * 2 * 0.5), 0.5))


@pytest.mark.parametrize(
    ("imbalance", "c_edge", "tolerance"), [(0.6, 1.1, 0.003), (0.8, 1.1, 0.003), (0.95, 1.3, 0.003)]
)
def test_amplitude_and_edge_of_unequal_groups_in_a_run(imbalance: float, c_edge: float, tolerance: float) -> None:
    alpha, d1, steps = 100.0, 100, 9000
    rng = np.random.default_rng(0)
    beta, b = rng.normal(size=(2, d1))
    sigma, beta, b = 1 / np.arange(1, d1 + 1), 4 * beta / np.linalg.norm(beta), 0.3 * b / np.linalg.norm(b)
    lr, c, s, path = 2 / (alpha * (c_edge**2 + imbalance**2 / c_edge**2)), 1.0, 0.3, []
    for t in range(steps):
        r = beta - c * b
        push, pull = b @ (sigma * r), alpha * (c * s - imbalance)
        if t >= 6000:
            path.append((c, s, push))
        b, s, c = b + lr * c * sigma * r, s - lr * pull * c, c + lr * (push - pull * s)
    c, s, push = np.array(path).T
    middle_c, middle_push = (c[:-1] + c[1:]) / 2, (push[:-1] + push[1:]) / 2
    square = np.mean(((2 * s[1:-1] - s[2:] - s[:-2]) / 4) ** 2)
    # A state whose drive is the run's: b β = D/…, with one feature and c at the run's mean
    mean_c, mean_push = middle_c.mean(), middle_push.mean()
    model, state = Model([alpha], [mean_push + mean_c], [1.0]), State(mean_c, [1.0], [0.0])
    assert float(theory.drive(model, state)) == pytest.approx(mean_push)
    assert square == pytest.approx(float(biased_amplitude(model, state, imbalance)), rel=tolerance)
    assert mean_c**2 == pytest.approx(float(biased_edge(alpha, lr, imbalance)), rel=tolerance)
    # c alternates with s, by aδ/c²
    swing = np.mean((2 * s[1:-1] - s[2:] - s[:-2]) * (2 * c[1:-1] - c[2:] - c[:-2]) / 16) / square
    assert swing == pytest.approx(imbalance / mean_c**2, rel=0.01)
    swaps = np.mean(c[1:] * s[1:] * c[:-1] * s[:-1] < 0)
    assert swaps < 0.01
    assert not groups_trade_places(model, state, imbalance)


def _two_cycle(alpha: float, imbalance: float, c: float, a: float) -> tuple[np.ndarray, float]:
    """States (s, c, s, c) of the two-cycle of descent on (s, c) with s = … ± a near the edge of c, and its drive D."""
    lr = 2 / (alpha * (c**2 + imbalance**2 / c**2))

    def step(s: float, c: float, drive: float) -> tuple[float, float]:
        pull = alpha * (c * s - imbalance)
        return s - lr * pull * c, c + lr * (drive - pull * s)

    def defect(x: np.ndarray) -> list[float]:
        s1, c1, s2, c2, drive = x
        there, back = step(s1, c1, drive), step(s2, c2, drive)
        return [there[0] - s2, there[1] - c2, back[0] - s1, back[1] - c1, (s1 - s2) / 2 - a]

    guess = [imbalance / c + a, c + a * imbalance / c**2, imbalance / c - a, c - a * imbalance / c**2]
    found, _, solved, _ = fsolve(defect, [*guess, alpha * c * a**2], full_output=True, xtol=1e-13)
    assert solved == 1
    return found[:4], float(found[4])


@pytest.mark.parametrize("imbalance", [0.02, 0.2, 0.5, 0.7])
def test_groups_trade_places_while_the_amplitude_outweighs_the_imbalance(imbalance: float) -> None:
    """On the two-cycles of descent with the drive held, solved for, cs changes sign where it is predicted to."""
    alpha, c = 100.0, 1.1
    least = imbalance / (c + imbalance**2 / c**3)
    for factor in (0.6, 0.92, 1.03, 1.5):
        (s1, c1, s2, c2), push = _two_cycle(alpha, imbalance, c, factor * least)
        mean = (c1 + c2) / 2
        model, state = Model([alpha], [push + mean], [1.0]), State(mean, [1.0], [0.0])
        assert float(theory.drive(model, state)) == pytest.approx(push)
        assert bool(groups_trade_places(model, state, imbalance)) == (c1 * s1 * c2 * s2 < 0), factor
    assert not groups_trade_places(Model([alpha], [2.0], [1.0]), State(c, [1.9 / c], [0.0]), 0.9)


def test_degenerate_imbalances() -> None:
    model, state = Model([2.0], [3.0], [1.0]), State(1.0, [1.0], [0.0])
    assert biased_amplitude(model, state, 0.0) == pytest.approx(float(theory.edge_amplitude(model, state)))
    assert np.isnan(biased_amplitude(model, state, 1.0))
    assert not groups_trade_places(model, state, 1.0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SampleMoments.from_samples([[1.0]], [1.0, 2.0], [1.0]), "shape"),
        (lambda: SampleMoments.from_samples(np.empty((0, 1)), [], []), "give"),
        (lambda: SampleMoments.from_samples([[1.0]], [0.0], [1.0]), "alpha is 0.0"),
        (lambda: SampleMoments([[1.0, 2.0], [0.0, 1.0]], [1.0, 1.0], 1.0), "symmetric"),
        (lambda: SampleMoments([[np.nan]], [1.0], 1.0), "finite"),
        (lambda: SampleMoments.from_model(Model([1.0, 2.0], [1.0], [1.0])), "2 opposing pairs"),
        (lambda: SampleMoments.from_model(Model([1.0], [1.0], [1.0]), 1.5), "imbalance is 1.5"),
        (lambda: biased_model(Model([1.0], [1.0], [1.0]), -1.5), "imbalance is"),
        (lambda: lag_series([1.0, 2.0], [1.0, 1.0], order=2), "order is 2"),
        (lambda: sample_descent(SampleMoments([[1.0]], [1.0], 1.0), State(1.0, [1.0], [1.0]), 0.1, 1), "shapes"),
    ],
)
def test_bad_input_is_refused_in_one_line(make, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
