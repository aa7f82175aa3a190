"""Largest eigenvalues of many symmetric operators at once: dense where they are small, Lanczos where they are not."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]
"""Directions (*batch, k, size) in rows to their products with each of the batch's symmetric matrices."""

DENSE_SIZE = 40
"""Up to this size a dense eigenvalue problem is cheaper than Lanczos's products (measured on a CPU)."""

CHECK_EVERY = 4
"""Products between looks at the residuals; each look waits for the device."""

MAX_BASIS = 40
"""Basis vectors held; a full basis is folded to its leading half (thick restart)."""

MAX_PRODUCTS = 400


def largest_eigenvalue(
    product: Product, batch: torch.Size, size: int, like: Tensor, *, tolerance: float | None = None
) -> tuple[Tensor, Tensor]:
    """Largest eigenvalue of each operator, and its residual ‖Hx − λx‖/|λ|.

    Args:
        product: the operators; each has a largest eigenvalue of at least 0.
        batch: shape of the batch.
        size: size of the operators.
        like: a tensor of the type and on the device of the operators.
        tolerance: largest residual wanted; √ε of the type when not given, which leaves an error of ε/gap in λ.

    Returns:
        (*batch,) eigenvalues and residuals, NaN where the operator is not finite. Dense problems are solved to
        rounding: their residual is given as 0. Lanczos stops after `MAX_PRODUCTS` in any case: the residual tells.
    """
    if size <= DENSE_SIZE:
        matrix = product(torch.eye(size, dtype=like.dtype, device=like.device).expand(*batch, size, size))
        values = dense_largest((matrix + matrix.mT) / 2)
        return values, values * 0
    if tolerance is None:
        tolerance = torch.finfo(like.dtype).eps ** 0.5
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, size, generator=generator, dtype=torch.float64).to(like).expand(*batch, 1, size)
    return _lanczos(product, start, tolerance)


def dense_largest(matrix: Tensor) -> Tensor:
    """Largest eigenvalue of each symmetric matrix; NaN where an entry is not finite, which LAPACK would refuse."""
    finite = matrix.isfinite().all(-1).all(-1)
    safe = torch.where(finite[..., None, None], matrix, 0.0)
    return torch.where(finite, torch.linalg.eigvalsh(safe)[..., -1], torch.nan)


def _lanczos(product: Product, start: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """Lanczos with full orthogonalisation and thick restarts, on all of a batch together until the last converges.

    With orthonormal rows Q, H Q = S Q + e_k wᵀ: the Ritz vector of y has residual ‖w‖ |y_k|, also after a restart.
    An exhausted Krylov space goes on with zero vectors, which add eigenvalues 0.
    """
    basis, images = start[..., :0, :], start[..., :0, :]
    new = _normalized(start, torch.zeros_like(start[..., :1]))
    scale = torch.zeros_like(start[..., :1])
    for taken in range(1, MAX_PRODUCTS + 1):
        image = product(new)
        basis, images = torch.cat([basis, new], -2), torch.cat([images, image], -2)
        scale = torch.maximum(scale, image.norm(dim=-1, keepdim=True))
        w = image
        for _ in range(2):
            w = w - (w @ basis.mT) @ basis
        full = basis.shape[-2] == MAX_BASIS
        if full or taken % CHECK_EVERY == 0 or taken == MAX_PRODUCTS:
            projected = basis @ images.mT
            finite = projected.isfinite().all(-1).all(-1)
            values, vectors = torch.linalg.eigh(torch.where(finite[..., None, None], projected, 0.0))
            largest = torch.where(finite, values[..., -1], torch.nan)
            residual = w.norm(dim=-1)[..., 0] * vectors[..., -1, -1].abs()
            small = residual <= tolerance * largest.abs()
            if bool((small | ~finite).all()):
                break
            if full:
                kept = vectors[..., MAX_BASIS // 2 :].mT
                basis, images = kept @ basis, kept @ images
        new = _normalized(w, scale)
    return largest, torch.where(largest != 0, residual / largest.abs(), 0.0)


def _normalized(w: Tensor, scale: Tensor) -> Tensor:
    """Unit rows; zero where a row is rounding beside the scale."""
    norm = w.norm(dim=-1, keepdim=True)
    keep = norm > 10 * torch.finfo(w.dtype).eps * scale
    return torch.where(keep, w / torch.where(keep, norm, 1.0), 0.0)
