"""F7: the path along the bounce against the losses of the two groups, and its growth from step to step.

The bounce u is the direction in which the iterate alternates. Where several eigenvalues are at 2/η it is no single
eigenvector, and the top one turns: an eigenvector held fixed soon says nothing of the path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import crossing_windows, evidence, number, seeds_in_words, significant, spread
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THEORY, THRESHOLD, TOTAL, style
from validate.claims.base import Evidence, NetworkEvidence
from validate.claims.bounce import Stretches, alternating_displacement, stretches
from validate.claims.c06_growth_factor import CLAIMS
from validate.prediction.trace import kinematic_displacement

Array = npt.NDArray[np.float64]

NEEDS = ("networks.base", "networks.edge")
PATH_COLOUR = "#009E73"
PATH_STEPS = 16
SHOWN_STEPS = 40
GROWTH = CLAIMS[0]


@dataclass(frozen=True)
class _Path:
    """The steps from the crossing on, m of them, in k stretches that each begin at a measurement of the bounce.

    Attributes:
        steps: (m,) numbers of the steps.
        x: (m,) alternating part of the displacement along the bounce u last measured, signs continued.
        losses: (2, m) mean losses of the groups.
        total: (m,) mean loss of all examples.
        curvature: uᵀHu, median over the measurements.
        begins: (k,) step of each measurement.
        told: (k,) |⟨g₊ − g₋, u⟩| there: what theory has as slope of the gap on x.
    """

    steps: npt.NDArray[np.int64]
    x: Array
    losses: Array
    total: Array
    curvature: float
    begins: npt.NDArray[np.int64]
    told: Array

    @property
    def slope_ratios(self) -> Array:
        """(k,) size of the regression of the gap between the groups on x in each stretch, over theory's."""
        inner = np.searchsorted(self.steps, self.begins)[1:]
        stretches = zip(np.split(self.x, inner), np.split(self.losses[0] - self.losses[1], inner), strict=True)
        return np.abs([np.polyfit(x, gap, 1)[0] for x, gap in stretches]) / self.told


