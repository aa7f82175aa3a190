"""F12: what batch norm, label smoothing and squared loss do to the opposing groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.group_panels import group_losses
from paper_figs.network_roles import (
    ROLE_COLOURS,
    evidence,
    number,
    seeds_in_words,
    significant,
    spread,
    swing_size,
)
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, style, threshold_line
from sim import LossRule
from validate.cifar10 import CLASSES
from validate.claims.base import Evidence, NetworkEvidence
from validate.claims.c13_normalisation import CLAIMS, GROUP_SHARE, LEAST_EPOCHS, at_equal_loss, by_epoch, imbalance
from validate.equal_loss import mean_losses
from validate.opposing_groups import GROUP_SIZE, OpposingPair, group_gap, singular_pairs
from validate.roles import LOSS_RULES

Array = npt.NDArray[np.float64]

LOSS_ROLES = {"base": "cross-entropy", "label_smoothing": "label smoothing", "squared": "squared loss"}
NORM_ROLES = {"no_batch_norm": "no batch norm", "batch_norm": "batch norm"}
NEEDS = tuple(f"networks.{role}" for role in LOSS_ROLES)
OPTIONAL = tuple(f"networks.{role}" for role in NORM_ROLES)
UNITS = {"base": "loss (nats)", "label_smoothing": "loss (nats)", "squared": "squared loss"}
IMBALANCE = CLAIMS[0]
ZOOM_STEPS = 16
SWING_STEPS = 25
"""Steps over which a swing is taken."""


@dataclass(frozen=True)
class _Judged:
    """A run's own strongest pair, chosen in the third quarter of training, and the last quarter, which judges it."""

    pair: OpposingPair
    steps: slice
    relative_swing: float


def draw(runs: Runs) -> Figure:
    """Each run's groups, enlarged; swing and sharpness under each loss; the gap with and without batch norm."""
    runs.require("F12", NEEDS)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 4.3))
        grid = figure.subplots(2, 3)
        for axes, (role, name) in zip(grid[0], LOSS_ROLES.items(), strict=True):
            run = runs.networks[role][0]
            judged = _judge(run, role)
            middle = (judged.steps.start + judged.steps.stop - ZOOM_STEPS) // 2
            group_losses(axes, run, judged.pair, steps=slice(middle, middle + ZOOM_STEPS), unit=UNITS[role])
            axes.set_title(f"{name}, η = {number(run.attrs['lr'])}")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        _relative_swings(grid[1, 0], runs)
        _sharpness(grid[1, 1], runs)
        grid[1, 1].legend(*grid[1, 0].get_legend_handles_labels(), loc="lower right")
        if _has_norm(runs):
            _imbalances(grid[1, 2], runs)
        else:
            grid[1, 2].set_axis_off()
            grid[1, 2].text(0.5, 0.5, "batch norm:\nno runs given", ha="center", va="center", color="#666666")
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the swing relative to the loss, and the gap's deviation at equal loss."""
    runs.require("F12", NEEDS)
    parts = [
        f"{name} {spread([_judge(run, role).relative_swing for run in runs.networks[role]])}"
        for role, name in LOSS_ROLES.items()
    ]
    base = runs.networks["base"]
    return (
        f"Top: losses of two groups of {GROUP_SIZE} and of all {base[0].sizes['example']:,} examples, "
        f"{ZOOM_STEPS} steps of full-batch gradient descent at the edge; each run's groups are its own, found in the "
        f"third quarter of its {base[0].sizes['step']} steps and shown in the last. Below: the swing of the gap "
        f"between the groups (root mean square over {SWING_STEPS} steps) over the mean loss less the least that the "
        f"rule allows (a ratio, as the units differ; the least is 0, but {significant(_floor('label_smoothing'))} nats "
        f"with label smoothing, the entropy of the smoothed labels), and the sharpness over 2/η (dashed: theory's "
        f"threshold); a line a seed. That ratio in the last quarter: {'; '.join(parts)}. "
        f"{_normalisation_in_words(runs)} {seeds_in_words(base).capitalize()}."
    )


def _normalisation_in_words(runs: Runs) -> str:
    if not _has_norm(runs):
        return "Batch norm: not measured (no runs with and without it)."
    plain = runs.networks["no_batch_norm"]
    found = Evidence(_norm_seeds(runs))
    ratios, random_ratios = IMBALANCE.measure(found), IMBALANCE.measure_control(found)
    compared = (
        f"At equal loss{_losses_in_words(found.networks)} it is {spread(ratios)} times as large with batch norm as "
        f"without (random groups in the place of the opposing ones, whose gap the unit is: {spread(random_ratios)})."
        if np.isfinite(ratios).any()
        else "At equal loss: not measured (the runs share too few epochs)."
    )
    largest = max((point for curve in _norm_curves(runs) for point in zip(*curve, strict=True)), key=itemgetter(1))
    return (
        f"Right: SGD with minibatches, with and without batch norm ({plain[0].sizes['example']:,} images): variance, "
        f"over minibatches, of the gap between the parts of two groups that a minibatch holds, over that of random "
        f"groups (dashed); over {LEAST_EPOCHS} epochs a point, groups ({GROUP_SHARE:.0%} of the examples each) chosen "
        f"on the first half of them, judged on the second. The scale is set by the largest, {significant(largest[1])} "
        f"at a mean loss of {significant(largest[0])}. {compared}"
    )


