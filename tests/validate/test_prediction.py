"""Predictions against the reduced map's own orbits and two-layer networks, fed in as if a network had shown them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from map_orbits import EVERY, recorded, rising, trace_of_map
from strategies import finite

from theory import gradient_descent, layer_sharpness
from theory.configuration import DescentConfig
from theory.reduced_map import ReducedMap
from validate.claims.base import mean_interval
from validate.prediction.layers import LayerSeries, clopper_pearson, flow_layers, score_layers
from validate.prediction.map_at import last_before_onset, map_at, map_before_onset
from validate.prediction.oscillation import predict_oscillation
from validate.prediction.quantities import QUANTITIES, VALLEY_QUANTITIES, Point, Quantity
from validate.prediction.scores import PredictedRun, r_squared, relative_error, score
from validate.prediction.spikes import (
    FLOOR_STEPS,
    Spike,
    first_spike,
    later_period_point,
    rise_point,
    spike_steps,
    valley_points,
)
from validate.prediction.stretches import (
    SETTLING,
    _standing,
    growth_points,
    stretches_of,
    variance_ahead_point,
    variance_points,
)
from validate.prediction.trace import kinematic_displacement, less_drift, read_trace, smooth_free_displacement
from validate.prediction.valley import ToldSpike
from validate.prediction.waits import growth_law_wait_point
from validate.windows import Windows

BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


@settings(max_examples=25)
@given(g=finite(3e-4, 4e-3), lr=finite(0.01, 0.2), size=finite(1e-5, 1e-3))
def test_the_orbit_of_the_map_is_predicted_as_it_goes(g: float, lr: float, size: float) -> None:
    trace = rising(g, lr, size)
    points = {name: found[0] for name, found in predict_oscillation(trace).items() if len(found) == 1}
    # x is taken as its root mean square over the steps up to the start, at which it hardly changes.
    assert points["wait"].predicted == pytest.approx(points["wait"].measured, abs=2.5, rel=0.03)
    assert points["wait, λ(t) measured"].predicted == pytest.approx(points["wait, λ(t) measured"].measured, abs=2.5)
    error = float(map_at(trace, trace.start).reduced.spike(0.01, 0.0).error) + 0.06  # type: ignore[union-attr]
    for name in ("spike", "spike from onset", "spike in its domain"):
        assert points[name].predicted == pytest.approx(points[name].measured, rel=max(error, 0.1)), name
    # A start between two iterates of the orbit peaks between them: x is a mean over two steps.
    orbit = points["spike of the orbit"]
    assert orbit.predicted == pytest.approx(orbit.measured, rel=0.1)
    # By the alternating part, which is smaller at the peak than x: told too low, by no more than this.
    risen = points["loss rise, x² measured"]
    assert 0.85 * risen.measured < risen.predicted < 1.03 * risen.measured


@pytest.mark.parametrize(("excess", "gain", "steps"), [(0.5, 1.5**5.5, 6), (0.5, 1.5**6.5, 7), (0.02, 1.02**30.5, 31)])
def test_the_growth_law_waits_until_the_gain_is_reached(excess: float, gain: float, steps: int) -> None:
    trace = rising(0.002, 0.05, 1e-3)
    steady = dataclasses.replace(trace, excess=np.full_like(trace.excess, excess))
    sized = dataclasses.replace(steady, onset_size=gain * steady.start_size)
    point = growth_law_wait_point(sized)
    assert point.predicted == steps
    assert trace.onset is not None
    assert point.measured == trace.onset - trace.start_step


@pytest.mark.parametrize(("series", "size"), [("x", "start_size"), ("top_x", "top_start_size")])
def test_the_size_at_the_start_is_of_the_steps_before_it_alone(series: str, size: str) -> None:
    trace = rising(0.002, 0.05, 1e-3)
    for at, same in ((trace.start_step, True), (trace.start_step - 1, False)):
        values = getattr(trace, series).copy()
        values[at] = 1e3
        assert (getattr(dataclasses.replace(trace, **{series: values}), size) == getattr(trace, size)) is same


def test_x_at_a_measurement_is_that_of_the_step_before_times_its_growth() -> None:
    trace = rising(0.002, 0.05, 1e-3)
    steady = dataclasses.replace(trace, excess=np.full_like(trace.excess, 0.3))
    index = last_before_onset(steady)
    assert index is not None
    assert index > steady.start
    found = map_at(steady, index)
    assert found is not None
    assert found.x == pytest.approx(1.3 * abs(steady.x[steady.measured[index] - 1]), rel=1e-12)


def test_the_variance_ahead_is_told_from_what_ends_before_it() -> None:
    trace = rising(0.002, 0.05, 0.02)
    divide = trace.start_step + SETTLING
    within = [s.measurement for s in _standing(trace) if s.end <= divide]
    beyond = [s.measurement for s in _standing(trace) if s.end > divide]
    assert within
    assert beyond
    told = variance_ahead_point(trace).predicted
    assert math.isfinite(told)
    for changed, same in ((beyond, True), (within, False)):
        a = trace.a.copy()
        a[changed] *= 100
        assert (variance_ahead_point(dataclasses.replace(trace, a=a)).predicted == told) is same


def test_the_onset_of_x_and_that_of_the_losses_are_scored_apart() -> None:
    trace = rising(0.002, 0.05, 1e-3)
    assert trace.onset is not None
    late = dataclasses.replace(trace, losses_onset=trace.onset + 30)
    before, after = predict_oscillation(trace), predict_oscillation(late)
    assert after["wait for the losses"][0].measured == before["wait for the losses"][0].measured + 30
    assert after["wait for the losses"][0].predicted == before["wait"][0].predicted
    others = set(before) - {"wait for the losses"}
    assert all(str(before[name]) == str(after[name]) for name in others)


@settings(max_examples=25)
@given(g=finite(3e-4, 4e-3), lr=finite(0.01, 0.2))
def test_the_growth_factor_is_the_maps(g: float, lr: float) -> None:
    points = growth_points(rising(g, lr, 1e-3))
    assert len(points) > 5
    told, seen = np.array([(p.predicted, p.measured) for p in points]).T
    # The slope weighs late steps of a stretch more; over a spike e bends within it.
    np.testing.assert_allclose(seen, told, atol=0.1)
    np.testing.assert_allclose(np.median(np.abs(seen - told)), 0, atol=2e-3 + 2 * g)


def test_the_top_of_the_first_spike_is_no_rest() -> None:
    trace = rising(3e-4, 0.05, after=120)
    points, spike, standing = predict_oscillation(trace), first_spike(trace), _standing(trace)
    assert spike is not None
    late = [point for stretch, point in zip(standing, points["variance"], strict=True) if stretch.begin >= spike.peak]
    assert points["variance past the spike"] == late
    assert 0 < len(late) < len(standing)
    # Without a spike, from the onset on.
    calm = predict_oscillation(dataclasses.replace(trace, swing=np.full_like(trace.swing, np.nan)))
    assert calm["variance past the spike"] == points["variance"]


@given(g=finite(3e-4, 0.01), b=finite(0.1, 1e4), lr=finite(0.01, 0.2))
def test_near_rest_the_variance_is_the_rest_value_and_the_period_that_of_small_oscillations(
    g: float, b: float, lr: float
) -> None:
    reduced = ReducedMap(g / lr**2, b, lr)
    trace = trace_of_map(reduced, 1.1 * math.sqrt(reduced.rest_square), 0.0, int(5 * reduced.period))
    told, seen = np.array([(p.predicted, p.measured) for p in variance_points(trace)]).T
    assert np.mean(seen) == pytest.approx(np.mean(told), rel=0.1)
    assert np.mean(told) == pytest.approx(2 * g / lr**2 / b)


@settings(max_examples=25)
@given(g=finite(3e-4, 3e-3), size=finite(1.4, 1.6))
def test_the_time_between_spikes_is_the_orbits(g: float, size: float) -> None:
    """The oscillation is large enough to count as spikes and small enough for the period's formula (to a tenth)."""
    lr, b = 0.05, 30.0
    reduced = ReducedMap(g / lr**2, b, lr)
    trace = trace_of_map(reduced, size**0.5 * math.sqrt(reduced.rest_square), 0.0, int(4.4 * reduced.period))
    points = {name: found[0] for name, found in predict_oscillation(trace).items() if len(found) == 1}
    peaks = spike_steps(trace)
    assert len(peaks) >= 3
    for name in ("period", "period, a after spike"):
        assert points[name].predicted == pytest.approx(points[name].measured, rel=0.15, abs=1), name
    assert points["period of the orbit"].predicted == pytest.approx(points["period of the orbit"].measured, rel=0.1)


