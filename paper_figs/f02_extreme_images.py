"""F2: the images whose losses rise and fall most at chosen steps; at the edge the two sets trade places."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.image_sheets import image_sheet
from paper_figs.network_roles import crossing_windows, describe, images_of, seeds_in_words, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THRESHOLD, TOTAL, style
from validate.cifar10 import Images
from validate.opposing_groups import GROUP_SIZE, OpposingPair, loss_changes, top_change_pair
from validate.windows import Windows, measured_in

NEEDS = ("networks.base", "images")
COLUMNS = 10
NEW = "#C8C8C8"
"""Frame of an image that was in neither set the step before."""
EARLY_STEP = 10


@dataclass(frozen=True)
class _Chosen:
    """A step that is shown: its mark, where in training it lies, and the examples of most extreme change."""

    step: int
    where: str
    pair: OpposingPair


def draw(runs: Runs) -> Figure:
    """The changes of loss over training with the chosen steps marked, and one row of images for each."""
    run, images = _require(runs)
    windows = crossing_windows(run, "F2")
    chosen = _choose(run, windows)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 1.45 + 0.96 * len(chosen)))
        grid = figure.add_gridspec(1 + len(chosen), 2, height_ratios=(1.45, *(0.96 for _ in chosen)))
        _changes(figure.add_subplot(grid[0, :]), run, windows, chosen)
        changes = loss_changes(run["loss"].values)
        previous: _Chosen | None = None
        for row, item in enumerate(chosen, start=1):
            swapped = previous is not None and item.step == previous.step + 1
            sides = ((item.pair.negative, NEGATIVE, "fall most"), (item.pair.positive, POSITIVE, "rise most"))
            for column, (group, colour, words) in enumerate(sides):
                colours = _sides_before(group, previous.pair) if swapped and previous else [colour] * len(group)
                axes = figure.add_subplot(grid[row, column])
                mean = changes[item.step, group].mean()
                title = f"{words}: {mean:+.2f} nats · {describe(group, images.labels)}".replace("-", "−")
                image_sheet(axes, images.pixels[group], colours, columns=COLUMNS, title=title)
                if column == 0:
                    axes.text(
                        -0.02,
                        0.5,
                        f"$\\bf{{{'abcdef'[row - 1]}}}$  step {item.step}\n{item.where}",
                        transform=axes.transAxes,
                        ha="right",
                        va="center",
                        rotation=90,
                        multialignment="center",
                        fontsize=7,
                    )
            previous = item
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the share of images that change sides and the factor that theory predicts for it."""
    run, _ = _require(runs)
    windows = crossing_windows(run, "F2")
    chosen = _choose(run, windows)
    n, seeds = run.sizes["example"], runs.networks["base"]
    changed = [_changed_sides(r, crossing_windows(r, "F2")) for r in seeds]
    slopes = [_change_factor(r, crossing_windows(r, "F2")) for r in seeds]
    factors = [_predicted_factor(r, crossing_windows(r, "F2")) for r in seeds]
    return (
        f"The {GROUP_SIZE} of {n:,} training images whose losses fall and rise most at steps "
        f"{', '.join(str(c.step) for c in chosen[:-1])} and {chosen[-1].step} of full-batch gradient descent, η = "
        f"{run.attrs['lr']:g}, {run.sizes['step']} steps. Top: mean change of those {GROUP_SIZE} and of all images at "
        f"every step; the sharpness crosses 2/η at step {windows.crossing} (dashed). The last two rows are one step "
        f"apart; frames keep the colour of the step before, grey is new: the sets trade places. Over steps "
        f"{windows.evaluate.start} to {windows.evaluate.stop - 1}, {spread(changed)} of the {GROUP_SIZE} that rise "
        f"most are among the {GROUP_SIZE} that fall most a step later (by chance: {GROUP_SIZE**2 / n:.1f}). "
        f"An image's change is the one before it times {spread(slopes)} (regression over images); theory says 1 − ηλ "
        f"= {spread(factors)} along the top eigenvector (T7, λ at midpoints). {seeds_in_words(seeds).capitalize()}."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, Images]:
    runs.require("F2", NEEDS)
    assert runs.images is not None
    run = runs.networks["base"][0]
    return run, images_of(run, runs.images)


