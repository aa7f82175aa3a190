"""F4: what the network makes of plain colours over training, and the size of the opposing examples' features."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import crossing_windows, evidence, groups, number, seeds_in_words, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THRESHOLD, TOTAL, style
from validate.cifar10 import CLASSES
from validate.claims.base import Claim, Evidence, NetworkEvidence
from validate.claims.c15_outsized_features import CLAIMS as OUTSIZED
from validate.claims.c16_signal_is_feature import CLAIMS as SIGNAL
from validate.claims.c16_signal_is_feature import OTHER, SKY, SKY_CLASSES, sky_probability
from validate.opposing_groups import OpposingPair
from validate.probes import colour_images

Array = npt.NDArray[np.float64]

NEEDS = ("networks.base",)
SHOWN = ("sky", "white", "grass", "red", "black", "brown")
"""Flat colours that are drawn; the caption counts colours as the claim does, and names those of no side."""
NAMED = 2
"""Classes drawn in colour on each panel: those of highest probability over the last quarter of training."""
HEADROOM = 1.3
"""Height of a panel over that of its curves: room for names."""
CLASS_COLOURS = ("#D55E00", "#0072B2")


def draw(runs: Runs) -> Figure:
    """Class probabilities on six plain colours, and feature norms of the groups against all examples."""
    run, seed = _require(runs)
    crossing = crossing_windows(run, "F4").crossing
    images = dict(zip(run["colour"].values.tolist(), colour_images().pixels, strict=True))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.5))
        grid = figure.add_gridspec(2, 4, width_ratios=(1, 1, 1, 1.9))
        first: Axes | None = None
        for i, colour in enumerate(SHOWN):
            axes = figure.add_subplot(grid[i // 3, i % 3], sharex=first, sharey=first)
            first = first or axes
            _probabilities(axes, run, colour, images[colour], crossing)
            axes.set_xlabel("step" if i >= 3 else "")
            axes.set_ylabel("probability" if i % 3 == 0 else "")
            axes.tick_params(labelbottom=i >= 3, labelleft=i % 3 == 0)
        _norms(figure.add_subplot(grid[:, 3]), run, groups(seed), crossing)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the numbers of C15 and C16 and their controls."""
    run, _ = _require(runs)
    seeds = evidence(runs, "F4")
    (start, start_random), (edge, edge_random) = (_measured(claim, seeds) for claim in OUTSIZED)
    sky, other = _measured(SIGNAL[0], seeds)
    probed = run["probed"].values
    parity = " All probed steps are even, so that one side of the swing is seen." if not (probed % 2).any() else ""
    return (
        f"Left: probabilities that the network gives each of the ten classes on images of one colour, every "
        f"{int(probed[1] - probed[0])} steps of full-batch gradient descent (η = {number(run.attrs['lr'])}, "
        f"{run.sizes['step']} steps, {run.sizes['example']:,} images); the two most probable of the last quarter are "
        f"named; dotted: chance; dashed: λ crosses 2/η.{parity} At the edge {' and '.join(SKY_CLASSES)} together get "
        f"{sky} on the sky's colours ({', '.join(SKY)}), {other} on others ({', '.join(OTHER)}; chance: "
        f"{len(SKY_CLASSES) / len(CLASSES):.2f}){_uncounted(seeds)}. Right: norm of the penultimate features of each "
        f"opposing group ({len(groups(seeds[0]).positive)} examples), with median and middle 90 % of all examples. The "
        f"groups' mean norm over the median of all is {start} before training (random groups: 95 % below "
        f"{start_random}) and {edge} at the edge ({edge_random}). {seeds_in_words(seeds).capitalize()}."
    )


def _uncounted(seeds: Sequence[NetworkEvidence]) -> str:
    """What the sky's classes get on colours that are drawn and that the claim counts on neither side."""
    given = {
        colour: [sky_probability(seed, crossing_windows(seed.run, "F4"), (colour,)) for seed in seeds]
        for colour in SHOWN
        if colour not in (*SKY, *OTHER)
    }
    return "".join(f", and {spread(values)} on {colour}, which counts as neither" for colour, values in given.items())


def _measured(claim: Claim, seeds: Sequence[NetworkEvidence]) -> tuple[str, str]:
    """The claim's statistic and its control's, over seeds, in print."""
    found = Evidence(seeds)
    return spread(claim.measure(found)), spread(claim.measure_control(found))


def _require(runs: Runs) -> tuple[xr.Dataset, NetworkEvidence]:
    runs.require("F4", NEEDS)
    if any("colour_probability" not in run for run in runs.networks["base"]):
        raise ValueError("F4 draws from runs whose colours were probed: give base runs with probe_every above 0")
    return runs.networks["base"][0], evidence(runs, "F4")[0]


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
    axes.axvline(crossing, ymax=1 / HEADROOM, **THRESHOLD)  # type: ignore[arg-type]
    axes.set(ylim=(0, HEADROOM), yticks=(0, 0.5, 1))
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
    axes.legend(loc="upper left", ncols=2, borderaxespad=0, handlelength=0, handletextpad=0, labelcolor="linecolor")


def _norms(axes: Axes, run: xr.Dataset, pair: OpposingPair, crossing: int) -> None:
    steps, norms = run["probed"].values, run["feature_norm"].values.astype(np.float64)
    low, middle, high = np.quantile(norms, (0.05, 0.5, 0.95), axis=1)
    axes.fill_between(steps, low, high, color=TOTAL, alpha=0.2, linewidth=0, label="all examples, middle 90 %")
    axes.plot(steps, middle, color=TOTAL, linewidth=1.5, label="all examples, median")
    for group, colour, label in (
        (pair.positive, POSITIVE, "one opposing group"),
        (pair.negative, NEGATIVE, "the other"),
    ):
        axes.plot(steps, norms[:, group].mean(1), color=colour, label=label)
    axes.axvline(crossing, ymax=1 / HEADROOM, **THRESHOLD)  # type: ignore[arg-type]
    axes.set(xlabel="step", ylabel="norm of penultimate features", title="outsized features")
    axes.set_ylim(0, HEADROOM * axes.get_ylim()[1])
    axes.margins(x=0)
    axes.legend(loc="upper left", borderaxespad=0)


ENTRY = FigureEntry(
    "F4",
    "class probabilities on plain colours over training, and feature norms of the groups",
    "C15, C16",
    NEEDS,
    draw,
    caption,
)