def test_the_floor_ends_five_steps_before_the_onset() -> None:
    """The loss falls in a straight line, and steps up just after it."""
    trace = rising(0.002, 0.05, 1e-3)
    assert trace.onset is not None
    spike = Spike(trace.onset + 4, 1.0)
    loss = 1 - 1e-3 * np.arange(len(trace.steps))
    loss[trace.onset - 5 :] += 0.5
    loss[spike.peak] += 2
    assert rise_point(dataclasses.replace(trace, loss=loss), 1.0, spike).measured == pytest.approx(2.5, rel=1e-9)


def test_an_onset_with_no_floor_before_it_has_no_rise() -> None:
    """With fewer steps before it than the line needs, the line would run through the oscillation."""
    trace = rising(0.002, 0.05, 1e-3)
    assert trace.onset is not None
    for onset, known in ((FLOOR_STEPS - 1, False), (FLOOR_STEPS, True)):
        cut = slice(trace.onset - onset, None)
        late = dataclasses.replace(trace, loss=trace.loss[cut], square=trace.square[cut], onset=onset)
        assert np.isfinite(rise_point(late, 1.0, Spike(onset + 4, 1.0)).measured) == known


def test_the_later_period_is_that_of_the_twenty_steps_from_the_spike_on() -> None:
    trace = rising(3e-4, 0.05, after=200)
    rising_a = trace.a * np.arange(len(trace.measured))
    spike = Spike(int(trace.measured[6]), 1.0)
    told = later_period_point(dataclasses.replace(trace, a=rising_a), spike).predicted
    # Measurements 6 to 9: their median is 7.5.
    assert told == pytest.approx(ReducedMap(7.5 * trace.a[0], trace.b[0], trace.lr).period)


