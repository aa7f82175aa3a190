"""The optimizer maps against PyTorch's own optimizers; their thresholds against recurrences written out here."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import finite, models

import theory
from theory import InputError, Model, State
from theory.optimizer_maps import (
    Adam,
    Momentum,
    Rule,
    SignDescent,
    descend_with,
    growth_per_step,
    preconditioner,
)

HEAVY_BALLS = st.builds(Momentum, lr=finite(1e-3, 1), mu=finite(1e-3, 0.99), dampening=finite(0, 0.9))
NESTEROVS = st.builds(Momentum, lr=finite(1e-3, 1), mu=finite(0, 0.99), nesterov=st.just(True))
ADAMS = st.builds(Adam, lr=finite(1e-3, 1), beta1=finite(0, 0.99), beta2=finite(0, 0.9999), eps=finite(1e-3, 1))


@st.composite
def gentle_runs(draw: st.DrawFn) -> tuple[Model, State]:
    """A model and a start whose runs at lr ≤ 0.03 stay bounded, so that rounding errors do not grow."""
    model = draw(models(identity=True, max_alpha=5.0, max_beta=2.0, max_features=3, max_pairs=2))
    weights = finite(-0.8, 0.8)
    b = draw(st.lists(weights, min_size=model.beta.size, max_size=model.beta.size))
    s = draw(st.lists(weights, min_size=model.alpha.size, max_size=model.alpha.size))
    return model, State(draw(finite(-1, 1)), np.array(b), np.array(s))


def _torch_iterates(model: Model, start: State, rule: Rule, steps: int) -> np.ndarray:
    """The same run by PyTorch's optimizer and autograd, from the loss as the setting writes it."""
    weights = [torch.tensor(part, requires_grad=True) for part in (start.c, start.b, start.s)]
    if isinstance(rule, Adam):
        optimizer = torch.optim.Adam(weights, rule.lr, (rule.beta1, rule.beta2), rule.eps)
    else:
        optimizer = torch.optim.SGD(weights, rule.lr, rule.mu, rule.dampening, nesterov=rule.nesterov)
    beta, alpha, sigma = (torch.tensor(part) for part in (model.beta, model.alpha, model.covariance))
    rows = [start.vector]
    for _ in range(steps):
        c, b, s = weights
        loss = (sigma * (c * b - beta) ** 2).sum() / 2 + (alpha * (c * s) ** 2).sum() / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append(torch.cat([w.detach().reshape(-1) for w in weights]).numpy().copy())
    return np.array(rows)


RULES = [
    Momentum(0.02, 0.0),
    Momentum(0.02, 0.9),
    Momentum(0.02, 0.9, dampening=0.9),
    Momentum(0.02, 0.5, dampening=0.3),
    Momentum(0.02, 0.9, nesterov=True),
    Adam(0.01),
    Adam(0.01, beta1=0.0, beta2=0.5),
    Adam(0.01, beta1=0.5, beta2=0.0, eps=0.05),
]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_iterates_are_those_of_pytorch(rule: Rule) -> None:
    model = Model([4.0, 2.0], [1.5, -1.0, 0.5], [1.0, 0.5, 0.1])
    start = State(1.0, [0.3, 0.2, -0.1], [0.7, -0.4])
    run = descend_with(model, start, rule, 60)
    np.testing.assert_allclose(run.state.vector, _torch_iterates(model, start, rule, 60), rtol=0, atol=1e-12)


@given(
    gentle_runs(),
    st.one_of(
        st.builds(Momentum, lr=finite(1e-4, 0.03), mu=finite(1e-3, 0.95), dampening=finite(0, 0.95)),
        st.builds(Momentum, lr=finite(1e-4, 0.03), mu=finite(1e-3, 0.95), nesterov=st.just(True)),
        st.builds(Adam, lr=finite(1e-4, 0.03), beta1=finite(0, 0.95), beta2=finite(0, 0.999), eps=finite(0.01, 1)),
    ),
)
def test_iterates_are_those_of_pytorch_for_any_constants(case: tuple[Model, State], rule: Rule) -> None:
    model, start = case
    run = descend_with(model, start, rule, 15)
    np.testing.assert_allclose(run.state.vector, _torch_iterates(model, start, rule, 15), rtol=0, atol=1e-12)


