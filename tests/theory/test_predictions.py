"""Predictions against simulated descent: inside its domain, each lies within the error it states."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import theory
from theory import (
    InputError,
    Model,
    SampleMoments,
    State,
    drive,
    flow_limit,
    gradient_descent,
    gradient_flow,
    random_start,
    sharpness,
)
from theory.configuration import DescentConfig
from theory.phase_diagram import phase_diagram
from theory.plotting import plot_predictions
from theory.predictions import predict, table
from theory.quantities import SPIKE_EXCESS, Regime

DEFAULT = DescentConfig()
CHAOTIC = DescentConfig(alpha=1.756, beta=4.31, k=0.913, d1=11, exponent=0.0, lr=0.3734, steps=1000, start_seed=2)
"""Bounces through a valley without a stable minimum."""


def _draw(rng: np.random.Generator, strong: bool) -> DescentConfig:
    """Step sizes from well below the flow's limit to well above it; a strong target so that ηλ(0) < 1 at the edge."""
    alpha = float(np.exp(rng.uniform(np.log(4), np.log(40))))
    beta, ratio = (rng.uniform(7, 14), rng.uniform(1.05, 1.5)) if strong else (rng.uniform(1, 6), rng.uniform(0.3, 1.5))
    lr = 2 / (max(alpha, 2) * float(beta)) * float(ratio)
    return DescentConfig(
        alpha=alpha,
        beta=float(beta),
        k=float(rng.choice([1, 3, 10])),
        d1=int(rng.integers(5, 40)),
        exponent=float(rng.choice([0.0, 0.5])),
        lr=lr,
        steps=600,
        start_seed=int(rng.integers(1000)),
    )


