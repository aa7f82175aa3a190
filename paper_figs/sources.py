"""Which runs of the store stand for what a figure needs, and what makes them: commands of `sim` and `validate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch

from paper_figs.entry import FigureEntry
from sim import obtain_two_layer
from sim.runs import list_runs, read_run
from sim.sweeps import AmplitudeConfig, ChebyshevConfig, PhaseConfig, Study, TailConfig, make_sweep
from theory.command_line import InputError
from validate.cifar10 import Images, load_embedded, load_full
from validate.evidence import Store
from validate.plan import PlannedRun, derive, make_plan
from validate.prediction.job import ROLES as PREDICTION_ROLES
from validate.prediction.networks import FRESH_SEEDS, PREDICTION_NETWORKS
from validate.presets import PRESETS, TWO_LAYER_RUNS, two_layer_name
from validate.roles import ROLES, Base, Setting
from validate.windows import find_windows

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


NETWORK_SEEDS: Mapping[str, tuple[int, ...]] = {"quick": (10,), "standard": (10, 11, 12), "paper": (10, 11, 12)}
"""By preset, the seeds of the networks' runs; the same of every role and kind of network."""

PREDICTION_SEEDS: Mapping[str, tuple[int, ...]] = {
    "quick": FRESH_SEEDS[:1],
    "standard": FRESH_SEEDS,
    "paper": FRESH_SEEDS,
}
"""By preset, the seeds of the networks whose oscillation is predicted."""

_SECONDS_A_GRADIENT = {"mlp": 0.02, "vgg11": 0.04}
"""Of a network of the standard preset on two cores, roughly; for the time left only."""


@dataclass(frozen=True)
class StoredRun:
    """A run that a figure draws from.

    Attributes:
        name: its folder in the run store; what it is, in words, while that depends on a run that is not there.
        make: makes it there, or goes on with it; reads it where it is finished.
        seconds: what making it takes on two cores, roughly; for the time left only.
        derived: whether it is derived from another run, which is made first.
        revision: of what it holds (`sim.sweeps.Unit.revision`).
    """

    name: str
    make: Callable[[Path, torch.device], object]
    seconds: float
    derived: bool = False
    revision: int = 1


