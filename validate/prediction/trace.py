"""What one run of a network shows of the reduced map: displacement, excess, a and b, step by step, and its events.

Which direction? Before the onset the unstable direction is the top eigenvector (of the study's start, held fixed), and
the bounce has not risen above rounding; after it it is the direction of the bounce (`validate.claims.bounce`).
Displacement, λ, a and b are along the one up to the first measurement after the onset, along the other from it on.
The top eigenvector itself may turn before the onset, where a second eigenvalue is close: the growth factor is taken
along the one measured last.

When has the oscillation set in? In map (2) of `theory.reduced_map`, y' = y + η (a − b x²/2), the size of x alone says
when it acts back on the sharpness: at x² = 2a/b it stops its rise. `ReducedMap.wait` is the time until |x| is half of
that, where the back action takes a quarter of the rise, so the onset is the step at which |x| gets there: measured on
x itself, along the direction in which the iterate alternates, whichever eigenvector that is. The level is that of a
and b at the start, so that prediction and measurement are about one number and nothing but x is taken from later steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from theory.alternation import alternating_part
from validate.claims.c02_onset import VISIBLE, amplitude, onset_step, visible
from validate.opposing_groups import group_gap, singular_pairs
from validate.windows import Windows

Array = npt.NDArray[np.float64]

NOISE_STEPS = 10
"""Steps up to the start over which the displacement there is taken, root mean square."""


@dataclass(frozen=True)
class Trace:
    """One run at the edge.

    Attributes:
        lr: step size η.
        steps: (n,) consecutive step numbers.
        x: (n,) alternating part of the displacement along the unstable direction; NaN where it is not defined, as at a
            measurement of the bounce, where one direction takes over from another.
        square: (n,) x², at those measurements too.
        top_x: (n,) the same along the top eigenvector measured last, less its drift; NaN at a measurement, where the
            direction changes, and a step after it.
        loss: (n,) mean loss.
        swing: (n,) root mean square over examples of the alternating part of their losses; NaN at the ends.
        measured: (m,) index in `steps` of the measurements.
        excess: (m,) e = ηλ − 2 at midpoints of steps.
        top_excess: (m,) the same of the top eigenvector, also where the bounce has taken over.
        a: (m,) −⟨∇⊥λ, ∇L⟩.
        b: (m,) ‖∇⊥λ‖².
        bulk_x: (n, directions) alternating displacement along bulk eigenvectors held fixed, for controls.
        onset: index in `steps` of the first step at which |x| along the bounce is ½√(2a/b), with a and b of the start;
            None where there is none, or no such level.
        onset_size: |x| along the bounce at that step; NaN without one.
        losses_onset: the same by losses: the first step at which the leading pair's gap swings visibly
            (`visible_onset`); it may lie before the study's start.
        start: index in `measured` from whose measurements predictions are made: the first from the crossing of 2/η on.
    """

    lr: float
    steps: npt.NDArray[np.int64]
    x: Array
    square: Array
    top_x: Array
    loss: Array
    swing: Array
    measured: npt.NDArray[np.int64]
    excess: Array
    top_excess: Array
    a: Array
    b: Array
    bulk_x: Array
    onset: int | None
    onset_size: float
    losses_onset: int | None
    start: int

    @property
    def start_step(self) -> int:
        """Index in `steps` of the start."""
        return int(self.measured[self.start])

    @property
    def start_size(self) -> float:
        """Size of x at the start, from steps up to it alone: before the onset x_t takes the gradient of t + 1."""
        return self._size_up_to_start(self.x)

    @property
    def top_start_size(self) -> float:
        """Size there of `top_x`: of its noise, and of what a drift that is not steady leaves in it."""
        return self._size_up_to_start(self.top_x)

    def _size_up_to_start(self, x: Array) -> float:
        known = x[max(self.start_step - NOISE_STEPS, 0) : self.start_step]
        return float(np.sqrt(np.nanmean(known**2)))

    def excess_at(self, index: npt.ArrayLike, *, top: bool = False) -> Array:
        """Excess e (of the top eigenvector) at indices in `steps`, linear between measurements, constant beyond."""
        excess = self.top_excess if top else self.excess
        known = np.isfinite(excess)
        at = np.asarray(index, dtype=np.float64)
        return np.asarray(np.interp(at, self.measured[known], excess[known]))


def read_trace(base: xr.Dataset, edge: xr.Dataset, windows: Windows) -> Trace:
    """The trace of a base run and its edge study."""
    lr, steps = edge.attrs["lr"], edge["edge_step"].values
    measured = np.searchsorted(steps, edge["edge_measured"].values)
    start = int(np.searchsorted(steps[measured], windows.crossing).clip(max=len(measured) - 1))
    fixed = smooth_free_displacement(edge["gradient_projection"].values, lr)
    bounce, top = (
        kinematic_displacement(edge[f"gradient_along_{name}"].values, lr, turns=measured) for name in ("bounce", "top")
    )
    sizes = np.abs(bounce)
    sizes[measured] = np.sqrt(edge["bounce_square"].values)
    onset = first_at_least(sizes, linear_end(edge["a_across"].values[start:], edge["b"].values[start:]))
    later = measured[measured >= (len(steps) if onset is None else onset)]
    after = np.arange(len(steps)) >= (later[0] if later.size else len(steps))
    x = np.where(after, bounce, fixed[:, 0])
    square = x**2
    square[measured] = np.where(after[measured], edge["bounce_square"].values, square[measured])
    visible = visible_onset(base, windows)
    losses = edge["loss"].values
    swing = np.full(len(steps), np.nan)
    swing[1:-1] = np.sqrt(np.mean(alternating_part(losses) ** 2, axis=1))

    def along(top: str, of_bounce: str) -> Array:
        return np.where(after[measured], edge[of_bounce].values, edge[top].values)

    return Trace(
        lr=lr,
        steps=steps,
        x=x,
        square=square,
        top_x=less_drift(top),
        loss=losses.mean(axis=1, dtype=np.float64),
        swing=swing,
        measured=measured,
        excess=lr * along("sharpness", "bounce_curvature") - 2,
        top_excess=lr * edge["sharpness"].values - 2,
        a=along("a_across", "bounce_a"),
        b=along("b", "bounce_b"),
        bulk_x=fixed[:, 1:],
        onset=onset,
        onset_size=float("nan") if onset is None else float(sizes[onset]),
        losses_onset=None if visible is None else visible - int(steps[0]),
        start=start,
    )


def linear_end(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Size ½√(2a/b) of x up to which the wait is predicted, of the first measurement with an edge; NaN without one.

    >>> linear_end([-1.0, 2.0, 8.0], [1.0, 4.0, 4.0])
    0.5
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    edge = np.flatnonzero((a > 0) & (b > 0))
    return float(VISIBLE * np.sqrt(2 * a[edge[0]] / b[edge[0]])) if edge.size else float("nan")


def first_at_least(sizes: Array, level: float) -> int | None:
    """Index of the first of the sizes that is at least the level; NaN is below every level and above none.

    >>> first_at_least(np.array([np.nan, 1.0, 2.0, 1.0]), 1.5)
    2
    """
    reached = np.flatnonzero(sizes >= level)
    return int(reached[0]) if reached.size else None


def visible_onset(base: xr.Dataset, windows: Windows) -> int | None:
    """Step at which the leading pair's gap first swings half as much as once the oscillation stands.

    C2's rule, but for two things that a long wait asks for: the level is that of the second half of the edge, since the
    first may pass in waiting, and the pair is chosen there. Steps from 130 before the crossing on are looked at. That
    pair need not be the one that bounces first: its onset may come long after x has stopped growing.
    """
    pair = singular_pairs(base["loss"][windows.evaluate], count=1)[0]
    begin = windows.before.start
    sizes = amplitude(group_gap(base["loss"].values[begin : windows.edge.stop], pair))
    standing = slice(windows.evaluate.start - begin, windows.evaluate.stop - begin - 1)
    found = onset_step(sizes, visible(sizes, standing))
    return None if found is None else found + begin


def kinematic_displacement(slope: npt.ArrayLike, lr: float, turns: npt.ArrayLike = ()) -> Array:
    """(n, …) alternating part of x at each step from the gradient's component along it; NaN at the first.

    NaN too at the steps ``turns``, from which on the component is along another direction.

        x_{t+1} − x_t = −ηg_t, so that −(x_{t+1} − 2x_t + x_{t−1})/4 = η (g_t − g_{t−1})/4, whatever the growth of x.

    >>> kinematic_displacement([4.0, -4.0, 4.0], lr=0.5)
    array([nan, -1.,  1.])
    """
    g = np.asarray(slope, dtype=np.float64)
    x = np.full_like(g, np.nan)
    x[1:] = lr / 4 * np.diff(g, axis=0)
    x[np.asarray(turns, dtype=np.int64)] = np.nan
    return x


def smooth_free_displacement(slope: npt.ArrayLike, lr: float) -> Array:
    """The same less its running mean, NaN at the first two and the last: without drifts, to see the size of rounding.

    >>> smooth_free_displacement([4.0, -4.0, 4.0, -4.0], lr=0.5)
    array([nan, nan,  1., nan])
    """
    x = kinematic_displacement(slope, lr)
    free = np.full_like(x, np.nan)
    free[2:-1] = alternating_part(x[1:])
    return free


def less_drift(x: npt.ArrayLike) -> Array:
    """(x_t − x_{t−1})/2 along the first axis, NaN at the first: x itself where it alternates, from no later step.

    >>> less_drift([1.0, -1.0, 1.0])
    array([nan, -1.,  1.])
    """
    x = np.asarray(x, dtype=np.float64)
    free = np.full_like(x, np.nan)
    free[1:] = (x[1:] - x[:-1]) / 2
    return free