def _losses_in_words(seeds: Sequence[NetworkEvidence]) -> str:
    """The mean losses of the epochs compared, which are the same at their beginning only."""
    for seed in seeds:
        if (compared := at_equal_loss(seed)) is not None:
            ranges = [f"{significant(table[0].mean())} to {significant(table[-1].mean())}" for table, _ in compared]
            return f" (first seed: {ranges[0]} with it, {ranges[1]} without)"
    return ""


def _norm_seeds(runs: Runs) -> list[NetworkEvidence]:
    return evidence(runs, "F12", crossing=False)[: len(runs.networks["no_batch_norm"])]


def _norm_curves(runs: Runs) -> list[tuple[Array, Array]]:
    """Every line of the panel on batch norm."""
    return [_imbalance_over_training(seed.runs[role], seed.seed) for role in NORM_ROLES for seed in _norm_seeds(runs)]


def _has_norm(runs: Runs) -> bool:
    return all(runs.networks.get(role) for role in NORM_ROLES)


def _judge(run: xr.Dataset, role: str) -> _Judged:
    steps = run.sizes["step"]
    chosen, judged = slice(steps // 2, 3 * steps // 4), slice(3 * steps // 4, steps)
    pair = singular_pairs(run["loss"].values[chosen], count=1)[0]
    # Of the judged steps alone: a swing is that of the steps around it, and those before were chosen on.
    relative = swing_size(group_gap(run["loss"].values[judged], pair), SWING_STEPS) / _excess(run, role)[judged]
    return _Judged(pair, judged, float(np.nanmedian(relative)))


def _excess(run: xr.Dataset, role: str) -> Array:
    """(steps,) mean loss above the least that the role's rule allows: what training can still take away."""
    return mean_losses(run) - _floor(role)


def _floor(role: str) -> float:
    return LOSS_RULES.get(role, LossRule()).floor(len(CLASSES))


def _relative_swings(axes: Axes, runs: Runs) -> None:
    for role, name in LOSS_ROLES.items():
        for i, run in enumerate(runs.networks[role]):
            relative = swing_size(group_gap(run["loss"].values, _judge(run, role).pair), SWING_STEPS) / _excess(
                run, role
            )
            axes.plot(run["step"], relative, color=ROLE_COLOURS[role], linewidth=1.0, label=None if i else name)
    axes.set(xlabel="step", ylabel="swing of gap / excess loss", yscale="log", title="swing of the opposing groups")
    axes.margins(x=0)


def _sharpness(axes: Axes, runs: Runs) -> None:
    for role in LOSS_ROLES:
        for run in runs.networks[role]:
            if "sharpness_iterate" in run:
                over = run["sharpness_iterate"] * run.attrs["lr"] / 2
                axes.plot(run["measured"], over, color=ROLE_COLOURS[role], linewidth=1.0)
    threshold_line(axes, 1.0)
    axes.set(xlabel="step", ylabel="sharpness / (2/η)", title="sharpness")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _imbalances(axes: Axes, runs: Runs) -> None:
    for role, name in NORM_ROLES.items():
        for i, seed in enumerate(_norm_seeds(runs)):
            losses, values = _imbalance_over_training(seed.runs[role], seed.seed)
            axes.plot(losses, values, "o-", color=ROLE_COLOURS[role], markersize=2.5, label=None if i else name)
    threshold_line(axes, 1.0, "random groups")
    axes.set(xlabel="mean loss (nats), falling", ylabel="variance of gap / random", yscale="log")
    axes.set(title="SGD: gap over minibatches")
    axes.set_xlim(2.4, 0)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.5)
    axes.legend(loc="upper left")


def _imbalance_over_training(run: xr.Dataset, seed: int) -> tuple[Array, Array]:
    """Mean loss and imbalance of stretches of epochs; in each, groups are chosen on its first half."""
    table, batch = by_epoch(run)
    stretches = [slice(i, i + LEAST_EPOCHS) for i in range(0, len(table) - LEAST_EPOCHS + 1, LEAST_EPOCHS // 2)]
    found = [(table[epochs].mean(), imbalance(table[epochs], batch[epochs], seed)[0]) for epochs in stretches]
    losses, values = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return losses, values


ENTRY = FigureEntry(
    "F12",
    "batch norm, label smoothing and squared loss against the opposing groups",
    "C13",
    NEEDS,
    draw,
    caption,
    OPTIONAL,
)
