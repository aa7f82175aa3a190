"""How opposing the signals of a data set are to a network: one number between 0 and 1, with an interval and anchors.

Every network that crosses 2/η bounces along its top eigenvector, and every example's loss swings with it; what the
opposing signals add is that two small groups on either side take most of the swing. So, with A the (steps, n)
alternating part of the losses over a window at the edge and v the leading singular direction over examples,

    score = share of ‖A‖² along v  ×  2 min(E₊, E₋),

where E₊ is the share of ‖v‖² that the 2.5 % of examples with the most positive entries carry, and E₋ the same for the
most negative. The direction is found on one window and its share measured on another. Landmarks: two opposing groups
that carry everything, 1; a Gaussian direction that carries everything, 0.279; one that only one side feels, 0; noise
that no direction carries, 0.279 over the number of examples. The definition is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from theory.command_line import InputError
from validate.opposing_groups import alternating_part
from validate.singular_directions import singular_directions
from validate.windows import find_windows

Array = npt.NDArray[np.float64]

SIDE = 0.025
"""Share of the examples in each extreme group."""
CONFIDENCE = 0.90


@dataclass(frozen=True)
class OpposingScore:
    """Opposing-signal score of one run.

    Attributes:
        score: the score.
        interval: 90 % percentile interval over resampled examples, the direction held fixed. It says what another
            draw of examples would change; seeds of the network vary more: run several (`mean_interval`).
        energy: share of the alternating energy along the direction, on steps it was not found on.
        positive: E₊, share of the direction's square in the extreme positive group.
        negative: E₋.
    """

    score: float
    interval: tuple[float, float]
    energy: float
    positive: float
    negative: float


def opposing_score(
    select: npt.ArrayLike, evaluate: npt.ArrayLike, rng: np.random.Generator, *, resamples: int = 400
) -> OpposingScore:
    """The score of one run.

    Args:
        select: (steps, n) losses over the window on which the direction is found, at least 4 steps.
        evaluate: (steps, n) losses over the window on which its share is measured, at least 3 steps.
        rng: of the resampled examples.
        resamples: number of resamples for the interval.

    Raises:
        InputError: windows too short, or of different examples.

    >>> swing = np.outer((-1.0) ** np.arange(9), np.repeat([1.0, 0.0, -1.0], [1, 78, 1]))
    >>> round(opposing_score(swing, swing, np.random.default_rng(0)).score, 12)
    1.0
    """
    found, judged = np.asarray(select, dtype=np.float64), np.asarray(evaluate, dtype=np.float64)
    if found.ndim != 2 or judged.ndim != 2 or found.shape[1] != judged.shape[1]:
        raise InputError(f"losses have shapes {found.shape} and {judged.shape}: give two windows of the same examples")
    if len(found) < 4 or len(judged) < 3:
        raise InputError(f"windows have {len(found)} and {len(judged)} steps: give at least 4 and 3")
    # The changes of the alternating part have the same directions, at twice the size.
    direction = singular_directions(alternating_part(found), count=1).directions[0]
    swings = alternating_part(judged)
    n = len(direction)
    weights = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(resamples)])
    scores = _weighted(direction, swings, weights.astype(np.float64))
    score, energy, positive, negative = (float(part[0]) for part in _parts(direction, swings, np.ones((1, n))))
    low, high = np.quantile(scores, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return OpposingScore(score, (float(low), float(high)), energy, positive, negative)


def score_of_run(run: xr.Dataset, rng: np.random.Generator) -> OpposingScore | None:
    """The score of a full-batch run on its windows at the edge; None where it has none.

    With the runs under `GaussianSurrogate` and `ShuffledLabels` as anchors, it says how far the data set's signals are
    from those of Gaussian images with the same means and covariances, and from those that labels cannot share.
    """
    windows = find_windows(run)
    if windows is None:
        return None
    return opposing_score(run["loss"].values[windows.select], run["loss"].values[windows.evaluate], rng)


def _weighted(direction: Array, swings: Array, weights: Array) -> Array:
    return _parts(direction, swings, weights)[0]


def _parts(direction: Array, swings: Array, weights: Array) -> Sequence[Array]:
    """(resamples,) score, energy, E₊ and E₋ with (resamples, n) weights of the examples."""
    squares = direction**2
    norm = weights @ squares
    # c_t = Σ_i w_i A_ti v_i / ‖v‖_w: energy along v is Σ_t c_t² over Σ_ti w_i A_ti².
    along = ((swings * direction) @ weights.T) ** 2
    total = weights @ (swings**2).sum(0)
    energy = along.sum(0) / np.where(norm * total > 0, norm * total, 1.0)
    order = np.argsort(direction, kind="stable")
    positive = _extreme(direction, squares, weights, order[::-1], 1.0) / np.where(norm > 0, norm, 1.0)
    negative = _extreme(direction, squares, weights, order, -1.0) / np.where(norm > 0, norm, 1.0)
    return energy * 2 * np.minimum(positive, negative), energy, positive, negative


def _extreme(direction: Array, squares: Array, weights: Array, order: npt.NDArray[np.int64], sign: float) -> Array:
    """(resamples,) sum of squares over the first `SIDE` of the examples in this order, entries of this sign only."""
    taken = weights[:, order]
    before = taken.cumsum(1) - taken
    share = np.clip(max(1.0, SIDE * len(order)) - before, 0, taken)
    return np.asarray((share * (squares * (np.sign(direction) == sign))[order]).sum(1))
