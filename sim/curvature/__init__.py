"""Curvature of a loss: Hessian and Gauss–Newton products, top eigenpairs, shares by layer, third derivatives."""

from sim.curvature.chunked import MeanLossGaussNewton, MeanLossHessian
from sim.curvature.differences import DifferenceHessian
from sim.curvature.eigensolver import Eigenpairs, top_eigenpairs
from sim.curvature.layerwise import layer_blocks, layer_shares, top_block_eigenpairs
from sim.curvature.mean_loss import MeanLoss
from sim.curvature.operators import (
    GaussNewtonOperator,
    HessianOperator,
    LinearOperator,
    MatrixOperator,
    rayleigh_quotient,
)
from sim.curvature.third_derivatives import example_curvatures, sharpness_gradient
from sim.curvature.tracking import EigenpairTracker

__all__ = [
    "DifferenceHessian",
    "EigenpairTracker",
    "Eigenpairs",
    "GaussNewtonOperator",
    "HessianOperator",
    "LinearOperator",
    "MatrixOperator",
    "MeanLoss",
    "MeanLossGaussNewton",
    "MeanLossHessian",
    "example_curvatures",
    "layer_blocks",
    "layer_shares",
    "rayleigh_quotient",
    "sharpness_gradient",
    "top_block_eigenpairs",
    "top_eigenpairs",
]