@dataclass(frozen=True)
class Sources:
    """The runs behind every need, at a preset, as the run store has them now.

    Attributes:
        runs: folder of the run store.
        preset: quick, standard or paper.
        data: folder of the full CIFAR-10; the embedded images when not given.

    Raises:
        InputError: there is no such preset.
    """

    runs: Path
    preset: str = "quick"
    data: Path | None = None

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
            return tuple(self._stored(run, self._setting(name)) for run in self._plan if run.role == name) or None
        if kind == "predictions":
            return self._predictions(name)
        if kind == "valleys":
            return self._valleys(name)
        if need == "network":
            return (self._main_job_network(),)
        if need == "two_layer":
            return (StoredRun(two_layer_name("default"), _make_two_layer, 10),)
        return ()

    def missing(self, entry: FigureEntry) -> list[StoredRun]:
        """The runs that a figure needs, or adds where it can, and that are not there."""
        runs = [run for need in (*entry.needs, *entry.optional) for run in self.of(need) or ()]
        return [run for run in runs if not self.has(run)]

    def has(self, run: StoredRun) -> bool:
        """Whether a run is finished, and holds what it does now."""
        return run.name in self.there and not outdated(self.runs, run.name, run.revision)

    def unmade(self, entry: FigureEntry) -> list[str]:
        """The needs of a figure that no command makes at this preset."""
        return [need for need in entry.needs if self.of(need) is None]

    def images(self) -> Images:
        """The images that the networks chose theirs from.

        Raises:
            InputError: the preset trains on more than the embedded ones, and no folder was given.
        """
        if self.data is not None:
            return load_full(self.data)
        if self.preset == "paper":
            raise InputError("preset paper trains on 50,000 images: give --data the folder of the full CIFAR-10")
        return load_embedded()

    @cached_property
    def there(self) -> frozenset[str]:
        """Names of the finished runs."""
        return frozenset(list_runs(self.runs))

    @cached_property
    def _plan(self) -> list[PlannedRun]:
        """Every run of every role that figures may ask for."""
        return [
            run
            for kind in ("mlp", "vgg11")
            for run in make_plan(
                self._setting_of_kind(kind), [role for role in ROLES if _kind(role) == kind], self.runs
            )
        ]

    def _predictions(self, name: str) -> tuple[StoredRun, ...] | None:
        """A network's base runs over step sizes and seeds, each before its study of the edge."""
        if name not in PREDICTION_NETWORKS:
            return None
        settings = PREDICTION_NETWORKS[name].settings(PREDICTION_SEEDS[self.preset])
        return tuple(
            self._stored(run, of_size)
            for of_size in settings.values()
            for run in make_plan(of_size, PREDICTION_ROLES, self.runs)
        )

    def _valleys(self, name: str) -> tuple[StoredRun, ...] | None:
        """The orbits that are there, in the valleys of those runs; ``validate predict --valley`` makes them."""
        bases = tuple(f"valley-{run.name}-step" for run in self._predictions(name) or ())
        found = sorted(run for run in self.there if run.startswith(bases))
        return tuple(map(finished_run, found)) or None

    def _setting(self, role: str) -> Setting:
        return self._setting_of_kind(_kind(role))

    def _setting_of_kind(self, kind: str) -> Setting:
        # The quick figures draw from the first seeds of the standard preset, whose runs are measured closely.
        preset = PRESETS["standard" if self.preset == "quick" else self.preset]
        # Of networks whose seeds have step sizes of their own, figures draw those roles alone that take another anyway.
        return replace(preset.setting(kind), seeds=NETWORK_SEEDS[self.preset], crossing=0)

    def _main_job_network(self) -> StoredRun:
        """The main job's run of the preset's first seed."""
        setting = next(iter(PRESETS[self.preset].settings.values()))
        setting = replace(setting, seeds=setting.seeds[:1])
        (planned,) = make_plan(setting, ("base",), self.runs)
        return self._stored(planned, setting)

    def _stored(self, planned: PlannedRun, setting: Setting) -> StoredRun:
        derived = ROLES[planned.role].derive_from_run is not None
        # Runs of one role and seed differ in their base run, such as its step size.
        name = planned.config.name if planned.config else f"({planned.role} of {setting.base(planned.seed).name})"
        seconds = planned.gradients * _SECONDS_A_GRADIENT.get(setting.network.architecture.kind, 0.1)
        make = partial(_make_network, self.images, planned.role, setting, planned.seed)
        return StoredRun(name, make, seconds, derived)

    def _sweep(self, study: Study, seconds: float) -> StoredRun:
        # Units are shared between presets; the data put together have a folder a preset.
        name = f"{study.name}-{self.preset}"

        def make(runs: Path, device: torch.device) -> object:
            return make_sweep(study, runs, device, name=name, force=outdated(runs, name, study.revision))

        return StoredRun(name, make, seconds, revision=study.revision)


def finished_run(name: str) -> StoredRun:
    """A run that is there and that nothing here makes."""
    return StoredRun(name, lambda runs, device: None, 0)


def outdated(runs: Path, name: str, revision: int) -> bool:
    """Whether a run is there and holds what runs of its configuration held before."""
    return revision > 1 and name in list_runs(runs) and read_run(runs, name).config.get("revision", 1) != revision


def _kind(role: str) -> str:
    """Kind of network that a role is drawn on: the multilayer perceptron where it has the role."""
    kinds = ROLES[role].kinds if role in ROLES else None
    return "mlp" if kinds is None or "mlp" in kinds else kinds[0]


def _make_network(
    images: Callable[[], Images], role: str, setting: Setting, seed: int, runs: Path, device: torch.device
) -> None:
    store, base = Store(runs, images(), device), None
    if ROLES[role].derive_from_run is not None:
        data = store.obtain(setting.base(seed), None).data
        if (windows := find_windows(data)) is None:
            return  # never crosses 2/η: nothing to derive the run from
        base = Base(data, windows)
    config = derive(role, setting, seed, base)
    assert config is not None
    store.obtain(config, base)


def _make_two_layer(runs: Path, device: torch.device) -> None:
    obtain_two_layer(runs, two_layer_name("default"), TWO_LAYER_RUNS["default"], device)
