"""Step size × seeds: height of the first spike, and amplitude of the settled oscillation, against theory (F16).

Two kinds of runs, since the two statements ask for different starts:

- finite samples from a random start: the first spike after the onset, predicted from the sample's second moments and
  the start alone (T10, T11), as in `sim.sweeps.tail`, whose units these are, here at one light tail and many η;
- the population with a power-law Σ, which keeps the drive D slow, started at the edge: once the oscillation has
  settled, s² = D/(αc) (T9), with D that of the run's own b.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import xarray as xr

from sim.batched_descent import descend_batch, stack_states
from sim.second_moments import population_batch
from sim.sweeps.study import Study, Unit
from sim.sweeps.tail import TailUnit
from sim.update_rules import GradientDescent
from theory import Model, State
from theory.command_line import InputError, require_different, require_positive, require_seeds
from theory.configuration import DescentConfig
from theory.edge import edge_units, settled
from theory.model import drive, power_law_covariance
from theory.oscillation import edge_amplitude

LIGHT_TAIL = 12.0
"""Tail index of the opposing feature's size: all samples have nearly the same α̂."""

START_RATIO = 0.25
"""s² at the start of the runs at the edge, relative to the predicted one."""

AVERAGED = 100
"""Steps that the settled oscillation is averaged over; the drive falls slowly from then on, and with it s²."""


@dataclass(frozen=True)
class AmplitudeConfig(Study):
    """First spike and settled oscillation over step sizes and seeds, against theory.

    The data set has dimensions ``spike_lr`` and ``spike_seed`` for the first kind of runs, ``edge_lr`` and
    ``edge_seed`` for the second: as `SpikeUnit.run` and `EdgeUnit.run` say.
    """

    name: ClassVar[str] = "amplitude"

    spike_lrs: tuple[float, ...] = (0.036, 0.038, 0.04, 0.0425, 0.045, 0.0475, 0.05, 0.055, 0.06)
    """Step sizes of the runs from a random start; 2/η lies below the final sharpness of the flow."""
    edge_lrs: tuple[float, ...] = (0.035, 0.04, 0.045, 0.05, 0.06, 0.07, 0.08, 0.09)
    """Step sizes of the runs that start at the edge."""
    seeds: tuple[int, ...] = tuple(range(8))
    """Seeds of the samples, and of the weights that the runs at the edge start from."""
    examples: int = 20000
    """Examples in each sample."""
    fraction: float = 0.05
    """Fraction of examples that are outliers."""
    alpha: float = 20.0
    """Second moment α of the opposing feature."""
    spike_steps: int = 900
    """Steps of the runs from a random start."""
    edge_steps: int = 3000
    """Steps of the runs at the edge."""

    def __post_init__(self) -> None:
        for name in ("examples", "fraction", "alpha", "spike_steps", "edge_steps"):
            require_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        if self.fraction > 1:
            raise InputError(f"--fraction is {self.fraction}: give a number above 0 and at most 1")
        if self.edge_steps < 2:
            raise InputError(
                f"--edge-steps is {self.edge_steps}: give at least 2, for T9's hypotheses are of three states"
            )
        require_seeds(self.seeds)
        for name in ("spike_lrs", "edge_lrs"):
            require_different(f"--{name.replace('_', '-')}", getattr(self, name))
        for name in ("spike_lrs", "edge_lrs"):
            for lr in getattr(self, name):
                require_positive(f"--{name.replace('_', '-')}", lr)

    def units(self) -> Sequence[SpikeUnit | EdgeUnit]:
        """One unit a step size, of each kind."""
        spikes = [
            SpikeUnit(lr, self.seeds, self.examples, self.fraction, self.alpha, self.spike_steps)
            for lr in self.spike_lrs
        ]
        return [*spikes, *(EdgeUnit(lr, self.seeds, self.alpha, self.edge_steps) for lr in self.edge_lrs)]

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        count = len(self.spike_lrs)
        spikes = xr.concat(data[:count], xr.Variable("spike_lr", list(self.spike_lrs)))
        edge = xr.concat(data[count:], xr.Variable("edge_lr", list(self.edge_lrs)))
        return xr.merge([spikes, edge])

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        lines = ["first spike of a finite sample, largest |s − s*|; predicted before the run", "      η    sim/theory"]
        lines += [
            f"{float(lr):7.4g}    {_middle(of_lr['spike'].values / of_lr['predicted_spike'].values)}"
            for lr, of_lr in data[["spike", "predicted_spike"]].groupby("spike_lr")
        ]
        lines += ["settled oscillation at the edge, s² against D/(αc)", "      η    sim/theory"]
        lines += [
            f"{float(lr):7.4g}    {_middle(of_lr['settled'].values / of_lr['predicted_settled'].values)}"
            for lr, of_lr in data[["settled", "predicted_settled"]].groupby("edge_lr")
        ]
        return "\n".join(lines)


