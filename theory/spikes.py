"""Height of a spike of the opposing weight (T10): Lambert W, times one exponential for the discrete steps.

In the units of `theory.edge`, e = ηαc² − 2 and w = 4ηαs² obey to leading order ln w' = ln w + 2e, e' = e + g − w, which
keeps H = e² + w − g ln w. The map's own steps make H grow, by (7g/4 − m) ∮ e d ln w an orbit, so the peak is higher
than H says. The formulas below put that growth in closed form; sizes are e ~ ε and w, g, m ~ ε², with ε² = w_peak.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import lambertw

from theory.command_line import require_all
from theory.edge import Flags, edge_units
from theory.model import Model, State
from theory.symbolic import Array

FIRST, SECOND = 7 / 6, 157 / 576
"""w_peak = W exp(FIRST √W + SECOND W), to second order in ε for W ≫ g, mean over where the steps fall on the peak."""

LARGEST_HEIGHT = 0.6
"""Of w at the peak, up to which the formula claims its error bound (`within_domain`)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)


@dataclass(frozen=True)
class SpikeHeight:
    """Height of the first spike from a start, each field of the inputs' common shape.

    Attributes:
        height: w at the highest step of the spike.
        leading: Lambert's leading order, which leaves out the discrete steps and the damping; for comparison.
        error: bound w/6 + 0.01 + 2m²/w on |height/(w of the map) − 1| where `valid`. Seen, not proved. With m = 0
            nearly all of it is where the steps fall on the peak, which no formula without the phase can know.
        valid: 4g ≤ w ≤ 0.6, m ≤ 0.2 √w, w₀ ≤ g/e² (e Euler's), |e₀| ≤ 0.2.
    """

    height: Array
    leading: Array
    error: Array
    valid: Flags


def spike_height(
    g: npt.ArrayLike, start_height: npt.ArrayLike, start_excess: npt.ArrayLike = 0.0, m: npt.ArrayLike = 0.0
) -> SpikeHeight:
    """Peak of w = 4ηαs² in the first spike of map (1) of `theory.edge`.

    Drive frozen, m = 0, with φ of `approach_energy`:

        W = −g W₋₁(−exp(−H/g)/g),  H = φ(e₀) + w₀ − g ln w₀ + (w₀ − g) e₀,     w_peak = W exp(7/6 √W + 157/576 W).

    Drive falling as c rises, m > 0: the approach, where w ≪ g, is q − 1 = g (1 − exp(−m u))/(4m) after a time u, and
    w_peak solves one scalar equation for u; at m = 0 it is the formula above.

    Args:
        g: drive, above 0.
        start_height: w₀, above 0.
        start_excess: e₀, above −1; 0 is the threshold.
        m: damping η bᵀΣb, at least 0.

    Raises:
        InputError: an input is out of its range.

    >>> spike = spike_height(g=0.001, start_height=1e-6)
    >>> round(float(spike.leading), 5), round(float(spike.height), 5)
    (0.00912, 0.01022)
    """
    inputs = np.broadcast_arrays(g, start_height, start_excess, m)
    g, w0, e0, m = (np.asarray(x, dtype=np.float64) for x in inputs)
    require_all("g", g, g > 0, "a finite drive above 0")
    require_all("start_height", w0, w0 > 0, "a finite start w above 0: a spike grows from something")
    require_all("start_excess", e0, e0 > -1, "a finite e above −1")
    require_all("m", m, m >= 0, "a finite damping of at least 0")
    start = w0 - g * np.log(w0)
    leading = lambert_height(e0**2 + start, g)
    frozen = corrected_height(lambert_height(approach_energy(e0) + start + (w0 - g) * e0, g), FIRST, SECOND)
    height = frozen if (m == 0).all() else np.where(m > 0, _damped_height(g, w0, e0, m), frozen)
    return SpikeHeight(
        height=height,
        leading=leading,
        error=error_bound(height, m),
        valid=within_domain(height, g, w0, e0, m),
    )


