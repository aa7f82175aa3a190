"""C2: the oscillation becomes visible where the sharpness crosses 2/η.

The gap of the leading pair, less its running mean with weights ¼, ½, ¼, alternates with an amplitude that grows by a
nearly constant factor a step before it saturates, so "visible" is taken as half of the amplitude at the edge. The
control takes the same groups, steps and amplitude at a tenth of the step size, where nothing crosses and there is no
such swing unless the losses have it of their own.

The crossing is that of the valley's floor, at midpoints of steps (`validate.windows.floor_crossing`). Until the evening
of 29 November 2026 it was the iterates', and the claim went round in a circle on ReLU: there the bounce itself lifts
the iterates over 2/η, when the floor is at 0.93 to 0.99 of it (nine seeds of ten). The control had a level of its own,
which a run without a bounce reaches in its first steps whatever the data.

Pilot (seeds 100–102, ReLU MLP on 2,000 images): 9, 5, 16 steps from the iterates' crossing, all before it. There
the oscillation grows by about 1.05 a step from ηλ/2 = 0.73 on, where 1 − ηλ would damp it: the kinks of the activations
add to the curvature that a whole step meets. Of smooth networks theory expects the opposite, a wait after the crossing
until what rounding left of the start has grown (T11); with GELU (seed 100) the onset came 37 steps after the crossing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from theory.alternation import alternating_part
from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.pairs import leading_pair
from validate.opposing_groups import group_gap
from validate.windows import Windows, floor_crossing

RUNNING = 6
"""Steps over which the amplitude is taken: the median of so many."""
VISIBLE = 0.5
"""Share of the edge's amplitude at which the oscillation counts as visible."""


def amplitude(gap: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(steps − 2,) size of the alternating part of a series: entry i belongs to step i + 1.

    >>> amplitude([0.0, 2.0, 0.0, 2.0])
    array([1., 1.])
    """
    return np.abs(alternating_part(gap))


def visible(sizes: npt.NDArray[np.float64], edge: slice) -> float:
    """Half of the median amplitude at the edge; `sizes` as `amplitude` gives them."""
    return float(VISIBLE * np.median(sizes[edge.start - 1 : edge.stop - 1]))


def onset_step(sizes: npt.NDArray[np.float64], level: float) -> int | None:
    """First step whose `RUNNING` steps' median amplitude, centred on it, is at least so much; None where there is none.

    Args:
        sizes: amplitude by step, as `amplitude` gives it.
        level: that amplitude.
    """
    running = np.median(np.lib.stride_tricks.sliding_window_view(sizes, RUNNING), axis=1)
    reached = np.flatnonzero(running >= level)
    return None if reached.size == 0 else int(reached[0]) + 1 + RUNNING // 2


def _distance(run: xr.Dataset, evidence: NetworkEvidence, windows: Windows) -> float:
    """Steps between the base run's crossing and the onset of the leading pair's gap in a run.

    Where it has no onset, up to the last step looked at. NaN where the base run's floor never gets to 2/η.
    """
    crossing, pair = floor_crossing(evidence.run), leading_pair(evidence, windows)
    if crossing is None:
        return float("nan")
    swings, of_base = (amplitude(group_gap(r["loss"].values[: windows.edge.stop], pair)) for r in (run, evidence.run))
    step = onset_step(swings, visible(of_base, slice(windows.edge.start, windows.edge.stop - 1)))
    return float(abs((windows.edge.stop if step is None else step) - crossing))


CLAIMS = (
    Claim(
        name="C2",
        statement="Onset: the oscillation becomes visible where the sharpness crosses 2/η.",
        statistic="steps between the midpoints' crossing and the first at which the gap swings half as at the edge",
        bound=Bound(high=30.0),
        control="the same groups, steps and swing at step size ÷ 10; never counts as the last step looked at",
        measure=each_seed(lambda e, w: _distance(e.run, e, w)),
        measure_control=each_seed(lambda e, w: _distance(e.control, e, w)),
        figure="F1",
    ),
)
