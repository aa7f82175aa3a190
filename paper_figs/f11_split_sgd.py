"""F11: SplitSGD beside gradient descent, momentum and Adam: loss curves, and how far the group gap swings."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.group_panels import mark_equal_loss, swing_against_loss, swing_in_words
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
from paper_figs.style import DOUBLE_COLUMN, style
from validate.claims.base import NetworkEvidence
from validate.claims.c11_adam import amplitude_ratio
from validate.equal_loss import mean_losses

NEEDS = ("networks.base", "networks.momentum", "networks.adam", "networks.split_sgd")
OPTIONAL = ("networks.momentum_dampened",)
ROLES = ("base", "momentum", "momentum_dampened", "split_sgd", "adam")


def draw(runs: Runs) -> Figure:
    """Mean loss over training, swing of the group gap against it, and the swing of each rule at equal loss."""
    seeds = _require(runs)
    roles, pairs = _given(runs), [groups(seed) for seed in seeds]
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.6))
        curves, swings, compared = figure.subplots(1, 3)
        for role in roles:
            colour, of_role = ROLE_COLOURS[role], runs.networks[role]
            for run in of_role:
                curves.plot(run["step"], mean_losses(run), color=colour, linewidth=1.0)
            swing_against_loss(swings, of_role, pairs, colour=colour, label=ROLE_NAMES[role])
        curves.set(xlabel="step", ylabel="mean loss (nats)", yscale="log", title="loss")
        curves.margins(x=0)
        swings.set_title("swing of the opposing groups")
        mark_equal_loss(swings, seeds[0])
        _compared(compared, roles, seeds)
        figure.legend(*swings.get_legend_handles_labels(), loc="outside lower center", ncols=len(roles))
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with each rule's swing at equal loss."""
    seeds = _require(runs)
    base = runs.networks["base"][0]
    parts = []
    for role in _given(runs):
        of_role = runs.networks[role]
        last = spread([float(mean_losses(run)[-1]) for run in of_role])
        swing = _swing_in_words(role, seeds)
        parts.append(
            f"{ROLE_NAMES[role]} (η = {number(of_role[0].attrs['lr'])}): swing {swing}, "
            f"loss after {of_role[0].sizes['step']} steps {last}"
        )
    ratios = [10 ** amplitude_ratio(seed, crossing_windows(seed.run, "F11"), "split_sgd") for seed in seeds]
    high, low = compared_losses(seeds[0])
    return (
        f"Full-batch training of the same network from the same weights on {base.sizes['example']:,} images under each "
        f"rule. Middle: how far the gap between the mean losses of two groups of {len(groups(seeds[0]).positive)}, "
        f"found in gradient descent's run, swings from step to step ({swing_in_words()}). Right, with other groups and "
        f"fewer steps: each run's own groups, found on the first half of its steps at the mean losses of gradient "
        f"descent's edge (first seed: {significant(high)} to {significant(low)}, shaded), root mean square over the "
        f"second half; a dot a seed. {'; '.join(parts)}. SplitSGD's swing over gradient descent's: "
        f"{spread(ratios)}. Theory (T13): momentum μ with dampening τ moves the threshold 2/η to "
        f"2(1 + μ)/(η(1 − τ)); sign steps have none and swing by their own fixed size. "
        f"{seeds_in_words(seeds).capitalize()}."
    )


def _require(runs: Runs) -> list[NetworkEvidence]:
    runs.require("F11", NEEDS)
    return evidence(runs, "F11")


def _given(runs: Runs) -> list[str]:
    return [role for role in ROLES if runs.networks.get(role)]


def _swings(role: str, seeds: list[NetworkEvidence]) -> list[float]:
    """The swing at equal loss of each seed."""
    return [amplitude(seed, role) for seed in seeds]


def _swing_in_words(role: str, seeds: list[NetworkEvidence]) -> str:
    values = _swings(role, seeds)
    if not np.isfinite(values).any():
        return "not measured (that loss is not reached)"
    stretches = [steps for seed in seeds if (steps := compared_steps(seed, role))]
    judged = [steps.stop - (steps.start + steps.stop) // 2 for steps in stretches]
    return f"{spread(values)} nats over {spread(judged, '{:.0f}'.format)} steps"


def _compared(axes: Axes, roles: list[str], seeds: list[NetworkEvidence]) -> None:
    """One row a rule, a dot a seed."""
    for row, role in enumerate(roles):
        values = np.array(_swings(role, seeds))
        if not np.isfinite(values).any():
            axes.text(
                0.03, row, "that loss is not reached", transform=axes.get_yaxis_transform(), fontsize=7, va="center"
            )
        axes.plot(values, np.full(len(values), row), "o", color=ROLE_COLOURS[role], markersize=5, alpha=0.8)
    axes.set_yticks(range(len(roles)), [ROLE_NAMES[role].replace(" ", "\n") for role in roles])
    axes.set(xscale="log", xlabel="swing at equal loss (nats)", ylabel="rule", title="at equal loss")
    axes.set_ylim(len(roles) - 0.5, -0.5)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)


ENTRY = FigureEntry(
    "F11",
    "SplitSGD against gradient descent, momentum and Adam: losses, and the swing of the group gap",
    "C12, T13",
    NEEDS,
    draw,
    caption,
    OPTIONAL,
)
