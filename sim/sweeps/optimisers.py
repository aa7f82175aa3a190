"""Optimisers on the same samples from the same starts: oscillation and steps along the opposing direction, thresholds.

Two questions to each rule.

At matched progress. Each rule takes, of a grid of step sizes, the one with which it brings the main signal's error
(cb−β)ᵀΣ(cb−β) down to a given share of βᵀΣβ in the same number of steps as gradient descent does. From there on the
alternating part of the effective opposing weight z = cs and its steps are compared. Theory (T13) says that a rule is
calm where its curvature along the opposing direction stays below its own threshold,

    gradient descent 2/η,   momentum 2(1+μ)/(η(1−τ)),   Adam (α̂c²/P) 2(1+β₁)/((1−β₁)η),   sign descent 0,

P = √v̂ + ε of the opposing weight; SplitSGD has dampened momentum's while its gradients are small. Gradient descent's
spike has the height of `spike_after_onset`; sign descent ends in the two-cycle s̄ ± η/2 at any curvature. At matched
progress only gradient descent gets above its threshold, so that the others are tested there from below alone.

At the threshold. From a minimum with a tiny s, whose gradient is linear in it, the growth of |s| a step against
`growth_per_step` on a grid of step sizes around the theory's threshold. Adam has ε = 1 there, so that P is 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from sim.batched_descent import descend_batch, stack_states
from sim.opposing_data import draw_examples
from sim.second_moments import Moments, population_moments, sample_moments, stack
from sim.sweeps.study import Study, Unit
from sim.update_rules import Adam, GradientDescent, Momentum, Rule, SignDescent, SplitSGD
from theory import InputError, State, optimizer_maps
from theory.alternation import alternating_part
from theory.command_line import require_different, require_positive, require_seeds
from theory.configuration import DescentConfig
from theory.finite_sample import SampleMoments
from theory.minima import minimum_at
from theory.onset import sample_onset
from theory.valley_floor import distance_from_floor, spike_after_onset

Floats = npt.NDArray[np.float64]
Name = Literal["gd", "momentum", "momentum_dampened", "adam", "sign", "split_sgd"]

MU, BETA1, BETA2 = 0.9, 0.9, 0.999
"""Momentum (and dampening), and Adam's decays."""

RANGES: dict[Name, tuple[float, float]] = {
    "gd": (1.0, 1.0),
    "momentum": (0.02, 1.0),
    "momentum_dampened": (0.2, 5.0),
    "adam": (0.02, 5.0),
    "sign": (0.005, 2.0),
    "split_sgd": (0.2, 20.0),
}
"""Step sizes among which each rule's is chosen, in units of gradient descent's."""

RELATIVE = (0.99, 0.998, 0.999, 0.9995, 1.0005, 1.001, 1.002, 1.01)
"""Step sizes of the second question, in units of the theory's threshold."""

VISIBLE = 0.01
"""Alternating part of z from which an oscillation counts: of the groups' losses, ∝ (1 ∓ z)², 4 % then change hands."""

_TINY, _GROWTH_STEPS, _WINDOW = 1e-100, 400, 40


@dataclass(frozen=True)
class OptimisersConfig(Study):
    """Gradient descent, momentum, Adam, sign descent and SplitSGD at matched progress, and at their thresholds.

    The data set has dimensions ``rule``, ``seed`` and ``relative``: as `OptimiserUnit.run` says.
    """

    name: ClassVar[str] = "optimisers"

    rules: tuple[Name, ...] = ("gd", "momentum", "momentum_dampened", "adam", "sign", "split_sgd")
    """Update rules; momentum 0.9, dampening 0.9, β = (0.9, 0.999)."""
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    """Seeds, each of one start and one sample."""
    lr: float = 0.04
    """Gradient descent's step size, 2/η below α‖β‖; the other rules' are matched to it."""
    choices: int = 60
    """Number of step sizes among which each other rule's is chosen."""
    progress: float = 0.01
    """Share of the main signal's error that is left where rules are matched."""
    sign_lr: float = 0.01
    """Size of SplitSGD's sign steps."""
    threshold: float = 1.0
    """Gradient above which SplitSGD takes a sign step."""
    alpha: float = 20.0
    """Second moment α of the opposing feature in the population."""
    beta: float = 3.0
    """Norm of the linear target."""
    k: float = 3.0
    """Opposing over ordinary features, d2/d1; sets the start's opposing weight."""
    d1: int = 10
    """Number of ordinary features."""
    exponent: float = 1.0
    """Ordinary features have covariance i^(−exponent)."""
    examples: int = 20000
    """Examples in each sample."""
    fraction: float = 0.05
    """Fraction p of examples that are outliers."""
    steps: int = 800
    """Number of steps."""

    def __post_init__(self) -> None:
        self.unit("gd").config(0)
        for name in ("choices", "progress", "sign_lr", "examples"):
            require_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        if not self.threshold > 0:
            raise InputError(f"--threshold is {self.threshold}: give a number above 0, or inf")
        if self.progress >= 1:
            raise InputError(f"--progress is {self.progress}: give a share below 1")
        if not 0 < self.fraction <= 1:
            raise InputError(f"--fraction is {self.fraction}: give a number above 0 and at most 1")
        require_different("--rules", self.rules)
        require_seeds(self.seeds)

    def units(self) -> Sequence[OptimiserUnit]:
        """One unit a rule."""
        return [self.unit(rule) for rule in self.rules]

    def unit(self, rule: Name) -> OptimiserUnit:
        """The runs of one rule."""
        return OptimiserUnit(
            rule, self.seeds, self.lr, self.choices, self.progress, self.sign_lr, self.threshold, self.alpha, self.beta,
            self.k, self.d1, self.exponent, self.examples, self.fraction, self.steps,
        )  # fmt: skip

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        return xr.concat(data, xr.Variable("rule", np.array(self.rules, dtype=object)), data_vars="all")

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        return optimisers_table(data, self)


