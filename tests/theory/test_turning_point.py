"""One turning point: the second derivative by a complex step, the theorems on drawn flows, counterexamples pinned."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from strategies import finite, models_with_states

from theory import (
    InputError,
    Model,
    State,
    Trajectory,
    flow_limit,
    gradient_flow,
    power_law_covariance,
    random_start,
)
from theory.predictions import predict
from theory.statements import all_statements
from theory.turning_point import (
    eigenvector_turns_once,
    fall_after_turning,
    ordered_start_turns_once,
    second_derivative_of_c,
    turns_once,
)

Case = tuple[Model, State]
RANDOM_FALL = 1e-9
"""Fall of c that the integration's own error can feign."""


def _velocity(model: Model, y: np.ndarray) -> np.ndarray:
    """The flow as the setting writes it, with dense Σ; complex weights pass through."""
    d1 = model.beta.size
    c, b, s = y[0], y[1 : 1 + d1], y[1 + d1 :]
    force = np.diag(model.covariance) @ (model.beta - c * b)
    return np.concatenate([[b @ force - c * (model.alpha @ s**2)], c * force, -model.alpha * c**2 * s])


@given(models_with_states())
@example((Model([10.0], [3.0, 0.0], [1.0, 0.1]), State(1.0, [2 / 7, 3 / 7], [6 / 7])))
def test_second_derivative_is_the_rate_of_change_of_the_first(case: Case) -> None:
    model, state = case
    speed = _velocity(model, state.vector)
    # Complex step: c' is a polynomial, so its derivative along the flow is exact to rounding.
    h = 1e-30
    expected = _velocity(model, state.vector + 1j * h * speed)[0].imag / h
    size = np.abs(model.curvatures) * (np.abs(state.c * state.first_layer) + np.abs(model.target))
    scale = (size**2).sum() * np.abs(state.c) + np.abs(speed[0]) * (model.curvatures @ state.first_layer**2)
    assert second_derivative_of_c(model, state) == pytest.approx(expected, rel=1e-9, abs=1e-11 * scale + 1e-280)


@given(models_with_states(min_alpha=0.1, max_alpha=50.0, max_beta=10.0))
def test_at_a_turning_point_it_is_the_closed_form(case: Case) -> None:
    model, state = case
    model = Model(model.alpha[:1], model.beta, np.minimum(model.covariance, 10.0))
    c, b = 0.1 + np.abs(np.tanh(state.c)), np.tanh(state.b)
    residual, sigma = model.beta - c * b, np.diag(model.covariance)
    pull, alpha = b @ sigma @ residual, model.alpha[0]
    if pull < 0:
        return  # no s makes c' vanish
    turning = State(c, b, [np.sqrt(pull / (alpha * c))])  # αcs² = D
    expected = c * np.sum((sigma @ residual) ** 2) + c**2 * b @ sigma @ (2 * alpha * np.eye(b.size) - sigma) @ residual
    assert float(second_derivative_of_c(model, turning)) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@st.composite
def eigenvector_cases(draw: st.DrawFn, *, slow: bool) -> Case:
    """β an eigenvector of Σ, Q ≥ 0; with `slow`, one weight or more relaxes at less than 0.35 of β's eigenvalue."""
    top, idle = draw(finite(0.5, 2.0)), draw(st.integers(0, 3))
    rates = draw(st.lists(finite(0.5, 3.0), min_size=idle + 1, max_size=idle + 1))
    if slow:
        rates[draw(st.integers(0, idle))] = draw(finite(0.15, 0.35))
    weights = draw(st.lists(finite(0.3 if slow else 0.05, 1.0), min_size=idle + 3, max_size=idle + 3))
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=idle + 3, max_size=idle + 3))
    w = np.array(weights) * signs
    target = [draw(finite(0.7, 3.0)), draw(finite(0.0, 1.5)), *np.zeros(idle)]
    model = Model([top * rates[0]], target, top * np.array([1.0, 1.0, *rates[1:]]))
    c = np.sqrt(w @ w + draw(st.sampled_from([0.0, 0.3])))
    return model, State(c, w[:-1], w[-1:])


