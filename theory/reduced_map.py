"""The map that an opposing direction of a real network reduces to at the edge of stability.

With x the displacement along the unstable direction and y = sharpness − 2/η, gradient descent gives

    x' = −(1 + ηy) x,      y' = y + η (a − b x²/2),     a = −⟨∇λ, ∇L⟩,   b = ‖∇⊥λ‖²                        (2)

(Damian, Nichani & Lee 2022, arXiv 2209.15594): a is progressive sharpening, b how strongly the oscillation pushes
sharpness down. With e = ηy, w = η²bx²/2 and g = η²a it reads e' = e + g − w, w' = (1 + e)² w, both with old values. To
leading order the two-layer network's map (1) of `theory.edge` is the same; its other terms change the 2 below into 7/4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from theory.command_line import InputError, require_positive
from theory.entry_exit import ramp_delay
from theory.spikes import SpikeHeight, corrected_height, error_bound, lambert_height, within_domain
from theory.symbolic import Array

FIRST, SECOND = 4 / 3, 5 / 18
"""w_peak = W exp(FIRST √W + SECOND W): as in `theory.spikes`, for map (2)."""


@dataclass(frozen=True)
class ReducedMap:
    """Map (2) and its closed forms.

    Attributes:
        a: progressive sharpening −⟨∇λ, ∇L⟩, above 0.
        b: self-stabilisation ‖∇⊥λ‖², above 0.
        lr: step size η.

    Raises:
        InputError: a number is not finite and positive; with a ≤ 0 there is no edge to sit at.

    >>> reduced = ReducedMap(a=2.0, b=4.0, lr=0.1)
    >>> reduced.rest_square, round(reduced.drive, 12)
    (1.0, 0.02)
    """

    a: float
    b: float
    lr: float

    def __post_init__(self) -> None:
        for name in ("a", "b", "lr"):
            require_positive(name, getattr(self, name))

    @property
    def drive(self) -> float:
        """Drive g = η²a of the excess e = ηy."""
        return self.lr**2 * self.a

    @property
    def scale(self) -> float:
        """w/x² = η²b/2."""
        return self.lr**2 * self.b / 2

    @property
    def rest_square(self) -> float:
        """x² = 2a/b at rest, where y = 0; the rest point is never stable."""
        return 2 * self.a / self.b

    @property
    def period(self) -> float:
        """Steps in a small oscillation of x² about rest, 2π/atan √(2g): the multipliers are 1 ± i√(2g)."""
        return float(2 * np.pi / np.arctan(np.sqrt(2 * self.drive)))

    @property
    def growth(self) -> float:
        """By how much ln of a small oscillation's amplitude grows in a step, ½ ln(1 + 2g).

        A network that settles must damp it: with −m e added to e', the multipliers' modulus is √(1 + 2g − m).
        """
        return float(np.log1p(2 * self.drive) / 2)

    def iterate(self, x: npt.ArrayLike, y: npt.ArrayLike, steps: int) -> tuple[Array, Array]:
        """The map's orbit from (x, y): x and y at steps 0…steps, of shape (steps + 1, ...).

        Raises:
            InputError: steps is not positive.

        >>> x, y = ReducedMap(a=2.0, b=4.0, lr=0.1).iterate(1.0, 0.0, steps=2)
        >>> x, y  # at rest |x| is constant and the sign alternates
        (array([ 1., -1.,  1.]), array([0., 0., 0.]))
        """
        require_positive("steps", steps)
        start = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        orbit = np.empty((steps + 1, 2, *start[0].shape))
        orbit[0] = start
        with np.errstate(over="ignore", invalid="ignore"):  # a spike too tall diverges to infinity
            for t in range(steps):
                xt, yt = orbit[t]
                # x' = −(1 + ηy) x,  y' = y + η (a − b x²/2)
                orbit[t + 1] = -(1 + self.lr * yt) * xt, yt + self.lr * (self.a - self.b * xt**2 / 2)
        return orbit[:, 0], orbit[:, 1]

    def wait(self, x: float, visible: float, y: float = 0.0) -> float:
        """Steps in which |x| grows from a small start to a visible size, while it is too small to act back on y.

        Until then e = e₀ + gt, and ln|x| gains Σ ln(1 + e₀ + gt) = ∫₀^τ ln(1 + e₀ − g/2 + gt) dt, to second order in g.
        A start below threshold loses first what its way up costs, q(e₀)/g with q(e) = (1 + e) ln(1 + e) − e.

        Args:
            x: displacement at the start, not 0.
            visible: size to be reached; |x| or less gives the time until |x| is back at its start's size.
            y: sharpness − 2/η at the start, above −1/η.

        Raises:
            InputError: x is 0, visible is not positive, or y is at most −1/η.

        >>> reduced = ReducedMap(a=1.0, b=1.0, lr=0.1)
        >>> round(reduced.wait(1e-6, 1e-2), 1), round(reduced.wait(1e-6, 1e-2, y=-1.0), 1)
        (46.4, 57.9)
        """
        require_positive("visible", visible)
        self._require_start(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
        g = self.drive
        e = max(self.lr * y - g / 2, -1 + 1e-12)
        start = (1 + e) * np.log1p(e) - e
        length = max(float(np.log(visible / abs(x))), 0.0)
        return max(float(ramp_delay(length + start / g, g)) - e / g, 0.0)

    def peaks(self, x: float, y: float, steps: int) -> tuple[npt.NDArray[np.int64], Array]:
        """Steps at which x² peaks along the map's orbit from (x, y), and its heights there; none at the orbit's ends.

        >>> steps, heights = ReducedMap(a=10.0, b=2.0, lr=0.01).peaks(x=0.1, y=0.0, steps=1000)
        >>> int(steps[0]), round(float(heights[0]), 2)  # the closed form of `spike`: 103.84
        (106, 103.96)
        """
        with np.errstate(over="ignore", invalid="ignore"):  # as in `iterate`
            squares = self.iterate(x, y, steps)[0] ** 2
        inner = squares[1:-1]
        at = np.flatnonzero((inner > squares[:-2]) & (inner >= squares[2:]) & np.isfinite(inner)) + 1
        return at, squares[at]

    def alternating_square(self, square: npt.ArrayLike) -> Array:
        """Square of the alternating part |x_{t+1} − 2x_t + x_{t−1}|/4 at a spike's peak, by x² there.

        It is what a run shows of x whatever drifts, and smaller than |x| where neighbours are: the taller, the more.
        About a peak that lies even between its neighbours e falls from δ to −δ by w_{t−1} − g. On orbits with w up to
        0.6 it is within 7 %, as peaks lie anywhere between steps, and right on the mean (x² itself: up to 29 % more).

        >>> reduced = ReducedMap(a=10.0, b=2.0, lr=0.05)
        >>> x = reduced.iterate(0.1, 0.0, steps=40)[0]
        >>> at = int(reduced.peaks(0.1, 0.0, steps=40)[0][0])
        >>> round(float(x[at] ** 2), 1), round(float((x[at + 1] - 2 * x[at] + x[at - 1]) ** 2 / 16), 1)
        (183.5, 161.5)
        >>> round(float(reduced.alternating_square(x[at] ** 2)), 1)
        157.4
        """
        square = np.asarray(square, dtype=np.float64)
        # 2δ = w/(1 + δ)² − g, by Newton's rule, whose function of δ is convex and rising
        w, g = self.scale * square, self.drive
        delta = (w - g) / 2
        for _ in range(8):
            delta = delta - (2 * delta + g - w / (1 + delta) ** 2) / (2 + 2 * w / (1 + delta) ** 3)
        # |x_{t+1}| = (1 − δ) |x_t|,  |x_{t−1}| = |x_t|/(1 + δ)
        return np.asarray(square * ((3 - delta + 1 / (1 + delta)) / 4) ** 2)

    def invariant(self, x: npt.ArrayLike, y: npt.ArrayLike) -> Array:
        """H = e² + w − g ln w, constant along the orbit to leading order only: it gains 2g ∮ e d ln w an orbit.

        x must not be 0, where H is infinite.
        """
        e, w = self.lr * np.asarray(y, dtype=np.float64), self.scale * np.asarray(x, dtype=np.float64) ** 2
        return np.asarray(e**2 + w - self.drive * np.log(w))

    def spike(self, x: npt.ArrayLike, y: npt.ArrayLike = 0.0) -> SpikeHeight:
        """Peak of x² in the first spike from (x, y), heights in units of x².

            W = −g W₋₁(−exp(−H/g)/g),  H = φ(e) + w − g ln w + (w − g) e,  φ = 2((1 + e) ln(1 + e) − e),
            η²b x_peak²/2 = W exp(4/3 √W + 5/18 W).

        Args:
            x: displacement at the start, not 0.
            y: sharpness − 2/η at the start, above −1/η.

        Raises:
            InputError: x is 0 or y at most −1/η.

        >>> spike = ReducedMap(a=10.0, b=2.0, lr=0.01).spike(x=0.1)
        >>> round(float(spike.height), 2), bool(spike.valid)  # rest is at x² = 10
        (103.84, True)
        """
        x, y = (np.asarray(v, dtype=np.float64) for v in np.broadcast_arrays(x, y))
        self._require_start(x, y)
        e, w, g = self.lr * y, self.scale * x**2, self.drive
        start = w - g * np.log(w)
        energy = 2 * ((1 + e) * np.log1p(e) - e)
        height = corrected_height(lambert_height(energy + start + (w - g) * e, g), FIRST, SECOND)
        return SpikeHeight(
            height=height / self.scale,
            leading=lambert_height(e**2 + start, g) / self.scale,
            error=error_bound(height),
            valid=within_domain(height, np.asarray(g), w, e),
        )

    def _require_start(self, x: Array, y: Array) -> None:
        if not (np.isfinite(x) & (x != 0)).all():
            raise InputError("x is 0 or not finite: give a displacement that a spike can grow from")
        if not (np.isfinite(y) & (self.lr * y > -1)).all():
            raise InputError(f"y is at most −1/lr = {-1 / self.lr} or not finite: give y above it")


def loss_rise(square: npt.ArrayLike, lr: float) -> Array:
    """By how much the loss at a displacement of given square lies above the valley's floor at λ = 2/η.

    Args:
        square: x².
        lr: step size η.

    Raises:
        InputError: lr is not positive.

    >>> float(loss_rise(0.2, lr=0.1))
    2.0
    """
    require_positive("lr", lr)
    # ½λx² = x²/η
    return np.asarray(np.asarray(square, dtype=np.float64) / lr)


@dataclass(frozen=True)
class ReducedMapFit:
    """(a, b) of map (2) from a measured series, by least squares.

    Attributes:
        a: progressive sharpening.
        b: self-stabilisation.
        offset: y at the first step.
        a_error: standard error of a, right for white noise in y alone; likewise `b_error`.
        b_error: standard error of b.
        residual: root mean square of what the fit leaves of y.
        explained: 1 − residual²/variance of y.
        autocorrelation: lag-one autocorrelation of the residuals, near 0 for white noise in y. Near 1 the residuals
            wander: noise in x, noise in the dynamics or a drifting a or b, and the standard errors are too small. Of
            no meaning where the residual is rounding.
        steps: length of the series.
    """

    a: float
    b: float
    offset: float
    a_error: float
    b_error: float
    residual: float
    explained: float
    autocorrelation: float
    steps: int


def fit_reduced_map(x: npt.ArrayLike, y: npt.ArrayLike, lr: float, x_noise: float = 0.0) -> ReducedMapFit:
    """Fits a and b to measured x_t and y_t by ordinary least squares on the map summed over the steps.

        y_t = y_0 + a ηt − b η/2 Σ_{k<t} x_k²

    Exact without noise, whatever signs x has. White noise in y leaves a and b unbiased and the standard errors right.
    White noise in x of standard deviation σ biases a upwards by bσ²/2, which `x_noise` = σ takes out; b hardly moves,
    but the standard errors are then too small (that of b by 2.3 where x and y have a tenth of their size as noise).
    The fit of the differences (y_{t+1} − y_t)/η would be two to five times less precise under noise in y.

    Args:
        x: (n,) displacement along the top eigenvector; only its square is used.
        y: (n,) sharpness − 2/η at the same steps.
        lr: step size η.
        x_noise: standard deviation of the noise in x.

    Raises:
        InputError: the series differ in length, are shorter than 4 or not finite, or x² is constant, which cannot
            tell a from b.
    """
    require_positive("lr", lr)
    require_positive("x_noise", x_noise, zero_allowed=True)
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or x.size < 4:
        raise InputError(f"x has shape {x.shape}, y {y.shape}: give two series of one length, at least 4")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("x or y holds a number that is not finite: cut the series before it")
    n = x.size
    # The noise adds σ² to the mean of x_k².
    summed = np.concatenate([[0.0], np.cumsum(x[:-1] ** 2 - x_noise**2)])
    design = np.stack([np.ones(n), lr * np.arange(n), -lr / 2 * summed], axis=1)
    size = np.linalg.norm(design, axis=0)
    if not size.all() or np.linalg.matrix_rank(design / np.where(size > 0, size, 1.0), tol=1e-10) < 3:
        raise InputError("x² is constant over the series, which cannot tell a from b: give a stretch with a spike")
    # Columns of unit size: a long series would otherwise be ill conditioned in the summed x².
    scaled, *_ = np.linalg.lstsq(design / size, y, rcond=None)
    covariance = np.linalg.inv((design / size).T @ (design / size)) / np.outer(size, size)
    left = y - design @ (scaled / size)
    variance = float(left @ left) / (n - 3)
    spread, power = float(((y - y.mean()) ** 2).sum()), float(left @ left)
    offset, a, b = (float(v) for v in scaled / size)
    return ReducedMapFit(
        a=a,
        b=b,
        offset=offset,
        a_error=float(np.sqrt(variance * covariance[1, 1])),
        b_error=float(np.sqrt(variance * covariance[2, 2])),
        residual=float(np.sqrt(power / n)),
        explained=1 - power / spread if spread > 0 else 1.0,
        autocorrelation=float(left[1:] @ left[:-1]) / power if power > 0 else 0.0,
        steps=n,
    )
