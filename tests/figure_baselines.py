"""Takes the pictures as they are now for the reviewed ones: ``cd tests && python -m figure_baselines F5 F15``."""

from __future__ import annotations

import sys
from pathlib import Path

from figure_runs import tiny_runs
from matplotlib.figure import Figure

from paper_figs.registry import FIGURES
from paper_figs.style import style

FOLDER = Path(__file__).parent / "paper_figs" / "baselines"
DPI = 60


def save_baseline(name: str) -> None:
    """Draws a figure from the small runs."""
    path = FOLDER / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    save_small(FIGURES[name].draw(tiny_runs()), path)


def save_small(figure: Figure, path: Path) -> None:
    """Writes a figure as small as the reviewed ones are."""
    with style():
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    for word in sys.argv[1:]:
        save_baseline(word)
