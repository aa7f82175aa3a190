"""F12: what batch norm, label smoothing and squared loss do to the opposing groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.group_panels import group_losses
from paper_figs.network_roles import (
    ROLE_COLOURS,
    gap_of,
    groups_of_seeds,
    mean_loss,
    number,
    seeds_in_words,
    spread,
    swing_size,
)
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, style, threshold_line
from validate.opposing_groups import OpposingPair, random_pair_like, singular_pairs

Array = npt.NDArray[np.float64]

LOSS_ROLES = {"base": "cross-entropy", "label_smoothing": "label smoothing", "squared": "squared loss"}
NORM_ROLES = {"no_batch_norm": "no batch norm", "batch_norm": "batch norm"}
NEEDS = tuple(f"networks.{role}" for role in (*LOSS_ROLES, *NORM_ROLES))
UNITS = {"base": "loss (nats)", "label_smoothing": "loss (nats)", "squared": "squared loss"}
COLOURS = {"base": "#555555", "label_smoothing": "#CC79A7", "squared": "#009E73"}
ZOOM_STEPS = 16
RUNNING = 50
"""Minibatches over which the group gap's deviation is taken."""


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
            judged = _judge(run)
            middle = (judged.steps.start + judged.steps.stop - ZOOM_STEPS) // 2
            group_losses(axes, run, judged.pair, steps=slice(middle, middle + ZOOM_STEPS), unit=UNITS[role])
            axes.set_title(f"{name}, η = {number(run.attrs['lr'])}")
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
        _relative_swings(grid[1, 0], runs)
        _sharpness(grid[1, 1], runs)
        grid[1, 1].legend(*grid[1, 0].get_legend_handles_labels(), loc="lower right")
        _gaps(grid[1, 2], runs)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the swing relative to the loss, and the gap's deviation at equal loss."""
    runs.require("F12", NEEDS)
    parts = [
        f"{name} {spread([_judge(run).relative_swing for run in runs.networks[role]])}"
        for role, name in LOSS_ROLES.items()
    ]
    base, plain, normed = (runs.networks[role] for role in ("base", "no_batch_norm", "batch_norm"))
    seeds = groups_of_seeds(base, "F12")
    ratios, random_ratios = [], []
    for i, (first, second, seed) in enumerate(zip(normed, plain, seeds, strict=True)):
        other = random_pair_like(seed.pair, first.sizes["example"], np.random.default_rng(i))
        ratios.append(_ratio_at_equal_loss(first, second, seed.pair, seed.levels))
        random_ratios.append(_ratio_at_equal_loss(first, second, other, seed.levels))
    low, high = seeds[0].levels
    return (
        f"Top: losses of two groups of {len(seeds[0].pair.positive)} and of all {base[0].sizes['example']:,} examples, "
        f"{ZOOM_STEPS} steps of full-batch gradient descent at the edge; each run's groups are its own, found in the "
        f"third quarter of its {base[0].sizes['step']} steps and shown in the last. Below: the swing of the gap "
        f"between the groups over the mean loss (a ratio, as the units differ), and the sharpness over 2/η "
        f"(dashed: theory's threshold); a line a seed. Swing over mean loss in the last quarter: "
        f"{'; '.join(parts)}. Right: SGD with minibatches, standard deviation of the gap between the base run's groups "
        f"over {RUNNING} minibatches, with and without batch norm. With batch norm it is, at equal loss (first seed: "
        f"{low:.2f} to {high:.2f}, as far as both get there), {_in_words(ratios)} of that without; for random groups "
        f"(thin) {_in_words(random_ratios)}. {seeds_in_words(base).capitalize()}."
    )


