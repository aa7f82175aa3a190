"""Curvature of a loss: products, top eigenpairs, blocks by layer, spectral density, third derivatives."""

from sim.curvature.chunked import MeanLossGaussNewton, MeanLossHessian
from sim.curvature.differences import DifferenceHessian
from sim.curvature.eigensolver import Eigenpairs, top_eigenpairs
from sim.curvature.free_monitors import EdgeMonitor, growth_factor, secant_curvature
from sim.curvature.layerwise import layer_blocks, layer_shares, top_block_eigenpairs
from sim.curvature.mean_loss import MeanLoss
from sim.curvature.operators import (
    GaussNewtonOperator,
    HessianOperator,
    LinearOperator,
    MatrixOperator,
    rayleigh_quotient,
)
from sim.curvature.over_ranks import SummedOperator
from sim.curvature.spectral_density import SpectralDensity, spectral_density
from sim.curvature.third_derivatives import curvature_derivatives, example_curvatures, sharpness_gradient
from sim.curvature.tracking import EigenpairTracker

__all__ = [
    "DifferenceHessian",
    "EdgeMonitor",
    "EigenpairTracker",
    "Eigenpairs",
    "GaussNewtonOperator",
    "HessianOperator",
    "LinearOperator",
    "MatrixOperator",
    "MeanLoss",
    "MeanLossGaussNewton",
    "MeanLossHessian",
    "SpectralDensity",
    "SummedOperator",
    "curvature_derivatives",
    "example_curvatures",
    "growth_factor",
    "layer_blocks",
    "layer_shares",
    "rayleigh_quotient",
    "secant_curvature",
    "sharpness_gradient",
    "spectral_density",
    "top_block_eigenpairs",
    "top_eigenpairs",
]
