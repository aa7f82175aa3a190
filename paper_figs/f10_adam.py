"""F10: the losses of the opposing groups under gradient descent and under Adam."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.group_panels import drawn_swing, group_losses, mark_equal_loss, swing_against_loss, swing_in_words
from paper_figs.network_roles import (
    ROLE_COLOURS,
    ROLE_NAMES,
    amplitude,
    compared_losses,
    compared_steps,
    crossing_windows,
    evidence,
    groups,
    number,
    seeds_in_words,
    significant,
    spread,
)
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, THRESHOLD, style
from validate.claims.base import NetworkEvidence
from validate.claims.c11_adam import step_ratio
from validate.equal_loss import mean_losses
from validate.windows import SELECT_STEPS

NEEDS = ("networks.base", "networks.adam")
ROLES = ("base", "adam")
ZOOM_STEPS = 20


def draw(runs: Runs) -> Figure:
    """Group losses under each rule, whole and enlarged at one loss, and both rules' swing against the mean loss."""
    seeds = _require(runs)
    first, pairs = seeds[0], [groups(seed) for seed in seeds]
    loss = float(np.mean(compared_losses(first)))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.6))
        grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.15))
        whole: list[Axes] = []
        zooms: list[Axes] = []
        for column, role in enumerate(ROLES):
            run = runs.networks[role][0]
            whole.append(figure.add_subplot(grid[0, column], sharey=whole[0] if whole else None))
            zooms.append(figure.add_subplot(grid[1, column], sharey=zooms[0] if zooms else None))
            group_losses(whole[-1], run, pairs[0])
            group_losses(zooms[-1], run, pairs[0], steps=_zoom(run, loss))
            whole[-1].set_title(f"{ROLE_NAMES[role]}, η = {number(run.attrs['lr'])}")
            zooms[-1].set_title(f"enlarged at mean loss {loss:.2f}")
        whole[0].axvline(crossing_windows(first.run, "F10").crossing, **THRESHOLD)  # type: ignore[arg-type]
        right = figure.add_subplot(grid[:, 2])
        for role in ROLES:
            swing_against_loss(right, runs.networks[role], pairs, colour=ROLE_COLOURS[role], label=ROLE_NAMES[role])
        mark_equal_loss(right, first)
        figure.legend(*whole[0].get_legend_handles_labels(), loc="outside lower left", ncols=3)
        right.set_ylim(top=8 * right.get_ylim()[1])
        right.legend(loc="upper left")
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the swing under both rules at equal loss."""
    seeds = _require(runs)
    base, adam = runs.networks["base"], runs.networks["adam"]
    windows = crossing_windows(base[0], "F10")
    of_base, of_adam = ([amplitude(seed, role) for seed in seeds] for role in ROLES)
    ratios = [b / a for b, a in zip(of_base, of_adam, strict=True)]
    drawn = [_drawn_ratio(seed) for seed in seeds]
    high, low = compared_losses(seeds[0])
    return (
        f"Loss of all {base[0].sizes['example']:,} examples and mean losses of two groups of "
        f"{len(groups(seeds[0]).positive)}, found in the run of gradient descent in the {SELECT_STEPS} steps from its "
        f"crossing of 2/η (step {windows.crossing}, dashed), under gradient descent (η = "
        f"{number(base[0].attrs['lr'])}, {base[0].sizes['step']} steps) and, the same examples, under Adam (η = "
        f"{number(adam[0].attrs['lr'])}, {adam[0].sizes['step']} steps) from the same weights. Right: how far their "
        f"gap swings from step to step, against the mean loss ({swing_in_words()}); a line a seed. At the losses of "
        f"gradient descent's edge (first seed: {significant(high)} to {significant(low)}, shaded) these lines are "
        f"{spread(drawn)} times apart (their medians over the steps there). The gap between a run's own groups, found "
        f"on the first half of its steps there and judged on the second, swings by {spread(of_base)} nats under "
        f"gradient descent and {spread(of_adam)} under Adam: {spread(ratios)} times as "
        f"far.{_steps_in_words(seeds)} {seeds_in_words(seeds).capitalize()}."
    )


def _drawn_ratio(seed: NetworkEvidence) -> float:
    """Gradient descent's line over Adam's, medians over the steps at the compared losses."""
    pair, medians = groups(seed), []
    for role in ROLES:
        steps = compared_steps(seed, role)
        swing = drawn_swing(seed.runs[role], pair)[steps] if steps else np.array([])
        medians.append(float(np.nanmedian(swing)) if np.isfinite(swing).any() else float("nan"))
    return medians[0] / medians[1]


def _steps_in_words(seeds: list[NetworkEvidence]) -> str:
    if any("step_along_top" not in seed.runs[role] for seed in seeds for role in ROLES):
        return ""
    ratios = [10 ** step_ratio(seed, crossing_windows(seed.run, "F10"), "adam") for seed in seeds]
    return f" Adam's step along the top eigenvector is {spread(ratios)} of gradient descent's there."


def _require(runs: Runs) -> list[NetworkEvidence]:
    runs.require("F10", NEEDS)
    return evidence(runs, "F10")


def _zoom(run: xr.Dataset, loss: float) -> slice:
    """The steps around the one at which the mean loss comes nearest to a level."""
    nearest = int(np.abs(mean_losses(run) - loss).argmin())
    begin = max(0, min(nearest - ZOOM_STEPS // 2, run.sizes["step"] - ZOOM_STEPS))
    return slice(begin, begin + ZOOM_STEPS)


ENTRY = FigureEntry("F10", "group losses under gradient descent and Adam", "C11", NEEDS, draw, caption)
