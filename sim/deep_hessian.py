"""The Hessian of a deep linear network under squared loss, on the few coordinates in which it is not zero.

In the notation of `sim.deep_network` (rows a_l above, columns h_l below layer l) a direction δW changes the gradient by

    δ∂_{W_l} L = δa_lᵀ h_lᵀ + a_lᵀ δh_lᵀ,    δa_{l−1} = δa_l W_l + a_l δW_l,    δh_{l+1} = W_l δh_l + δW_l h_l,

from δa_L = 0 up to δv = δa_0, and from δh_1 = G δv on. The image lies in matrices p ĥ_lᵀ + â_l qᵀ, with unit vectors
ĥ_l, â_l along h_l and a_l. With q ⊥ ĥ_l the coordinates (p_l, q_l) are orthonormal, so the Hessian's eigenvalues are
those of its restriction to them, and zeros: Σ (m_l + m_{l−1}) numbers in place of Σ m_l m_{l−1}. The largest
eigenvalue is at least 0 (the first layer's block is ‖a_1‖² G), so the zeros do no harm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sim.symmetric_eigenvalues import Product, dense_largest


def reduced_size(layers: Sequence[Tensor]) -> int:
    """Number of coordinates (p_l, q_l), Σ (m_l + m_{l−1})."""
    return sum(m + n for m, n in (layer.shape[-2:] for layer in layers))


def reduced_hessian_product(
    layers: Sequence[Tensor], rows: Sequence[Tensor], columns: Sequence[Tensor], curvature: Tensor
) -> Product:
    """The restricted Hessian as a product.

    Args:
        layers: W_1, …, W_L, the first in G's eigenbasis.
        rows: a_0, …, a_L, (*batch, 1, m_l).
        columns: h_1, …, h_L, (*batch, m_{l−1}, 1).
        curvature: (*batch, d) eigenvalues of G.

    Returns:
        Function of directions (*batch, k, size), in rows, to their products of the same shape. Of a direction's q_l the
        part along ĥ_l is dropped first.
    """
    sizes = [n for layer in layers for n in layer.shape[-2:]]
    below = [column.mT for column in columns]
    a_norm, h_norm = ([x.norm(dim=-1, keepdim=True) for x in each] for each in (rows[1:], below))
    h_unit = [_unit(h, norm) for h, norm in zip(below, h_norm, strict=True)]
    last = len(layers) - 1

    def product(directions: Tensor) -> Tensor:
        parts = torch.split(directions, sizes, -1)
        p, q = parts[::2], [_across(x, h) for x, h in zip(parts[1::2], h_unit, strict=True)]
        # δa_{l−1} = δa_l W_l + (p_l·a_l) ĥ_l + ‖a_l‖ q_l
        d_a: list[Tensor] = [torch.zeros_like(p[last])]
        for l in range(last, -1, -1):
            d_a.append(d_a[-1] @ layers[l] + (p[l] @ rows[l + 1].mT) * h_unit[l] + a_norm[l] * q[l])
        d_a.reverse()
        d_h = d_a[0] * curvature[..., None, :]
        image = []
        for l in range(last + 1):
            # p_l: ‖h_l‖ δa_l + (δh_l·ĥ_l) a_l;  q_l: ‖a_l‖ δh_l, across ĥ_l
            image.append(h_norm[l] * d_a[l + 1] + (d_h @ h_unit[l].mT) * rows[l + 1])
            image.append(a_norm[l] * _across(d_h, h_unit[l]))
            if l < last:
                d_h = d_h @ layers[l].mT + h_norm[l] * p[l]  # δh_{l+1}
        return torch.cat(image, -1)

    return product


def layer_sharpness(layers: Sequence[Tensor], rows: Sequence[Tensor], curvature: Tensor) -> Tensor:
    """(*batch, L) largest eigenvalue of each layer's diagonal block, ‖a_l‖² λmax(B_l G B_lᵀ), B_l = W_{l−1} ⋯ W_1.

    Arguments as in `reduced_hessian_product`.
    """
    largest = [curvature.amax(-1).expand(layers[0].shape[:-2])]
    seen = (layers[0] * curvature[..., None, :]) @ layers[0].mT  # B_2 G B_2ᵀ
    for layer in layers[1:-1]:
        largest.append(dense_largest(seen))
        seen = layer @ seen @ layer.mT
    largest.append(dense_largest(seen))
    return torch.stack([size * row.square().sum((-2, -1)) for size, row in zip(largest, rows[1:], strict=True)], -1)


def _unit(x: Tensor, norm: Tensor) -> Tensor:
    """The unit vector along x; zero where x is, which leaves (p, q) without the direction that has no meaning there."""
    return x / torch.where(norm > 0, norm, 1.0)


def _across(x: Tensor, unit: Tensor) -> Tensor:
    return x - (x @ unit.mT) * unit
