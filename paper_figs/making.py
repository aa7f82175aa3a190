"""Makes the runs that figures lack, through `sim` and `validate`; finished runs are read, not made again."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from paper_figs.entry import FigureEntry
from paper_figs.sources import Sources, StoredRun
from sim.progress import progress_bar
from sim.runs import list_runs, require_writable


def make_missing(root: Path, sources: Sources, entries: Iterable[FigureEntry], device: torch.device) -> None:
    """Makes what is missing, shortest first, so that most figures can be drawn early if it is interrupted.

    Args:
        root: folder of the run store.
        sources: the preset's runs.
        entries: the figures.
        device: where runs are made.
    """
    missing = missing_runs(root, sources, entries)
    if not missing:
        return
    require_writable(root)
    total = sum(run.seconds for run in missing)
    print(f"{len(missing)} runs to make, about {in_minutes(total)} on two cores: {', '.join(r.name for r in missing)}")
    with progress_bar(range(round(total)), "runs for the figures") as bar:
        for run in missing:
            bar.set_postfix_str(run.name)
            run.make(root, device)
            bar.update(round(run.seconds))
            if not sys.stderr.isatty():
                print(f"  made {run.name}", flush=True)


def missing_runs(root: Path, sources: Sources, entries: Iterable[FigureEntry]) -> list[StoredRun]:
    """The runs that some figures need, or add where they can, and that are not there, each once, shortest first."""
    there = list_runs(root)
    found = {run.name: run for entry in entries for run in sources.missing(entry, there)}
    return sorted(found.values(), key=lambda run: run.seconds)


def in_minutes(seconds: float) -> str:
    """A time for people.

    >>> in_minutes(40), in_minutes(90), in_minutes(5400)
    ('40 s', '2 min', '1.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