def _follow(case: Case, time: float = 15.0, points: int = 1501) -> Trajectory:
    """The flow by an implicit method, unlike the package's: c at rest is still to 1e-16, and no turn is missed."""
    model, start = case
    times = np.linspace(0, time, points)
    run = solve_ivp(
        lambda _, y: _velocity(model, y), (0, time), start.vector, method="LSODA", t_eval=times, rtol=1e-12, atol=1e-15
    )
    rising = np.flatnonzero(np.diff(run.y[0]) > 0)
    turning_time = float(times[rising[0]]) if rising.size else None
    return Trajectory(times, State.from_vector(run.y.T, model.beta.size), turning_time)


@given(eigenvector_cases(slow=False))
@example((Model([0.5], [3.0, 4.0], [1.0, 1.0]), State(1.0, [-0.6, 0.0], [0.8])))  # α = ½ exactly
@example((Model([10.0], [3.0, 0.0], [1.0, 0.5]), State(1.0, [2 / 7, 3 / 7], [6 / 7])))  # λ₂ = Λ/2 exactly
def test_with_beta_an_eigenvector_c_turns_once(case: Case) -> None:
    assert eigenvector_turns_once(*case)
    assert turns_once(*case)
    run = _follow(case)
    # A start that runs close to the saddle c = 0, or to its limit from above, may still be falling.
    assert run.turning_time is None or fall_after_turning(run) <= RANDOM_FALL


@given(eigenvector_cases(slow=True))
@example((Model([0.1], [2.0], [1.0]), State(1.0, [-9 / 41], [40 / 41])))
def test_where_the_condition_fails_c_ends_by_falling(case: Case) -> None:
    model, start = case
    assert not eigenvector_turns_once(model, start)
    assert not turns_once(model, start)
    top = model.covariance[0]
    slow = (model.target == 0) & (2 * model.curvatures < top)
    rate = model.curvatures[slow].min() * float(flow_limit(model, start).c) ** 2
    run = _follow(case, 25 / rate, 401).state
    # The last sample at which the slow weights stand out of the integration's error, all others being far smaller.
    late = int(np.flatnonzero((run.first_layer[:, slow] ** 2).max(-1) > 1e-8)[-1])
    assert late < 400
    assert _velocity(model, run.vector[late])[0] < 0


@st.composite
def ordered_cases(draw: st.DrawFn) -> Case:
    """General Σ and β with v = b/β in [0, 1/c] and the faster ahead; Q of either sign, idle features fast or at 0."""
    d1 = draw(st.integers(1, 4))
    eigenvalues = np.sort(draw(st.lists(finite(0.05, 1.0), min_size=d1, max_size=d1)))
    sizes = draw(st.lists(finite(0.2, 2.0), min_size=d1, max_size=d1))
    beta = np.array(sizes) * draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=d1, max_size=d1))
    c = draw(finite(0.3, 2.0))
    v = np.sort(draw(st.lists(finite(0, 1), min_size=d1, max_size=d1))) / c
    top = eigenvalues[-1]
    idle = draw(st.sampled_from([(0.5 * top, 0.4), (2.0, -0.7), (0.01, 0.0)]))
    model = Model([top * draw(finite(0.5, 20.0))], np.append(beta, 0.0), np.append(eigenvalues, idle[0]))
    return model, State(c, np.append(v * beta, idle[1]), [draw(finite(0.0, 1.5))])


@given(ordered_cases())
@example((Model([10.0], [3.0, 1.0], [1.0, 0.1]), State(1.0, [0.0, 0.0], [1.0])))
def test_from_an_ordered_start_c_turns_once(case: Case) -> None:
    assert ordered_start_turns_once(*case)
    assert turns_once(*case)
    run = _follow(case, time=60.0)
    assert run.turning_time is None or fall_after_turning(run) <= RANDOM_FALL


@pytest.mark.parametrize("reverse", [False, True])
def test_the_order_matters(reverse: bool) -> None:
    v = np.array([0.05, 0.9])
    b = (v[::-1] if reverse else v) * [1.0, 1.0]
    case = Model([1.0], [1.0, 1.0], [0.1, 1.0]), State(1.0, b * 0.95, [0.5])
    assert ordered_start_turns_once(*case) == (not reverse)
    assert (fall_after_turning(_follow(case, time=40.0)) > 1e-4) == reverse


