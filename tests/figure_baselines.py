"""Takes the pictures as they are now for the reviewed ones: ``PYTHONPATH=tests python -m figure_baselines F5 F15``.

``sweeps`` in place of a figure takes the small sweeps of F14 and F16 as they are now for those that the pictures draw
from. They are kept: another processor's last bits become visible in their numbers after some hundred steps.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import xarray as xr
from figure_runs import tiny_runs
from matplotlib.figure import Figure

from paper_figs.registry import FIGURES
from paper_figs.runs import Runs
from paper_figs.style import style

FOLDER = Path(__file__).parent / "paper_figs" / "baselines"
DPI = 60
KEPT = ("tail", "amplitude")


def save_baseline(name: str) -> None:
    """Draws a figure from the small runs."""
    path = FOLDER / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    save_small(FIGURES[name].draw(reviewed_runs()), path)


def reviewed_runs() -> Runs:
    """The small runs, with the kept sweeps as they were reviewed."""
    runs = tiny_runs()
    kept = {name: xr.Dataset.from_dict(json.loads((FOLDER / f"{name}.json").read_text())) for name in KEPT}
    return replace(runs, sweeps={**runs.sweeps, **kept})


def save_sweeps() -> None:
    """Keeps the small sweeps as they are now."""
    for name in KEPT:
        (FOLDER / f"{name}.json").write_text(json.dumps(tiny_runs().sweeps[name].to_dict()) + "\n")


def save_small(figure: Figure, path: Path) -> None:
    """Writes a figure as small as the reviewed ones are."""
    with style():
        figure.savefig(path, dpi=DPI, metadata={"Software": None})


if __name__ == "__main__":
    for word in sys.argv[1:]:
        save_sweeps() if word == "sweeps" else save_baseline(word)