def _runs(points: dict[float, list[tuple[float, float]]]) -> list[PredictedRun]:
    """A run a step size and entry, of one made-up quantity."""
    return [
        PredictedRun("made up", lr, seed, f"{lr}-{seed}", {"made up": [Point(*pair, (1.0, pair[1]))]})
        for lr, pairs in points.items()
        for seed, pair in enumerate(pairs)
    ]


MADE_UP = Quantity("made up", "", "", True, 0.5, 0.3)


def test_what_is_predicted_passes_and_permuted_predictions_fail() -> None:
    """Waits of the map over a range of step sizes, scored as a network's are."""
    runs = []
    for lr in (0.03, 0.04, 0.052, 0.068, 0.088):
        for seed in range(3):
            trace = rising(0.4 * lr**2 * (1 + 0.1 * seed), lr, 10.0 ** -(4 + seed / 2))
            runs.append(PredictedRun("map", lr, seed, f"{lr}-{seed}", predict_oscillation(trace)))
    for name in ("wait", "wait, λ(t) measured", "growth", "spike", "loss rise, x² measured"):
        found = score(BY_NAME[name], runs)
        assert found.reason == "", (name, found)
        assert found.r2 > 0.9
        assert found.r2_interval[0] <= found.r2 <= found.r2_interval[1]
        assert found.skill_interval[0] <= found.skill <= found.skill_interval[1]
        assert not found.permuted_r2 > 0.5


