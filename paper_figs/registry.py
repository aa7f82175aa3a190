"""Every figure: its number, what it shows, the claims behind it, the runs it needs, the functions that make it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from matplotlib.figure import Figure

from paper_figs import f01_group_losses, f08_two_layer, f09_layerwise
from paper_figs.runs import Runs


@dataclass(frozen=True)
class FigureEntry:
    """A figure.

    Attributes:
        name: its number.
        shows: what it shows, in a line.
        claims: the claims and statements behind it.
        needs: fields of `Runs` that it draws from.
        draw: makes it.
        caption: its caption, with the numbers that compare theory and measurement.
    """

    name: str
    shows: str
    claims: str
    needs: tuple[str, ...]
    draw: Callable[[Runs], Figure]
    caption: Callable[[Runs], str]


FIGURES = {
    entry.name: entry
    for entry in (
        FigureEntry(
            "F1",
            "total loss with the losses of paired groups, and their images",
            "C3, C4, C8",
            ("network", "images"),
            f01_group_losses.draw,
            f01_group_losses.caption,
        ),
        FigureEntry(
            "F8",
            "two-layer linear network: flow, descent and finite samples against the predicted curves",
            "T1, T6, T7, T8, T9",
            ("two_layer",),
            f08_two_layer.draw,
            f08_two_layer.caption,
        ),
        FigureEntry(
            "F9",
            "layerwise sharpness over training in theory, simulation and a real network",
            "C1, C9, T3",
            ("two_layer", "network"),
            f09_layerwise.draw,
            f09_layerwise.caption,
        ),
    )
}
