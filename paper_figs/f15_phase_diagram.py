"""F15: what becomes of descent over the step size and α‖β‖: simulated cell by cell, theory's boundaries on top."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, THEORY, style
from sim.sweeps.phase import PHASES

NEEDS = ("sweeps.phase",)
COLOURS = {"converges": "#DCEBF7", "oscillates": "#56B4E9", "diverges": "#D55E00", "unsettled": "#7F7F7F"}
WORDS = {"unsettled": "not settled within the steps", "oscillates": "oscillates, then settles"}
LIMIT, FIRST_ORDER, START, NONE = "-", (0, (4, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (1, 1.2))
"""Line styles of theory's boundaries."""


@dataclass(frozen=True)
class _Grid:
    """The sweep's first seed: rows of one ‖β‖, columns of one step size relative to 2/S."""

    sharpness: npt.NDArray[np.float64]  # (row,) S = α‖β‖, where the flow ends
    relative: npt.NDArray[np.float64]  # (column,) η S/2
    phase: npt.NDArray[np.int64]  # (row, column) index into PHASES
    descent: npt.NDArray[np.float64]  # (row,) boundary of descent's own end, in η S/2; NaN where it has none
    start: npt.NDArray[np.float64]  # (row,) η = 2/(αc(0)²), in η S/2
    last: npt.NDArray[np.float64]  # (row,) η = 2/S_min, in η S/2

    @property
    def stable(self) -> npt.NDArray[np.bool_]:
        """(row, column) cells below every boundary."""
        return self.relative < np.fmin(np.fmin(self.descent, 1.0), self.start)[:, None]

    @property
    def edge(self) -> npt.NDArray[np.bool_]:
        """(row, column) cells above the boundaries of flow and descent, below that of the start and the last."""
        low, high = np.fmax(self.descent, 1.0), np.minimum(self.start, self.last)
        return (self.relative > low[:, None]) & (self.relative < high[:, None])

    @property
    def beyond(self) -> npt.NDArray[np.bool_]:
        """(row, column) cells for which no minimum is stable."""
        return self.relative > self.last[:, None]


def draw(runs: Runs) -> Figure:
    """Left, over η itself; right, the same with η in units of 2/(α‖β‖), which lays the boundaries flat."""
    grid = _grid(runs)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 3.6))
        absolute, relative = figure.subplots(1, 2, width_ratios=(0.8, 1))
        _cells(absolute, grid, 2 / grid.sharpness)
        _cells(relative, grid, np.ones_like(grid.sharpness))
        _number(absolute.xaxis, 1, 2, 5)
        _number(relative.xaxis, 1, 2, 5)
        _number(absolute.yaxis, 1)
        _number(relative.yaxis, 1, 2, 5)
        absolute.set(ylabel="step size η", title="η against α‖β‖")
        relative.set(ylabel="η α‖β‖ / 2", title="the same, step size in units of 2/(α‖β‖)")
        patches = [Patch(facecolor=COLOURS[p], label=WORDS.get(p, p)) for p in PHASES]
        lines, _ = relative.get_legend_handles_labels()
        figure.legend(handles=[*patches, *lines], loc="outside lower center", ncols=3)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the share of cells that do what the boundaries say."""
    grid = _grid(runs)
    converged = grid.phase == PHASES.index("converges")
    settled = converged | (grid.phase == PHASES.index("oscillates"))
    gone = np.where(grid.edge, grid.phase == PHASES.index("diverges"), False)
    parts = [f"{grid.phase.size:,} runs of descent on the two-layer network (Σ = I, balanced start), a cell each."]
    parts.append(
        f"Below every boundary {_share(converged, grid.stable)} converge without an oscillation; between the flow's "
        f"or descent's boundary and those of the start and of the flattest minimum {_share(~converged, grid.edge)} do "
        f"not; where no minimum is stable {_share(~settled, grid.beyond)} do not settle."
    )
    if gone.any():
        # Where the edge gives way to divergence, theory has no boundary; the place is reported as seen.
        lowest = np.where(gone.any(1), grid.relative[gone.argmax(1)], np.nan)
        parts.append(
            f"Theory has no boundary for divergence itself: it is seen from {np.nanmedian(lowest):.2f} × 2/(α‖β‖) on "
            f"(median over the rows)."
        )
    others = ~(grid.stable | grid.edge | grid.beyond)
    counts = "; ".join(f"{WORDS.get(p, p)}: {int((others & (grid.phase == i)).sum()):,}" for i, p in enumerate(PHASES))
    parts.append(f"The other {int(others.sum()):,} cells lie in none of these regions and are not scored ({counts}).")
    return " ".join(parts)


def _grid(runs: Runs) -> _Grid:
    runs.require("F15", NEEDS)
    data: xr.Dataset = runs.sweeps["phase"].isel(seed=0)
    flow = data["flow_boundary"].values
    # S = α‖β‖ and c(0) = 1, so the start's αc² is S/‖β‖.
    sharpness = 2 / flow
    return _Grid(
        sharpness=sharpness,
        relative=data["relative"].values,
        phase=data["phase"].values.astype(np.int64),
        descent=data["descent_boundary"].values / flow,
        start=2 * data["beta"].values / sharpness / flow,
        last=data["last_boundary"].values / flow,
    )


def _cells(axes: Axes, grid: _Grid, unit: npt.NDArray[np.float64]) -> None:
    """The cells and theory's boundaries, step sizes in multiples of `unit` (row,) of the relative ones."""
    x = np.broadcast_to(grid.sharpness[:, None], grid.phase.shape)
    y = grid.relative * unit[:, None]
    colours = ListedColormap([COLOURS[p] for p in PHASES])
    # As an image also in a PDF: 40,000 shapes would be megabytes.
    axes.pcolormesh(
        x, y, grid.phase, cmap=colours, vmin=-0.5, vmax=len(PHASES) - 0.5, shading="nearest", rasterized=True
    )
    for boundary, dashes, words in (
        (np.ones_like(unit), LIMIT, "flow's end at 2/η: η α‖β‖ = 2 (T6, T8)"),
        (grid.descent, FIRST_ORDER, "descent's end at 2/η, first order (T8)"),
        (grid.start, START, "start at 2/η: η αc(0)² = 2 (T7)"),
        (grid.last, NONE, "no stable minimum above (T8)"),
    ):
        shown = (boundary >= grid.relative[0]) & (boundary <= grid.relative[-1])
        values = np.where(shown, boundary * unit, np.nan)
        axes.plot(grid.sharpness, values, color=THEORY, linestyle=dashes, linewidth=1.3, label=words)
    axes.set(xscale="log", yscale="log", xlabel="α‖β‖, the flow's final sharpness")
    axes.margins(0)


def _number(axis: Axis, *digits: float) -> None:
    """Ticks at these digits of each decade, written out."""
    axis.set_major_locator(LogLocator(subs=digits))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _share(good: npt.NDArray[np.bool_], among: npt.NDArray[np.bool_]) -> str:
    count = int(among.sum())
    return f"{int((good & among).sum()):,} of {count:,} ({(good & among).sum() / max(count, 1):.1%})"


ENTRY = FigureEntry(
    "F15",
    "phase diagram over step size and α‖β‖: converges, oscillates, diverges, with theory's boundaries",
    "T6, T7, T8",
    NEEDS,
    draw,
    caption,
)
