"""Distance of a finite sample's dynamics from the population's against the number of examples n.

What theory predicts. Up to a fixed time the weights are a smooth function of the sample's second moments, so their
distance from the population's is, to first order, linear in the moments' deviations. Those of Gaussian features are of
the order n^(−½). The opposing feature's is that of mean o², whose terms have the tail index a/2 of squares of sizes of
tail index a:

    a > 4         finite variance, central limit theorem:                           α̂ − α ~ n^(−1/2)
    2 < a < 4     sums of n terms stray by n^(2/a) (stable law of index a/2):       α̂ − α ~ n^(2/a − 1) = n^(−(1 − 2/a))

and the slowest of the moments rules: the exponent is −min(½, 1 − 2/a). (At a = 4 a logarithm comes in.) The law of the
scaled distance is the same at every n in the limit, so ln distance against ln n has that slope, in the mean too.

Above the threshold this fails: the oscillation grows to a size of its own, after a time that depends on n through its
logarithm, and where it throws the weights is chaotic. The same samples at such a step size are the control.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from sim.batched_descent import descend_batch, stack_states
from sim.heavy_tails import SizeLaw
from sim.opposing_data import OpposingLaw, draw_examples
from sim.second_moments import Moments, population_moments, sample_moments, stack
from sim.sweeps.slopes import Slope, power_law
from sim.sweeps.study import Study, Unit
from sim.update_rules import GradientDescent
from theory import InputError
from theory.command_line import require_different, require_positive, require_seeds
from theory.configuration import DescentConfig

Floats = npt.NDArray[np.float64]

NEAR = 1e-4
"""Share of a sample's deviation from the population at which the response of the weights is taken as linear."""


@dataclass(frozen=True)
class SampleSizeConfig(Study):
    """Sample size × tail index × samples: distance from the population's dynamics, with the slope that theory predicts.

    The data set has dimensions ``tail_index`` (infinite: every outlier has the same size), ``examples`` and ``seed``:
    as `SampleSizeUnit.run` says.
    """

    name: ClassVar[str] = "sample_size"

    examples: tuple[int, ...] = (2000, 6000, 20000, 60000, 200000)
    """Numbers n of examples, at least three."""
    tail_indices: tuple[float, ...] = (math.inf, 6.0, 3.0, 2.5)
    """Tail indices a of Pareto sizes, above 2; inf stands for outliers that are all of one size."""
    seeds: tuple[int, ...] = tuple(range(16))
    """Seeds of the samples; each number of examples draws its own."""
    fraction: float = 0.2
    """Fraction p of examples that are outliers."""
    alpha: float = 20.0
    """Second moment α of the opposing feature in the population."""
    beta: float = 3.0
    """Norm of the linear target."""
    k: float = 3.0
    """Opposing over ordinary features, d2/d1; sets the start's opposing weight."""
    d1: int = 10
    """Number of ordinary features."""
    exponent: float = 0.0
    """Ordinary features have covariance i^(−exponent)."""
    lr: float = 0.01
    """Step size η, below the threshold for any likely sample: 2/η above α‖β‖."""
    lr_edge: float = 0.04
    """Step size of the control, 2/η below α‖β‖."""
    steps: int = 500
    """Number of steps."""
    start_seed: int = 0
    """Seed of the random start, the same for every run."""

    def __post_init__(self) -> None:
        self.descent()
        require_positive("--lr-edge", self.lr_edge)
        require_seeds(self.seeds)
        for name in ("examples", "tail_indices"):
            require_different(f"--{name.replace('_', '-')}", getattr(self, name))
        for n in self.examples:
            require_positive("--examples", n)
        if len(self.examples) < 3:
            raise InputError(f"--examples is {self.examples}: give three numbers or more, for a slope with an interval")
        for a in self.tail_indices:
            if not a > 2:
                raise InputError(f"--tail-indices is {a}: give numbers above 2, where the second moment exists, or inf")
        if not 0 < self.fraction <= 1:
            raise InputError(f"--fraction is {self.fraction}: give a number above 0 and at most 1")

    def descent(self) -> DescentConfig:
        """The model, the start and the step size."""
        return DescentConfig(
            self.alpha, self.beta, self.k, self.d1, self.exponent, self.lr, self.steps, self.start_seed
        )

    def units(self) -> Sequence[SampleSizeUnit]:
        """One unit a tail index and number of examples."""
        return [
            SampleSizeUnit(a, n, self.seeds, self.fraction, self.lr_edge, self.descent())
            for a in self.tail_indices
            for n in self.examples
        ]

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        width = len(self.examples)
        rows = [
            xr.concat(data[i : i + width], xr.Variable("examples", list(self.examples)))
            for i in range(0, len(data), width)
        ]
        return xr.concat(rows, xr.Variable("tail_index", list(self.tail_indices)))

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        return sample_size_table(data, self)


