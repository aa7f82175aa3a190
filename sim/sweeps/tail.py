"""Tail index of the opposing feature's size × fraction of outliers: when the oscillation begins, and how large it is.

What theory says. Full-batch descent under squared loss sees a sample through its second moments alone (T11), so the
tail index at a fixed second moment α changes nothing in the population. In a sample of n it acts through

- the sample's own α̂ = mean o², which falls short of α in most samples and exceeds it in a few: α̂ − α is of the order
  (np)^(−(1−2/a)) for a tail index a < 4. The threshold αc² = 2/η is then met later, or not at all;
- the imbalance δ̂, which the largest examples dominate, and the chance correlation of o with x;
- the losses of single examples, which swing by ±α-fold o²: their changes have the tail index a/2.

Measured here: onset and amplitude of the first spike in every sample against what theory predicts from that sample's
second moments; the same samples with o rescaled so that α̂ = α, in which the tail's influence must all but vanish;
Hill's estimates for the sizes and for the changes of loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy import stats

from sim.batched_descent import descend_batch, stack_states
from sim.heavy_tails import SizeLaw, TailEstimate, hill_estimator
from sim.opposing_data import Examples, OpposingLaw, draw_examples
from sim.second_moments import Moments, sample_moments, stack
from sim.sweeps.study import Study, Unit
from sim.update_rules import GradientDescent
from theory import InputError, Model, State
from theory.command_line import require_different, require_positive, require_seeds
from theory.configuration import DescentConfig
from theory.finite_sample import SampleMoments
from theory.onset import Onset, observed_onset, population_onset, sample_onset
from theory.valley_floor import distance_from_floor, spike_after_onset

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TailConfig(Study):
    """Tail index × fraction of outliers × samples: onset and amplitude of the oscillation against theory.

    The data set has dimensions ``tail_index``, ``fraction`` and ``seed``: as `TailUnit.run` says.
    """

    name: ClassVar[str] = "tail"

    tail_indices: tuple[float, ...] = (2.1, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 6.0, 12.0)
    """Tail indices a of the sizes, above 2."""
    fractions: tuple[float, ...] = (0.01, 0.05, 0.2)
    """Fractions p of examples that are outliers."""
    seeds: tuple[int, ...] = tuple(range(12))
    """Seeds of the samples. A seed has the same uniform numbers behind it at every tail index."""
    family: Literal["pareto", "student-t"] = "pareto"
    """Law of the sizes."""
    examples: int = 20000
    """Examples n in each sample."""
    alpha: float = 20.0
    """Second moment α of the opposing feature in the population, whatever the tail."""
    beta: float = 3.0
    """Norm of the linear target."""
    k: float = 3.0
    """Opposing over ordinary features, d2/d1; sets the start's opposing weight."""
    d1: int = 10
    """Number of ordinary features."""
    exponent: float = 1.0
    """Ordinary features have covariance i^(−exponent)."""
    lr: float = 0.04
    """Step size η; 2/η lies below the population's final sharpness α‖β‖."""
    steps: int = 700
    """Number of steps; an onset later than that is none."""
    start_seed: int = 0
    """Seed of the random start, the same for every run."""

    def __post_init__(self) -> None:
        self.descent()
        require_positive("--examples", self.examples)
        require_seeds(self.seeds)
        for name in ("tail_indices", "fractions"):
            require_different(f"--{name.replace('_', '-')}", getattr(self, name))
        for a in self.tail_indices:
            if not 2 < a < math.inf:
                raise InputError(f"--tail-indices is {a}: give finite numbers above 2, where the second moment exists")
        for p in self.fractions:
            if not 0 < p <= 1:
                raise InputError(f"--fractions is {p}: give numbers above 0 and at most 1")

    def descent(self) -> DescentConfig:
        """The model, the start and the step size."""
        return DescentConfig(
            self.alpha, self.beta, self.k, self.d1, self.exponent, self.lr, self.steps, self.start_seed
        )

    def units(self) -> Sequence[TailUnit]:
        """One unit a tail index and fraction."""
        return [
            TailUnit(a, p, self.seeds, self.family, self.examples, self.descent())
            for a in self.tail_indices
            for p in self.fractions
        ]

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        width = len(self.fractions)
        rows = [xr.concat(data[i : i + width], xr.Variable("fraction", list(self.fractions)), data_vars="all")
                for i in range(0, len(data), width)]  # fmt: skip
        return xr.concat(rows, xr.Variable("tail_index", list(self.tail_indices)), data_vars="all")

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        return tail_table(data, self)


