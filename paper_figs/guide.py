"""The documentation's page of figures: docs/figures.md with small pictures and the captions of the runs drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from paper_figs.entry import FigureEntry
from paper_figs.small_pictures import small_picture
from sim.durable_files import write_durably
from sim.runs import require_writable
from theory.command_line import InputError

WIDTH = 840
"""Pixels of a picture."""

HEAD = """# Figures

Small copies of what `python -m paper_figs all --preset quick` draws, with the captions that it writes from its runs. A
figure may be drawn from more runs than that preset makes, by `draw --preset standard`: its caption says from how many.
This page is written by `python -m paper_figs guide`. `python -m paper_figs list` says which runs a figure draws from
and whether they are there; `all --preset standard` and `--preset paper` draw the same from more seeds, larger sweeps
and more steps. Theory is dark, measurement in colour, thresholds dashed. The paper's own learning rates, widths and
step counts are not known to us: these are ours. What is judged, by which thresholds and on which seeds: claims.md and
prediction.md.
"""


def write_guide(figures: Path, docs: Path, entries: Sequence[FigureEntry]) -> None:
    """Writes figures.md and the pictures beside it.

    Args:
        figures: folder of the drawn figures.
        docs: folder that gets figures.md and pictures/F….png.
        entries: all figures, in order; those not drawn are named as such.

    Raises:
        InputError: no figure is drawn, or the folder cannot be written.
    """
    drawn = [entry for entry in entries if (figures / f"{entry.name}.png").is_file()]
    if not drawn:
        raise InputError(f"{figures} has no figures: draw them with python -m paper_figs all")
    require_writable(docs / "pictures")
    parts = [HEAD]
    for entry in entries:
        parts.append(f"## {entry.name}: {entry.shows}\n")
        if entry not in drawn:
            parts.append(f"Not drawn here: it draws from {', '.join(entry.needs)}.\n")
            continue
        picture = docs / "pictures" / f"{entry.name}.png"
        write_durably(picture, small_picture(figures / f"{entry.name}.png", WIDTH))
        caption = (figures / f"{entry.name}.txt").read_text().strip()
        parts.append(f"![{entry.name}](pictures/{entry.name}.png)\n\n{caption} *Behind it: {entry.claims}.*\n")
    write_durably(docs / "figures.md", "\n".join(parts).encode())
