"""C2: the oscillation becomes visible where the sharpness crosses 2/η.

The gap of the leading pair, less its running mean with weights ¼, ½, ¼, alternates with an amplitude that grows by a
nearly constant factor a step before it saturates, so "visible" is taken as half of the amplitude at the edge. The
control takes the same groups and steps at a tenth of the step size, where nothing crosses.

Pilot (seeds 100–102, ReLU MLP on 2,000 images): 9, 5, 16 steps, all before the crossing. There
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
from validate.windows import Windows

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


def onset_step(sizes: npt.NDArray[np.float64], edge: slice) -> int | None:
    """First step whose `RUNNING` steps' median amplitude, centred on it, is at least half of the edge's median.

    Args:
        sizes: amplitude by step, as `amplitude` gives it.
        edge: the steps at the edge.

    Returns:
        The step; None where there is none.
    """
    level = VISIBLE * np.median(sizes[edge.start - 1 : edge.stop - 1])
    running = np.median(np.lib.stride_tricks.sliding_window_view(sizes, RUNNING), axis=1)
    reached = np.flatnonzero(running >= level)
    return None if reached.size == 0 else int(reached[0]) + 1 + RUNNING // 2


def _distance(run: xr.Dataset, evidence: NetworkEvidence, windows: Windows) -> float:
    """Steps between the crossing and the onset of the leading pair's gap in a run; NaN where it has none."""
    sizes = amplitude(group_gap(run["loss"].values[: windows.edge.stop], leading_pair(evidence, windows)))
    step = onset_step(sizes, slice(windows.edge.start, windows.edge.stop - 1))
    return float("nan") if step is None else float(abs(step - windows.crossing))


CLAIMS = (
    Claim(
        name="C2",
        statement="Onset: the oscillation becomes visible where the sharpness crosses 2/η.",
        statistic="steps between the crossing and the first at which the gap swings half as much as at the edge",
        bound=Bound(high=30.0),
        control="the same groups and steps at step size ÷ 10",
        measure=each_seed(lambda e, w: _distance(e.run, e, w)),
        measure_control=each_seed(lambda e, w: _distance(e.control, e, w)),
        figure="F1",
    ),
)
