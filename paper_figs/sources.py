"""Which runs of the store stand for what a figure needs, and what makes them: commands of `sim` and `validate`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from paper_figs.entry import FigureEntry
from sim import obtain_run, run_two_layer
from sim.runs import obtain_resumable_run
from sim.sweeps import PhaseConfig, Study, TailConfig, make_sweep
from sim.sweeps.amplitude import AmplitudeConfig
from sim.sweeps.chebyshev import ChebyshevConfig
from theory.command_line import InputError
from validate.cifar10 import load_embedded
from validate.main_job import CONTROL_DIVISOR, PRESETS, TWO_LAYER_RUNS, two_layer_name
from validate.network_run import NetworkConfig, run_network

_QUICK_PHASE = PhaseConfig(betas=(0.5, 10.0), rows=200, lowest=0.4, highest=5.0, lrs=200, seeds=(0,), steps=1500)

SWEEPS: Mapping[str, tuple[tuple[Study, float], ...]] = {
    "quick": (
        (_QUICK_PHASE, 60),
        (TailConfig(), 25),
        (AmplitudeConfig(), 12),
        (ChebyshevConfig(), 10),
    ),
    "standard": (
        (replace(_QUICK_PHASE, rows=320, lrs=320, steps=4000), 400),
        (TailConfig(seeds=tuple(range(40))), 90),
        (AmplitudeConfig(seeds=tuple(range(24))), 40),
        (ChebyshevConfig(seeds=tuple(range(5))), 20),
    ),
    "paper": (
        (replace(_QUICK_PHASE, rows=400, lrs=400, steps=10000), 1500),
        (TailConfig(seeds=tuple(range(100)), examples=100_000), 1200),
        (AmplitudeConfig(seeds=tuple(range(50)), examples=100_000), 600),
        (ChebyshevConfig(seeds=tuple(range(10)), steps=4000), 80),
    ),
}
"""By preset, the sweeps that figures draw from, each with the seconds it takes on two cores, roughly."""


@dataclass(frozen=True)
class StoredRun:
    """A run that a figure draws from.

    Attributes:
        name: its folder in the run store.
        make: makes it there, or goes on with it; reads it where it is finished.
        seconds: what making it takes on two cores, roughly; for the time left only.
    """

    name: str
    make: Callable[[Path, torch.device], object]
    seconds: float


@dataclass(frozen=True)
class Sources:
    """The runs behind every need, at a preset.

    Attributes:
        preset: quick, standard or paper.

    Raises:
        InputError: there is no such preset.
    """

    preset: str = "quick"

    def __post_init__(self) -> None:
        if self.preset not in SWEEPS:
            raise InputError(f"--preset is {self.preset}: give one of {', '.join(SWEEPS)}")

    def of(self, need: str) -> tuple[StoredRun, ...] | None:
        """The runs of a need, one a seed where there are several; none for images; None where no command makes it.

        Args:
            need: as in `paper_figs.runs.Runs.get`.
        """
        kind, _, name = need.partition(".")
        if kind == "sweeps":
            return next(((self._sweep(s, t),) for s, t in SWEEPS[self.preset] if s.name == name), None)
        if kind == "networks":
            return self._networks(name)
        if need == "network":
            base = self._networks("base")
            return base and base[:1]
        if need == "two_layer":
            return (StoredRun(two_layer_name("default"), _make_two_layer, 10),)
        return ()

    def missing(self, entry: FigureEntry, there: Iterable[str]) -> list[StoredRun]:
        """The runs that a figure needs, or adds where it can, and that are not there."""
        found = set(there)
        runs = [run for need in (*entry.needs, *entry.optional) for run in self.of(need) or ()]
        return [run for run in runs if run.name not in found]

    def unmade(self, entry: FigureEntry) -> list[str]:
        """The needs of a figure that no command makes at this preset."""
        return [need for need in entry.needs if self.of(need) is None]

    def _sweep(self, study: Study, seconds: float) -> StoredRun:
        # Units are shared between presets; the data put together have a folder a preset.
        name = f"{study.name}-{self.preset}"
        return StoredRun(name, lambda runs, device: make_sweep(study, runs, device, name=name), seconds)

    def _networks(self, role: str) -> tuple[StoredRun, ...] | None:
        preset = PRESETS.get(self.preset)
        if preset is None or role not in ("base", "gentle"):
            return None
        configs = [preset.network_of(seed) for seed in preset.seeds]
        if role == "gentle":
            configs = [replace(c, lr=c.lr / CONTROL_DIVISOR, measure_every=20, blocks_every=0) for c in configs]
        return tuple(StoredRun(c.name, _make_network(c), 25) for c in configs)


def _make_two_layer(runs: Path, device: torch.device) -> None:
    config = TWO_LAYER_RUNS["default"]
    obtain_run(runs, two_layer_name("default"), config, lambda: run_two_layer(config, device), device=device)


def _make_network(config: NetworkConfig) -> Callable[[Path, torch.device], object]:
    def make(runs: Path, device: torch.device) -> None:
        images = load_embedded()
        obtain_resumable_run(
            runs, config.name, config, lambda run: run_network(config, images, device, run=run), device=device
        )

    return make
