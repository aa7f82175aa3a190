"""A small network fitted to a Chebyshev polynomial by full-batch gradient descent (F6): neighbouring extrema oppose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim.chebyshev import chebyshev_examples
from sim.curvature import HessianOperator, top_eigenpairs
from sim.networks import mlp
from sim.sweeps.study import Study, Unit
from theory.command_line import require_positive, require_seeds

TOLERANCE = 1e-3
"""Relative residual of each sharpness."""


@dataclass(frozen=True)
class ChebyshevConfig(Study):
    """Fit T_degree on [−1, 1] with a multilayer perceptron, squared loss, from several initial weights.

    The paper's degree, widths and step size are not known to us; these are ours. The data set has dimension ``seed``
    beside those of `ChebyshevUnit.run`.
    """

    name: ClassVar[str] = "chebyshev"

    degree: int = 4
    """Degree of the polynomial."""
    examples: int = 50
    """Number of evenly spaced points."""
    hidden: tuple[int, ...] = field(default=(100, 100), metadata={"repeats": True})
    """Units of each hidden layer."""
    activation: str = "relu"
    """relu, tanh or gelu."""
    lr: float = 0.1
    """Step size η."""
    steps: int = 2000
    """Number of steps."""
    measure_every: int = 10
    """Steps between measurements of the sharpness."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the initial weights."""

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "measure_every"):
            require_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        require_seeds(self.seeds)
        chebyshev_examples(self.examples, self.degree, torch.device("cpu"))  # refuses what is out of range
        mlp([1, *self.hidden, 1], self.activation, 0)

    def units(self) -> Sequence[ChebyshevUnit]:
        """One unit a seed."""
        return [
            ChebyshevUnit(
                self.degree,
                self.examples,
                self.hidden,
                self.activation,
                self.lr,
                self.steps,
                self.measure_every,
                seed,
            )
            for seed in self.seeds
        ]

    def combine(self, data: Sequence[xr.Dataset]) -> xr.Dataset:
        """See `Study`."""
        # x and target are the same for every seed.
        return xr.concat(
            data, xr.Variable("seed", list(self.seeds)), data_vars=["output", "sharpness", "diverged_at"]
        ).assign_attrs(lr=self.lr, degree=self.degree)

    def table(self, data: xr.Dataset) -> str:
        """See `Study`."""
        lines = [f"T_{self.degree} at {self.examples} points, η = {self.lr:g}: loss ½(f − y)², sharpness times η/2"]
        for seed in data["seed"].values:
            of_seed = data.sel(seed=seed)
            loss = ((of_seed["output"] - of_seed["target"]) ** 2).mean("example").values / 2
            ratio = of_seed["sharpness"].values * self.lr / 2
            start = f"  seed {seed}: loss {loss[0]:.3f} → "
            if (diverged := int(of_seed["diverged_at"])) >= 0:
                lines.append(f"{start}diverged at step {diverged}, ηλ/2 {ratio[0]:.2f} at the start")
                continue
            late = np.median(ratio[len(ratio) // 2 :])
            lines.append(
                f"{start}{loss[-1]:.2g}, ηλ/2 {ratio[0]:.2f} at the start, "
                f"{ratio.max():.2f} at most, {late:.3f} in the median of the second half"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class ChebyshevUnit(Unit):
    """The run of one seed; fields as in `ChebyshevConfig`."""

    degree: int
    examples: int
    hidden: tuple[int, ...]
    activation: str
    lr: float
    steps: int
    measure_every: int
    seed: int

    @property
    def label(self) -> str:
        """See `Unit`."""
        return f"degree{self.degree}-seed{self.seed}"

    def run(self, device: torch.device) -> xr.Dataset:
        """Descends and measures.

        Returns:
            Data set with ``x`` and ``target`` (example), the network's ``output`` (step, example) before each step,
            NaN from a divergence on, ``sharpness`` (measured) at the steps ``measured``, and ``diverged_at``, −1
            for a finite run.
        """
        inputs, target = chebyshev_examples(self.examples, self.degree, device, torch.float64)
        network = mlp([1, *self.hidden, 1], self.activation, self.seed).to(device, torch.float64)
        parameters = list(network.parameters())
        measured = np.arange(0, self.steps, self.measure_every)
        outputs = torch.full((self.steps, self.examples), torch.nan, dtype=torch.float64)
        sharpness = _Sharpness(network, inputs, target, self.seed)
        values, diverged_at = np.full(len(measured), np.nan), -1
        for step in range(self.steps):
            output = network(inputs)
            loss = (output - target).square().mean() / 2
            if not torch.isfinite(loss):
                diverged_at = step
                break
            outputs[step] = output.detach()[:, 0].cpu()
            if step % self.measure_every == 0:
                values[step // self.measure_every] = sharpness()
            with torch.no_grad():
                for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                    parameter.sub_(self.lr * slope)
        data = xr.Dataset(coords={"step": np.arange(self.steps), "measured": measured})
        data["x"], data["target"] = ("example", inputs[:, 0].cpu()), ("example", target[:, 0].cpu())
        data["output"] = ("step", "example"), outputs
        data["sharpness"], data["diverged_at"] = ("measured", values), diverged_at
        return data


class _Sharpness:
    """Largest Hessian eigenvalue of the mean loss, each solve started from the last one's vector."""

    def __init__(self, network: nn.Module, inputs: Tensor, target: Tensor, seed: int) -> None:
        self.network, self.inputs, self.target = network, inputs, target
        self.generator = torch.Generator().manual_seed(seed)
        self.last: Tensor | None = None

    def __call__(self) -> float:
        loss = (self.network(self.inputs) - self.target).square().mean() / 2
        pairs = top_eigenpairs(
            HessianOperator(loss, list(self.network.parameters())),
            generator=self.generator,
            start=self.last,
            tolerance=TOLERANCE,
        )
        self.last = pairs.vectors
        return float(pairs.values[0])
