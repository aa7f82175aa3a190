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


def write_figure(folder: Path, entry: FigureEntry, figure: Figure, caption: str, behind: Sequence[Run]) -> None:
    """Writes NAME.txt (the caption), NAME.pdf and NAME.png, of one drawing or not at all.

    Without its PNG a figure counts as not drawn: an earlier one goes first and the new one comes last, so that no
    picture stands beside the caption of another.
    """
    # A minus is not a hyphen: ranges are written with "to", and an exponent's sign follows a letter.
    contents = {"txt": re.sub(r"(?<!\w)-(?=[\d.])", "−", caption).encode() + b"\n"}
    for suffix in ("pdf", "png"):
        drawn = io.BytesIO()
        with style():
            figure.savefig(drawn, format=suffix, metadata=metadata_of(suffix, entry, behind))
        contents[suffix] = drawn.getvalue()
    remove_figure(folder, entry)
    for suffix, content in contents.items():
        write_durably(folder / f"{entry.name}.{suffix}", content)


def remove_figure(folder: Path, entry: FigureEntry) -> None:
    """Removes a figure's files, where there are any, the picture first."""
    for suffix in ("png", "pdf", "txt"):
        (folder / f"{entry.name}.{suffix}").unlink(missing_ok=True)


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