SIZES, SEEDS = (1.0, 2.0, 4.0), (1.0, 1.1, 0.9)
"""Step sizes, and by how much what is measured differs from seed to seed at each."""


def _pairs(told: Callable[[float, float], float]) -> dict[float, list[tuple[float, float]]]:
    return {lr: [(told(lr, seed), lr * seed) for seed in SEEDS] for lr in SIZES}


def test_predictions_that_miss_are_told_with_the_reason() -> None:
    right = score(MADE_UP, _runs(_pairs(lambda lr, seed: 1.02 * lr * seed)))
    assert right.reason == ""
    assert right.skill > 0.9
    doubled = score(MADE_UP, _runs(_pairs(lambda lr, seed: 2 * lr * seed)))
    assert "relative error" in doubled.reason
    assert "R²" in score(dataclasses.replace(MADE_UP, largest_error=9.0), _runs(_pairs(lambda lr, seed: 2.0))).reason
    one = {1.0: [(seed, seed) for seed in SEEDS]}
    assert "permuted" in score(MADE_UP, _runs(one)).reason  # one step size alone: nothing to permute
    assert score(MADE_UP, _runs({1.0: [(math.nan, 1.0), (1.0, 1.0)]})).reason == "fewer than two seeds"


def test_a_prediction_that_knows_the_step_size_alone_is_not_one() -> None:
    """The law of the step size, without error over seeds, has a high R² and says nothing that other seeds do not."""
    law = score(MADE_UP, _runs(_pairs(lambda lr, seed: lr)))
    assert law.r2_interval[0] > 0.5
    assert law.error_interval[1] < 0.3
    assert law.reason == "not surely better than the other seeds' mean at the step size"
    # Nor is the mean of the other seeds itself: its skill is 0.
    others = _pairs(lambda lr, seed: lr * math.exp(np.log([s for s in SEEDS if s != seed]).mean()))
    assert score(MADE_UP, _runs(others)).skill == pytest.approx(0, abs=1e-12)
    # What seeds do alike at a step size leaves nothing to better.
    alike = score(MADE_UP, _runs({lr: [(lr, lr)] * 3 for lr in SIZES}))
    assert math.isnan(alike.skill)
    assert alike.reason


def test_a_control_without_a_value_is_no_control_that_fails() -> None:
    controlled = dataclasses.replace(MADE_UP, control="something else")
    runs = _runs(_pairs(lambda lr, seed: 1.02 * lr * seed))
    assert score(controlled, runs).reason == ""
    without = [
        dataclasses.replace(run, points={"made up": [Point(p.predicted, p.measured) for p in run.points["made up"]]})
        for run in runs
    ]
    assert "control" in score(controlled, without).reason
    assert score(MADE_UP, without).reason == ""


def test_what_is_mostly_undefined_is_not_predicted() -> None:
    sizes = (1.0, 2.0, 4.0, 8.0, 16.0)
    half = {lr: [(lr, lr), (math.nan, lr)] for lr in sizes}
    assert score(MADE_UP, _runs(half)).reason == "fewer than two seeds"
    thirds = {lr: [(lr, lr), (1.3 * lr, 1.3 * lr), (math.nan, lr)] for lr in sizes}
    assert score(MADE_UP, _runs(thirds)).reason == "told or seen in 10 of 15 runs"
    # One of ten may be missing.
    assert score(MADE_UP, _runs({**thirds, **{lr: thirds[lr][:2] for lr in sizes[1:]}})).reason == ""


def test_a_measured_nought_counts() -> None:
    assert relative_error([np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 1.0]])]) == 0.0
    assert relative_error([np.array([[3.0, 0.0], [5.0, 0.0], [2.0, 1.0]])]) == math.inf


