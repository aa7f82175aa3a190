"""What interventions do, relative to the base run of the same seed, and how far opposing examples differ from controls.

Values are paired over seeds; the intervals are those of claims. No threshold is set and nothing is judged: these are
effect sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from validate.cifar10 import Images
from validate.claims import Evidence
from validate.claims.base import mean_interval
from validate.equal_loss import sharpness_at_loss, sharpness_ratio
from validate.roles import Setting
from validate.treated_runs import SeedRuns, Treated, seed_runs
from validate.treatments import CHOICES, TREATMENTS

_SAME = 1e-9


@dataclass(frozen=True)
class Measure:
    """A measure of a treated run relative to its base run.

    Attributes:
        words: what it is.
        of: its value.
        late_only: whether it is defined for late treatments alone.
    """

    words: str
    of: Callable[[Treated], float]
    late_only: bool = False


def _sharpness(treated: Treated) -> float:
    return sharpness_ratio(treated.run, treated.base, treated.level, treated.untouched)


def _whole_loss(treated: Treated) -> float:
    return treated.whole_sharpness / sharpness_at_loss(treated.base, treated.level, treated.untouched)


def _at_the_same_weights(treated: Treated) -> float:
    """NaN where the base run's sharpness was not measured at the weights that the treatment begins at."""
    base = treated.base["sharpness_iterate"].values[treated.base["measured"].values == treated.start]
    return float(treated.run["sharpness_iterate"].values[0] / base[0]) if base.size else float("nan")


def _crossing(treated: Treated) -> float:
    own, of_base = treated.outcome.crossing, treated.base_outcome.crossing
    if of_base is None:
        return float("nan")
    return (treated.start + (treated.run.sizes["step"] if own is None else own)) / of_base


MEASURES: Mapping[str, Measure] = {
    "sharpness": Measure("sharpness at equal loss, ratio", _sharpness),
    "whole_loss": Measure("sharpness of the untreated loss at equal loss, ratio", _whole_loss),
    "same_weights": Measure("sharpness at the same weights, ratio", _at_the_same_weights, late_only=True),
    "crossing": Measure("step of the crossing of 2/η, ratio", _crossing),
    "spikes": Measure("spikes, difference", lambda t: float(t.outcome.spikes - t.base_outcome.spikes)),
    "accuracy": Measure("held-out accuracy, points", lambda t: 100 * (t.outcome.accuracy - t.base_outcome.accuracy)),
    "least_loss": Measure(
        "least loss of the untouched, ratio", lambda t: t.outcome.least_loss / t.base_outcome.least_loss
    ),
}
"""Each relative to the base run of the same seed."""


@dataclass(frozen=True)
class Effect:
    """A measure of a treatment.

    Attributes:
        treatment: key of `TREATMENTS`.
        measure: key of `MEASURES`.
        values: choice → one value a seed, NaN where it is not defined.
    """

    treatment: str
    measure: str
    values: Mapping[str, tuple[float, ...]]

    def interval(self, choice: str) -> tuple[float, float]:
        """90 % interval of the mean over seeds."""
        return mean_interval(self.values[choice])

    def differences(self, control: str) -> tuple[float, ...]:
        """Opposing less control, one value a seed."""
        return tuple(a - b for a, b in zip(self.values["opposing"], self.values[control], strict=True))

    def tells_apart(self, control: str) -> bool | None:
        """Whether the differences' interval leaves out 0; None where there is none.

        That is with one seed, with an undefined one, and where all differences are the same, which says nothing of how
        they scatter.
        """
        differences = self.differences(control)
        low, high = mean_interval(differences)
        if len(differences) < 2 or not np.isfinite([low, high]).all():
            return None
        if np.ptp(differences) <= _SAME * np.abs(differences).max():  # the same up to their last digits
            return None
        return low > 0 or high < 0


@dataclass(frozen=True)
class NetworkEffects:
    """All effects on a kind of network.

    Attributes:
        kind: the kind of network.
        lr: step size, of each seed in turn, those without effects among them.
        steps: number of steps of the base runs.
        examples: number of examples trained on.
        held: number of held-out images.
        seeds: the seeds that have effects.
        skipped: seeds whose base run has no windows, so that there are no opposing examples.
        effects: treatment after treatment.
    """

    kind: str
    lr: tuple[float, ...]
    steps: int
    examples: int
    held: int
    seeds: Sequence[SeedRuns]
    skipped: tuple[int, ...]
    effects: Sequence[Effect]

    def never(self, treatment: str, choice: str) -> int:
        """Number of seeds whose treated run never crosses 2/η."""
        return sum(seed.treated[treatment, choice].outcome.crossing is None for seed in self.seeds)


def network_effects(
    setting: Setting,
    evidence: Evidence,
    names: Sequence[str],
    held: Images,
    device: torch.device,
    measured: Callable[[Sequence[SeedRuns]], Sequence[SeedRuns]] = lambda seeds: seeds,
) -> NetworkEffects:
    """The effects of some treatments.

    Args:
        setting: of the network.
        evidence: with the roles of the treatments, each on every choice.
        names: keys of `TREATMENTS`.
        held: images that no run saw.
        device: where networks are evaluated.
        measured: what measures the treated runs further, such as `with_whole_losses`.
    """
    by_seed = [(e, seed_runs(setting, e, names, held, device)) for e in evidence.networks]
    seeds = measured([runs for _, runs in by_seed if runs is not None])
    effects = [
        Effect(name, of, {c: tuple(measure.of(seed.treated[name, c]) for seed in seeds) for c in CHOICES})
        for name in names
        for of, measure in MEASURES.items()
        if seeds and (TREATMENTS[name].late or not measure.late_only)
    ]
    return NetworkEffects(
        kind=evidence.kind,
        lr=tuple(setting.base(e.seed).lr for e in evidence.networks),
        steps=setting.network.steps,
        examples=evidence.networks[0].run.sizes["example"],
        held=len(held.labels),
        seeds=seeds,
        skipped=tuple(e.seed for e, runs in by_seed if runs is None),
        effects=effects,
    )


def tell_apart(effects: NetworkEffects, control: str) -> tuple[list[Effect], int]:
    """The effects in which opposing examples and a control are told apart, and of how many that have an interval."""
    of = [(effect, effect.tells_apart(control)) for effect in effects.effects]
    return [effect for effect, apart in of if apart], sum(apart is not None for _, apart in of)
