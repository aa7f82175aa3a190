"""Makes the runs of a plan, or reads those that are there, and puts together what claims are judged on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from sim import TwoLayerConfig, obtain_run, obtain_two_layer
from sim.runs import Run, list_runs, obtain_resumable_run, require_writable
from validate.cifar10 import Images
from validate.claims import Evidence, NetworkEvidence
from validate.edge_study import EdgeConfig, study_edge
from validate.near_flow import NearFlowConfig, near_flow
from validate.network_run import NetworkConfig, run_network
from validate.plan import PlannedRun, derive
from validate.presets import TWO_LAYER_RUNS, two_layer_name
from validate.roles import ROLES, Base, RunConfig, Setting
from validate.whole_loss import WholeLossConfig, measure_whole_loss
from validate.windows import find_windows


@dataclass(frozen=True)
class Store:
    """Where runs are kept and made.

    Attributes:
        runs: folder of the run store.
        images: what networks are trained on.
        device: where.
        force: makes every run again.
    """

    runs: Path
    images: Images
    device: torch.device
    force: bool = False

    def has(self, name: str) -> bool:
        """Whether a run is finished."""
        return name in list_runs(self.runs)

    def obtain(self, config: RunConfig, base: Base | None) -> Run:
        """A run of a network: read, gone on with, or made.

        Args:
            config: the run.
            base: the finished base run that it is derived from, for those that are.
        """
        if not isinstance(config, NetworkConfig):
            return obtain_run(
                self.runs,
                config.name,
                config,
                lambda: self._study(config, base),
                device=self.device,
                force=self.force,
            )
        start = _start(config, base)
        return obtain_resumable_run(
            self.runs,
            config.name,
            config,
            lambda run: run_network(config, self.images, self.device, run=run, start=start),
            device=self.device,
            force=self.force,
        )

    def _study(self, config: EdgeConfig | WholeLossConfig | NearFlowConfig, base: Base | None) -> xr.Dataset:
        """What is made in one go."""
        if isinstance(config, NearFlowConfig):
            return near_flow(config, self.images, self.device)
        if isinstance(config, WholeLossConfig):
            return measure_whole_loss(config, self.images, self.device, start=_start(config.network, base))
        assert base is not None
        return study_edge(config, base.data, self.images, self.device)

    def with_step_sizes(self, setting: Setting, *, make: bool = True) -> Setting:
        """The setting with each seed's own step size, where it asks for them.

        Args:
            setting: of the network.
            make: whether to make the runs near gradient flow that are not there; else their seeds keep the network's
                step size.
        """
        if not setting.crossing:
            return setting
        sizes: dict[int, float] = {}
        for seed, config in zip(setting.seeds, near_flows(setting), strict=True):
            if make or self.has(config.name):
                sizes[seed] = float(self.obtain(config, None).data.attrs["lr"])
                print(f"  seed {seed}: η = {sizes[seed]:g}, to cross 2/η at about step {setting.crossing}", flush=True)
            else:
                print(f"  seed {seed}: its step size is chosen once its run near gradient flow is made", flush=True)
        return replace(setting, step_sizes=sizes)

    def simulate(self) -> dict[str, tuple[TwoLayerConfig, Run]]:
        """The runs of the two-layer network by name."""
        return {
            name: (
                config,
                obtain_two_layer(self.runs, two_layer_name(name), config, self.device, force=self.force),
            )
            for name, config in TWO_LAYER_RUNS.items()
        }

    def train(self, kind: str, setting: Setting, plan: Sequence[PlannedRun]) -> tuple[Evidence, list[Run]]:
        """Evidence on a kind of network, and its runs; tells on the terminal what it makes and the time left.

        Args:
            kind: kind of network.
            setting: of the network.
            plan: of `validate.plan.make_plan`: every role of it is made for every seed of the setting.
        """
        roles = tuple(dict.fromkeys(run.role for run in plan))
        clock = _Clock(plan, self.force)
        evidence: list[NetworkEvidence] = []
        made: list[Run] = []
        for seed in setting.seeds:
            base: Base | None = None
            runs: dict[str, Run] = {}
            for role in roles:
                config = derive(role, setting, seed, base)
                if config is None:
                    clock.skip(role, seed)
                    continue
                clock.begin(config.name, role, seed)
                runs[role] = run = self.obtain(config, base)
                clock.end(role, seed, run)
                if role == "base" and (windows := find_windows(run.data)) is not None:
                    base = Base(run.data, windows)
            data = {role: run.data for role, run in runs.items()}
            evidence.append(_of_seed(seed, data, base))
            made += runs.values()
        return Evidence(evidence, kind=kind), made


def _start(config: NetworkConfig, base: Base | None) -> npt.NDArray[np.float32] | None:
    """Weights of the base run's snapshot at which a run begins; None for the seed's own."""
    if not config.start_step:
        return None
    assert base is not None
    weights: npt.NDArray[np.float32] = base.data["snapshot"].sel(snapshot_step=config.start_step).values
    return weights


def near_flows(setting: Setting) -> list[NearFlowConfig]:
    """The runs near gradient flow that choose the seeds' step sizes, a seed each; none where nothing is chosen."""
    seeds = setting.seeds if setting.crossing else ()
    return [NearFlowConfig.of(replace(setting.network, seed=seed), setting.crossing) for seed in seeds]


