"""Two-layer linear networks f = aᵀV z of any width m, batched, on second moments.

With effective weights v = Vᵀa and g = ∂_v L the gradients are ∂_a L = V g and ∂_V L = a gᵀ: an elementwise step of
O(d) a run where the moments are diagonal, one batched matrix product of O(d²) else. Width m = 1 is the network
f = c wᵀz of `theory.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sim.linear_network import FunctionRecord, times
from sim.second_moments import DiagonalMoments
from sim.secular_equation import largest_root
from sim.symmetric_eigenvalues import dense_largest


class TwoLayerNetwork:
    """Weights (a, V) side by side in one tensor (*batch, m, 1 + d).

    Args:
        start: weights at the start, in the features' own coordinates.
        function: the data, and what is recorded of the function.
        sharpness: whether to record the sharpness. It costs O(d) a run at width 1 (a secular equation), and an
            eigenvalue problem of size d + 2m − 1 a run at larger widths.
    """

    dimensions: ClassVar[Mapping[str, tuple[str, ...]]] = {"opposing": ("pair",), "weights": ("unit", "weight")}

    def __init__(self, start: Tensor, function: FunctionRecord, *, sharpness: bool = True) -> None:
        self.function, self.sharpness = function, sharpness
        self.rotated = function.basis is not None
        self.start = start.clone()
        if function.basis is not None:
            self.start[..., 1:] = times(start[..., 1:], function.basis)

    def gradient(self, theta: Tensor, out: Tensor) -> None:
        """Writes ∂_a L = V g and ∂_V L = a gᵀ."""
        a, first = theta[..., :1], theta[..., 1:]
        g = self.function.moments.residual(effective(theta))
        torch.sum(first * g[..., None, :], -1, keepdim=True, out=out[..., :1])
        torch.mul(a, g[..., None, :], out=out[..., 1:])

    def record(self, theta: Tensor) -> dict[str, Tensor]:
        """See `LinearNetwork`; the names are those of `sim.batched_descent.descend_batch`."""
        a, first = theta[..., 0], theta[..., 1:]
        eigen = self.function.moments.diagonal
        turned = self.function.in_eigenbasis(first)
        a_squared = (a * a).sum(-1)
        recorded = self.function(effective(theta)) | {
            "first_layer": a_squared * eigen.curvature.amax(-1),  # ‖a‖² times G's largest eigenvalue
            "balancedness": a_squared - (first * first).sum((-2, -1)),
            "last_layer_norm": a_squared.sqrt(),
        }
        curvature = eigen.curvature[..., None, :]
        if theta.shape[-2] == 1:
            recorded["last_layer"] = (curvature * turned**2).sum((-2, -1))
            if self.sharpness:
                c, w = a[..., 0], turned[..., 0, :]
                # the arrow matrix over (c, w): corner Σ λw², arms λ(2cw − τ), diagonal λc²
                arms = eigen.curvature * (2 * c[..., None] * w - eigen.target)
                recorded["sharpness"] = largest_root(recorded["last_layer"], arms, (c * c)[..., None] * eigen.curvature)
        else:
            recorded["last_layer"] = dense_largest((turned * curvature) @ turned.mT)  # VGVᵀ
            if self.sharpness:
                recorded["sharpness"] = dense_largest(_reduced_hessian(eigen, a, turned))
        return recorded

    def own_weights(self, theta: Tensor) -> Tensor:
        """See `LinearNetwork`."""
        if self.function.basis is None:
            return theta
        own = theta.clone()
        own[..., 1:] = times(theta[..., 1:], self.function.basis.mT)
        return own


def effective(theta: Tensor) -> Tensor:
    """(..., d) v = Vᵀa."""
    a, first = theta[..., :1], theta[..., 1:]
    if theta.shape[-2] == 1:
        return (a * first).squeeze(-2)
    return (a * first).sum(-2)


def _reduced_hessian(eigen: DiagonalMoments, a: Tensor, first: Tensor) -> Tensor:
    """(..., d + 2m − 1, d + 2m − 1) matrix whose eigenvalues are those of the Hessian over (a, V), zeros apart.

    Turn the hidden units so that a = ±‖a‖ e₁. With δa = α and rows δV = (p, rows across a) the second variation is

        (‖a‖ p + Vᵀα)ᵀ G (‖a‖ p + Vᵀα) + 2 α₁ gᵀp + 2 Σ_{i≥2} α_i gᵀ(row i),

    so of each row across a only its part along g counts: m + d + (m − 1) coordinates are left.
    """
    m, d = first.shape[-2:]
    a, first = _turn_to_first_axis(a, first)
    height = a[..., 0]
    g = eigen.residual(height[..., None] * first[..., 0, :])
    scaled = first * eigen.curvature[..., None, :]
    matrix = first.new_zeros(*a.shape[:-1], d + 2 * m - 1, d + 2 * m - 1)
    matrix[..., :m, :m] = scaled @ first.mT
    arms = height[..., None, None] * scaled
    arms[..., 0, :] += g
    matrix[..., :m, m : m + d] = arms
    matrix[..., m : m + d, :m] = arms.mT
    matrix.diagonal(dim1=-2, dim2=-1)[..., m : m + d] = (height**2)[..., None] * eigen.curvature
    across, along = torch.arange(1, m), torch.arange(m + d, d + 2 * m - 1)
    size = g.norm(dim=-1, keepdim=True)
    matrix[..., across, along] = size
    matrix[..., along, across] = size
    return matrix


def _turn_to_first_axis(a: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """A Householder reflection of the hidden units that takes a to ∓‖a‖ e₁; nothing moves where a = 0."""
    u = a.clone()
    u[..., 0] += torch.copysign(a.norm(dim=-1), a[..., 0])
    square = (u * u).sum(-1, keepdim=True)
    unit = u / torch.where(square > 0, square, 1.0).sqrt()
    reflected = first - 2 * unit[..., :, None] * (unit[..., None, :] @ first)
    return a - 2 * unit * (unit * a).sum(-1, keepdim=True), reflected
