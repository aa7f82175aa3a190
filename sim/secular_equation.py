"""Largest eigenvalue of many arrow matrices at once, in torch: the iteration of `theory.secular_equation` on a device.

`theory` knows no torch, so the same iteration stands there in NumPy, with the proof that it falls to the root; tests
compare the two.
"""

from __future__ import annotations

import torch
from torch import Tensor

_MAX_ITERATIONS = 100


def largest_root(a: Tensor, v: Tensor, d: Tensor) -> Tensor:
    """Largest eigenvalue of [[a, vᵀ], [v, diag(d)]], the largest root of λ − a = Σ v_i²/(λ − d_i).

    Args:
        a: (...,) corner.
        v: (..., n) arms, n at least 1.
        d: (..., n) diagonal.

    Returns:
        (...,) the eigenvalue; NaN where an entry is not finite.

    >>> largest_root(torch.tensor(0.0), torch.tensor([3.0]), torch.tensor([8.0]))  # λ² − 8λ − 9 = (λ − 9)(λ + 1)
    tensor(9.)
    """
    info = torch.finfo(a.dtype)
    smallest = info.tiny**0.49  # its square is still a normal number
    pole = d.amax(-1)
    scale = torch.maximum(torch.maximum(v.abs(), d.abs()).amax(-1), a.abs())
    scale = torch.where(scale > 0, scale, 1.0)
    below = (pole[..., None] - d) / scale[..., None]
    squares = (v / scale[..., None]) ** 2
    offset = pole / scale - a / scale
    mu = _positive_root(offset, squares.sum(-1), smallest)
    for _ in range(_MAX_ITERATIONS):
        gap = mu.clamp_min(smallest)[..., None] + below
        ratio = squares / gap
        slope = (ratio / gap).sum(-1)  # −φ'(μ)
        new = _positive_root(offset - (ratio.sum(-1) - slope * mu), slope * mu * mu, smallest)
        new = torch.minimum(new, mu)  # rounding alone can raise it
        moved = (mu - new > 4 * info.eps).any()
        mu = new
        if not moved:
            break
    return pole + mu * scale


def _positive_root(linear: Tensor, q: Tensor, smallest: float) -> Tensor:
    """The root of μ² + linear·μ − q = 0 that is at least 0, q ≥ 0, without cancellation for either sign."""
    half = linear / 2
    far = half.abs() + torch.sqrt(half * half + q)
    return torch.where(half > 0, q / far.clamp_min(smallest), far)
