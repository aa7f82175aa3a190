"""The reduced map with what one measurement of a run shows: λ, a, b and the size of x there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.reduced_map import ReducedMap
from validate.prediction.trace import Trace

ABOVE_NOISE = 5.0
"""A growth factor is taken where |x| is so many times its size at the start, or the onset is past."""


@dataclass(frozen=True)
class MapAt:
    """The reduced map with a and b measured at one step, and x and y = (sharpness − 2/η) there."""

    reduced: ReducedMap
    x: float
    y: float


def map_at(trace: Trace, index: int) -> MapAt | None:
    """The map at a measurement; None where a or b is not positive there, and there is no edge to sit at."""
    a, b, e = (float(v[index]) for v in (trace.a, trace.b, trace.excess))
    size = trace.start_size if index == trace.start else (1 + e) * size_before(trace, trace.measured[index])
    if not (a > 0 and b > 0 and e > -1 and size > 0):  # NaN fails each
        return None
    return MapAt(ReducedMap(a, b, trace.lr), size, e / trace.lr)


def map_before_onset(trace: Trace) -> MapAt | None:
    """The map at the last measurement before the onset."""
    index = last_before_onset(trace)
    return None if index is None else map_at(trace, index)


def last_before_onset(trace: Trace) -> int | None:
    """Index of the last measurement before the onset at which x stands clear of its noise at the start, if any."""
    if trace.onset is None:
        return None
    ready = [
        i
        for i, at in enumerate(trace.measured)
        if i >= trace.start and at < trace.onset and size_before(trace, at) > ABOVE_NOISE * trace.start_size
    ]
    return ready[-1] if ready else None


def size_before(trace: Trace, at: int) -> float:
    """Size of x a step before one that lies before the onset: x there itself takes the gradient of the step after."""
    return float(np.abs(trace.x[at - 1])) if at else float("nan")
