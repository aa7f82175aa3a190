"""F16: height of the first spike and amplitude of the settled oscillation, predicted against measured."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from paper_figs.bars import SPAN, bars, quantiles
from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, LAYERS, NEGATIVE, POSITIVE, THEORY, THRESHOLD, style
from theory.spikes import LARGEST_HEIGHT
from validate.claims.bounce import stretches
from validate.windows import find_windows

NEEDS = ("sweeps.amplitude",)
OPTIONAL = ("networks.base", "networks.edge")
NETWORK = LAYERS[0]

Array = npt.NDArray[np.float64]


def draw(runs: Runs) -> Figure:
    """Spike and settled amplitude over the step size, and all of it predicted against measured in one unit."""
    data = _require(runs)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.75))
        spike, settled, both = figure.subplots(1, 3)
        _over_step_size(spike, data, "spike", "spike_lr", POSITIVE)
        spike.set(title="first spike, finite samples", ylabel="largest |s − s*|")
        spike.set_ylim(bottom=0)
        _over_step_size(settled, data, "settled", "edge_lr", NEGATIVE)
        settled.set(title="settled oscillation at the edge", ylabel="mean s²", yscale="log")
        _predicted_against_measured(both, data, _networks(runs))
        lines, words = spike.get_legend_handles_labels()
        figure.legend(lines, words, loc="outside lower left", ncols=2)
        figure.legend(*both.get_legend_handles_labels(), loc="outside lower right", ncols=2)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the relative errors inside and outside the formulas' domains."""
    data = _require(runs)
    height, told = data["spike_height"].values, data["predicted_height"].values
    inside = told <= LARGEST_HEIGHT
    seeds = data.sizes["spike_seed"]
    networks = _networks(runs)
    ratios = ", ".join(f"{measured / predicted:.2f}" for predicted, measured in networks)
    of_networks = (
        f" CIFAR-10 networks: mean w along the bounce, against the reduced map's rest value η²a with a measured; "
        f"measured over predicted {ratios} (a seed each)."
        if networks.size
        else ""
    )
    return (
        f"Two-layer network, {data.sizes['spike_lr']} and {data.sizes['edge_lr']} step sizes, {seeds} seeds each; bars "
        f"span the seeds, dots are their medians. Left: largest departure of s from the valley's floor in the first "
        f"spike of a finite sample, predicted from its second moments and the start alone (T10, T11). "
        f"Heights measured over predicted: {_spread(height / told, inside)} where the predicted w = 4ηα(s − s*)² is at "
        f"most {LARGEST_HEIGHT:g}, the domain of the formula's error bound, {_spread(height / told, ~inside)} "
        f"beyond it. Middle: mean s² once the oscillation has settled at the edge, against D/(αc) "
        f"(T9): {_spread((data['settled'] / data['predicted_settled']).values)}. "
        f"Right: both in the unit w = 4ηαs², whose rest value is the drive g; line: equality, dashed: end of "
        f"the spike formula's domain.{of_networks}"
    )


def _require(runs: Runs) -> xr.Dataset:
    runs.require("F16", NEEDS)
    return runs.sweeps["amplitude"]


def _networks(runs: Runs) -> Array:
    """(seed, 2) predicted and measured w = η²b x²/2 of networks at the edge, b = ‖∇⊥λ‖² along the bounce.

    The rest value of the reduced map is w = η²a, x² = 2a/b. Means over the stretches from the crossing on; seeds whose
    run never crosses, or whose predicted mean is not positive, are left out.
    """
    points = []
    for base, edge in zip(runs.networks.get("base", ()), runs.networks.get("edge", ()), strict=False):
        if (windows := find_windows(base)) is None:
            continue
        found = stretches(edge, windows)
        at = np.isin(edge["edge_measured"].values, edge["edge_step"].values[found.first])
        unit = edge.attrs["lr"] ** 2 * edge["bounce_b"].values[at] / 2
        points.append(((unit * found.rest_square).mean(), (unit * found.square).mean()))
    table = np.array(points, dtype=np.float64).reshape(-1, 2)
    return table[(table > 0).all(1)]


def _over_step_size(axes: Axes, data: xr.Dataset, name: str, lr: str, colour: str) -> None:
    x = data[lr].values
    bars(axes, x, quantiles(data[name].values, SPAN), colour, "measured")
    told = data[f"predicted_{name}"].values
    low, middle, high = quantiles(told, SPAN)
    axes.fill_between(x, low, high, color=THEORY, alpha=0.15, linewidth=0)
    axes.plot(x, middle, color=THEORY, label="predicted, with the seeds' span")
    axes.set_xlabel("step size η")
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _predicted_against_measured(axes: Axes, data: xr.Dataset, networks: Array) -> None:
    ends = []
    for measured, predicted, colour, words in (
        ("spike_height", "predicted_height", POSITIVE, "spikes"),
        ("settled_height", "predicted_settled_height", NEGATIVE, "settled"),
    ):
        x, y = data[predicted].values.ravel(), data[measured].values.ravel()
        axes.plot(x, y, "o", color=colour, markersize=2.5, alpha=0.7, markeredgewidth=0, label=words)
        ends += [*x[np.isfinite(x)], *y[np.isfinite(y)]]
    if networks.size:
        axes.plot(*networks.T, "D", color=NETWORK, markersize=4, label="CIFAR-10 network")
        ends += [*networks.ravel()]
    if ends:
        line = np.array([min(ends), max(ends)])
        axes.plot(line, line, color=THEORY, linewidth=1.0, zorder=0)
    axes.axvline(LARGEST_HEIGHT, **THRESHOLD)  # type: ignore[arg-type]
    axes.set(xscale="log", yscale="log", xlabel="predicted w", ylabel="measured w", title="predicted against measured")


def _spread(ratio: Array, among: npt.NDArray[np.bool_] | None = None) -> str:
    values = ratio if among is None else ratio[among]
    known = values[np.isfinite(values)]
    if not known.size:
        return "none"
    low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
    return f"{middle:.3f} ({low:.3f} to {high:.3f}, nine in ten of {known.size})"


ENTRY = FigureEntry(
    "F16",
    "spike height and oscillation amplitude, predicted against measured",
    "T9, T10, T11, C14",
    NEEDS,
    draw,
    caption,
    OPTIONAL,
)
