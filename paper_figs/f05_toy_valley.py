"""F5: the toy valley: one opposing pair makes descent bounce out of the valley that it walked into.

The landscape is the two-layer model's loss over the last layer's weight c and the opposing weight s (`theory.valley`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THEORY, TOTAL, style, threshold_line
from theory import Model, State
from theory.edge import edge_units
from theory.model import group_losses, loss
from theory.spikes import SpikeHeight, spike_of
from theory.valley import valley_descent, valley_hessian

NEEDS = ()
MODEL = Model(np.array([4.0]), np.array([2.28]), np.array([1.0]))
START = State(np.array(0.5), np.array([1.0]), np.array([1.0]))
LR, STEPS = 0.125, 66
FRACTION = 0.1
"""Share of the examples that are outliers; sets the scale of the groups' losses only."""

STAGES = (
    ("1", "the big feature first:\ndown to the floor", 0.70, 0.74),
    ("2", "along the floor,\nthe valley narrows", 0.74, -0.14),
    ("3", "beyond 2/η:\ngrowing bounces", 2.36, 0.33),
    ("4", "thrown back to where\nthe valley is wide", 0.72, -0.43),
)
"""Number, words and place (c, s) of each stage's note."""

_DISC = {"boxstyle": "circle,pad=0.25", "facecolor": "#333333", "edgecolor": "none"}


@dataclass(frozen=True)
class _Walk:
    """The path and what is read off it."""

    path: State
    threshold: float  # c* = √(2/(ηα)), where the curvature across the floor is 2/η
    crossing: int  # first step beyond it
    top: int  # step of the largest swing after it
    predicted: SpikeHeight  # of s², from the crossing


def draw(runs: Runs) -> Figure:
    """Left, the landscape with the path in four stages; right, the losses and the curvature along it."""
    del runs  # a calculation of theory's: there is nothing to read
    walk = _walk()
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.7))
        panels = figure.subplot_mosaic([["valley", "loss"], ["valley", "curvature"]], width_ratios=(1.75, 1))
        _valley(figure, panels["valley"], walk)
        _losses(panels["loss"], walk)
        _curvature(panels["curvature"], walk)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the predicted height of the spike beside the measured one."""
    del runs
    walk = _walk()
    measured = float(walk.path.s[walk.top, 0] ** 2)
    predicted = float(walk.predicted.height)
    alpha, beta, b = MODEL.alpha[0], MODEL.beta[0], START.b[0]
    return (
        f"A valley of two variables, not an arbitrary one: the loss ½(cb − β)² + ½αc²s² of the two-layer network with "
        f"its ordinary weight held (α = {alpha:g}, β = {beta:g}, b = {b:g}), and gradient descent with η = {LR:g}. "
        f"c uses every feature; s uses the opposing one, for one group or for the other. "
        f"(1) The large opposing feature is dealt with first: s falls to the floor, where neither group is favoured. "
        f"(2) Along the floor the loss asks for more c, and the valley, of curvature αc², narrows. "
        f"(3) Where αc² passes 2/η (dashed, step {walk.crossing}) every step overshoots the floor by more than the "
        f"last: the groups trade places each step. (4) The swing throws c back to where the valley is wide, in a spike "
        f"of the loss, and the walk begins again. Highest s² predicted from the crossing: {predicted:.3f} (error bound "
        f"{float(walk.predicted.error):.0%}); of the path: {measured:.3f}, {predicted / measured - 1:+.0%}."
    )


def _walk() -> _Walk:
    path = valley_descent(MODEL, START, LR, STEPS)
    crossing = int(np.flatnonzero(edge_units(MODEL, path, LR).excess > 0)[0])
    top = crossing + int(np.abs(path.s[crossing:, 0]).argmax())
    threshold = float(np.sqrt(2 / (LR * MODEL.alpha[0])))
    return _Walk(path, threshold, crossing, top, spike_of(MODEL, path.at(crossing), LR))


def _valley(figure: Figure, axes: Axes, walk: _Walk) -> None:
    c, s = np.meshgrid(np.linspace(0.3, 3.05, 300), np.linspace(-0.85, 1.12, 300))
    here = State(c, np.broadcast_to(START.b, (*c.shape, 1)), s[..., None])
    # Without ½α, which no weight can lower.
    height = loss(MODEL, here) - MODEL.alpha[0] / 2
    levels = np.geomspace(0.004, height.max(), 22)
    axes.contourf(c, s, height, levels=[0.0, *levels], cmap="Greys", alpha=0.55, norm="symlog")
    axes.contour(c, s, height, levels=levels, colors="white", linewidths=0.4)
    axes.plot(walk.path.c, walk.path.s[:, 0], color="black", linewidth=0.6, alpha=0.7)
    axes.scatter(walk.path.c, walk.path.s[:, 0], c=np.arange(STEPS + 1), cmap="viridis", s=9, zorder=3)
    axes.axvline(walk.threshold, color="#555555", linestyle=(0, (4, 2)), linewidth=1.0)
    axes.text(walk.threshold + 0.02, 1.09, "αc² = 2/η", va="top", fontsize=7)
    swing = np.sqrt(float(walk.predicted.height))
    for side in (-swing, swing):
        axes.plot(walk.threshold + np.array([-0.45, 0.33]), [side, side], color=THEORY, linestyle=":")
    axes.text(walk.threshold + 0.04, swing + 0.02, "predicted swing (T10)", va="bottom", fontsize=7)
    for number, words, c_at, s_at in STAGES:
        axes.text(c_at, s_at, number, ha="center", va="center", fontsize=7, color="white", bbox=_DISC)
        axes.text(c_at + 0.06, s_at, words, va="center", fontsize=7)
    axes.set(
        xlabel="c, last-layer weight",
        ylabel="s, weight of the opposing feature",
        xlim=(c.min(), c.max()),
        ylim=(s.min(), s.max()),
        title="loss over (c, s), dark is high, and path of descent",
    )


def _losses(axes: Axes, walk: _Walk) -> None:
    steps = np.arange(len(walk.path.c))
    plus, minus = group_losses(MODEL, walk.path, FRACTION)
    axes.plot(steps, plus, color=POSITIVE, linewidth=0.9, label="one group")
    axes.plot(steps, minus, color=NEGATIVE, linewidth=0.9, label="the other group")
    axes.plot(steps, loss(MODEL, walk.path), color=TOTAL, linewidth=1.6, label="all examples")
    axes.set(xlabel="step", ylabel="squared loss", title="losses of the groups")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper center")


def _curvature(axes: Axes, walk: _Walk) -> None:
    sharpness = np.linalg.eigvalsh(valley_hessian(MODEL, walk.path))[:, -1]
    axes.plot(sharpness, color=THEORY)
    threshold_line(axes, 2 / LR)
    axes.text(1, 2 / LR + 0.4, "2/η", fontsize=7)
    axes.set(xlabel="step", ylabel="sharpness λ", title="largest curvature at the path")


ENTRY = FigureEntry("F5", "the toy valley with the path of descent, explained", "T7, T8, T10", NEEDS, draw, caption)
