"""Third derivatives along a direction: the gradient of the sharpness, and every example's curvature.

λ(θ) = v(θ)ᵀ H(θ) v(θ) with a unit eigenvector v of a simple eigenvalue: the eigenvector's own motion drops out
(Hellmann–Feynman), so ∇λ = ∇_θ (vᵀ H(θ) v) with v held fixed. Where the eigenvalue is repeated, λ has no gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from sim.curvature.mean_loss import MeanLoss, flatten, gradients, leaves_at, unflatten
from sim.curvature.operators import HessianOperator
from theory.command_line import InputError

Method = Literal["exact", "difference"]

WRONG_THIRD_DERIVATIVES = ("LayerNorm", "BatchNorm")
"""Autograd's fused normalisations, whose third derivatives are wrong without an error (pytorch 175754, 186256). Seen
with torch 2.13: off by half of their size for both, with exact second derivatives."""


def sharpness_gradient(
    objective: MeanLoss,
    vector: Tensor,
    parameters: Sequence[Tensor] | None = None,
    *,
    chunk: int | None = None,
    method: Method = "exact",
) -> Tensor:
    """Gradient of an eigenvalue of the Hessian, ∇_θ (vᵀ H(θ) v) at fixed v.

    Args:
        objective: the loss.
        vector: (size,) the eigenvector v; it is normalised.
        parameters: the point θ, all parameters in the network's order; the network's own when not given.
        chunk: number of examples at once; all when not given.
        method: ``exact`` differentiates vᵀHv once more, at about four gradients. ``difference`` takes
            (H(θ + hv) v − H(θ − hv) v) / 2h, the same by symmetry of the third derivative: it needs second derivatives
            only, about four gradients too, and is for networks with fused normalisations.

    Returns:
        (size,) ∇λ, flat in the parameters' order.

    Raises:
        InputError: ``exact`` with a fused layer or batch norm, whose third derivatives PyTorch gets wrong.
    """
    point = list(objective.network.parameters()) if parameters is None else list(parameters)
    unit = vector / vector.norm()
    if method == "difference":
        return _difference(objective, unit, point, chunk)
    leaves = leaves_at(point)
    total = torch.zeros_like(unit)
    for curvature, _ in _curvatures(objective, unit, leaves, chunk):
        total += flatten(gradients(curvature, leaves))
    return total


def example_curvatures(
    objective: MeanLoss, vector: Tensor, parameters: Sequence[Tensor] | None = None, *, chunk: int | None = None
) -> Tensor:
    """Every example's curvature along a unit direction, vᵀ ∇²ℓ_i v, in one pass over the data.

    Its mean over any group of examples is the Rayleigh quotient of that group's Hessian, without the objective's
    weights. The curvature Σ_i w_i vᵀ∇²ℓ_i v is linear in the weights w, and its derivative in them is the answer: about
    four gradients for all examples together.

    Args:
        objective: the loss; its weights are not used.
        vector: (size,) direction; it is normalised.
        parameters: the point θ; the network's own when not given.
        chunk: number of examples at once; all when not given.

    Returns:
        (n,) curvatures.

    Raises:
        InputError: a fused layer or batch norm, as in `sharpness_gradient`.
    """
    leaves = leaves_at(list(objective.network.parameters()) if parameters is None else parameters)
    pieces = _curvatures(objective, vector / vector.norm(), leaves, chunk)
    return torch.cat([gradients(curvature, [weights])[0] for curvature, weights in pieces])


def curvature_derivatives(
    objective: MeanLoss, vector: Tensor, parameters: Sequence[Tensor] | None = None, *, chunk: int | None = None
) -> tuple[Tensor, Tensor]:
    """`sharpness_gradient` and `example_curvatures` along the same direction, for little more than one of them.

    Args:
        objective: the loss.
        vector: (size,) direction; it is normalised.
        parameters: the point θ; the network's own when not given.
        chunk: number of examples at once; all when not given.

    Returns:
        (size,) ∇_θ (vᵀ H v) at fixed v, and (n,) vᵀ ∇²ℓ_i v.

    Raises:
        InputError: a fused layer or batch norm, as in `sharpness_gradient`.
    """
    leaves = leaves_at(list(objective.network.parameters()) if parameters is None else parameters)
    unit = vector / vector.norm()
    total, parts = torch.zeros_like(unit), []
    for curvature, weights in _curvatures(objective, unit, leaves, chunk):
        *of_leaves, of_weights = gradients(curvature, [*leaves, weights])
        total += flatten(of_leaves)
        parts.append(of_weights)
    return total, torch.cat(parts)


def _curvatures(
    objective: MeanLoss, unit: Tensor, leaves: Sequence[Tensor], chunk: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Each chunk's vᵀ H v = Σ_i w_i vᵀ ∇²ℓ_i v, with its graph to the parameters, and the weights w."""
    directions = unflatten(unit, leaves)
    for piece in objective.chunks(chunk):
        each = objective.loss(objective.outputs(leaves, piece), objective.targets[piece])
        _refuse_wrong_third_derivatives(each)
        weights = objective.chunk_weights(piece).to(each, copy=True).requires_grad_()
        slope = _along(gradients(each @ weights, leaves, create_graph=True), directions)  # ∇L · v
        yield _along(gradients(slope, leaves, create_graph=True), directions), weights


def _along(parts: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    return torch.stack([(p * d).sum() for p, d in zip(parts, directions, strict=True)]).sum()


def _difference(objective: MeanLoss, unit: Tensor, point: Sequence[Tensor], chunk: int | None) -> Tensor:
    h = torch.finfo(unit.dtype).eps ** (1 / 3) * (1 + torch.stack([p.detach().norm() for p in point]).norm())
    total = torch.zeros_like(unit)
    for sign in (1, -1):
        moved = leaves_at([p.detach() + sign * h * d for p, d in zip(point, unflatten(unit, point), strict=True)])
        for piece in objective.chunks(chunk):
            total += sign * HessianOperator(objective.of_chunk(moved, piece), moved).matvec(unit)
    derivative: Tensor = total / (2 * h)
    return derivative


def _refuse_wrong_third_derivatives(output: Tensor) -> None:
    """Walks the forward pass's graph for fused normalisations; a look at the modules would miss functional calls."""
    stack, seen = [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        # In evaluation mode batch norm is an affine map, and right.
        if any(word in node.name() for word in WRONG_THIRD_DERIVATIVES) and getattr(node, "_saved_training", True):
            raise InputError(
                f"the network has a fused normalisation ({node.name()}), whose third derivatives PyTorch gets wrong: "
                'write it out, or take method "difference"'
            )
        stack += [successor for successor, _ in node.next_functions]
