"""F13: sharpness and swing after removing the opposing examples, random ones, and the hardest ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import ROLE_COLOURS, ROLE_NAMES, number, seeds_in_words, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, style, threshold_line
from validate.opposing_groups import GROUP_SIZE, loss_changes

Array = npt.NDArray[np.float64]

ROLES = ("base", "without_random", "without_hardest", "without_opposing")
NEEDS = tuple(f"networks.{role}" for role in ROLES)
NAMES = {**ROLE_NAMES, "base": "all examples"}
SMOOTHED = 5
"""Steps over which the swing is averaged for the picture."""


def draw(runs: Runs) -> Figure:
    """Sharpness over training and at equal loss, swing of the most extreme examples, and the step of the crossing."""
    runs.require("F13", NEEDS)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.6))
        over_time, at_loss, swings = figure.subplots(1, 3)
        for role in ROLES:
            for i, run in enumerate(runs.networks[role]):
                look = {"color": ROLE_COLOURS[role], "linewidth": 1.5 if role == "without_opposing" else 1.0}
                measured, sharpness = run["measured"].values, run["sharpness_iterate"].values
                over_time.plot(measured, sharpness, label=None if i else NAMES[role], **look)
                at_loss.plot(_training_loss(run)[measured], sharpness, **look)
                swings.plot(run["step"][1:], _smooth(_extreme_swing(run)), **look)
                if (crossing := _crossing(run)) is not None:
                    swings.plot(crossing, _smooth(_extreme_swing(run))[crossing], "v", color=look["color"], zorder=3)
        for axes in (over_time, at_loss):
            threshold_line(axes, 2 / runs.networks["base"][0].attrs["lr"])
            axes.set(ylabel="sharpness λ")
            axes.set_ylim(bottom=0)
        over_time.set(xlabel="step", title="sharpness (dashed: 2/η)")
        at_loss.set(xlabel="mean training loss (nats), falling", title="sharpness at equal loss")
        at_loss.set_xlim(2.4, 0)
        swings.set(xlabel="step", ylabel="swing (nats)", yscale="log", title="swing (▾: λ crosses 2/η)")
        for axes in (over_time, swings):
            axes.margins(x=0)
        figure.legend(*over_time.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with each run's crossing, and its sharpness at the step and at the loss of the base run's."""
    runs.require("F13", NEEDS)
    base = runs.networks["base"]
    removed = [int((~_kept(run)).sum()) for run in runs.networks["without_opposing"]]
    return (
        f"Full-batch gradient descent (η = {number(base[0].attrs['lr'])}, {base[0].sizes['step']} steps) on "
        f"{base[0].sizes['example']:,} images, and from the same weights after removing {removed[0]} of them: those of "
        f"the opposing groups, random ones, the hardest ones (highest loss). Sharpness is that of the loss trained on; "
        f"swing: half the spread between the {GROUP_SIZE} examples trained on whose losses rise most and the "
        f"{GROUP_SIZE} whose fall most in a step; lines: seeds. {'; '.join(_in_words(runs, role) for role in ROLES)}. "
        f"Theory: the swing grows where λ > 2/η (T7), so what delays the crossing delays the swing. "
        f"{seeds_in_words(base).capitalize()}."
    )


def _in_words(runs: Runs, role: str) -> str:
    """Step of the crossing, and sharpness where all examples' run of the same seed crosses."""
    crossings, at_step, at_loss = [], [], []
    for run, base in zip(runs.networks[role], runs.networks["base"], strict=True):
        own, reference = _crossing(run), _crossing(base)
        crossings += [] if own is None else [own]
        if reference is not None:
            at_step.append(float(run["sharpness_iterate"].sel(measured=reference)))
            at_loss.append(_sharpness_at_loss(run, float(_training_loss(base)[reference])))
    never = len(runs.networks[role]) - len(crossings)
    when = f"crosses at step {spread(crossings, 0)}" if crossings else "never crosses"
    when += f", {never} never" if never and crossings else ""
    if role == "base" or not at_step:
        return f"{NAMES[role]}: {when}" + (f" at λ = {spread(at_step, 1)}" if at_step else "")
    compared = f"λ = {spread(at_step, 1)} at the step at which all examples cross, {spread(at_loss, 1)} at their loss"
    return f"{NAMES[role]}: {when}; {compared}"


def _sharpness_at_loss(run: xr.Dataset, loss: float) -> float:
    """Sharpness where the mean training loss first falls to a level, between measurements by a straight line."""
    measured = _training_loss(run)[run["measured"].values]
    falling = np.minimum.accumulate(measured)
    return float(np.interp(-loss, -falling, run["sharpness_iterate"].values))


def _training_loss(run: xr.Dataset) -> Array:
    kept = run["loss"].values[:, _kept(run)]
    return np.asarray(kept.mean(1, dtype=np.float64))


def _kept(run: xr.Dataset) -> npt.NDArray[np.bool_]:
    return run["example_weight"].values > 0 if "example_weight" in run else np.ones(run.sizes["example"], dtype=bool)


def _extreme_swing(run: xr.Dataset) -> Array:
    """Half the spread between the mean changes of the 20 trained examples that rise and fall most in each step."""
    ordered = np.sort(loss_changes(run["loss"].values[:, _kept(run)]), axis=1)
    return np.asarray((ordered[:, -GROUP_SIZE:].mean(1) - ordered[:, :GROUP_SIZE].mean(1)) / 2)


def _smooth(values: Array) -> Array:
    padded = np.pad(values, SMOOTHED // 2, mode="edge")
    return np.convolve(padded, np.full(SMOOTHED, 1 / SMOOTHED), mode="valid")


def _crossing(run: xr.Dataset) -> int | None:
    over = np.flatnonzero(run["sharpness_iterate"].values * run.attrs["lr"] / 2 >= 1)
    return int(run["measured"].values[over[0]]) if over.size else None


ENTRY = FigureEntry(
    "F13", "sharpness and swing after removing opposing, random and hardest examples", "C10", NEEDS, draw, caption
)