@given(gentle_runs(), finite(1e-4, 0.1))
def test_plain_descent_is_its_loop_and_momentum_without_memory(case: tuple[Model, State], lr: float) -> None:
    model, start = case
    vectors = [start.vector]
    for _ in range(10):
        state = State.from_vector(vectors[-1], model.beta.size)
        vectors.append(vectors[-1] - lr * theory.gradient(model, state).vector)
    plain = theory.gradient_descent(model, start, lr, 10)
    np.testing.assert_array_equal(plain.state.vector, vectors)
    np.testing.assert_array_equal(descend_with(model, start, Momentum(lr, 0.0), 10).state.vector, vectors)
    np.testing.assert_allclose(plain.time, lr * np.arange(11))


def test_a_diverging_run_is_cut_before_its_first_infinite_state() -> None:
    model, start = Model([10.0], [3.0], [1.0]), State(2.0, [1.0], [1.0])
    for run in (theory.gradient_descent(model, start, 5.0, 50), descend_with(model, start, Momentum(5.0, 0.5), 50)):
        assert run.diverged_at == len(run.time) == len(run.state.c)
        assert run.diverged_at is not None
        assert 1 < run.diverged_at < 50
        assert np.isfinite(run.state.vector).all()


@given(gentle_runs(), finite(1e-3, 0.03), finite(1e-3, 0.95), finite(0, 0.9))
def test_opposing_weight_obeys_an_exact_three_term_recursion(
    case: tuple[Model, State], lr: float, mu: float, dampening: float
) -> None:
    model, start = case
    heavy = descend_with(model, start, Momentum(lr, mu, dampening), 20).state
    x = lr * model.alpha * heavy.c[:, None] ** 2
    s = heavy.s
    # s_{t+1} = (1 + μ − (1−τ) η α c_t²) s_t − μ s_{t−1}
    expected = (1 + mu - (1 - dampening) * x[1:-1]) * s[1:-1] - mu * s[:-2]
    np.testing.assert_allclose(s[2:], expected, rtol=0, atol=1e-13)
    ahead = descend_with(model, start, Momentum(lr, mu, nesterov=True), 20).state
    x, s = lr * model.alpha * ahead.c[:, None] ** 2, ahead.s
    # s_{t+1} = (1 + μ)(1 − x_t) s_t − μ (1 − x_{t−1}) s_{t−1}
    expected = (1 + mu) * (1 - x[1:-1]) * s[1:-1] - mu * (1 - x[:-2]) * s[:-2]
    np.testing.assert_allclose(s[2:], expected, rtol=0, atol=1e-13)


def _spectral_radius(rule: Momentum | Adam, curvature: float) -> float:
    """Of the map (s, memory) → (s, memory) on a quadratic; its columns are images of the unit vectors."""

    def step(s: float, v: float) -> tuple[float, float]:
        g = curvature * s
        if isinstance(rule, Adam):  # λ is λ/P here
            v = rule.beta1 * v + (1 - rule.beta1) * g
            return s - rule.lr * v, v
        v = rule.mu * v + (1 - rule.dampening) * g
        return s - rule.lr * (g + rule.mu * v if rule.nesterov else v), v

    return float(np.abs(np.linalg.eigvals(np.array([step(1.0, 0.0), step(0.0, 1.0)]).T)).max())


@given(st.one_of(HEAVY_BALLS, NESTEROVS, ADAMS), finite(1e-3, 0.999), finite(1.001, 3))
@example(Momentum(0.1, 0.9), 0.999, 1.001)
@example(Momentum(0.1, 0.0, nesterov=True), 0.999, 1.001)
@example(Adam(0.1, 0.0), 0.999, 1.001)
def test_threshold_is_where_the_spectral_radius_passes_one(rule: Momentum | Adam, below: float, above: float) -> None:
    assert _spectral_radius(rule, below * rule.threshold) < 1
    assert _spectral_radius(rule, above * rule.threshold) > 1
    assert growth_per_step(rule, rule.threshold) == pytest.approx(1, abs=1e-7)
    for fraction in (below, above):
        # A double root has a square-root singularity: half the digits.
        expected = _spectral_radius(rule, fraction * rule.threshold)
        assert growth_per_step(rule, fraction * rule.threshold) == pytest.approx(expected, abs=3e-7)


def test_thresholds_in_closed_form() -> None:
    assert Momentum(0.1, 0.9).threshold == pytest.approx(38.0)
    assert Momentum(0.1, 0.9, dampening=0.9).threshold == pytest.approx(380.0)
    assert Momentum(1.0, 0.9, nesterov=True).threshold == pytest.approx(1.3571428571)
    assert Momentum(1.0, 0.0).threshold == Momentum(1.0, 0.0, nesterov=True).threshold == 2
    assert Adam(1.0).threshold == pytest.approx(38.0)
    assert Adam(1.0, beta1=0.0).threshold == 2


