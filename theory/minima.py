"""The curve of minima (c, β/c, 0), its sharpness, and which of its points descent can end in (T8).

The sharpness of a minimum is S(c) = max(α c², largest eigenvalue of c²Σ + c⁻² (Σ^½β)(Σ^½β)ᵀ). The matrix can be given
entries of one sign that are log-convex in ln c², so ln S is convex in ln c² (Kingman 1961), with slope

    d ln S / d ln c² = (first layer's share of the top eigenvector) − (last layer's share) = 2·share − 1.

So the flattest minimum is where the two layers share the top eigenvector equally, or where the share jumps across ½.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from theory.command_line import InputError, require_positive
from theory.curvature import layer_sharpness, sharpness
from theory.limits import flow_limit
from theory.model import Model, State, vector_gradient
from theory.symbolic import Array

_AT_REST = 1e-20
"""Squared gradient, relative to its largest, below which the flow has arrived."""


def minimum_at(model: Model, c: npt.ArrayLike) -> State:
    """The minimum with last-layer weight c ≠ 0: b = β/c and s = 0, of c's shape as leading shape.

    >>> minimum_at(Model([1.0], [3.0], [1.0]), 2.0).b
    array([1.5])
    """
    height = np.asarray(c, dtype=np.float64)
    if not (np.isfinite(height) & (height != 0)).all():
        raise InputError(f"c is {height}: a minimum has a finite c other than 0")
    return State(height, model.beta / height[..., None], np.zeros((*height.shape, model.alpha.size)))


def flattest_minimum(model: Model) -> State:
    """The minimum of smallest sharpness, with c > 0.

    Hypotheses: Σβ ≠ 0. Where S is smallest on a stretch of c, one of its points is returned.

    Raises:
        InputError: Σβ = 0, so that the sharpness of the minima has no least value above 0.

    >>> flat = flattest_minimum(Model([5.0], [4.0], [1.0]))  # c² = ‖β‖/√(α − 1)
    >>> round(float(flat.c) ** 2, 12)
    2.0
    """
    curvature = np.concatenate([model.covariance, model.alpha]).max()
    pull = float(model.covariance @ model.beta**2)
    if pull == 0:
        raise InputError("Σβ is 0: the minima grow flatter without end as c goes to 0; give a target")

    def slope(log_c_squared: float) -> float:
        return float(2 * layer_sharpness(model, minimum_at(model, np.exp(log_c_squared / 2))).first_share - 1)

    # S lies between its larger part and the sum max(α, Σ)c² + βᵀΣβ/c², which is smallest where the parts are equal;
    # far to either side one layer has nearly all of the top eigenvector.
    middle, reach = np.log(pull / curvature) / 2, 1.0
    while slope(middle - reach) > 0 or slope(middle + reach) < 0:
        reach *= 2
    at = brentq(slope, middle - reach, middle + reach, xtol=1e-15, rtol=1e-15, maxiter=500)
    return minimum_at(model, np.exp(at / 2))


def smallest_minimum_sharpness(model: Model) -> float:
    """S_min, the sharpness of the flattest minimum: descent with 2/η < S_min has no minimum to end in (T8).

    >>> round(smallest_minimum_sharpness(Model([1.0], [3.0, 4.0], [1.0, 1.0])), 12)  # α ≤ 2: 2‖β‖
    10.0
    """
    return float(sharpness(model, flattest_minimum(model)))


def smallest_minimum_sharpness_identity(alpha: npt.ArrayLike, beta: npt.ArrayLike) -> Array:
    """S_min for Σ = I, elementwise: 2‖β‖ for α ≤ 2, at c² = ‖β‖; α‖β‖/√(α − 1) for α ≥ 2, at c² = ‖β‖/√(α − 1).

    Args:
        alpha: largest second moment α of the opposing pairs.
        beta: ‖β‖.

    >>> smallest_minimum_sharpness_identity([1.0, 2.0, 5.0], 4.0)
    array([ 8.,  8., 10.])
    """
    # max(αc², c² + ‖β‖²/c²): the second part is least at c² = ‖β‖; the first overtakes it before that if α > 2.
    steep = np.maximum(np.asarray(alpha, dtype=np.float64), 2.0)
    return np.asarray(steep / np.sqrt(steep - 1) * np.asarray(beta, dtype=np.float64))


def stable_interval(model: Model, lr: float) -> tuple[float, float] | None:
    """Smallest and largest c > 0 whose minimum is linearly stable under descent, S(c) ≤ 2/η; None if there is none.

    ln S is convex in ln c, so these minima form one interval; descent that converges ends in it (T8).

    Raises:
        InputError: lr is not positive, or Σβ = 0.

    >>> low, high = stable_interval(Model([1.0], [3.0], [1.0]), lr=0.2)  # c² + 9/c² = 10
    >>> round(low, 12), round(high, 12)
    (1.0, 3.0)
    """
    require_positive("lr", lr)
    flat, threshold = flattest_minimum(model), 2 / lr

    def excess(log_c: float) -> float:
        return float(np.log(sharpness(model, minimum_at(model, np.exp(log_c))) / threshold))

    middle = float(np.log(flat.c))
    if excess(middle) > 0:
        return None
    reach = 1.0
    while excess(middle - reach) < 0 or excess(middle + reach) < 0:
        reach *= 2
    ends = (brentq(excess, middle + side * reach, middle, xtol=1e-14, rtol=1e-14) for side in (-1, 1))
    low, high = (float(np.exp(end)) for end in ends)
    return low, high


def balancedness_drift(model: Model, start: State, *, rtol: float = 1e-10) -> float:
    """I = ∫₀^∞ (c'² − ‖b'‖² − ‖s'‖²) dt along the flow: descent ends with Q = Q(0) + ηI + O(η²).

    Descent changes Q by exactly η²(g_c² − ‖g_w‖²) a step (T1); η times the sum over steps is the integral to leading
    order. Hypotheses: the flow ends in a minimum.

    Raises:
        InputError: the flow did not come to rest, or could not be integrated.
    """
    slope_at = vector_gradient(model)

    def velocity(_: float, vector: Array) -> Array:
        slope = slope_at(vector[:-1])
        return np.append(-slope, slope[0] ** 2 - (slope[1:] ** 2).sum())

    first = slope_at(start.vector)
    floor = _AT_REST * max(float(first @ first), np.finfo(np.float64).tiny)

    def at_rest(t: float, vector: Array) -> float:
        moving = velocity(t, vector)[:-1]
        return float(moving @ moving) - floor

    at_rest.terminal = True  # type: ignore[attr-defined]  # SciPy reads the event's attributes
    if not first.any():
        return 0.0
    end = float(flow_limit(model, start).c)
    if end == 0:
        raise InputError("the flow ends in c = 0, which it reaches too slowly to integrate to: give a target β ≠ 0")
    horizon = 1e4 / (float(model.curvatures[model.curvatures > 0].min()) * end**2)
    begin = np.append(start.vector, 0.0)
    found = solve_ivp(velocity, (0.0, horizon), begin, method="LSODA", rtol=rtol, atol=1e-14, events=at_rest)
    if not found.success or not found.t_events or not found.t_events[0].size:
        raise InputError(f"the flow did not come to rest within time {horizon:.3g}: {found.message}")
    return float(found.y[-1, -1])


def descent_limit(model: Model, start: State, lr: float) -> State:
    """The minimum in which descent ends, to first order in η: the one with Q = Q(0) + ηI, I = `balancedness_drift`.

    c_end² = (Q_end + √(Q_end² + 4‖β‖²))/2 is exact for the balancedness Q_end of the run's end; for Q(0) = 0,
    c_end² = ‖β‖ + ηI/2 + O(η²). Weights of second moment 0 are kept, as in `flow_limit`. Hypotheses: the descent
    converges without oscillation, which needs η well below 2/(sharpness of that minimum).

    Raises:
        InputError: lr is not positive, or the flow does not come to rest.
    """
    require_positive("lr", lr)
    return flow_limit(model, start, gain=lr * balancedness_drift(model, start))
