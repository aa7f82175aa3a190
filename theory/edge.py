"""The slow state at the edge of stability (T9) and its stability (T16), for the first opposing pair.

In units of the threshold c* = √(2/(ηα)), descent on (c, s) with b fixed is exactly

    q' = q (1 − w/4) + g/4 − m (q − 1),      w' = (2q² − 1)² w,                                             (1)

with q = c/c*, e = ηαc² − 2 = 2q² − 2, w = 4ηαs², g = 4ηD(c*)/c* and m = η bᵀΣb. Both lines use old values. Its rest
point is q = 1, w = g: s² = D/(αc) at threshold. Everything here supposes c > 0 and any other pair idle (s_j = 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import lambertw

from theory.command_line import InputError, require_all, require_positive
from theory.model import Model, State, drive
from theory.oscillation import edge_amplitude
from theory.symbolic import Array

Flags = npt.NDArray[np.bool_]

SLOWNESS = 0.006
"""Largest |Δ² ln D|/g, and largest |e − e_slow|/√(g/2), for which s² = D/(αc) holds to 1 %."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


@dataclass(frozen=True)
class EdgeUnits:
    """A state in the units of map (1), each of the state's leading shape.

    Attributes:
        excess: e = ηαc² − 2, above 0 where s grows.
        height: w = 4ηαs².
        drive: g = 4ηD/c*, with D taken at c = c* for the present b.
        damping: m = η bᵀΣb, by how much g falls as c rises at fixed b; g and m are the same for every c.
    """

    excess: Array
    height: Array
    drive: Array
    damping: Array


@dataclass(frozen=True)
class SlowState:
    """The slow state at the first n − 2 of n consecutive states, each (n − 2,); NaN where the drive is not positive.

    Attributes:
        excess: e_slow = √(D_{t+1}/D_t) − 1, of ηαc² − 2: c lies below threshold while D falls.
        leading: s² = D/(αc).
        amplitude: s² with its first correction, (D/(αc)) (1 − Δ² ln D/(2g)).
        correction: −Δ² ln D/(2g), also the size of the error of `leading`.
    """

    excess: Array
    leading: Array
    amplitude: Array
    correction: Array


@dataclass(frozen=True)
class EdgeStability:
    """Linear stability of the rest point of map (1), each of the common shape of g and m.

    Attributes:
        stable: whether small departures shrink, 7g/4 < m < 2 + 3g/4.
        multiplier: eigenvalue λ of largest modulus, complex, of non-negative imaginary part.
        decay: −ln|λ|, by how much ln of a small departure falls in a step; negative when it grows.
        period: 2π/arg λ, steps an oscillation; infinite where there is none.
        decay_per_spike: decay × period.
    """

    stable: Flags
    multiplier: npt.NDArray[np.complex128]
    decay: Array
    period: Array
    decay_per_spike: Array


def edge_units(model: Model, state: State, lr: float) -> EdgeUnits:
    """A state in the units of map (1).

    Raises:
        InputError: lr or the first α is not positive.

    >>> units = edge_units(Model([2.0], [3.0], [1.0]), State(1.0, [1.0], [0.5]), lr=1.0)
    >>> [float(x) for x in (units.excess, units.height, units.drive, units.damping)]  # c* = 1, D = 2
    [0.0, 2.0, 8.0, 1.0]
    """
    threshold = _threshold(model, lr)
    at_threshold = State(np.full_like(state.c, threshold), state.b, state.s)
    return EdgeUnits(
        excess=np.asarray(lr * model.alpha[0] * state.c**2 - 2),
        height=np.asarray(4 * lr * model.alpha[0] * state.s[..., 0] ** 2),
        drive=np.asarray(4 * lr * drive(model, at_threshold) / threshold),
        damping=np.asarray(lr * (state.b * model.covariance * state.b).sum(-1)),
    )


def slow_state(model: Model, state: State, lr: float) -> SlowState:
    """What c and s are when the drive changes slowly and the oscillation about the slow state has died out (T9).

    From ln s'² = ln s² + 2 ln(1 + e) and αcs² = D − (c' − c)/η, to first order in the drive's rate of change,

        e_slow = √(D_{t+1}/D_t) − 1,     αcs² = D_t (1 − (ln D_{t+2} − 2 ln D_{t+1} + ln D_t)/(2g_t)).

    A steady relative change of D costs nothing; only its change does. `settled` says where the hypotheses hold.

    Args:
        model: the model; only its first opposing pair is used.
        state: (n,) consecutive states of descent, n at least 3.
        lr: step size η.

    Raises:
        InputError: fewer than three states, or lr or the first α is not positive.
    """
    log_drive, g = _log_drive(model, state, lr)
    # Δ² ln D_t = ln D_{t+2} − 2 ln D_{t+1} + ln D_t
    correction = -np.diff(log_drive, 2) / (2 * g[:-2])
    leading = edge_amplitude(model, State(state.c[:-2], state.b[:-2], state.s[:-2]))
    leading = np.where(np.isnan(correction), np.nan, leading)
    return SlowState(
        excess=np.expm1(np.diff(log_drive)[:-1] / 2),
        leading=leading,
        amplitude=leading * (1 + correction),
        correction=correction,
    )


