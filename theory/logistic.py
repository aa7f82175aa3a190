"""Logistic loss with an opposing feature: labels ±1, and outliers whose feature h says nothing about the label (T15).

With q = yx the signed ordinary features, M = c bᵀq an example's margin without the opposing feature and z = c s h what
that feature adds to the score f, the population loss is (sp(x) = ln(1 + eˣ))

    L = (1−p) E sp(−M) + ½p E[sp(−M−z) + sp(−M+z)],        α = p h².

Half the outliers have y = +1 (margin M + z), half y = −1 (margin M − z), with the same law of q. The two sides pull on
s in opposite ways, and the pull that is left is linear in s with the *secant curvature* A:

    ∂_s L = c² A(z, M) s,        A = α E[sinh z / (2z (cosh z + cosh M))].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from theory.command_line import InputError, require_positive
from theory.descent import descend
from theory.model import State
from theory.symbolic import Array
from theory.trajectory import Trajectory


@dataclass(frozen=True)
class LogisticModel:
    """What the network classifies: a law of signed features with n equally likely values, and one opposing pair.

    Attributes:
        q: (n, d1) signed ordinary features yx; a negative projection on b is a misclassified example.
        fraction: p in (0, 1], the fraction of examples that are outliers.
        alpha: α = p h² > 0, the opposing feature's second moment.

    Raises:
        InputError: q is not a finite matrix, or a number is out of its range.
    """

    q: Array
    fraction: float
    alpha: float

    def __post_init__(self) -> None:
        q = np.asarray(self.q, dtype=np.float64)
        if q.ndim != 2 or q.size == 0 or not np.isfinite(q).all():
            raise InputError(f"q has shape {q.shape}: give a finite matrix, one row an example")
        q.setflags(write=False)
        object.__setattr__(self, "q", q)
        require_positive("alpha", self.alpha)
        require_positive("fraction", self.fraction)
        if self.fraction > 1:
            raise InputError(f"fraction is {self.fraction}: give at most 1")

    @property
    def feature(self) -> float:
        """Size h = √(α/p) of the opposing feature on the outliers."""
        return float(np.sqrt(self.alpha / self.fraction))


def logistic_loss(model: LogisticModel, state: State) -> Array:
    """Population loss L = (1−p) E sp(−M) + ½p (ℓ₊ + ℓ₋).

    >>> m = LogisticModel(q=[[1.0]], fraction=0.5, alpha=2.0)
    >>> round(float(logistic_loss(m, State(1.0, [0.0], [0.0]))), 12)  # ln 2
    0.69314718056
    """
    plus, minus = logistic_group_losses(model, state)
    ordinary = _softplus(-_margins(model, state)).mean(-1)
    return np.asarray((1 - model.fraction) * ordinary + model.fraction / 2 * (plus + minus))


def logistic_group_losses(model: LogisticModel, state: State) -> tuple[Array, Array]:
    """Expected losses of the outlier groups, ℓ± = E sp(−M ∓ z): ℓ₊ is that of the label +1."""
    margins, z = _margins(model, state), _score(model, state)[..., None]
    return np.asarray(_softplus(-margins - z).mean(-1)), np.asarray(_softplus(-margins + z).mean(-1))


def logistic_group_gap(model: LogisticModel, state: State) -> Array:
    """ℓ₊ − ℓ₋ = −E[z + ln cosh((z−M)/2) − ln cosh((z+M)/2)], exactly.

    Odd in z with slope −2 E σ(−M) at 0; linear in z, equal to −z, where M is as often positive as negative: where its
    law is symmetric about 0, for a single margin only at 0.

    >>> m = LogisticModel(q=[[1.0]], fraction=1.0, alpha=4.0)
    >>> float(logistic_group_gap(m, State(1.0, [0.0], [0.5])))  # M = 0, z = 1·0.5·2
    -1.0
    """
    margins, z = _margins(model, state), _score(model, state)[..., None]
    return np.asarray(-(z + _log_cosh((z - margins) / 2) - _log_cosh((z + margins) / 2)).mean(-1))


def secant_curvature(model: LogisticModel, state: State) -> Array:
    """A(z, M) = α E[sinh z/(2z(cosh z + cosh M))], the curvature that moves s: ∂_s L = c²A s.

    At z = 0 it is α E σ′(M), the Hessian's; for large |z| it falls like α/(2|z|). It falls with |z| from the start iff
    E[(cosh M − 2)/(1 + cosh M)²] < 0, for a single margin iff |M| < arccosh 2 = 1.317.

    >>> m = LogisticModel(q=[[1.0]], fraction=1.0, alpha=4.0)
    >>> float(secant_curvature(m, State(1.0, [0.0], [0.0])))  # α/4
    1.0
    """
    m, z = np.abs(_margins(model, state)), np.abs(_score(model, state))[..., None]
    top = np.maximum(m, z)
    # Both sides times e^(−max(|z|, |M|)), so that nothing overflows and nothing cancels.
    denominator = sum(np.exp(x - top) for x in (z, -z, m, -m)) / 2
    with np.errstate(invalid="ignore"):
        sinhc = np.where(z == 0, 1.0, -np.expm1(-2 * z) / (2 * z)) * np.exp(z - top)  # e^(−top) sinh z / z
    return np.asarray(model.alpha / 2 * (sinhc / denominator).mean(-1))


def logistic_growth_factor(model: LogisticModel, state: State, lr: float) -> Array:
    """Factor 1 − ηc²A(z, M) by which descent multiplies s in a step, exactly: T7 with α replaced by A.

    >>> m = LogisticModel(q=[[1.0]], fraction=1.0, alpha=4.0)
    >>> float(logistic_growth_factor(m, State(1.0, [0.0], [0.0]), lr=0.5))
    0.5
    """
    return np.asarray(1 - lr * state.c**2 * secant_curvature(model, state))


def logistic_drive(model: LogisticModel, state: State) -> Array:
    """D = E[σ-weights · bᵀq], the drive of the main signal: ∂_c L = −D + c s² A, as for the squared loss."""
    return np.asarray((_weights(model, state) * (state.b @ model.q.T)).mean(-1))


def logistic_gradient(model: LogisticModel, state: State) -> State:
    """Gradient laid out as the weights are: ∂_b L = −c E[weights q], ∂_s L = c²A s, ∂_c L = −D + c s² A."""
    a, s = secant_curvature(model, state), state.s[..., 0]
    d_b = -state.c[..., None] * (_weights(model, state) @ model.q) / len(model.q)
    d_c = -logistic_drive(model, state) + state.c * s**2 * a
    return State(d_c, d_b, (state.c**2 * a * s)[..., None])


def logistic_descent(model: LogisticModel, start: State, lr: float, steps: int) -> Trajectory:
    """Gradient descent on the logistic loss: weights at steps 0…steps, cut before the first that is not finite.

    Raises:
        InputError: lr or steps is not positive.
    """
    return descend(lambda state: logistic_gradient(model, state), start, lr, steps)


def _margins(model: LogisticModel, state: State) -> Array:
    """(..., n) margins M = c bᵀq without the opposing feature."""
    return np.asarray(state.c[..., None] * (state.b @ model.q.T))


def _score(model: LogisticModel, state: State) -> Array:
    """(...,) what the opposing feature adds to the score, z = c s h."""
    return np.asarray(state.c * state.s[..., 0] * model.feature)


def _weights(model: LogisticModel, state: State) -> Array:
    """(..., n) pull of an example on its margin, (1−p) σ(−M) + ½p (σ(−M−z) + σ(−M+z))."""
    margins, z, p = _margins(model, state), _score(model, state)[..., None], model.fraction
    return np.asarray((1 - p) * expit(-margins) + p / 2 * (expit(-margins - z) + expit(-margins + z)))


def _softplus(x: Array) -> Array:
    return np.asarray(np.logaddexp(0.0, x))


def _log_cosh(x: Array) -> Array:
    # ln cosh x = |x| + ln(1 + e^(−2|x|)) − ln 2
    return np.asarray(np.abs(x) + np.log1p(np.exp(-2 * np.abs(x))) - np.log(2))
