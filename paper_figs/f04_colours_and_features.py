"""F4: what the network makes of plain colours over training, and the size of the opposing examples' features."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import SeedGroups, groups_of_seeds, number, seeds_in_words, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THRESHOLD, TOTAL, style
from validate.cifar10 import CLASSES
from validate.claims.c15_outsized_features import excess_norm
from validate.claims.c16_signal_is_feature import SKY, SKY_CLASSES
from validate.opposing_groups import random_pair_like
from validate.probes import colour_images

Array = npt.NDArray[np.float64]

NEEDS = ("networks.base",)
SHOWN = ("sky", "white", "grass", "red", "black", "brown")
"""Flat colours that are drawn; the caption counts the sky's colours as the claim does."""
NAMED = 2
"""Classes drawn in colour on each panel: those of highest probability over the last quarter of training."""
CLASS_COLOURS = ("#D55E00", "#0072B2")
RANDOM_DRAWS = 200


def draw(runs: Runs) -> Figure:
    """Class probabilities on six plain colours, and feature norms of the groups against all examples."""
    run, seed = _require(runs)
    images = dict(zip(run["colour"].values.tolist(), colour_images().pixels, strict=True))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.5))
        grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.9))
        first: Axes | None = None
        for i, colour in enumerate(SHOWN):
            axes = figure.add_subplot(grid[i // 3, i % 3], sharex=first, sharey=first)
            first = first or axes
            _probabilities(axes, run, colour, images[colour], seed.windows.crossing)
            axes.set_xlabel("step" if i >= 3 else "")
            axes.set_ylabel("probability" if i % 3 == 0 else "")
            axes.tick_params(labelbottom=i >= 3, labelleft=i % 3 == 0)
        _norms(figure.add_subplot(grid[:, 3]), run, seed)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the sky's probability and the groups' excess norm."""
    run, _ = _require(runs)
    every = list(zip(runs.networks["base"], groups_of_seeds(runs.networks["base"], "F4"), strict=True))
    sky = [_sky_probability(r) for r, _ in every]
    start, late = ([_excess(r, s)[i] for r, s in every] for i in (0, -1))
    random = [_random_excess(r, s) for r, s in every]
    every_steps = int(np.diff(run["probed"].values)[0])
    return (
        f"Left: probabilities that the network gives each of the ten classes on images of one colour, at every "
        f"{every_steps}th step of full-batch gradient descent (η = {number(run.attrs['lr'])}, {run.sizes['step']} "
        f"steps, {run.sizes['example']:,} images); the two most probable are named, dotted: chance. On the sky's "
        f"colours plane and ship together get {spread(sky)} at the end (chance: 0.20). Right: norm of the penultimate "
        f"features: each opposing group ({len(every[0][1].pair.positive)} examples), and median and middle 90 % of all "
        f"examples; dashed: λ crosses 2/η. The groups' mean norm over the median of all is {spread(start)} before "
        f"training and {spread(late)} at the end; of random groups of the same size, 95 % stay below {spread(random)} "
        f"at the end. {seeds_in_words(runs.networks['base']).capitalize()}."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, SeedGroups]:
    runs.require("F4", NEEDS)
    if any("colour_probability" not in run for run in runs.networks["base"]):
        raise ValueError("F4 draws from runs whose colours were probed: give base runs with probe_every above 0")
    return runs.networks["base"][0], groups_of_seeds(runs.networks["base"][:1], "F4")[0]


def _probabilities(axes: Axes, run: xr.Dataset, colour: str, image: npt.NDArray[np.uint8], crossing: int) -> None:
    table = run["colour_probability"].sel(colour=colour)
    steps, values = run["probed"].values, table.values
    top = np.argsort(-values[3 * len(values) // 4 :].mean(0), kind="stable")[:NAMED]
    for c in range(values.shape[1]):
        if c not in top:
            axes.plot(steps, values[:, c], color="#bbbbbb", linewidth=0.6)
    names = run["class"].values
    for c, line in zip(top, CLASS_COLOURS, strict=True):
        axes.plot(steps, values[:, c], color=line, linewidth=1.4, label=str(names[c]))
    axes.axhline(1 / len(CLASSES), color="#222222", linestyle=":", linewidth=0.8)
    axes.axvline(crossing, **THRESHOLD)  # type: ignore[arg-type]
    axes.set(ylim=(0, 1.02))
    axes.margins(x=0)
    axes.set_title(f"     {colour}")
    swatch = image[:, 0, 0] / 255
    axes.add_patch(
        Rectangle(
            (0, 1.04),
            0.13,
            0.11,
            transform=axes.transAxes,
            facecolor=swatch,
            edgecolor="#222222",
            linewidth=0.5,
            clip_on=False,
        )
    )
    axes.legend(loc="upper left", borderaxespad=0.1, handlelength=1)


def _norms(axes: Axes, run: xr.Dataset, seed: SeedGroups) -> None:
    steps, norms = run["probed"].values, run["feature_norm"].values.astype(np.float64)
    low, middle, high = np.quantile(norms, (0.05, 0.5, 0.95), axis=1)
    axes.fill_between(steps, low, high, color=TOTAL, alpha=0.2, linewidth=0, label="all examples, middle 90 %")
    axes.plot(steps, middle, color=TOTAL, linewidth=1.5, label="all examples, median")
    for group, colour, label in (
        (seed.pair.positive, POSITIVE, "one opposing group"),
        (seed.pair.negative, NEGATIVE, "the other"),
    ):
        axes.plot(steps, norms[:, group].mean(1), color=colour, label=label)
    axes.axvline(seed.windows.crossing, **THRESHOLD)  # type: ignore[arg-type]
    axes.set(xlabel="step", ylabel="norm of penultimate features", title="outsized features")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)
    axes.legend(loc="upper left")


def _excess(run: xr.Dataset, seed: SeedGroups) -> list[float]:
    members = np.concatenate([seed.pair.positive, seed.pair.negative])
    return [excess_norm(norms, members) for norms in run["feature_norm"].values]


def _random_excess(run: xr.Dataset, seed: SeedGroups) -> float:
    """95th percentile of random groups' excess at the last probed step."""
    rng = np.random.default_rng(0)
    norms = run["feature_norm"].values[-1]
    drawn = [random_pair_like(seed.pair, len(norms), rng) for _ in range(RANDOM_DRAWS)]
    return float(np.quantile([excess_norm(norms, np.concatenate([p.positive, p.negative])) for p in drawn], 0.95))


def _sky_probability(run: xr.Dataset) -> float:
    last = run["colour_probability"].isel(probed=-1).sel({"colour": list(SKY), "class": list(SKY_CLASSES)})
    return float(last.sum("class").mean())


ENTRY = FigureEntry(
    "F4",
    "class probabilities on plain colours over training, and feature norms of the groups",
    "C15, C16",
    NEEDS,
    draw,
    caption,
)
