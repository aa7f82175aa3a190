"""Small sweeps of every study that a test kills and lets go on; imported by the processes it forks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from forked import count_into, die_at

from sim.sweeps import (
    AmplitudeConfig,
    ChebyshevConfig,
    OptimisersConfig,
    PhaseConfig,
    SampleSizeConfig,
    ShapeConfig,
    Study,
    TailConfig,
    make_sweep,
)

SMALL: dict[str, Study] = {
    "phase": PhaseConfig(betas=(2.0, 3.0, 4.0), lrs=3, seeds=(0, 1), d1=5, steps=60),
    "tail": TailConfig(tail_indices=(2.5, 8.0), fractions=(0.1, 0.3), seeds=(0, 1), examples=900, d1=3, steps=200),
    "sample_size": SampleSizeConfig(
        examples=(200, 400, 800), tail_indices=(float("inf"), 3.0), seeds=(0, 1), d1=3, steps=40
    ),
    "shape": ShapeConfig(widths=(1, 2), depths=(2, 3), spreads=(0.1,), seeds=(0, 1), d1=4, steps=120),
    "optimisers": OptimisersConfig(
        rules=("gd", "adam", "split_sgd"), seeds=(0, 1), choices=4, examples=900, d1=3, steps=250
    ),
    "amplitude": AmplitudeConfig(
        spike_lrs=(0.045,), edge_lrs=(0.08, 0.09), seeds=(0, 1), examples=900, spike_steps=150, edge_steps=80
    ),
    "chebyshev": ChebyshevConfig(examples=10, hidden=(6,), steps=21, seeds=(0, 1)),
}


def make(root: Path, name: str) -> None:
    """Makes the sweep, or goes on with it, and writes its table beside the store."""
    torch.set_num_threads(1)
    data = make_sweep(SMALL[name], root, torch.device("cpu"), progress=False)
    (root.parent / f"{root.name}.txt").write_text(SMALL[name].table(data))


def make_until(root: Path, name: str, events: int) -> None:
    """Makes the sweep, and kills its own process at the given file operation on the run store, counted from 1."""
    die_at(root, events)
    make(root, name)


def count_events(root: Path, name: str, total: Any) -> None:
    """Makes the sweep, and says how many file operations it took."""
    count_into(root, total)
    make(root, name)
