"""A power law fitted to scattered points: its exponent with a confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from theory.command_line import InputError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Slope:
    """Least-squares slope of ln y on ln x.

    Attributes:
        value: the exponent.
        low: lower end of its confidence interval.
        high: upper end.
    """

    value: float
    low: float
    high: float

    def holds(self, exponent: float) -> bool:
        """Whether the interval contains an exponent."""
        return self.low <= exponent <= self.high

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def power_law(x: npt.ArrayLike, y: npt.ArrayLike) -> Slope:
    """Exponent of y ∝ x^slope, with Student's interval at `CONFIDENCE`.

    Hypothesis: the scatter of ln y is independent from point to point, and the same at every x.

    Args:
        x: (n, …) positive values, in any shape that broadcasts with y's.
        y: positive values.

    Raises:
        InputError: fewer than three points, x all equal, or a value that is not finite and positive.

    >>> power_law([1.0, 2.0, 4.0], [3.0, 6.0, 12.0]).value
    1.0
    """
    a, b = (v.ravel() for v in np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)))
    good = np.isfinite(a) & np.isfinite(b) & (a > 0) & (b > 0)
    if a.size < 3 or not good.all() or (a == a[0]).all():
        raise InputError(f"{a.size} points, {int(good.sum())} of them positive: a slope needs three, at different x")
    fit = stats.linregress(np.log(a), np.log(b))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, a.size - 2)) * float(fit.stderr)
    if not math.isfinite(half):
        half = 0.0
    return Slope(float(fit.slope), float(fit.slope) - half, float(fit.slope) + half)