def _turn(run: theory.Trajectory, ratio: np.ndarray) -> float:
    """λ over its threshold at the step from which |s| grows without turning again, up to 100 times its start."""
    size = np.abs(run.state.s[:, 0])
    grown = np.flatnonzero(size > 100 * size[0])
    rises = np.diff(np.log(size))[: grown[0]] >= 0
    return float(ratio[np.flatnonzero(~rises)[-1] + 1])


def _ramp_error(rule_of: Callable[[float], Momentum], alpha: float) -> float:
    """Error of the threshold, in the model, where c² grows slowly through 2 from 1.8; s starts at 1e-6."""
    rule = rule_of(rule_of(1.0).threshold / (2 * alpha))
    c = np.sqrt(1.8)
    rate = rule.lr * (1 - rule.dampening) / (1 - rule.mu)
    run = descend_with(Model([alpha], [3.0], [1.0]), State(c, [c], [1e-6]), rule, round(0.2 / rate))
    return abs(_turn(run, alpha * run.state.c**2 / rule.threshold) - 1)


@pytest.mark.parametrize(
    ("rule_of", "alpha", "bound"),
    [
        (lambda lr: Momentum(lr, 0.0), 4e3, 1e-3),
        (lambda lr: Momentum(lr, 0.5), 4e4, 1e-3),
        (lambda lr: Momentum(lr, 0.5, nesterov=True), 1e4, 1e-3),
        (lambda lr: Momentum(lr, 0.9), 2e5, 5e-3),
        (lambda lr: Momentum(lr, 0.9, dampening=0.5), 2e5, 5e-3),
        (lambda lr: Momentum(lr, 0.9, nesterov=True), 6e4, 2e-3),
    ],
    ids=["plain", "heavy .5", "Nesterov .5", "heavy .9", "dampened .9", "Nesterov .9"],
)
def test_threshold_measured_on_a_slow_ramp_of_the_model(
    rule_of: Callable[[float], Momentum], alpha: float, bound: float
) -> None:
    assert _ramp_error(rule_of, alpha) < bound


def test_error_on_the_ramp_falls_with_its_rate() -> None:
    # The ramp's rate is proportional to η, that is to 1/α.
    alphas = np.array([5e3, 1e4, 2e4, 4e4])
    errors = [_ramp_error(lambda lr: Momentum(lr, 0.5), alpha) for alpha in alphas]
    slope = np.polyfit(np.log(1 / alphas), np.log(errors), 1)[0]
    assert 0.6 < slope < 1.4


@pytest.mark.parametrize(("beta1", "start"), [(0.9, 40.0), (0.5, 20.0), (0.0, 10.0)])
def test_adam_turns_at_its_preconditioned_threshold(beta1: float, start: float) -> None:
    # The network stands at its minimum; as s dies out P decays, and λ/P ramps up through the threshold.
    rule = Adam(1e-3, beta1, eps=1e-9)
    model, c = Model([20.0], [3.0], [1.0]), np.sqrt(3.0)
    run = descend_with(model, State(c, [c], [start / rule.threshold]), rule, 2500)
    ratio = 20.0 * run.state.c**2 / preconditioner(model, run, rule)[:, -1] / rule.threshold
    lowest = np.argmin(np.abs(run.state.s[:, 0]))
    assert ratio[lowest] == pytest.approx(1, abs=0.01)


def test_preconditioner_is_pytorchs() -> None:
    model, start, rule = Model([4.0], [1.0], [1.0]), State(1.0, [0.3], [0.7]), Adam(0.01, eps=1e-4)
    run = descend_with(model, start, rule, 25)
    s = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([s], rule.lr, eps=rule.eps)
    for t in range(25):
        s.grad = torch.tensor(4.0 * run.state.c[t] ** 2 * run.state.s[t])
        optimizer.step()
    average = optimizer.state[s]["exp_avg_sq"].numpy() / (1 - rule.beta2**25)
    assert preconditioner(model, run, rule)[24, -1] == pytest.approx(float(np.sqrt(average[0]) + 1e-4), rel=1e-12)


@given(finite(1e-3, 1), finite(0, 0.99), finite(0, 0.999), finite(1e-6, 1e-2), finite(0.1, 1e3))
def test_adam_has_the_two_cycle(lr: float, beta1: float, beta2: float, eps: float, curvature: float) -> None:
    a = float(Adam(lr, beta1, beta2, eps).two_cycle(curvature))
    if a == 0:
        assert curvature <= eps * Adam(lr, beta1).threshold * (1 + 1e-9)
        return
    # With g_t = (−1)ᵗ λa for ever: m = (1−β₁)/(1+β₁) g and v = (λa)²; one step must carry a to −a.
    g = curvature * a
    m = (1 - beta1) * sum((-beta1) ** k for k in range(4000)) * g
    assert a - lr * m / (g + eps) == pytest.approx(-a, rel=1e-6, abs=1e-9 * lr)


