"""The figures' look: a style sheet used as a context, and colours that stay apart for colour-blind readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

SINGLE_COLUMN, DOUBLE_COLUMN = 3.4, 7.0
"""Widths in inches."""

# Okabe & Ito's palette.
THEORY = "#222222"
TOTAL = "#555555"
POSITIVE, NEGATIVE = "#D55E00", "#0072B2"
LAYERS = ("#009E73", "#E69F00", "#CC79A7")
SAMPLES = ("#56B4E9", "#0072B2", "#004B7A")
THRESHOLD = {"color": "#999999", "linestyle": (0, (4, 2)), "linewidth": 1.0, "zorder": 0}


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside have the package's look; nothing outside changes."""
    with plt.style.context(str(Path(__file__).parent / "opposing.mplstyle")):
        yield


def threshold_line(axes: Axes, value: float, label: str | None = None) -> None:
    """The dashed line of a stability threshold."""
    axes.axhline(value, label=label, **THRESHOLD)  # type: ignore[arg-type]
