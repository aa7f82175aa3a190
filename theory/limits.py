"""Where gradient flow ends."""

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq

from theory.model import Model, State, drive
from theory.symbolic import Array


def flow_limit(model: Model, start: State, *, gain: float = 0.0) -> State:
    """Limit of gradient flow (T6): s = 0, cb = β and c² = (Q + √(Q² + 4‖β‖²))/2, whatever Σ is.

    Coordinates of second moment 0 never move: their weights are kept, and Q and ‖β‖ are those of the others. With β = 0
    the limit is s = b = 0, c² = Q for Q ≥ 0; for Q < 0 it is c = 0, and the weights w_i(0) exp(−λ_i τ) that are left
    are those with norm² −Q. A start with c = 0 and bᵀΣβ = 0 does not move.

    Hypotheses: the flow does not end in the saddle c = 0; for β ≠ 0 almost no start does. c keeps its sign for Q ≥ 0;
    for Q < 0 it may pass through 0, and then the limit is minus the one returned, of the same loss and sharpness.

    Args:
        model: the model.
        start: weights at time 0, one state.
        gain: what Q gains on the way: 0 in the flow, more in descent (`theory.minima.descent_limit`).

    >>> limit = flow_limit(Model([1.0], [3.0], [1.0]), State(1.0, [1.0], [0.0]))
    >>> round(float(limit.c) ** 2, 12)  # balanced: c² = ‖β‖
    3.0
    """
    c, w = float(start.c), start.first_layer
    moves = model.curvatures > 0
    target = np.where(moves, model.target, 0.0)
    largest = np.abs(target).max()
    # Weights have the unit of √β; in units of the largest, to a power of 2, no square overflows and nothing is rounded.
    size = max(abs(c), np.abs(w).max(), np.sqrt(largest))
    if size == 0 or (c == 0 and drive(model, start) == 0):
        return start
    unit = 2.0 ** np.frexp(size)[1]
    q = (c / unit) ** 2 - ((w[moves] / unit) ** 2).sum() + gain / unit / unit
    if largest == 0:
        c_end, w_end = _limit_without_target(c / unit, w / unit, model.curvatures, q)
    else:
        norm = np.linalg.norm(target / largest)
        beta = norm * (largest / unit / unit)
        # c² − ‖b‖² = Q and c‖b‖ = ‖β‖; the larger of the two has no cancellation.
        larger = np.sqrt((abs(q) + np.hypot(q, 2 * beta)) / 2)
        c_end, b_end = (larger, beta / larger) if q >= 0 else (beta / larger, larger)
        sign = np.sign(c) if c != 0 else np.sign(drive(model, start))
        c_end, w_end = sign * c_end, np.where(moves, sign * b_end * (target / largest / norm), w / unit)
    return State.from_vector(np.append(c_end, w_end) * unit, model.beta.size)


def _limit_without_target(c: float, w: Array, curvatures: Array, q: float) -> tuple[float, Array]:
    """β = 0: w_i = w_i(0) exp(−λ_i τ), τ = ∫c² dt, until c² = c(0)² − Σ w_i(0)² (1 − exp(−2λ_i τ)) is 0, if ever."""
    moves = curvatures > 0
    rates = curvatures[moves] / curvatures.max()
    end = np.where(moves, 0.0, w)

    def c_squared(tau: float) -> float:
        return float(c**2 + (w[moves] ** 2 * np.expm1(-2 * rates * tau)).sum())

    if q >= 0:
        return float(np.copysign(np.sqrt(q), c)), end
    late = 1.0
    while c_squared(late) > 0 and late < 1e300:
        late *= 2
    # Q below 0 by rounding alone: c² never gets there, and every weight that moves is gone.
    if c_squared(late) <= 0:
        tau = brentq(c_squared, 0.0, late, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps, maxiter=5000)
        end[moves] = w[moves] * np.exp(-rates * tau)
    return 0.0, end
