"""F9: layerwise sharpness over training in theory, simulation and a real network, one row each."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, LAYERS, THEORY, THRESHOLD, TOTAL, style, threshold_line
from validate.windows import find_windows, measured_in

NEEDS = ("two_layer", "network")
SHOWN_STEPS = 250


def draw(runs: Runs) -> Figure:
    """Left, sharpness of the whole and of each layer's block; right, each layer's share of the top eigenvector."""
    two_layer, lr, network = _require(runs)
    shown = two_layer.isel(step=slice(0, SHOWN_STEPS))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 5.4))
        rows = figure.subplots(3, 3, width_ratios=(1, 1, 0.42))
        _theory_row(rows[0], shown, "flow", "theory: two-layer network, gradient flow", lr)
        _theory_row(rows[1], shown, "descent", "simulation: two-layer network, gradient descent", lr)
        _network_row(rows[2], network)
        for row in rows:
            row[0].set_ylabel("λ")
            row[1].set(ylim=(0, 1), ylabel="share")
            for axes in row[:2]:
                axes.set_xlabel("step")
                axes.margins(x=0)
            row[2].set_axis_off()
            row[2].legend(*row[0].get_legend_handles_labels(), loc="center left", borderaxespad=0)
        rows[0, 1].set_title("layer's share of the top eigenvector")
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the measured shift."""
    _, lr, network = _require(runs)
    windows = find_windows(network)
    text = (
        "Sharpness of the whole network and of each layer's diagonal block (left), share of the top eigenvector's "
        f"squared norm in each layer (right). Theory and simulation: η = {lr:g}. Dashed: 2/η."
    )
    if windows is None:
        return text + " The network's run never crosses 2/η."
    early, late = (
        np.median(measured_in(network, "layer_share_iterate", w), axis=0) for w in (windows.early, windows.evaluate)
    )
    middle, iterate = (
        np.median(measured_in(network, f"sharpness_{place}", windows.evaluate)) * network.attrs["lr"] / 2
        for place in ("midpoint", "iterate")
    )
    return text + (
        f" CIFAR-10 network: first layer's share {early[0]:.2f} in the first {windows.early.stop} steps, "
        f"{late[0]:.2f} once the oscillation stands; "
        f"last layer's {early[-1]:.2f} and {late[-1]:.2f}. Sharpness there, of 2/η, median: {middle:.2f} at the "
        f"midpoints of steps, {iterate:.2f} at the iterates."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, float, xr.Dataset]:
    runs.require("F9", NEEDS)
    assert runs.two_layer is not None
    assert runs.two_layer_config is not None
    assert runs.network is not None
    if any(name not in runs.network for name in ("block_sharpness", "sharpness_midpoint", "layer_share_iterate")):
        raise ValueError("F9 draws from layers' blocks and midpoints of steps: give a run that measured both")
    return runs.two_layer, float(runs.two_layer_config["lr"]), runs.network


def _theory_row(row: np.ndarray, data: xr.Dataset, dynamics: str, title: str, lr: float) -> None:
    steps = data["step"]
    row[0].plot(steps, data[f"{dynamics}_sharpness"], color=THEORY, label="whole")
    row[0].plot(steps, data[f"{dynamics}_first_layer"], color=LAYERS[0], label="first layer")
    row[0].plot(steps, data[f"{dynamics}_last_layer"], color=LAYERS[2], label="last layer")
    threshold_line(row[0], 2 / lr, "2/η")
    row[0].set_title(title)
    share = data[f"{dynamics}_first_share"]
    row[1].plot(steps, share, color=LAYERS[0])
    row[1].plot(steps, 1 - share, color=LAYERS[2])


def _network_row(row: np.ndarray, network: xr.Dataset) -> None:
    measured, blocks = network["measured"], network["block_measured"]
    row[0].plot(measured, network["sharpness_iterate"], color=TOTAL, linewidth=0.9, label="whole, iterates")
    row[0].plot(measured, network["sharpness_midpoint"], color=THEORY, label="whole, midpoints")
    names = _layer_names(network)
    for i, name in enumerate(names):
        # The last layer has the last colour, as in theory's row; more layers in between take colours again.
        colour = LAYERS[-1] if i == len(names) - 1 else LAYERS[i % (len(LAYERS) - 1)]
        row[0].plot(blocks, network["block_sharpness"][:, i], color=colour, marker="o", markersize=2.5, label=name)
        row[1].plot(measured, network["layer_share_iterate"][:, i], color=colour)
    threshold_line(row[0], 2 / network.attrs["lr"], "2/η")
    row[0].set_title("CIFAR-10 network")
    _mark_crossing(row, network)


def _layer_names(network: xr.Dataset) -> list[str]:
    count = network.sizes["layer"]
    return [f"layer {i + 1}" + (" (first)" if i == 0 else " (last)" if i == count - 1 else "") for i in range(count)]


def _mark_crossing(row: np.ndarray, network: xr.Dataset) -> None:
    windows = find_windows(network)
    axes: Axes
    for axes in row[:2] if windows is not None else ():
        axes.axvline(windows.crossing, **THRESHOLD)  # type: ignore[union-attr, arg-type]


ENTRY = FigureEntry(
    "F9",
    "layerwise sharpness over training in theory, simulation and a real network",
    "C1, C9, T3",
    NEEDS,
    draw,
    caption,
)
