"""Curvature of a loss: Hessian products, top eigenpairs, shares by layer."""

from sim.curvature.eigensolver import Eigenpairs, top_eigenpairs
from sim.curvature.layerwise import layer_blocks, layer_shares
from sim.curvature.operators import HessianOperator, LinearOperator, MatrixOperator

__all__ = [
    "Eigenpairs",
    "HessianOperator",
    "LinearOperator",
    "MatrixOperator",
    "layer_blocks",
    "layer_shares",
    "top_eigenpairs",
]
