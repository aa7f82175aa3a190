"""Where the last-layer weight c turns from falling to rising under gradient flow, and whether it does so once (T5).

With r = β − cb, at every state c'' = −c' (bᵀΣb + Σ_j α_j s_j²) + c‖Σr‖² − c² bᵀΣ²r + 2c³ Σ_j α_j² s_j². At a turning
point c' = 0, and c turns upwards there if the rest is positive. A feature with β_i = 0 counts exactly as an opposing
pair of strength λ_i: its weight is pulled to 0, and while it is on its way it holds c down.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError
from theory.model import Model, State, balancedness, gradient
from theory.symbolic import Array, coordinate_terms
from theory.trajectory import Trajectory

BoolArray = npt.NDArray[np.bool_]

# A balanced start has Q = 0, and b = v₀β equal v_i, up to rounding only; this much is allowed for, relatively.
_ROUNDING = 1e-12


def second_derivative_of_c(model: Model, state: State) -> Array:
    """Second derivative c'' along the flow, of the state's leading shape; exact at any state, any Σ, any pairs.

    θ' = −g gives θ'' = H g, whose first entry is c'' = ∂_cc L · g_c + Σ_i ∂_cw_i L · g_w_i. At a turning point
    g_c = −c' = 0 and c'' = c‖Σr‖² − c² bᵀΣ²r + 2c³ Σ_j α_j² s_j² (with one pair, c‖Σr‖² + c² bᵀΣ(2α − Σ)r).

    >>> m = Model(alpha=[2.0], beta=[1.0], covariance=[1.0])
    >>> round(float(second_derivative_of_c(m, State(1.0, [0.5], [np.sqrt(0.125)]))), 12)  # ‖r‖² + αs²(2α − 1)
    1.0
    """
    slope, terms = gradient(model, state), coordinate_terms()
    arguments = (state.c[..., None], state.first_layer, model.curvatures, model.target)
    return np.asarray(terms.d_cc(*arguments).sum(-1) * slope.c + (terms.d_cw(*arguments) * slope.first_layer).sum(-1))


def turns_once(model: Model, state: State) -> BoolArray:
    """Whether it is proved that c, started here, falls up to one time t₁ (possibly 0) and rises ever after.

    True where `eigenvector_turns_once` (β an eigenvector of Σ, as it always is for Σ = I) or `ordered_start_turns_once`
    holds. False leaves the question open, except for an eigenvector β and a start with c > 0 and Q ≥ 0: c then ends by
    falling.
    """
    ordered = ordered_start_turns_once(model, state)
    return ordered if _common_eigenvalue(model) is None else ordered | eigenvector_turns_once(model, state)


def eigenvector_turns_once(model: Model, state: State | None = None) -> BoolArray:
    """For Σβ = Lβ: whether every α_j and every λ_i of a feature with β_i = 0 is at least L/2. For Σ = I: α ≥ ½.

    At c' = 0, c''/c = L²‖r_L‖² + Σ_j α_j c² s_j² (2α_j − L) + Σ_i λ_i c² b_i² (2λ_i − L), with r_L the part of r in the
    eigenspace of L and i over the features outside it, so the condition suffices. It is necessary: the slowest weight
    that violates it dominates late and c' < 0 then, so c ends by falling (up to starts that run into the saddle
    c = 0). Weights that are 0 stay 0 and weights of second moment 0 feel no force: neither counts.

    Args:
        model: the model; β must be an eigenvector of Σ with L > 0.
        state: start of the flow, with c > 0 and Q ≥ 0, which keeps c positive; without one the condition is asked of
            every coordinate, and the answer is whether *every* such start turns once.

    Returns:
        The answer, of the state's leading shape; false where c ≤ 0 or Q < 0.

    Raises:
        InputError: β is zero or no eigenvector of Σ with positive eigenvalue.

    >>> bool(eigenvector_turns_once(Model([0.5], [3.0, 4.0], [1.0, 1.0])))
    True
    >>> bool(eigenvector_turns_once(Model([10.0], [3.0, 0.0], [1.0, 0.1])))
    False
    """
    top = _common_eigenvalue(model)
    if top is None:
        raise InputError(f"beta is {model.beta}: give a multiple of one eigenvector of the covariance, with λ > 0")
    slow = (model.target == 0) & (model.curvatures > 0) & (2 * model.curvatures < top)
    if state is None:
        return np.asarray(not slow.any())
    return np.asarray(_stays_positive(state) & ~(slow & (state.first_layer != 0)).any(-1))


def ordered_start_turns_once(model: Model, state: State) -> BoolArray:
    """A sufficient condition for one turning point with general Σ and β, of the state's leading shape.

    Let A be the features with β_i ≠ 0, v_i = b_i/β_i and Λ the largest λ_i over A. The condition: c > 0; 0 ≤ v_i ≤ 1/c
    on A, with v_i no smaller where λ_i is larger (b = 0, or b = v₀β with 0 ≤ v₀ ≤ 1/c); α_j ≥ Λ/2 and, outside A,
    λ_i ≥ Λ/2 for every weight that is not 0. Nothing is asked of Q. Reason: v_i' = c²λ_i(1/c − v_i) are low-pass
    filters of one target, the faster stay ahead, so {i ∈ A: c v_i > 1} always is the upper part of the spectrum, cut
    at some λ*; hence bᵀΣ²r ≤ λ* bᵀΣr on A, and c'' > 0 wherever c' = 0.

    >>> m = Model([10.0], [3.0, 0.1], [1.0, 0.1])
    >>> bool(ordered_start_turns_once(m, State(1.0, [0.3, 0.005], [0.9])))  # v = (0.1, 0.05)
    True
    >>> bool(ordered_start_turns_once(m, State(1.0, [0.3, 0.05], [0.9])))  # v = (0.1, 0.5)
    False
    """
    active = (model.beta != 0) & (model.covariance > 0)
    if not active.any():
        return np.zeros(state.c.shape, dtype=np.bool_)
    top = model.covariance[active].max()
    idle = np.concatenate([~active, np.ones(model.alpha.size, dtype=np.bool_)])
    slow = idle & (model.curvatures > 0) & (2 * model.curvatures < top)
    order = np.argsort(model.covariance[active], kind="stable")
    eigenvalues = model.covariance[active][order]
    filtered = (state.b[..., active] / model.beta[active])[..., order]  # v_i, slowest first
    within = (filtered >= 0) & (filtered * state.c[..., None] <= 1 + _ROUNDING)
    return np.asarray(
        (state.c > 0)
        & within.all(-1)
        & _nondecreasing(filtered, eigenvalues)
        & ~(slow & (state.first_layer != 0)).any(-1)
    )


def fall_after_turning(trajectory: Trajectory) -> float:
    """Largest fall of c below a value it had reached before, from the turning time on; 0 when it only rises.

    Args:
        trajectory: a run of the flow; its sampling bounds how short a fall can be seen.

    Raises:
        InputError: the run has no turning time, so c fell all the way.
    """
    if trajectory.turning_time is None:
        raise InputError("the run has no turning time: give a flow that is followed for longer")
    c = trajectory.state.c[trajectory.time >= trajectory.turning_time]
    return float((np.maximum.accumulate(c) - c).max(initial=0.0))


def _common_eigenvalue(model: Model) -> float | None:
    """L with Σβ = Lβ, if there is one above 0 and β is not zero."""
    eigenvalues = model.covariance[model.beta != 0]
    if eigenvalues.size == 0 or eigenvalues[0] == 0 or (eigenvalues != eigenvalues[0]).any():
        return None
    return float(eigenvalues[0])


def _stays_positive(state: State) -> BoolArray:
    """Whether c > 0 and Q ≥ 0 up to rounding: c² = Q + ‖w‖² then cannot reach 0 in finite time."""
    return np.asarray((state.c > 0) & (balancedness(state) >= -_ROUNDING * state.c**2))


def _nondecreasing(values: Array, eigenvalues: Array) -> BoolArray:
    """Whether no value at a smaller eigenvalue exceeds one at a larger one, up to rounding; sorted by eigenvalue."""
    good = np.ones(values.shape[:-1], dtype=np.bool_)
    _, starts = np.unique(eigenvalues, return_index=True)
    for first in starts[1:]:
        good &= values[..., :first].max(-1) <= (1 + _ROUNDING) * values[..., first:].min(-1)
    return good
