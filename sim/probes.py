"""Read-only measurements during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from sim.curvature import Eigenpairs, HessianOperator, layer_blocks, layer_shares, top_eigenpairs
from sim.losses import LossRule, mean_loss
from sim.networks import layer_of_parameter
from sim.record import Record
from theory.command_line import require_positive


@dataclass
class SharpnessProbe:
    """Sharpness, layer shares of the top eigenvector and block sharpness at stated steps.

    Measured at the iterate θ_t, and where wanted at the midpoint of the step, θ_t − ½η∇L(θ_t): at the edge of stability
    the iterate bounces across the valley, and the midpoint of two iterates lies near its floor. The network is never
    touched: losses are evaluated on copies of its parameters and buffers. The loss whose Hessian is taken is the one that
    is minimised: the rule and the examples' weights are to be those of the run.

    Attributes:
        network: the network; its class and buffers are used, not its parameters.
        inputs: (n, …) all inputs.
        labels: (n,) class indices.
        lr: step size η, for the midpoint.
        every: steps between measurements.
        blocks_every: steps between measurements of the layers' blocks (a multiple of `every`); 0 for none.
        midpoint: whether to measure at the midpoint too.
        tolerance: bound on every relative residual.
        seed: seed of the eigensolver's start vectors.
        loss: rule of the examples' losses.
        example_weights: (n,) weight of each example in the mean; all 1 when not given.
        record: where the measurements go, the run's own if they are to be on disk; in memory when not given.
    """

    network: nn.Module
    inputs: Tensor
    labels: Tensor
    lr: float
    every: int = 10
    blocks_every: int = 50
    midpoint: bool = True
    tolerance: float = 1e-2
    seed: int = 0
    loss: LossRule = field(default_factory=LossRule)
    example_weights: Tensor | None = None
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._last: dict[str, Tensor] = {}
        self._layers = layer_of_parameter(self.network)
        self._sizes = [p.numel() for p in self.network.parameters()]
        self._declare()

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measures where the step is due."""
        if step % self.every:
            return
        hessian = self._hessian([p.detach() for p in parameters])
        self.record.append("measured", step)
        self._measure_whole("iterate", hessian)
        if self.blocks_every and step % self.blocks_every == 0:
            self.record.append("block_measured", step)
            blocks = [
                self._solve(f"block {name}", block) for name, block in layer_blocks(hessian, self._layers).items()
            ]
            self.record.append("block_sharpness", [float(block.values[0]) for block in blocks])
            self.record.append("block_residual", [float(block.residuals[0]) for block in blocks])
        if self.midpoint:
            halfway = [p.detach() - self.lr / 2 * g for p, g in zip(parameters, gradients, strict=True)]
            self._measure_whole("midpoint", self._hessian(halfway))

    def dataset(self) -> xr.Dataset:
        """All measurements: dimensions ``measured`` and ``block_measured`` (steps) and ``layer``."""
        data = self.record.dataset()
        data = data.drop_vars([name for name in data.variables if name not in self._names])
        return data.assign_coords(layer=self.layer_names)

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers, in the order of their columns."""
        return [f"layer {i + 1}" for i in range(len(set(self._layers)))]

    @property
    def top_vector(self) -> Tensor | None:
        """(parameters,) unit top eigenvector at the iterate last measured; None before the first measurement."""
        return self._last["iterate"][0] if "iterate" in self._last else None

    def state_dict(self) -> dict[str, Any]:
        """State of the generator, the last eigenvectors, and measurements that are not in a record on disk."""
        record = {} if self.record.folder else self.record.state_dict()
        return {"generator": self._generator.get_state(), "vectors": dict(self._last), "record": record}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes back to that state."""
        self._generator.set_state(state["generator"])
        self._last = {place: vectors.to(self.inputs.device) for place, vectors in state["vectors"].items()}
        if state["record"]:
            self.record.load_state_dict(state["record"])

    def _declare(self) -> None:
        """Names the columns, in the order in which the data set has them."""
        before, layers = set(self.record.names), len(set(self._layers))
        self.record.declare("measured", ["measured"], dtype=np.int64)
        for place in ("iterate", "midpoint") if self.midpoint else ("iterate",):
            self.record.declare(f"sharpness_{place}", ["measured"])
            self.record.declare(f"residual_{place}", ["measured"])
            self.record.declare(f"converged_{place}", ["measured"], dtype=np.bool_)
            self.record.declare(f"layer_share_{place}", ["measured", "layer"], [layers])
        if self.blocks_every:
            self.record.declare("block_measured", ["block_measured"], dtype=np.int64)
            for name in ("block_sharpness", "block_residual"):
                self.record.declare(name, ["block_measured", "layer"], [layers])
        self._names = [name for name in self.record.names if name not in before]

    def _hessian(self, parameters: list[Tensor]) -> HessianOperator:
        leaves = [p.requires_grad_() for p in parameters]
        names = [name for name, _ in self.network.named_parameters()]
        # Batch norm in training mode writes to its buffers: it gets copies.
        buffers = {name: buffer.clone() for name, buffer in self.network.named_buffers()}
        values = {**buffers, **dict(zip(names, leaves, strict=True))}
        output = torch.func.functional_call(self.network, values, (self.inputs,))
        return HessianOperator(mean_loss(self.loss(output, self.labels), self.example_weights), leaves)

    def _measure_whole(self, place: str, hessian: HessianOperator) -> None:
        pairs = self._solve(place, hessian)
        self.record.append(f"sharpness_{place}", float(pairs.values[0]))
        self.record.append(f"residual_{place}", float(pairs.residuals[0]))
        self.record.append(f"converged_{place}", pairs.converged)
        self.record.append(f"layer_share_{place}", layer_shares(pairs.vectors[0], self._sizes, self._layers))

    def _solve(self, place: str, operator: HessianOperator) -> Eigenpairs:
        """The top eigenpairs, from those found at the same place the last time."""
        pairs = top_eigenpairs(
            operator, generator=self._generator, start=self._last.get(place), tolerance=self.tolerance
        )
        self._last[place] = pairs.vectors
        return pairs


@dataclass
class SnapshotProbe:
    """The parameters at every so many steps, the start of step 0 among them; a run can begin from one.

    Buffers are not kept: in training mode batch norm does not use its running statistics.

    Attributes:
        parameters: number of the network's parameters.
        every: steps between snapshots.
        record: where they go: ``snapshot`` (snapshot_step, parameter), in float32.
    """

    parameters: int
    every: int
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        require_positive("steps between snapshots", self.every)
        self.record.declare("snapshot_step", ["snapshot_step"], dtype=np.int64)
        self.record.declare("snapshot", ["snapshot_step", "parameter"], [self.parameters], np.float32)

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Keeps them where the step is due."""
        if step % self.every == 0:
            self.record.append("snapshot_step", step)
            self.record.append("snapshot", torch.cat([p.detach().reshape(-1) for p in parameters]))