def _choose(run: xr.Dataset, windows: Windows) -> list[_Chosen]:
    """An early step, one before the crossing, and two consecutive ones at the edge, the first of widest spread."""
    loss = run["loss"].values
    at_edge = windows.evaluate.start + top_change_pair(loss[windows.evaluate][:-1])[0]
    before = (windows.before.start + windows.before.stop) // 2
    places = [(EARLY_STEP, "early"), (before, "sharpening"), (at_edge, "edge"), (at_edge + 1, "edge")]
    return [_Chosen(step, where, top_change_pair(loss[step : step + 2])[1]) for step, where in places]


def _sides_before(group: npt.NDArray[np.int64], before: OpposingPair) -> list[str]:
    rose, fell = set(before.positive.tolist()), set(before.negative.tolist())
    return [POSITIVE if i in rose else NEGATIVE if i in fell else NEW for i in group.tolist()]


def _changes(axes: Axes, run: xr.Dataset, windows: Windows, chosen: list[_Chosen]) -> None:
    changes = loss_changes(run["loss"].values)
    ordered = np.sort(changes, axis=1)
    steps = run["step"].values[:-1]
    axes.plot(
        steps, ordered[:, -GROUP_SIZE:].mean(1), color=POSITIVE, linewidth=0.9, label=f"{GROUP_SIZE} that rise most"
    )
    axes.plot(
        steps, ordered[:, :GROUP_SIZE].mean(1), color=NEGATIVE, linewidth=0.9, label=f"{GROUP_SIZE} that fall most"
    )
    axes.plot(steps, changes.mean(1), color=TOTAL, linewidth=1.2, label="all images")
    axes.axvline(windows.crossing, **THRESHOLD)  # type: ignore[arg-type]
    top = axes.get_ylim()[1]
    axes.text(windows.crossing, top, "λ crosses 2/η ", va="top", ha="right", fontsize=7, color="#666666")
    for letter, item in zip("abcdef", chosen, strict=False):
        # The two steps at the edge are one apart: their letters share a mark.
        if letter == "d":
            continue
        axes.axvline(item.step, color="#222222", linewidth=0.7)
        axes.text(item.step, top, " c, d" if letter == "c" else f" {letter}", va="top", weight="bold")
    axes.set(xlabel="step", ylabel="change of loss (nats)")
    axes.margins(x=0)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)


def _changed_sides(run: xr.Dataset, windows: Windows) -> float:
    """Mean number of a step's risers that are among the next step's fallers."""
    changes = loss_changes(run["loss"].values[windows.evaluate])
    order = np.argsort(changes, axis=1, kind="stable")
    return float(np.mean([np.isin(a[-GROUP_SIZE:], b[:GROUP_SIZE]).sum() for a, b in itertools.pairwise(order)]))


def _change_factor(run: xr.Dataset, windows: Windows) -> float:
    """Regression through the origin of every example's change on its change a step before, means taken out."""
    changes = loss_changes(run["loss"].values[windows.evaluate])
    changes = changes - changes.mean(0)
    return float((changes[1:] * changes[:-1]).sum() / (changes[:-1] ** 2).sum())


def _predicted_factor(run: xr.Dataset, windows: Windows) -> float:
    return float(1 - run.attrs["lr"] * np.median(measured_in(run, "sharpness_midpoint", windows.evaluate)))


ENTRY = FigureEntry(
    "F2",
    "images with the most positive and most negative change of loss at chosen steps",
    "C3, C4, T7",
    NEEDS,
    draw,
    caption,
)