@dataclass(frozen=True)
class TailUnit(Unit):
    """All samples of one tail index and fraction, made in one batch; fields as in `TailConfig`."""

    revision: ClassVar[int] = 2
    """`amplitude` was the alternating part's until 29 November 2026."""

    tail_index: float
    fraction: float
    seeds: tuple[int, ...]
    family: Literal["pareto", "student-t"]
    examples: int
    descent: DescentConfig

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"tail{self.tail_index:g}-fraction{self.fraction:g}"

    def run(self, device: torch.device) -> xr.Dataset:
        """Draws the samples, descends on all of them at once, and predicts each from its second moments.

        Returns:
            Data set with dimension ``seed``:

            - of the sample: ``alpha`` α̂, ``imbalance`` δ̂, ``outliers``, ``hill`` and ``hill_error`` (Hill's estimate
              of the sizes' tail index from a tenth of the outliers, and its standard error);
            - of the run: ``crossing`` (first step with ηα̂c² > 2 and c rising), ``onset`` (first step at which the
              alternating part of s reaches √(D/(α̂c))), both NaN where there is none within the steps, ``amplitude``
              (largest |s − s*| from then on, s* the valley's floor at the same c and b; 0 without an onset),
              ``hill_changes`` (Hill's estimate for the outliers' changes of loss in the step at the largest amplitude;
              NaN without an onset);
            - predicted from the sample's second moments: ``predicted_crossing``, ``predicted_onset``, its ``error``
              in steps, and ``predicted_amplitude``;
            - of the run on the same sample with o rescaled to α̂ = α: ``rescaled_onset``, ``rescaled_amplitude``;
            - without ``seed``, predicted for the population: ``population_crossing``, ``population_onset``,
              ``population_amplitude``, the same for every tail.
        """
        law = OpposingLaw(SizeLaw(self.family, self.tail_index))
        model, start = self.descent.model, self.descent.initial_state
        drawn = [list(draw_examples(model, self.examples, self.fraction, seed, device, law)) for seed in self.seeds]
        moments = [sample_moments(chunks)["all"] for chunks in drawn]
        for seed, m in zip(self.seeds, moments, strict=True):
            if float(m.gram[-1, -1]) == 0:
                raise InputError(
                    f"--examples is {self.examples} and --fractions {self.fraction:g}: the sample of seed {seed} has "
                    "no outliers; give more"
                )
        alpha = float(model.alpha[0])
        rescaled = [
            sample_moments(_rescaled(chunks, math.sqrt(alpha / float(m.gram[-1, -1]))))["all"]
            for chunks, m in zip(drawn, moments, strict=True)
        ]
        weights = _weights(moments + rescaled, start, self.descent, device)
        rows = []
        for i, chunks in enumerate(drawn):
            row = _of_sample(chunks, moments[i], model) | _of_prediction(moments[i], start, self.descent)
            row |= _of_run(moments[i], weights[i], self.descent, chunks)
            of_rescaled = _of_run(rescaled[i], weights[len(drawn) + i], self.descent)
            rows.append(row | {f"rescaled_{name}": of_rescaled[name] for name in ("onset", "amplitude")})
        data = xr.Dataset({name: ("seed", [row[name] for row in rows]) for name in rows[0]})
        (onset,) = population_onset(model, start, self.descent.lr, max_steps=self.descent.steps)
        data["population_crossing"] = (), _number(onset.crossing_step)
        data["population_onset"] = (), _number(onset.step)
        of_model = SampleMoments.from_model(model)
        data["population_amplitude"] = (), spike_after_onset(of_model, start, self.descent.lr, onset)
        return data.assign_coords(seed=list(self.seeds))