def open_store(
    runs: Path, report: Path, images: Images, device: torch.device, *, force: bool, plan_only: bool = False
) -> Store:
    """The store of a command, which refuses a folder that it cannot write to before it makes anything.

    Args:
        runs: where runs are kept.
        report: where the command's report goes.
        images: what networks are trained on.
        device: where.
        force: makes every run again.
        plan_only: nothing is to be made or written.

    Raises:
        InputError: runs or report cannot be written to; a store that holds runs is asked when one is to be made, so
            that a complete one serves where it cannot be written to.
    """
    if not plan_only:
        if force or not list_runs(runs):
            require_writable(runs)
        require_writable(report)
    return Store(runs, images, device, force and not plan_only)


def _of_seed(seed: int, runs: dict[str, xr.Dataset], base: Base | None) -> NetworkEvidence:
    if base is not None:
        return NetworkEvidence(seed, runs, base.windows)
    impossible = frozenset(name for name, role in ROLES.items() if role.derive_from_run is not None)
    return NetworkEvidence(seed, runs, None, impossible)


class _Clock:
    """Lines of progress over a whole plan, with the time left: what is made so far, over what it was to cost."""

    def __init__(self, plan: Sequence[PlannedRun], force: bool) -> None:
        self._left = {(run.role, run.seed): run.gradients for run in plan if force or not run.exists}
        self._count, self._number = len(plan), 0
        self._done, self._seconds, self._begun = 0.0, 0.0, 0.0

    def begin(self, name: str, role: str, seed: int) -> None:
        self._number += 1
        self._begun = time.monotonic()
        if (role, seed) in self._left:
            words = f"  run {self._number} of {self._count}, {role}: {name}"
            if self._done:
                minutes = sum(self._left.values()) * self._seconds / self._done / 60
                words += f"; {self._seconds / 60:.0f} min done, about {minutes:.0f} min left"
            print(words, flush=True)

    def end(self, role: str, seed: int, run: Run) -> None:
        if (cost := self._left.pop((role, seed), None)) is not None:
            self._done += cost
            self._seconds += time.monotonic() - self._begun
        print(f"  {network_line(run)}", flush=True)

    def skip(self, role: str, seed: int) -> None:
        self._number += 1
        self._left.pop((role, seed), None)
        print(f"  seed {seed} has no run {role}: its base run does not cross 2/η with room for the windows", flush=True)


def network_line(run: Run) -> str:
    """A run in a line: name, mean loss at the start and the end, seconds, divergence."""
    loss = run.data["loss"]
    ends = (float(loss[i].mean()) for i in (0, -1))
    words = f"{run.name}: loss {' → '.join(f'{end:.2f}' for end in ends)}, {run.environment['seconds']:.0f} s"
    diverged = run.data.attrs["diverged_at"]
    return words if diverged < 0 else f"{words}, DIVERGED at step {diverged}, last finite weights kept"
