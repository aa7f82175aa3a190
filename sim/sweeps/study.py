"""What every sweep shares: units through the run store → one data set in it → a table; a killed sweep goes on.

    runs/<study>-units/<label>-<digest>/   a unit; the digest is of its whole configuration, so that units of different
                                           sweeps stand side by side, and a sweep that is extended makes only new ones
    runs/<study>/                          the units' data put together

Both are runs of the store: a kill at any moment loses at most the unit in flight, and the table is printed from what
is stored. Under `torchrun` each rank makes its share of the units; each unit is made by one rank alone, so that the
numbers do not depend on how many there are.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, TypeVar

import torch
import xarray as xr

from sim.distributed import from_first, is_first, sharing
from sim.progress import progress_bar
from sim.runs import obtain_run, require_writable
from sim.runs.reading import fields_of

T = TypeVar("T")


class Unit(ABC):
    """The part of a sweep that is made in one go, usually in one batch. A frozen dataclass: all that its data need."""

    revision: ClassVar[int] = 1
    """Goes up when the same fields give data of another meaning, so that what was made before is not read as that."""

    @property
    @abstractmethod
    def label(self) -> str:
        """Short name for its folder."""

    @abstractmethod
    def run(self, device: torch.device) -> xr.Dataset:
        """Makes its data, in float64, on the device; the same bits each time."""


class Study(ABC):
    """A sweep's configuration. A frozen dataclass whose docstring and fields make the command line."""

    name: ClassVar[str]
    """Name of the command, and of the data set's folder in the run store."""

    @abstractmethod
    def units(self) -> Sequence[Unit]:
        """Its units, all different."""

    @property
    def revision(self) -> int:
        """Its units'."""
        return max(unit.revision for unit in self.units())

    @abstractmethod
    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """Puts the data of `units`, in that order, together."""

    @abstractmethod
    def table(self, data: xr.Dataset) -> str:
        """Says where theory and simulation agree and by how much."""


def make_sweep(
    study: Study,
    runs: Path,
    device: torch.device,
    *,
    name: str | None = None,
    force: bool = False,
    progress: bool = True,
) -> xr.Dataset:
    """Makes the units that are not there yet, and stores their data together.

    Args:
        study: the sweep.
        runs: folder of the run store; what is finished in it is read.
        device: where units are made.
        name: name of the data set's folder; the study's when not given.
        force: makes every unit again.
        progress: whether to show a progress bar with an estimate of the time left.

    Raises:
        InputError: the folder cannot be written, another process makes the same unit, or the data set is there with
            another configuration.
    """
    name = study.name if name is None else name
    require_writable(runs)
    if from_first(force or not (runs / name).is_dir()):
        with sharing(study.units()) as mine:
            for unit in progress_bar(mine, f"sweep {study.name}", show=progress and is_first()):
                _obtain(study, unit, runs, device, force=force)

    def together() -> xr.Dataset:
        return study.combine([_obtain(study, unit, runs, device, force=False) for unit in study.units()])

    return obtain_run(runs, name, study, together, device=device, force=force).data.load()


def _obtain(study: Study, unit: Unit, runs: Path, device: torch.device, *, force: bool) -> xr.Dataset:
    name = f"{unit.label}-{_digest(unit)}"
    run = obtain_run(runs / f"{study.name}-units", name, unit, lambda: unit.run(device), device=device, force=force)
    return run.data.load().drop_encoding()


def _digest(unit: Unit) -> str:
    return hashlib.sha256(json.dumps(fields_of(unit)).encode()).hexdigest()[:8]
