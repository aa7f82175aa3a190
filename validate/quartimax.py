"""Quartimax: the rotation of orthonormal directions under which they are sparsest.

Singular vectors of equal, or nearly equal, singular values are arbitrary mixtures. Of all orthonormal bases w of their
span, this one maximises Σ_k Σ_i w_ki⁴ (for unit vectors varimax is the same). Directions with disjoint supports come
out apart, whatever mixture they are given in. Source: Neuhaus and Wrigley, "The quartimax method", British Journal of
Statistical Psychology 7 (1954).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

TOLERANCE = 1e-7
"""No plane is turned by more than this angle in the last sweep."""
SWEEPS = 60


def quartimax(directions: npt.ArrayLike) -> Array:
    """(k, n) orthonormal rows of the same span as the given (k, n) orthonormal rows, with the largest Σ w⁴.

    Jacobi's method: the pairs of rows are turned in their planes in turn, each to the best angle there, until none
    turns any more. The maximum found is a local one.

    >>> mixed = np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0]]) / np.sqrt(2)
    >>> abs(quartimax(mixed)).round(6)
    array([[1., 0., 0.],
           [0., 1., 0.]])
    """
    rows = np.array(directions, dtype=np.float64)
    for _ in range(SWEEPS):
        widest = 0.0
        for i in range(len(rows) - 1):
            for j in range(i + 1, len(rows)):
                angle = _best_angle(rows[i], rows[j])
                cos, sin = np.cos(angle), np.sin(angle)
                rows[i], rows[j] = cos * rows[i] + sin * rows[j], cos * rows[j] - sin * rows[i]
                widest = max(widest, abs(angle))
        if widest <= TOLERANCE:
            break
    return rows


def _best_angle(x: Array, y: Array) -> float:
    # With u = x² − y² and v = 2xy, turning by φ gives Σ(x⁴ + y⁴) = const + ¼(cos 4φ Σ(u² − v²) + sin 4φ 2Σuv).
    u, v = x**2 - y**2, 2 * x * y
    return float(np.arctan2(2 * (u @ v), u @ u - v @ v) / 4)
