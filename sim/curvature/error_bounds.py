"""Bounds on the error of Ritz values from their residuals."""

from __future__ import annotations

import torch
from torch import Tensor


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
