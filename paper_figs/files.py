"""A figure as files: PDF, PNG and caption, with the runs behind it in the metadata; the same runs, the same bytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from paper_figs.entry import FigureEntry
from paper_figs.style import style
from sim.durable_files import write_durably
from sim.runs import Run

SUFFIXES = ("pdf", "png", "txt")


def write_figure(folder: Path, entry: FigureEntry, figure: Figure, caption: str, behind: Sequence[Run]) -> None:
    """Writes NAME.pdf, NAME.png and NAME.txt (the caption), each whole or not at all."""
    for suffix in ("pdf", "png"):
        drawn = io.BytesIO()
        with style():
            figure.savefig(drawn, format=suffix, metadata=metadata_of(suffix, entry, behind))
        write_durably(folder / f"{entry.name}.{suffix}", drawn.getbuffer())
    # A minus is not a hyphen: ranges are written with "to", and an exponent's sign follows a letter.
    text = re.sub(r"(?<!\w)-(?=[\d.])", "−", caption)
    write_durably(folder / f"{entry.name}.txt", f"{text}\n".encode())


def metadata_of(suffix: str, entry: FigureEntry, behind: Sequence[Run]) -> dict[str, str | None]:
    """Title, claims, and name, commit and configuration of each run, as the format has places for it.

    Args:
        suffix: pdf or png.
        entry: the figure.
        behind: the runs it is drawn from.
    """
    title = f"{entry.name}: {entry.shows}"
    runs = json.dumps([identify(run) for run in behind], ensure_ascii=True, separators=(",", ":"))
    if suffix == "pdf":
        # No date of creation: the same runs give the same bytes.
        return {"CreationDate": None, "Title": title, "Subject": f"claims: {entry.claims}", "Keywords": runs}
    return {"Software": None, "Title": title, "Claims": entry.claims, "Runs": runs}


def identify(run: Run) -> dict[str, Any]:
    """What it takes to make a run again."""
    return {"run": run.name, "commit": run.environment.get("commit", ""), "config": run.config}
