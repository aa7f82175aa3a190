"""Curvature by layer: shares of an eigenvector, and the layers' diagonal blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.curvature.operators import HessianOperator


def layer_shares(vector: Tensor, sizes: Sequence[int], layers: Sequence[str]) -> npt.NDArray[np.float64]:
    """Share of a vector's squared norm in each layer.

    Args:
        vector: (sum of sizes,) flat vector over all parameters.
        sizes: number of entries of each parameter tensor.
        layers: name of each parameter tensor's layer.

    Returns:
        (number of layers,) shares in the order in which the layers appear; they sum to 1.

    >>> layer_shares(torch.tensor([3.0, 0.0, 4.0]), [1, 1, 1], ["a", "a", "b"])
    array([0.36, 0.64])
    """
    squares = [float(part.double().square().sum()) for part in torch.split(vector, list(sizes))]
    names = list(dict.fromkeys(layers))
    shares = np.zeros(len(names))
    for layer, square in zip(layers, squares, strict=True):
        shares[names.index(layer)] += square
    return np.asarray(shares / shares.sum())


def layer_blocks(hessian: HessianOperator, layers: Sequence[str]) -> dict[str, HessianOperator]:
    """Diagonal block of the Hessian of each layer, on the graph of the whole."""
    return {
        name: hessian.with_respect_to([i for i, layer in enumerate(layers) if layer == name])
        for name in dict.fromkeys(layers)
    }
