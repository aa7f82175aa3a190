"""C3: the groups trade places every step.

The gap is taken around its own running mean: one group's loss often lies above the other's all along, and the sign of
the raw gap then misses every other swing. Alternation alone does not need the edge: theory has s_{t+1} = (1 − ηλ)s_t
alternate, and shrink, as soon as ηλ > 1 (T7). The control is therefore a run in which ηλ stays far below 1.
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


def alternation(gap: npt.ArrayLike) -> float:
    """Share of steps at which a series changes sides of its running mean, weights ¼, ½, ¼; NaN where it has gaps.

    >>> alternation([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    1.0
    """
    side = np.sign(alternating_part(gap))
    return float(np.mean(side[1:] != side[:-1])) if np.isfinite(side).all() else float("nan")


def _alternation(run: xr.Dataset, evidence: NetworkEvidence, windows: Windows) -> float:
    return alternation(group_gap(run["loss"].values[windows.evaluate], leading_pair(evidence, windows)))


CLAIMS = (
    Claim(
        name="C3",
        statement="Period two: at the edge the two groups trade places every step.",
        statistic="share of steps at which the group gap crosses its running mean, on steps not used to choose",
        bound=Bound(low=0.85),
        control="the same groups and steps at step size ÷ 10",
        measure=each_seed(lambda e, w: _alternation(e.run, e, w)),
        measure_control=each_seed(lambda e, w: _alternation(e.control, e, w)),
        figure="F1",
    ),
)
