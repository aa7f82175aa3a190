"""F10: the losses of the opposing groups under gradient descent and under Adam."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.group_panels import group_losses, mark_equal_loss, swing_against_loss
from paper_figs.network_roles import (
    ROLE_COLOURS,
    ROLE_NAMES,
    SeedGroups,
    groups_of_seeds,
    mean_loss,
    number,
    seeds_in_words,
    spread,
    swing_at_loss,
)
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, THRESHOLD, style

NEEDS = ("networks.base", "networks.adam")
ROLES = ("base", "adam")
ZOOM_STEPS = 20


def draw(runs: Runs) -> Figure:
    """Group losses under each rule, whole and enlarged at one loss, and both rules' swing against the mean loss."""
    seeds = _require(runs)
    first = seeds[0]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.6))
        grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.15))
        whole: list[Axes] = []
        zooms: list[Axes] = []
        for column, role in enumerate(ROLES):
            run = runs.networks[role][0]
            whole.append(figure.add_subplot(grid[0, column], sharey=whole[0] if whole else None))
            zooms.append(figure.add_subplot(grid[1, column], sharey=zooms[0] if zooms else None))
            group_losses(whole[-1], run, first.pair)
            group_losses(zooms[-1], run, first.pair, steps=_zoom(run, first))
            whole[-1].set_title(f"{ROLE_NAMES[role]}, η = {number(run.attrs['lr'])}")
            zooms[-1].set_title(f"enlarged at mean loss {first.middle_loss:.2f}")
        whole[0].axvline(first.windows.crossing, **THRESHOLD)  # type: ignore[arg-type]
        right = figure.add_subplot(grid[:, 2])
        for role in ROLES:
            pairs = [seed.pair for seed in seeds]
            swing_against_loss(right, runs.networks[role], pairs, colour=ROLE_COLOURS[role], label=ROLE_NAMES[role])
        mark_equal_loss(right, first)
        figure.legend(*whole[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
        right.legend(loc="upper left", bbox_to_anchor=(0, 0.85))
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the swing under both rules at equal loss."""
    seeds = _require(runs)
    base, adam = runs.networks["base"], runs.networks["adam"]
    of_base, of_adam = (
        [swing_at_loss(run, s.pair, s.levels) for run, s in zip(of, seeds, strict=True)] for of in (base, adam)
    )
    ratios = [b / a for b, a in zip(of_base, of_adam, strict=True)]
    low, high = seeds[0].levels
    return (
        f"Loss of all {base[0].sizes['example']:,} examples and mean losses of two groups of "
        f"{len(seeds[0].pair.positive)}, found in the run of gradient descent in the 75 steps from its crossing of 2/η "
        f"(step {seeds[0].windows.crossing}, dashed), under gradient descent (η = {number(base[0].attrs['lr'])}, "
        f"{base[0].sizes['step']} steps) and, the same examples, under Adam (η = {number(adam[0].attrs['lr'])}, "
        f"{adam[0].sizes['step']} steps) from the same weights. Right: how far the gap between the groups swings from "
        f"step to step, against the mean loss; a line a seed. At equal loss ({low:.2f} to {high:.2f} in the first "
        f"seed, shaded: steps {seeds[0].windows.evaluate.start} to {seeds[0].windows.evaluate.stop - 1} of gradient "
        f"descent, which the groups were not chosen on) the swing is {spread(of_base)} nats under gradient descent, "
        f"{spread(of_adam, 4)} under Adam: {spread(ratios, 0)} times as large. {seeds_in_words(seeds).capitalize()}."
    )


def _require(runs: Runs) -> list[SeedGroups]:
    runs.require("F10", NEEDS)
    return groups_of_seeds(runs.networks["base"], "F10")


def _zoom(run: xr.Dataset, seed: SeedGroups) -> slice:
    """The steps around the one at which the mean loss comes nearest to the middle of the judged stretch."""
    nearest = int(np.abs(mean_loss(run) - seed.middle_loss).argmin())
    begin = max(0, min(nearest - ZOOM_STEPS // 2, run.sizes["step"] - ZOOM_STEPS))
    return slice(begin, begin + ZOOM_STEPS)


ENTRY = FigureEntry("F10", "group losses under gradient descent and Adam", "C11", NEEDS, draw, caption)
