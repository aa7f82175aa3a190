"""Descent of the two-layer linear network on population and samples, beside the flow, from one start in one loop."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.checkpoints import Checkpoints
from sim.opposing_data import draw_examples
from sim.progress import progress_bar
from sim.record import Record
from sim.runs import Run, RunInProgress, obtain_resumable_run
from sim.second_moments import population_moments, sample_moments, stack
from theory import InputError, Model, State, drive, gradient_flow, layer_sharpness
from theory.command_line import require_positive
from theory.configuration import DescentConfig

BLOCK = 64
"""Steps taken at a time: then they are measured together, seen to be finite, which waits for the device, and kept."""


@dataclass(frozen=True)
class TwoLayerConfig(DescentConfig):
    """Descend the two-layer linear network on the population and on finite samples, beside the flow."""

    start: Literal["random", "edge"] = "random"
    """random: c = 1 and a random unit first layer. edge: c² = 2/(ηα), cb = 0.3 β, s² a quarter of D/(αc)."""
    examples: int = 20000
    """Examples in each finite sample."""
    fraction: float = 0.05
    """Fraction p of examples that are outliers."""
    sample_seeds: tuple[int, ...] = field(default=(0, 1, 2), metadata={"may_be_empty": True})
    """One finite sample a seed; none for the population alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("--examples", self.examples)
        if not 0 < self.fraction <= 1:
            raise InputError(f"--fraction is {self.fraction}: give a number above 0 and at most 1")

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> TwoLayerConfig:
        """The configuration from the plain values that the run store keeps; other keys are passed over."""
        names = {field.name for field in fields(cls)}
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in names}
        return cls(**known)

    @property
    def initial_state(self) -> State:
        """Weights at step 0."""
        if self.start == "random":
            return super().initial_state
        c = math.sqrt(2 / (self.lr * self.alpha))
        floor = State(np.array(c), 0.3 * self.model.beta / c, np.zeros(1))
        s = 0.5 * np.sqrt(drive(self.model, floor) / (self.alpha * c))
        return State(floor.c, floor.b, s[None])


def run_two_layer(
    config: TwoLayerConfig, device: torch.device, *, run: RunInProgress | None = None, progress: bool = True
) -> xr.Dataset:
    """Descends on the population loss and on each finite sample, beside the flow, all from one start.

    Args:
        config: the run.
        device: where descent runs, in float64.
        run: the run's folder, to record its steps in and go on from; all in memory when not given.
        progress: whether to show a progress bar.

    Returns:
        Data set with dimensions ``step``, ``run`` (population, then one a sample seed) and ``feature``: weights c, b,
        s of every run and of the flow, losses, group losses of the samples, sharpness by layer, and the distances
        descent–flow and sample–population in weight space. Attribute ``diverged_at`` is the first step with a
        loss that is not finite, −1 if there is none; later steps are cut.
    """
    flow = gradient_flow(config.model, config.initial_state, config.lr * np.arange(config.steps + 1))
    descent = _Descent(config, flow.state, device)
    record = Record() if run is None else run.record
    descent.declare(record)
    checkpoints = None if run is None else run.checkpoints
    diverged_at = -1
    with progress_bar(range(config.steps + 1), "two-layer descent", show=progress) as bar:
        for step, path in descent.blocks(record, checkpoints):
            for name, rows in (descent.measure(step, path) if len(path) else {}).items():
                for row in rows:
                    record.append(name, row)
            bar.update(step + len(path) - bar.n)
            if len(path) < min(BLOCK, config.steps + 1 - step):
                diverged_at = step + len(path)
                break
            if checkpoints is not None and checkpoints.due():
                checkpoints.save(step + len(path), {**descent.state_dict(), "record": record.state_dict()})
    data = record.dataset()
    data = data.assign_coords(step=np.arange(data.sizes["step"]), run=descent.runs)
    kept = slice(0, data.sizes["step"])
    data["flow_c"], data["flow_b"] = ("step", flow.state.c[kept]), (("step", "feature"), flow.state.b[kept])
    data["flow_s"] = "step", flow.state.s[kept, 0]
    of_flow = State(flow.state.c[kept], flow.state.b[kept], flow.state.s[kept])
    for name, values in _by_layer(config.model, of_flow, "flow").items():
        data[name] = "step", values
    turning = flow.turning_time
    data.attrs = {
        "diverged_at": diverged_at,
        "turning_time": float("nan") if turning is None else turning,
    }
    return data


def obtain_two_layer(
    root: Path, name: str, config: TwoLayerConfig, device: torch.device, *, force: bool = False
) -> Run:
    """The run of that name in the store, read, gone on with or made; of several ranks, the first makes it.

    Raises:
        InputError: as `sim.obtain_resumable_run`.
    """
    return obtain_resumable_run(
        root,
        name,
        config,
        lambda run: run_two_layer(config, device, run=run),
        device=device,
        force=force,
        together=False,
    )


