"""F17: what the reduced map predicts of a network's oscillation, against what the network does, over step sizes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

from paper_figs.entry import FigureEntry
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, THEORY, TOTAL, style
from theory.spikes import LARGEST_HEIGHT
from validate.prediction.oscillation import predict_oscillation
from validate.prediction.quantities import QUANTITIES, VALLEY_QUANTITIES, Quantity
from validate.prediction.scores import PredictedRun, score
from validate.prediction.spikes import valley_points
from validate.prediction.trace import read_trace
from validate.prediction.valley import told_spike
from validate.windows import find_windows

NEEDS = ("predictions.mlp_gelu",)
OPTIONAL = ("networks.base", "networks.edge", "valleys.mlp_gelu")
PANELS = (
    ("wait", "wait until the onset", "steps"),
    ("growth", "growth factor of a step", "x′/x"),
    ("variance past the spike", "variance past the first spike", "x²"),
    ("spike from onset", "first spike", "peak x²"),
    ("loss rise from onset", "loss in that spike", "rise (nats)"),
    ("period", "time between spikes", "steps"),
)
"""Quantity, title, and what both axes measure."""
BY_LINE = {"spike from onset": "spike of the line", "loss rise from onset": "loss rise of the line"}
"""The same by map (4), which takes their place where runs have it; they stand behind it then."""
LOOKS = {"GELU": (NEGATIVE, "o"), "ReLU": (POSITIVE, "D")}

Array = npt.NDArray[np.float64]


def draw(runs: Runs) -> Figure:
    """A panel a quantity: measured over predicted, with the line of equality."""
    found = _networks(runs)
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 4.6))
        panels = figure.subplots(2, 3).ravel()
        for axes, (name, title, unit) in zip(panels, PANELS, strict=True):
            drawn = _drawn(name, found["GELU"])
            behind = _points(_quantity(name), found["GELU"]) if drawn != name else None
            _panel(axes, _quantity(drawn), found, unit, behind)
            axes.set_title(title)
        named = {word: line for axes in panels for line, word in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(named.values()), list(named), loc="outside lower center", ncols=4)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with every panel's score and control."""
    found = _networks(runs)
    gelu = found["GELU"]
    sizes = sorted({run.lr for run in gelu})
    seeds = len({run.seed for run in gelu})
    images = runs.predictions["mlp_gelu"][0].sizes["example"]
    other = found.get("ReLU", [])
    relu = (
        f" Diamonds: a ReLU network at one step size (η = {other[0].lr:g}, a seed each); the Hessian leaves out its "
        f"kinks, with which the oscillation has grown before the crossing."
        if other
        else ""
    )
    return (
        f"CIFAR-10 networks at the edge of stability: predicted by the reduced map from λ, a = −⟨∇⊥λ, ∇L⟩, b = ‖∇⊥λ‖² "
        f"and x measured beforehand (growth: by the mean of 1 − ηλ at the two ends of the stretch over which it is "
        f"measured), against what the network then did; line: equality. Dots: a GELU network, full-batch gradient "
        f"descent on {images:,} images, {len(sizes)} step sizes from {sizes[0]:g} to {sizes[-1]:g}, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'} each. R² over the best constant (of logarithms in the panels on "
        f"logarithmic axes), median relative error, and R² of predictions permuted among step sizes: "
        f"{'; '.join(_in_words(_drawn(name, gelu), title, gelu) for name, title, _ in PANELS)}. Wait: from the "
        f"crossing of 2/η until |x| is half of √(2a/b). {_spike_in_words(gelu)} Period: 2π/atan √(2η²a), a at the "
        f"crossing.{relu}"
    )


def _spike_in_words(gelu: Sequence[PredictedRun]) -> str:
    formula = (
        f"from the last measurement before the onset; its formula claims no more than η²bx²/2 ≤ {LARGEST_HEIGHT:g}"
    )
    if _drawn("spike from onset", gelu) == "spike from onset":
        return f"Spike: {formula}. Loss: x²/η of that spike."
    before = "; ".join(_in_words(name, title, gelu) for name, title, _ in PANELS if name in BY_LINE)
    return (
        f"Spike and its loss: by map (4), descent with the gradient exact along the bounce's line and of first order "
        f"across it, from the last measurement before the onset on, with nothing fitted; pale: by the reduced map "
        f"({before}), {formula}."
    )


def _drawn(name: str, gelu: Sequence[PredictedRun]) -> str:
    """What a panel shows: the quantity, or what takes its place."""
    of_line = BY_LINE.get(name)
    return of_line if of_line is not None and any(run.points.get(of_line) for run in gelu) else name


