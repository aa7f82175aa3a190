"""The reduced map with what one measurement of a run shows: λ, a, b and the size of x there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.reduced_map import ReducedMap
from validate.prediction.trace import Trace

Array = npt.NDArray[np.float64]

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
    near = trace.x[max(trace.measured[index] - 1, 0) : trace.measured[index] + 1]
    size = trace.start_size if index == trace.start else rms(near)
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
        if i >= trace.start and at < trace.onset and rms(trace.x[at - 1 : at + 1]) > ABOVE_NOISE * trace.start_size
    ]
    return ready[-1] if ready else None


def rms(values: Array) -> float:
    """Root mean square of the finite values; NaN without any."""
    known = values[np.isfinite(values)]
    return float(np.sqrt(np.mean(known**2))) if known.size else float("nan")
