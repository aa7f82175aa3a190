"""F13: sharpness and swing after removing the opposing examples, random ones, and the hardest ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import (
    ROLE_COLOURS,
    ROLE_NAMES,
    crossing_windows,
    evidence,
    number,
    seeds_in_words,
    spread,
)
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, style, threshold_line
from validate.claims.base import NetworkEvidence
from validate.claims.c10_cause import crossing_ratio, flatness, kept_by_all
from validate.equal_loss import mean_losses
from validate.opposing_groups import GROUP_SIZE, loss_changes
from validate.windows import reached_edge

Array = npt.NDArray[np.float64]

ROLES = ("base", "without_random", "without_hardest", "without_opposing")
NEEDS = tuple(f"networks.{role}" for role in ROLES)
NAMES = {**ROLE_NAMES, "base": "all examples"}
SMOOTHED = 5
"""Steps over which the swing is averaged for the picture."""


def draw(runs: Runs) -> Figure:
    """Sharpness over training and at equal loss, swing of the most extreme examples, and the step of the crossing."""
    runs.require("F13", NEEDS)
    seeds = evidence(runs, "F13")
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.6))
        over_time, at_loss, swings = figure.subplots(1, 3)
        for role in ROLES:
            for i, run in enumerate(runs.networks[role]):
                look = {"color": ROLE_COLOURS[role], "linewidth": 1.5 if role == "without_opposing" else 1.0}
                measured, sharpness = run["measured"].values, run["sharpness_iterate"].values
                over_time.plot(measured, sharpness, label=None if i else NAMES[role], **look)
                at_loss.plot(mean_losses(run, kept_by_all(seeds[i]))[measured], sharpness, **look)
                swings.plot(run["step"][1:], _smooth(_extreme_swing(run)), **look)
                if (crossing := reached_edge(run)) is not None:
                    swings.plot(
                        crossing, _smooth(_extreme_swing(run))[int(crossing) - 1], "v", color=look["color"], zorder=3
                    )
        for axes in (over_time, at_loss):
            threshold_line(axes, 2 / runs.networks["base"][0].attrs["lr"])
            axes.set(ylabel="sharpness λ")
            axes.set_ylim(bottom=0)
        over_time.set(xlabel="step", title="sharpness (dashed: 2/η)")
        at_loss.set(xlabel="mean loss (nats), falling", title="sharpness at equal loss")
        at_loss.set_xlim(2.4, 0)
        swings.set(xlabel="step", ylabel="swing (nats)", yscale="log", title="swing (▾: λ crosses 2/η)")
        for axes in (over_time, swings):
            axes.margins(x=0)
        figure.legend(*over_time.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with each run's crossing, and its sharpness at the loss at which all examples' run crosses."""
    runs.require("F13", NEEDS)
    seeds = evidence(runs, "F13")
    base = runs.networks["base"]
    crossings = [reached_edge(seed.run) or float("nan") for seed in seeds]
    removed = int((~_kept(runs.networks["without_opposing"][0])).sum())
    return (
        f"Full-batch gradient descent (η = {number(base[0].attrs['lr'])}, {base[0].sizes['step']} steps) on "
        f"{base[0].sizes['example']:,} images, and from the same weights without {removed} of them: those that carry "
        f"most of the changes of loss at the edge (opposing), random ones of the same labels, the hardest ones before "
        f"the edge. Sharpness is that of the loss trained on; a line a seed. Middle: against the mean loss of the "
        f"examples that all runs keep. Swing: half the spread between the {GROUP_SIZE} examples trained on whose "
        f"losses rise most and the {GROUP_SIZE} whose fall most in a step, averaged over {SMOOTHED} steps. All "
        f"examples: crosses 2/η at step {spread(crossings, '{:.0f}'.format)}; "
        f"{'; '.join(_in_words(seeds, role) for role in ROLES[1:])}. Theory: the swing grows where λ > 2/η (T7), so "
        f"what delays the one delays the other; with ReLU it begins somewhat before (F7: kinks add to the "
        f"curvature that a step meets). {seeds_in_words(seeds).capitalize()}."
    )


def _in_words(seeds: Sequence[NetworkEvidence], role: str) -> str:
    """Step of the crossing and sharpness at equal loss, over those of the run with all examples."""
    windows = [crossing_windows(seed.run, "F13") for seed in seeds]
    at_loss = [flatness(seed, w, role) for seed, w in zip(seeds, windows, strict=True)]
    later = [crossing_ratio(seed, role) for seed in seeds]
    crossings = [reached_edge(seed.runs[role]) for seed in seeds]
    never = sum(crossing is None for crossing in crossings)
    note = f" ({never} of {len(seeds)} never: counted as the run's length)" if never else ""
    return f"{NAMES[role]}: {spread(later)} times that step{note}, λ at equal loss {spread(at_loss)} times as large"


def _kept(run: xr.Dataset) -> npt.NDArray[np.bool_]:
    return run["example_weight"].values > 0 if "example_weight" in run else np.ones(run.sizes["example"], dtype=bool)


def _extreme_swing(run: xr.Dataset) -> Array:
    """Half the spread between the mean changes of the 20 trained examples that rise and fall most in each step."""
    ordered = np.sort(loss_changes(run["loss"].values[:, _kept(run)]), axis=1)
    return np.asarray((ordered[:, -GROUP_SIZE:].mean(1) - ordered[:, :GROUP_SIZE].mean(1)) / 2)


def _smooth(values: Array) -> Array:
    padded = np.pad(values, SMOOTHED // 2, mode="edge")
    return np.convolve(padded, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")


ENTRY = FigureEntry(
    "F13", "sharpness and swing after removing opposing, random and hardest examples", "C10", NEEDS, draw, caption
)
