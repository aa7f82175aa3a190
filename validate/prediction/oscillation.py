"""Predictions of a run's oscillation by the reduced map, from measurements up to a stated step, and what came after."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from theory.reduced_map import ReducedMap, loss_rise
from validate.claims.bounce import STEADY
from validate.claims.c02_onset import VISIBLE
from validate.prediction.trace import Trace

Array = npt.NDArray[np.float64]

ABOVE_NOISE = 5.0
"""A growth factor is taken where |x| is so many times its size at the start, or the onset is past."""
PROMINENCE = float(np.log(1.3))
"""Of a spike, in ln of the swing: 1.3 times both neighbouring lows."""
SETTLING = 75
"""Steps from the start from which the variance ahead is predicted, for the steps after them."""
FLOOR_STEPS = 15
"""Steps before the first spike over which the loss is taken to be on its floor, and carried on in a straight line."""
ORBIT_STEPS = 5000
LARGEST_HEIGHT = 0.6
"""Of w = η²bx²/2 at the peak, up to which the closed form of a spike holds (`theory.spikes.within_domain`)."""


@dataclass(frozen=True)
class Point:
    """One prediction and what was measured; NaN where one of them is not defined.

    Attributes:
        predicted: by theory.
        measured: on the network, after what the prediction was made from.
        control: the two with something of the network's other directions in the place of one; NaN without.
    """

    predicted: float
    measured: float
    control: tuple[float, float] = (float("nan"), float("nan"))


@dataclass(frozen=True)
class Spike:
    """The first spike: index in the trace's steps of its peak, and x² there."""

    peak: int
    square: float


def predict_oscillation(trace: Trace) -> dict[str, list[Point]]:
    """Every quantity's points of one run, by the names of `validate.prediction.quantities.QUANTITIES`."""
    at_start, at_onset = map_at(trace, trace.start), map_before_onset(trace)
    spike = first_spike(trace)
    return {
        "wait": [_wait(trace, at_start, trace.onset)],
        "wait for the losses": [_wait(trace, at_start, trace.losses_onset)],
        "wait, λ(t) measured": [_wait_by_growth_law(trace)],
        "growth": growth_points(trace),
        "variance": variance_points(trace),
        "variance ahead": [_variance_ahead(trace)],
        "spike": [_spike_height(trace, at_start, spike)],
        "spike from onset": [_spike_height(trace, at_onset, spike)],
        "spike in its domain": [_spike_height(trace, _within_domain(at_onset), spike)],
        "loss rise": [_loss_rise(trace, _peak(at_start), spike)],
        "loss rise from onset": [_loss_rise(trace, _peak(at_onset), spike)],
        "loss rise, x² measured": [_loss_rise(trace, float("nan") if spike is None else spike.square, spike)],
        "period": [_period(trace, at_start, spike)],
        "period, a after spike": [_period_after(trace, spike)],
        "period of the orbit": [_orbit_period(trace, at_start, spike)],
    }


@dataclass(frozen=True)
class MapAt:
    """The reduced map with a and b measured at one step, and x and y = (sharpness − 2/η) there."""

    reduced: ReducedMap
    x: float
    y: float


def map_at(trace: Trace, index: int) -> MapAt | None:
    """The map at a measurement; None where a or b is not positive there, and there is no edge to sit at."""
    a, b, e = (float(v[index]) for v in (trace.a, trace.b, trace.excess))
    near = trace.x[max(trace.measured[index] - 1, 0) : trace.measured[index] + 1]
    size = trace.start_size if index == trace.start else _rms(near)
    if not (a > 0 and b > 0 and e > -1 and size > 0):  # NaN fails each
        return None
    return MapAt(ReducedMap(a, b, trace.lr), size, e / trace.lr)


def map_before_onset(trace: Trace) -> MapAt | None:
    """The map at the last measurement before the onset at which x stands clear of its noise at the start."""
    if trace.onset is None:
        return None
    ready = [
        i
        for i, at in enumerate(trace.measured)
        if i >= trace.start and at < trace.onset and _rms(trace.x[at - 1 : at + 1]) > ABOVE_NOISE * trace.start_size
    ]
    return map_at(trace, ready[-1]) if ready else None


