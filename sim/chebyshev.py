"""Regression on a Chebyshev polynomial (F6): one input, no noise, neighbouring extrema that pull against each other."""

from __future__ import annotations

import torch
from torch import Tensor

from theory.command_line import InputError


def chebyshev_examples(
    count: int, degree: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Evenly spaced points of T_degree(x) = cos(degree · arccos x) on [−1, 1].

    Number of points and degree are the caller's: the paper's are not known to us.

    Args:
        count: number of examples n, at least 2.
        degree: degree of the polynomial, at least 0.
        device: where the examples are put.
        dtype: floating-point type.

    Returns:
        (n, 1) inputs and (n, 1) targets.

    Raises:
        InputError: count or degree is out of range.

    >>> chebyshev_examples(3, 2, torch.device("cpu"))[1].flatten()  # 2x² − 1
    tensor([ 1., -1.,  1.])
    """
    if count < 2 or degree < 0:
        raise InputError(f"count is {count}, degree {degree}: give at least 2 points and a degree of at least 0")
    x = torch.linspace(-1, 1, count, dtype=torch.float64)[:, None]
    return x.to(device, dtype), torch.special.chebyshev_polynomial_t(x, degree).to(device, dtype)
