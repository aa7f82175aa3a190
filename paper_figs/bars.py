"""Dots with bars: quantiles of the samples at each place, of those that have a value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

Array = npt.NDArray[np.float64]

QUARTILES, SPAN = (0.25, 0.5, 0.75), (0.0, 0.5, 1.0)
"""Median with quartiles, or with the least and the largest."""


def quantiles(values: Array, shares: tuple[float, float, float], least: int = 1) -> Array:
    """(3, rows) quantiles of each row's numbers; NaN where it has fewer than `least`.

    >>> quantiles(np.array([[1.0, 2.0, np.nan, 3.0], [1.0, np.nan, np.nan, np.nan]]), SPAN, least=2).T
    array([[ 1.,  2.,  3.],
           [nan, nan, nan]])
    """
    table = np.full((3, len(values)), np.nan)
    for i, row in enumerate(values):
        known = row[np.isfinite(row)]
        if known.size >= least:
            table[:, i] = np.quantile(known, shares)
    return table


def bars(axes: Axes, x: Array, found: Array, colour: str, label: str) -> None:
    """Draws (3, places) low ends, dots and high ends."""
    low, middle, high = found
    axes.errorbar(
        x, middle, yerr=[middle - low, high - middle], fmt="o", color=colour, markersize=3, capsize=2, label=label
    )
