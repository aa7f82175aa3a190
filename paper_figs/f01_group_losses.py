"""F1: total loss with the losses of the paired groups, and their images."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.group_panels import group_losses
from paper_figs.image_sheets import image_sheet
from paper_figs.network_roles import describe, images_of, number, significant
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, SINGLE_COLUMN, THRESHOLD, TOTAL, style
from validate.cifar10 import Images
from validate.claims.c04_opposite_phase import phase_correlation
from validate.opposing_groups import OpposingPair, singular_pairs
from validate.windows import SELECT_STEPS, Windows, find_windows

NEEDS = ("network", "images")
PAIRS = 2
SHOWN_IMAGES, COLUMNS = 12, 6
"""Images of each group, and of them in a row."""
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
            group_losses(whole, run, pair)
            begin = windows.evaluate.start
            group_losses(zoom, run, pair, steps=slice(begin, begin + ZOOM_STEPS))
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
        f"pair {i + 1}: {describe(pair.positive, images.labels)} against {describe(pair.negative, images.labels)}, "
        f"correlation of the loss changes {significant(phase_correlation(held_out, pair))}"
        for i, pair in enumerate(pairs)
    ]
    return (
        f"Full-batch gradient descent, η = {number(run.attrs['lr'])}, on {run.sizes['example']:,} CIFAR-10 images, one "
        f"seed. Loss of all examples and mean "
        f"losses of two groups of {len(pairs[0].positive)} that share a feature and want opposite use of it, found "
        f"from the loss changes in the {SELECT_STEPS} steps from the crossing (step {windows.crossing}, dashed). "
        f"Enlarged and measured on the steps after those; {SHOWN_IMAGES} images of each group are shown. "
        f"{'; '.join(parts)}."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, Images]:
    runs.require("F1", NEEDS)
    assert runs.network is not None
    assert runs.images is not None
    if np.isnan(runs.network["loss"].values[0]).any():
        raise ValueError("F1 draws from every example's loss at every step: give a run without minibatches")
    return runs.network, images_of(runs.network, runs.images)


def _pairs(run: xr.Dataset, windows: Windows) -> list[OpposingPair]:
    return singular_pairs(run["loss"].values[windows.select], count=PAIRS)


def _without_groups(run: xr.Dataset) -> Figure:
    with style():
        figure = Figure(figsize=(SINGLE_COLUMN, 2.2))
        axes = figure.subplots()
        axes.plot(run["step"], run["loss"].values.mean(1), color=TOTAL)
        axes.set(xlabel="step", ylabel="cross-entropy (nats)", title="all examples; never crosses 2/η: no groups")
    return figure


def _images(axes: Axes, images: Images, pair: OpposingPair) -> None:
    """The most extreme examples of each group, on frames of the group's colour."""
    shown = [group[:SHOWN_IMAGES] for group in (pair.positive, pair.negative)]
    colours = [colour for group, colour in zip(shown, (POSITIVE, NEGATIVE), strict=True) for _ in group]
    title = f"{describe(pair.positive, images.labels)}\nagainst {describe(pair.negative, images.labels)}"
    image_sheet(axes, images.pixels[np.concatenate(shown)], colours, columns=COLUMNS, title=title)


ENTRY = FigureEntry(
    "F1", "total loss with the losses of paired groups, and their images", "C3, C4, C8", NEEDS, draw, caption
)
