"""C1: progressive sharpening, then hovering at 2/η.

C1a's control was the 95th percentile over shuffled steps until the evening of 29 November 2026: that is a number of the
count of measurements alone, the same for every run, and could not pass.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from scipy.stats import spearmanr

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.windows import Windows, measured_in


def _sharpening(evidence: NetworkEvidence, windows: Windows) -> float:
    return _rising(evidence.run, "sharpness_iterate", slice(0, windows.crossing))


def _sharpening_at_the_edge(evidence: NetworkEvidence, windows: Windows) -> float:
    return _rising(evidence.run, "sharpness_midpoint", windows.edge)


def _rising(run: xr.Dataset, name: str, window: slice) -> float:
    """Spearman correlation of a measurement with the step; 0 of one that stays the same."""
    values, steps = (measured_in(run, column, window) for column in (name, "measured"))
    return float(spearmanr(values, steps)[0]) if np.ptp(values) else 0.0


def _hovering(evidence: NetworkEvidence, windows: Windows) -> float:
    values = measured_in(evidence.run, "sharpness_midpoint", windows.edge)
    return float(np.median(values) * evidence.run.attrs["lr"] / 2)


def _hovering_control(evidence: NetworkEvidence, windows: Windows) -> float:
    values = measured_in(evidence.control, "sharpness_midpoint", windows.edge)
    return float(np.median(values) * evidence.control.attrs["lr"] / 2)


CLAIMS = (
    Claim(
        name="C1a",
        statement="Progressive sharpening: the sharpness rises until it reaches 2/η.",
        statistic="Spearman correlation of λ with the step, before the crossing",
        bound=Bound(low=0.9),
        control="the same at midpoints of the 150 steps from the crossing on, where sharpening is to have ended",
        measure=each_seed(_sharpening),
        measure_control=each_seed(_sharpening_at_the_edge),
        figure="F9",
        needs=("base",),
    ),
    Claim(
        name="C1b",
        statement="Edge of stability: after the crossing the sharpness hovers at 2/η.",
        statistic="median of ηλ/2 at midpoints of steps, 150 steps from the crossing",
        bound=Bound(low=0.85, high=1.15),
        control="step size ÷ 10, same steps",
        measure=each_seed(_hovering),
        measure_control=each_seed(_hovering_control),
        figure="F9",
    ),
)
