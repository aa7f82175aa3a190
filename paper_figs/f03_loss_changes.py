"""F3: the distribution of the examples' changes of loss in a step, its power-law tail, and a Gaussian beside it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import crossing_windows, seeds_in_words, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, POSITIVE, SAMPLES, THEORY, style
from sim.heavy_tails import hill_estimator, kurtosis
from validate.opposing_groups import loss_changes
from validate.windows import Windows

Array = npt.NDArray[np.float64]

NEEDS = ("networks.base",)
TOP_SHARE = 0.05
"""Share of the examples that counts as the tail."""
WIDEST = 12.0
"""Standard deviations that the histogram reaches to."""
EDGE, BEFORE = POSITIVE, SAMPLES[0]


def draw(runs: Runs) -> Figure:
    """Density of the changes, their tail on logarithmic axes with Hill's fit, and how few examples carry them."""
    run, windows = _require(runs)
    edge, before = _standardised(run, windows.edge), _standardised(run, windows.before)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.45))
        density, tail, carried = figure.subplots(1, 3)
        _density(density, edge, before)
        _tail(tail, edge, before)
        _carried(carried, edge, before)
        figure.legend(*_handles(density, tail), loc="outside lower center", ncols=4)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the tail's measures at the edge, before it, and of a Gaussian."""
    run, windows = _require(runs)
    seeds = runs.networks["base"]
    every = [crossing_windows(seed, "F3") for seed in seeds]

    def over_seeds(measure: Callable[[Array], float], window: str) -> list[float]:
        return [
            float(np.median([measure(row) for row in _standardised(seed, getattr(w, window))]))
            for seed, w in zip(seeds, every, strict=True)
        ]

    n = run.sizes["example"]
    gaussian = np.random.default_rng(0).normal(size=(50, n))
    surrogate = float(np.median([_hill(row) for row in gaussian]))
    wider, narrower = (
        spread(over_seeds(functools.partial(_hill, share=share), "edge")) for share in (2 * TOP_SHARE, TOP_SHARE / 2)
    )
    largest = spread(over_seeds(lambda row: float(np.abs(row).max()), "edge"), 1)
    tail = spread(over_seeds(_hill, "edge"))
    return (
        f"Changes of the loss of each of {n:,} examples in a step of gradient descent, η = {run.attrs['lr']:g}: at the "
        f"edge of stability (steps {windows.edge.start} to {windows.edge.stop - 1}) and before it (steps "
        f"{windows.before.start} to {windows.before.stop - 1}), in units of each step's standard deviation. Dark: a "
        f"Gaussian of the same variance, and the power law of Hill's estimate from the {TOP_SHARE:.0%} of largest "
        f"size. At the edge, median over steps, {seeds_in_words(seeds)}: kurtosis "
        f"{spread(over_seeds(kurtosis, 'edge'), 1)} (Gaussian: 3), tail index {tail} (Gaussian surrogate: "
        f"{surrogate:.2f}; before the edge: {spread(over_seeds(_hill, 'before'))}). It is no pure power law: from the "
        f"{2 * TOP_SHARE:.0%} largest the index is {wider}, from the {TOP_SHARE / 2:.1%} largest {narrower}, and the "
        f"largest change of a step is {largest} standard deviations. The {TOP_SHARE:.0%} of examples that change most "
        f"carry {spread(over_seeds(_carried_by_top, 'edge'))} of the squared change (Gaussian: {_gaussian_top():.2f})."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, Windows]:
    runs.require("F3", NEEDS)
    run = runs.networks["base"][0]
    return run, crossing_windows(run, "F3")


def _standardised(run: xr.Dataset, window: slice) -> Array:
    """(steps, n) changes of loss less each step's mean, over each step's standard deviation."""
    changes = loss_changes(run["loss"].values[window])
    return np.asarray((changes - changes.mean(1, keepdims=True)) / changes.std(1, keepdims=True))


def _hill(changes: Array, share: float = TOP_SHARE) -> float:
    return hill_estimator(changes, max(2, round(share * len(changes)))).index


def _carried_by_top(changes: Array) -> float:
    squares = np.sort(changes**2)[::-1]
    return float(squares[: round(TOP_SHARE * len(squares))].sum() / squares.sum())


