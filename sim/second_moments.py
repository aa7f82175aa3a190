"""Full-batch dynamics of the two-layer linear network from second moments: a step costs nothing per example.

Squared loss sees the data only through G = mean(z zᵀ), m = mean(y z) and q = mean(y²), z the features:

    L(c, w) = ½ c² wᵀGw − c wᵀm + ½ q.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sim.opposing_data import Examples
from theory import Model


@dataclass(frozen=True)
class Moments:
    """Second moments of one data set, or of several along leading axes.

    Attributes:
        gram: (..., d, d) mean of z zᵀ.
        cross: (..., d) mean of y z.
        square: (...,) mean of y².
    """

    gram: Tensor
    cross: Tensor
    square: Tensor

    def loss(self, c: Tensor, w: Tensor) -> Tensor:
        """(...,) mean loss of weights c (...,) and w (..., d)."""
        quadratic = (w * self._gram_times(w)).sum(-1)
        return c**2 * quadratic / 2 - c * (w * self.cross).sum(-1) + self.square / 2

    def gradient(self, c: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """∂_c L = c wᵀGw − wᵀm (...,) and ∂_w L = c² Gw − c m (..., d)."""
        gram_w = self._gram_times(w)
        d_c = c * (w * gram_w).sum(-1) - (w * self.cross).sum(-1)
        d_w = c[..., None] * (c[..., None] * gram_w - self.cross)
        return d_c, d_w

    def hessian(self, c: Tensor, w: Tensor) -> Tensor:
        """(..., 1 + d, 1 + d) Hessian over (c, w): corner wᵀGw, arms 2c Gw − m, block c² G."""
        gram_w = self._gram_times(w)
        arms = 2 * c[..., None] * gram_w - self.cross
        corner = (w * gram_w).sum(-1)[..., None]
        block = c[..., None, None] ** 2 * self.gram
        top = torch.cat([corner, arms], -1)[..., None, :]
        return torch.cat([top, torch.cat([arms[..., None], block.expand(*arms.shape, arms.shape[-1])], -1)], -2)

    def _gram_times(self, w: Tensor) -> Tensor:
        return (self.gram @ w[..., None])[..., 0]


def stack(moments: Iterable[Moments]) -> Moments:
    """Several data sets of equal feature number as one batch, along a new first axis."""
    grams, crosses, squares = zip(*((m.gram, m.cross, m.square) for m in moments), strict=True)
    return Moments(torch.stack(grams), torch.stack(crosses), torch.stack(squares))


def population_moments(model: Model, device: torch.device) -> Moments:
    """Moments of infinitely many examples: G = diag(Σ, α), m = (Σβ, 0), q = βᵀΣβ + Σ α."""
    curvatures, target = torch.tensor(model.curvatures), torch.tensor(model.target)
    square = (curvatures * target**2).sum() + float(model.alpha.sum())
    return Moments(torch.diag(curvatures).to(device), (curvatures * target).to(device), square.to(device))


def sample_moments(chunks: Iterable[Examples]) -> dict[str, Moments]:
    """Moments of all examples and of the two outlier groups, streamed over chunks.

    Returns:
        ``all``, ``plus`` and ``minus``. A group without examples has moments NaN.
    """
    sums: dict[str, tuple[Tensor, Tensor, Tensor, int]] = {}
    for chunk in chunks:
        members = {"all": None, "plus": chunk.group == 1, "minus": chunk.group == -1}
        for name, mask in members.items():
            z = chunk.features if mask is None else chunk.features[mask]
            y = chunk.target if mask is None else chunk.target[mask]
            new = (z.T @ z, z.T @ y, y @ y, len(y))
            old = sums.get(name)
            sums[name] = new if old is None else (old[0] + new[0], old[1] + new[1], old[2] + new[2], old[3] + new[3])
    return {name: Moments(gram / n, cross / n, square / n) for name, (gram, cross, square, n) in sums.items()}