def _rescaled(chunks: Sequence[Examples], factor: float) -> list[Examples]:
    """The same examples with the opposing feature o, and the |o| in the target, times a factor."""
    scaled = []
    for chunk in chunks:
        o = chunk.features[:, -1:]
        features = torch.cat([chunk.features[:, :-1], factor * o], 1)
        scaled.append(replace(chunk, features=features, target=chunk.target + (factor - 1) * o[:, 0].abs()))
    return scaled


def _weights(moments: Sequence[Moments], start: State, descent: DescentConfig, device: torch.device) -> list[Floats]:
    """(n, 2 + d1) weights of each run at steps 0…n − 1, cut before the first that is not finite."""
    data = descend_batch(
        stack(moments),
        stack_states([start] * len(moments)).to(device),
        GradientDescent(descent.lr),
        descent.steps,
        sharpness=False,
        keep_weights=True,
    )
    ends = np.where(data["diverged_at"].values < 0, descent.steps + 1, data["diverged_at"].values)
    return [data["weights"].values[:end, i, 0] for i, end in enumerate(ends)]


def _of_sample(chunks: Sequence[Examples], moments: Moments, model: Model) -> dict[str, float]:
    sizes = torch.cat([chunk.features[chunk.group != 0, -1] for chunk in chunks])
    seen = _sample(moments)
    hill = _hill(sizes)
    return {
        "alpha": seen.alpha,
        "imbalance": seen.imbalance(model.beta),
        "outliers": float(sizes.numel()),
        "hill": math.nan if hill is None else hill.index,
        "hill_error": math.nan if hill is None else hill.standard_error,
    }


def _of_prediction(moments: Moments, start: State, descent: DescentConfig) -> dict[str, float]:
    seen = _sample(moments)
    onset = sample_onset(seen, start, descent.lr, max_steps=descent.steps)
    return {
        "predicted_crossing": _number(onset.crossing_step),
        "predicted_onset": _number(onset.step),
        "error": onset.error,
        "predicted_amplitude": spike_after_onset(seen, start, descent.lr, onset),
    }


def _of_run(
    moments: Moments, weights: Floats, descent: DescentConfig, chunks: Sequence[Examples] | None = None
) -> dict[str, float]:
    """What a run did; with its examples also how their losses changed in the step at the largest amplitude."""
    sample, path = _sample(moments), State.from_vector(weights, descent.d1)
    with np.errstate(over="ignore", invalid="ignore"):  # the end of a run that diverges
        seen: Onset = observed_onset(sample, path, descent.lr)
        away = distance_from_floor(sample, path)
    row = {
        "crossing": _number(seen.crossing_step),
        "onset": _number(seen.step),
        "amplitude": 0.0,
        "hill_changes": math.nan,
    }
    if seen.step is None:
        return row
    peak = seen.step + int(away[seen.step : -1].argmax())
    row["amplitude"] = float(away[peak])
    if chunks is not None:
        before, after = (torch.cat([_losses(chunk, weights[t]) for chunk in chunks]) for t in (peak, peak + 1))
        hill = _hill(after - before)
        row["hill_changes"] = math.nan if hill is None else hill.index
    return row


def _losses(chunk: Examples, weights: Floats) -> torch.Tensor:
    """½ (f − y)² of the outliers, f = c wᵀz."""
    outliers = chunk.group != 0
    effective = torch.from_numpy(weights[0] * weights[1:]).to(chunk.features.device)
    return (chunk.features[outliers] @ effective - chunk.target[outliers]) ** 2 / 2


def _hill(values: torch.Tensor) -> TailEstimate | None:
    """Hill's estimate from the largest tenth; None where that is fewer than ten values, or a run has diverged."""
    top = values.numel() // 10
    return hill_estimator(values, top) if top >= 10 and bool(values.isfinite().all()) else None


def _sample(moments: Moments) -> SampleMoments:
    return SampleMoments(moments.gram.cpu().numpy(), moments.cross.cpu().numpy(), float(moments.square))


def _number(step: int | None) -> float:
    return math.nan if step is None else float(step)


