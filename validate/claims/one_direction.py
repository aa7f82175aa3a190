"""The stretches of an edge study in which one unstable direction carries the bounce: what the reduced map is about.

Later at the edge a second eigenvalue reaches 2/η, the top eigenvector mixes with its neighbour or jumps to it, and what
holds of one unstable direction is no longer claimed. A stretch between two measurements counts where at least half of
the iterate's alternating part lies along the measured top eigenvector at both ends (`bounce_share`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

Array = npt.NDArray[np.float64]

LEAST_SHARE = 0.5


@dataclass(frozen=True)
class Stretches:
    """Stretches of steps with one unstable direction v, m of them; empty where there are none.

    Attributes:
        first: (m,) index in ``edge_step`` of the first step.
        measured: (m,) index in ``edge_measured`` of the measurement there.
        growth: (m,) slope of x_{t+1} on x_t, x the alternating part of the displacement along v.
        square: (m,) mean x².
        sharpness: (m,) mean of λ at the two ends.
        rest_square: (m,) 2⟨−∇L, ∇⊥λ⟩/‖∇⊥λ‖², mean of the two ends.
    """

    first: npt.NDArray[np.int64]
    measured: npt.NDArray[np.int64]
    growth: Array
    square: Array
    sharpness: Array
    rest_square: Array


def stretches(edge: xr.Dataset) -> Stretches:
    """The stretches of a study, as `validate.edge_study` gives it."""
    lr, steps, measured = edge.attrs["lr"], edge["edge_step"].values, edge["edge_measured"].values
    slope, share = edge["gradient_along_top"].values, edge["bounce_share"].values
    rest = 2 * edge["a_across"].values / edge["b"].values
    rows = []
    for i in range(len(measured) - 1):
        begin, end = (int(np.searchsorted(steps, measured[j])) for j in (i, i + 1))
        # NaN (no share at the first step) fails the comparison. Two products of neighbours are the fewest for a slope.
        if not min(share[i], share[i + 1]) >= LEAST_SHARE or end - begin < 4:
            continue
        x = alternating_displacement(slope[begin:end], lr)
        growth = float(x[1:] @ x[:-1] / (x[:-1] @ x[:-1]))
        sharpness = edge["sharpness"].values[i : i + 2].mean()
        rows.append((begin, i, growth, float((x**2).mean()), sharpness, rest[i : i + 2].mean()))
    table = np.array(rows).reshape(-1, 6)
    return Stretches(table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), *table[:, 2:].T)


def alternating_displacement(slope: npt.ArrayLike, lr: float) -> Array:
    """(steps − 2,) alternating part of the displacement along a direction, from the gradient's component along it.

        x_{t+1} − x_t = −η g_t, so that a pure x_t = (−1)ᵗ X has g_t = 2x_t/η: x = (η/2) · alternating part of g.

    >>> alternating_displacement([4.0, -4.0, 4.0, -4.0], lr=0.5)
    array([-1.,  1.])
    """
    return np.asarray(lr / 2 * -np.diff(np.asarray(slope, dtype=np.float64), 2) / 4)