def _adam_on_a_quadratic(rule: Adam, curvature: float, s: float, steps: int) -> np.ndarray:
    path, m, v = np.empty(steps), 0.0, 0.0
    for t in range(1, steps + 1):
        g = curvature * s
        m, v = rule.beta1 * m + (1 - rule.beta1) * g, rule.beta2 * v + (1 - rule.beta2) * g * g
        step_size = rule.lr / (1 - rule.beta1**t)
        s -= step_size * m / (np.sqrt(v / (1 - rule.beta2**t)) + rule.eps)
        path[t - 1] = s
    return path


@pytest.mark.parametrize("curvature", [2.0, 200.0])
def test_adams_two_cycle_attracts_without_momentum_and_sets_the_size_of_bursts_with_it(curvature: float) -> None:
    plain = Adam(0.01, beta1=0.0)
    tail = _adam_on_a_quadratic(plain, curvature, 0.05, 60_000)[-100:]
    np.testing.assert_allclose(np.abs(tail), plain.two_cycle(curvature), rtol=1e-6)
    rule = Adam(0.01, beta2=0.99)
    tail = _adam_on_a_quadratic(rule, curvature, 0.05, 20_000)[-10_000:]
    assert np.sqrt((tail**2).mean()) == pytest.approx(float(rule.two_cycle(curvature)), rel=0.15)
    # A counterexample to its stability: with momentum the run does not settle on it.
    assert np.abs(tail).max() > 1.5 * float(rule.two_cycle(curvature))


@given(finite(0.01, 2000), finite(-0.5, 0.5), st.sampled_from([1e-2, 2.5e-3, 0.03]))
@example(2000.0, 0.3, 1e-2)
def test_sign_descent_ends_in_a_two_cycle_of_gap_lr_whatever_the_curvature(alpha: float, s: float, lr: float) -> None:
    rule = SignDescent(lr)
    upper, lower = rule.two_cycle(s)
    # Near a multiple of lr rounding decides whether the path lands on 0.
    if min(upper, -lower) < 1e-9:
        return
    run = descend_with(Model([alpha], [3.0], [1.0]), State(2.0, [1.0], [s]), rule, int(0.5 / lr) + 5)
    np.testing.assert_allclose(np.sort(run.state.s[-2:, 0]), [lower, upper], rtol=0, atol=1e-12)


def test_edge_state_with_momentum_has_its_own_threshold_and_the_same_amplitude() -> None:
    d1, alpha, mu = 100, 100.0, 0.5
    rng = np.random.default_rng(1)
    beta, b = rng.normal(size=d1), rng.normal(size=d1)
    beta, b = 3 * beta / np.linalg.norm(beta), 0.4 * b / np.linalg.norm(b)
    rule = Momentum(2 * (1 + mu) / (alpha * 1.1), mu)
    model = Model([alpha], beta, theory.power_law_covariance(d1, 1.0))
    state = descend_with(model, State(np.sqrt(0.88), b, [0.01]), rule, 5500).state
    half = slice(2750, None)
    assert (alpha * state.c[half] ** 2).mean() == pytest.approx(rule.threshold, rel=0.01)
    assert (state.s[half, 0] ** 2).mean() == pytest.approx(theory.edge_amplitude(model, state)[half].mean(), rel=0.1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Momentum(0.0), "lr is 0"),
        (lambda: Momentum(0.1, 1.0), "mu is 1"),
        (lambda: Momentum(0.1, 0.5, -0.1), "dampening is -0.1"),
        (lambda: Momentum(0.1, 0.5, 0.1, nesterov=True), "with Nesterov"),
        (lambda: Momentum(0.1, 0.0, 0.1), "without momentum"),
        (lambda: Adam(float("nan")), "lr is nan"),
        (lambda: Adam(0.1, beta2=1.0), "beta2 is 1"),
        (lambda: Adam(0.1, eps=0.0), "eps is 0"),
        (lambda: SignDescent(-1.0), "lr is -1"),
        (lambda: descend_with(Model([1.0], [1.0], [1.0]), State(1.0, [1.0], [1.0]), SignDescent(1.0), 0), "steps is 0"),
    ],
)
def test_bad_rules_are_refused_in_one_line(make: Callable[[], object], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)
