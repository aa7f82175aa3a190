"""The map of `theory.reduced_map` without its approximations: the valley's whole cross-section, memory, and line.

Around a point f of the valley's floor let u be the unstable direction, x the displacement along it, z the rest, and

    L = L₀ + ℓ(x) + ⟨G, z⟩ + ½⟨z, Hz⟩ + ½x²⟨g, z⟩,       ℓ any function,  g = ∇⊥(uᵀ∇²L u).

Descent on it is exactly, with y = ⟨g, z⟩ the change of curvature along u,

    x' = x − η (ℓ'(x) + yx),      y_t = η (Σ_{j<t} a_j − ½ Σ_{k<t} c_{t−1−k} x_k²),
    a_j = −⟨g, (1 − ηH)ʲ G⟩,      c_j = ⟨g, (1 − ηH)ʲ g⟩.                                                     (3)

Map (2) takes ℓ'' constant and H = 0, that is c_j = b and a_j = a for ever. In a network the cross-section softens where
x is large, which stops the growth sooner, and much of g lies in stiff directions, which spring back: c_j falls at once.
What (3) leaves out: that z pushes back on x by ⟨∂²L/∂x∂z, z⟩, which is x⟨g, z⟩ near x = 0 alone: where x is large it is
less, and turns away from g, so that spikes grow taller; that H changes with x; what is of second order in z; turns of
u; and ⟨u, Hz⟩, which is 0 for an eigenvector. With w = xu + z,

    w' = w − η (∇L(f + xu) + ∇²L(f + xu) z),                                                                  (4)

the gradient to first order across u and to every order along it, leaves out what is of second order in z alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from theory.alternation import alternating_part
from theory.command_line import InputError, require_positive

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ValleyMap:
    """Map (3).

    Attributes:
        lr: step size η.
        slope: ℓ'(x), the slope of the loss along u.
        drive: (n,) a_j.
        back_action: (n,) c_j.

    Raises:
        InputError: lr is not positive, or the kernels differ in length or are empty.
    """

    lr: float
    slope: Callable[[float], float]
    drive: Array
    back_action: Array

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if self.drive.ndim != 1 or self.drive.shape != self.back_action.shape or not self.drive.size:
            raise InputError(
                f"drive has shape {self.drive.shape}, back_action {self.back_action.shape}: give two of one length"
            )

    def iterate(self, x: float) -> tuple[Array, Array]:
        """The orbit from x, with y = 0: x and y at steps 0…n, each (n + 1,); infinite once it has diverged.

        >>> rest = ValleyMap(0.1, lambda x: 20 * x, drive=np.full(3, 2.0), back_action=np.full(3, 4.0))
        >>> rest.iterate(1.0)  # as `ReducedMap(a=2.0, b=4.0, lr=0.1)` at rest
        (array([ 1., -1.,  1., -1.]), array([0., 0., 0., 0.]))
        """
        n = self.drive.size
        xs, ys = np.full(n + 1, np.inf), np.full(n + 1, -np.inf)
        xs[0], ys[0] = x, 0.0
        driven = np.cumsum(self.drive)
        for t in range(n):
            # x' = x − η (ℓ'(x) + yx)
            xs[t + 1] = xs[t] - self.lr * (self.slope(float(xs[t])) + ys[t] * xs[t])
            # y_t = η (Σ_{j<t} a_j − ½ Σ_{k<t} c_{t−1−k} x_k²)
            ys[t + 1] = self.lr * (driven[t] - self.back_action[t::-1] @ xs[: t + 1] ** 2 / 2)
            if not abs(xs[t + 1]) < LARGEST:
                xs[t + 1 :], ys[t + 1 :] = np.inf, -np.inf
                break
        return xs, ys


class Expansion(NamedTuple):
    """The loss around a point of the bounce's line: value, (n,) gradient and (n,) product of the Hessian with z."""

    loss: float
    gradient: Array
    product: Array


class LineOrbit(NamedTuple):
    """An orbit of map (4): x and the loss at steps 0, 1, …, the loss to second order in z."""

    x: Array
    loss: Array


@dataclass(frozen=True)
class LineMap:
    """Map (4).

    Attributes:
        lr: step size η.
        direction: (n,) u, of norm 1.
        expansion: x and (n,) z → L(f + xu), ∇L(f + xu) and ∇²L(f + xu) z.

    Raises:
        InputError: lr is not positive, or the direction has not norm 1.
    """

    lr: float
    direction: Array
    expansion: Callable[[float, Array], Expansion]

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        if abs(np.linalg.norm(self.direction) - 1) > 1e-6:
            raise InputError(f"the direction has norm {np.linalg.norm(self.direction):g}: give a unit vector")

    def iterate(self, x: float, most: int) -> LineOrbit:
        """The orbit from x, with z = 0, until its first peak is seen, it has diverged, or after so many steps.

        >>> def expansion(x, z):  # L = 10x² + 4xz, of two coordinates
        ...     return Expansion(10 * x**2, np.array([20 * x, 4 * x]), np.array([4 * z[1], 0.0]))
        >>> LineMap(0.1, np.array([1.0, 0.0]), expansion).iterate(1.0, 2).x.round(3)
        array([ 1.  , -1.  ,  1.16])
        """
        u, w = self.direction, x * self.direction
        xs, losses = [], []
        for _ in range(most + 1):
            x = float(u @ w)
            z = w - x * u
            loss, gradient, product = self.expansion(x, z)
            xs.append(x)
            losses.append(loss + float(gradient @ z + z @ product / 2))
            if not abs(x) < LARGEST or first_peak(np.array(xs)) is not None:
                break
            # w' = w − η (∇L(f + xu) + ∇²L(f + xu) z)
            w = w - self.lr * (gradient + product)
        return LineOrbit(np.array(xs), np.array(losses))


class Peak(NamedTuple):
    """Step of an orbit's first peak, and x² there."""

    step: int
    square: float


def first_peak(xs: Array) -> Peak | None:
    """The first peak of the size of an orbit's alternating part; none where it only grows or falls.

    >>> first_peak(np.array([0.0, -1.0, 3.0, -4.0, 3.0, -1.0, 0.0]))
    Peak(step=3, square=12.25)
    """
    with np.errstate(invalid="ignore"):
        sizes = np.abs(alternating_part(xs))
    inner = sizes[1:-1]
    at = np.flatnonzero((inner > sizes[:-2]) & (inner >= sizes[2:]))
    return Peak(int(at[0]) + 2, float(inner[at[0]] ** 2)) if at.size else None


LARGEST = 1e6
"""|x| from which an orbit counts as diverged."""