def test_intervals_are_those_of_seeds() -> None:
    """Runs of one seed that err alike are one error: five step sizes do not narrow the interval."""
    rng = np.random.default_rng(1)
    errors = {seed: math.exp(0.3 * error) for seed, error in enumerate(rng.normal(size=6))}
    found = {
        sizes: score(
            MADE_UP,
            [
                PredictedRun("made up", lr, seed, "", {"made up": [Point(lr * errors[seed], lr)]})
                for lr in np.geomspace(1, 8, sizes)
                for seed in errors
            ],
        )
        for sizes in (2, 20)
    }
    few, many = (np.diff(found[sizes].error_interval).item() for sizes in (2, 20))
    assert many == pytest.approx(few, rel=0.05)
    assert found[20].error_interval == pytest.approx(mean_interval([abs(e - 1) for e in errors.values()]))
    parts = [
        1 - 6 * 20 * math.log(error) ** 2 / (6 * np.sum((np.log(np.geomspace(1, 8, 20)) - math.log(8) / 2) ** 2))
        for error in errors.values()
    ]
    assert found[20].r2 == pytest.approx(np.mean(parts))
    assert found[20].r2_interval == pytest.approx(mean_interval(parts))


def test_the_interval_s_lower_end_lies_above_the_truth_in_one_case_of_twenty() -> None:
    """Three seeds: a percentile bootstrap's does in about 18 of 100."""
    rng = np.random.default_rng(0)
    above = [mean_interval(list(rng.normal(size=3)))[0] > 0 for _ in range(4000)]
    assert np.mean(above) == pytest.approx(0.05, abs=0.012)


@given(st.lists(st.tuples(finite(0.1, 10), finite(0.1, 10)), min_size=3, max_size=20), st.booleans())
def test_r_squared_is_one_for_the_truth_and_none_above_the_mean(
    pairs: list[tuple[float, float]], logarithmic: bool
) -> None:
    table = np.array(pairs)
    measured = np.log(table[:, 1]) if logarithmic else table[:, 1]
    if np.ptp(measured) < 1e-3:
        return
    truth, mean = table.copy(), table.copy()
    truth[:, 0] = table[:, 1]
    mean[:, 0] = math.exp(measured.mean()) if logarithmic else measured.mean()
    assert r_squared([truth[:1], truth[1:]], logarithmic) == pytest.approx(1)
    assert r_squared([mean], logarithmic) == pytest.approx(0, abs=1e-9)
    assert relative_error([truth]) == pytest.approx(0)
    told = np.log(table[:, 0]) if logarithmic else table[:, 0]
    expected = 1 - np.sum((measured - told) ** 2) / (len(measured) * np.var(measured))
    assert r_squared([table], logarithmic) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(r=finite(0.5, 2.0), lr=finite(0.01, 1), drift=finite(-1e3, 1e3))
