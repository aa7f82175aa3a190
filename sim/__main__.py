"""Simulates: ``python -m sim two-layer --alpha 20 --beta 3 --lr 0.04``, ``python -m sim sweep phase``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from sim.device import choose_device
from sim.runs import obtain_run
from sim.sweep import PhaseConfig, phase_table, sweep_phase
from sim.two_layer import TwoLayerConfig, run_two_layer
from theory.command_line import main


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
    run = obtain_run(
        command.runs,
        command.name,
        command.run,
        lambda: run_two_layer(command.run, device),
        device=device,
        force=command.force,
    )
    print(run.data)
    return 0


@dataclass(frozen=True)
class PhaseCommand:
    """Phase diagram over (η, α‖β‖): converges, oscillates or diverges, beside the theory's boundaries.

    Each ‖β‖ is one run of the store; an interrupted sweep goes on from those that are finished.
    """

    sweep: tyro.conf.OmitArgPrefixes[PhaseConfig] = field(default_factory=PhaseConfig)
    """The sweep."""
    device: str = "auto"
    """auto, cpu or cuda."""
    runs: Path = Path("runs")
    """Folder of the run store."""
    force: bool = False
    """Make every unit again, finished or not."""


def phase_command(command: PhaseCommand) -> int:
    """Makes the sweep's units that are not there yet and prints the table."""
    data = sweep_phase(command.sweep, command.runs, choose_device(command.device), force=command.force)
    print(phase_table(data, command.sweep.alpha))
    return 0


if __name__ == "__main__":
    main(
        {"two-layer": two_layer_command, "sweep": {"phase": phase_command}},
        prog="python -m sim",
        description="Simulations of opposing features; results go to the run store, finished runs are skipped.",
    )
