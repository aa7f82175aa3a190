"""Delayed loss of stability when ηαc² passes 2 at a steady pace: way in, way out, and the delay in closed form.

With g = x − 1, x = ηαc², |s| is multiplied by |g| a step. On a ramp of ρ a step, ln|s| changes by (1/ρ)∫ ln|g| dg, so

    Φ(g) = g ln|g| − g,    ln|s(out)/s(in)| = (Φ(g_out) − Φ(g_in))/ρ,

which for g ≥ 1 inverts to g = exp(1 + W₀(Φ/e)), W₀ the Lambert function. A run's own ramp bends, since the drive falls
while c rises: `onset.sample_onset` follows it; these formulas are the limit of a steady drive.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import lambertw

from theory.command_line import InputError, require_positive
from theory.model import Model, State, drive
from theory.symbolic import Array

TYPICAL_SQUARE = math.exp(-float(np.euler_gamma)) / 2
"""exp(E ln N²) = e^(−γ)/2 = 0.281 for N standard normal: the size of a typical, not a mean-square, noise."""


def ramp_rate(model: Model, state: State, lr: float) -> Array:
    """Pace ρ = 2η²αcD at which ηαc² rises a step while no opposing weight is left, first pair; of leading shape.

    >>> float(ramp_rate(Model([5.0], [3.0], [1.0]), State(1.0, [1.0], [0.0]), lr=0.25))  # D = 2
    1.25
    """
    return np.asarray(2 * lr**2 * model.alpha[0] * state.c * drive(model, state))


def ramp_delay(log_ratio: npt.ArrayLike, rate: npt.ArrayLike) -> Array:
    """Steps τ from the crossing ηαc² = 2 until |s| has grown by a factor e^L, τ = (exp(1 + W₀((ρL − 1)/e)) − 1)/ρ.

    ∫₀^τ ln(1 + ρu) du = L; for small ρL it is √(2L/ρ) (1 + √(2ρL)/6 + …).

    Args:
        log_ratio: (...,) L = ln(visible amplitude / amplitude at the crossing); 0 or less gives no delay.
        rate: (...,) ρ, rise of ηαc² a step.

    Raises:
        InputError: a rate is not positive, or an L is NaN.

    >>> round(float(ramp_delay(100.0, 0.01)), 2)
    171.83
    >>> round(float(ramp_delay(1.0, 1.0)), 12) == round(math.e - 1, 12)
    True
    """
    length, pace = np.asarray(log_ratio, dtype=np.float64), np.asarray(rate, dtype=np.float64)
    if not (pace > 0).all() or np.isnan(length).any():
        raise InputError(f"rate is {pace}, log_ratio {length}: give a rate above 0 and numbers")
    return np.asarray(np.expm1(_log_multiplier(pace * np.maximum(length, 0.0))) / pace)


def way_out(rate_in: npt.ArrayLike) -> Array:
    """Value of ηαc² at which s is back at the size it had at `rate_in`, on a steady ramp: Φ(g_out) = Φ(g_in).

    Not symmetric about 2, and at most 4.59 (from 0): what was lost below 2 is regained faster above it.

    Args:
        rate_in: (...,) ηαc² at entry, between 0 and 2.

    Raises:
        InputError: an entry outside [0, 2].

    >>> round(float(way_out(1.0)), 12)  # 1 + e
    3.718281828459
    >>> float(way_out(2.0))
    2.0
    """
    x = np.asarray(rate_in, dtype=np.float64)
    if not ((x >= 0) & (x <= 2)).all():
        raise InputError(f"rate_in is {x}: give ηαc² between 0 and 2")
    g = x - 1
    size = np.abs(g)
    # Φ(g) + 1 = ∫₁^g ln|u| du, in log1p about g = 1 where it vanishes quadratically
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm = np.where(g > 0.5, np.log1p(x - 2), np.log(size))
        gain = np.where(size > 0, g * logarithm, 0.0) - (x - 2)
    return np.asarray(2 + np.expm1(_log_multiplier(np.maximum(gain, 0.0))))


def noise_at_crossing(noise: float, rate: npt.ArrayLike) -> Array:
    """Typical amplitude at the crossing that noise of σ a step amounts to, σ (π/ρ)^¼ e^(−(γ+ln 2)/2).

    Noise of all steps, before the crossing and after it, is carried to the crossing: Σ e^(−ρk²) = √(π/ρ).

    >>> round(float(noise_at_crossing(1.0, math.pi) ** 2), 6)  # e^(−γ)/2
    0.28073
    """
    require_positive("noise", noise, zero_allowed=True)
    pace = np.asarray(rate, dtype=np.float64)
    if not (pace > 0).all():
        raise InputError(f"rate is {pace}: give a rise of ηαc² above 0")
    return np.asarray(noise * np.sqrt(TYPICAL_SQUARE * np.sqrt(math.pi / pace)))


def _log_multiplier(area: Array) -> Array:
    """The ln g ≥ 0 with g ln g − g + 1 = q, ln g = 1 + W₀((q − 1)/e)."""
    p = np.sqrt(2 * area)
    # At small q W₀ sits at its branch point and loses half its digits: its series in p = √(2q) there.
    series = p * (1 + p * (-1 / 3 + p * (11 / 72 + p * (-43 / 540 + p * (769 / 17280 - p * 221 / 8505)))))
    closed = 1 + np.real(lambertw(np.asarray((area - 1) / math.e), 0))
    return np.asarray(np.where(p < 1e-2, series, closed))
