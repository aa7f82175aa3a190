"""Predictions of a run's oscillation by the reduced map, from measurements up to a stated step, and what came after."""

from __future__ import annotations

from validate.prediction.map_at import map_at, map_before_onset
from validate.prediction.quantities import Point
from validate.prediction.spikes import (
    alternating_peak_square,
    first_spike,
    height_point,
    later_period_point,
    orbit_peak_square,
    orbit_period_point,
    peak_square,
    period_point,
    rise_point,
    within_domain,
)
from validate.prediction.stretches import growth_points, persistence_points, variance_ahead_point, variance_points
from validate.prediction.trace import Trace
from validate.prediction.waits import growth_law_wait_point, wait_point


def predict_oscillation(trace: Trace) -> dict[str, list[Point]]:
    """Every quantity's points of one run, by the names of `validate.prediction.quantities.QUANTITIES`."""
    at_start, at_onset = map_at(trace, trace.start), map_before_onset(trace)
    spike = first_spike(trace)
    return {
        "wait": [wait_point(trace, at_start, trace.onset)],
        "wait for the losses": [wait_point(trace, at_start, trace.losses_onset)],
        "wait, λ(t) measured": [growth_law_wait_point(trace)],
        "growth": growth_points(trace),
        "variance": variance_points(trace),
        "variance past the spike": variance_points(trace, 0 if spike is None else spike.peak),
        "variance, x² then": persistence_points(trace),
        "variance ahead": [variance_ahead_point(trace)],
        "spike": [height_point(alternating_peak_square(at_start), spike)],
        "spike from onset": [height_point(alternating_peak_square(at_onset), spike)],
        "spike in its domain": [height_point(alternating_peak_square(within_domain(at_onset)), spike)],
        "spike of the orbit": [height_point(orbit_peak_square(at_onset), spike)],
        "loss rise": [rise_point(trace, peak_square(at_start), spike)],
        "loss rise from onset": [rise_point(trace, peak_square(at_onset), spike)],
        "loss rise, x² measured": [rise_point(trace, float("nan") if spike is None else spike.square, spike)],
        "period": [period_point(trace, at_start, spike)],
        "period, a after spike": [later_period_point(trace, spike)],
        "period of the orbit": [orbit_period_point(trace, at_start, spike)],
    }