@dataclass(frozen=True)
class SpikeUnit(Unit):
    """Samples from a random start at one step size; fields as in `AmplitudeConfig`."""

    revision: ClassVar[int] = 2
    """As `TailUnit`'s."""

    lr: float
    seeds: tuple[int, ...]
    examples: int
    fraction: float
    alpha: float
    steps: int

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"spike-lr{self.lr:g}"

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends on every sample.

        Returns:
            Data set with dimension ``spike_seed``: ``spike`` and ``predicted_spike``, the largest |s − s*| after the
            onset; ``spike_height`` and ``predicted_height``, the same as w = 4ηα̂(s − s*)²; ``onset`` and
            ``predicted_onset`` (steps). NaN without an onset.
        """
        descent = DescentConfig(alpha=self.alpha, d1=10, exponent=1.0, lr=self.lr, steps=self.steps)
        data = TailUnit(LIGHT_TAIL, self.fraction, self.seeds, "pareto", self.examples, descent).run(device)
        unit = 4 * self.lr * data["alpha"]
        spike, predicted = data["amplitude"].where(data["onset"].notnull()), data["predicted_amplitude"]
        predicted = predicted.where(data["predicted_onset"].notnull())
        kept = xr.Dataset(
            {
                "spike": spike,
                "predicted_spike": predicted,
                "spike_height": unit * spike**2,
                "predicted_height": unit * predicted**2,
                "onset": data["onset"],
                "predicted_onset": data["predicted_onset"],
            }
        )
        return kept.rename(seed="spike_seed")


@dataclass(frozen=True)
class EdgeUnit(Unit):
    """Runs that start at the edge, at one step size; fields as in `AmplitudeConfig`."""

    lr: float
    seeds: tuple[int, ...]
    alpha: float
    steps: int

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"edge-lr{self.lr:g}"

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends from every start.

        Returns:
            Data set with dimension ``edge_seed``, means over the first `AVERAGED` steps on which T9's hypotheses hold
            (`theory.edge.settled`): ``settled`` s² and ``predicted_settled`` D/(αc); ``settled_height`` 4ηαs² and
            ``predicted_settled_height`` 4ηD/c; ``settled_steps``, how many they are. NaN where there are none.
        """
        model = self.model
        runs = descend_batch(
            population_batch([model] * len(self.seeds), device),
            stack_states([self.start(seed) for seed in self.seeds]).to(device),
            GradientDescent(self.lr),
            self.steps,
            sharpness=False,
            keep_weights=True,
        )
        rows = [self._of_run(runs, i) for i in range(len(self.seeds))]
        data = xr.Dataset({name: ("edge_seed", [row[name] for row in rows]) for name in rows[0]})
        return data.assign_coords(edge_seed=list(self.seeds))

    @property
    def model(self) -> Model:
        """Power-law Σ."""
        d1 = 100
        return Model(np.array([self.alpha]), np.full(d1, 5.0 / math.sqrt(d1)), power_law_covariance(d1, 1.0))

    def start(self, seed: int) -> State:
        """At c = √(2/(ηα)), each b_i a random share of β_i/c, s² a part of what theory predicts there."""
        model, c = self.model, np.array(math.sqrt(2 / (self.lr * self.alpha)))
        b = np.random.default_rng(seed).uniform(0.2, 0.5, model.beta.size) * model.beta / c
        floor = State(c, b, np.zeros(1))
        return State(c, b, np.sqrt(START_RATIO * edge_amplitude(model, floor))[None])

    def _of_run(self, runs: xr.Dataset, i: int) -> dict[str, float]:
        diverged_at = int(runs["diverged_at"][i])
        weights = runs["weights"].values[: diverged_at if diverged_at >= 0 else None, i, 0]
        state, model = State.from_vector(weights, self.model.beta.size), self.model
        kept = np.zeros(1, dtype=np.bool_) if diverged_at >= 0 else settled(model, state, self.lr)
        row = dict.fromkeys(
            ("settled", "predicted_settled", "settled_height", "predicted_settled_height"), math.nan
        ) | {"settled_steps": float(kept.sum())}
        if kept.any():
            kept &= np.cumsum(kept) <= AVERAGED
            units = edge_units(model, state, self.lr)
            row |= {
                "settled": float((state.s[kept, 0] ** 2).mean()),
                "predicted_settled": float(edge_amplitude(model, state)[kept].mean()),
                "settled_height": float(units.height[kept].mean()),
                # 4ηαs² = 4ηD/c
                "predicted_settled_height": float((4 * self.lr * drive(model, state) / state.c)[kept].mean()),
            }
        return row


def _middle(values: np.ndarray) -> str:
    known = values[np.isfinite(values)]
    if not known.size:
        return "none"
    low, middle, high = np.quantile(known, (0.05, 0.5, 0.95))
    return f"{middle:.4f} [{low:.4f}, {high:.4f}] of {known.size}"
