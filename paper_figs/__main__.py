"""Draws figures from finished runs: ``python -m paper_figs F8 --out figures/``. Never trains."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.registry import FIGURES
from paper_figs.runs import Runs
from paper_figs.style import style
from sim.durable_files import write_durably
from sim.runs import read_run, require_writable
from theory.command_line import InputError, main
from validate.cifar10 import load_embedded
from validate.main_job import PRESETS, two_layer_name

MADE_BY = "python -m validate"
_FIRST = PRESETS["quick"]


@dataclass(frozen=True)
class DrawConfig:
    """Draw figures from finished runs, as PDF and PNG with a caption beside them."""

    figures: Annotated[tuple[str, ...], tyro.conf.Positional] = tuple(FIGURES)
    """Numbers of the figures; all when none is named."""
    out: Path = Path("figures")
    """Folder to write."""
    runs: Path = Path("runs")
    """Folder of the run store."""
    network: str = _FIRST.network_of(_FIRST.seeds[0]).name
    """Name of the network's run."""
    two_layer: str = two_layer_name("default")
    """Name of the two-layer network's run."""


def draw_command(config: DrawConfig) -> int:
    """Draws the figures asked for."""
    for name in config.figures:
        if name not in FIGURES:
            raise InputError(f"there is no figure {name}: give one of {', '.join(FIGURES)}")
    entries = [FIGURES[name] for name in config.figures]
    runs = _read(config, {need for entry in entries for need in entry.needs})
    require_writable(config.out)
    for entry in entries:
        try:
            figure, caption = entry.draw(runs), entry.caption(runs)
        except ValueError as error:
            raise InputError(f"{entry.name} cannot be drawn: {error}") from None
        _save(config.out, entry, figure, caption)
        print(f"{config.out / entry.name}.pdf, .png, .txt: {entry.shows}")
    return 0


def list_command() -> int:
    """Lists every figure, what it shows and the claims behind it."""
    for entry in FIGURES.values():
        print(f"{entry.name:4} {entry.shows} ({entry.claims}); draws from: {', '.join(entry.needs)}")
    return 0


def _read(config: DrawConfig, needs: set[str]) -> Runs:
    network = read_run(config.runs, config.network, made_by=MADE_BY) if "network" in needs else None
    two_layer = read_run(config.runs, config.two_layer, made_by=MADE_BY) if "two_layer" in needs else None
    return Runs(
        network=network.data.load() if network else None,
        two_layer=two_layer.data.load() if two_layer else None,
        two_layer_config=two_layer.config if two_layer else None,
        images=load_embedded() if "images" in needs else None,
    )


def _save(folder: Path, entry: FigureEntry, figure: Figure, caption: str) -> None:
    """Writes the figure as PDF and PNG and its caption, each whole or not at all."""
    for suffix in ("pdf", "png"):
        # No creation date: the same runs give the same bytes.
        metadata = {"CreationDate": None} if suffix == "pdf" else {"Software": None}
        drawn = io.BytesIO()
        with style():
            figure.savefig(drawn, format=suffix, metadata={**metadata, "Title": f"{entry.name}: {entry.shows}"})
        write_durably(folder / f"{entry.name}.{suffix}", drawn.getbuffer())
    write_durably(folder / f"{entry.name}.txt", f"{caption}\n".encode())


if __name__ == "__main__":
    main(
        {"draw": draw_command, "list": list_command},
        prog="python -m paper_figs",
        description="Draw the figures from finished runs; never trains. Name figures to draw them, or list.",
        default="draw",
    )
