"""Where the sharpness lies in units of α: the exact conditions for αc² < λ < 3αc², and for αc² to fall at the start.

The sharpness is below a level L exactly if L > max d_i and L − a > Σ v_i²/(L − d_i), the secular equation's sides at L
(T2). At L = 3αc² the opposing term is 4α²c²s²/(2αc²) = 2αs², and what is left is (T3)

    Σ_i λ_i² (2cb_i − β_i)² / (3α − λ_i) < c² [3α(c² − s²) − bᵀΣb],   3α > max λ_i.

With Σ = I, c = 1 and ‖b‖² + s² = 1 this is ‖2b − β‖ < (3α − 1)‖b‖.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError, require_positive
from theory.curvature import arrow_form
from theory.model import Model, State
from theory.symbolic import Array

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TargetLimits:
    """Bounds on ‖β‖ for a start with c = 1, ‖b‖² = 1/(1 + k), s² = k/(1 + k), Σ = I; 0 where no target will do.

    Attributes:
        every_direction: sharpness < 3α for every direction of b exactly if ‖β‖ is below.
        orthogonal: sharpness < 3α for b orthogonal to β exactly if ‖β‖ is below.
        some_direction: sharpness < 3α for some direction of b only if ‖β‖ is below.
        decrease: c falls at the start for every direction of b exactly if ‖β‖ is below.
    """

    every_direction: float
    orthogonal: float
    some_direction: float
    decrease: float


def in_initial_range(model: Model, state: State) -> Flags:
    """Whether αc² < sharpness < 3αc², of the state's leading shape (T3).

    Args:
        model: a model with one opposing pair, any Σ.
        state: any weights, balanced or not; in the rank-one case s = uᵀb_o.

    Raises:
        InputError: the model has several pairs.

    >>> b = np.sqrt([[1 / 11, 0.0]])
    >>> m = Model([5.0], [0.0, 4.0], [1.0, 1.0])
    >>> bool(in_initial_range(m, State([1.0], b, np.sqrt([[10 / 11]])))[0])  # ‖2b − β‖ = 4.05 < 14 ‖b‖ = 4.22
    True
    """
    level = model.alpha[0] * np.square(state.c)
    return np.asarray(sharpness_above(model, state, level) & below_three_alpha(model, state))


def below_three_alpha(model: Model, state: State) -> Flags:
    """Whether the sharpness is below 3αc²: the closed condition of the module's head.

    Raises:
        InputError: the model has several pairs.
    """
    if model.alpha.size != 1:
        raise InputError(
            f"the range (α, 3α) is for one opposing pair, the model has {model.alpha.size}: give one alpha"
        )
    gap = 3 * model.alpha[0] - model.covariance
    if (gap <= 0).any():
        return np.zeros(state.c.shape, dtype=np.bool_)
    _, v, _ = arrow_form(model, state)
    # Σ λ_i² (2cb_i − β_i)² / (3α − λ_i) < c² [3α(c² − s²) − bᵀΣb]
    arms = v[..., : gap.size]
    ordinary = (arms * (arms / gap)).sum(-1)
    squares = state.c**2 - state.s[..., 0] ** 2
    room = 3 * model.alpha[0] * squares - (model.covariance * state.b**2).sum(-1)
    return np.asarray(ordinary < state.c**2 * room)


def sharpness_below(model: Model, state: State, level: npt.ArrayLike) -> Flags:
    """Whether the sharpness is strictly below a level, without solving for it; any Σ, any pairs.

    Args:
        model: the model.
        state: the weights.
        level: L, broadcast against the state's leading shape.
    """
    return _compare(model, state, level, strict=True)


def sharpness_above(model: Model, state: State, level: npt.ArrayLike) -> Flags:
    """Whether the sharpness is strictly above a level; arguments as for `sharpness_below`.

    >>> m = Model(alpha=[20.0], beta=[0.0], covariance=[1.0])
    >>> sharpness_above(m, State([1.0, 1.0], [[0.0], [0.0]], [[0.1], [0.0]]), 20.0)
    array([ True, False])
    """
    return ~_compare(model, state, level, strict=False)


def target_limits(alpha: float, k: float) -> TargetLimits:
    """How large ‖β‖ may be for a balanced start with c = 1 and s² = k‖b‖², Σ = I (T3, T4).

    With ‖b‖ = 1/√(1 + k): ‖2b − β‖ lies between |‖β‖ − 2‖b‖| and ‖β‖ + 2‖b‖, and is √(‖β‖² + 4‖b‖²) for b orthogonal
    to β; it must be below (3α − 1)‖b‖. Likewise D − αs² = bᵀβ − ‖b‖² − αs² is below 0 for every direction exactly if
    ‖β‖ < ‖b‖ + αs²/‖b‖.

    Raises:
        InputError: alpha is not positive or k is negative.

    >>> limits = target_limits(5.0, 8.0)
    >>> limits.every_direction, limits.orthogonal**2, round(limits.some_direction, 9), round(limits.decrease, 9)
    (4.0, 21.333333333333332, 5.333333333, 13.666666667)
    """
    require_positive("alpha", alpha)
    require_positive("k", k, zero_allowed=True)
    b = 1 / np.sqrt(1 + k)
    return TargetLimits(
        every_direction=float(max(3 * (alpha - 1), 0.0) * b),
        orthogonal=float(np.sqrt(3 * (3 * alpha + 1) * max(alpha - 1, 0.0)) * b),
        some_direction=float((3 * alpha + 1) * b) if 3 * alpha > 1 else 0.0,
        decrease=float((1 + alpha * k) * b),
    )


def _compare(model: Model, state: State, level: npt.ArrayLike, *, strict: bool) -> Flags:
    """Sharpness < L (strict) or ≤ L, by the sides of the secular equation at L."""
    a, v, d = arrow_form(model, state)
    top = np.broadcast_to(np.asarray(level, dtype=np.float64), a.shape)
    gap = top[..., None] - d
    # At a pole of zero arm the term is 0, at one of nonzero arm the sharpness lies above it.
    with np.errstate(over="ignore"):
        quotient = v * (v / np.where(gap > 0, gap, 1.0))  # v² alone would underflow first
    terms: Array = np.where(gap > 0, quotient, np.where(v == 0, 0.0, np.inf))
    left, right = top - a, terms.sum(-1)
    if strict:
        return np.asarray((gap > 0).all(-1) & (left > right))
    return np.asarray((gap >= 0).all(-1) & (left >= right))