def _wait(trace: Trace, at: MapAt | None, onset: int | None) -> Point:
    """Steps from the start to an onset: |x| reaches half of √(2a/b), with λ rising by ηa a step."""
    measured = float("nan") if onset is None else float(onset - trace.start_step)
    if at is None:
        return Point(float("nan"), measured)
    visible = VISIBLE * np.sqrt(at.reduced.rest_square)
    return Point(at.reduced.wait(at.x, visible, at.y) if at.x < visible else 0.0, measured)


def _wait_by_growth_law(trace: Trace) -> Point:
    """The same with the size of x at the onset and every λ as measured: the growth law alone."""
    if trace.onset is None or trace.onset <= trace.start_step:
        return Point(float("nan"), float("nan"))
    gain = np.log(trace.onset_size / trace.start_size)
    later = np.arange(trace.start_step, len(trace.steps))

    def wait(excess: Array) -> float:
        # ln|x_τ| = ln|x_0| + Σ ln|1 − ηλ|
        gained = np.cumsum(np.log(np.abs(1 + excess)))
        reached = np.flatnonzero(gained >= gain)
        return float(reached[0] + 1) if reached.size else float("nan")

    bulk = np.full(len(later), trace.bulk_excess)
    measured = float(trace.onset - trace.start_step)
    return Point(wait(trace.excess_at(later)), measured, (wait(bulk), measured))


@dataclass(frozen=True)
class Stretch:
    """Steps between two measurements: slope of x_{t+1} on x_t, mean x², and whether x is clear of noise or drifts."""

    measurement: int
    begin: int
    end: int
    growth: float
    square: float
    clear: bool


def stretches_of(trace: Trace) -> list[Stretch]:
    """The stretches from the start on that have at least three values of x."""
    found = []
    for i, (begin, end) in enumerate(itertools.pairwise([*trace.measured, len(trace.steps)])):
        x = trace.x[begin:end]
        x = x[np.isfinite(x)]
        if i < trace.start or x.size < 3:
            continue
        past = trace.onset is not None and begin >= trace.onset
        growth, square = float(x[1:] @ x[:-1] / (x[:-1] @ x[:-1])), float(np.mean(x**2))
        clear = past or bool(np.abs(x).min() > ABOVE_NOISE * trace.start_size)
        found.append(Stretch(i, int(begin), int(end), growth, square, clear))
    return found


def growth_points(trace: Trace) -> list[Point]:
    """Slope of x_{t+1} on x_t in each stretch against 1 − ηλ, mean of its two ends; control: the bulk's λ."""
    points = []
    for stretch in stretches_of(trace):
        if stretch.clear:
            e = float(np.mean(trace.excess_at([stretch.begin, stretch.end])))
            points.append(Point(-(1 + e), stretch.growth, (-(1 + trace.bulk_excess), stretch.growth)))
    return points


def variance_points(trace: Trace) -> list[Point]:
    """Mean x² in each stretch in which the oscillation stands, against 2a/b there; control: x² along the bulk."""
    points = []
    for stretch in _standing(trace):
        told = _ratio(2 * trace.a[stretch.measurement], trace.b[stretch.measurement])
        points.append(Point(told, stretch.square, (told, _bulk_square(trace, stretch))))
    return points


def _standing(trace: Trace) -> list[Stretch]:
    """Stretches past the onset in which a step changes the size of x by less than `STEADY`."""
    if trace.onset is None:
        return []
    return [s for s in stretches_of(trace) if s.begin >= trace.onset and abs(s.growth + 1) <= STEADY]


def _variance_ahead(trace: Trace) -> Point:
    """Typical x² after the first 75 steps from the start, against the typical 2a/b within them (geometric means)."""
    divide = trace.start_step + SETTLING
    told = [_ratio(2 * trace.a[s.measurement], trace.b[s.measurement]) for s in _standing(trace) if s.end <= divide]
    seen = [s.square for s in _standing(trace) if s.begin >= divide]
    return Point(_geometric_mean(told), _geometric_mean(seen))


def first_spike(trace: Trace) -> Spike | None:
    """The first peak of the swing at or after the onset, and the largest x² within three steps of it."""
    peaks = spike_steps(trace)
    after = peaks[peaks >= max(trace.onset, trace.start_step)] if trace.onset is not None else peaks[:0]
    if not after.size:
        return None
    near = trace.square[max(after[0] - 3, 0) : after[0] + 4]
    return Spike(int(after[0]), float(np.nanmax(near)))


