"""Sweeps of many runs, unit by unit through the run store: what is finished is read, so a killed sweep goes on.

The phase diagram asks of each (η, α‖β‖) whether descent converges, oscillates or diverges, and sets beside it the
theory's boundaries (Σ = I, balanced start): η S < 2 with S the flow's final sharpness (T6, T8), the same with S the
sharpness at which descent itself ends to first order in η, and η S_min < 2, beyond which no minimum is stable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from sim.batched_descent import descend_batch, stack_states
from sim.progress import progress_bar
from sim.runs import obtain_run
from sim.second_moments import population_batch
from sim.update_rules import GradientDescent
from theory.command_line import InputError, require_positive
from theory.configuration import DescentConfig
from theory.curvature import sharpness
from theory.limits import flow_limit
from theory.minima import descent_limit, smallest_minimum_sharpness

PHASES = ("converges", "oscillates", "diverges", "unsettled")

REBOUND = 10.0
"""A run oscillates if its opposing weight ever grows this much above the smallest size it had before."""

RECORD_EVERY = 4
"""Steps between looks at a run. A weight that grows tenfold takes longer."""

SETTLED = 1e-6
"""A run has settled in a minimum if its loss is this close, relative to ½‖β‖², to the least one."""


@dataclass(frozen=True)
class PhaseConfig:
    """Phase diagram over (η, α‖β‖): converges, oscillates or diverges, with the theory's boundaries."""

    alpha: float = 20.0
    """Second moment α of the opposing feature."""
    betas: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
    """Norms ‖β‖ of the linear target, one unit of the sweep each."""
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
        for name in ("betas", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise InputError(f"--{name} is {values}: give different numbers, at least one")

    def unit(self, beta: float) -> PhaseUnit:
        """The runs of one ‖β‖."""
        return PhaseUnit(self.alpha, beta, self.lowest, self.highest, self.lrs, self.seeds, self.k, self.d1, self.steps)


@dataclass(frozen=True)
class PhaseUnit:
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
    def name(self) -> str:
        """Name of its folder in the run store."""
        return f"phase-alpha{self.alpha:g}-beta{self.beta:g}"

    def config(self, seed: int) -> DescentConfig:
        """The model and start of one seed."""
        return DescentConfig(self.alpha, self.beta, self.k, self.d1, steps=self.steps, start_seed=seed)


def sweep_phase(
    config: PhaseConfig, runs: Path, device: torch.device, *, force: bool = False, progress: bool = True
) -> xr.Dataset:
    """Makes or reads every unit of the phase diagram.

    Args:
        config: the sweep.
        runs: folder of the run store; a finished unit in it is read.
        device: where the runs are made, in float64.
        force: makes every unit again.
        progress: whether to show a progress bar with an estimate of the time left.

    Returns:
        Data set with dimensions ``beta``, ``lr`` and ``seed``: as `run_phase_unit`'s.
    """
    units = [config.unit(beta) for beta in config.betas]
    data = [
        obtain_run(
            runs,
            unit.name,
            unit,
            lambda unit=unit: run_phase_unit(unit, device),  # type: ignore[misc]
            device=device,
            force=force,
        ).data.load()
        for unit in progress_bar(units, "phase diagram", show=progress)
    ]
    return xr.concat(data, xr.Variable("beta", list(config.betas)))


def run_phase_unit(unit: PhaseUnit, device: torch.device) -> xr.Dataset:
    """Descends all step sizes and seeds of one ‖β‖ at once.

    Returns:
        Data set with dimensions ``lr`` (index) and ``seed``: ``step_size``, ``phase`` (index into `PHASES`),
        ``diverged_at``, ``final_first_layer`` (the first layer's sharpness at the end), and the theory's step sizes
        ``flow_boundary``, ``descent_boundary`` (NaN where it has none) and ``last_boundary``.
    """
    configs = [unit.config(seed) for seed in unit.seeds]
    model, starts = configs[0].model, [c.initial_state for c in configs]
    flow = np.array([2 / float(sharpness(model, flow_limit(model, start))) for start in starts])
    grid = np.linspace(unit.lowest, unit.highest, unit.lrs)
    step_sizes = grid[:, None] * flow  # (lr, seed)
    runs = descend_batch(
        population_batch([model] * step_sizes.size, device),
        stack_states(starts * unit.lrs).to(device),
        GradientDescent(torch.from_numpy(step_sizes.ravel()).to(device)),
        unit.steps,
        record_every=RECORD_EVERY,
        sharpness=False,
    )
    shape = ("lr", "seed"), step_sizes.shape
    diverged_at = runs["diverged_at"].values
    data = xr.Dataset(coords={"relative": ("lr", grid), "seed": list(unit.seeds)})
    data["step_size"] = shape[0], step_sizes
    data["phase"] = shape[0], _phases(runs, unit).reshape(shape[1])
    data["diverged_at"] = shape[0], diverged_at.reshape(shape[1])
    data["final_first_layer"] = shape[0], runs["first_layer"].values[-1].reshape(shape[1])
    data["flow_boundary"] = "seed", flow
    data["descent_boundary"] = "seed", [_descent_boundary(unit.config(seed)) for seed in unit.seeds]
    data["last_boundary"] = (), 2 / smallest_minimum_sharpness(model)
    return data


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


def _descent_boundary(config: DescentConfig) -> float:
    """Step size at which η S = 2 at the end of descent, whose sharpness is S₀ + ηS₁ to first order; NaN if none is."""
    model, start = config.model, config.initial_state
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
        "         theory                          measured, in all starts            runs that do as told",
        "  α‖β‖   descent's limit   no minimum    oscillates from    diverges from   below   above   no minimum",
    ]
    for beta in data["beta"].values:
        row = data.sel(beta=beta)
        relative, phase = row["relative"].values, row["phase"].values
        flow = float(row["flow_boundary"].mean())
        descent = float(row["descent_boundary"].mean()) / flow
        last = float(row["last_boundary"]) / flow
        calm = phase == PHASES.index("converges")
        gone = phase == PHASES.index("diverges")
        settled = calm | (phase == PHASES.index("oscillates"))
        agreement = (
            _share(calm[relative < min(1.0, descent)]),
            _share(~calm[relative > max(1.0, descent)]),
            _share(~settled[relative > last]),
        )
        lines.append(
            f"{alpha * float(beta):6.4g}{descent:18.3f}{last:13.3f}{_bracket(relative, ~calm):>19}"
            f"{_bracket(relative, gone):>17}{agreement[0]:>8}{agreement[1]:>8}{agreement[2]:>13}"
        )
    lines.append(
        "below: under 1 and under the descent's boundary a run converges; above both it does not; beyond the last one "
        "no run settles.\nThe theory has no boundary for divergence: S_min only bounds where a run can settle."
    )
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
