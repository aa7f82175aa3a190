"""Treated runs beside the base run of their seed, with what each came to on the examples that no choice touches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from validate.cifar10 import Images
from validate.claims import NetworkEvidence
from validate.equal_loss import first_at_or_below, least_loss, mean_losses
from validate.evidence import Store
from validate.interventions import Indices
from validate.network_run import NetworkConfig
from validate.outcome import Outcome, outcome
from validate.plan import derive
from validate.roles import Base, Setting, treated_examples
from validate.side_by_side import make_each_ahead
from validate.treatments import CHOICES, CONTROLS, TREATMENTS, Treatment, late_start
from validate.whole_loss import WholeLossConfig
from validate.windows import Windows


@dataclass(frozen=True)
class Treated:
    """A treated run beside its base run.

    Attributes:
        treatment: what was done.
        run: the treated run.
        outcome: what it came to.
        base: the base run.
        base_outcome: what that came to; spikes and least loss are counted from `start` on.
        windows: the base run's windows.
        start: step of the base run at which the treated run begins.
        untouched: (n,) examples that no choice touches, whose losses are compared.
        whole_sharpness: sharpness of the loss of all examples, untreated, at the step of equal loss; NaN where it is
            not measured.
    """

    treatment: Treatment
    run: xr.Dataset
    outcome: Outcome
    base: xr.Dataset
    base_outcome: Outcome
    windows: Windows
    start: int
    untouched: npt.NDArray[np.bool_]
    whole_sharpness: float = float("nan")

    @property
    def level(self) -> float:
        """Loss of the untouched examples at which runs are compared: the base run's when it crosses 2/η."""
        # There a late treatment has hardly begun: it is looked at 75 steps further.
        reached = self.windows.select.stop if self.treatment.late else self.windows.crossing + 1
        return least_loss(self.base, self.untouched, reached)


@dataclass(frozen=True)
class SeedRuns:
    """The runs of a seed.

    Attributes:
        seed: the seed.
        base: what the base run came to, on the untouched examples, from the start on.
        shared: control → share of the opposing examples that are among its examples too.
        treated: (key of `TREATMENTS`, choice) → the treated run.
    """

    seed: int
    base: Outcome
    shared: Mapping[str, float]
    treated: Mapping[tuple[str, str], Treated]


def seed_runs(
    setting: Setting, evidence: NetworkEvidence, names: Sequence[str], held: Images, device: torch.device
) -> SeedRuns | None:
    """The treated runs of a seed; None where its base run has no windows, so that there are no opposing examples.

    Args:
        setting: of the network.
        evidence: with the roles of the treatments, each on every choice.
        names: keys of `TREATMENTS`.
        held: images that no run saw.
        device: where networks are evaluated.
    """
    if (windows := evidence.windows) is None:
        return None
    config = setting.base(evidence.seed)
    chosen = treated_examples(setting, Base(evidence.run, windows), evidence.seed)
    untouched = np.ones(evidence.run.sizes["example"], dtype=bool)
    for examples in chosen.values():
        untouched[examples] = False

    def came_to(run: xr.Dataset, begin: int = 0, taken: int = 0) -> Outcome:
        return outcome(config, run, held, device, examples=untouched, begin=begin, taken=taken)

    late = late_start(config, windows) if any(TREATMENTS[name].late for name in names) else 0
    base = {start: came_to(evidence.run, start) for start in sorted({0, late})}
    treated = {}
    for name in names:
        treatment = TREATMENTS[name]
        start = late if treatment.late else 0
        for choice in CHOICES:
            run = evidence.runs[treatment.role_of(choice)]
            treated[name, choice] = Treated(
                treatment, run, came_to(run, taken=start), evidence.run, base[start], windows, start, untouched
            )
    return SeedRuns(evidence.seed, base[0], {c: _shared(chosen, c) for c in CONTROLS}, treated)


def with_whole_losses(store: Store, jobs: int, setting: Setting, seeds: Sequence[SeedRuns]) -> list[SeedRuns]:
    """The same, with the sharpness of the loss of all examples measured where each treated run has the level's loss.

    Args:
        store: where the measurements are kept and made.
        jobs: number of processes that make them.
        setting: of the network.
        seeds: the treated runs.
    """
    wanted: dict[tuple[int, str, str], WholeLossConfig] = {}
    for runs in seeds:
        for (name, choice), of in runs.treated.items():
            step = first_at_or_below(mean_losses(of.run, of.untouched), of.level)
            if step:  # none of a run that does not get there, nor at the seed's own weights
                config = derive(of.treatment.role_of(choice), setting, runs.seed, Base(of.base, of.windows))
                assert isinstance(config, NetworkConfig)
                wanted[runs.seed, name, choice] = WholeLossConfig(config, step)
    base_configs = [setting.base(seed) for seed, _, _ in wanted]
    store = make_each_ahead(store, jobs, list(wanted.values()), base_configs)
    found = []
    for runs in seeds:
        treated = dict(runs.treated)
        for (name, choice), of in runs.treated.items():
            if (config := wanted.get((runs.seed, name, choice))) is not None:
                data = store.obtain(config, Base(of.base, of.windows)).data
                treated[name, choice] = replace(of, whole_sharpness=float(data["sharpness"]))
        found.append(replace(runs, treated=treated))
    return found


def _shared(chosen: Mapping[str, Indices], control: str) -> float:
    return float(np.isin(chosen["opposing"], chosen[control]).mean())
