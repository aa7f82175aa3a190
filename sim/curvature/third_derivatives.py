"""Third derivatives along a direction: the gradient of the sharpness, and every example's curvature.

λ(θ) = v(θ)ᵀ H(θ) v(θ) with a unit eigenvector v of a simple eigenvalue: the eigenvector's own motion drops out
(Hellmann–Feynman), so ∇λ = ∇_θ (vᵀ H(θ) v) with v held fixed. Where the eigenvalue is repeated, λ has no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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


KINKS = ("Relu", "MaxPool", "Threshold", "Hard")
"""Words in the names of operations whose slope jumps: along h a difference of Hessians crosses some of a network's, and
is off by many times its size. Others are found by what they do to the differences, see `DISAGREEMENT`."""

DISAGREEMENT = 1e-2
"""Part of a difference over h by which that over 2h may be another. On smooth networks it was at most 10⁻⁵; across
kinks, and across jumps of the second derivative such as ELU's and softsign's, 0.3 to 1.2: a half where one is crossed
within h. Where none is, as often with few examples, the difference is right."""


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
            only, and is for smooth networks with fused normalisations. It is about eight gradients in float64, half of
            them to see whether 2h gives the same, whatever the network's own precision: in float32 it was off by 6 to
            98 % (CPU forms of the networks, at the start).

    Returns:
        (size,) ∇λ, flat in the parameters' order.

    Raises:
        InputError: ``exact`` with a fused layer or batch norm, whose third derivatives PyTorch gets wrong;
            ``difference`` with ReLU or maximum pooling, or where h and 2h disagree, as across other kinks.
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
    objective: MeanLoss,
    vector: Tensor,
    parameters: Sequence[Tensor] | None = None,
    *,
    chunk: int | None = None,
    method: Method = "exact",
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
        method: as in `sharpness_gradient`; ``difference`` takes (⟨∇ℓ_i(θ + hv), v⟩ − ⟨∇ℓ_i(θ − hv), v⟩) / 2h.

    Returns:
        (n,) curvatures.

    Raises:
        InputError: as in `sharpness_gradient`.
    """
    point = list(objective.network.parameters()) if parameters is None else list(parameters)
    unit = vector / vector.norm()
    if method == "difference":
        return _example_differences(objective, unit, point, chunk)
    pieces = _curvatures(objective, unit, leaves_at(point), chunk)
    return torch.cat([gradients(curvature, [weights])[0] for curvature, weights in pieces])


def curvature_derivatives(
    objective: MeanLoss,
    vector: Tensor,
    parameters: Sequence[Tensor] | None = None,
    *,
    chunk: int | None = None,
    method: Method = "exact",
) -> tuple[Tensor, Tensor]:
    """`sharpness_gradient` and `example_curvatures` along one direction; exactly, for little more than one of them.

    Args:
        objective: the loss.
        vector: (size,) direction; it is normalised.
        parameters: the point θ; the network's own when not given.
        chunk: number of examples at once; all when not given.
        method: as in both.

    Returns:
        (size,) ∇_θ (vᵀ H v) at fixed v, and (n,) vᵀ ∇²ℓ_i v.

    Raises:
        InputError: as in `sharpness_gradient`.
    """
    point = list(objective.network.parameters()) if parameters is None else list(parameters)
    unit = vector / vector.norm()
    if method == "difference":
        return _difference(objective, unit, point, chunk), _example_differences(objective, unit, point, chunk)
    leaves = leaves_at(point)
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
        _refuse(each, "exact")
        weights = objective.chunk_weights(piece).to(each, copy=True).requires_grad_()
        slope = _along(gradients(each @ weights, leaves, create_graph=True), directions)  # ∇L · v
        yield _along(gradients(slope, leaves, create_graph=True), directions), weights


def _along(parts: Sequence[Tensor], directions: Sequence[Tensor]) -> Tensor:
    return torch.stack([(p * d).sum() for p, d in zip(parts, directions, strict=True)]).sum()


def _difference(objective: MeanLoss, unit: Tensor, point: Sequence[Tensor], chunk: int | None) -> Tensor:
    fine = objective.in_float64()

    def product(moved: list[Tensor]) -> Tensor:
        total = torch.zeros_like(unit.double())
        for piece in fine.chunks(chunk):
            loss = fine.of_chunk(moved, piece)
            _refuse(loss, "difference")
            total += HessianOperator(loss, moved).matvec(unit.double())
        return total

    return _central_difference(product, unit, point)


def _example_differences(objective: MeanLoss, unit: Tensor, point: Sequence[Tensor], chunk: int | None) -> Tensor:
    fine = objective.in_float64()

    def slopes(moved: list[Tensor]) -> Tensor:
        directions, parts = unflatten(unit.double(), moved), []
        for piece in fine.chunks(chunk):
            each = fine.loss(fine.outputs(moved, piece), fine.targets[piece])
            _refuse(each, "difference")
            weights = torch.ones_like(each, requires_grad=True)
            # ⟨∇ Σ_i w_i ℓ_i, v⟩ is linear in w, and its derivative is every ⟨∇ℓ_i, v⟩
            slope = _along(gradients(each @ weights, moved, create_graph=True), directions)
            parts += gradients(slope, [weights])
        return torch.cat(parts)

    return _central_difference(slopes, unit, point)


def _central_difference(of: Callable[[list[Tensor]], Tensor], unit: Tensor, point: Sequence[Tensor]) -> Tensor:
    """(f(θ + hv) − f(θ − hv)) / 2h, refused where 2h in the place of h gives something else."""
    h = _step(point)
    ends = {times: of(_moved(point, unit, times * h)) for times in (1, -1, 2, -2)}
    near, far = ((ends[times] - ends[-times]) / (2 * times * h) for times in (1, 2))
    # A derivative of 0 is all rounding, of which both have their own.
    rounding = 1e3 * torch.finfo(torch.float64).eps * ends[1].norm() / h
    apart = (far - near).norm()
    if bool(apart > DISAGREEMENT * near.norm() + rounding):
        raise InputError(
            f"differences over h and over 2h are {float(apart / near.norm()):.0%} apart, as where the loss has kinks: "
            'take method "exact", with normalisations written out'
        )
    return near.to(unit.dtype)


def _step(point: Sequence[Tensor]) -> float:
    """Of central differences in float64 along a unit vector: rounding and what they leave out about alike."""
    return float(torch.finfo(torch.float64).eps ** (1 / 3) * (1 + flatten(point).detach().double().norm()))


def _moved(point: Sequence[Tensor], unit: Tensor, by: float) -> list[Tensor]:
    """Leaves in float64."""
    directions = unflatten(unit, point)
    return leaves_at([p.detach().double() + by * d.double() for p, d in zip(point, directions, strict=True)])


def _refuse(output: Tensor, method: Method) -> None:
    """Refuses a loss that the method gets wrong, by its graph: a look at the modules would miss functional calls."""
    stack, seen = [output.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name()
        # In evaluation mode batch norm is an affine map, and right.
        fused = any(word in name for word in WRONG_THIRD_DERIVATIVES) and getattr(node, "_saved_training", True)
        if method == "exact" and fused:
            raise InputError(
                f"the network has a fused normalisation ({name}), whose third derivatives PyTorch gets wrong: "
                'write it out, or take method "difference"'
            )
        if method == "difference" and any(word in name for word in KINKS):
            raise InputError(
                f'the loss has kinks ({name}), across which differences jump: take method "exact", with '
                "normalisations written out"
            )
        stack += [successor for successor, _ in node.next_functions]
