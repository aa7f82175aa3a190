"""An orthonormal basis with the operator's image of each vector, and Rayleigh–Ritz on it.

Vectors of a network's size are what costs: each pass over m of them takes about m times a hundredth of a gradient step
of a perceptron on 5,000 images. So all inner products are kept up as the basis grows, with vectors beside it too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from sim.curvature.operators import LinearOperator

_ENOUGH = 0.7
"""Where this share of a vector is left outside the basis, one orthogonalisation is as good as two."""

_DEPENDENT = 100
"""A vector of which less than this times the rounding unit lies outside the basis is dropped."""


@dataclass(frozen=True)
class RitzPairs:
    """Leading Ritz pairs of a subspace.

    Attributes:
        values: (m,) all Ritz values, largest first, float64 on the CPU.
        residual: (k, size) Hv − λv of the k leading pairs.
        norms: (k,) ‖Hv − λv‖, float64 on the CPU.
        relative: (k,) ‖Hv − λv‖ / |λ| on the CPU, 0 where both vanish.
        coordinates: (m, k) the k leading Ritz vectors in the basis, float64 on the CPU.
    """

    values: Tensor
    residual: Tensor
    norms: Tensor
    relative: Tensor
    coordinates: Tensor


class Subspace:
    """The basis (filled, size) and its images, in buffers allocated once.

    Args:
        operator: gives the size, the device and the type of the vectors; it is not multiplied with here.
        capacity: largest number of basis vectors.
        beside: (m, size) vectors whose inner products with the basis and the images are to be kept up; none when not
            given.

    Attributes:
        size: length of the vectors.
        beside: (m, size) those vectors.
        gram: (m, m) beside · besideᵀ, float64 on the CPU.
        inside: (m, filled) beside · basisᵀ, float64 on the CPU.
        across: (m, filled) beside · imagesᵀ, float64 on the CPU.
        filled: number of basis vectors.
        products: products received.
        stuck: whether the last extension brought no new direction.
        finite: whether all products were finite.
    """

    def __init__(self, operator: LinearOperator, capacity: int, beside: Tensor | None = None) -> None:
        self.capacity, self.size = capacity, operator.size
        self._basis = torch.empty(capacity, operator.size, device=operator.device, dtype=operator.dtype)
        self._images = torch.empty_like(self._basis)
        self._projected = torch.empty(0, 0, dtype=torch.float64)  # basis · imagesᵀ, on the CPU
        self.beside = self._basis[:0] if beside is None else beside
        self.gram = (self.beside @ self.beside.T).double().cpu()
        self.inside = self.across = torch.empty(len(self.beside), 0, dtype=torch.float64)
        self.filled = self.products = 0
        self.stuck, self.finite = False, True

    @property
    def full(self) -> bool:
        """Whether there is no room for another vector."""
        return self.filled == self.capacity

    @property
    def basis(self) -> Tensor:
        """(filled, size) the orthonormal vectors."""
        return self._basis[: self.filled]

    @property
    def images(self) -> Tensor:
        """(filled, size) their images."""
        return self._images[: self.filled]

    @property
    def projected(self) -> Tensor:
        """(filled, filled) basis · imagesᵀ, float64 on the CPU."""
        return self._projected

    def extend(self, rows: Tensor) -> Generator[Tensor, Tensor, None]:
        """Takes in the rows' parts outside the basis: yields them orthonormal, is sent their images.

        Rows of which nothing but rounding is left outside are dropped again.
        """
        begin, count = self.filled, min(len(rows), self.capacity - self.filled)
        left = [self._orthonormalise(rows[j], begin + j) for j in range(count)]
        images = yield self._basis[begin : begin + count]
        self.products += count
        self._images[begin : begin + count] = images
        self.filled = begin + count
        new = self._basis[: self.filled] @ self._images[begin : self.filled].T
        both = torch.cat([self._basis[begin : self.filled], self._images[begin : self.filled]])
        inside, across = torch.split(self.beside @ both.T, count, 1)
        report = torch.cat([new, inside, across, torch.stack(left)[None]]).double().cpu()  # the round's first wait
        self.finite = bool(torch.isfinite(report).all())
        new, inside, across, left_ = torch.split(report, [self.filled, len(inside), len(across), 1])
        self.inside, self.across = torch.cat([self.inside, inside], 1), torch.cat([self.across, across], 1)
        self._take_in(new, begin)
        good = [j for j in range(count) if left_[0, j] > _DEPENDENT * torch.finfo(rows.dtype).eps]
        self.stuck = not good
        if len(good) < count:
            self._keep([*range(begin), *(begin + j for j in good)])

    def take(self, rows: Tensor, images: Tensor) -> None:
        """Takes in orthonormal rows whose images are at hand."""
        extension = self.extend(rows)
        next(extension)
        with contextlib.suppress(StopIteration):
            extension.send(images)

    def ritz(self, k: int) -> RitzPairs:
        """Ritz values, and the residuals of the k largest."""
        values, rotation = self._rotation()
        top = rotation[:, :k].T.to(self._basis)
        # r = H V y − θ V y
        residual = top @ self._images[: self.filled]
        residual.addmm_(values[:k, None].to(top) * top, self._basis[: self.filled], alpha=-1)
        norms = residual.double().norm(dim=1).cpu()  # the round's second wait
        relative = torch.where(norms == 0, norms, norms / values[:k].abs())
        return RitzPairs(values, residual, norms, relative, rotation[:, :k])

    def vectors(self, count: int) -> Tensor:
        """(count, size) the leading Ritz vectors."""
        return self._rotation()[1][:, :count].T.to(self._basis) @ self._basis[: self.filled]

    def fold(self, count: int) -> None:
        """Folds the basis to its leading Ritz vectors, and the images with it (thick restart)."""
        values, rotation = self._rotation()
        m = min(count, self.filled)
        keep = rotation[:, :m].T.to(self._basis)
        self._basis[:m], self._images[:m] = keep @ self._basis[: self.filled], keep @ self._images[: self.filled]
        self.inside, self.across = self.inside @ rotation[:, :m], self.across @ rotation[:, :m]
        self._projected, self.filled = torch.diag(values[:m]), m

    def tridiagonal_since(self, first: int) -> tuple[Tensor, Tensor, Tensor]:
        """State of the Lanczos run that began with vector `first`.

        Returns:
            (j, j) the projected matrix, () β = ‖part of the last image outside the basis‖, (1, size) that image.
        """
        image = self._images[self.filled - 1 : self.filled].clone()
        outside = image - (image @ self._basis[: self.filled].T) @ self._basis[: self.filled]
        return self._projected[first:, first:], outside.double().norm().cpu(), image

    def _orthonormalise(self, row: Tensor, at: int) -> Tensor:
        """Puts the row's unit part outside the first `at` vectors there; returns the share of its length left."""
        basis, tiny = self._basis[:at], torch.finfo(row.dtype).tiny
        unit = row / row.norm().clamp_min(tiny)
        shares = []
        for _ in range(2):  # once more against rounding
            unit.addmv_(basis.T, basis @ unit, alpha=-1)
            shares.append(unit.norm())
            unit /= shares[-1].clamp_min(tiny)
            # Kahan and Parlett's rule. A GPU would have to be waited for to know.
            if row.device.type == "cpu" and shares[-1] > _ENOUGH:
                break
        share = torch.stack(shares).min()
        # Nothing but rounding is left: zero, so that the rows after it are not made orthogonal to noise.
        self._basis[at] = torch.where(share > _DEPENDENT * torch.finfo(row.dtype).eps, unit, 0)
        return share

    def _take_in(self, new: Tensor, begin: int) -> None:
        """Grows basis · imagesᵀ by its columns from `begin` on; it is symmetric."""
        grown = torch.empty(self.filled, self.filled, dtype=torch.float64)
        grown[:begin, :begin] = self._projected
        grown[:, begin:] = new
        grown[begin:, :begin] = new[:begin].T
        corner = grown[begin:, begin:].clone()
        grown[begin:, begin:] = (corner + corner.T) / 2
        self._projected = grown

    def _keep(self, places: list[int]) -> None:
        index = torch.tensor(places, dtype=torch.long)
        on_device = index.to(self._basis.device)
        m = len(places)
        self._basis[:m], self._images[:m] = self._basis[on_device], self._images[on_device]
        self.inside, self.across = self.inside[:, index], self.across[:, index]
        self._projected, self.filled = self._projected[index][:, index], m

    def _rotation(self) -> tuple[Tensor, Tensor]:
        """Ritz values, largest first, and their coordinates (m, m) in the basis."""
        values, rotation = torch.linalg.eigh(self._projected)
        return values.flip(0), rotation.flip(1)
