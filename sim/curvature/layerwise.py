"""Curvature by layer: shares of an eigenvector, and the layers' diagonal blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.curvature.chunked import ChunkedOperator
from sim.curvature.eigensolver import Eigenpairs, solver
from sim.curvature.operators import LinearOperator, products


def layer_shares(vector: Tensor, sizes: Sequence[int], layers: Sequence[str]) -> npt.NDArray[np.float64]:
    """Share of a vector's squared norm in each layer.

    Args:
        vector: (sum of sizes,) flat vector over all parameters.
        sizes: number of entries of each parameter tensor.
        layers: name of each parameter tensor's layer.

    Returns:
        (number of layers,) shares in the order in which the layers appear; they sum to 1. NaN where the vector is zero
        or not finite, as an eigenvector of a diverging run is.

    >>> layer_shares(torch.tensor([3.0, 0.0, 4.0]), [1, 1, 1], ["a", "a", "b"])
    array([0.36, 0.64])
    """
    squares = [float(part.double().square().sum()) for part in torch.split(vector, list(sizes))]
    names = list(dict.fromkeys(layers))
    shares = np.zeros(len(names))
    for layer, square in zip(layers, squares, strict=True):
        shares[names.index(layer)] += square
    total = shares.sum()
    return shares / total if 0 < total < np.inf else np.full(len(names), np.nan)


class Blocks(LinearOperator, Protocol):
    """An operator over several parameter tensors that gives its blocks."""

    def with_respect_to(self, indices: Sequence[int]) -> Self:
        """Diagonal block of the parameters with these positions."""
        ...

    def between(self, along: Sequence[int], onto: Sequence[int]) -> Self:
        """The block that takes vectors of the parameters with some positions to those of others."""
        ...


BlocksT = TypeVar("BlocksT", bound=Blocks)


def layer_blocks(hessian: BlocksT, layers: Sequence[str]) -> dict[str, BlocksT]:
    """Diagonal block of the Hessian of each layer, on the graph of the whole.

    Args:
        hessian: the operator over all parameters.
        layers: name of each parameter tensor's layer.
    """
    return {
        name: hessian.with_respect_to([i for i, layer in enumerate(layers) if layer == name])
        for name in dict.fromkeys(layers)
    }


def products_of_blocks(hessian: Blocks, requests: Sequence[tuple[Blocks, Tensor]]) -> list[Tensor]:
    """Products of several blocks of an operator, each with its own rows, in one pass over the data where it can."""
    if isinstance(hessian, ChunkedOperator) and requests:  # a pass for nothing would build chunks' graphs
        return hessian.shared_products(requests)  # type: ignore[arg-type]
    return [products(block, rows) for block, rows in requests]


def top_block_eigenpairs(
    hessian: Blocks,
    layers: Sequence[str],
    *,
    generator: torch.Generator,
    own: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> dict[str, Eigenpairs]:
    """Top eigenpairs of every layer's diagonal block, all layers in the same passes over the data.

    The layers' searches go on in step: in each round, the vectors that they ask for are multiplied in one pass, which
    builds each chunk's graph once where it is not kept. What cannot be shared is the backward pass itself: H v with
    v = Σ_l v_l over the layers gives block l as Σ_m H_lm v_m, its own product mixed with the others', so every layer
    needs its own. It is cheap, though: a block's backward pass walks the block's part of the graph alone, and those of
    all layers together take about as long as one product with the whole Hessian.

    Args:
        hessian: the operator over all parameters.
        layers: name of each parameter tensor's layer.
        generator: CPU generator of the random start vectors.
        own: each layer's own options of `top_eigenpairs`, such as the last solve's vectors as `start`; layers may be
            missing.
        options: k, tolerance and the other options of all of them.

    Returns:
        Each layer's eigenpairs, in the order in which the layers appear.
    """
    blocks = layer_blocks(hessian, layers)
    searches = {
        name: solver(block, generator=generator, **options, **({} if own is None else own.get(name, {})))
        for name, block in blocks.items()
    }
    waiting: dict[str, Tensor] = {}
    found: dict[str, Eigenpairs] = {}

    def go_on(name: str, image: Tensor | None) -> None:
        try:
            waiting[name] = next(searches[name]) if image is None else searches[name].send(image)
        except StopIteration as stop:
            found[name] = stop.value
            waiting.pop(name, None)

    for name in blocks:
        go_on(name, None)
    while waiting:
        images = products_of_blocks(hessian, [(blocks[name], rows) for name, rows in waiting.items()])
        for name, image in zip(list(waiting), images, strict=True):
            go_on(name, image)
    return {name: found[name] for name in blocks}
