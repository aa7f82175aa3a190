"""Panels that several figures share: losses of two groups over training, and the size of their swing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from paper_figs.network_roles import compared_losses, number, swing_size
from paper_figs.style import NEGATIVE, POSITIVE, TOTAL
from validate.claims.base import NetworkEvidence
from validate.equal_loss import mean_losses
from validate.opposing_groups import OpposingPair, group_gap

SWING_STEPS = 11
"""Steps over which a swing is taken: few, so that the mean loss is about one number on them."""
SMALLEST = 1e-5
"""Swings below this are not drawn (nats): some hundred roundings of a loss in float32."""
WIDEST = 1.5
"""Nor those taken over steps whose mean losses are further apart than this ratio."""

Array = npt.NDArray[np.float64]


def group_losses(
    axes: Axes, run: xr.Dataset, pair: OpposingPair, *, steps: slice | None = None, unit: str = "cross-entropy (nats)"
) -> None:
    """Mean loss of each group and of all examples, over all of training or a stretch of steps that is enlarged."""
    enlarged, steps = steps is not None, steps or slice(None)
    losses, at = run["loss"].values[steps], run["step"].values[steps]
    sides = ((pair.positive, POSITIVE, "one group"), (pair.negative, NEGATIVE, "the other group"))
    for group, colour, label in sides:
        # A minibatch holds a group only in part, or not at all.
        present = np.ma.masked_invalid(losses[:, group]).mean(1)
        width, mark = (1.0, ".") if enlarged else (0.7, None)
        axes.plot(at, present, color=colour, linewidth=width, marker=mark, markersize=4, alpha=0.85, label=label)
    axes.plot(at, mean_losses(run)[steps], color=TOTAL, linewidth=1.5, label="all examples")
    axes.set(xlabel="step", ylabel=unit)
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def swing_against_loss(
    axes: Axes, runs: Sequence[xr.Dataset], pairs: Sequence[OpposingPair], *, colour: str, label: str
) -> None:
    """How far the group gap swings from step to step, against the mean loss; a line a seed."""
    for i, (run, pair) in enumerate(zip(runs, pairs, strict=True)):
        axes.plot(mean_losses(run), drawn_swing(run, pair), color=colour, linewidth=1.0, label=None if i else label)
    axes.set(xlabel="mean loss (nats), falling", ylabel="swing of the group gap (nats)", yscale="log")


def drawn_swing(run: xr.Dataset, pair: OpposingPair) -> Array:
    """(steps,) the swing as it is drawn; NaN where the loss moves much within its steps: it is that of no one loss."""
    # An alternating part takes the step before and the one after.
    mean, reach = mean_losses(run), SWING_STEPS + 2
    high, low = (filtered(mean, reach, mode="nearest") for filtered in (maximum_filter1d, minimum_filter1d))
    return np.asarray(
        np.where(high / low > WIDEST, np.nan, swing_size(group_gap(run["loss"].values, pair), SWING_STEPS))
    )


def swing_in_words() -> str:
    """How a drawn swing is taken, and what of it is not drawn."""
    return (
        f"root mean square over {SWING_STEPS} steps; left out where the mean loss changes by more than a factor of "
        f"{WIDEST:g} within them; the axis ends at {number(SMALLEST)}"
    )


def mark_equal_loss(axes: Axes, of_seed: NetworkEvidence) -> None:
    """Shades the losses at which runs are compared, and turns the axis so that training goes right."""
    axes.axvspan(*compared_losses(of_seed), color="#999999", alpha=0.15, linewidth=0)
    axes.set_xlim(2.4, 0)
    axes.set_ylim(bottom=SMALLEST)
