"""The first spike of a run and the time between spikes, against the map's: heights in x² and in the loss, periods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import find_peaks

from theory.reduced_map import ReducedMap, loss_rise
from theory.spikes import LARGEST_HEIGHT
from theory.valley_map import first_peak
from validate.prediction.map_at import MapAt
from validate.prediction.quantities import Point
from validate.prediction.trace import Trace
from validate.prediction.valley import ToldSpike

PROMINENCE = float(np.log(1.3))
"""Of a spike, in ln of the swing: 1.3 times both neighbouring lows."""
FLOOR_STEPS = 15
"""Steps before the onset over which the loss is taken to be on its floor, and carried on in a straight line."""
ORBIT_STEPS = 5000


@dataclass(frozen=True)
class Spike:
    """The first spike: index in the trace's steps of its peak, and x² there."""

    peak: int
    square: float


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


def height_point(square: float, spike: Spike | None) -> Point:
    """Largest square of the alternating part in the first spike, where the map tells `square`."""
    return Point(square, float("nan") if spike is None else spike.square)


def peak_square(at: MapAt | None) -> float:
    """x² at the peak of the map's first spike, by its closed form."""
    return float("nan") if at is None else float(at.reduced.spike(at.x, at.y).height)


def alternating_peak_square(at: MapAt | None) -> float:
    """The square of x's alternating part there, which is what a run shows (`Trace.square`)."""
    return float("nan") if at is None else float(at.reduced.alternating_square(peak_square(at)))


def orbit_peak_square(at: MapAt | None) -> float:
    """The same of the map's orbit itself, without the expansion in e and √w that the closed form makes."""
    peak = None if at is None else first_peak(at.reduced.iterate(at.x, at.y, ORBIT_STEPS)[0])
    return float("nan") if peak is None else peak.square


def within_domain(at: MapAt | None) -> MapAt | None:
    """The same where the spike's formula claims its error bound: w ≤ 0.6 (`theory.spikes.within_domain`)."""
    return at if at is not None and at.reduced.scale * peak_square(at) <= LARGEST_HEIGHT else None


def rise_point(trace: Trace, square: float, spike: Spike | None) -> Point:
    """Loss at its highest in the first spike, above the floor of the steps before it carried on, for x² = `square`."""
    if spike is None or trace.onset is None:
        return Point(float("nan"), float("nan"))
    return Point(float(loss_rise(square, trace.lr)), _measured_rise(trace, spike))


def _measured_rise(trace: Trace, spike: Spike) -> float:
    near = np.arange(max(spike.peak - 5, 0), min(spike.peak + 6, len(trace.loss)))
    return _highest_above_floor(trace, trace.loss[near], near)


def _highest_above_floor(trace: Trace, loss: npt.NDArray[np.float64], at: npt.NDArray[np.int64]) -> float:
    """The largest of losses, at these indices, above the line through `FLOOR_STEPS` steps that end before the onset.

    NaN where there are not so many steps before it.
    """
    assert trace.onset is not None
    if trace.onset < FLOOR_STEPS:
        return float("nan")
    begin = max(trace.onset - FLOOR_STEPS - 5, 0)
    floor = np.arange(begin, begin + FLOOR_STEPS)
    slope, offset = np.polyfit(floor, trace.loss[floor], 1)
    return float(np.max(loss - (offset + slope * at)))


def valley_points(trace: Trace, at: int, told: ToldSpike) -> dict[str, list[Point]]:
    """What the valley tells of the first spike against what was seen, by the names of `VALLEY_QUANTITIES`.

    Args:
        trace: the run.
        at: index in its steps of the iterate from which it is told.
        told: the valley's spike.
    """
    spike, nothing = first_spike(trace), float("nan")
    rise = _highest_above_floor(trace, told.losses, at + np.arange(len(told.losses))) if len(told.losses) else nothing
    seen_rise, seen_steps = (nothing, nothing) if spike is None else (_measured_rise(trace, spike), spike.peak - at)
    return {
        "spike of the valley": [height_point(told.valley_square, spike)],
        "spike of the line": [height_point(told.square, spike)],
        "loss rise of the line": [Point(rise, seen_rise)],
        "steps to the spike": [Point(told.steps, seen_steps)],
    }


def _interval(trace: Trace, spike: Spike | None) -> float:
    """Median number of steps between spikes from the first on; NaN with fewer than three."""
    if spike is None:
        return float("nan")
    peaks = spike_steps(trace)
    peaks = peaks[peaks >= spike.peak]
    return float(np.median(np.diff(peaks))) if peaks.size >= 3 else float("nan")


def period_point(trace: Trace, at: MapAt | None, spike: Spike | None) -> Point:
    """Steps between spikes against a small oscillation's 2π/atan √(2g) with a of the start."""
    return Point(float("nan") if at is None else at.reduced.period, _interval(trace, spike))


def later_period_point(trace: Trace, spike: Spike | None) -> Point:
    """The same with the median a of the 20 steps after the first spike."""
    measured = _interval(trace, spike)
    if spike is None:
        return Point(float("nan"), measured)
    within = (trace.measured >= spike.peak) & (trace.measured < spike.peak + 20)
    a, b = (float(np.median(v[within])) if within.any() else float("nan") for v in (trace.a, trace.b))
    return Point(ReducedMap(a, b, trace.lr).period if a > 0 and b > 0 else float("nan"), measured)


def orbit_period_point(trace: Trace, at: MapAt | None, spike: Spike | None) -> Point:
    """Steps between the first two spikes of the map's own orbit from the start, against those of the network."""
    peaks = spike_steps(trace)
    peaks = peaks[peaks >= spike.peak] if spike is not None else peaks[:0]
    measured = float(peaks[1] - peaks[0]) if peaks.size >= 2 else float("nan")
    told = at.reduced.peaks(at.x, at.y, ORBIT_STEPS)[0] if at is not None else np.empty(0)
    return Point(float(told[1] - told[0]) if told.size >= 2 else float("nan"), measured)
