"""What an edge study shows along the direction of the bounce, stretch by stretch between its measurements.

At the edge the iterate's alternating part β_t is one vector, whether one eigenvalue of the Hessian is at 2/η or several
are. Along u = β/‖β‖ it has the curvature uᵀHu, and what the reduced map says of the top eigenvector holds of u; where
one direction is unstable the two are the same (`bounce_share` near 1).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from theory.alternation import alternating_part
from validate.windows import Windows

Array = npt.NDArray[np.float64]

STEADY = 0.2
"""An oscillation stands where a step changes its size by less than this."""


@dataclass(frozen=True)
class Stretches:
    """Stretches of steps that begin at a measurement, m of them.

    Attributes:
        measured: (m,) index in ``edge_measured`` of the measurement.
        first: (m,) index in ``edge_step`` of the first step.
        steps: (m,) number of steps.
        growth: (m,) slope of x_{t+1} on x_t, with x the displacement's alternating part along u.
        square: (m,) mean x².
        curvature: (m,) uᵀHu at the start of the stretch.
        rest_square: (m,) 2⟨−∇L, ∇⊥⟩/‖∇⊥‖² there, with ∇⊥ the gradient of uᵀHu across u.
    """

    measured: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]
    steps: npt.NDArray[np.int64]
    growth: Array
    square: Array
    curvature: Array
    rest_square: Array

    @property
    def standing(self) -> npt.NDArray[np.bool_]:
        """(m,) whether the oscillation stands: x alternates and hardly grows or shrinks, as it does after its onset."""
        return np.asarray(np.abs(self.growth + 1) <= STEADY)


def stretches(edge: xr.Dataset, windows: Windows) -> Stretches:
    """The stretches of a study from the crossing on; those of fewer than four steps show no slope and are left out."""
    lr, steps, measured = edge.attrs["lr"], edge["edge_step"].values, edge["edge_measured"].values
    slope = edge["gradient_along_bounce"].values
    bounds = [*np.searchsorted(steps, measured), len(steps)]
    kept, rows = [], []
    for i, (begin, end) in enumerate(itertools.pairwise(bounds)):
        if measured[i] < windows.crossing or end - begin < 4 or not np.isfinite(edge["bounce_square"].values[i]):
            continue
        x = alternating_displacement(slope[begin:end], lr)
        kept.append((i, begin, end - begin))
        rows.append((x[1:] @ x[:-1] / (x[:-1] @ x[:-1]), np.mean(x**2)))
    index, first, count = np.array(kept, dtype=np.int64).reshape(-1, 3).T
    growth, square = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    at = edge.isel(edge_measured=index)
    rest_square = 2 * at["bounce_a"].values / at["bounce_b"].values
    return Stretches(index, first, count, growth, square, at["bounce_curvature"].values, rest_square)


def alternating_displacement(slope: npt.ArrayLike, lr: float) -> Array:
    """(steps − 2,) alternating part of the displacement along a direction, from the gradient's component along it.

        x_{t+1} − x_t = −η g_t, so that a pure x_t = (−1)ᵗ X has g_t = 2x_t/η: x = (η/2) · alternating part of g.

    >>> alternating_displacement([4.0, -4.0, 4.0, -4.0], lr=0.5)
    array([-1.,  1.])
    """
    return lr / 2 * alternating_part(slope)
