"""How fast the first layer sharpens: bounds on (αc²)' and on c² as functions of time, Σ = I, Q = 0, one pair, α ≥ 1.

With p = bᵀβ/‖β‖ ≥ 0 and u = p/c, Z = 1/c² and u obey Z' = 2 + 2(α−1)s²Z − 2u‖β‖Z, u' = ‖β‖(1−u²) + (α−1)us², so

    tanh(‖β‖t + artanh u₀) ≤ u ≤ 1,   G(t) = (cosh ‖β‖t + u₀ sinh ‖β‖t)²,   (G Z)' ≤ 2G (1 + (α−1)s²Z),

and every bound below is a comparison in Z (T5).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theory.symbolic import Array


def sharpening_rate_bound(alpha: npt.ArrayLike, beta: npt.ArrayLike) -> Array:
    """Largest possible (αc²)' under the flow: (αc²)' ≤ 2αc²(‖β‖ − c²) ≤ α‖β‖²/2, for either sign of bᵀβ.

    From (ln c)' = u‖β‖ − c² − (α−1)s² with u ≤ 1; the first bound is largest at c² = ‖β‖/2.

    >>> float(sharpening_rate_bound(20.0, 3.0))
    90.0
    """
    return np.asarray(np.asarray(alpha) * np.asarray(beta) ** 2 / 2, dtype=np.float64)


def c_squared_upper(time: npt.ArrayLike, beta: npt.ArrayLike, c_squared: npt.ArrayLike) -> Array:
    """Logistic upper bound on c² a time after it was c_squared > 0; exact for b = cβ/‖β‖, s = 0.

    c² ≤ ‖β‖ / (1 + (‖β‖/c₀² − 1) e^{−2‖β‖t}), the solution of (c²)' = 2c²(‖β‖ − c²), for either sign of bᵀβ.

    >>> float(c_squared_upper(0.0, 3.0, 0.5)), float(c_squared_upper(1e9, 3.0, 0.5))
    (0.5, 3.0)
    """
    t, norm, start = (np.asarray(v, dtype=np.float64) for v in (time, beta, c_squared))
    # The same fraction times c₀², which is finite however small c₀² is.
    return np.asarray(norm * start / (start * -np.expm1(-2 * norm * t) + norm * np.exp(-2 * norm * t)))


def c_squared_lower(
    time: npt.ArrayLike,
    alpha: npt.ArrayLike,
    beta: npt.ArrayLike,
    c_squared: npt.ArrayLike,
    alignment: npt.ArrayLike,
) -> Array:
    """Lower bound on c² a time after any state, before the turn or past it; it ends in ‖β‖, as c² does.

    With s² ≤ c²(1 − u²), c² ≥ G / (1/c₀² + 2∫₀ᵗG + 2(α−1)(1−u₀²) t).

    Args:
        time: time since the state, t ≥ 0.
        alpha: second moment α ≥ 1 of the opposing pair.
        beta: ‖β‖ > 0.
        c_squared: c₀² > 0 at the state.
        alignment: u₀ = bᵀβ/(c‖β‖) there, in [0, 1].

    >>> float(c_squared_lower(0.0, 20.0, 3.0, 0.5, 0.7))
    0.5
    """
    t, a, norm, start, u = _arrays(time, alpha, beta, c_squared, alignment)
    decay = np.exp(-2 * norm * t)
    # Numerator and denominator times 4e^{−2‖β‖t}, so that nothing overflows.
    rest = 2 * _integral(t, norm, u, 0.0) + 8 * (a - 1) * (1 - u**2) * t * decay
    return np.asarray(_growth(t, norm, u) * start / (4 * decay + start * rest))


def c_squared_lower_after_turn(
    time: npt.ArrayLike,
    alpha: npt.ArrayLike,
    beta: npt.ArrayLike,
    c_squared: npt.ArrayLike,
    alignment: npt.ArrayLike,
    opposing: npt.ArrayLike,
) -> Array:
    """Lower bound on c² a time after the turning point, where c has risen ever since; the best of three.

    First `c_squared_lower`; second c₁² itself; third, with s² ≤ s₁² e^{−ρt}, ρ = 2αc₁²,
    E = exp(k(1 − e^{−ρt})), k = (α−1)s₁²/(αc₁²), and E(t)/E(t') replaced by the chord in e^{−ρt'} that lies above it,

        Z ≤ (E/c₁² + 2∫G + 2(E − 1)/(1 − e^{−ρt}) · ∫G (e^{−ρt'} − e^{−ρt})) / G.

    Args:
        time: time since the turning point, t − t₁ ≥ 0.
        alpha: second moment α ≥ 1 of the opposing pair.
        beta: ‖β‖ > 0.
        c_squared: c₁² = c(t₁)².
        alignment: u₁ = bᵀβ/(c‖β‖) at t₁, in [0, 1].
        opposing: s₁ = s(t₁).

    >>> float(c_squared_lower_after_turn(0.0, 20.0, 3.0, 0.5, 0.7, 0.1))
    0.5
    """
    t, a, norm, start, u, s = _arrays(time, alpha, beta, c_squared, alignment, opposing)
    rate, k = 2 * a * start, (a - 1) * s**2 / (a * start)
    gone = -np.expm1(-rate * t)
    chord = k * _saturation(-k * gone)  # (E − 1)/(1 − e^{−ρt})
    plain, damped = _integral(t, norm, u, 0.0), _integral(t, norm, u, rate)
    denominator = 4 * np.exp(k * gone - 2 * norm * t) + 2 * start * (plain + chord * (damped - (1 - gone) * plain))
    third = _growth(t, norm, u) * start / denominator
    return np.asarray(np.maximum(np.maximum(start, third), c_squared_lower(t, a, norm, start, u)))


def _arrays(*values: npt.ArrayLike) -> tuple[Array, ...]:
    return tuple(np.asarray(v, dtype=np.float64) for v in values)


def _growth(t: Array, norm: Array, u: Array) -> Array:
    """4e^{−2‖β‖t} G(t)."""
    decay = np.exp(-2 * norm * t)
    return np.asarray((1 + decay + u * (1 - decay)) ** 2)


def _integral(t: Array, norm: Array, u: Array, rate: npt.ArrayLike) -> Array:
    """4e^{−2‖β‖t} ∫₀ᵗ G e^{−rate·t'} dt', with 4G = (1+u)² e^{2‖β‖t} + 2(1−u²) + (1−u)² e^{−2‖β‖t}."""
    decay, rate = np.exp(-2 * norm * t), np.asarray(rate, dtype=np.float64)
    # e^{−2‖β‖t} ∫ e^{(2‖β‖ − rate)t'}, for either sign of the exponent.
    rising = np.exp(-np.minimum(2 * norm, rate) * t) * t * _saturation(np.abs(2 * norm - rate) * t)
    level = decay * t * _saturation(rate * t)
    falling = decay * t * _saturation((2 * norm + rate) * t)
    return np.asarray((1 + u) ** 2 * rising + 2 * (1 - u**2) * level + (1 - u) ** 2 * falling)


def _saturation(x: npt.ArrayLike) -> Array:
    """(1 − e^{−x})/x, which is 1 at 0."""
    value = np.asarray(x, dtype=np.float64)
    return np.asarray(np.where(value == 0, 1.0, -np.expm1(-value) / np.where(value == 0, 1.0, value)))
