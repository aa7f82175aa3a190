"""Bounds on the error of Ritz values from their residuals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Inside:
    """Where Ritz pairs come from: the leading ones of the operator's restriction to a subspace.

    Attributes:
        errors: (k,) relative errors of their values within the subspace, as estimated there.
        norms: (k,) norms of their residuals' parts in the subspace, not relative.
        outside: largest eigenvalue μ of the operator's restriction to the subspace's complement, as far as it is known.
    """

    errors: Tensor
    norms: Tensor
    outside: float


def ritz_value_errors(norms: Tensor, values: Tensor, beyond: float) -> Tensor:
    """Bounds on λ_i − θ_i for the k largest Ritz values θ_i of a symmetric operator, relative to |θ_i|.

    With R the residuals H v_i − θ_i v_i of orthonormal Ritz vectors, and β below θ_k,

        λ_i − θ_i ≤ ‖R‖² / (θ_k − β).

    For k = 1, β is the second eigenvalue λ_2 (Temple 1928, Kato 1949: ⟨v, (H − λ_1)(H − λ_2) v⟩ ≥ 0). For any k it is
    the largest eigenvalue of the operator on the complement of the v_i, by the inertia of the Schur complement. As Ritz
    values lie below eigenvalues, the error is never negative.

    Args:
        norms: (k,) residuals' norms, not relative.
        values: (k,) θ_i, largest first.
        beyond: β. Where only a Ritz value for it is known, which is at most β, the result is an estimate and no bound.

    Returns:
        (k,) 0 where the residuals vanish; infinite for θ_i = 0 where they do not, and for all where β is not below θ_k.

    >>> import torch
    >>> ritz_value_errors(torch.tensor([0.1]), torch.tensor([10.0]), 8.0)
    tensor([0.0005])
    """
    square, gap = norms.square().sum(), float(values[-1]) - beyond
    if square == 0:
        return torch.zeros_like(values)
    return square / gap / values.abs() if gap > 0 else torch.full_like(values, torch.inf)


def errors_from_inside(norms: Tensor, values: Tensor, inside: Inside) -> Tensor:
    """Estimates of λ_i − θ_i, relative to |θ_i|, for Ritz pairs of a subspace.

    The residuals' parts E outside the subspace, where the operator is at most μ, weigh less than those inside, where
    the next eigenvalue is near: by the Schur complement of that part, to first order in ‖E‖²,

        λ_i − θ_i ≤ (λ_i − θ_i)_inside + ‖E‖² / (θ_k − μ).

    Args:
        norms: (k,) norms of the whole residuals, not relative.
        values: (k,) θ_i, largest first.
        inside: the pairs' origin.

    Returns:
        (k,) infinite where μ is not below θ_k.

    >>> import torch
    >>> inside = Inside(torch.tensor([1e-4]), torch.tensor([0.0]), 0.0)
    >>> errors_from_inside(torch.tensor([0.1]), torch.tensor([10.0]), inside)
    tensor([0.0002])
    """
    gap = float(values[-1]) - inside.outside
    square = (norms.square() - inside.norms.square()).clamp_min(0).sum()
    return inside.errors + square / gap / values.abs() if gap > 0 else torch.full_like(values, torch.inf)
