"""Gradient flow in closed form: every coordinate that moves has the same second moment, as for Σ = I and s = 0.

With z = (c, w), target τ and time counted in units of 1/λ, Q = c² − ‖w‖² turns the flow into a Riccati equation,

    z' = A z − ½‖z‖² z,   A = [[Q/2, τᵀ], [τ, −(Q/2) I]],   so   z(t) = e^{At} z₀ / √(1 + ∫₀ᵗ ‖e^{Au} z₀‖² du).

A is ±μ, μ = √(‖τ‖² + Q²/4), on the plane of e_c and τ, with orthogonal eigenvectors (cos φ/2, sin φ/2) and
(−sin φ/2, cos φ/2), tan φ = ‖τ‖/(Q/2); on everything orthogonal to that plane it is −Q/2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError
from theory.model import Model, State, balancedness
from theory.symbolic import Array
from theory.trajectory import Trajectory


def exact_flow(model: Model, start: State, times: npt.ArrayLike) -> Trajectory:
    """The flow from a start at given times, without integration: any Q, any c, any direction of b, any length of time.

    Args:
        model: the model; Σ = λI. A pair with s_j ≠ 0 must have α_j = λ, and then counts as a feature of target 0.
        start: weights at time 0.
        times: (n,) times of at least 0, in any order.

    Returns:
        The weights at `times`; no turning time is looked for. The error is rounding, magnified as the flow itself
        magnifies it: starts that run into the saddle c = 0 are left along its unstable direction in the end.

    Raises:
        InputError: two coordinates that move have different second moments, or a time is negative or not finite.

    >>> m = Model(alpha=[7.0], beta=[3.0], covariance=[1.0])
    >>> end = exact_flow(m, State(1.0, [1.0], [0.0]), [0.5]).state  # balanced: c² = ‖β‖/(1 + (‖β‖ − 1)e^{−2‖β‖t})
    >>> bool(abs(end.c[0] ** 2 - 3 / (1 + 2 * np.exp(-3))) < 1e-14)
    True
    """
    at = np.atleast_1d(np.asarray(times, dtype=np.float64))
    if at.ndim != 1 or not np.isfinite(at).all() or (at < 0).any():
        raise InputError(f"times of the flow are {at}: give finite numbers of at least 0")
    vector = _riccati(
        float(start.c), start.first_layer, model.target, float(balancedness(start)), _rate(model, start) * at
    )
    return Trajectory(at, State.from_vector(vector, model.beta.size))


def _rate(model: Model, start: State) -> float:
    """The second moment λ that all moving coordinates share."""
    moving = np.concatenate([np.ones_like(start.b, dtype=bool), start.s != 0])
    rates = np.unique(model.curvatures[moving])
    if rates.size != 1:
        raise InputError(f"the closed form needs one second moment, not {rates}: covariance λI and s = 0, or α = λ")
    return float(rates[0])


def _riccati(c: float, w: Array, target: Array, q: float, t: Array) -> Array:
    """(n, 1 + d) solution (c, w) at scaled times t, all factors in logarithms so that none over- or underflows."""
    largest = float(np.abs(target).max())
    unit = target / largest if largest > 0 else target
    # Scaled first, as squares of a tiny target underflow and would leave a direction that is no unit vector.
    relative = float(np.linalg.norm(unit))
    norm, unit = largest * relative, unit / relative if largest > 0 else unit
    p = float(unit @ w)
    across = w - p * unit
    mu = np.hypot(norm, q / 2)
    half = np.arctan2(norm, q / 2) / 2
    up, down = np.cos(half) * c + np.sin(half) * p, np.cos(half) * p - np.sin(half) * c
    # μ + Q/2 ≥ 0, without cancellation for Q < 0.
    decay = mu + q / 2 if q >= 0 else norm**2 / (mu - q / 2)
    with np.errstate(divide="ignore"):
        log_up, log_down, log_across = (np.log(np.linalg.norm(x)) for x in (up, down, across))
        # −2μt + ln(1 + ∫‖e^{Au}z₀‖²), the integral of up² e^{2μu} + down² e^{−2μu} + ‖across‖² e^{−Qu}; without e^{2μt}
        # the leading term is free of large exponents, and long times cost no digits.
        log_total = np.logaddexp.reduce(
            [
                -2 * mu * t,
                2 * log_up + _log_saturation(2 * mu, t),
                2 * log_down - 2 * mu * t + _log_saturation(2 * mu, t),
                2 * log_across - 2 * (mu if q >= 0 else decay) * t + _log_saturation(abs(q), t),
            ]
        )
    # e^{μt}, e^{−μt} and e^{−Qt/2} = e^{μt − (μ + Q/2)t}, over the root of the total.
    rise = -log_total / 2
    grown = np.sign(up) * np.exp(log_up + rise)
    shrunk = np.sign(down) * np.exp(log_down + rise - 2 * mu * t)
    aside = np.exp(log_across + rise - decay * t)
    if log_across > -np.inf:
        across = across / np.linalg.norm(across)
    along = np.sin(half) * grown + np.cos(half) * shrunk
    return np.concatenate(
        [
            (np.cos(half) * grown - np.sin(half) * shrunk)[:, None],
            along[:, None] * unit + aside[:, None] * across,
        ],
        axis=-1,
    )


def _log_saturation(rate: float, t: Array) -> Array:
    """ln((1 − e^{−rate·t})/rate), which is ln t at rate 0."""
    return np.asarray(np.log(t if rate == 0 else -np.expm1(-rate * t) / rate))
