"""Descent of the two-layer linear network on population and samples, beside the flow, from one start in one loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.opposing_data import draw_examples
from sim.progress import progress_bar
from sim.second_moments import Moments, population_moments, sample_moments, stack
from theory import InputError, State, drive, gradient_flow, layer_sharpness
from theory.command_line import require_positive
from theory.configuration import DescentConfig

SYNCHRONISE_EVERY = 256
"""Steps between looks at whether the run is still finite; each look waits for the device."""


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


def run_two_layer(config: TwoLayerConfig, device: torch.device, *, progress: bool = True) -> xr.Dataset:
    """Descends on the population loss and on each finite sample, beside the flow, all from one start.

    Args:
        config: the run.
        device: where descent runs, in float64.
        progress: whether to show a progress bar.

    Returns:
        Data set with dimensions ``step``, ``run`` (population, then one a sample seed) and ``feature``: weights c, b,
        s of every run and of the flow, losses, group losses of the samples, sharpness by layer, and the distances
        descent–flow and sample–population in weight space. Attribute ``diverged_at`` is the first step with a
        loss that is not finite, −1 if there is none; later steps are cut.
    """
    model, start = config.model, config.initial_state
    flow = gradient_flow(model, start, config.lr * np.arange(config.steps + 1))
    flow_vectors = torch.from_numpy(flow.state.vector).to(device)
    population = population_moments(model, device)
    samples = [
        sample_moments(draw_examples(model, config.examples, config.fraction, seed, device))
        for seed in config.sample_seeds
    ]
    moments = stack([population, *(sample["all"] for sample in samples)])

    runs = 1 + len(samples)
    c = torch.full((runs,), float(start.c), dtype=torch.float64, device=device)
    w = torch.from_numpy(start.first_layer).to(device).repeat(runs, 1)
    weights, distance_flow, distance_population = [], [], []
    diverged_at = -1
    for t in progress_bar(range(config.steps + 1), "two-layer descent", show=progress):
        here = torch.cat([c[:, None], w], 1)
        if t % SYNCHRONISE_EVERY == 0 and not torch.isfinite(moments.loss(c, w)).all():
            break
        weights.append(here)
        distance_flow.append((here - flow_vectors[t]).norm(dim=1))
        distance_population.append((here - here[0]).norm(dim=1))
        d_c, d_w = moments.gradient(c, w)
        c, w = c - config.lr * d_c, w - config.lr * d_w

    path = torch.stack(weights)  # (step, run, 1 + d)
    finite = torch.isfinite(moments.loss(path[..., 0], path[..., 1:])).all(1)
    if not finite.all():
        diverged_at = int((~finite).nonzero()[0])
        path = path[:diverged_at]
    kept = len(path)
    data = _record(config, moments, samples, path, State(flow.state.c[:kept], flow.state.b[:kept], flow.state.s[:kept]))
    data["distance_flow"] = ("step", "run"), torch.stack(distance_flow)[:kept].cpu().numpy()
    data["distance_population"] = ("step", "run"), torch.stack(distance_population)[:kept].cpu().numpy()
    turning = flow.turning_time
    data.attrs = {
        "diverged_at": diverged_at,
        "turning_time": float("nan") if turning is None else turning,
    }
    return data


def _record(
    config: TwoLayerConfig, moments: Moments, samples: list[dict[str, Moments]], path: Tensor, flow: State
) -> xr.Dataset:
    """Everything that follows from the weights, computed after the loop in a few large products."""
    model = config.model
    c, w = path[..., 0], path[..., 1:]
    population = State.from_vector(path[:, 0].cpu().numpy(), config.d1)
    data = xr.Dataset(coords={"step": np.arange(len(path)), "run": ["population", *map(str, config.sample_seeds)]})
    data["c"] = ("step", "run"), c.cpu().numpy()
    data["b"] = ("step", "run", "feature"), w[..., :-1].cpu().numpy()
    data["s"] = ("step", "run"), w[..., -1].cpu().numpy()
    data["loss"] = ("step", "run"), moments.loss(c, w).cpu().numpy()
    sharpness = np.empty(c.shape)
    sharpness[:, 0] = layer_sharpness(model, population).whole
    for step in range(len(path) if samples else 0):
        # A sample's Gram matrix is not diagonal: no secular equation, a dense eigenvalue problem each step.
        dense = moments.hessian(c[step], w[step])[1:]
        sharpness[step, 1:] = torch.linalg.eigvalsh(dense)[:, -1].cpu().numpy()
    data["sharpness"] = ("step", "run"), sharpness
    for group in ("plus", "minus"):
        values = np.full(c.shape, np.nan)
        if samples:
            of_group = stack([sample[group] for sample in samples])
            values[:, 1:] = of_group.loss(c[:, 1:], w[:, 1:]).cpu().numpy()
        data[f"loss_{group}"] = ("step", "run"), values
    data["flow_c"], data["flow_b"] = ("step", flow.c), (("step", "feature"), flow.b)
    data["flow_s"] = "step", flow.s[:, 0]
    for name, state in (("flow", flow), ("descent", population)):
        layers = layer_sharpness(model, state)
        data[f"{name}_sharpness"] = "step", layers.whole
        data[f"{name}_first_layer"] = "step", layers.first
        data[f"{name}_last_layer"] = "step", layers.last
        data[f"{name}_first_share"] = "step", layers.first_share
    return data
