"""F3: the distribution of the examples' changes of loss in a step, its power-law tail, and a Gaussian beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import crossing_windows, number, seeds_in_words, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, POSITIVE, SAMPLES, THEORY, style
from sim.heavy_tails import hill_estimator
from validate.claims.c07_heavy_tail import TOP, gaussian_like, median_hill_index, median_kurtosis, top_energy
from validate.opposing_groups import loss_changes
from validate.windows import Windows

Array = npt.NDArray[np.float64]

NEEDS = ("networks.base",)
WIDEST = 12.0
"""Standard deviations that the histogram reaches to."""
MEASURES = (
    ("kurtosis (median over steps)", median_kurtosis, 1),
    ("tail index (likewise)", median_hill_index, -1),
    (f"share of the squared changes that the {TOP:.0%} of examples that change most carry", top_energy, 1),
)
"""Words, measure, and the sign of a heavier tail."""
EDGE, BEFORE = POSITIVE, SAMPLES[0]


def draw(runs: Runs) -> Figure:
    """Density of the changes, their tail on logarithmic axes with Hill's fit, and how few examples carry them."""
    run, windows = _require(runs)
    edge, before = (loss_changes(run["loss"].values[window]) for window in (windows.edge, windows.before))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.45))
        density, tail, carried = figure.subplots(1, 3)
        _density(density, _standardised(edge), _standardised(before))
        _tail(tail, _standardised(edge), _standardised(before))
        _carried(carried, edge, before)
        figure.legend(*_handles(density, tail), loc="outside lower center", ncols=4)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the tail's measures at the edge, before it, and of a Gaussian surrogate."""
    run, windows = _require(runs)
    seeds = runs.networks["base"]
    every = [crossing_windows(seed, "F3") for seed in seeds]
    edges = [loss_changes(seed["loss"].values[w.edge]) for seed, w in zip(seeds, every, strict=True)]
    befores = [loss_changes(seed["loss"].values[w.before]) for seed, w in zip(seeds, every, strict=True)]
    surrogates = [_surrogate(changes) for changes in edges]

    def of(measure: Callable[[Array], float], tables: list[Array]) -> list[float]:
        return [measure(table) for table in tables]

    parts, heavier, already = [], 0, 0
    for words, measure, sign in MEASURES:
        at_edge, before, gaussian = (of(measure, tables) for tables in (edges, befores, surrogates))
        parts.append(f"{words} {spread(at_edge)}, {spread(before)}, {spread(gaussian)}")
        heavier += bool(sign * np.median(at_edge) > sign * np.median(before))
        already += bool(sign * np.median(before) > sign * np.median(gaussian))
    largest = spread([float(np.median(np.abs(_standardised(table)).max(1))) for table in edges])
    wider, narrower = (spread(of(functools.partial(_hill, share=share), edges)) for share in (2 * TOP, TOP / 2))
    drawn = " of the first seed, which is drawn" if len(seeds) > 1 else ""
    return (
        f"Changes of the loss of each of {run.sizes['example']:,} examples in a step of gradient descent, η = "
        f"{number(run.attrs['lr'])}: at the edge of stability (steps {windows.edge.start} to {windows.edge.stop - 1}) "
        f"and before it (steps {windows.before.start} to {windows.before.stop - 1}{drawn}), in units of each step's "
        f"standard deviation. Dark: a Gaussian of the same variance, the power law of Hill's estimate from the "
        f"{TOP:.0%} of largest size about the step's median, and, right, Gaussian changes of the same mean and "
        f"covariance over steps. At the edge, before it, and of those Gaussian changes ({seeds_in_words(seeds)}): "
        f"{'; '.join(parts)}. Of these {len(MEASURES)} measures, {heavier} tell a heavier tail at the edge than before "
        f"it, and {already} a heavier one before it "
        f"than of the Gaussian changes. It is no pure power law: at the edge the index is {wider} from the "
        f"{2 * TOP:.0%} largest, {narrower} from the {TOP / 2:.1%} largest, and the largest change of a step is "
        f"{largest} standard deviations."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, Windows]:
    runs.require("F3", NEEDS)
    run = runs.networks["base"][0]
    return run, crossing_windows(run, "F3")


def _standardised(changes: Array) -> Array:
    """(steps, n) changes of loss less each step's mean, over each step's standard deviation."""
    return np.asarray((changes - changes.mean(1, keepdims=True)) / changes.std(1, keepdims=True))


def _surrogate(changes: Array) -> Array:
    return gaussian_like(changes, np.random.default_rng(0))


def _hill(changes: Array, share: float) -> float:
    """`median_hill_index` from another share of the examples than the claim's."""
    top = max(2, round(share * changes.shape[1]))
    return float(np.median([hill_estimator(row - np.median(row), top).index for row in changes]))


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
    index, start = median_hill_index(edge), float(np.quantile(np.abs(edge), 1 - TOP))
    beyond = np.geomspace(start, 15, 50)
    # P(|Δ| > x) = p (x/x_p)^(−a) beyond the quantile x_p
    axes.plot(
        beyond,
        TOP * (beyond / start) ** -index,
        color=THEORY,
        linestyle=(0, (1, 1.2)),
        linewidth=1.8,
        label="power law, Hill's index",
    )
    axes.text(beyond[25] * 1.2, TOP * (beyond[25] / start) ** -index, f"$x^{{-{index:.1f}}}$", va="bottom")
    axes.set(xscale="log", yscale="log", xlim=(0.3, 20), ylim=(3e-6, 1.5))
    axes.set_xticks([1, 10], ["1", "10"])
    axes.set(xlabel="size of change (std. deviations)", ylabel="share of larger changes")
    axes.set_title("heavy tail, in the end cut off")


def _carried(axes: Axes, edge: Array, before: Array) -> None:
    n = edge.shape[1]
    share = np.arange(1, n + 1) / n
    surrogate = _surrogate(edge)
    for changes, colour in ((surrogate, THEORY), (before, BEFORE), (edge, EDGE)):
        energy = np.sort((changes**2).sum(0))[::-1]
        axes.plot(share, np.cumsum(energy) / energy.sum(), color=colour)
    carried, gaussian = top_energy(edge), top_energy(surrogate)
    axes.vlines(TOP, 0, carried, color="#999999", linewidth=0.8, linestyle=(0, (4, 2)))
    axes.text(TOP * 1.15, gaussian - 0.04, f"Gaussian:\n{gaussian:.0%}", va="top", fontsize=7)
    axes.set(xscale="log", xlim=(1 / n, 1), ylim=(0, 1))
    axes.set(xlabel="share of examples, largest first", ylabel="share of squared changes")
    axes.set_title(f"{TOP:.0%} of examples carry {carried:.0%}")


def _handles(*panels: Axes) -> tuple[list[Artist], list[str]]:
    """Every labelled line of the panels, once."""
    found: dict[str, Artist] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


ENTRY = FigureEntry(
    "F3", "distribution of the changes of loss, with the fit of its tail and a Gaussian", "C7", NEEDS, draw, caption
)