def test_predictions_lie_within_their_errors_in_their_domains() -> None:
    rng = np.random.default_rng(5)
    outcomes: dict[str, list[bool]] = {"lowest": [], "crossing": [], "end": [], "spike": []}
    for draw in range(50):
        config = _draw(rng, strong=draw % 2 == 0)
        predicted = predict(config.model, config.initial_state, config.lr, config.steps)
        descent = theory.gradient_descent(config.model, config.initial_state, config.lr, config.steps)
        quantities = predicted.quantities
        if descent.diverged_at is not None or not np.isfinite(descent.state.vector).all():
            # An end that is predicted, in its domain, is missed by a run that has none.
            if quantities["sharpness_final"].value is not None and not quantities["sharpness_final"].outside:
                outcomes["end"].append(False)
            continue
        sharpness = theory.sharpness(config.model, descent.state)
        gentle = config.lr * sharpness[0] < 1
        if gentle:
            lowest = quantities["sharpness_lowest"]
            outcomes["lowest"].append(abs(sharpness.min() - lowest.value) <= lowest.error + 1e-6)
            crossing = quantities["crossing_step"]
            if crossing.value is not None and crossing.error is not None:
                later = np.arange(sharpness.size) > sharpness[: sharpness.size // 4].argmin()
                after = np.flatnonzero((sharpness >= 2 / config.lr) & later)
                outcomes["crossing"].append(bool(after.size) and abs(after[0] - crossing.value) <= 1.5 * crossing.error)
        end = quantities["sharpness_final"]
        if end.value is not None and not end.outside and config.exponent == 0:
            outcomes["end"].append(abs(sharpness[-1] - end.value) <= 1.05 * end.error + 1e-3 * end.value)
        spike = quantities["spike_height"]
        onset = predicted["onset_step"]
        if spike.value is not None and "OUTSIDE" not in spike.domain and onset is not None and onset < 540:
            after = descent.state.s[int(onset) :, 0] ** 2
            peak = after[1:-1][after[1:-1] > np.maximum(after[:-2], after[2:])]
            if peak.size:
                outcomes["spike"].append(abs(peak[0] - spike.value) <= spike.error)
    for name, inside in outcomes.items():
        assert len(inside) >= 5, name
        assert np.mean(inside) >= 0.85, (name, np.mean(inside), len(inside))


@pytest.mark.parametrize(
    ("config", "name", "words"),
    [
        (DEFAULT, "amplitude", "here 0.043 g: OUTSIDE"),
        (DescentConfig(lr=1.0), "amplitude", "descent settles; an onset within the horizon: OUTSIDE"),
        (DescentConfig(beta=0.5, d1=10, lr=0.15), "sharpness_final", "ηλ(0) < 2, here 8: OUTSIDE"),
        (DescentConfig(alpha=60.0, beta=3.0, lr=0.034), "sharpness_final", "ηαc(0)² < 2, here 2: OUTSIDE"),
        # Seven of eight of these starts diverge.
        (DescentConfig(lr=0.083), "sharpness_final", "ηαc² − 2 ≤ 2 at the onset, here 2.3: OUTSIDE, most runs diverge"),
        # 1 − ηαc(0)² = 0: what float64 leaves of s there is rounding, or nothing.
        (DescentConfig(lr=0.05, start_seed=1), "sharpness_final", "here 0 at the crossing: rounding decides"),
        (DescentConfig(lr=0.05, start_seed=1), "onset_step", "here 0 at the crossing: rounding decides"),
        (DescentConfig(lr=0.05, start_seed=1), "spike_height", "here 0 at the crossing: rounding decides"),
        (CHAOTIC, "onset_step", "differs by 1e-13, here none: rounding decides: OUTSIDE"),
        (DescentConfig(alpha=3.0, lr=0.25), "spike_height", "at least 5 times the largest Σ (OUTSIDE here)"),
    ],
)
def test_what_is_predicted_outside_its_domain_says_so(config: DescentConfig, name: str, words: str) -> None:
    found = predict(config.model, config.initial_state, config.lr, config.steps if config is CHAOTIC else 300)
    assert words in found.quantities[name].domain
    assert found.quantities[name].outside
    assert name != "amplitude" or found.quantities[name].error is None
    lines = {line.split("  ")[1]: line for line in table(found).splitlines() if line.startswith("  ")}
    assert lines[found.quantities[name].symbol].endswith("*")
    assert (table(found).splitlines()[0][-1] == "*") == found.quantities["sharpness_final"].outside


def test_an_onset_below_float64s_range_is_outside_the_domain() -> None:
    """ln|s| falls to −7936: descent has s = 0 and goes on past 2/η without a bounce."""
    model = Model([1e4], np.full(10, 3 / math.sqrt(10)), np.ones(10))
    start, lr = random_start(10, 3.0, seed=0), 8.67e-5
    found = predict(model, start, lr, 40_000)
    assert found["onset_step"] == pytest.approx(31873, abs=5)
    for name in ("onset_step", "sharpness_final", "spike_height"):
        assert found.quantities[name].outside, name
    end = gradient_descent(model, start, lr, 40_000).state.at(-1)
    assert end.s[0] == 0
    assert float(sharpness(model, end)) > 1.05 * 2 / lr


@settings(max_examples=25)
@given(st.integers(0, 10**6))
def test_an_onset_in_its_domain_is_that_of_descent_in_float64(seed: int) -> None:
    """Whatever the start does first, and from a start that differs in the thirteenth digit."""
    rng = np.random.default_rng(seed)
    alpha, beta = float(np.exp(rng.uniform(0.2, 4))), rng.uniform(0.5, 6)
    config = DescentConfig(alpha=alpha, beta=beta, k=1.0, d1=6, lr=2 / (alpha * beta) * rng.uniform(0.9, 1.8))
    found = predict(config.model, config.initial_state, config.lr, 400)
    assume(found["onset_step"] is not None and not found.quantities["onset_step"].outside)
    for nudge in (0.0, -2e-13):
        assert _becomes_visible(config, int(found["onset_step"]), nudge)


def test_control_onsets_outside_their_domain_are_missed_by_descent() -> None:
    missed = []
    for seed in range(12):
        config = dataclasses.replace(CHAOTIC, start_seed=seed)
        found = predict(config.model, config.initial_state, config.lr, config.steps)
        if found["onset_step"] is not None and found.quantities["onset_step"].outside:
            missed.append(not _becomes_visible(config, int(found["onset_step"]), -2e-13))
    assert sum(missed) >= 2, missed  # three of six; the others come to it by chance, or hardly moved


def _becomes_visible(config: DescentConfig, step: int, nudge: float) -> bool:
    """Whether αs²c comes to exceed D within a step of one in float64 descent, from c(0) changed by a share."""
    start = dataclasses.replace(config.initial_state, c=config.initial_state.c * (1 + nudge))
    path = gradient_descent(config.model, start, config.lr, step + 1).state
    with np.errstate(over="ignore", invalid="ignore"):
        visible = config.alpha * path.s[:, 0] ** 2 * path.c > drive(config.model, path)
    return bool((visible[1:] & ~visible[:-1])[max(step - 2, 0) : step + 1].any())


def test_an_amplitude_in_its_domain_is_that_of_the_settled_edge() -> None:
    """One slow feature, from the settled edge: to 1 % (`theory.edge.SLOWNESS`); outside, as by default, it is not."""
    lr, model = 0.06, Model([20.0], [5.0], [0.01])
    c = np.sqrt(2 / (lr * 20.0))
    floor = State(c, 0.5 * model.beta / c, np.zeros(1))
    start = State(0.9999 * c, floor.b, np.atleast_1d(np.sqrt(theory.edge_amplitude(model, floor))))
    amplitude = predict(model, start, lr, 400).quantities["amplitude"]
    assert not amplitude.outside
    assert amplitude.error is not None
    settled = gradient_descent(model, start, lr, 60).state.s[:, 0] ** 2
    assert amplitude.value == pytest.approx(settled.mean(), rel=0.01)

    usual = predict(DEFAULT.model, DEFAULT.initial_state, DEFAULT.lr, 400)
    onset = usual["onset_step"]
    assert onset is not None
    seen = gradient_descent(DEFAULT.model, DEFAULT.initial_state, DEFAULT.lr, 400).state.s[int(onset) :, 0] ** 2
    assert usual.quantities["amplitude"].outside
    assert usual["amplitude"] > 2 * seen[:50].mean()


@pytest.mark.parametrize(
    "config",
    [
        DescentConfig(alpha=0.5, lr=0.5),
        DescentConfig(lr=0.3, steps=2),
        DescentConfig(alpha=1e9, steps=10),
        DescentConfig(alpha=2.6, beta=4.6, d1=10, lr=0.315, start_seed=24, steps=100),
        DescentConfig(steps=1),
    ],
)
def test_no_table_has_a_number_that_is_none(config: DescentConfig, recwarn: pytest.WarningsRecorder) -> None:
    found = predict(config.model, config.initial_state, config.lr, config.steps)
    text = table(found)
    assert "nan" not in text
    assert not [str(w.message) for w in recwarn if issubclass(w.category, RuntimeWarning)]
    for quantity in found.quantities.values():
        assert quantity.value is not None or quantity.error is None
    if config.steps == 1:
        assert text.count("not in 1 ") == 3


def test_pairs_in_another_order_are_the_same_prediction() -> None:
    """The edge is that of the pair whose onset comes first."""
    model, start = DEFAULT.model, DEFAULT.initial_state
    one = predict(Model([20.0, 10.0], model.beta, model.covariance), State(start.c, start.b, [0.4, 0.3]), 0.04, 300)
    two = predict(Model([10.0, 20.0], model.beta, model.covariance), State(start.c, start.b, [0.3, 0.4]), 0.04, 300)
    for name, quantity in one.quantities.items():
        assert quantity.value == pytest.approx(two[name], rel=1e-9), name
    assert one["spike_height"] is not None
    descent = gradient_descent(
        Model([20.0, 10.0], model.beta, model.covariance), State(start.c, start.b, [0.4, 0.3]), 0.04, 300
    ).state
    assert one["spike_height"] == pytest.approx((descent.s[:, 0] ** 2)[50:].max(), rel=0.35)


def test_a_sample_of_very_unequal_groups_is_outside_the_onset_s_domain() -> None:
    for imbalance, outside in ((0.3, False), (0.9, True)):
        sample = SampleMoments.from_model(DEFAULT.model, imbalance)
        found = predict(DEFAULT.model, DEFAULT.initial_state, 0.04, 100, sample=sample)
        assert found.quantities["onset_step_sample"].outside == outside


def test_long_runs_of_many_features_are_refused_and_a_stiff_one_of_many_is_integrated() -> None:
    with pytest.raises(InputError, match="steps is 100000 with 1001 features: give at most 99800"):
        predict(DescentConfig(d1=1000).model, DescentConfig(d1=1000).initial_state, 0.04, 100_000)
    many = DescentConfig(alpha=1e4, d1=400)  # above `DENSE`, where the Jacobian is a sparse arrow
    found = gradient_flow(many.model, many.initial_state, [0.0, 20.0])
    limit = flow_limit(many.model, many.initial_state)
    np.testing.assert_allclose(found.state.at(-1).vector, limit.vector, rtol=1e-6, atol=1e-9)


def test_without_opposing_weight_at_the_start_the_edge_is_outside_the_domain() -> None:
    """Descent then settles above 2/η, which the middle of what was seen does not say."""
    config = DescentConfig(k=0.0)
    found = predict(config.model, config.initial_state, config.lr, config.steps)
    for name in ("sharpness_final", "amplitude"):
        assert "OUTSIDE" in found.quantities[name].domain
    assert "s(0) ≠ 0, here 0" in table(found)
    end = gradient_descent(config.model, config.initial_state, config.lr, config.steps).state.at(-1)
    assert float(sharpness(config.model, end)) > 2 / config.lr
    ordinary = DescentConfig()
    usual = predict(ordinary.model, ordinary.initial_state, ordinary.lr, ordinary.steps)
    assert "s(0)" not in usual.quantities["sharpness_final"].domain


@pytest.mark.parametrize("lr", [10.0, 0.04])
def test_the_flow_of_a_stiff_model_is_integrated_in_steps_of_its_own_time(lr: float) -> None:
    """α = 10⁴: the explicit method would take steps of 10⁻⁴ for as long as the horizon is."""
    config = DescentConfig(alpha=1e4, lr=lr)
    times = lr * np.array([0.0, 1.0, 500.0])
    found = gradient_flow(config.model, config.initial_state, times)
    end, limit = found.state.at(-1), flow_limit(config.model, config.initial_state)
    np.testing.assert_allclose(end.vector, limit.vector, rtol=1e-6, atol=1e-9)
    early = gradient_flow(config.model, config.initial_state, [1e-3, 2e-3])
    implicit = gradient_flow(config.model, config.initial_state, [1e-3, 2e-3], method="Radau")
    np.testing.assert_allclose(early.state.vector, implicit.state.vector, rtol=1e-7, atol=1e-10)


def test_the_onset_of_the_population_is_exact() -> None:
    predicted = predict(DEFAULT.model, DEFAULT.initial_state, DEFAULT.lr, 400)
    descent = theory.gradient_descent(DEFAULT.model, DEFAULT.initial_state, DEFAULT.lr, 400).state
    ratio = descent.s[:, 0] ** 2 / theory.edge_amplitude(DEFAULT.model, descent)
    crossed = np.flatnonzero(DEFAULT.lr * DEFAULT.alpha * descent.c**2 > 2)[0]
    assert predicted["onset_step"] == crossed + np.flatnonzero(ratio[crossed:] > 1)[0]


def test_a_sample_gets_an_onset_of_its_own() -> None:
    rng = np.random.default_rng(0)
    x, outlier = rng.normal(size=(4000, 50)), rng.random(4000) < 0.05
    o = np.where(outlier, rng.choice([-1, 1], 4000) * np.sqrt(20 / 0.05), 0.0)
    y = x @ DEFAULT.model.beta + np.abs(o)
    sample = SampleMoments.from_samples(x, o, y)
    predicted = predict(DEFAULT.model, DEFAULT.initial_state, DEFAULT.lr, 400, sample=sample)
    assert predicted.sample_onset is not None
    quantity = predicted.quantities["onset_step_sample"]
    run = theory.sample_descent(sample, DEFAULT.initial_state, DEFAULT.lr, 400)
    from theory.onset import observed_onset

    seen = observed_onset(sample, run.state, DEFAULT.lr).step
    assert seen is not None
    assert abs(seen - quantity.value) <= quantity.error


@pytest.mark.parametrize(("lr", "regime"), [(0.02, Regime.CONVERGES), (0.04, Regime.EDGE), (0.2, Regime.UNSTABLE)])
def test_regimes(lr: float, regime: Regime) -> None:
    predicted = predict(DEFAULT.model, DEFAULT.initial_state, lr, 200)
    assert predicted.regime is regime
    assert (predicted.final is not None) == (regime is Regime.CONVERGES)
    text = table(predicted)
    assert str(regime) in text
    assert "nan" not in text


def test_the_amplitude_curve_is_that_of_the_settled_edge() -> None:
    """T9 along the path with c held at the threshold, against a long descent that has settled there."""
    config = DescentConfig(beta=5.0, d1=100, exponent=1.0, lr=0.06, steps=3000)
    model, c = config.model, np.sqrt(2 / (0.06 * 20.0))
    floor = State(np.array(c), 0.3 * model.beta / c, np.zeros(1))
    start = State(floor.c, floor.b, 0.5 * np.sqrt(theory.edge_amplitude(model, floor))[None])
    descent = theory.gradient_descent(model, start, 0.06, 3000).state
    curves = predict(model, State(0.999 * c, floor.b, start.s), 0.06, 3000).curves
    measured = descent.s[2500:, 0] ** 2
    # Only the tail's decay compares: the run's spikes have moved it along the path by some steps.
    rate = np.polyfit(np.arange(measured.size), np.log(measured), 1)[0]
    predicted = np.polyfit(np.arange(501), np.log(curves.edge_amplitude[2500:]), 1)[0]
    assert rate == pytest.approx(predicted, rel=0.15)


def test_json_is_plain_and_complete() -> None:
    plain = predict(DEFAULT.model, DEFAULT.initial_state, 0.04, 50).as_dict(curves=True)
    text = json.dumps(plain, allow_nan=False)
    assert set(json.loads(text)["quantities"]) >= {"threshold", "sharpness_final", "onset_step", "spike_height"}
    assert len(plain["curves"]["sharpness"]) == 51


@settings(max_examples=25)
@given(st.floats(0.5, 5), st.floats(0, 1), st.integers(0, 100))
def test_degenerate_models_are_predicted_or_refused(beta: float, opposing: float, seed: int) -> None:
    start = random_start(4, 1.0, seed)
    for model in (Model([0.0], [beta] * 4, [1.0] * 4), Model([3.0], [beta] * 4, [1.0, 1.0, 0.5, 0.0])):
        state = State(start.c, start.b, start.s * opposing)
        predicted = predict(model, state, 0.05, 30)
        assert np.isfinite(predicted["flow_sharpness_final"])


def test_a_model_without_a_target_converges_to_zero() -> None:
    predicted = predict(Model([3.0], [0.0, 0.0], [1.0, 1.0]), random_start(2, 1.0, 0), 0.05, 50)
    assert predicted["flow_sharpness_final"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"steps": 0}, {"fraction": -1.0}, {"fraction": 2.0}])