@dataclass(frozen=True)
class OptimiserUnit(Unit):
    """All runs of one rule; fields as in `OptimisersConfig`."""

    revision: ClassVar[int] = 2
    """`told_amplitude` was the alternating part's for descent too until 29 November 2026."""

    rule: Name
    seeds: tuple[int, ...]
    lr: float
    choices: int
    progress: float
    sign_lr: float
    threshold: float
    alpha: float
    beta: float
    k: float
    d1: int
    exponent: float
    examples: int
    fraction: float
    steps: int

    @property
    def label(self) -> str:
        """See `Unit`."""
        return self.rule

    def config(self, seed: int) -> DescentConfig:
        """The model and start of one seed."""
        return DescentConfig(self.alpha, self.beta, self.k, self.d1, self.exponent, self.lr, self.steps, seed)

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends by gradient descent and by the rule at every step size of its grid, on every seed's sample.

        Returns:
            Data set with dimension ``seed``, of the step size chosen: ``lr``; ``reached`` and ``reference``, steps in
            which the rule and gradient descent make the progress (NaN where not within the steps; then all else is);
            from there on ``amplitude`` (largest alternating part of z), ``step_rms`` and ``step_largest`` (size of z's
            steps), ``stability`` (largest curvature along the opposing direction over the rule's threshold; NaN for
            sign descent, which has none); ``predicted_amplitude`` of z, NaN where theory gives none, and
            ``told_amplitude``, what it is a prediction of: for gradient descent the largest |c(s − s*)|, s* the
            valley's floor, for sign descent the alternating part.

            With dimension ``relative`` (step size over the theory's threshold): ``growth`` of |s| a step at a minimum
            and ``predicted_growth``; without, ``threshold_in_gd``, the theory's step size at the threshold over
            gradient descent's. NaN for sign descent.
        """
        model = self.config(0).model
        drawn = [
            sample_moments(draw_examples(model, self.examples, self.fraction, seed, device))["all"]
            for seed in self.seeds
        ]
        reference = self._descend("gd", drawn, [self.lr], device)
        low, high = RANGES[self.rule]
        lrs = [self.lr] if self.rule == "gd" else list(np.geomspace(low * self.lr, high * self.lr, self.choices))
        runs = reference if self.rule == "gd" else self._descend(self.rule, drawn, lrs, device)
        rows = []
        for i, (seed, moments) in enumerate(zip(self.seeds, drawn, strict=True)):
            goal = self._reached(reference[:, i, 0])
            steps = np.array([self._reached(runs[:, i, j]) for j in range(len(lrs))])
            row = {"reference": goal}
            gap = np.abs(steps - goal)
            if np.isfinite(gap).any():
                j = int(np.nanargmin(gap))
                row |= {"lr": lrs[j], "reached": steps[j]}
                row |= self._compared(runs[:, i, j], int(steps[j]), moments, lrs[j], seed)
            rows.append(row)
        names = ("lr", "reached", "reference", "amplitude", "step_rms", "step_largest", "stability",
                 "told_amplitude", "predicted_amplitude")  # fmt: skip
        data = xr.Dataset({name: ("seed", [row.get(name, math.nan) for row in rows]) for name in names})
        data = data.assign_coords(seed=list(self.seeds), relative=list(RELATIVE))
        seen, told, threshold = self._at_threshold(device)
        data["growth"], data["predicted_growth"], data["threshold_in_gd"] = (
            ("relative", seen),
            ("relative", told),
            threshold,
        )
        return data

    def _rule(self, name: Name, lr: torch.Tensor, *, eps: float = 1e-8) -> Rule:
        match name:
            case "gd":
                return GradientDescent(lr)
            case "momentum":
                return Momentum(lr, MU)
            case "momentum_dampened":
                return Momentum(lr, MU, MU)
            case "adam":
                return Adam(lr, BETA1, BETA2, eps)
            case "sign":
                return SignDescent(lr)
            case "split_sgd":
                return SplitSGD(lr, self.sign_lr, self.threshold, MU, MU)

    def _theory(self, lr: float, *, eps: float = 1e-8) -> optimizer_maps.Momentum | optimizer_maps.Adam | None:
        """The rule's map in theory; SplitSGD's is that of its plain steps, sign descent's has no threshold."""
        match self.rule:
            case "gd":
                return optimizer_maps.Momentum(lr, 0.0)
            case "momentum":
                return optimizer_maps.Momentum(lr, MU)
            case "momentum_dampened" | "split_sgd":
                return optimizer_maps.Momentum(lr, MU, MU)
            case "adam":
                return optimizer_maps.Adam(lr, BETA1, BETA2, eps)
            case "sign":
                return None

    def _descend(self, name: Name, drawn: Sequence[Moments], lrs: Sequence[float], device: torch.device) -> Floats:
        """(step, seed, lr, 2 + d1) weights; NaN from where a run is not finite."""
        starts = stack_states([self.config(seed).initial_state for seed in self.seeds]).to(device)
        runs = descend_batch(
            stack(drawn).shared(),
            starts[:, None].expand(-1, len(lrs), -1, -1),
            self._rule(name, torch.tensor(lrs, dtype=torch.float64, device=device).expand(len(drawn), -1)),
            self.steps,
            sharpness=False,
            keep_weights=True,
        )
        weights: Floats = runs["weights"].values[..., 0, :]
        return weights

    def _reached(self, weights: Floats) -> float:
        """First step of a run (step, 2 + d1) with the progress made; NaN if there is none, or nothing after it."""
        model = self.config(0).model
        with np.errstate(over="ignore", invalid="ignore"):
            error = ((weights[:, :1] * weights[:, 1:-1] - model.beta) ** 2 * model.covariance).sum(1)
        made = np.flatnonzero(error <= self.progress * float(model.covariance @ model.beta**2))
        enough = made.size and made[0] < len(weights) - 3 and np.isfinite(weights[-1]).all()
        return float(made[0]) if enough else math.nan

    def _compared(self, weights: Floats, begin: int, moments: Moments, lr: float, seed: int) -> dict[str, float]:
        """What is compared of one run, from the step at which it has made the progress."""
        sample = SampleMoments(moments.gram.cpu().numpy(), moments.cross.cpu().numpy(), float(moments.square))
        c, z = weights[:, 0], weights[:, 0] * weights[:, -1]
        steps = np.abs(np.diff(z[begin:]))
        alternating = float(np.abs(alternating_part(z[begin:])).max())
        row = {
            "amplitude": alternating,
            "step_rms": float(np.sqrt((steps**2).mean())),
            "step_largest": float(steps.max()),
        }
        theory, curvature = self._theory(lr), sample.alpha * c**2
        if isinstance(theory, optimizer_maps.Adam):
            precondition = theory.preconditioning()
            slopes = sample.gradient(State.from_vector(weights, self.d1)).vector
            curvature = curvature / np.array([precondition(g)[-1] for g in slopes])
        if theory is not None:
            row["stability"] = float(curvature[begin:].max()) / theory.threshold
        if self.rule == "gd":
            start = self.config(seed).initial_state
            onset = sample_onset(sample, start, lr, max_steps=self.steps)
            path = State.from_vector(weights[begin:], self.d1)
            row["told_amplitude"] = float((np.abs(path.c) * distance_from_floor(sample, path)).max())
            # z = cs, with c at its threshold when s is largest
            row["predicted_amplitude"] = math.sqrt(2 / (lr * sample.alpha)) * spike_after_onset(
                sample, start, lr, onset
            )
        elif self.rule == "sign":
            row |= {"told_amplitude": alternating, "predicted_amplitude": float(c[-1]) * lr / 2}
        return row

    def _at_threshold(self, device: torch.device) -> tuple[Floats, Floats, float]:
        """(relative,) measured and predicted growth of |s| a step at a minimum, and the threshold over 2/λ."""
        nothing = np.full(len(RELATIVE), math.nan)
        theory = self._theory(1.0, eps=1.0)
        if theory is None:
            return nothing, nothing, math.nan
        model = self.config(0).model
        at = minimum_at(model, math.sqrt(self.beta))
        curvature = self.alpha * self.beta  # αc²
        # A threshold λ* is proportional to 1/η, so η* = (λ* at η = 1)/λ.
        lrs = [relative * theory.threshold / curvature for relative in RELATIVE]
        start = State(at.c, at.b, np.array([_TINY]))
        runs = descend_batch(
            population_moments(model, device),
            stack_states([start] * len(lrs)).to(device),
            self._rule(self.rule, torch.tensor(lrs, dtype=torch.float64, device=device), eps=1.0),
            _GROWTH_STEPS,
            sharpness=False,
        )
        size = np.abs(runs["opposing"].values[..., 0])
        half = (len(size) - _WINDOW) // 2
        # Means over windows: below the threshold momentum's s turns in the complex plane as it shrinks.
        late, early = size[-_WINDOW:].mean(0), size[-_WINDOW - half : -half].mean(0)
        told = [float(optimizer_maps.growth_per_step(self._theory(lr, eps=1.0), curvature)) for lr in lrs]  # type: ignore[arg-type]
        return (late / early) ** (1 / half), np.array(told), theory.threshold / 2


def optimisers_table(data: xr.Dataset, config: OptimisersConfig) -> str:
    """One line a rule: what it did after the same progress in the same steps, and its threshold."""
    lines = [
        f"α = {config.alpha:g}, ‖β‖ = {config.beta:g}, {len(config.seeds)} samples of {config.examples}, gradient "
        f"descent at η = {config.lr:g}; matched where {config.progress:.0%} of the main signal's error is left",
        "                          η      step    (gd's)    amplitude of z   sim/theory   step of z, rms    largest   "
        "curvature/threshold  as told    threshold/(2/λ)  its bracket      growth − theory",
    ]
    for rule in data["rule"].values:
        v = {str(name): data[name].sel(rule=rule).values for name in data.data_vars}
        visible, unstable = v["amplitude"] >= VISIBLE, v["stability"] > 1
        known = np.isfinite(v["stability"])
        told = f"{int((visible == unstable)[known].sum())}/{int(known.sum())}" if known.any() else "-"
        stability = f"{_median(v['stability']):.3g}" if known.any() else "none"
        ratio = v["told_amplitude"] / v["predicted_amplitude"]
        lines.append(
            f"  {rule:18}{_median(v['lr']):9.3g}{_median(v['reached']):9.0f}{_median(v['reference']):9.0f}"
            f"{_median(v['amplitude']):17.3g}{_number(ratio):>13}{_median(v['step_rms']):16.3g}"
            f"{_median(v['step_largest']):12.3g}{stability:>17}{told:>12}{_bracket(v, data['relative'].values)}"
        )
        if missing := int((~np.isfinite(v["reached"])).sum()):
            lines.append(f"  {'':18}{missing} of {v['reached'].size} samples did not come so far, and are left out")
    lines.append(
        f"medians over the samples. as told: an alternating part of z of {VISIBLE:g} or more just where the curvature "
        "exceeds the rule's threshold.\nits bracket: step sizes, over the theory's threshold, between which s begins "
        "to grow; threshold/(2/λ): what plain descent's rule 2/η would have to be multiplied by (Adam: at P = 1)."
    )
    return "\n".join(lines)


def _bracket(v: dict[str, Floats], relative: Floats) -> str:
    """Threshold over gradient descent's, the grid's step sizes on either side of it, and the worst growth."""
    growth = v["growth"]
    if not np.isfinite(growth).all():
        return f"{'none':>15}"
    below, above = relative[growth < 1], relative[growth > 1]
    text = f"[{below.max():g}, {above.min():g}]" if below.size and above.size else "?"
    return f"{float(v['threshold_in_gd']):15.3f}{text:>21}{np.abs(growth - v['predicted_growth']).max():14.1e}"


def _number(values: Floats) -> str:
    return f"{_median(values):.3f}" if np.isfinite(values).any() else "-"


def _median(values: Floats) -> float:
    """Of the samples that have the number."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan
