"""Directions carried from one solve to the next: a stale model of the operator's top that makes each product count.

A solve leaves its leading Ritz pairs (w_j, λ_j). When the operator has moved a little, they still say roughly where an
eigenvector has gone, at no product: Rayleigh–Ritz on the new basis B, whose images are exact, together with the part R
of the old vectors W outside B, whose images are taken from the old pairs,

    ⎡ B H Bᵀ   B H Rᵀ ⎤        B H Rᵀ = (H B) Rᵀ is exact,
    ⎣ R H Bᵀ   R Ĥ Rᵀ ⎦        Ĥ = Σ_j λ_j w_j w_jᵀ is stale.

Its top vector, with the residual outside W divided by its distance from the eigenvalue, is the next direction to
multiply: the correction of Davidson's method with the low-rank approximation Ĥ of the operator, as in generalised
Davidson with recycled vectors (Stathopoulos & Saad 1998; Stathopoulos 2007). The stale part chooses directions and
estimates the gap; it enters no reported value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sim.curvature.subspace import RitzPairs, Subspace

_OUTSIDE = 1e-3
"""An old direction of which less than this share (squared) lies outside the new basis brings nothing."""


@dataclass(frozen=True)
class Recycled:
    """Leading Ritz pairs of earlier solves, the next one's model of the operator.

    Attributes:
        vectors: (m, size) orthonormal to rounding, largest value first.
        values: (m,) Ritz values, float64 on the CPU; stale but for what the last solve multiplied.
    """

    vectors: Tensor
    values: Tensor

    def state_dict(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {"vectors": self.vectors, "values": self.values}

    @classmethod
    def of_state(cls, state: Mapping[str, Tensor], device: torch.device) -> Self:
        """What such a state held, with the vectors on the device."""
        return cls(state["vectors"].to(device), state["values"].cpu())


class Mixture:
    """Rayleigh–Ritz on a basis with exact images and recycled vectors with stale ones.

    Args:
        space: the basis, with the recycled vectors beside it.
        recycled: the vectors of earlier solves; None for the basis alone.

    Attributes:
        values: (p,) mixed Ritz values, largest first, float64 on the CPU.
    """

    def __init__(self, space: Subspace, recycled: Recycled | None) -> None:
        self._space, self._recycled = space, recycled
        exact = space.projected
        if recycled is None:
            self._take(exact)
            return
        self._inside, self._images = space.inside, space.across  # W Bᵀ, W (H B)ᵀ
        # R = W − (W Bᵀ) B, and its orthonormal part Nᵀ R
        outside = space.gram - self._inside @ self._inside.T
        shares, axes = torch.linalg.eigh(outside)
        kept = shares > _OUTSIDE
        self._normal = axes[:, kept] / shares[kept].sqrt()
        # Nᵀ R H Bᵀ, and Nᵀ R Ĥ Rᵀ N with R Wᵀ = W Wᵀ − (W Bᵀ)(B Wᵀ)
        cross = self._normal.T @ (self._images - self._inside @ exact)
        stale = self._normal.T @ outside @ torch.diag(recycled.values) @ outside @ self._normal
        self._take(torch.cat([torch.cat([exact, cross.T], 1), torch.cat([cross, (stale + stale.T) / 2], 1)]))

    def _take(self, matrix: Tensor) -> None:
        values, rotation = torch.linalg.eigh(matrix)
        self.values, self._rotation = values.flip(0), rotation.flip(1)

    def directions(self, pairs: RitzPairs, chosen: list[int]) -> Tensor:
        """(len(chosen), size) what to multiply next for each of these Ritz pairs of the basis."""
        if self._recycled is None:
            return pairs.residual[chosen]
        new, old = self._coordinates(chosen)
        y, values = pairs.coordinates[:, chosen], pairs.values[chosen]
        # The residual r is orthogonal to B, so R r = W r = W (H B)ᵀ y − λ W Bᵀ y; its part in span R is Rᵀ N Nᵀ R r.
        along = self._normal @ self._normal.T @ (self._images @ y - self._inside @ y * values)
        # (λ − μ)⁻¹ of the rest, with μ as far below the model's least value as that is below λ; all times λ − μ.
        distance = 2 * (values - self._recycled.values[-1]).clamp_min(0)
        share = (self._rotation[: len(y), chosen] * y).sum(0)
        rows = self._rows(new * distance + self._inside.T @ along * share, old * distance - along * share)
        rows += share[:, None].to(rows) * pairs.residual[chosen]
        return rows

    def leading(self, count: int) -> Recycled:
        """The mixed Ritz pairs of the largest values, for the next solve."""
        chosen = list(range(min(count, len(self.values))))
        return Recycled(self._rows(*self._coordinates(chosen)), self.values[chosen])

    def _coordinates(self, chosen: list[int]) -> tuple[Tensor, Tensor]:
        """Of mixed Ritz vectors, in the basis and in the old vectors: a B + b Nᵀ R = (a − b Nᵀ W Bᵀ) B + b Nᵀ W."""
        new, rest = self._rotation[: self._space.filled, chosen], self._rotation[self._space.filled :, chosen]
        if self._recycled is None:
            return new, rest
        old = self._normal @ rest
        return new - self._inside.T @ old, old

    def _rows(self, new: Tensor, old: Tensor) -> Tensor:
        basis = self._space.basis
        rows = new.T.to(basis) @ basis
        if self._recycled is not None:
            rows += old.T.to(basis) @ self._recycled.vectors
        return rows