def test_displacement_is_kinematic_whatever_the_growth(r: float, lr: float, drift: float) -> None:
    """x_t = (−r)^t + a drift linear in t, with g from its definition, and the second difference as the oracle."""
    t = np.arange(12)
    x = (-r) ** t + drift * t
    slope = -np.diff(x) / lr
    expected = -np.diff(x, 2) / 4
    np.testing.assert_allclose(kinematic_displacement(slope, lr)[1:], expected, rtol=1e-6, atol=1e-9 * (1 + abs(drift)))
    # For steady growth the alternating part is x itself, (2 + r + 1/r)/4 times.
    factor = (2 + r + 1 / r) / 4
    np.testing.assert_allclose(expected, (-r) ** t[1:-1] * factor, rtol=1e-6, atol=1e-9 * (1 + abs(drift)))
    parabola = smooth_free_displacement(-np.diff(drift * t**2.0) / lr, lr)
    np.testing.assert_allclose(parabola[2:-1], 0, atol=1e-9 * (1 + abs(drift)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("silent", [False, True])
def test_a_trace_is_read_from_a_base_run_and_its_study(sign: float, silent: bool) -> None:
    """The direction of the bounce may have either sign, and takes over after the onset; a pair may swing late."""
    orbit = rising(0.002, 0.05, 1e-3)
    base, edge = recorded(orbit, sign)
    if silent:  # losses that show nothing until long after x has set in
        assert orbit.onset is not None
        base["loss"].values[: int(orbit.steps[orbit.onset]) + 25] = 1.0
    crossing = int(orbit.steps[orbit.start_step])
    end = int(orbit.steps[-1]) + 1
    windows = Windows(
        crossing, slice(200, 280), slice(crossing, end - 60), slice(end - 60, end), slice(crossing, end), slice(0, 9)
    )
    trace = read_trace(base, edge, windows)
    assert trace.start_step == orbit.start_step
    assert trace.onset is not None
    assert orbit.onset is not None
    assert abs(trace.onset - orbit.onset) <= 1  # (2 + r + 1/r)/4 of x is seen of it
    assert trace.losses_onset is not None
    assert silent == (trace.losses_onset > orbit.onset + 20)
    assert silent or abs(trace.losses_onset - orbit.onset) < 20  # half of the edge's median is not half of rest
    known = np.isfinite(trace.square)
    growth = 1 + np.interp(np.arange(len(trace.steps)), orbit.measured, orbit.excess)
    factor = (2 + growth + 1 / growth) / 4
    np.testing.assert_allclose(trace.square[known] ** 0.5, np.abs(orbit.x * factor)[known], rtol=0.05)
    assert trace.excess == pytest.approx(orbit.excess, abs=1e-9)
    # Where the bounce takes over x has no value, so no slope is taken over the change of direction.
    later = trace.measured[trace.measured >= trace.onset]
    assert np.isnan(trace.x[later]).all()
    told, seen = np.array([(p.predicted, p.measured) for p in growth_points(trace)]).T
    np.testing.assert_allclose(seen, told, atol=0.1)


def test_before_the_onset_x_grows_along_the_eigenvector_of_now() -> None:
    """A second eigenvalue overtakes: along the study's first eigenvector the old mode, that of now in the losses."""
    orbit = rising(0.002, 0.05, 1e-6)
    base, edge = recorded(orbit, 1.0)
    end = int(orbit.steps[-1]) + 1
    begin = int(orbit.steps[orbit.start_step])
    windows = Windows(begin, slice(200, 280), slice(begin, end - 60), slice(end - 60, end), slice(begin, end), slice(0))
    t = np.arange(len(orbit.steps))
    # What the study's first eigenvector shows: a mode that grows slowly, and a share of the fast one against it.
    edge["gradient_projection"].values[:, 0] *= -0.3
    edge["gradient_projection"].values[:, 0] += 2e-5 * (-1.03) ** t
    # A drift along that of now is no growth.
    edge["gradient_along_top"].values[:] += 2e-4 * t
    told, seen = np.array([(p.predicted, p.measured) for p in growth_points(read_trace(base, edge, windows))]).T
    assert told.size > 5
    np.testing.assert_allclose(seen, told, atol=0.1)


@pytest.mark.parametrize("decay", [0.8, 0.95])
def test_a_drift_that_decays_is_no_growth(decay: float) -> None:
    """Half the difference of two steps lessens it, and does not take it away: it must not count until x outgrows it."""
    orbit = rising(0.002, 0.05, 1e-6)
    base, edge = recorded(orbit, 1.0)
    begin, end = int(orbit.steps[orbit.start_step]), int(orbit.steps[-1]) + 1
    windows = Windows(begin, slice(200, 280), slice(begin, end - 60), slice(end - 60, end), slice(begin, end), slice(0))
    since = np.arange(len(orbit.steps)) - orbit.start_step
    # Of g_t = A dᵗ there is ηA(d − 1)dᵗ⁻¹/4 in x, and of that (d − 1)/2d less its drift: 20 times the orbit's size.
    left = 20 * np.abs(orbit.top_x[orbit.start_step])
    edge["gradient_along_top"].values[:] += 8 * left / orbit.lr * decay ** (since + 2) / (1 - decay) ** 2
    trace = read_trace(base, edge, windows)
    assert trace.top_start_size > 15 * trace.start_size
    told, seen = np.array([(p.predicted, p.measured) for p in growth_points(trace)]).T
    before = sum(s.clear and s.begin < (trace.onset or 0) for s in stretches_of(trace))
    assert before > 3
    np.testing.assert_allclose(seen, told, atol=0.1)


@given(r=finite(0.5, 2.0), drift=finite(-1e3, 1e3))
def test_what_is_less_its_drift_keeps_the_growth_of_what_alternates(r: float, drift: float) -> None:
    t = np.arange(12)
    x = less_drift((-r) ** t + drift)
    np.testing.assert_allclose(x[1:], (-r) ** t[1:] * (1 + 1 / r) / 2, rtol=1e-6, atol=1e-9 * (1 + abs(drift)))


def test_from_an_onset_at_a_measurement_on_the_bounce_is_followed() -> None:
    """There x is the size of the whole bounce, since its direction changes; and the curvature is along it."""
    orbits = (rising(0.002, 0.05, 1e-3 * 1.04**k) for k in range(40))
    orbit = next(o for o in orbits if o.onset is not None and o.onset % EVERY == 0)
    assert orbit.onset is not None
    begin, end = int(orbit.steps[orbit.start_step]), int(orbit.steps[-1]) + 1
    edge = slice(begin, end)
    windows = Windows(begin, slice(200, 280), slice(begin, end - 60), slice(end - 60, end), edge, slice(0, 9))
    base, edge_study = recorded(orbit, 1.0)
    edge_study["bounce_curvature"] = edge_study["bounce_curvature"] + 7.0
    trace = read_trace(base, edge_study, windows)
    assert trace.onset == orbit.onset
    assert trace.onset_size == pytest.approx(abs(orbit.x[orbit.onset]))
    later = trace.measured >= orbit.onset
    assert trace.excess == pytest.approx(np.where(later, orbit.excess + 7 * orbit.lr, orbit.excess))


def test_without_an_onset_or_with_a_negative_a_nothing_is_predicted() -> None:
    trace = rising(0.002, 0.05)
    never = dataclasses.replace(trace, onset=None)
    assert map_before_onset(never) is None
    assert first_spike(never) is None
    assert all(math.isnan(p.measured) for p in predict_oscillation(never)["wait"])
    assert variance_points(never) == []
    falling = dataclasses.replace(trace, a=-trace.a)
    assert map_at(falling, falling.start) is None
    assert all(math.isnan(p.predicted) for p in predict_oscillation(falling)["spike"])


@settings(max_examples=15)
@given(
    alpha=finite(5, 60),
    beta=finite(1.5, 6),
    k=finite(1, 20),
    seed=st.integers(0, 100),
)
def test_two_layer_networks_shift_as_predicted(alpha: float, beta: float, k: float, seed: int) -> None:
    """Descent at a small step size, other seeds and sizes than the family's, which is integrated as a flow."""
    config = DescentConfig(alpha=alpha, beta=beta, k=k, start_seed=seed)
    steps = 3200  # α = 47, ‖β‖ = 1.5, k = 1: both blocks turn within 0.005 of time 0.235
    trajectory = gradient_descent(config.model, config.initial_state, 8 / beta / steps, steps).state
    layers = layer_sharpness(config.model, trajectory)
    # Every step: both blocks may turn within ten (α = 49, ‖β‖ = 2, k = 1: at steps 29 and 34).
    every = np.arange(steps + 1)
    run = LayerSeries(every, every, layers.first, layers.last, layers.first_share, 1 - layers.first_share)
    scores = {(s.event, s.start): s for s in score_layers([(0, run)])}
    told = [s for s in scores.values() if s.predicted is not None]
    assert len(told) >= 8
    for found in told:
        assert found.share == 1.0, found


def test_layers_exchanged_or_run_backwards_are_not_as_predicted() -> None:
    own = flow_layers(DescentConfig())
    times = {"block_steps": own.block_steps, "share_steps": own.share_steps}
    backwards_run = LayerSeries(**{**{name: values[::-1] for name, values in vars(own).items()}, **times})
    forwards, backwards = ([(seed, run) for seed in range(10)] for run in (own, backwards_run))
    # Runs of one seed are no ten trials.
    assert {s.reason for s in score_layers([(0, own)] * 10) if "share" in s.event} == {"fewer than 5 seeds"}
    five = [(seed, own if seed else backwards_run) for seed in range(5)]
    assert {s.reason for s in score_layers(five) if "share" in s.event} == {"could be chance"}
    forwards, backwards = score_layers(forwards), score_layers(backwards)
    shares = [s for s in forwards if "share" in s.event]
    assert shares
    for found in shares:
        assert found.reason == ""
        assert found.control == 0.0
    assert all(s.share == 0.0 for s in backwards if "share" in s.event)


@pytest.mark.parametrize("every", [25, 100])
def test_the_first_tenth_is_one_of_steps_however_seldom_blocks_are_measured(every: int) -> None:
    """With five values of the blocks a tenth of them is none; the first of them is of the start all the same."""
    steps = np.arange(0, 420, 10)
    blocks = steps[:: every // 5]
    series = LayerSeries(blocks, steps, blocks + 1.0, blocks + 2.0, steps + 3.0, steps + 4.0)
    later = series.later()
    assert later.block_steps[0] == blocks[blocks >= 41][0]
    assert later.share_steps[0] == 50
    assert later.first_block[0] == later.block_steps[0] + 1
    assert later.last_share[-1] == series.last_share[-1]
    back = series.exchanged().exchanged()
    assert all(np.array_equal(getattr(back, name), values) for name, values in vars(series).items())


def test_the_interval_of_a_share_covers_it() -> None:
    rng = np.random.default_rng(0)
    for p in (0.3, 0.8):
        hits = rng.binomial(15, p, size=2000)
        intervals = [clopper_pearson(h, 15) for h in range(16)]
        assert np.mean([intervals[h][0] <= p <= intervals[h][1] for h in hits]) >= 0.9
    assert clopper_pearson(0, 10)[0] == 0.0
    assert all(math.isnan(v) for v in clopper_pearson(0, 0))


def test_every_quantity_has_points_and_a_name_of_its_own() -> None:
    assert len(BY_NAME) == len(QUANTITIES)
    assert set(BY_NAME) <= set(predict_oscillation(rising(0.002, 0.05)))


def test_what_the_valley_tells_is_compared_from_its_iterate_on() -> None:
    """Told the losses that were seen, above a floor that sinks, it tells the rise that was seen."""
    trace = rising(0.002, 0.05, after=60)
    trace = dataclasses.replace(trace, loss=trace.loss - 0.01 * np.arange(len(trace.loss)))
    spike = first_spike(trace)
    assert spike is not None
    at = spike.peak - 7
    told = ToldSpike(0.1, 0.2, 6.0, trace.loss[at : spike.peak + 2])
    points = {name: point for name, (point,) in valley_points(trace, at, told).items()}
    assert set(points) == {quantity.name for quantity in VALLEY_QUANTITIES}
    assert points["steps to the spike"] == Point(6.0, 7)
    rise = points["loss rise of the line"]
    assert rise.predicted == pytest.approx(rise.measured, rel=1e-12)
    assert rise.measured == rise_point(trace, 1.0, spike).measured
    assert points["spike of the valley"] == Point(0.1, spike.square)
    assert points["spike of the line"] == Point(0.2, spike.square)