def spike_of(model: Model, state: State, lr: float) -> SpikeHeight:
    """The first spike of s² after a state, with b fixed: heights are s² = w/(4ηα), first opposing pair.

    Raises:
        InputError: the drive at threshold is not positive, s is 0, or lr or the first α is not positive.
    """
    units = edge_units(model, state, lr)
    spike = spike_height(units.drive, units.height, units.excess, units.damping)
    scale = 4 * lr * model.alpha[0]
    return replace(spike, height=spike.height / scale, leading=spike.leading / scale)


def approach_energy(e: npt.ArrayLike) -> Array:
    """φ(e) = 8 ∫₁^q ln(2t² − 1) dt, q = √(1 + e/2), which the approach has in place of e² as w, g → 0.

        φ = 8 (P(q) − P(1)),     P(q) = (q − 1/√2) ln(√2 q − 1) + (q + 1/√2) ln(√2 q + 1) − 2q

    so φ = e² − e³/2 + 53e⁴/192 − …

    Args:
        e: excess ηαc² − 2, above −1.

    >>> float(approach_energy(0.0))
    0.0
    """
    q = np.sqrt(1 + np.asarray(e, dtype=np.float64) / 2)
    return np.asarray(8 * (_primitive(q) - _primitive(np.ones_like(q))))


def lambert_height(energy: npt.ArrayLike, g: npt.ArrayLike) -> Array:
    """The larger root w of w − g ln w = H: w = −g W₋₁(−exp(−H/g)/g); g where H is below its least value g − g ln g.

    Args:
        energy: H.
        g: drive, above 0.

    >>> round(float(lambert_height(2.0 - np.log(2.0), 1.0)), 12)
    2.0
    """
    energy, g = np.asarray(energy, dtype=np.float64), np.asarray(g, dtype=np.float64)
    # v = w/g solves v − ln v = −a, so v = −W₋₁(−exp a).
    a = np.minimum(-energy / g - np.log(g), -1.0)
    argument: npt.NDArray[np.complex128] = -np.exp(np.maximum(a, -700)).astype(np.complex128)
    # SciPy gives NaN at the branch point −1/e itself.
    v = np.where(argument.real > -np.exp(-1.0), -lambertw(np.where(a < -1, argument, -0.1), k=-1).real, 1.0)
    far = -a
    for _ in range(8):  # exp a underflows: v = −a + ln v contracts by 1/v < 1/700 a turn
        far = -a + np.log(far)
    return np.asarray(g * np.where(a < -700, far, v))


def corrected_height(leading: Array, first: float, second: float) -> Array:
    """Lambert's height with the discrete correction, W exp(first √W + second W)."""
    with np.errstate(over="ignore"):  # far outside the domain the height is infinite
        return np.asarray(leading * np.exp(first * np.sqrt(leading) + second * leading))


def error_bound(height: Array, m: npt.ArrayLike = 0.0) -> Array:
    """Bound w/6 + 0.01 + 2m²/w on the relative error of a corrected height w; see `SpikeHeight` for its domain."""
    m = np.asarray(m, dtype=np.float64)
    return np.asarray(height / 6 + 0.01 + 2 * m**2 / height)