def spike_steps(trace: Trace) -> npt.NDArray[np.int64]:
    """Indices in the steps at which ln of the swing, running mean of three, peaks `PROMINENCE` above its lows."""
    known = np.flatnonzero(np.isfinite(trace.swing) & (trace.swing > 0))
    if known.size < 5:
        return np.empty(0, dtype=np.int64)
    smooth = np.convolve(np.log(trace.swing[known]), np.full(3, 1 / 3), mode="valid")
    return np.asarray(known[1:-1][find_peaks(smooth, prominence=PROMINENCE)[0]], dtype=np.int64)


def _spike_height(trace: Trace, at: MapAt | None, spike: Spike | None) -> Point:
    """Largest x² in the first spike."""
    return Point(_peak(at), float("nan") if spike is None else spike.square)


def _peak(at: MapAt | None) -> float:
    return float("nan") if at is None else float(at.reduced.spike(at.x, at.y).height)


def _within_domain(at: MapAt | None) -> MapAt | None:
    """The same where the spike's formula claims its error bound: w ≤ 0.6 (`theory.spikes.within_domain`)."""
    return at if at is not None and at.reduced.scale * _peak(at) <= LARGEST_HEIGHT else None


def _loss_rise(trace: Trace, square: float, spike: Spike | None) -> Point:
    """Loss at its highest in the first spike, above the floor of the steps before it carried on, for x² = `square`."""
    if spike is None or trace.onset is None:
        return Point(float("nan"), float("nan"))
    begin = max(min(trace.onset, spike.peak) - FLOOR_STEPS - 5, 0)
    floor = np.arange(begin, begin + FLOOR_STEPS)
    slope, offset = np.polyfit(floor, trace.loss[floor], 1)
    near = np.arange(max(spike.peak - 5, 0), min(spike.peak + 6, len(trace.loss)))
    rise = float(np.max(trace.loss[near] - (offset + slope * near)))
    return Point(float(loss_rise(square, trace.lr)), rise)


def _interval(trace: Trace, spike: Spike | None) -> float:
    """Median number of steps between spikes from the first on; NaN with fewer than three."""
    if spike is None:
        return float("nan")
    peaks = spike_steps(trace)
    peaks = peaks[peaks >= spike.peak]
    return float(np.median(np.diff(peaks))) if peaks.size >= 3 else float("nan")


def _period(trace: Trace, at: MapAt | None, spike: Spike | None) -> Point:
    """Steps between spikes against a small oscillation's 2π/atan √(2g) with a of the start."""
    return Point(float("nan") if at is None else at.reduced.period, _interval(trace, spike))


def _period_after(trace: Trace, spike: Spike | None) -> Point:
    """The same with the median a of the 20 steps after the first spike."""
    measured = _interval(trace, spike)
    if spike is None:
        return Point(float("nan"), measured)
    within = (trace.measured >= spike.peak) & (trace.measured < spike.peak + 20)
    a, b = (float(np.median(v[within])) if within.any() else float("nan") for v in (trace.a, trace.b))
    return Point(ReducedMap(a, b, trace.lr).period if a > 0 and b > 0 else float("nan"), measured)


def _orbit_period(trace: Trace, at: MapAt | None, spike: Spike | None) -> Point:
    """Steps between the first two spikes of the map's own orbit from the start, against those of the network."""
    peaks = spike_steps(trace)
    peaks = peaks[peaks >= spike.peak] if spike is not None else peaks[:0]
    measured = float(peaks[1] - peaks[0]) if peaks.size >= 2 else float("nan")
    told = at.reduced.peaks(at.x, at.y, ORBIT_STEPS)[0] if at is not None else np.empty(0)
    return Point(float(told[1] - told[0]) if told.size >= 2 else float("nan"), measured)


def _bulk_square(trace: Trace, stretch: Stretch) -> float:
    x = trace.bulk_x[stretch.begin : stretch.end]
    squares = np.array([np.mean(row[np.isfinite(row)] ** 2) if np.isfinite(row).any() else np.nan for row in x.T])
    return float(np.median(squares)) if squares.size else float("nan")


def _rms(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")


def _ratio(numerator: float, denominator: float) -> float:
    """Of positive numbers; NaN where one is not."""
    return float(numerator / denominator) if numerator > 0 and denominator > 0 else float("nan")


def _geometric_mean(values: list[float]) -> float:
    known = np.array([v for v in values if v > 0])
    return float(np.exp(np.log(known).mean())) if known.size else float("nan")
