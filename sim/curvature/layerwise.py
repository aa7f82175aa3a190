"""Curvature by layer: shares of an eigenvector, and the layers' diagonal blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sim.curvature.chunked import ChunkedOperator
from sim.curvature.eigensolver import Criterion, Eigenpairs, solver
from sim.curvature.operators import LinearOperator, products
from sim.curvature.recycling import Recycled
from sim.curvature.scouting import MAX_PRODUCTS, Scout


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
    """An operator over several parameter tensors that gives its diagonal blocks."""

    def with_respect_to(self, indices: Sequence[int]) -> Self:
        """Diagonal block of the parameters with these positions."""
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


def top_block_eigenpairs(
    hessian: Blocks,
    layers: Sequence[str],
    *,
    generator: torch.Generator,
    start: Mapping[str, Tensor] | None = None,
    recycled: Mapping[str, Recycled] | None = None,
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
        start: each layer's vectors to start from, such as the last solve's; layers may be missing.
        recycled: instead of them, what the last solve kept of each layer; layers may be missing.
        options: k, tolerance and the other options of `top_eigenpairs`.

    Returns:
        Each layer's eigenpairs, in the order in which the layers appear.
    """
    blocks = layer_blocks(hessian, layers)
    starts, kept = {} if start is None else start, {} if recycled is None else recycled
    searches = {
        name: solver(block, generator=generator, start=starts.get(name), recycled=kept.get(name), **options)
        for name, block in blocks.items()
    }
    waiting = {name: next(search) for name, search in searches.items()}
    found: dict[str, Eigenpairs] = {}
    while waiting:
        requests = [(blocks[name], rows) for name, rows in waiting.items()]
        if isinstance(hessian, ChunkedOperator):
            images = hessian.shared_products(requests)  # type: ignore[arg-type]
        else:
            images = [products(block, rows) for block, rows in requests]
        for name, image in zip(list(waiting), images, strict=True):
            try:
                waiting[name] = searches[name].send(image)
            except StopIteration as stop:
                found[name] = stop.value
                del waiting[name]
    return {name: found[name] for name in blocks}


def refresh_block_eigenpairs(
    hessian: Blocks,
    layers: Sequence[str],
    *,
    generator: torch.Generator,
    recycled: Mapping[str, Recycled],
    scouts: Sequence[Scout] = (),
    tolerance: float,
    criterion: Criterion,
    keep: int = 6,
) -> dict[str, Eigenpairs]:
    """Top eigenpair of every layer's block from what the last refresh kept, by scouts first where there are any.

    Args:
        hessian: the operator over all parameters.
        layers: name of each parameter tensor's layer.
        generator: CPU generator of the random start vectors.
        recycled: what the last refresh kept of each layer; empty at first.
        scouts: cheap operators near the Hessian that give their blocks, coarsest first.
        tolerance: bound on what the criterion says.
        criterion: as in `top_eigenpairs`.
        keep: number of directions kept of each layer.

    Returns:
        Each layer's eigenpairs, in the order in which the layers appear.
    """
    options: dict[str, Any] = {"generator": generator, "criterion": criterion, "keep": keep}
    verified: dict[str, bool] = {}
    for scout in scouts:
        reached = scout.tolerance(tolerance, criterion)
        found = top_block_eigenpairs(
            scout.operator,  # type: ignore[arg-type]
            layers,
            recycled=recycled,
            guards=int(not verified),
            tolerance=reached,
            max_products=MAX_PRODUCTS,
            **options,
        )
        recycled = {name: pairs.recycled for name, pairs in found.items() if pairs.recycled is not None}
        verified = {name: pairs.verified for name, pairs in found.items()}
    final = top_block_eigenpairs(
        hessian, layers, recycled=recycled, guards=int(not scouts), tolerance=tolerance, **options
    )
    return {name: replace(p, verified=p.verified or verified.get(name, False)) for name, p in final.items()}
