"""F1: total loss with the losses of the paired groups, and their images."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, SINGLE_COLUMN, THRESHOLD, TOTAL, style
from validate.cifar10 import CLASSES, Images
from validate.claims.c04_opposite_phase import phase_correlation
from validate.opposing_groups import OpposingPair, singular_pairs
from validate.windows import Windows, find_windows

NEEDS = ("network", "images")
PAIRS = 2
SHOWN_IMAGES = 12
ZOOM_STEPS = 40
NO_GROUPS = "The run never crosses 2/η with enough steps before and after: there are no groups to show."


def draw(runs: Runs) -> Figure:
    """One row a pair: the groups' losses over training, the same enlarged, and the groups' images."""
    run, images = _require(runs)
    if (windows := find_windows(run)) is None:
        return _without_groups(run)
    pairs = _pairs(run, windows)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.15 * len(pairs)))
        grid = figure.subplots(len(pairs), 3, squeeze=False, width_ratios=(1.2, 1.0, 1.25))
        for row, (pair, (whole, zoom, sheet)) in enumerate(zip(pairs, grid, strict=True)):
            _losses(whole, run, pair, slice(0, run.sizes["step"]))
            _losses(zoom, run, pair, slice(windows.evaluate.start, windows.evaluate.start + ZOOM_STEPS))
            whole.axvline(windows.crossing, **THRESHOLD)
            whole.set_title(f"pair {row + 1}")
            zoom.set_title(f"enlarged, {ZOOM_STEPS} steps")
            _images(sheet, images, pair)
            if row == 0:
                whole.text(
                    windows.crossing - 6,
                    0.97,
                    "λ crosses 2/η",
                    transform=whole.get_xaxis_transform(),
                    ha="right",
                    va="top",
                    fontsize=7,
                    color="#666666",
                )
                figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the measured correlation of the two groups."""
    run, images = _require(runs)
    if (windows := find_windows(run)) is None:
        return f"Loss of all examples. {NO_GROUPS}"
    pairs = _pairs(run, windows)
    held_out = run["loss"].values[windows.evaluate]
    parts = [
        f"pair {i + 1}: {_describe(pair.positive, images)} against {_describe(pair.negative, images)}, "
        f"correlation of the loss changes {phase_correlation(held_out, pair):.2f}"
        for i, pair in enumerate(pairs)
    ]
    return (
        f"Full-batch gradient descent on {run.sizes['example']:,} CIFAR-10 images. Loss of all examples and mean "
        f"losses of two groups of {len(pairs[0].positive)} that share a feature and want opposite use of it, found "
        f"from the loss changes in the 75 steps from the crossing (step {windows.crossing}, dashed). Enlarged and "
        f"measured on the steps after those. {'; '.join(parts)}."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, Images]:
    runs.require("F1", NEEDS)
    assert runs.network is not None
    assert runs.images is not None
    return runs.network, runs.images


def _pairs(run: xr.Dataset, windows: Windows) -> list[OpposingPair]:
    return singular_pairs(run["loss"].values[windows.select], count=PAIRS)


def _without_groups(run: xr.Dataset) -> Figure:
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 2.2))
        axes = figure.subplots()
        axes.plot(run["step"], run["loss"].values.mean(1), color=TOTAL)
        axes.set(xlabel="step", ylabel="cross-entropy (nats)", title="all examples; never crosses 2/η: no groups")
    return figure


def _losses(axes: Axes, run: xr.Dataset, pair: OpposingPair, window: slice) -> None:
    loss, steps = run["loss"].values[window], run["step"].values[window]
    axes.plot(steps, loss[:, pair.positive].mean(1), color=POSITIVE, linewidth=0.8, alpha=0.8, label="one group")
    axes.plot(steps, loss[:, pair.negative].mean(1), color=NEGATIVE, linewidth=0.8, alpha=0.8, label="the other group")
    axes.plot(steps, loss.mean(1), color=TOTAL, linewidth=1.6, label=f"all {run.sizes['example']:,} examples")
    axes.set(xlabel="step", ylabel="cross-entropy (nats)")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


def _images(axes: Axes, images: Images, pair: OpposingPair) -> None:
    """The most extreme examples of each group, on a frame of the group's colour."""
    half, gap, rows = SHOWN_IMAGES // 2, 2, 2
    side = 32 + gap
    bands = []
    for group, colour in ((pair.positive, POSITIVE), (pair.negative, NEGATIVE)):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
        band = np.full((rows * side + gap, half * side + gap, 3), rgb, dtype=np.uint8)
        for i, index in enumerate(group[:SHOWN_IMAGES]):
            top, left = gap + (i // half) * side, gap + (i % half) * side
            band[top : top + 32, left : left + 32] = images.pixels[index].transpose(1, 2, 0)
        bands.append(band)
    spacer = np.full((6, bands[0].shape[1], 3), 255, dtype=np.uint8)
    axes.imshow(np.concatenate([bands[0], spacer, bands[1]]), interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(f"{_describe(pair.positive, images)}\nagainst {_describe(pair.negative, images)}")


def _describe(group: np.ndarray, images: Images) -> str:
    """The group's commonest labels."""
    names, counts = np.unique(images.labels[group], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:2]
    return ", ".join(f"{counts[i]} {CLASSES[names[i]]}" for i in order)


ENTRY = FigureEntry(
    "F1", "total loss with the losses of paired groups, and their images", "C3, C4, C8", NEEDS, draw, caption
)
