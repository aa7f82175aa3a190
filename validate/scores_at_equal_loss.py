"""Scores of two runs at equal loss: runs cross 2/η at losses of their own, and a well-fitted example hardly swings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from validate.equal_loss import mean_losses
from validate.opposing_score import score_of_run
from validate.windows import first_crossing

STEPS = 60
"""Steps that are scored: fewer than at the crossing, since the loss falls meanwhile."""


@dataclass(frozen=True)
class EqualLoss:
    """Scores of a run and of its reference over stretches of equal loss.

    Attributes:
        network: kind of network.
        data: the run's data set.
        lr: its step size.
        seed: of the weights, the same for both.
        loss: mean loss of the run that has less of it at its crossing, median over the 60 steps from there on.
        reference: the reference's score.
        score: the run's score.
    """

    network: str
    data: str
    lr: float
    seed: int
    loss: float
    reference: float
    score: float


def at_equal_loss(
    network: str, data: str, lr: float, seed: int, reference: xr.Dataset, run: xr.Dataset
) -> EqualLoss | None:
    """Both scores: the run with less loss at its crossing over the 60 steps from there, the other at that loss, later.

    None where a run has no score, or the other does not come down to that loss in time.
    """
    stretches = equal_stretches(reference, run)
    if stretches is None:
        return None
    first, second = (
        score_of_run(of, np.random.default_rng(seed), steps)
        for of, steps in zip((reference, run), stretches, strict=True)
    )
    if first is None or second is None:
        return None
    loss = min(float(np.median(mean_losses(of)[s])) for of, s in zip((reference, run), stretches, strict=True))
    return EqualLoss(network, data, lr, seed, loss, first.score, second.score)


def equal_stretches(one: xr.Dataset, other: xr.Dataset) -> tuple[slice, slice] | None:
    """Each run's first 60 steps from its crossing on whose median loss is not above either run's at its own crossing.

    None where there are none.
    """
    medians = [_medians_from_crossing(run) for run in (one, other)]
    if any(found.size == 0 for found in medians):
        return None
    level = min(found[0] for found in medians)
    starts = [np.flatnonzero(found <= level) for found in medians]
    if any(start.size == 0 for start in starts):
        return None
    first, second = (
        int(start[0]) + (first_crossing(run) or 0) for start, run in zip(starts, (one, other), strict=True)
    )
    return slice(first, first + STEPS), slice(second, second + STEPS)


def _medians_from_crossing(run: xr.Dataset) -> npt.NDArray[np.float64]:
    """Median of the mean loss over each stretch of 60 steps, by its first step from the crossing on."""
    crossing = first_crossing(run)
    means = mean_losses(run)
    if crossing is None or len(means) < crossing + STEPS:
        return np.empty(0)
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(means[crossing:], STEPS), axis=1))
