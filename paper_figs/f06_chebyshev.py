"""F6: a small network fitted to a Chebyshev polynomial: the same pattern without images, labels or noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THEORY, THRESHOLD, TOTAL, style, threshold_line
from validate.claims.c04_opposite_phase import phase_correlation
from validate.opposing_groups import OpposingPair, singular_pairs

NEEDS = ("sweeps.chebyshev",)
GROUP_SIZE = 5
SELECT_STEPS = 100
"""Steps from the crossing on in which the groups are found; they are shown and measured on the steps after."""
ZOOM_STEPS = 30


@dataclass(frozen=True)
class _Edge:
    """One seed's run with the groups found at its edge."""

    run: xr.Dataset
    losses: npt.NDArray[np.float64]  # (step, example)
    crossing: int  # first measured step with λ ≥ 2/η
    pair: OpposingPair

    @property
    def held_out(self) -> slice:
        """As many steps again, after those that the groups were found in."""
        return slice(self.crossing + SELECT_STEPS, self.crossing + 2 * SELECT_STEPS)


def draw(runs: Runs) -> Figure:
    """Fit and groups, losses over training, sharpness, and the groups' losses enlarged."""
    data, edges = _require(runs)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 4.3))
        (fit, losses), (sharpness, zoom) = figure.subplots(2, 2)
        _sharpness(sharpness, data, edges)
        if edges:
            first = edges[0]
            _fit(fit, first)
            _losses(losses, first, slice(0, first.run.sizes["step"]))
            losses.set(yscale="log", title="losses", ylabel="squared loss")
            losses.axvline(first.crossing, **THRESHOLD)
            start = first.held_out.start
            _losses(zoom, first, slice(start, start + ZOOM_STEPS))
            zoom.set(title=f"losses, {ZOOM_STEPS} steps at the edge", ylabel="squared loss")
            zoom.set_ylim(bottom=0)
        else:
            _fit_alone(fit, data)
            for axes in (losses, zoom):
                axes.set_axis_off()
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the correlation of the groups' loss changes and the sharpness against 2/η, over the seeds."""
    data, edges = _require(runs)
    lr = data.attrs["lr"]
    text = (
        f"Regression on the Chebyshev polynomial T_{data.attrs['degree']} at {data.sizes['example']} points, "
        f"full-batch gradient descent, η = {lr:g}, {data.sizes['seed']} initial weights (the sharpness of all, the "
        f"rest of the first)."
    )
    if not edges:
        return text + " No run reaches the edge with enough steps after it."
    phase = [phase_correlation(e.losses[e.held_out], e.pair) for e in edges]
    hover = [float(np.median(e.run["sharpness"][e.run["measured"] >= e.crossing])) * lr / 2 for e in edges]
    step = edges[0].held_out.start
    change = np.diff(edges[0].run["output"].values[step : step + 2], axis=0)[0]
    moves = [float(change[group].mean()) for group, _, _ in _groups(edges[0])]
    return text + (
        f" The sharpness crosses 2/η at step {', '.join(str(e.crossing) for e in edges)} and from there has a median "
        f"of {', '.join(f'{h:.2f}' for h in hover)} times 2/η. Two groups of {GROUP_SIZE} points, found from the loss "
        f"changes in the {SELECT_STEPS} steps from the crossing (dashed), want the curve moved in opposite ways: the "
        f"step shown moves the output by {moves[0]:+.2f} at the one and {moves[1]:+.2f} at the other, and the next one "
        f"moves it back. Correlation of their loss changes in the {SELECT_STEPS} steps after: "
        f"{', '.join(f'{p:.2f}' for p in phase)} (a seed each)."
    )


def _require(runs: Runs) -> tuple[xr.Dataset, list[_Edge]]:
    runs.require("F6", NEEDS)
    data = runs.sweeps["chebyshev"]
    edges = [_edge(data.sel(seed=seed), data.attrs["lr"]) for seed in data["seed"].values]
    return data, [edge for edge in edges if edge is not None]


def _edge(run: xr.Dataset, lr: float) -> _Edge | None:
    above = run["sharpness"].values >= 2 / lr
    losses = (run["output"].values - run["target"].values) ** 2 / 2
    if not above.any():
        return None
    crossing = int(run["measured"].values[above.argmax()])
    window = losses[crossing : crossing + 2 * SELECT_STEPS]
    if len(window) < 2 * SELECT_STEPS or not np.isfinite(window).all():
        return None
    return _Edge(run, losses, crossing, singular_pairs(window[:SELECT_STEPS], count=1, size=GROUP_SIZE)[0])


def _fit(axes: Axes, edge: _Edge) -> None:
    """The polynomial, the network's output in two steps one after the other, and the groups' points."""
    x, step = edge.run["x"].values, edge.held_out.start
    _target(axes, edge.run)
    for t, dashes, words in ((step, "-", f"network, step {step}"), (step + 1, (0, (1, 1)), "one step later")):
        axes.plot(x, edge.run["output"].values[t], color=TOTAL, linestyle=dashes, linewidth=1.0, label=words)
    for group, colour, words in _groups(edge):
        axes.plot(
            x[group], edge.run["target"].values[group], "o", color=colour, markersize=4, label=words, clip_on=False
        )
    axes.legend(loc="upper center", ncols=2)
    axes.set_ylim(-1.1, 1.95)


def _fit_alone(axes: Axes, data: xr.Dataset) -> None:
    _target(axes, data)
    axes.plot(data["x"], data["output"].isel(seed=0)[-1], color=TOTAL, label="network, last step")
    axes.legend(loc="upper center")


def _target(axes: Axes, run: xr.Dataset) -> None:
    axes.plot(run["x"], run["target"], color=THEORY, linewidth=2.2, alpha=0.35, label="polynomial")
    axes.set(xlabel="x", ylabel="output", title="fit", xticks=np.linspace(-1, 1, 5))


def _losses(axes: Axes, edge: _Edge, window: slice) -> None:
    steps = edge.run["step"].values[window]
    for group, colour, words in _groups(edge):
        axes.plot(steps, edge.losses[window][:, group].mean(1), color=colour, linewidth=0.8, label=words)
    axes.plot(steps, edge.losses[window].mean(1), color=TOTAL, linewidth=1.6, label="all points")
    axes.set_xlabel("step")
    axes.margins(x=0)


def _groups(edge: _Edge) -> list[tuple[npt.NDArray[np.int64], str, str]]:
    return [(edge.pair.positive, POSITIVE, "one group"), (edge.pair.negative, NEGATIVE, "the other group")]


def _sharpness(axes: Axes, data: xr.Dataset, edges: list[_Edge]) -> None:
    for i in range(data.sizes["seed"] - 1, -1, -1):
        colour, width = (TOTAL, 1.6) if i == 0 else ("#BBBBBB", 0.8)
        axes.plot(data["measured"], data["sharpness"].isel(seed=i), color=colour, linewidth=width)
    threshold_line(axes, 2 / data.attrs["lr"])
    axes.text(data["measured"].values[-1], 1.94 / data.attrs["lr"], "2/η", ha="right", va="top", fontsize=7)
    if edges:
        axes.axvline(edges[0].crossing, **THRESHOLD)  # type: ignore[arg-type]
    axes.set(xlabel="step", ylabel="λ", title="sharpness")
    axes.set_ylim(bottom=0)
    axes.margins(x=0)


ENTRY = FigureEntry(
    "F6", "a Chebyshev polynomial fitted by a small network: edge and opposing groups", "C1, C4", NEEDS, draw, caption
)
