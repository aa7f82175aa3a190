"""F14: how heavy the tail of the opposing feature's size is, against how large the oscillation gets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from paper_figs.bars import QUARTILES, bars, quantiles
from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, POSITIVE, SAMPLES, THEORY, THRESHOLD, style
from validate.claims.base import CONFIDENCE, mean_interval

NEEDS = ("sweeps.tail",)
LEAST_SAMPLES = 3
"""Fewer have no quartiles: where no more oscillate, the tail index of their losses is not drawn."""

Array = npt.NDArray[np.float64]


def draw(runs: Runs) -> Figure:
    """Amplitude, share of samples that oscillate, and tail index of single losses' changes, over the tail index."""
    data = _require(runs)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.9))
        amplitude, share, losses = figure.subplots(1, 3)
        _amplitude(amplitude, data)
        _share(share, data)
        _losses(losses, data)
        for axes in (amplitude, share, losses):
            _tail_axis(axes, data)
        # A legend a panel, under it.
        figure.legend(*amplitude.get_legend_handles_labels(), loc="outside lower left")
        figure.legend(*share.get_legend_handles_labels(), loc="outside lower center")
        figure.legend(*losses.get_legend_handles_labels(), loc="outside lower right")
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the agreement of theory and simulation."""
    data = _require(runs)
    seen, told = data["onset"].notnull().values, data["predicted_onset"].notnull().values
    both = seen & told
    ratio = (data["amplitude"] / data["predicted_amplitude"]).values[both]
    low, middle, high = np.quantile(ratio, (0.05, 0.5, 0.95)) if both.any() else (np.nan, np.nan, np.nan)
    agreed = (
        f"amplitude over the predicted one {middle:.2f} ({low:.2f} to {high:.2f}, nine in ten)" if both.any() else ""
    )
    oscillate = data["hill_changes"].notnull().sum("seed").values
    return (
        f"Two-layer network on finite samples whose opposing feature has sizes of tail index a and, in the population, "
        f"the same second moment; {data.sizes['seed']} samples at each of {data.sizes['tail_index']} tail indices and "
        f"{data.sizes['fraction']} fractions of outliers ({_fractions(data)}). Left: median over the samples, with "
        f"quartiles. Middle: mean over the samples, with its {CONFIDENCE:.0%} interval over seeds. A sample with a "
        f"heavier tail mostly has a smaller second moment of its own, so that its oscillation comes later, smaller or "
        f"not at all; rescaled to the population's, the influence on the amplitude all but vanishes. From each "
        f"sample's second moments theory says rightly of {int((seen == told).sum())} of {seen.size} samples whether "
        f"they oscillate; {agreed}. Right: the changes of single outliers' losses go with the square of the size and "
        f"so have half its tail index (Hill's estimate; median with quartiles over the samples that oscillate; "
        f"{int((oscillate < LEAST_SAMPLES).sum())} of {oscillate.size} dots, of fewer than {LEAST_SAMPLES} samples, "
        f"are left out)."
    )


def _require(runs: Runs) -> xr.Dataset:
    runs.require("F14", NEEDS)
    return runs.sweeps["tail"]


def _amplitude(axes: Axes, data: xr.Dataset) -> None:
    """Every sample of every fraction counts the same."""
    x = data["tail_index"].values
    told = _pooled(data, "predicted_amplitude")
    axes.fill_between(x, told[0], told[2], color=THEORY, alpha=0.15, linewidth=0)
    axes.plot(x, told[1], color=THEORY, label="predicted, quartiles shaded")
    bars(axes, x, _pooled(data, "amplitude"), POSITIVE, "measured")
    bars(axes, x * 1.03, _pooled(data, "rescaled_amplitude"), "#999999", "second moment set to α")
    axes.axhline(float(data["population_amplitude"].values.ravel()[0]), label="population", **THRESHOLD)  # type: ignore[arg-type]
    axes.set(title="size of the oscillation", ylabel="largest |s − s*| of the first spike")
    axes.set_ylim(bottom=-0.01)


def _share(axes: Axes, data: xr.Dataset) -> None:
    x = data["tail_index"].values
    axes.plot(x, data["predicted_onset"].notnull().mean(("fraction", "seed")), color=THEORY, label="predicted")
    # Of each seed, the share of its fractions: they share their random numbers, so that the seeds are the sample.
    shares = data["onset"].notnull().mean("fraction").transpose("tail_index", "seed").values
    low, high = np.array([mean_interval(list(row)) for row in shares]).T
    found = np.array([np.maximum(low, 0), shares.mean(1), np.minimum(high, 1)])
    bars(axes, x, found, POSITIVE, f"measured, {CONFIDENCE:.0%} over seeds")
    axes.set(title="samples that oscillate", ylabel="share", ylim=(-0.03, 1.05))


def _losses(axes: Axes, data: xr.Dataset) -> None:
    x = data["tail_index"].values
    axes.plot(x, x / 2, color=THEORY, label="a/2")
    for i, fraction in enumerate(data["fraction"].values):
        found = quantiles(data["hill_changes"].sel(fraction=fraction).values, QUARTILES, LEAST_SAMPLES)
        bars(axes, x * 1.02 ** (i - 1), found, SAMPLES[i % len(SAMPLES)], f"{fraction:.0%} outliers")
    axes.set(title="losses of single outliers", ylabel="tail index of their changes", yscale="log")
    axes.yaxis.set_major_locator(FixedLocator([1, 2, 3, 4, 6]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _tail_axis(axes: Axes, data: xr.Dataset) -> None:
    """Few ticks, written out."""
    axes.set(xscale="log", xlabel="tail index a (← heavier)")
    low, high = data["tail_index"].values.min(), data["tail_index"].values.max()
    axes.xaxis.set_major_locator(FixedLocator([t for t in (2, 2.5, 3, 4, 6, 8, 12) if 0.9 * low <= t <= high]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _pooled(data: xr.Dataset, name: str) -> Array:
    return quantiles(data[name].stack(sample=("fraction", "seed")).transpose("tail_index", "sample").values, QUARTILES)


def _fractions(data: xr.Dataset) -> str:
    return ", ".join(f"{p:.0%}" for p in data["fraction"].values)


ENTRY = FigureEntry(
    "F14", "tail index of the feature's size against the size of the oscillation", "T11, C7", NEEDS, draw, caption
)