def settled(model: Model, state: State, lr: float) -> Flags:
    """Where T9's hypotheses hold for one period 2π/√(2g) from a step on, so that s² = D/(αc) there to 1 %.

    The hypotheses are |Δ² ln D| < 0.006 g and |e − e_slow| < 0.006 √(g/2). A small |e| alone does not do: an
    oscillation of e of size E moves ln s² by E√(2/g), so 2·10⁻⁴ already costs 1 % at g = 10⁻³.

    Args:
        model: the model; only its first opposing pair is used.
        state: (n,) consecutive states of descent, n at least 3.
        lr: step size η.

    Returns:
        (n,) flags; False too where the states end before the period does.

    Raises:
        InputError: fewer than three states, or lr or the first α is not positive.
    """
    slow = slow_state(model, state, lr)
    g = _log_drive(model, state, lr)[1][:-2]
    departure = edge_units(model, state, lr).excess[:-2] - slow.excess
    # NaN fails both comparisons. |Δ² ln D| = 2g |correction|.
    with np.errstate(invalid="ignore"):
        good = (np.abs(slow.correction) < SLOWNESS / 2) & (np.abs(departure) < SLOWNESS * np.sqrt(g / 2))
        period = np.where(good, np.ceil(2 * np.pi / np.sqrt(2 * g)), 1.0)
    failures = np.concatenate([[0], np.cumsum(~good)])
    begin = np.arange(good.size)
    end = np.minimum(begin + period, good.size + 1).astype(np.intp)
    inside = end <= good.size
    result = np.zeros(state.c.size, dtype=np.bool_)
    result[:-2] = inside & (failures[np.where(inside, end, 0)] == failures[begin])
    return result


def edge_stability(g: npt.ArrayLike, m: npt.ArrayLike = 0.0) -> EdgeStability:
    """Linear stability of the rest point s² = D/(αc), c = c*, of map (1): b fixed (T16).

    In (ln w, q) the Jacobian is [[1, 8], [−g/4, 1 − g/4 − m]], of trace 2 − g/4 − m and determinant 1 + 7g/4 − m.
    With m from `effective_damping` it holds, to first order in g, for b responding too.

    Args:
        g: drive, above 0.
        m: damping, any sign.

    Raises:
        InputError: g is not positive, or a number is not finite.

    >>> bool(edge_stability(0.04, 0.07001).stable), bool(edge_stability(0.04, 0.06999).stable)
    (True, False)
    """
    g, m = (np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(g, m))
    require_all("g", g, g > 0, "a finite drive above 0")
    require_all("m", m, np.isfinite(m), "finite numbers")
    half = np.asarray(1 - (g / 4 + m) / 2)
    # disc = (tr/2)² − det = ((g/4 + m)² − 8g)/4
    disc = ((g / 4 + m) ** 2 - 8 * g) / 4
    root = np.sqrt(disc.astype(np.complex128))
    multiplier = half + np.where(half >= 0, 1, -1) * root
    # For a complex pair take the member above the real axis.
    multiplier = np.asarray(multiplier.real + 1j * np.abs(multiplier.imag), dtype=np.complex128)
    # |λ|² = det for a complex pair; log1p keeps the decay exact near the margin, where det is near 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        decay = np.where(disc < 0, -0.5 * np.log1p(7 * g / 4 - m), -np.log(np.abs(multiplier)))
        angle = np.where(disc < 0, np.angle(multiplier), 0.0)
        period = np.where(disc < 0, 2 * np.pi / angle, np.inf)
        per_spike = np.where(disc < 0, decay * period, np.copysign(np.inf, decay))
    return EdgeStability(
        stable=(7 * g / 4 < m) & (m < 2 + 3 * g / 4),
        multiplier=multiplier,
        decay=decay,
        period=period,
        decay_per_spike=per_spike,
    )


