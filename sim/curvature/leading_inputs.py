"""Restriction of a perceptron's Hessian to the leading directions of its inputs, where its sharpest directions lie.

Every curvature direction of a first linear layer W (units × features) is, like its gradient, a sum over examples of
errors ⊗ inputs; what is large and shared by many inputs outweighs the rest. With V the r leading principal directions
of the inputs X (not centred) and W(C) = W + C V,

    X W(C)ᵀ = X Wᵀ + (X Vᵀ) Cᵀ,

so the restriction P H Pᵀ of the Hessian, with Pᵀ (C, rest) = (C V, rest), is that of a network of r inputs, whose first
layer's outputs have a constant added; its products never touch X. Nor does half of H Pᵀ v, the exact image of what is
found there. On CIFAR-10 128 of 3,072 directions leave out 8 % of the inputs' square, but 2 to 4·10⁻⁴ of the top
eigenvectors', and on what they leave out the Hessian's largest eigenvalue is below a hundredth of the sharpness
(docs/performance.md). Products take a quarter of the time, vectors a tenth of the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sim.curvature.mean_loss import MeanLoss
from sim.curvature.operators import LinearOperator

RANK = 128
"""Number of leading directions; see the module and docs/performance.md for what others do."""

_OVERSAMPLED = 16
_ITERATIONS = 2


@dataclass(frozen=True)
class LeadingInputs:
    """Leading principal directions of the inputs, and the inputs along them.

    Attributes:
        directions: V, (r, features), orthonormal rows.
        both: [X Vᵀ, X], (n, r + features); a copy of the inputs.
    """

    directions: Tensor
    both: Tensor

    @classmethod
    def of(cls, inputs: Tensor, rank: int = RANK) -> Self:
        """Finds them by randomised subspace iteration (Halko, Martinsson & Tropp 2011), the same at every call.

        Args:
            inputs: X, (n, features).
            rank: number r of directions; at most the number of examples and of features.
        """
        rank = min(rank, *inputs.shape)
        width = min(rank + _OVERSAMPLED, *inputs.shape)
        start = torch.randn(inputs.shape[1], width, generator=torch.Generator().manual_seed(0)).to(inputs)
        range_ = torch.linalg.qr(inputs @ start).Q
        for _ in range(_ITERATIONS):
            range_ = torch.linalg.qr(inputs @ torch.linalg.qr(inputs.T @ range_).Q).Q
        directions = torch.linalg.svd(range_.T @ inputs, full_matrices=False).Vh[:rank].contiguous()
        return cls(directions, torch.cat([inputs @ directions.T, inputs], 1))

    def split(self, objective: MeanLoss, parameters: Sequence[Tensor]) -> SplitLoss:
        """The loss as a function of C, W and the other parameters, at C = 0.

        Args:
            objective: the loss over these inputs, of a network that `begins_linearly`.
            parameters: the point θ, in the network's order.
        """
        first, *rest = _chain(objective.network)
        weight, (rank, features) = parameters[0].detach(), self.directions.shape
        network = nn.Sequential(_SplitLinear(rank, len(weight), features, bias=first.bias is not None), *rest)
        point = [weight.new_zeros(len(weight), rank), *parameters]
        return SplitLoss(replace(objective, network=network, inputs=self.both), point, self.directions)


@dataclass(frozen=True)
class SplitLoss:
    """A loss as a function of C and of θ = (W, rest), the first layer's weights being W + C V.

    Along (C, rest) its Hessian is the restriction P H Pᵀ, along θ it is H, and from (C, rest) to θ it is H Pᵀ, all on
    one graph.

    Attributes:
        objective: that loss.
        parameters: the point (C, W, rest), with C = 0.
        directions: V, (r, features), orthonormal rows.
    """

    objective: MeanLoss
    parameters: list[Tensor]
    directions: Tensor

    @property
    def inside(self) -> list[int]:
        """Positions of (C, rest)."""
        return [0, *range(2, len(self.parameters))]

    @property
    def whole(self) -> list[int]:
        """Positions of (W, rest)."""
        return list(range(1, len(self.parameters)))

    def lift(self, rows: Tensor, indices: Sequence[int] | None = None) -> Tensor:
        """(k, size) the vectors (C V, rest) of the network's own parameters; lengths and angles stay.

        Args:
            rows: (k, size of the restriction) vectors (C, rest).
            indices: positions of the parameters that they belong to, such as a layer's; all when not given.
        """
        if indices is not None and 0 not in indices:
            return rows
        shape = self.parameters[0].shape
        first, rest = rows[:, : shape.numel()], rows[:, shape.numel() :]
        return torch.cat([(first.reshape(-1, *shape) @ self.directions).flatten(1), rest], 1)


class Complement:
    """Restriction of a Hessian to the first weights that have no part along the directions.

    Args:
        weights: the Hessian's block of the first weights.
        directions: V, (r, features), orthonormal rows.
    """

    def __init__(self, weights: LinearOperator, directions: Tensor) -> None:
        self._weights, self._directions = weights, directions
        self.size, self.device, self.dtype = weights.size, weights.device, weights.dtype

    def matvec(self, vector: Tensor) -> Tensor:
        """Product Q H Q v with Q = 1 − VᵀV on every unit's weights."""
        return self._outside(self._weights.matvec(self._outside(vector)))

    def _outside(self, vector: Tensor) -> Tensor:
        rows = vector.view(-1, self._directions.shape[1])
        return (rows - (rows @ self._directions.T) @ self._directions).flatten()


class _SplitLinear(nn.Module):
    """[x Vᵀ, x] → W x + C (V x) + b; its parameters are replaced by those handed in."""

    def __init__(self, rank: int, units: int, features: int, bias: bool) -> None:
        super().__init__()
        self.along = nn.Parameter(torch.empty(units, rank, device="meta"))
        self.weight = nn.Parameter(torch.empty(units, features, device="meta"))
        self.bias = nn.Parameter(torch.empty(units, device="meta")) if bias else None

    def forward(self, both: Tensor) -> Tensor:
        rank = self.along.shape[1]
        return F.linear(both[:, rank:], self.weight, self.bias) + F.linear(both[:, :rank], self.along)


def _chain(network: nn.Module) -> list[nn.Module]:
    """The modules of a chain in order, one that comes twice twice; `children` would give it once."""
    return list(cast(nn.Sequential, network))


def begins_linearly(network: nn.Module, inputs: Tensor, rank: int = RANK) -> bool:
    """Whether the network is a chain that begins with a linear layer, of at least four times as many inputs as `rank`.

    With fewer there is little to save. Nor where more than the chain's modules make the outputs: hooks on the chain or
    on its first layer, which is replaced, or weights that are made from other parameters.
    """
    chain = _chain(network) if type(network) is nn.Sequential else []
    if not chain or type(chain[0]) is not nn.Linear or inputs.ndim != 2 or inputs.shape[1] < 4 * rank:
        return False
    if any(m._forward_hooks or m._forward_pre_hooks or "forward" in vars(m) for m in (network, chain[0])):
        return False
    if [name for name, _ in chain[0].named_parameters()] != ["weight", "bias"][: 1 + (chain[0].bias is not None)]:
        return False
    # A first layer that comes again later would have to be restricted there too.
    own = {id(p) for p in chain[0].parameters()}
    return not any(id(p) in own for module in chain[1:] for p in module.parameters())
