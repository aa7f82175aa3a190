"""Read-only measurements during training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
import xarray as xr
from torch import Tensor, nn

from sim.curvature import Eigenpairs, HessianOperator, layer_blocks, layer_shares, top_eigenpairs
from sim.networks import layer_of_parameter


@dataclass
class SharpnessProbe:
    """Sharpness, layer shares of the top eigenvector and block sharpness at stated steps.

    Measured at the iterate θ_t, and where wanted at the midpoint of the step, θ_t − ½η∇L(θ_t): at the edge of stability
    the iterate bounces across the valley, and the midpoint of two iterates lies near its floor. The network is never
    touched: losses are evaluated on detached copies of its parameters.

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
    _records: list[tuple[str, int, float, float, bool, np.ndarray]] = field(default_factory=list, repr=False)
    _last: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        self._generator = torch.Generator().manual_seed(self.seed)
        self._layers = layer_of_parameter(self.network)
        self._sizes = [p.numel() for p in self.network.parameters()]

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measures where the step is due."""
        if step % self.every:
            return
        hessian = self._hessian([p.detach() for p in parameters])
        self._measure("iterate", step, hessian)
        if self.blocks_every and step % self.blocks_every == 0:
            for layer, block in layer_blocks(hessian, self._layers).items():
                self._measure(f"block {layer}", step, block)
        if self.midpoint:
            halfway = [p.detach() - self.lr / 2 * g for p, g in zip(parameters, gradients, strict=True)]
            self._measure("midpoint", step, self._hessian(halfway))

    def dataset(self) -> xr.Dataset:
        """All measurements: dimensions ``measured`` and ``block_measured`` (steps) and ``layer``."""
        layers = list(dict.fromkeys(self._layers))
        data = xr.Dataset(coords={"layer": [f"layer {i + 1}" for i in range(len(layers))]})
        for place in ("iterate", "midpoint") if self.midpoint else ("iterate",):
            rows = [r for r in self._records if r[0] == place]
            data.coords["measured"] = [r[1] for r in rows]
            data[f"sharpness_{place}"] = "measured", [r[2] for r in rows]
            data[f"residual_{place}"] = "measured", [r[3] for r in rows]
            data[f"converged_{place}"] = "measured", [r[4] for r in rows]
            data[f"layer_share_{place}"] = ("measured", "layer"), np.array([r[5] for r in rows])
        if self.blocks_every:
            blocks = [[r for r in self._records if r[0] == f"block {layer}"] for layer in layers]
            data.coords["block_measured"] = [r[1] for r in blocks[0]]
            for name, column in (("sharpness", 2), ("residual", 3)):
                values = np.array([[r[column] for r in rows] for rows in blocks]).T
                data[f"block_{name}"] = ("block_measured", "layer"), values
        return data

    def _hessian(self, parameters: list[Tensor]) -> HessianOperator:
        leaves = [p.requires_grad_() for p in parameters]
        names = [name for name, _ in self.network.named_parameters()]
        output = torch.func.functional_call(self.network, dict(zip(names, leaves, strict=True)), (self.inputs,))
        return HessianOperator(F.cross_entropy(output, self.labels), leaves)

    def _measure(self, place: str, step: int, operator: HessianOperator) -> Eigenpairs:
        pairs = top_eigenpairs(
            operator, generator=self._generator, start=self._last.get(place), tolerance=self.tolerance
        )
        self._last[place] = pairs.vectors
        whole = operator.size == sum(self._sizes)
        shares = layer_shares(pairs.vectors[0], self._sizes, self._layers) if whole else np.array([])
        self._records.append((place, step, float(pairs.values[0]), float(pairs.residuals[0]), pairs.converged, shares))
        return pairs
