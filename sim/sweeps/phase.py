"""The phase diagram asks of each (η, α‖β‖) whether descent converges, oscillates or diverges.

Beside it stand the theory's boundaries (Σ = I, balanced start): η S < 2 with S the flow's final sharpness (T6, T8), the
same with S the sharpness at which descent itself ends to first order in η, and η S_min < 2, beyond which no minimum is
stable.

With Σ = I, b stays in the span of β and its start, since its gradient c (cb − β) lies there: descent on d1 features is
descent on two of them, to rounding. That is what makes large diagrams cheap.
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
from sim.update_rules import GradientDescent
from theory import Model, State
from theory.command_line import InputError, require_different, require_positive, require_seeds
from theory.configuration import DescentConfig
from theory.curvature import sharpness
from theory.limits import flow_limit
from theory.minima import descent_limit, smallest_minimum_sharpness

PHASES = ("converges", "oscillates", "diverges", "unsettled")

REBOUND = 10.0
"""A run oscillates if its opposing weight ever grows this much above the smallest size it had before."""

RECORD_EVERY = 4
"""Steps between looks at a run. A weight that grows tenfold takes longer."""

OFF = 1.5
"""Factor by which the control's boundary is off."""

SETTLED = 1e-6
"""A run has settled in a minimum if its loss is this close, relative to ½‖β‖², to the least one."""


@dataclass(frozen=True)
class PhaseConfig(Study):
    """Phase diagram over (η, α‖β‖): converges, oscillates or diverges, beside the theory's boundaries.

    The data set has dimensions ``beta``, ``lr`` and ``seed``: as `PhaseUnit.run` says, with ``beta`` added.
    """

    name: ClassVar[str] = "phase"

    alpha: float = 20.0
    """Second moment α of the opposing feature."""
    betas: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """Norms ‖β‖ of the linear target, one unit of the sweep each."""
    rows: int | None = None
    """This many ‖β‖, evenly spaced in logarithm from the smallest to the largest of betas; betas when not given."""
    lowest: float = 0.5
    """Smallest step size, in units of the theory's boundary 2/S."""
    highest: float = 5.0
    """Largest step size, in the same units."""
    lrs: int = 46
    """Number of step sizes, evenly spaced."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """Seeds of the random starts, one run a seed and step size."""
    k: float = 3.0
    """Opposing over ordinary features, d2/d1; sets the start's opposing weight."""
    d1: int = 50
    """Number of ordinary features."""
    steps: int = 4000
    """Number of steps."""

    def __post_init__(self) -> None:
        for name in ("alpha", "lowest", "lrs", "d1", "steps"):
            require_positive(f"--{name}", getattr(self, name))
        require_positive("--k", self.k, zero_allowed=True)
        for beta in self.betas:
            require_positive("--betas", beta)
        if not self.lowest < self.highest < np.inf:
            raise InputError(f"--highest is {self.highest}: give a finite number above --lowest, {self.lowest}")
        require_different("--betas", self.betas)
        require_seeds(self.seeds)
        if self.rows is not None and (self.rows < 2 or len(self.betas) < 2):
            raise InputError(f"--rows is {self.rows} for {len(self.betas)} --betas: give at least two of each")

    def units(self) -> Sequence[PhaseUnit]:
        """One unit a ‖β‖."""
        return [self.unit(beta) for beta in self._norms()]

    def unit(self, beta: float) -> PhaseUnit:
        """The runs of one ‖β‖."""
        return PhaseUnit(self.alpha, beta, self.lowest, self.highest, self.lrs, self.seeds, self.k, self.d1, self.steps)

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        return xr.concat(data, xr.Variable("beta", self._norms()))

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        return phase_table(data, self.alpha)

    def _norms(self) -> list[float]:
        if self.rows is None:
            return list(self.betas)
        return [float(beta) for beta in np.geomspace(min(self.betas), max(self.betas), self.rows)]


