"""Runs compared at equal loss: rules of descent, and changed data, get to a loss at different steps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from theory.alternation import alternating_part
from validate.opposing_groups import group_gap, singular_pairs
from validate.windows import Windows

LEAST_STEPS = 12
"""A stretch has at least so many steps: six to choose a pair on and six to judge it on."""
END_STEPS = 20
"""The losses at the two ends of the edge are medians over so many steps."""
_STEPS_AT_ONCE = 64


def edge_losses(run: xr.Dataset, windows: Windows) -> tuple[float, float]:
    """Mean loss at the beginning and at the end of a run's stretch at the edge: what other runs are compared at."""
    mean = mean_losses(run)[windows.edge]
    return float(np.median(mean[:END_STEPS])), float(np.median(mean[-END_STEPS:]))


def steps_between(run: xr.Dataset, losses: tuple[float, float]) -> slice | None:
    """From a run's first step at or below the higher loss to its first at or below the lower, or `LEAST_STEPS` on.

    None where the run does not get to the lower loss, or ends before there are enough steps.
    """
    mean, (high, low) = mean_losses(run), losses
    begin, end = first_at_or_below(mean, high), first_at_or_below(mean, low)
    if begin is None or end is None:
        return None
    end = max(end, begin + LEAST_STEPS)
    return slice(begin, end) if end <= len(mean) else None


def gap_amplitude(run: xr.Dataset, steps: slice) -> float:
    """Size of the step-to-step bounce of a run's own opposing groups over a stretch of steps.

    The groups are the strongest pair of the first half of the steps; the second half is judged.
    """
    middle = (steps.start + steps.stop) // 2
    losses = run["loss"]
    pair = singular_pairs(losses[steps.start : middle], count=1)[0]
    return float(np.sqrt(np.mean(alternating_part(group_gap(losses[middle : steps.stop].values, pair)) ** 2)))


def least_loss(run: xr.Dataset, examples: npt.NDArray[np.bool_], steps: int) -> float:
    """Least mean loss of some examples in a run's first steps."""
    return float(mean_losses(run, examples)[:steps].min())


def sharpness_ratio(run: xr.Dataset, base: xr.Dataset, loss: float, examples: npt.NDArray[np.bool_]) -> float:
    """Sharpness of a run over its base run's, each where the mean loss of some examples first is at or below `loss`.

    NaN where one never is.
    """
    own, of_base = (sharpness_at_loss(one, loss, examples) for one in (run, base))
    return own / of_base


def sharpness_at_loss(run: xr.Dataset, loss: float, examples: npt.NDArray[np.bool_]) -> float:
    """Sharpness, between measurements, when the mean loss of some examples first is at or below `loss`.

    At the midpoints of steps where it was measured there, else at iterates: those of a run at its edge swing from step
    to step, by a tenth and more in a perceptron with ReLU, and between measurements an even number of steps apart one
    would read the wrong phase. NaN where the loss never is that low, or only after the last measurement.
    """
    step = first_at_or_below(mean_losses(run, examples), loss)
    measured = run["measured"].values
    if step is None or step > measured[-1]:
        return float("nan")
    if "sharpness_midpoint" in run:
        return float(np.interp(step, measured + 0.5, run["sharpness_midpoint"].values))
    return float(np.interp(step, measured, run["sharpness_iterate"].values))


def mean_losses(run: xr.Dataset, examples: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.float64]:
    """(steps,) mean loss over the examples that a step saw, or over some of them."""
    losses, chosen = run["loss"], slice(None) if examples is None else examples
    blocks = (losses[begin : begin + _STEPS_AT_ONCE].values for begin in range(0, len(losses), _STEPS_AT_ONCE))
    return np.concatenate([np.nanmean(block[:, chosen], axis=1, dtype=np.float64) for block in blocks])


def first_at_or_below(series: npt.NDArray[np.float64], level: float) -> int | None:
    """First index with a value at or below a level; None where there is none."""
    found = np.flatnonzero(series <= level)
    return int(found[0]) if found.size else None