def test_bad_input_is_refused(bad: dict[str, float]) -> None:
    options = {"lr": 0.04, "steps": 10, "fraction": 0.05, **bad}
    with pytest.raises(InputError, match=next(iter(bad))):
        predict(DEFAULT.model, DEFAULT.initial_state, options.pop("lr"), options.pop("steps"), **options)


@pytest.mark.parametrize(
    "start",
    [
        State(1.0, [1.0, 2.0], [0.5, 0.5]),
        State(1.0, [1.0, 2.0, 3.0], [0.5]),
        State(1.0, 2.0, [0.5, 0.5]),
        State([1.0], [1.0, 2.0, 3.0], [0.5, 0.5]),
    ],
)
def test_a_start_of_other_features_is_refused(start: State) -> None:
    model = Model([20.0, 5.0], [3.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    for call in (
        lambda: predict(model, start, 0.04, 100),
        lambda: gradient_descent(model, start, 0.04, 100),
        lambda: gradient_flow(model, start, [1.0]),
    ):
        with pytest.raises(InputError, match="as the model has 3 ordinary features and 2 opposing pairs"):
            call()


def test_a_negative_last_weight_and_a_model_without_pairs_are_refused() -> None:
    start = DEFAULT.initial_state
    with pytest.raises(InputError, match=r"c is -1\.0: give 0 or more"):
        predict(DEFAULT.model, State(-start.c, -start.b, -start.s), 0.04, 10)
    with pytest.raises(InputError, match="alpha is empty"):
        predict(Model([], [3.0], [1.0]), State(1.0, [1.0], []), 0.04, 10)


@given(st.floats(1e-3, 1), st.floats(0.1, 100), st.floats(0.1, 10))
def test_the_phase_diagram_is_the_predictions_regime(lr: float, alpha: float, beta: float) -> None:
    diagram = phase_diagram(lr, alpha, beta)
    model = Model([alpha], beta * np.eye(3)[0], np.ones(3))
    limit = theory.flow_limit(model, random_start(3, 2.0, 0))
    assert float(diagram.flow_sharpness) == pytest.approx(float(theory.sharpness(model, limit)), rel=1e-9)
    assert int(diagram.converges) + int(diagram.edge) + int(diagram.unstable) == 1
    assert diagram.flattest <= diagram.flow_sharpness * (1 + 1e-12)


def test_a_phase_diagram_is_one_broadcast_and_agrees_cell_by_cell() -> None:
    lr, alpha = np.geomspace(0.001, 1, 200), np.geomspace(1, 100, 200)
    diagram = phase_diagram(lr[:, None], alpha, 3.0)
    assert diagram.edge.shape == (200, 200)
    for i, j in ((0, 0), (100, 50), (199, 199), (120, 150)):
        cell = phase_diagram(lr[i], alpha[j], 3.0)
        assert (cell.converges, cell.edge, cell.unstable) == (
            diagram.converges[i, j],
            diagram.edge[i, j],
            diagram.unstable[i, j],
        )


def test_the_plot_is_written_or_refused(tmp_path: Path) -> None:
    predicted = predict(DEFAULT.model, DEFAULT.initial_state, 0.04, 100)
    plot_predictions(predicted, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 1000
    with pytest.raises(InputError, match=r"--plot is p\.gif"):
        plot_predictions(predicted, Path("p.gif"))
    assert SPIKE_EXCESS[0] < SPIKE_EXCESS[1]
