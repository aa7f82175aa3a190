"""Two-sided bounds on the time and height of the turning point of c: Σ = I, balanced start, one pair, α ≥ 1 (T5).

With p = bᵀβ/‖β‖ and u = p/c, Q = 0 reduces the flow to

    u' = ‖β‖(1 − u²) + (α − 1) u s²,   (ln c)' = u‖β‖ − c² − (α − 1) s²,   s' = −αc² s,

and c turns where u‖β‖ = c² + (α − 1)s². No closed form of the turning time t₁ is known; these bounds are proved.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError
from theory.model import Model, State, balancedness
from theory.sharpening import c_squared_lower
from theory.symbolic import Array

TURNING_TIME_LIMIT = 0.471888387913
"""Limit of ‖β‖ t₁ as α/‖β‖ → ∞, for a start with c = s and b = 0; approached like (‖β‖/α)^½."""
TURNING_CURVATURE_LIMIT = 1.825649203280
"""Limit of αc(t₁)²/‖β‖: the valley's first-layer curvature is of size ‖β‖, whatever α."""
TURNING_ALIGNMENT_LIMIT = 0.762950561242
"""Limit of u(t₁) = bᵀβ/(c‖β‖)."""

_PANELS = 64
_BISECTIONS = 100
_BALANCED = 1e-9


@dataclass(frozen=True)
class TurningBounds:
    """Bounds on the turning point, each of the parameters' common shape; they hold under `hypotheses`.

    Attributes:
        time_lower: at most t₁.
        time_upper: at least t₁; infinite where ‖β‖ ≤ c(0)², since c may then fall for ever.
        c_squared_lower: at most c(t₁)².
        c_squared_upper: at least c(t₁)².
        hypotheses: what the proofs use.
    """

    time_lower: Array
    time_upper: Array
    c_squared_lower: Array
    c_squared_upper: Array
    hypotheses: str = "Σ = I, Q = 0, one opposing pair, α ≥ 1, β ≠ 0, c(0) > 0, bᵀβ ≥ 0"


def turning_bounds(
    alpha: npt.ArrayLike,
    beta: npt.ArrayLike,
    projection: npt.ArrayLike,
    opposing: npt.ArrayLike,
    c: npt.ArrayLike = 1.0,
) -> TurningBounds:
    """Bounds on t₁ and c(t₁)² from the start; the parameters broadcast against each other.

    Args:
        alpha: second moment α ≥ 1 of the opposing pair.
        beta: ‖β‖ > 0.
        projection: p = bᵀβ/‖β‖ ≥ 0 at the start.
        opposing: s at the start, of either sign.
        c: last-layer weight c > 0 at the start; the rest of b has norm n = √(c² − p² − s²), as Q = 0 demands.

    Raises:
        InputError: a parameter is out of its range, or p² + s² > c².

    >>> bounds = turning_bounds(alpha=20.0, beta=3.0, projection=0.0, opposing=1.0)  # t₁ = 0.18480, αc² = 3.694
    >>> bool(bounds.time_lower < 0.1848 < bounds.time_upper), bool(bounds.c_squared_lower < 0.1847)
    (True, True)
    """
    a, norm, p, s, c0 = np.broadcast_arrays(
        *(np.asarray(v, dtype=np.float64) for v in (alpha, beta, projection, opposing, c))
    )
    _require_hypotheses(a, norm, p, s, c0)
    # Weights scale like c(0), β like c(0)², time like c(0)^−2: it is enough to treat c(0) = 1.
    norm, p, s = norm / c0**2, p / c0, np.abs(s) / c0
    n_squared = np.maximum(1 - p**2 - s**2, 0)
    highest = _highest_alignment(a, norm, s)
    upper = _time_upper(norm, p, highest)
    lower, least_c = _time_lower(a, norm, p, np.sqrt(n_squared), s)
    # At t₁ u‖β‖ = c² + (α−1)s² ≤ c²(α − (α−1)u²), and u(t₁) ≥ tanh(‖β‖t + artanh u(0)) at any t ≤ t₁.
    u = _tanh_sum(norm * lower, p)
    c_lower = np.maximum(u * norm / (a - (a - 1) * u**2), _least_height(a, norm, p, lower, upper))
    # c falls until t₁, and c² ≤ u‖β‖ there.
    c_upper = np.minimum(np.minimum(1.0, least_c**2), norm * np.minimum(highest, 1.0))
    # c' = p‖β‖ − c(p² + n² + αs²): where it is not negative at the start, t₁ = 0.
    rises = p * norm >= p**2 + n_squared + a * s**2
    return TurningBounds(
        time_lower=np.where(rises, 0.0, lower) / c0**2,
        time_upper=np.where(rises, 0.0, upper) / c0**2,
        c_squared_lower=np.where(rises, 1.0, c_lower) * c0**2,
        c_squared_upper=np.where(rises, 1.0, c_upper) * c0**2,
    )


def turning_bounds_of(model: Model, start: State) -> TurningBounds:
    """The same bounds for a model and a start, or starts along any leading axes.

    Raises:
        InputError: Σ is not the identity, there is more than one pair, the start is not balanced, or as above.
    """
    if (model.covariance != 1).any() or model.alpha.size != 1:
        raise InputError("the bounds on the turning time need covariance 1 and one opposing pair")
    if (np.abs(balancedness(start)) > _BALANCED * start.c**2).any():
        raise InputError(f"the start has Q = {balancedness(start)}: give one with c² = ‖b‖² + s²")
    norm = np.linalg.norm(model.beta)
    if norm == 0:
        raise InputError("beta is 0: c falls for ever; give a target")
    return turning_bounds(model.alpha[0], norm, start.b @ model.beta / norm, start.s[..., 0], start.c)