def _damped_height(g: Array, w0: Array, e0: Array, m: Array) -> Array:
    """W = φ(E) at the end u of the approach, which gains ln w as the invariant says, times the passage's correction.

    Bisection on F(u) = ∫₀ᵘ 2 ln(2q² − 1) − ln φ(E(u)) + ln w₀ − w₀/g − (w₀/g − 1) e₀, on its rising branch, E > √g.
    """
    known = np.log(w0) - w0 / g - (w0 / g - 1) * e0
    low = _first_time_above(g, e0, m)
    reached = np.isfinite(low)
    low = np.where(reached, low, 0.0)

    def excess_gain(u: Array) -> Array:
        return np.asarray(_gained(g, e0, m, u) - np.log(approach_energy(_excess_at(g, e0, m, u))) + known)

    with np.errstate(divide="ignore", invalid="ignore"):  # E = 0 only where no spike is reached
        reached &= excess_gain(low) < 0
        high = low + 1 / np.sqrt(g)
        for _ in range(60):
            if not (short := reached & (excess_gain(high) < 0)).any():
                break
            high = np.where(short, low + 2 * (high - low), high)
        for _ in range(60):
            middle = (low + high) / 2
            below = excess_gain(middle) < 0
            low, high = np.where(below, middle, low), np.where(below, high, middle)
    leading = np.where(reached, approach_energy(_excess_at(g, e0, m, high)), g)
    # (2 − 2 ln 2) m/√W: damping during the passage, less what the approach took there.
    passage = (2 - 2 * np.log(2)) * m / np.sqrt(leading)
    # Without a root w creeps up to its rest value: no spike.
    return np.where(reached, corrected_height(leading, FIRST, SECOND) * np.exp(passage), g)


def _excess_at(g: Array, e0: Array, m: Array, u: Array) -> Array:
    """E after a time u of the approach: q − 1 = (q₀ − 1) exp(−m u) + g (1 − exp(−m u))/(4m)."""
    decay = np.asarray(m * u)
    spent = np.where(decay > 0, -np.expm1(-decay) / np.where(decay > 0, decay, 1.0), 1.0) * u
    q = 1 + (np.sqrt(1 + e0 / 2) - 1) * np.exp(-decay) + g / 4 * spent
    return np.asarray(2 * (q - 1) * (q + 1))


def _gained(g: Array, e0: Array, m: Array, u: Array) -> Array:
    """∫₀ᵘ 2 ln(1 + E) du, the gain of ln w over the approach."""
    times = u[..., None] * (1 + _NODES) / 2
    rate = 2 * np.log1p(_excess_at(g[..., None], e0[..., None], m[..., None], times))
    return np.asarray((rate * _WEIGHTS).sum(-1) * u / 2)


def _first_time_above(g: Array, e0: Array, m: Array) -> Array:
    """Time at which the approach passes E = √g; 0 when it starts above, infinite when damping keeps it below."""
    root = np.sqrt(g)
    goal, start = np.sqrt(1 + root / 2) - 1, np.sqrt(1 + e0 / 2) - 1
    # goal = start·exp(−mu) + (g/4)(1 − exp(−mu))/m, so 1 − exp(−mu) = m x with x below, and u = −ln(1 − m x)/m.
    x = np.maximum(goal - start, 0) / np.where(g / 4 - m * start > 0, g / 4 - m * start, 1.0)
    left = 1 - m * x
    time = np.where(m * x > 0, -np.log1p(-np.minimum(m * x, 0.5)) / np.where(m > 0, m, 1.0), x)
    time = np.where(m * x > 0.5, -np.log(np.maximum(left, 1e-300)) / np.where(m > 0, m, 1.0), time)
    return np.where((left > 0) | (goal <= start), time, np.inf)


def _primitive(q: Array) -> Array:
    """P(q), whose derivative is ln(2q² − 1)."""
    root = np.sqrt(0.5)
    return np.asarray((q - root) * np.log(q / root - 1) + (q + root) * np.log(q / root + 1) - 2 * q)


def within_domain(height: Array, g: Array, start_height: Array, start_excess: Array, m: npt.ArrayLike = 0.0) -> Flags:
    """Where `error_bound` held in every run tried: 4g ≤ w ≤ 0.6, m ≤ 0.2 √w, w₀ ≤ g/e² (e Euler's), |e₀| ≤ 0.2."""
    m = np.asarray(m, dtype=np.float64)
    tall = (height >= 4 * g) & (height <= LARGEST_HEIGHT) & (m <= 0.2 * np.sqrt(height))
    return np.asarray(tall & (start_height <= g * np.exp(-2)) & (np.abs(start_excess) <= 0.2))
