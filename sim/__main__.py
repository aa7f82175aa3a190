"""Simulates: ``python -m sim two-layer --alpha 20 --beta 3 --lr 0.04``, ``python -m sim sweep phase``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import tyro

from sim.device import choose_device
from sim.distributed import processes
from sim.sweeps import STUDIES, Study, make_sweep
from sim.two_layer import TwoLayerConfig, obtain_two_layer
from theory.command_line import main

S = TypeVar("S", bound=Study)


@dataclass(frozen=True)
class TwoLayerCommand:
    """Descend the two-layer linear network on population and finite samples, beside the flow; store the run."""

    name: str = "two-layer"
    """Name of the run's folder."""
    run: tyro.conf.OmitArgPrefixes[TwoLayerConfig] = field(default_factory=TwoLayerConfig)
    """The run."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Folder of the run store."""
    force: bool = False
    """Make the run again if it is finished."""


def two_layer_command(command: TwoLayerCommand) -> int:
    """Makes one run and prints its data set."""
    device = choose_device(command.device)
    run = obtain_two_layer(command.runs, command.name, command.run, device, force=command.force)
    print(run.data)
    return 0


@dataclass(frozen=True)
class SweepCommand(Generic[S]):
    """A sweep: finished units are read, an interrupted sweep goes on from them; ends in a table.

    The units' data together are the run `--name` of the store. Under `torchrun` each rank makes its share of the units.
    """

    sweep: tyro.conf.OmitArgPrefixes[S]
    """The sweep."""
    name: str | None = None
    """Name of the folder that the sweep's data go to; the sweep's own when not given."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Folder of the run store."""
    force: bool = False
    """Make every unit again, finished or not."""


def _sweep_command(study: type[Study]) -> Callable[..., int]:
    """The command of one study: makes the units that are not there yet and prints the table."""

    def command(command: SweepCommand[Study]) -> int:
        device = choose_device(command.device)
        data = make_sweep(command.sweep, command.runs, device, name=command.name, force=command.force)
        print(command.sweep.table(data))
        return 0

    command.__annotations__["command"] = SweepCommand[study]  # type: ignore[valid-type]
    command.__doc__ = study.__doc__
    return command


SWEEPS = {study.name: _sweep_command(study) for study in STUDIES}
"""The command of every study."""


if __name__ == "__main__":
    with processes():
        main(
            {"two-layer": two_layer_command, "sweep": SWEEPS},
            prog="python -m sim",
            description="Simulations of opposing features; results go to the run store, finished runs are skipped.",
        )
