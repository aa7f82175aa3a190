"""F8: the two-layer linear network: flow, descent and finite samples against the predicted curves."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.network_roles import significant
from paper_figs.runs import Runs
from paper_figs.style import DOUBLE_COLUMN, NEGATIVE, POSITIVE, SAMPLES, THEORY, style, threshold_line
from sim import TwoLayerConfig
from theory import State, flow_limit, growth_factor, sharpness

NEEDS = ("two_layer",)
SHOWN_STEPS = 250
SMALLEST = 1e-12
"""Opposing weights below this are not drawn."""


def draw(runs: Runs) -> Figure:
    """Four panels: sharpness, last-layer weight, opposing weight with its predicted growth, group losses."""
    config, data = _require(runs)
    shown = data.isel(step=slice(0, SHOWN_STEPS))
    with style():
        figure = Figure(figsize=(DOUBLE_COLUMN, 4.3))
        (top_left, top_right), (low_left, low_right) = figure.subplots(2, 2)
        _sharpness(top_left, config, shown)
        _last_layer(top_right, config, shown)
        _opposing(low_left, config, shown)
        _groups(low_right, shown)
        for axes in (top_left, top_right, low_left, low_right):
            axes.set_xlabel("step (flow: time / η)")
            axes.margins(x=0)
    return figure


def caption(runs: Runs) -> str:
    """What is drawn, with the errors of the predictions."""
    config, data = _require(runs)
    predicted = float(sharpness(config.model, flow_limit(config.model, config.initial_state)))
    flow_error = abs(float(data["flow_sharpness"][-1]) / predicted - 1)
    growth = _predicted_weight(config, data)
    measured = data["s"].values[:, 0]
    kept = np.abs(measured) > SMALLEST
    growth_error = np.abs(growth[kept] / measured[kept] - 1).max()
    final = data["sharpness"].values[-1] * config.lr / 2
    side = "above" if predicted > 2 / config.lr else "below"
    return (
        f"Two-layer linear network, α = {config.alpha:g}, ‖β‖ = {config.beta:g}, k = {config.k:g}, η = {config.lr:g}; "
        f"finite samples of {config.examples:,} examples, {config.fraction:.0%} of them outliers. The flow's sharpness "
        f"ends {flow_error:.1e} of itself from the predicted {predicted:.3g}, {side} 2/η = {2 / config.lr:g}; "
        f"descent ends at {significant(final.min())} to {significant(final.max())} of 2/η. The opposing weight "
        f"follows the product of 1 − ηαc² (largest relative error {growth_error:.1e}); in a finite sample the valley's "
        f"floor lies off zero, so the oscillation starts from there and earlier. "
        f"When the weight changes sign the group losses trade places."
    )


def _require(runs: Runs) -> tuple[TwoLayerConfig, xr.Dataset]:
    runs.require("F8", NEEDS)
    assert runs.two_layer is not None
    assert runs.two_layer_config is not None
    return TwoLayerConfig.from_plain(runs.two_layer_config), runs.two_layer


def _sharpness(axes: Axes, config: TwoLayerConfig, data: xr.Dataset) -> None:
    limit = float(sharpness(config.model, flow_limit(config.model, config.initial_state)))
    _samples(axes, data, data["sharpness"].values)
    axes.plot(data["step"], data["sharpness"][:, 0], color=POSITIVE, label="descent, population")
    axes.plot(data["step"], data["flow_sharpness"], color=THEORY, label="gradient flow")
    threshold_line(axes, 2 / config.lr, "2/η")
    axes.plot(
        [data["step"][-1]],
        [limit],
        marker="<",
        color=THEORY,
        linestyle="none",
        clip_on=False,
        label="predicted limit (T6)",
    )
    axes.set(title="sharpness", ylabel="λ")
    axes.legend(loc="lower right")


def _last_layer(axes: Axes, config: TwoLayerConfig, data: xr.Dataset) -> None:
    _samples(axes, data, data["c"].values)
    axes.plot(data["step"], data["c"][:, 0], color=POSITIVE, label="descent, population")
    axes.plot(data["step"], data["flow_c"], color=THEORY, label="gradient flow")
    threshold_line(axes, np.sqrt(2 / (config.lr * config.alpha)), "ηαc² = 2")
    axes.set(title="last-layer weight (flow: one turning point, T5)", ylabel="c")
    axes.legend(loc="lower right")


def _opposing(axes: Axes, config: TwoLayerConfig, data: xr.Dataset) -> None:
    _samples(axes, data, np.abs(data["s"].values))
    axes.plot(data["step"], np.abs(data["s"][:, 0]), color=POSITIVE, label="descent, population")
    axes.plot(
        data["step"],
        np.abs(_predicted_weight(config, data)),
        color=THEORY,
        linestyle=(0, (1, 1.2)),
        linewidth=1.8,
        label="∏ |1 − ηαc²| (T7)",
    )
    axes.set_yscale("log")
    axes.set_ylim(bottom=SMALLEST)
    axes.set(title="opposing weight", ylabel="|s|")
    axes.legend(loc="lower right")


def _groups(axes: Axes, data: xr.Dataset) -> None:
    """Group losses of the first finite sample around its spike."""
    if data.sizes["run"] < 2:
        axes.set_axis_off()
        return
    peak = 5 + int(np.abs(data["s"].values[5:, 1]).argmax())
    part = data.isel(step=slice(max(0, peak - 45), peak + 30), run=1)
    axes.plot(part["step"], part["loss_plus"], color=POSITIVE, label="group +")
    axes.plot(part["step"], part["loss_minus"], color=NEGATIVE, label="group −")
    axes.plot(part["step"], part["loss"], color=THEORY, label="all examples")
    axes.set(title="losses of the outlier groups, one finite sample", ylabel="squared loss")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")


def _samples(axes: Axes, data: xr.Dataset, values: np.ndarray) -> None:
    for i in range(1, data.sizes["run"]):
        label = "descent, finite samples" if i == 1 else None
        axes.plot(data["step"], values[:, i], color=SAMPLES[(i - 1) % len(SAMPLES)], linewidth=0.8, label=label)


def _predicted_weight(config: TwoLayerConfig, data: xr.Dataset) -> np.ndarray:
    """s_t = s_0 ∏_{τ<t} (1 − ηαc_τ²), from the start and the measured c alone."""
    c, s = data["c"].values[:, 0], data["s"].values[:, 0]
    state = State(c, np.zeros((len(c), 0)), s[:, None])
    factors = growth_factor(config.model, state, config.lr)[:-1, 0]
    return np.concatenate([s[:1], s[0] * np.cumprod(factors)])


ENTRY = FigureEntry(
    "F8",
    "two-layer linear network: flow, descent and finite samples against the predicted curves",
    "T1, T6, T7, T8, T9",
    NEEDS,
    draw,
    caption,
)