def _in_words(name: str, title: str, runs: Sequence[PredictedRun]) -> str:
    found = score(_quantity(name), runs)
    if found.runs < 2:
        return f"{title}: in fewer than two runs"
    return f"{title}: {_r2_in_words(found.r2)}, {found.error:.0%}, {_r2_in_words(found.permuted_r2)}"


def _r2_in_words(r2: float) -> str:
    """Two decimals, three where they would round to 1."""
    return f"{r2:.{3 if r2 > 0.99 else 2}f}".replace("-", "−") if np.isfinite(r2) else "undefined"


def _quantity(name: str) -> Quantity:
    return next(quantity for quantity in (*QUANTITIES, *VALLEY_QUANTITIES) if quantity.name == name)


def _networks(runs: Runs) -> dict[str, list[PredictedRun]]:
    runs.require("F17", NEEDS)
    found = {"GELU": _predicted(runs.predictions["mlp_gelu"], runs.valleys.get("mlp_gelu", ()))}
    pairs = zip(runs.networks.get("base", ()), runs.networks.get("edge", ()), strict=False)
    if relu := _predicted([run for pair in pairs for run in pair]):
        found["ReLU"] = relu
    return found


def _predicted(data: Sequence[xr.Dataset], valleys: Sequence[xr.Dataset] = ()) -> list[PredictedRun]:
    """The predictions of base runs that are followed by a study of their edge; seeds counted by step size."""
    found: list[PredictedRun] = []
    orbits = {(valley.attrs["lr"], valley.attrs["seed"]): valley for valley in valleys}
    for base, edge in itertools.pairwise(data):
        if "edge_step" not in edge.dims or "edge_step" in base.dims or (windows := find_windows(base)) is None:
            continue
        lr = float(edge.attrs["lr"])
        trace = read_trace(base, edge, windows)
        points = predict_oscillation(trace)
        if (valley := orbits.get((lr, base.attrs.get("seed")))) is not None:
            points |= valley_points(trace, int(valley.attrs["step"] - trace.steps[0]), told_spike(valley))
        found.append(PredictedRun("", lr, sum(run.lr == lr for run in found), "", points))
    return found


def _points(quantity: Quantity, runs: Sequence[PredictedRun]) -> Array:
    """(points, 2) predicted and measured, where both are there."""
    pairs = [(p.predicted, p.measured) for run in runs for p in run.points.get(quantity.name, ())]
    points = np.array(pairs).reshape(-1, 2)
    points = points[np.isfinite(points).all(1)]
    kept = (points > 0).all(1) if quantity.logarithmic else slice(None)
    return np.asarray(points[kept], dtype=np.float64)


def _panel(
    axes: Axes, quantity: Quantity, found: dict[str, list[PredictedRun]], unit: str, behind: Array | None = None
) -> None:
    ends: list[float] = []
    if behind is not None:
        axes.plot(
            *behind.T, "o", color=TOTAL, markersize=3.0, alpha=0.3, markeredgewidth=0, label="GELU, by the reduced map"
        )
        ends += [*behind.ravel()]
    for network, runs in found.items():
        points = _points(quantity, runs)
        many = len(points) > 4 * len(runs)
        colour, marker = LOOKS[network]
        size, alpha = (2.0, 0.5) if many else (4.0, 0.8)
        axes.plot(*points.T, marker, color=colour, markersize=size, alpha=alpha, markeredgewidth=0, label=network)
        ends += [*points.ravel()]
    axes.set(xlabel=f"predicted {unit}", ylabel=f"measured {unit}")
    if not ends:
        axes.text(0.5, 0.5, "no run shows it", ha="center", va="center", transform=axes.transAxes)
        return
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=THEORY, linewidth=1.0, zorder=0, label="equal")
    if quantity.logarithmic:
        axes.set(xscale="log", yscale="log")
        for axis in (axes.xaxis, axes.yaxis):
            _logarithmic_ticks(axis, max(ends) / min(ends))
    else:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(4))


def _logarithmic_ticks(axis: Axis, ratio: float) -> None:
    """At least two labels on an axis whose ends have that ratio; powers of ten alone would be one or none below 100."""
    if ratio >= 100:
        axis.set_minor_formatter(NullFormatter())
        return
    of_decade = LogLocator(subs=(1.0, 2.0, 5.0) if ratio < 20 else (1.0, 3.0))
    axis.set_major_locator(MaxNLocator(3) if ratio < 5 else of_decade)
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


ENTRY = FigureEntry(
    "F17",
    "onset, growth, variance, spike, loss and period of a network's oscillation, predicted against measured",
    "C2, C6, C14, T10",
    NEEDS,
    draw,
    caption,
    OPTIONAL,
)
