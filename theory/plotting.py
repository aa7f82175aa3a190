"""The predicted curves as one picture; the only place in `theory` that draws, and only on request."""

from __future__ import annotations

from pathlib import Path

from theory.command_line import InputError
from theory.predictions import Predictions

SUFFIXES = (".png", ".pdf", ".svg")


def plot_predictions(predictions: Predictions, file: Path) -> None:
    """Draws sharpness by layer and the amplitude at the edge over steps.

    Raises:
        InputError: the file's ending is not one of `SUFFIXES`, or it cannot be written.
    """
    if file.suffix not in SUFFIXES:
        raise InputError(f"--plot is {file}: give a file that ends in {', '.join(SUFFIXES)}")
    from matplotlib.figure import Figure

    curves = predictions.curves
    figure = Figure(figsize=(7.0, 2.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(curves.step, curves.sharpness, color="#222222", label="whole, flow")
    left.plot(curves.step, curves.first_layer, color="#009E73", label="first layer's block")
    left.plot(curves.step, curves.last_layer, color="#CC79A7", label="last layer's block")
    left.axhline(2 / predictions.lr, color="#999999", linestyle="--", label="2/η")
    left.set(xlabel="step (flow: time / η)", ylabel="sharpness λ", title=f"regime: {predictions.regime}")
    left.legend(fontsize="small", frameon=False)
    if curves.crossing_step is None:
        right.set_axis_off()
        right.text(0.5, 0.5, "no crossing of 2/η", ha="center", transform=right.transAxes)
    else:
        right.plot(curves.step, curves.edge_amplitude, color="#222222", label="s² = D/(αc)")
        onset = predictions["onset_step"]
        if onset is not None:
            right.axvline(onset, color="#D55E00", linestyle=":", label="onset, population")
        right.set(xlabel="step", ylabel="s² at the edge", yscale="log", title="amplitude at the edge of stability")
        right.legend(fontsize="small", frameon=False)
    try:
        figure.savefig(file, dpi=200)
    except OSError as error:
        raise InputError(f"--plot is {file}, which cannot be written ({error.strerror}): give another file") from None