def draw(runs: Runs) -> Figure:
    """The path and the groups' losses step by step, the losses against the path, and each displacement on the last."""
    seeds = _require(runs)
    path = _path(seeds[0])
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 2.9))
        grid = figure.add_gridspec(2, 3, width_ratios=(1, 1.1, 1.1))
        upper = figure.add_subplot(grid[0, 0])
        _over_steps(upper, figure.add_subplot(grid[1, 0], sharex=upper), path)
        figure.align_ylabels(figure.axes)
        across, growth = figure.add_subplot(grid[:, 1]), figure.add_subplot(grid[:, 2])
        _across_valley(across, path)
        _growth(growth, seeds[0])
        figure.legend(*across.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the gap's slope and the growth factor, measured and predicted."""
    seeds = _require(runs)
    paths = [_path(seed) for seed in seeds]
    run, first = seeds[0].run, paths[0]
    found = Evidence(seeds)
    curvature = [float(np.median(_stretches(seed).curvature)) for seed in seeds]
    growth = [float(np.median(_stretches(seed).growth)) for seed in seeds]
    predicted = [1 - seed.run.attrs["lr"] * value for seed, value in zip(seeds, curvature, strict=True)]
    ratios = [float(np.median(path.slope_ratios)) for path in paths]
    return (
        f"Full-batch gradient descent, η = {number(run.attrs['lr'])}, {run.sizes['example']:,} images, from the "
        f"crossing of 2/η at step {first.steps[0]} on. x: the part of the displacement along the bounce u that changes "
        f"sign every step; u is the direction of that part at the last measurement. Left: x and the mean losses of the "
        f"two groups. Middle: over {len(first.steps)} steps the groups trade places along u while the loss of all "
        f"examples hardly moves; dark: ½λx² with λ = uᵀHu = {significant(first.curvature)} measured. The slope of the "
        f"gap on x is, over theory's |⟨g₊ − g₋, u⟩| from the groups' gradients at the iterates, the ends of the path: "
        f"{_in_words(first.slope_ratios)} in the stretches from step {first.begins[0]} to {first.begins[-1]} on (first "
        f"seed; theory's slopes: {_in_words(first.told)} nats a unit, small where the bounce turns away from these "
        f"groups); median {spread(ratios)}. Right: each "
        f"displacement along the bounce on the one before, from the crossing to the edge's end: factor "
        f"{spread(growth)}, against 1 − ηλ = {spread(predicted)} (dark) with λ the curvature along it. Measured less "
        f"predicted: {spread(GROWTH.measure(found))} (with the bulk's eigenvalues as λ: "
        f"{spread(GROWTH.measure_control(found))}); a step over the kinks of ReLU adds to the curvature what the "
        f"Hessian of the smooth pieces leaves out. {seeds_in_words(seeds).capitalize()}."
    )


def _require(runs: Runs) -> list[NetworkEvidence]:
    runs.require("F7", NEEDS)
    return evidence(runs, "F7")[: len(runs.networks["edge"])]


def _stretches(seed: NetworkEvidence) -> Stretches:
    return stretches(seed.runs["edge"], crossing_windows(seed.run, "F7"))


def _path(seed: NetworkEvidence) -> _Path:
    edge = seed.runs["edge"]
    begin = crossing_windows(seed.run, "F7").crossing
    at = edge.sel(edge_measured=slice(begin, begin + SHOWN_STEPS - 1))
    begins, steps = at["edge_measured"].values, edge["edge_step"].values
    kept = (steps >= begins[0]) & (steps < begin + SHOWN_STEPS)
    losses = edge["loss"].values[kept].astype(np.float64)
    norms = at["group_gradient_norm"].values
    # ‖g₊ − g₋‖² = ‖g₊‖² + ‖g₋‖² − 2‖g₊‖‖g₋‖ cos
    apart = np.sqrt((norms**2).sum(1) - 2 * norms.prod(1) * at["group_cosine"].values)
    return _Path(
        steps=steps[kept],
        x=_along_bounce(edge)[kept],
        losses=np.stack([losses[:, side].mean(1) for side in edge["member"].values]),
        total=losses.mean(1),
        curvature=float(np.median(at["bounce_curvature"].values)),
        begins=begins,
        told=apart * at["group_bounce_share"].values,
    )


def _along_bounce(edge: xr.Dataset) -> Array:
    """(edge_step,) x along the bounce last measured, with its sign continued from measurement to measurement.

    A measurement takes x as positive, and x changes sign every step: x_t has the sign of (−1)^(t − t₀) on the direction
    measured at t₀.
    """
    steps, measured = edge["edge_step"].values, edge["edge_measured"].values
    turns = np.searchsorted(steps, measured)
    x = kinematic_displacement(edge["gradient_along_bounce"].values, edge.attrs["lr"], turns)
    x[turns] = np.sqrt(edge["bounce_square"].values)
    last = measured[np.searchsorted(measured, steps, side="right") - 1]
    return np.asarray(x * (-1.0) ** last)


def _in_words(values: Array) -> str:
    return ", ".join(map(significant, values))


def _over_steps(upper: Axes, lower: Axes, path: _Path) -> None:
    shown = slice(0, PATH_STEPS)
    upper.axhline(0, color="#bbbbbb", linewidth=0.6)
    upper.plot(path.steps[shown], path.x[shown], "o-", color=PATH_COLOUR, markersize=2.5, linewidth=1)
    upper.set(ylabel="x along u", title="path along the bounce u")
    upper.tick_params(labelbottom=False)
    for losses, colour in zip(path.losses, (POSITIVE, NEGATIVE), strict=True):
        lower.plot(path.steps[shown], losses[shown], "o-", color=colour, markersize=2.5, linewidth=1)
    lower.plot(path.steps[shown], path.total[shown], color=TOTAL, linewidth=1.5)
    lower.set(xlabel="step", ylabel="loss (nats)")
    lower.set_ylim(bottom=0)


def _across_valley(axes: Axes, path: _Path) -> None:
    sides = (("one group", POSITIVE), ("the other group", NEGATIVE))
    for losses, (label, colour) in zip(path.losses, sides, strict=True):
        axes.plot(path.x, losses, "o", color=colour, markersize=3, alpha=0.7, label=label)
    axes.plot(path.x, path.total, "o", color=TOTAL, markersize=3, alpha=0.7, label="all examples")
    x = np.linspace(path.x.min(), path.x.max(), 100)
    floor = path.total.mean() - path.curvature * (path.x**2).mean() / 2
    axes.plot(x, floor + path.curvature * x**2 / 2, color=THEORY, label="theory: ½λx²")
    axes.set(xlabel="x along the bounce u", ylabel="loss (nats)", title="groups trade places along u")
    axes.set_ylim(bottom=0)


def _growth(axes: Axes, seed: NetworkEvidence) -> None:
    edge, found = seed.runs["edge"], _stretches(seed)
    slope, lr = edge["gradient_along_bounce"].values, edge.attrs["lr"]
    for begin, count in zip(found.first, found.steps, strict=True):
        x = alternating_displacement(slope[begin : begin + count], lr)
        axes.plot(x[:-1], x[1:], "o", color=PATH_COLOUR, markersize=2.5, alpha=0.6)
    reach = 1.1 * max(abs(value) for value in axes.get_xlim())
    ends = np.array([-reach, reach])
    factor = float(1 - lr * np.median(found.curvature))
    axes.plot(ends, -ends, **THRESHOLD)  # type: ignore[arg-type]
    axes.plot(ends, factor * ends, color=THEORY)
    axes.text(
        0.97,
        0.97,
        f"theory: 1 − ηλ = {factor:.2f}".replace("-", "−"),
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=7,
    )
    axes.text(
        0.03,
        0.03,
        "dashed: −1,\nthe stability threshold",
        transform=axes.transAxes,
        va="bottom",
        fontsize=7,
        color="#666666",
    )
    axes.set(xlim=ends, ylim=ends, xlabel="x at a step", ylabel="x a step later")
    axes.set_title(f"measured: $x_{{t+1}}$ ≈ {np.median(found.growth):.2f} $x_t$".replace("-", "−"))


ENTRY = FigureEntry("F7", "path along the bounce against the groups' losses", "C5, C6, T7", NEEDS, draw, caption)