def _require_hypotheses(alpha: Array, norm: Array, p: Array, s: Array, c: Array) -> None:
    for name, value, good, mend in (
        ("alpha", alpha, alpha >= 1, "at least 1"),
        ("beta", norm, norm > 0, "above 0"),
        ("c", c, c > 0, "above 0"),
        ("projection", p, p >= 0, "at least 0"),
        ("projection", p, p**2 + s**2 <= c**2 * (1 + _BALANCED), "with p² + s² ≤ c²"),
    ):
        if not (good & np.isfinite(value)).all():
            raise InputError(f"{name} is {value}: the bounds need finite numbers {mend}")


def _highest_alignment(alpha: Array, norm: Array, s: Array) -> Array:
    """What u cannot pass before t₁: u‖β‖ < c² + (α−1)s², with c ≤ 1 and s² ≤ c²(1 − u²), and with c ≤ 1 and s ≤ s₀.

    The first is the root of (α−1)u² + ‖β‖u = α, the second (1 + (α−1)s₀²)/‖β‖, sharp for a start close to its turn.
    """
    root = 2 * alpha / (norm + np.sqrt(norm**2 + 4 * alpha * (alpha - 1)))
    return np.asarray(np.minimum(root, (1 + (alpha - 1) * s**2) / norm))


def _time_upper(norm: Array, u: Array, highest: Array) -> Array:
    """The time u takes to its highest value, from u' ≥ ‖β‖ − u before t₁ and from u' ≥ ‖β‖(1 − u²)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        linear = np.log((norm - u) / (norm - highest))
        tanh = (np.arctanh(np.minimum(highest, 1)) - np.arctanh(np.minimum(u, 1))) / norm
        finite = (norm > 1) & (highest < 1)
        return np.where(finite, np.maximum(0.0, np.minimum(linear, tanh)), np.inf)


def _time_lower(alpha: Array, norm: Array, p: Array, n: Array, s: Array) -> tuple[Array, Array]:
    """A lower bound on t₁, and an upper bound on c(t₁), with θ = ∫c as clock.

    p ≤ P = p₀ + ‖β‖θ and c ≤ s + m, m = hypot(P, n₀), so s ≥ s_lo = 1/(e^x/s₀ + αθ(e^x − 1)/x) with x = αmθ. A turn
    needs ‖β‖p ≥ αs³, hence ‖β‖P ≥ αs_lo³, which first holds at θ*; and dt = dθ/c with c ≤ min(1, hypot(s_hi, m)),
    s_hi = s₀/(1 + αs₀θ). The integral is bounded from below panel by panel: s_hi falls and m rises in θ.
    """
    low, high = np.zeros_like(s), alpha * s**3 / norm**2  # ‖β‖P ≥ αs₀³ at the upper end
    with np.errstate(divide="ignore", over="ignore"):
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            reach = p + norm * middle
            x = np.minimum(alpha * np.hypot(reach, n) * middle, 700.0)
            ratio = np.where(x > 0, np.expm1(x) / np.where(x > 0, x, 1.0), 1.0)
            least_s = 1 / (np.exp(x) / s + alpha * middle * ratio)
            before = norm * reach < alpha * least_s**3
            low, high = np.where(before, middle, low), np.where(before, high, middle)
    # Nodes even in ln(1 + αs₀θ), the scale on which s_hi changes.
    rate = np.where(s > 0, alpha * s, 1.0)
    share = np.linspace(0, 1, _PANELS + 1).reshape(-1, *([1] * s.ndim))
    theta = np.minimum(np.expm1(share * np.log1p(rate * low)) / rate, low)
    s_high, m = s / (1 + alpha * s * theta), np.hypot(p + norm * theta, n)
    c_high = np.minimum(1.0, np.hypot(s_high[:-1], m[1:]))
    return (np.diff(theta, axis=0) / c_high).sum(0), np.minimum(1.0, np.hypot(s_high, m).min(0))


def _least_height(alpha: Array, norm: Array, u: Array, lower: Array, upper: Array) -> Array:
    """Smallest value of `c_squared_lower` from c = 1 for t in [lower, upper]; 0 where upper is infinite.

    The bound is G/(1 + 2∫G + 2(α−1)(1−u²)t), and both parts rise in t: panel by panel, the numerator is taken at the
    earlier end and the denominator at the later one.
    """
    finite = np.isfinite(upper)
    share = np.linspace(0, 1, _PANELS + 1).reshape(-1, *([1] * norm.ndim))
    t = lower + share * (np.where(finite, upper, lower) - lower)
    bound, decay = c_squared_lower(t, alpha, norm, 1.0, u), np.exp(-2 * norm * t)
    growth = (1 + decay + u * (1 - decay)) ** 2 / decay  # 4G
    return np.asarray(np.where(finite, (bound[1:] * growth[:-1] / growth[1:]).min(0), 0.0))


def _tanh_sum(x: Array, u: Array) -> Array:
    """tanh(x + artanh u), finite at u = 1."""
    t = np.tanh(x)
    return np.asarray((t + u) / (1 + t * u))
