"""Deep linear networks f = W_L ⋯ W_1 z of any widths, batched, on second moments.

With rows a_l = W_L ⋯ W_{l+1}, so a_L = 1 and v = a_0, and with g = ∂_v L and columns h_l = W_{l−1} ⋯ W_1 g, so h_1 = g,

    ∂_{W_l} L = a_lᵀ h_lᵀ.

A gradient is a product of each layer with one row and one column: O(Σ m_l m_{l−1}) a run, whatever the number of
examples. All weights of a run stand in one row, W_1 first, each layer row by row, so every update rule takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from sim.deep_hessian import layer_sharpness, reduced_hessian_product, reduced_size
from sim.linear_network import FunctionRecord, times
from sim.symmetric_eigenvalues import largest_eigenvalue

Widths = tuple[int, ...]
"""Widths m_0 = d, m_1, …, m_L = 1."""


def join_layers(layers: Sequence[Tensor]) -> Tensor:
    """Layers (*batch, m_l, m_{l−1}), first to last, as one row of weights (*batch, 1, Σ m_l m_{l−1})."""
    return torch.cat([layer.flatten(-2) for layer in layers], -1)[..., None, :]


def split_layers(theta: Tensor, widths: Widths) -> list[Tensor]:
    """Undoes `join_layers`; views of (*batch, 1, weights).

    >>> [w.shape for w in split_layers(torch.zeros(5, 1, 8), (3, 2, 1))]
    [torch.Size([5, 2, 3]), torch.Size([5, 1, 2])]
    """
    sizes = [m * n for n, m in pairwise(widths)]
    parts = torch.split(theta[..., 0, :], sizes, -1)
    return [part.view(*part.shape[:-1], m, n) for part, (n, m) in zip(parts, pairwise(widths), strict=True)]


class DeepNetwork:
    """Weights of all layers in one row (*batch, 1, weights).

    Args:
        layers: W_1, …, W_L at the start, (*batch, m_l, m_{l−1}), in the features' own coordinates; m_0 = d, m_L = 1.
        function: the data, and what is recorded of the function.
        sharpness: whether to record the sharpness of the whole and of every layer. The whole Hessian acts on
            d + 2 (m_1 + … + m_{L−1}) + 1 coordinates (`sim.deep_hessian`): a dense eigenvalue problem of that size
            where it is small, else a few dozen products at the cost of two gradients each.
    """

    dimensions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "opposing": ("pair",),
        "layer_norm": ("layer",),
        "layer_sharpness": ("layer",),
        "balancedness": ("junction",),
        "imbalance": ("junction",),
        "weights": ("weight",),
    }

    def __init__(self, layers: Sequence[Tensor], function: FunctionRecord, *, sharpness: bool = True) -> None:
        self.function, self.sharpness = function, sharpness
        self.rotated = function.basis is not None
        self.widths: Widths = (layers[0].shape[-1], *(layer.shape[-2] for layer in layers))
        first = layers[0] if function.basis is None else times(layers[0], function.basis)
        self.start = join_layers([first, *layers[1:]])

    def gradient(self, theta: Tensor, out: Tensor) -> None:
        """Writes ∂_{W_l} L = a_lᵀ h_lᵀ of every layer."""
        layers = split_layers(theta, self.widths)
        rows = rows_above(layers)
        g = self.function.moments.residual(rows[0][..., 0, :])
        for row, column, slot in zip(rows[1:], columns_below(layers, g), split_layers(out, self.widths), strict=True):
            torch.mul(row.mT, column.mT, out=slot)

    def record(self, theta: Tensor) -> dict[str, Tensor]:
        """See `LinearNetwork`; the names are those of `sim.batched_descent.descend_batch`."""
        layers = split_layers(theta, self.widths)
        v = rows_above(layers)[0][..., 0, :]
        differences = balancedness_matrices(layers)
        recorded = self.function(v) | {
            "layer_norm": torch.stack([layer.square().sum((-2, -1)).sqrt() for layer in layers], -1),
            "balancedness": torch.stack([q.diagonal(dim1=-2, dim2=-1).sum(-1) for q in differences], -1),
            "imbalance": torch.stack([q.square().sum((-2, -1)).sqrt() for q in differences], -1),
        }
        if self.sharpness:
            turned = [self.function.in_eigenbasis(layers[0]), *layers[1:]]
            eigen = self.function.moments.diagonal
            rows = rows_above(turned)
            columns = columns_below(turned, eigen.residual(rows[0][..., 0, :]))
            recorded["layer_sharpness"] = layer_sharpness(turned, rows, eigen.curvature)
            product = reduced_hessian_product(turned, rows, columns, eigen.curvature)
            recorded["sharpness"], recorded["sharpness_residual"] = largest_eigenvalue(
                product, theta.shape[:-2], reduced_size(turned), theta
            )
        return recorded

    def own_weights(self, theta: Tensor) -> Tensor:
        """See `LinearNetwork`."""
        if self.function.basis is None:
            return theta[..., 0, :]
        layers = split_layers(theta, self.widths)
        return join_layers([times(layers[0], self.function.basis.mT), *layers[1:]])[..., 0, :]


def rows_above(layers: Sequence[Tensor]) -> list[Tensor]:
    """Rows a_0 = v, a_1, …, a_L = 1, each (*batch, 1, m_l)."""
    rows = [layers[-1].new_ones(*layers[-1].shape[:-2], 1, 1), layers[-1]]
    for layer in reversed(layers[:-1]):
        rows.append(rows[-1] @ layer)  # a_{l−1} = a_l W_l
    return rows[::-1]


def columns_below(layers: Sequence[Tensor], g: Tensor) -> list[Tensor]:
    """Columns h_1 = g, …, h_L, each (*batch, m_{l−1}, 1)."""
    columns = [g[..., None]]
    for layer in layers[:-1]:
        columns.append(layer @ columns[-1])  # h_{l+1} = W_l h_l
    return columns


def balancedness_matrices(layers: Sequence[Tensor]) -> list[Tensor]:
    """(*batch, m_l, m_l) W_{l+1}ᵀW_{l+1} − W_lW_lᵀ, l = 1…L − 1, each constant under gradient flow."""
    return [above.mT @ above - below @ below.mT for below, above in pairwise(layers)]
