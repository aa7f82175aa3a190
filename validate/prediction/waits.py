"""Steps from the crossing of 2/η until the oscillation has set in: told by the map, and by the growth law alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from validate.claims.c02_onset import VISIBLE
from validate.prediction.map_at import MapAt
from validate.prediction.quantities import Point
from validate.prediction.trace import Trace

Array = npt.NDArray[np.float64]


def wait_point(trace: Trace, at: MapAt | None, onset: int | None) -> Point:
    """Steps from the start to an onset: |x| reaches half of √(2a/b), with λ rising by ηa a step."""
    measured = float("nan") if onset is None else float(onset - trace.start_step)
    if at is None:
        return Point(float("nan"), measured)
    visible = VISIBLE * np.sqrt(at.reduced.rest_square)
    return Point(at.reduced.wait(at.x, visible, at.y) if at.x < visible else 0.0, measured)


def growth_law_wait_point(trace: Trace) -> Point:
    """The same with the size of x at the onset and every λ as measured: the growth law alone."""
    if trace.onset is None or trace.onset <= trace.start_step:
        return Point(float("nan"), float("nan"))
    gain = np.log(trace.onset_size / trace.start_size)
    later = np.arange(trace.start_step, len(trace.steps))

    # ln|x_τ| = ln|x_0| + Σ ln|1 − ηλ|
    gained = np.cumsum(np.log(np.abs(1 + trace.excess_at(later))))
    reached = np.flatnonzero(gained >= gain)
    return Point(float(reached[0] + 1) if reached.size else float("nan"), float(trace.onset - trace.start_step))
