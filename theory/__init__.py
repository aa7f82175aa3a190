"""Dynamics of the two-layer linear network with opposing features: symbolic, exact, numerical."""

from theory.command_line import InputError
from theory.gradient_descent import gradient_descent
from theory.gradient_flow import gradient_flow
from theory.model import (
    Model,
    State,
    balancedness,
    drive,
    gradient,
    group_losses,
    hessian,
    loss,
    power_law_covariance,
    random_start,
)
from theory.predictions import (
    Predictions,
    edge_amplitude,
    flow_limit,
    growth_factor,
    predict,
)
from theory.sharpness import LayerSharpness, layer_sharpness, sharpness
from theory.trajectory import Trajectory

__all__ = [
    "InputError",
    "LayerSharpness",
    "Model",
    "Predictions",
    "State",
    "Trajectory",
    "balancedness",
    "drive",
    "edge_amplitude",
    "flow_limit",
    "gradient",
    "gradient_descent",
    "gradient_flow",
    "group_losses",
    "growth_factor",
    "hessian",
    "layer_sharpness",
    "loss",
    "power_law_covariance",
    "predict",
    "random_start",
    "sharpness",
]
