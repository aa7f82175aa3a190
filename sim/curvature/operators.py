"""Symmetric operators known by their products; the eigensolver sees nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor


class LinearOperator(Protocol):
    """A symmetric operator on vectors of length `size`."""

    size: int
    device: torch.device
    dtype: torch.dtype

    def matvec(self, vector: Tensor) -> Tensor:
        """(size,) product with a vector of shape (size,)."""
        ...


class MatrixOperator:
    """A symmetric matrix as an operator, for tests and small problems."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix = matrix
        self.size, self.device, self.dtype = len(matrix), matrix.device, matrix.dtype

    def matvec(self, vector: Tensor) -> Tensor:
        """Product with the matrix."""
        return self.matrix @ vector


class HessianOperator:
    """Hessian of a scalar with respect to some of its tensors, as an operator on one flat vector.

    The graph of the gradient is built once and reused by every product: H v = ∂(∇L · v)/∂θ, at about the cost of one
    gradient. `with_respect_to` picks a diagonal block on the same graph, for instance one layer.

    Args:
        loss: the scalar, with its graph to `parameters`.
        parameters: tensors the Hessian is taken over.
    """

    def __init__(self, loss: Tensor, parameters: Sequence[Tensor]) -> None:
        gradients = torch.autograd.grad(loss, list(parameters), create_graph=True)
        self._set(list(parameters), list(gradients))

    def _set(self, parameters: list[Tensor], gradients: list[Tensor]) -> None:
        self._parameters, self._gradients = parameters, gradients
        self._sizes = [p.numel() for p in parameters]
        self.size = sum(self._sizes)
        self.device, self.dtype = parameters[0].device, parameters[0].dtype

    @property
    def gradient(self) -> Tensor:
        """(size,) gradient at the same point, detached."""
        return torch.cat([g.detach().reshape(-1) for g in self._gradients])

    def with_respect_to(self, indices: Sequence[int]) -> HessianOperator:
        """Diagonal block of the parameters with these positions, on the same graph."""
        block = HessianOperator.__new__(HessianOperator)
        block._set([self._parameters[i] for i in indices], [self._gradients[i] for i in indices])
        return block

    def matvec(self, vector: Tensor) -> Tensor:
        """Hessian-vector product."""
        parts = [v.view_as(p) for v, p in zip(torch.split(vector, self._sizes), self._parameters, strict=True)]
        # A gradient that does not depend on the parameters (a linear loss) has no graph; its block is zero.
        live = [(g, v) for g, v in zip(self._gradients, parts, strict=True) if g.requires_grad]
        if not live:
            return torch.zeros_like(vector)
        products = torch.autograd.grad(
            [g for g, _ in live],
            self._parameters,
            [v for _, v in live],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return torch.cat([h.reshape(-1) for h in products])