def effective_damping(model: Model, state: State, lr: float, omega: npt.ArrayLike | None = None) -> Array:
    """Damping m_eff(ω) of an oscillation of angular frequency ω while b responds to it (T16).

    A step changes δb_i by −ρ_i δb_i + ησ_i(β_i − 2c*b_i) δc, with ρ_i = ηc*²σ_i = 2σ_i/α. Eliminating b from the
    Jacobian gives

        m_eff(ω) = η bᵀΣb − Re Σ_i (ησ_i(β_i − 2c*b_i))² / (exp(iω) − 1 + ρ_i).

    The state is stable iff m_eff > 7g/4, to first order in g; b's response takes damping away.

    Args:
        model: the model; only its first opposing pair is used.
        state: the weights; only b is used, at c = c*.
        lr: step size η.
        omega: angular frequency a step, of the state's leading shape; √(2g) when not given.

    Raises:
        InputError: the drive is not positive and omega is not given, or lr or the first α is not positive.
    """
    units, threshold = edge_units(model, state, lr), _threshold(model, lr)
    if omega is None:
        require_all("the drive D at c*", units.drive, units.drive > 0, "a state whose drive is above 0, or omega")
        omega = np.sqrt(2 * units.drive)
    phase = np.exp(1j * np.asarray(omega, dtype=np.float64))[..., None]
    rho = lr * threshold**2 * model.covariance
    gain = (lr * model.covariance * (model.beta - 2 * threshold * state.b)) ** 2
    # A feature with Σ_i = 0 has gain 0 and takes no part.
    response = np.where(gain > 0, gain / (phase - 1 + rho), 0.0)
    return np.asarray(units.damping - response.real.sum(-1))


def spikes_between(g: npt.ArrayLike, m: npt.ArrayLike, first: npt.ArrayLike, last: npt.ArrayLike) -> Array:
    """Number of spikes in which the peak of w goes from one height to another; infinite if it moves the other way.

    The orbit's area A = ∮ e d ln w obeys A' = (7g/4 − m) A, and dA/dH is the period, H = w − g ln w at the peak, so

        n = (√g/(7g/4 − m)) ∫ dĤ/Â(Ĥ),   Ĥ = v − ln v,   v = w_peak/g,   Â = 2 ∫ √(Ĥ − eˡ + l) dl.

    Limits: peaks far above g, w_n^(−½) = w_0^(−½) + (7/6)(m/(7g/4) − 1) n; small oscillations of ln w of size X,
    n = √(2g) ln(X_0/X_n)/(π(m − 7g/4)).

    Args:
        g: drive, above 0.
        m: damping.
        first: peak w of the first spike, above g.
        last: peak w of the last spike, above g; say 1.1 g for a state settled to 10 %.

    Raises:
        InputError: g is not positive, or a peak is not above g.
    """
    g, m, first, last = (np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(g, m, first, last))
    require_all("g", g, g > 0, "a finite drive above 0")
    for name, peak in (("first", first), ("last", last)):
        require_all(name, peak, peak > g, "a finite peak height above g")
    # v = 1 + exp(u) makes the integrand smooth from small oscillations to large spikes; dĤ = (v − 1)/v dv.
    u0, u1 = np.log(first / g - 1)[..., None], np.log(last / g - 1)[..., None]
    excess = np.exp((u0 + u1) / 2 + (u1 - u0) / 2 * _NODES)
    integrand = excess**2 / (1 + excess) / _orbit_area(1 + excess)
    integral = (integrand * _WEIGHTS).sum(-1) * (u1 - u0)[..., 0] / 2
    rate = 7 * g / 4 - m
    with np.errstate(divide="ignore", invalid="ignore"):
        count = np.sqrt(g) * integral / rate
    return np.asarray(np.where(integral == 0, 0.0, np.where(count > 0, count, np.inf)))


def _orbit_area(v: Array) -> Array:
    """Area Â(v) = 2 ∫ √(Ĥ − eˡ + l) dl enclosed by the leading-order orbit whose peak is v times its rest value."""
    energy = v - np.log(v)
    top = np.log(v)[..., None]
    # The lowest point solves eˡ − l = Ĥ: l = −Ĥ − W₀(−exp(−Ĥ)).
    argument: npt.NDArray[np.complex128] = -np.exp(-energy).astype(np.complex128)
    bottom = (-energy - lambertw(argument, k=0).real)[..., None]
    # l = middle + half·sin θ tames the square roots at both ends.
    theta = _NODES * np.pi / 2
    l = (top + bottom) / 2 + (top - bottom) / 2 * np.sin(theta)
    e = np.sqrt(np.maximum(energy[..., None] - np.exp(l) + l, 0))
    return np.asarray((2 * _WEIGHTS * np.pi / 2 * e * (top - bottom) / 2 * np.cos(theta)).sum(-1))


def _threshold(model: Model, lr: float) -> float:
    """c* = √(2/(ηα)), at which the curvature αc² is 2/η."""
    require_positive("lr", lr)
    require_positive("alpha[0]", float(model.alpha[0]))
    return float(np.sqrt(2 / (lr * model.alpha[0])))


def _log_drive(model: Model, state: State, lr: float) -> tuple[Array, Array]:
    """(n,) ln D_t and g_t = 4ηD_t/c* of consecutive states, D_t at the actual c_t; NaN where D_t is not positive."""
    if state.c.ndim != 1 or state.c.size < 3:
        raise InputError(f"the states have leading shape {state.c.shape}: give at least three consecutive ones")
    values = drive(model, state)
    values = np.where(values > 0, values, np.nan)
    return np.log(values), 4 * lr * values / _threshold(model, lr)
