"""Makes the runs that figures lack, through `sim` and `validate`; finished runs are read, not made again."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import torch

from paper_figs.entry import FigureEntry
from paper_figs.sources import Sources, StoredRun
from sim.progress import progress_bar
from sim.runs import require_writable


def make_missing(sources: Sources, entries: Iterable[FigureEntry], device: torch.device) -> None:
    """Makes what is missing, shortest first, so that most figures can be drawn early if it is interrupted.

    Args:
        sources: the preset's runs and the store.
        entries: the figures.
        device: where runs are made.
    """
    missing = missing_runs(sources, entries)
    if not missing:
        return
    require_writable(sources.runs)
    total = sum(run.seconds for run in missing)
    print(f"{len(missing)} runs to make, about {in_minutes(total)} on two cores: {', '.join(r.name for r in missing)}")
    with progress_bar(range(round(total)), "runs for the figures") as bar:
        for run in missing:
            bar.set_postfix_str(run.name)
            run.make(sources.runs, device)
            bar.update(round(run.seconds))
            if not sys.stderr.isatty():
                print(f"  made {run.name}", flush=True)


def missing_runs(sources: Sources, entries: Iterable[FigureEntry]) -> list[StoredRun]:
    """The runs that some figures need, or add where they can, and that are not there, each once.

    Shortest first; those that are derived from others last.
    """
    found = {run.name: run for entry in entries for run in sources.missing(entry)}
    return sorted(found.values(), key=lambda run: (run.derived, run.seconds))


def in_minutes(seconds: float) -> str:
    """A time for people.

    >>> in_minutes(40), in_minutes(90), in_minutes(5400)
    ('40 s', '2 min', '1.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