def _turns(model: Model, start: State, time: float) -> list[tuple[float, float]]:
    """Times and heights of c's turns, by another method than the package's own."""

    def event(_: float, y: np.ndarray) -> float:
        return float(_velocity(model, y)[0])

    run = solve_ivp(
        lambda _, y: _velocity(model, y),
        (0, time),
        start.vector,
        method="LSODA",
        rtol=1e-12,
        atol=1e-14,
        events=event,
    )
    return [(float(t), float(y[0])) for t, y in zip(run.t_events[0], run.y_events[0], strict=True)]


def _wide(alpha: float, beta: npt.ArrayLike, covariance: npt.ArrayLike, b: npt.ArrayLike, s: float) -> Case:
    return Model([alpha], np.asarray(beta), np.asarray(covariance)), State(1.0, np.asarray(b), [s])


@pytest.mark.parametrize(
    ("case", "turns"),
    [
        (_wide(0.1, [2.0], [1.0], [-9 / 41], 40 / 41), [(0.1305057, 0.964642076), (1.6188775, 1.494173013)]),
        (_wide(0.4, [2.0], [1.0], [-9 / 41], 40 / 41), [(0.2004985, 0.922665959), (2.2514511, 1.416089593)]),
        (
            _wide(10.0, [3.0, 0.0], [1.0, 0.1], [2 / 7, 3 / 7], 6 / 7),
            [(0.102876512737, 0.78541825138), (1.52540980891, 1.74283360699)],
        ),
        (
            _wide(10.0, [3.0, 0.1], [1.0, 0.1], [2 / 7, 3 / 7], 6 / 7),
            [(0.10266558, 0.7858422274), (1.53616233, 1.7446430466)],
        ),
    ],
    ids=["identity, alpha 1/10", "identity, alpha 2/5", "general, one target", "general, both targets"],
)
def test_counterexamples_turn_twice(case: Case, turns: list[tuple[float, float]]) -> None:
    model, start = case
    assert abs(start.b @ start.b + start.s @ start.s - 1) < 1e-15  # balanced
    assert not turns_once(model, start)
    np.testing.assert_allclose(_turns(model, start, 4.0), turns, rtol=1e-6)
    times = np.append(np.linspace(0, 3, 1501), 100.0)
    run = gradient_flow(model, start, times)
    assert run.turning_time == pytest.approx(turns[0][0], rel=1e-6)
    limit = np.linalg.norm(model.beta) ** 0.5
    assert fall_after_turning(run) == pytest.approx(turns[1][1] - limit, abs=2e-6)


def test_power_law_with_the_target_on_its_top_axis_always_falls_back_a_little() -> None:
    model = Model([10.0], 3.0 * np.eye(20)[0], power_law_covariance(20, 1.0))
    for seed in range(3):
        start = random_start(20, 10.0, seed)
        assert not turns_once(model, start)
        run = gradient_flow(model, start, np.linspace(0, 60, 1201), rtol=1e-10, atol=1e-12)
        assert 1e-4 < fall_after_turning(run) < 1e-2


@given(eigenvector_cases(slow=True), finite(0, 1))
def test_the_late_fall_is_bounded_by_what_was_left_across_beta(case: Case, share: float) -> None:
    model, start = case
    norm = np.linalg.norm(model.beta)
    # b along β is share·β/c, with c large enough that Q ≥ 0.
    c = np.sqrt(norm + start.b @ start.b + start.s @ start.s)
    b = np.where(model.beta == 0, start.b, share * model.beta / c)
    run = _follow((model, State(c, b, start.s)), 40.0, 801)
    across = (run.state.b[:, model.beta == 0] ** 2).sum(-1) + run.state.s[:, 0] ** 2
    floor = run.state.c**2 - across
    least_later = np.minimum.accumulate(run.state.c[::-1] ** 2)[::-1]
    assert (floor - least_later).max() <= 1e-8


def test_every_start_and_one_start() -> None:
    model = Model([0.3], [2.0, 0.0], [1.0, 0.2])
    assert not eigenvector_turns_once(model)
    assert eigenvector_turns_once(model, State(1.0, [0.5, 0.0], [0.0]))  # weights at 0 stay 0
    assert not eigenvector_turns_once(model, State(1.0, [0.5, 0.0], [0.1]))
    assert not eigenvector_turns_once(Model([0.6], [1.0], [1.0]), State(0.1, [0.5], [0.1]))  # Q < 0
    assert not eigenvector_turns_once(Model([0.6], [1.0], [1.0]), State(-1.0, [0.5], [0.1]))
    assert eigenvector_turns_once(Model([0.0, 0.5], [1.0], [1.0]))  # a pair of strength 0 feels no force
    assert not eigenvector_turns_once(Model([0.4999, 3.0], [1.0], [1.0]))