def _gaussian_carried(share: Array) -> Array:
    """Share of E Z² that lies beyond the z with P(|Z| > z) = share: 2zφ(z) + share, by parts."""
    z = stats.norm.isf(share / 2)
    return np.asarray(2 * z * stats.norm.pdf(z) + share)


def _density(axes: Axes, edge: Array, before: Array) -> None:
    bins = np.linspace(-WIDEST, WIDEST, 81)
    for changes, colour, label in ((before, BEFORE, "before the edge"), (edge, EDGE, "at the edge")):
        counts = np.histogram(changes, bins)[0]
        axes.stairs(counts / (changes.size * np.diff(bins)), bins, color=colour, linewidth=1.2, label=label)
    x = np.linspace(-WIDEST, WIDEST, 400)
    axes.plot(x, stats.norm.pdf(x), color=THEORY, label="Gaussian", zorder=0)
    axes.set_yscale("log")
    axes.set(xlim=(-WIDEST, WIDEST), ylim=(1e-5, 3), xlabel="change of loss (std. deviations)", ylabel="density")
    axes.set_title("most change little, a few hugely")


def _tail(axes: Axes, edge: Array, before: Array) -> None:
    for changes, colour in ((before, BEFORE), (edge, EDGE)):
        sizes = np.sort(np.abs(changes).ravel())[::-1]
        # A thousand points, evenly spaced in ln P, draw the same line as all of them.
        ranks = np.unique(np.geomspace(1, sizes.size, 1000).astype(int)) - 1
        axes.plot(sizes[ranks], (ranks + 1) / sizes.size, color=colour)
    x = np.geomspace(0.1, 40, 300)
    axes.plot(x, 2 * stats.norm.sf(x), color=THEORY, zorder=0)
    indices = [_hill(row) for row in edge]
    index, start = float(np.median(indices)), float(np.quantile(np.abs(edge), 1 - TOP_SHARE))
    beyond = np.geomspace(start, 15, 50)
    # P(|Δ| > x) = p (x/x_p)^(−a) beyond the quantile x_p
    axes.plot(
        beyond,
        TOP_SHARE * (beyond / start) ** -index,
        color=THEORY,
        linestyle=(0, (1, 1.2)),
        linewidth=1.8,
        label="power law, Hill's index",
    )
    axes.text(beyond[25] * 1.2, TOP_SHARE * (beyond[25] / start) ** -index, f"$x^{{-{index:.1f}}}$", va="bottom")
    axes.set(xscale="log", yscale="log", xlim=(0.3, 20), ylim=(3e-6, 1.5))
    axes.set_xticks([1, 10], ["1", "10"])
    axes.set(xlabel="size of change (std. deviations)", ylabel="share of larger changes")
    axes.set_title("heavy tail, in the end cut off")


def _carried(axes: Axes, edge: Array, before: Array) -> None:
    n = edge.shape[1]
    share = np.arange(1, n + 1) / n
    for changes, colour in ((before, BEFORE), (edge, EDGE)):
        squares = np.sort(changes**2, axis=1)[:, ::-1]
        axes.plot(share, (np.cumsum(squares, axis=1) / squares.sum(1, keepdims=True)).mean(0), color=colour)
    x = np.geomspace(1 / n, 1, 200)
    axes.plot(x, _gaussian_carried(x), color=THEORY, zorder=0)
    axes.set(xscale="log", xlim=(1 / n, 1), ylim=(0, 1))
    axes.set(xlabel="share of examples, largest first", ylabel="share of squared change")
    axes.set_title(f"{TOP_SHARE:.0%} of examples carry {_mean_carried(edge):.0%}")
    axes.vlines(TOP_SHARE, 0, _mean_carried(edge), color="#999999", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.text(
        TOP_SHARE * 1.15,
        _gaussian_top() - 0.06,
        f"Gaussian:\n{_gaussian_top():.0%}",
        ha="left",
        va="top",
        fontsize=7,
    )


def _mean_carried(changes: Array) -> float:
    return math.fsum(_carried_by_top(row) for row in changes) / len(changes)


def _gaussian_top() -> float:
    return float(_gaussian_carried(np.array([TOP_SHARE]))[0])


def _handles(*panels: Axes) -> tuple[list[object], list[str]]:
    """Every labelled line of the panels, once."""
    found: dict[str, object] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


ENTRY = FigureEntry(
    "F3", "distribution of the changes of loss, with the fit of its tail and a Gaussian", "C7", NEEDS, draw, caption
)
