"""Hessian and Gauss–Newton matrix of a mean loss in chunks of examples, within a bound on the memory of graphs.

A product needs a graph of the gradient, whose saved tensors grow with the examples. The bound works so:

1. The bytes B that a chunk's graph saves are counted as graphs of a few examples are built: a constant (the weights'
   gradients) and a part in proportion to the examples.
2. Building a graph and multiplying with it take temporaries on top, at most about 3 B where they were measured
   (benchmarks/product_memory.py); room for them is set aside.
3. If the graph of all examples fits beside that room, there is one chunk and its graph is kept: a product costs about
   one gradient.
4. Otherwise a chunk's graph takes an eighth of the bound. The first four chunks' graphs are kept, the others are built
   anew in every pass, one at a time, and dropped: a product costs about two gradients, less what the kept ones save. A
   pass serves any number of vectors and blocks, so products made together share the building.

Inputs, targets, and vectors of the parameters' size (about ten during a product) do not count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Protocol, Self

import torch
from torch import Tensor

from sim.curvature.mean_loss import MeanLoss, leaves_at
from sim.curvature.operators import GaussNewtonOperator, HessianOperator, LinearOperator
from theory.command_line import InputError

DEFAULT_MEMORY = 2**30
"""Bytes that graphs and the temporaries of a product may take."""

_TEMPORARIES = 3
"""Room for the temporaries of building and multiplying, in graphs of one chunk."""

_CHUNKS_IN_MEMORY = 8
_PROBED_EXAMPLES = 8


class _GraphOperator(LinearOperator, Protocol):
    def with_respect_to(self, indices: Sequence[int]) -> _GraphOperator: ...


class ChunkedOperator:
    """A sum over chunks of operators on graphs, kept or built anew; see the module for the bound on memory.

    Args:
        objective: the loss.
        parameters: the point θ, all of the network's parameters in its order; copied, so that the operator stays at
            this point. The network's own when not given.
        memory: bytes that graphs and the temporaries of a product may take.
        chunk: number of examples a chunk, found from the bound when not given.

    Attributes:
        chunk: number of examples a chunk.
        kept: number of chunks whose graphs are kept.
        rebuilt: number of chunks whose graphs are built anew in every pass.
        passes: passes over the rebuilt chunks so far.

    Raises:
        InputError: the graph of one chunk exceeds the bound.
    """

    def __init__(
        self,
        objective: MeanLoss,
        parameters: Sequence[Tensor] | None = None,
        *,
        memory: int = DEFAULT_MEMORY,
        chunk: int | None = None,
    ) -> None:
        self._objective = objective
        self._leaves = leaves_at(list(objective.network.parameters()) if parameters is None else parameters)
        self._block: tuple[Sequence[int], Sequence[int]] | None = None  # parameters along which it goes, and onto which
        self._whole: Self | None = None  # a block's parent, which counts and builds; itself would be a cycle
        self.device, self.dtype = self._leaves[0].device, self._leaves[0].dtype
        self.size = self._height = sum(leaf.numel() for leaf in self._leaves)
        chunk, cost = self._fit(memory, chunk)
        pieces = list(objective.chunks(chunk))
        # Where not all are kept, one place is for the chunk that is rebuilt.
        places = memory // max(cost, 1) - _TEMPORARIES
        kept = len(pieces) if len(pieces) <= places else places - 1
        self._kept = [self._build(piece) for piece in pieces[:kept]]
        self._pieces = pieces[kept:]
        self.chunk, self.kept, self.rebuilt, self.passes = chunk, kept, len(pieces) - kept, 0

    def _build(self, piece: slice, *, complete: bool = False) -> _GraphOperator:
        """The chunk's operator on its graph; `complete`, with all of the graph that products may add."""
        raise NotImplementedError

    def _fit(self, memory: int, chunk: int | None) -> tuple[int, int]:
        """Examples a chunk, and the bytes that its graph saves."""
        n = len(self._objective)
        if chunk is None and not self._objective.divisible:
            chunk = n
        few = min(_PROBED_EXAMPLES, n)
        if chunk is None or chunk > 2 * few:
            # bytes(m) = constant + m · slope
            sizes = (few, 2 * few) if 2 * few <= n else (few,)
            counts = [self._bytes(slice(0, size)) for size in sizes]
            slope = (counts[1] - counts[0]) / few if len(counts) > 1 else counts[0] / few
            constant = counts[0] - slope * few
            if chunk is None:
                largest = memory / (1 + _TEMPORARIES)
                share = largest if constant + n * slope <= largest else memory / _CHUNKS_IN_MEMORY
                # Where not even one example fits that, nothing is kept.
                share = largest if share < constant + slope else share
                chunk = max(1, min(n, int((share - constant) / slope) if slope else n))
            cost = int(constant + min(chunk, n) * slope)
        else:
            cost = self._bytes(slice(0, min(chunk, n)))
        need = cost * (1 + _TEMPORARIES)
        if need > memory:
            raise InputError(
                f"memory is {memory} bytes, and the graph of {chunk} examples with its temporaries takes {need}: "
                f"give a larger bound{' or a smaller chunk' if chunk > 1 else ''}"
            )
        return chunk, cost

    def _bytes(self, piece: slice) -> int:
        """Bytes of the distinct tensors that a graph saves, without inputs, targets and parameters."""
        own = [*self._leaves, self._objective.inputs, self._objective.targets]
        free = {tensor.untyped_storage().data_ptr() for tensor in own}
        seen: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            seen[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # autograd joins it to its node again; the tensor itself would make a cycle

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            graph = self._build(piece, complete=True)
        held = sum(size for address, size in seen.items() if address not in free)
        # The graph's ends, one gradient a parameter, are held by the operator.
        return held + graph.size * self._leaves[0].element_size()

    def with_respect_to(self, indices: Sequence[int]) -> Self:
        """Diagonal block of the parameters with these positions, on the same graphs."""
        return self._of(indices, indices)

    def _of(self, along: Sequence[int], onto: Sequence[int]) -> Self:
        block = object.__new__(type(self))
        block.__dict__ |= self.__dict__
        block._whole = self._whole or self
        before = self._block or (range(len(self._leaves)),) * 2
        block._block = [before[0][i] for i in along], [before[1][i] for i in onto]
        block.size, block._height = (sum(self._leaves[i].numel() for i in of) for of in block._block)
        return block

    def _view(self, graph: _GraphOperator) -> _GraphOperator:
        if self._block is None:
            return graph
        along, onto = self._block
        return graph.with_respect_to(along) if along == onto else graph.between(along, onto)  # type: ignore[attr-defined]

    def matvec(self, vector: Tensor) -> Tensor:
        """Product with a (size,) vector."""
        return self.matmat(vector[None])[0]

    def matmat(self, rows: Tensor) -> Tensor:
        """(k, size) products with the rows, in one pass over the chunks."""
        return self.shared_products([(self, rows)])[0]

    def shared_products(self, requests: Sequence[tuple[Self, Tensor]]) -> list[Tensor]:
        """Products of several of this operator's blocks, each with its own rows, in one pass over the chunks.

        Each vector of each block still costs its own backward pass: H v for a v of several blocks at once would mix
        their products. What is shared is the building of graphs, and a block's pass walks the block's part only.
        """
        totals = [rows.new_zeros(len(rows), block._height) for block, rows in requests]
        for graph in (self._whole or self)._graphs():
            for (block, rows), total in zip(requests, totals, strict=True):
                view = block._view(graph)
                for row, sum_ in zip(rows, total, strict=True):
                    sum_ += view.matvec(row)
            del graph, view  # before the next chunk's graph is built
        return totals

    def _graphs(self) -> Iterator[_GraphOperator]:
        yield from self._kept
        if self._pieces:
            self.passes += 1
        for piece in self._pieces:
            yield self._build(piece)


class MeanLossHessian(ChunkedOperator):
    """Hessian of a mean loss, in chunks within a bound on memory.

    Args:
        objective, parameters, memory, chunk: as of every `ChunkedOperator`.
        deferred: as of `HessianOperator`.
    """

    def __init__(
        self,
        objective: MeanLoss,
        parameters: Sequence[Tensor] | None = None,
        *,
        memory: int = DEFAULT_MEMORY,
        chunk: int | None = None,
        deferred: Collection[int] = (),
    ) -> None:
        self._deferred = deferred
        super().__init__(objective, parameters, memory=memory, chunk=chunk)

    def _build(self, piece: slice, *, complete: bool = False) -> HessianOperator:
        deferred = () if complete else self._deferred
        return HessianOperator(self._objective.of_chunk(self._leaves, piece), self._leaves, deferred)

    def between(self, along: Sequence[int], onto: Sequence[int]) -> Self:
        """The block that takes vectors of the parameters with some positions to those of others, on the same graphs."""
        return self._of(along, onto)


class MeanLossGaussNewton(ChunkedOperator):
    """Gauss–Newton matrix of a mean loss, in chunks within a bound on memory."""

    def _build(self, piece: slice, *, complete: bool = False) -> GaussNewtonOperator:
        outputs = self._objective.outputs(self._leaves, piece)
        leaf = outputs.detach().requires_grad_()
        return GaussNewtonOperator(outputs, self._objective.of_outputs(leaf, piece), leaf, self._leaves)