@dataclass(frozen=True)
class PhaseUnit(Unit):
    """One row of the phase diagram, made in one batch; fields as in `PhaseConfig`."""

    alpha: float
    beta: float
    lowest: float
    highest: float
    lrs: int
    seeds: tuple[int, ...]
    k: float
    d1: int
    steps: int

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"beta{self.beta:g}"

    def config(self, seed: int) -> DescentConfig:
        """The model and start of one seed."""
        return DescentConfig(self.alpha, self.beta, self.k, self.d1, steps=self.steps, start_seed=seed)

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends all step sizes and seeds of one ‖β‖ at once.

        Returns:
            Data set with dimensions ``lr`` (index) and ``seed``: ``step_size``, ``phase`` (index into `PHASES`),
            ``diverged_at``, ``final_first_layer`` (the first layer's sharpness at the end), and the theory's step sizes
            ``flow_boundary``, ``descent_boundary`` (NaN where it has none) and ``last_boundary``; ``relative`` (lr) is
            the step size in units of ``flow_boundary``.
        """
        configs = [self.config(seed) for seed in self.seeds]
        reduced = [two_features(config.model, config.initial_state) for config in configs]
        model, starts = reduced[0][0], [start for _, start in reduced]
        flow = np.array([2 / float(sharpness(model, flow_limit(model, start))) for start in starts])
        grid = np.linspace(self.lowest, self.highest, self.lrs)
        step_sizes = grid[:, None] * flow  # (lr, seed)
        runs = descend_batch(
            population_batch([model] * step_sizes.size, device),
            stack_states(starts * self.lrs).to(device),
            GradientDescent(torch.from_numpy(step_sizes.ravel()).to(device)),
            self.steps,
            record_every=RECORD_EVERY,
            sharpness=False,
        )
        shape = ("lr", "seed"), step_sizes.shape
        data = xr.Dataset(coords={"relative": ("lr", grid), "seed": list(self.seeds)})
        data["step_size"] = shape[0], step_sizes
        data["phase"] = shape[0], _phases(runs, self).reshape(shape[1])
        data["diverged_at"] = shape[0], runs["diverged_at"].values.reshape(shape[1])
        data["final_first_layer"] = shape[0], runs["first_layer"].values[-1].reshape(shape[1])
        data["flow_boundary"] = "seed", flow
        data["descent_boundary"] = "seed", [_descent_boundary(model, start) for start in starts]
        data["last_boundary"] = (), 2 / smallest_minimum_sharpness(model)
        return data


def two_features(model: Model, start: State) -> tuple[Model, State]:
    """The same descent on two ordinary features, one along β and one along the rest of b(0), for Σ = I.

    Args:
        model: a model with Σ = I and β ≠ 0.
        start: one state of it.

    Raises:
        InputError: Σ is not the identity, or β is 0.

    >>> model, start = two_features(Model([5.0], [3.0, 4.0], [1.0, 1.0]), State(1.0, [5.0, 0.0], [0.5]))
    >>> model.beta.tolist(), start.b.tolist()
    ([5.0, 0.0], [3.0, 4.0])
    """
    norm = float(np.linalg.norm(model.beta))
    if norm == 0 or not (model.covariance == 1).all():
        raise InputError("β is 0 or Σ is not the identity: descent does not stay in the span of β and b(0)")
    along = float(start.b @ (model.beta / norm))
    across = float(np.linalg.norm(start.b - along * (model.beta / norm)))
    return Model(model.alpha, np.array([norm, 0.0]), np.ones(2)), State(start.c, np.array([along, across]), start.s)


def _phases(runs: xr.Dataset, unit: PhaseUnit) -> np.ndarray:
    """(run,) index into PHASES, from the weights' behaviour alone."""
    # Runs that diverged are NaN, and s may underflow to 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.abs(runs["opposing"].values[..., 0] / runs["last_layer_norm"].values)
        smallest = np.minimum.accumulate(s)
        grew = (np.nan_to_num(s / smallest, nan=0.0, posinf=0.0) >= REBOUND).any(0)
    settled = runs["loss"].values[-1] - unit.alpha / 2 <= SETTLED * unit.beta**2 / 2
    phase = np.where(grew, PHASES.index("oscillates"), PHASES.index("converges"))
    phase = np.where(settled, phase, PHASES.index("unsettled"))
    return np.where(runs["diverged_at"].values >= 0, PHASES.index("diverges"), phase)


def _descent_boundary(model: Model, start: State) -> float:
    """Step size at which η S = 2 at the end of descent, whose sharpness is S₀ + ηS₁ to first order; NaN if none is."""
    flow = float(sharpness(model, flow_limit(model, start)))
    lr = 2 / flow
    slope = (float(sharpness(model, descent_limit(model, start, lr))) - flow) / lr
    # η (S₀ + ηS₁) = 2, the root that is 2/S₀ at S₁ = 0
    square = flow**2 + 8 * slope
    return 4 / (flow + math.sqrt(square)) if square >= 0 else math.nan


def phase_table(data: xr.Dataset, alpha: float) -> str:
    """One line a ‖β‖: the theory's boundaries, the measured ones, and how many runs do what the theory says."""
    lines = [
        f"α = {alpha:g}, Σ = I, {data.sizes['seed']} starts; step sizes in units of 2/S, S = α‖β‖ of the flow's limit",
        "         theory                          measured, in all starts          below     between the two   beyond",
        "  α‖β‖   descent's limit   no minimum    bounces from     diverges from    converge  oscillate+diverge settle",
    ]
    counts = np.zeros((2, 4), dtype=int)
    settled = unsettled = 0
    for beta in data["beta"].values:
        row = data.sel(beta=beta)
        relative, phase = row["relative"].values, row["phase"].values
        flow = float(row["flow_boundary"].mean())
        descent = float(row["descent_boundary"].mean()) / flow
        last = float(row["last_boundary"]) / flow
        calm = phase == PHASES.index("converges")
        gone = phase == PHASES.index("diverges")
        swings = phase == PHASES.index("oscillates")
        bounces = swings | gone
        below, beyond = relative < min(1.0, descent), relative > last
        between = (relative > max(1.0, descent)) & ~beyond
        told = f"{int(swings[between].sum())}+{int(gone[between].sum())}/{calm[between].size}"
        lines.append(
            f"{alpha * float(beta):6.4g}{descent:18.3f}{last:13.3f}{_bracket(relative, bounces):>19}"
            f"{_bracket(relative, gone):>17}{_share(calm[below]):>10}{told:>19}{_share((calm | swings)[beyond]):>7}"
        )
        # The control: the boundary elsewhere, on the side on which it calls more runs so.
        far, near = relative < OFF * min(1.0, descent), (relative > max(1.0, descent) / OFF) & ~beyond
        for i, (good, where) in enumerate(((calm, below), (bounces, between), (calm, far), (bounces, near))):
            counts[:, i] += int(good[where].sum()), good[where].size
        settled += int((calm | swings)[beyond].sum())
        unsettled += int((phase == PHASES.index("unsettled")).sum())
    right = [f"{good} of {count}" for good, count in counts.T]
    lines.append(
        f"told: below 1 and the descent's boundary a run converges: {right[0]} (control, a boundary {OFF:g} times as "
        f"far: {right[2]});\nabove both and up to the last it bounces, and oscillates or diverges: {right[1]} "
        f"(control, one {OFF:g} times as near: {right[3]});\nbeyond the last no run settles: {settled} did. The theory "
        "has no boundary for divergence: S_min only bounds where a run can settle."
    )
    if unsettled:
        lines.append(f"{unsettled} runs are not settled after their steps, and count as none of these: raise --steps")
    return "\n".join(lines)


def _bracket(relative: np.ndarray, happened: np.ndarray) -> str:
    """Largest step size up to which it happened to no run, and smallest from which it happened to every run."""
    never = np.cumsum(happened.any(1)) == 0
    always = np.cumsum(np.asarray(~happened.all(1))[::-1])[::-1] == 0
    low = f"{relative[never].max():.3g}" if never.any() else "?"
    high = f"{relative[always].min():.3g}" if always.any() else "?"
    return f"{low} to {high}"


def _share(good: np.ndarray) -> str:
    return f"{int(good.sum())}/{good.size}" if good.size else "-"
