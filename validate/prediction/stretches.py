"""Growth factor and variance of x, stretch by stretch between measurements, against what was measured before each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from validate.claims.bounce import STEADY
from validate.prediction.map_at import ABOVE_NOISE
from validate.prediction.quantities import Point
from validate.prediction.trace import Trace

Array = npt.NDArray[np.float64]

SETTLING = 75
"""Steps from the start from which the variance ahead is predicted, for the steps after them."""


@dataclass(frozen=True)
class Stretch:
    """Steps between two measurements, along the top eigenvector of their beginning, or, past the onset, the bounce.

    Attributes:
        measurement: index of the measurement at the beginning.
        begin: index of the first step.
        end: index after the last one.
        growth: slope of x_{t+1} on x_t.
        excess: mean of e = ηλ − 2 at the two ends.
        square: mean x².
        clear: whether x is clear of what it is at the start, where nothing grows yet: noise and left-over drifts.
    """

    measurement: int
    begin: int
    end: int
    growth: float
    excess: float
    square: float
    clear: bool


def stretches_of(trace: Trace) -> list[Stretch]:
    """The stretches from the start on that have at least three values of x."""
    found = []
    for i, (begin, end) in enumerate(itertools.pairwise([*trace.measured, len(trace.steps)])):
        past = trace.onset is not None and begin >= trace.onset
        x = (trace.x if past else trace.top_x)[begin:end]
        x = x[np.isfinite(x)]
        if i < trace.start or x.size < 3:
            continue
        growth, square = float(x[1:] @ x[:-1] / (x[:-1] @ x[:-1])), float(np.mean(x**2))
        excess = float(np.mean(trace.excess_at([begin, end], top=not past)))
        clear = past or bool(np.abs(x).min() > ABOVE_NOISE * trace.top_start_size)
        found.append(Stretch(i, int(begin), int(end), growth, excess, square, clear))
    return found


def growth_points(trace: Trace) -> list[Point]:
    """Slope of x_{t+1} on x_t in each stretch against 1 − ηλ, mean of its two ends."""
    return [Point(-(1 + s.excess), s.growth) for s in stretches_of(trace) if s.clear]


def variance_points(trace: Trace, since: int = 0) -> list[Point]:
    """Mean x² in each stretch in which the oscillation stands, against 2a/b there; control: x² along the bulk.

    Args:
        trace: the run's.
        since: index in its steps from which stretches count. At the top of the first spike x stands for a moment, far
            from its rest value: from its peak on, that moment is left out.
    """
    points = []
    for stretch in _standing(trace):
        if stretch.begin < since:
            continue
        told = _ratio(2 * trace.a[stretch.measurement], trace.b[stretch.measurement])
        points.append(Point(told, stretch.square, (told, _bulk_square(trace, stretch))))
    return points


def persistence_points(trace: Trace) -> list[Point]:
    """The same against x² at the measurement at its start: what knowing the size of now says, without theory."""
    return [Point(float(trace.square[trace.measured[s.measurement]]), s.square) for s in _standing(trace)]


def _standing(trace: Trace) -> list[Stretch]:
    """Stretches past the onset in which a step changes the size of x by less than `STEADY`."""
    if trace.onset is None:
        return []
    return [s for s in stretches_of(trace) if s.begin >= trace.onset and abs(s.growth + 1) <= STEADY]


def variance_ahead_point(trace: Trace) -> Point:
    """Typical x² after the first 75 steps from the start, against the typical 2a/b within them (geometric means)."""
    divide = trace.start_step + SETTLING
    told = [_ratio(2 * trace.a[s.measurement], trace.b[s.measurement]) for s in _standing(trace) if s.end <= divide]
    seen = [s.square for s in _standing(trace) if s.begin >= divide]
    return Point(_geometric_mean(told), _geometric_mean(seen))


def _bulk_square(trace: Trace, stretch: Stretch) -> float:
    x = trace.bulk_x[stretch.begin : stretch.end]
    squares = np.array([np.mean(row[np.isfinite(row)] ** 2) if np.isfinite(row).any() else np.nan for row in x.T])
    return float(np.median(squares)) if squares.size else float("nan")


def _ratio(numerator: float, denominator: float) -> float:
    """Of positive numbers; NaN where one is not."""
    return float(numerator / denominator) if numerator > 0 and denominator > 0 else float("nan")


def _geometric_mean(values: list[float]) -> float:
    known = np.array([v for v in values if v > 0])
    return float(np.exp(np.log(known).mean())) if known.size else float("nan")
