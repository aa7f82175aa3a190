"""The map of `theory.reduced_map` without its two approximations: the valley's whole cross-section, and its memory.

Around a point of the valley's floor let u be the unstable direction, x the displacement along it, z the rest, and

    L = L₀ + ℓ(x) + ⟨G, z⟩ + ½⟨z, Hz⟩ + ½x²⟨g, z⟩,       ℓ any function,  g = ∇⊥(uᵀ∇²L u).

Descent on it is exactly, with y = ⟨g, z⟩ the change of curvature along u,

    x' = x − η (ℓ'(x) + yx),      y_t = η (Σ_{j<t} a_j − ½ Σ_{k<t} c_{t−1−k} x_k²),
    a_j = −⟨g, (1 − ηH)ʲ G⟩,      c_j = ⟨g, (1 − ηH)ʲ g⟩.                                                     (3)

Map (2) takes ℓ'' constant and H = 0, that is c_j = b and a_j = a for ever. In a network the cross-section softens where
x is large, which stops the growth sooner, and much of g lies in stiff directions, which spring back: c_j falls at once.
What (3) leaves out: terms of second order in z times x, turns of u, and ⟨u, Hz⟩, which is 0 for an eigenvector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

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

    def peak_square(self, x: float) -> float:
        """x² at the first peak of the orbit's alternating part −(x_{t+1} − 2x_t + x_{t−1})/4; NaN without one."""
        xs = self.iterate(x)[0]
        with np.errstate(invalid="ignore"):
            sizes = np.abs(np.diff(xs, 2)) / 4
        inner = sizes[1:-1]
        at = np.flatnonzero((inner > sizes[:-2]) & (inner >= sizes[2:]))
        return float(inner[at[0]] ** 2) if at.size else float("nan")


LARGEST = 1e6
"""|x| from which an orbit counts as diverged."""