def _judge(run: xr.Dataset) -> _Judged:
    steps = run.sizes["step"]
    chosen, judged = slice(steps // 2, 3 * steps // 4), slice(3 * steps // 4, steps)
    pair = singular_pairs(run["loss"].values[chosen], count=1)[0]
    relative = swing_size(gap_of(run, pair))[judged] / mean_loss(run)[judged]
    return _Judged(pair, judged, float(np.nanmedian(relative)))


def _relative_swings(axes: Axes, runs: Runs) -> None:
    for role, name in LOSS_ROLES.items():
        for i, run in enumerate(runs.networks[role]):
            relative = swing_size(gap_of(run, _judge(run).pair)) / mean_loss(run)
            axes.plot(run["step"], relative, color=COLOURS[role], linewidth=1.0, label=None if i else name)
    axes.set(xlabel="step", ylabel="swing of gap / mean loss", yscale="log", title="swing of the opposing groups")
    axes.margins(x=0)


def _sharpness(axes: Axes, runs: Runs) -> None:
    for role in LOSS_ROLES:
        for run in runs.networks[role]:
            if "sharpness_iterate" in run:
                over = run["sharpness_iterate"] * run.attrs["lr"] / 2
                axes.plot(run["measured"], over, color=COLOURS[role], linewidth=1.0)
    threshold_line(axes, 1.0)
    axes.set(xlabel="step", ylabel="sharpness / (2/η)", title="sharpness")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _gaps(axes: Axes, runs: Runs) -> None:
    pairs = [seed.pair for seed in groups_of_seeds(runs.networks["base"], "F12")]
    for role, name in NORM_ROLES.items():
        for i, (run, pair) in enumerate(zip(runs.networks[role], pairs, strict=True)):
            other = random_pair_like(pair, run.sizes["example"], np.random.default_rng(i))
            colour = ROLE_COLOURS[role]
            axes.plot(*_deviation(run, other), color=colour, linewidth=0.6, alpha=0.7)
            axes.plot(*_deviation(run, pair), color=colour, linewidth=1.2, label=None if i else name)
    axes.set(xlabel="mean loss (nats), falling", ylabel="std. deviation of gap (nats)")
    axes.set(title="SGD: gap over minibatches")
    axes.set_xlim(2.4, 0)
    axes.set_ylim(0, 1.3 * axes.get_ylim()[1])
    axes.legend(loc="upper left")


def _deviation(run: xr.Dataset, pair: OpposingPair) -> tuple[Array, Array]:
    """Running mean loss, and running standard deviation of the gap over minibatches that hold some of both groups."""
    losses = run["loss"].values.astype(np.float64)
    means = [np.ma.masked_invalid(losses[:, group]).mean(1).filled(np.nan) for group in (pair.positive, pair.negative)]
    gap = np.lib.stride_tricks.sliding_window_view(means[0] - means[1], RUNNING)
    loss = np.lib.stride_tricks.sliding_window_view(mean_loss(run), RUNNING)
    return loss.mean(1), np.asarray(np.nanstd(gap, axis=1))


def _ratio_at_equal_loss(
    first: xr.Dataset, second: xr.Dataset, pair: OpposingPair, levels: tuple[float, float]
) -> float:
    """Median ratio of the two runs' deviations at losses between two levels that both reach; NaN without any."""
    curves = [_deviation(run, pair) for run in (first, second)]
    low = max(levels[0], *(float(loss.min()) for loss, _ in curves))
    high = min(levels[1], *(float(loss.max()) for loss, _ in curves))
    if low > high:
        return float("nan")
    at = np.linspace(low, high, 50)
    a, b = (np.interp(at, np.sort(loss), sizes[np.argsort(loss)]) for loss, sizes in curves)
    return float(np.median(a / b))


def _in_words(ratios: list[float]) -> str:
    finite = [ratio for ratio in ratios if np.isfinite(ratio)]
    return spread(finite) if finite else "not measured (those losses are not reached)"


ENTRY = FigureEntry(
    "F12", "batch norm, label smoothing and squared loss against the opposing groups", "C13", NEEDS, draw, caption
)