@dataclass(frozen=True)
class SampleSizeUnit(Unit):
    """All samples of one tail index and number of examples; fields as in `SampleSizeConfig`."""

    tail_index: float
    examples: int
    seeds: tuple[int, ...]
    fraction: float
    lr_edge: float
    descent: DescentConfig

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"tail{self.tail_index:g}-examples{self.examples}"

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends on every sample and on the population, at both step sizes, in one batch.

        Returns:
            Data set with dimension ``seed``: ``distance``, the largest ‖θ_n − θ_∞‖ over the steps; ``linear``, the same
            to first order in the moments' deviations; ``distance_edge``, the distance at the control's step size (NaN
            where a run diverges); ``alpha``, the sample's α̂.
        """
        law = OpposingLaw(SizeLaw() if math.isinf(self.tail_index) else SizeLaw("pareto", self.tail_index))
        model, start = self.descent.model, self.descent.initial_state
        population = population_moments(model, device)
        samples = [
            sample_moments(draw_examples(model, self.examples, self.fraction, self._seed(seed), device, law))["all"]
            for seed in self.seeds
        ]
        sets = [population, *samples, *(_between(population, sample, NEAR) for sample in samples)]
        lrs = torch.tensor([self.descent.lr, self.lr_edge], dtype=torch.float64, device=device)
        starts = stack_states([start]).to(device).expand(len(sets), len(lrs), -1, -1)
        runs = descend_batch(
            stack(sets).shared(),
            starts,
            GradientDescent(lrs.expand(len(sets), -1)),
            self.descent.steps,
            sharpness=False,
            keep_weights=True,
        )
        weights = runs["weights"].values[..., 0, :]  # (step, set, lr, weight)
        diverged = runs["diverged_at"].values >= 0
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.linalg.norm(weights - weights[:, :1], axis=-1).max(0)
        distance = np.where(diverged | diverged[:1], np.nan, distance)
        count = len(samples)
        data = xr.Dataset(coords={"seed": list(self.seeds)})
        data["distance"] = "seed", distance[1 : 1 + count, 0]
        data["linear"] = "seed", distance[1 + count :, 0] / NEAR
        data["distance_edge"] = "seed", distance[1 : 1 + count, 1]
        data["alpha"] = "seed", [float(sample.gram[-1, -1]) for sample in samples]
        return data

    def _seed(self, seed: int) -> int:
        """A generator's seed for each seed and number of examples, so that no two samples share examples."""
        return int(np.random.SeedSequence([seed, self.examples]).generate_state(1)[0])


def predicted_exponent(tail_index: float) -> float:
    """Exponent of n in the distance from the population: −min(½, 1 − 2/a).

    >>> predicted_exponent(math.inf), round(predicted_exponent(2.5), 12)
    (-0.5, -0.2)
    """
    return -min(0.5, 1 - 2 / tail_index)


def _between(population: Moments, sample: Moments, share: float) -> Moments:
    """Moments a share of the way from the population's to a sample's."""

    def mix(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + share * (b - a)

    return Moments(
        mix(population.gram, sample.gram),
        mix(population.cross, sample.cross),
        mix(population.square, sample.square),
    )


def sample_size_table(data: xr.Dataset, config: SampleSizeConfig) -> str:
    """One line a tail index: predicted and measured exponents with 95 % intervals, and the control's."""
    lines = [
        f"‖θ_n − θ_∞‖, largest over {config.steps} steps, n = {min(config.examples)} to {max(config.examples)}, "
        f"{len(config.seeds)} samples each, p = {config.fraction:g}, η = {config.lr:g}",
        "  tail   exponent of n                                                                at most n: measured /   "
        "control, η = " + f"{config.lr_edge:g}:",
        "  index  predicted   measured                 to first order           agree   −½?    first order            "
        "exponent                 agrees",
    ]
    n = data["examples"].values[:, None]
    for a in data["tail_index"].values:
        row = data.sel(tail_index=a)
        told = predicted_exponent(float(a))
        slope, linear, control = (_slope(n, row[name].values) for name in ("distance", "linear", "distance_edge"))
        ratio = (row["distance"] / row["linear"]).sel(examples=max(config.examples))
        lines.append(
            f"{a:7g}{told:11.3f}   {slope or '-'!s:25}{linear or '-'!s:25}"
            f"{_holds(slope, told):8}{_holds(slope, -0.5):7}{float(ratio.median()):8.3f}               "
            f"{control or '-'!s:25}{_holds(control, told)}"
        )
    lines.append(
        "agree: the 95 % interval of the measured exponent holds the predicted one. −½?: whether it holds −½.\n"
        "to first order: the weights' response linear in the moments' deviations, taken at "
        f"{NEAR:g} of them."
    )
    return "\n".join(lines)


def _slope(n: Floats, distance: Floats) -> Slope | None:
    """The exponent, of the runs that stayed finite; None where too few did."""
    seen = np.isfinite(distance) & (distance > 0)
    at = np.broadcast_to(n, distance.shape)[seen]
    return power_law(at, distance[seen]) if np.unique(at).size >= 3 else None


def _holds(slope: Slope | None, exponent: float) -> str:
    if slope is None:
        return "-"
    return "yes" if slope.holds(exponent) else "no"