class _Descent:
    """Descent on the population and the samples, a row each, and what is measured of it."""

    def __init__(self, config: TwoLayerConfig, flow: State, device: torch.device) -> None:
        self.config, self.device = config, device
        self.flow = torch.from_numpy(flow.vector[:, None]).to(device)  # (steps + 1, 1, 1 + d)
        samples = [
            sample_moments(draw_examples(config.model, config.examples, config.fraction, seed, device))
            for seed in config.sample_seeds
        ]
        population = population_moments(config.model, device)
        self.moments = stack([population, *(sample["all"] for sample in samples)])
        self.groups = {g: stack([sample[g] for sample in samples]) for g in ("plus", "minus")} if samples else {}
        self.runs = ["population", *map(str, config.sample_seeds)]
        start = config.initial_state
        self.c = torch.full((len(self.runs),), float(start.c), dtype=torch.float64, device=device)
        self.w = torch.from_numpy(start.first_layer).to(device).repeat(len(self.runs), 1)

    def declare(self, record: Record) -> None:
        """The columns of `measure`."""
        runs = len(self.runs)
        for name in ("c", "s", "loss", "loss_plus", "loss_minus", "sharpness", "distance_flow", "distance_population"):
            record.declare(name, ("step", "run"), (runs,))
        record.declare("b", ("step", "run", "feature"), (runs, self.config.d1))
        for part in _LAYER_PARTS:
            record.declare(f"descent_{part}", ("step",))

    def blocks(self, record: Record, checkpoints: Checkpoints | None) -> Iterator[tuple[int, Tensor]]:
        """Steps from the latest checkpoint on: the first one, and (steps, run, 1 + d) weights, to the last finite."""
        begin = self._resume(record, checkpoints)
        for step in range(begin, self.config.steps + 1, BLOCK):
            path = []
            for _ in range(min(BLOCK, self.config.steps + 1 - step)):
                path.append(torch.cat([self.c[:, None], self.w], 1))
                d_c, d_w = self.moments.gradient(self.c, self.w)
                self.c, self.w = self.c - self.config.lr * d_c, self.w - self.config.lr * d_w
            weights = torch.stack(path)
            finite = torch.isfinite(self.moments.loss(weights[..., 0], weights[..., 1:])).all(1)
            yield step, weights[: int(finite.long().cumprod(0).sum())]

    def measure(self, step: int, path: Tensor) -> dict[str, np.ndarray]:
        """Everything that follows from the weights (steps, run, 1 + d) of steps from `step` on, a row a step."""
        c, w = path[..., 0], path[..., 1:]
        population = State.from_vector(path[:, 0].cpu().numpy(), self.config.d1)
        layers = _by_layer(self.config.model, population, "descent")
        sharpness = np.empty(c.shape)
        sharpness[:, 0] = layers["descent_sharpness"]
        for i in range(len(path) if len(self.runs) > 1 else 0):
            # A sample's Gram matrix is not diagonal: no secular equation, a dense eigenvalue problem each step.
            dense = self.moments.hessian(c[i], w[i])[1:]
            sharpness[i, 1:] = torch.linalg.eigvalsh(dense)[:, -1].cpu().numpy()
        values = {
            "c": c,
            "b": w[..., :-1],
            "s": w[..., -1],
            "loss": self.moments.loss(c, w),
            "distance_flow": (path - self.flow[step : step + len(path)]).norm(dim=-1),
            "distance_population": (path - path[:, :1]).norm(dim=-1),
        }
        measured = {name: value.cpu().numpy() for name, value in values.items()}
        for group in ("plus", "minus"):
            losses = np.full(c.shape, np.nan)
            if group in self.groups:
                losses[:, 1:] = self.groups[group].loss(c[:, 1:], w[:, 1:]).cpu().numpy()
            measured[f"loss_{group}"] = losses
        return {**measured, "sharpness": sharpness, **layers}

    def state_dict(self) -> dict[str, Any]:
        """All that the next block depends on."""
        return {"c": self.c, "w": self.w}

    def _resume(self, record: Record, checkpoints: Checkpoints | None) -> int:
        latest = None if checkpoints is None else checkpoints.latest()
        if latest is None:
            return 0
        step, state = latest
        self.c, self.w = (state[name].to(self.device) for name in ("c", "w"))
        record.load_state_dict(state["record"])
        return step


_LAYER_PARTS = ("sharpness", "first_layer", "last_layer", "first_share")


def _by_layer(model: Model, state: State, name: str) -> dict[str, np.ndarray]:
    """Sharpness of the population loss along a path, of the layers' blocks, and the first's share."""
    layers = layer_sharpness(model, state)
    values = (layers.whole, layers.first, layers.last, layers.first_share)
    return {f"{name}_{part}": value for part, value in zip(_LAYER_PARTS, values, strict=True)}
