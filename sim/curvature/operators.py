"""Symmetric operators known by their products; the eigensolver sees nothing else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sim.curvature.mean_loss import flatten, gradients, unflatten


class LinearOperator(Protocol):
    """A symmetric operator on vectors of length `size`."""

    size: int
    device: torch.device
    dtype: torch.dtype

    def matvec(self, vector: Tensor) -> Tensor:
        """(size,) product with a vector of shape (size,)."""
        ...


@runtime_checkable
class BlockOperator(Protocol):
    """An operator that takes several vectors at once, cheaper than one after the other."""

    def matmat(self, rows: Tensor) -> Tensor:
        """(k, size) products with k vectors, the rows of a (k, size) matrix."""
        ...


def products(operator: LinearOperator, rows: Tensor) -> Tensor:
    """(k, size) products with the rows of a (k, size) matrix, together where the operator can."""
    if isinstance(operator, BlockOperator):
        return operator.matmat(rows)
    return torch.stack([operator.matvec(row) for row in rows])


def rayleigh_quotient(operator: LinearOperator, vector: Tensor) -> float:
    """Curvature along a direction, vᵀHv / vᵀv.

    With the operator of a group of examples (`MeanLoss.group`) and the top eigenvector of the whole, it is how much
    that group has to do with the sharpness: over a partition of the data, the quotients weighted by the groups' shares
    of the examples sum to the whole's.

    >>> from sim.curvature import MatrixOperator
    >>> rayleigh_quotient(MatrixOperator(torch.diag(torch.tensor([1.0, 3.0]))), torch.tensor([2.0, 2.0]))
    2.0
    """
    return float(torch.dot(vector, operator.matvec(vector)) / torch.dot(vector, vector))


class MatrixOperator:
    """A symmetric matrix as an operator, for tests and small problems."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.size, self.device, self.dtype = len(matrix), matrix.device, matrix.dtype

    def matvec(self, vector: Tensor) -> Tensor:
        """Product with the matrix."""
        return self.matrix @ vector

    def matmat(self, rows: Tensor) -> Tensor:
        """Products with the rows."""
        return rows @ self.matrix


class HessianOperator:
    """Hessian of a scalar with respect to some of its tensors, as an operator on one flat vector.

    The graph of the gradient is built once and reused by every product: H v = ∂(∇L · v)/∂θ, at about the cost of one
    gradient. `with_respect_to` picks a diagonal block on the same graph, for instance one layer, and `between` any
    block; a product walks only the part of the graph that joins the tensors in question.

    Args:
        loss: the scalar, with its graph to `parameters`.
        parameters: tensors the Hessian is taken over.
        deferred: positions of tensors along which the first products will not go: their gradients' graphs are built
            when one does.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor], deferred: Collection[int] = ()) -> None:
        self._loss, self._parameters, self._gradients = loss, list(parameters), dict[int, Tensor]()
        self._restrict(range(len(self._parameters)), range(len(self._parameters)))
        self._gradients_of([i for i in self._along if i not in deferred])

    def _restrict(self, along: Sequence[int], onto: Sequence[int]) -> None:
        self._along, self._onto = list(along), list(onto)
        self.size = sum(self._parameters[i].numel() for i in along)
        self.device, self.dtype = self._parameters[0].device, self._parameters[0].dtype

    def _gradients_of(self, indices: Sequence[int]) -> list[Tensor]:
        missing = [i for i in indices if i not in self._gradients]
        if missing:
            found = gradients(self._loss, [self._parameters[i] for i in missing], create_graph=True)
            self._gradients |= zip(missing, found, strict=True)
        return [self._gradients[i] for i in indices]

    @property
    def gradient(self) -> Tensor:
        """(size,) gradient at the same point, detached."""
        return flatten([g.detach() for g in self._gradients_of(self._along)])

    def with_respect_to(self, indices: Sequence[int]) -> HessianOperator:
        """Diagonal block of the parameters with these positions, on the same graph."""
        return self.between(indices, indices)

    def between(self, along: Sequence[int], onto: Sequence[int]) -> HessianOperator:
        """The block that takes vectors of the parameters with some positions to those of others, on the same graph."""
        block = HessianOperator.__new__(HessianOperator)
        block._loss, block._parameters, block._gradients = self._loss, self._parameters, self._gradients
        block._restrict([self._along[i] for i in along], [self._onto[i] for i in onto])
        return block

    def matvec(self, vector: Tensor) -> Tensor:
        """Hessian-vector product."""
        # H v = ∂(g · v)/∂θ
        parts = unflatten(vector, [self._parameters[i] for i in self._along])
        onto = [self._parameters[i] for i in self._onto]
        return flatten(gradients(self._gradients_of(self._along), onto, parts, retain_graph=True))


class GaussNewtonOperator:
    """Gauss–Newton matrix Jᵀ (∂²L/∂z²) J of a loss L(z(θ)), on graphs that are built once and reused.

    It is the Hessian without the outputs' own curvature, positive semidefinite where the loss is convex in the outputs.

    Args:
        outputs: z(θ), with its graph to `parameters`.
        loss: the scalar L as a function of `leaf` alone.
        leaf: the outputs' values as a tensor that requires gradients and has no graph.
        parameters: tensors it is taken over.
    """

    def __init__(self, outputs: Tensor, loss: Tensor, leaf: Tensor, parameters: Sequence[Tensor]) -> None:
        seed = torch.zeros_like(leaf).requires_grad_()
        # Jᵀu is linear in u, so its derivative in u along v is J v: forward mode by two backward passes, whose graph is
        # reused and which every operation with a double backward supports.
        transposed = gradients(outputs, parameters, seed, create_graph=True)
        residual = gradients(loss, [leaf], create_graph=True)[0]
        self._set(outputs, leaf, seed, residual, list(parameters), transposed)

    def _set(
        self,
        outputs: Tensor,
        leaf: Tensor,
        seed: Tensor,
        residual: Tensor,
        parameters: list[Tensor],
        transposed: list[Tensor],
    ) -> None:
        self._outputs, self._leaf, self._seed, self._residual = outputs, leaf, seed, residual
        self._parameters, self._transposed = parameters, transposed
        self.size = sum(p.numel() for p in parameters)
        self.device, self.dtype = parameters[0].device, parameters[0].dtype

    def with_respect_to(self, indices: Sequence[int]) -> GaussNewtonOperator:
        """Diagonal block of the parameters with these positions, on the same graphs."""
        block = GaussNewtonOperator.__new__(GaussNewtonOperator)
        parameters, transposed = ([parts[i] for i in indices] for parts in (self._parameters, self._transposed))
        block._set(self._outputs, self._leaf, self._seed, self._residual, parameters, transposed)
        return block

    def matvec(self, vector: Tensor) -> Tensor:
        """Product Jᵀ (∂²L/∂z²) J v."""
        parts = unflatten(vector, self._parameters)
        pushed = gradients(self._transposed, [self._seed], parts, retain_graph=True)[0]  # J v
        curved = gradients(self._residual, [self._leaf], pushed, retain_graph=True)[0]  # (∂²L/∂z²) J v
        return flatten(gradients(self._outputs, self._parameters, curved, retain_graph=True))
