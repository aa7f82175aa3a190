"""Largest eigenvalue of an arrow matrix at O(n): the largest root of its secular equation λ − a = Σ v_i²/(λ − d_i).

The matrix is [[a, vᵀ], [v, diag(d)]]. With the rightmost pole m = max d and λ = m + μ the equation reads
μ + m − a = φ(μ), φ(μ) = Σ v_i²/(μ + m − d_i). At the current μ₀ the sum is replaced by p + q/μ of equal value and
slope, q = −μ₀² φ'(μ₀), p = φ(μ₀) − q/μ₀, and the positive root of μ² + (m − a − p) μ − q = 0 is the next μ.

Why it converges: every term of φ is concave in 1/μ, and p + q/μ is its tangent there, so φ ≤ p + q/μ for all μ > 0 and
the next μ is never below the root. The iterates fall to it, quadratically; where the root meets a pole of zero arm the
error shrinks by √(S² + S) − S < ½ a step, S = −φ'(0). When all poles coincide with m the first step is exact.
"""

from __future__ import annotations

import numpy as np

from theory.symbolic import Array

_MAX_ITERATIONS = 100
_EPSILON = float(np.finfo(np.float64).eps)
_SMALLEST_SCALE = float(np.finfo(np.float64).tiny)
# Keeps v²/(μ + m − d)² finite; in units of the largest entry a smaller excess cannot be seen in λ.
_SMALLEST_EXCESS = 1e-150


def largest_root(a: Array, v: Array, d: Array) -> Array:
    """Largest eigenvalue of [[a, vᵀ], [v, diag(d)]], vectorised over the leading axes.

    The error is a few rounding errors of the matrix's norm. That is a relative error of λ too when a ≥ 0 and d ≥ 0: λ
    is then the norm. Entries of any size from 1e-300 to 1e300 are safe: the equation is solved in units of the largest.

    Args:
        a: (...,) corner.
        v: (..., n) arms, n at least 1.
        d: (..., n) diagonal.

    Returns:
        (...,) the eigenvalue; NaN where an entry is NaN.

    >>> float(largest_root(np.array(0.0), np.array([3.0]), np.array([8.0])))  # λ² − 8λ − 9 = (λ − 9)(λ + 1)
    9.0
    """
    pole = d.max(-1)
    scale = np.maximum(np.maximum(np.abs(v), np.abs(d)).max(-1), np.maximum(np.abs(a), _SMALLEST_SCALE))
    below = (pole[..., None] - d) / scale[..., None]  # (m − d_i), at least 0
    squares = np.square(v / scale[..., None])
    offset = pole / scale - a / scale
    # The step from μ = ∞, where p = 0 and q = ‖v‖²; it is an upper bound.
    mu = _positive_root(offset, squares.sum(-1))
    for _ in range(_MAX_ITERATIONS):
        gap = np.maximum(mu, _SMALLEST_EXCESS)[..., None] + below
        ratio = squares / gap
        slope = (ratio / gap).sum(-1)  # −φ'(μ)
        new = _positive_root(offset - (ratio.sum(-1) - slope * mu), slope * mu * mu)
        # Rounding alone can raise it.
        new = np.minimum(new, mu)
        moved = (mu - new > 4 * _EPSILON).any()
        mu = new
        if not moved:
            break
    return np.asarray(pole + mu * scale)


def _positive_root(linear: Array, q: Array) -> Array:
    """The root of μ² + linear·μ − q = 0 that is at least 0, q ≥ 0, without cancellation for either sign."""
    half = linear / 2
    far = np.maximum(np.abs(half) + np.sqrt(half * half + q), _SMALLEST_EXCESS)
    # The roots are of opposite sign, ±q/far and ∓far with far − q/far = |linear|.
    return np.asarray(q / far + np.maximum(-linear, 0.0))