def tail_table(data: xr.Dataset, config: TailConfig) -> str:
    """One line a tail index, over fractions and samples: what happened, and what theory said of it."""
    lines = [
        f"α = {config.alpha:g} at every tail, {config.family} sizes, n = {config.examples}, p = "
        f"{', '.join(f'{p:g}' for p in config.fractions)}, {len(config.seeds)} samples each, η = {config.lr:g}",
        "  tail      α̂/α           oscillate    as told  onset within its error   amplitude, sim/theory  "
        "  rescaled to α̂ = α     Hill: sizes, 2 × loss changes",
        "  index  median [90 %]    sim theory              own   other's sample     median [90 %]        "
        "  oscillate  onset spread",
    ]  # fmt: skip
    for a in data["tail_index"].values:
        row = data.sel(tail_index=a)
        told, seen = row["predicted_onset"].notnull(), row["onset"].notnull()
        both = (told & seen).values
        ratio = (row["amplitude"] / row["predicted_amplitude"]).values[both]
        spread = [float(_spread(row[name].values)) for name in ("onset", "rescaled_onset")]
        lines.append(
            f"{a:7g}  {_middle(row['alpha'].values / config.alpha)}"
            f"{int(seen.sum()):7d}{int(told.sum()):7d}{int((told == seen).sum()):8d}/{told.size}"
            f"{_within(row, row):>12}{_within_others(row):>12}        {_middle(ratio)}"
            f"{int(row['rescaled_onset'].notnull().sum()):9d}/{told.size} {spread[0]:7.3f} → {spread[1]:.3f}"
            f"{float(row['hill'].median()):11.2f}{2 * float(row['hill_changes'].median()):8.2f}"
        )
    agree = data["predicted_onset"].notnull() == data["onset"].notnull()
    # A seed's samples share their uniform numbers at every tail index and fraction: the seeds are what is independent.
    seeds, right = data.sizes["seed"], int(agree.all(("tail_index", "fraction")).sum())
    low, high = stats.binomtest(right, seeds).proportion_ci(method="wilson")
    onset, amplitude = (float(data[f"population_{name}"].values.ravel()[0]) for name in ("onset", "amplitude"))
    population = f"onset at step {onset:g}, amplitude {amplitude:.3g}" if math.isfinite(onset) else "no onset"
    lines += [
        f"theory, from each sample's second moments, says rightly of {int(agree.sum())} of {agree.size} runs whether "
        f"they oscillate; of all runs of a seed, which",
        f"share their random numbers, on {right} of {seeds} seeds (Wilson 95 %: {low:.0%} to {high:.0%} of seeds).",
        f"Population, whatever the tail and the fraction: {population}.",
        "other's sample: the same count for the predictions made from every other seed's sample, their mean, the "
        "control.",
        "onset spread: standard deviation of ln(onset step) over the samples within a fraction; as drawn → rescaled.",
    ]
    return "\n".join(lines)


def _within(run: xr.Dataset, told: xr.Dataset) -> str:
    """How many onsets lie within the predicted step's error, of those that are seen and predicted."""
    good, count = _within_count(run, told)
    return f"{good}/{count}"


def _within_others(run: xr.Dataset) -> str:
    """The same of the predictions made from other seeds' samples, mean over all of them."""
    shifts = range(1, run.sizes["seed"])
    if not shifts:
        return "-"
    good, count = np.mean([_within_count(run, run.roll(seed=shift)) for shift in shifts], axis=0)
    return f"{good:.1f}/{count:.0f}"


def _within_count(run: xr.Dataset, told: xr.Dataset) -> tuple[int, int]:
    gap = np.abs(run["onset"].values - told["predicted_onset"].values)
    known = np.isfinite(gap)
    return int((gap <= told["error"].values)[known].sum()), int(known.sum())


def _middle(values: Floats) -> str:
    if not values.size:
        return f"{'-':>20}"
    low, middle, high = np.quantile(values, (0.05, 0.5, 0.95))
    return f"{middle:6.3f} [{low:5.3f}, {high:5.3f}]"


def _spread(onsets: Floats) -> float:
    """Standard deviation of ln onset over seeds, (fraction, seed), pooled over the fractions; NaN with too few."""
    logs = np.log(onsets)
    enough = np.isfinite(logs).sum(1) >= 2
    return float(np.sqrt(np.nanvar(logs[enough], axis=1, ddof=1).mean())) if enough.any() else math.nan
