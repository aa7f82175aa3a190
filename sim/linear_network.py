"""What the engines know of a batch of linear networks: a gradient, what to record, and how weights read.

Every linear network f = vᵀz meets the data through its effective weights v alone, so the loss, the groups' losses and
the residual ∂_v L are those of `sim.second_moments`, whatever the depth; `FunctionRecord` holds that part. How v
follows from the weights is the network's own: `sim.two_layer_network`, `sim.deep_network`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.second_moments import DiagonalMoments, SecondMoments

BATCH_DIMENSIONS = {1: ("run",), 2: ("set", "run")}


class LinearNetwork(Protocol):
    """A batch of linear networks on second moments, with all weights of a run in the last two axes of one tensor."""

    start: Tensor
    """(*batch, rows, columns) weights at the start, in the coordinates that the network is run in."""

    rotated: bool
    """Whether those are the eigenbasis of the moments, and not the features' own."""

    dimensions: ClassVar[Mapping[str, tuple[str, ...]]]
    """Dimensions, beyond those of the batch, of what is recorded."""

    def gradient(self, theta: Tensor, out: Tensor) -> None:
        """Writes the gradient of the loss at weights theta."""
        ...

    def record(self, theta: Tensor) -> dict[str, Tensor]:
        """Everything recorded at one time, each of the batch's shape and its own further dimensions."""
        ...

    def own_weights(self, theta: Tensor) -> Tensor:
        """The weights in the features' own coordinates."""
        ...


@dataclass(frozen=True)
class FunctionRecord:
    """Records what follows from the effective weights alone.

    Attributes:
        moments: moments of all examples, on the device and of the type that the runs have.
        groups: moments of groups of examples, in the features' own coordinates.
        pairs: number J of opposing features, which stand last.
    """

    moments: SecondMoments
    groups: Mapping[str, SecondMoments]
    pairs: int

    @property
    def basis(self) -> Tensor | None:
        """(..., d, d) eigenvectors in columns where the runs are made in the eigenbasis of a sample's moments."""
        return self.moments.basis if isinstance(self.moments, DiagonalMoments) else None

    def __call__(self, v: Tensor) -> dict[str, Tensor]:
        """Loss, losses of the groups and effective opposing weights of v (..., d)."""
        own = v if self.basis is None else times(v[..., None, :], self.basis.mT)[..., 0, :]
        recorded = {"loss": self.moments.value(v), "opposing": own[..., own.shape[-1] - self.pairs :]}
        return recorded | {f"loss_{name}": group.value(own) for name, group in self.groups.items()}

    def in_eigenbasis(self, rows: Tensor) -> Tensor:
        """First-layer rows (..., m, d) in the eigenbasis, from the coordinates that the runs are made in."""
        if isinstance(self.moments, DiagonalMoments):
            return rows
        basis = self.moments.diagonal.basis
        assert basis is not None
        return times(rows, basis)


def times(rows: Tensor, matrix: Tensor) -> Tensor:
    """(..., m, d) rows times (..., d, d) matrices; one product a sample where its runs share the matrix."""
    if matrix.ndim > 2 and matrix.shape[-3] == 1:
        return (rows.flatten(-3, -2) @ matrix.squeeze(-3)).reshape(rows.shape)
    return rows @ matrix


def dataset(
    records: Sequence[Mapping[str, Tensor]],
    dimensions: Mapping[str, tuple[str, ...]],
    along: str,
    at: np.ndarray,
    diverged_at: Tensor,
) -> xr.Dataset:
    """The records along one axis, NaN from where a run is no longer finite.

    Args:
        records: what was recorded, one mapping a recorded time.
        dimensions: dimensions beyond the batch's, by name.
        along: name of the axis, such as ``step``.
        at: where on it the records were made.
        diverged_at: first value of the axis at which a run is not finite; −1 if none is.
    """
    dims = BATCH_DIMENSIONS[diverged_at.ndim]
    data = xr.Dataset(coords={along: at})
    data["diverged_at"] = dims, diverged_at.cpu().numpy()
    gone = (data["diverged_at"] >= 0) & (data[along] >= data["diverged_at"])
    for name in records[0]:
        # Broadcast, since what depends on the data alone has the data's batch only.
        values = torch.stack([record[name] for record in records]).cpu().numpy()
        data[name] = (along, *dims, *dimensions.get(name, ())), values
        data[name] = data[name].where(~gone)
    return data