def test_a_batch_of_starts_gives_what_each_gives() -> None:
    model = Model([0.6], [1.0, 2.0, 0.0], [0.3, 1.0, 0.7])
    rng = np.random.default_rng(0)
    b = rng.uniform(0, 1, (64, 3)) * np.array([1.0, 2.0, 1.0])
    batch = State(rng.uniform(0.5, 1.5, 64), b, rng.normal(size=(64, 1)))
    for function in (ordered_start_turns_once, turns_once, second_derivative_of_c):
        whole = function(model, batch)
        assert whole.shape == (64,)
        np.testing.assert_allclose(whole, [function(model, batch.at(i)) for i in range(64)])
    assert 0 < ordered_start_turns_once(model, batch).sum() < 64


def test_a_start_along_beta_is_ordered_whatever_rounding_does_to_it() -> None:
    rng = np.random.default_rng(0)
    model = Model([0.5], rng.normal(size=50), rng.uniform(0.1, 1, 50))
    for share in (0.1, 0.7, 1.0):  # b = v₀β, up to v₀ = 1/c
        assert ordered_start_turns_once(model, State(1.7, share * model.beta / 1.7, [0.3]))
    assert not ordered_start_turns_once(model, State(1.7, (1 + 1e-9) * model.beta / 1.7, [0.3]))


def test_ties_in_the_spectrum_need_no_order() -> None:
    model = Model([0.5], [1.0, 1.0], [1.0, 1.0])
    assert ordered_start_turns_once(model, State(1.0, [0.9, 0.1], [0.3]))
    assert ordered_start_turns_once(model, State(1.0, [0.1, 0.9], [0.3]))
    assert not ordered_start_turns_once(model, State(1.0, [0.1, 1.1], [0.3]))
    assert not ordered_start_turns_once(Model([0.5], [0.0], [1.0]), State(1.0, [0.1], [0.3]))  # β = 0: c only falls


@pytest.mark.parametrize(
    "model", [Model([1.0], [1.0, 1.0], [1.0, 0.5]), Model([1.0], [0.0], [1.0]), Model([1.0], [1.0], [0.0])]
)
def test_what_is_no_eigenvector_is_refused(model: Model) -> None:
    with pytest.raises(InputError, match="eigenvector") as caught:
        eigenvector_turns_once(model)
    assert "\n" not in str(caught.value)


def test_a_run_that_never_turned_has_no_fall_after_it() -> None:
    run = gradient_flow(Model([1.0], [0.0], [1.0]), State(1.0, [0.5], [0.5]), [1.0])
    with pytest.raises(InputError, match="no turning time"):
        fall_after_turning(run)


def test_statement_t5_applies_where_it_should() -> None:
    statement = all_statements()["T5"]
    start = State(1.0, [-0.6], [0.8])
    assert statement.applies(Model([0.5], [3.0], [1.0]), start, 0.1)
    assert not statement.applies(Model([0.4], [3.0], [1.0]), start, 0.1)


@pytest.mark.parametrize(
    ("model", "start"),
    [(Model([20.0], [0.5], [1.0]), State(1.0, [1.0], [0.0])), (Model([20.0], [1.0], [1.0]), State(2.0, [2.0], [0.0]))],
)
def test_a_last_layer_that_only_falls_never_turns(model: Model, start: State) -> None:
    """At rest its slope is rounding, whose sign changes again and again; the control turns."""
    for horizon in (5.0, 20.0, 40.0, 200.0):
        assert gradient_flow(model, start, [horizon]).turning_time is None
    assert predict(model, start, 0.05, 2000).quantities["turning_time"].value is None
    least = State(1.0, [0.4999], [0.02])  # c = 1 is nearly at rest: it falls by what s takes, and rises by what b lacks
    turned = gradient_flow(Model([20.0], [0.5 + 1e-6], [1.0]), least, np.linspace(0, 200, 2001))
    assert turned.turning_time is not None
    assert 0 < turned.turning_time < 10
