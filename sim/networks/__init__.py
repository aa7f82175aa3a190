"""Networks whose initial weights depend on a seed alone, and which can be differentiated three times.

Normalisations and attention are written out: PyTorch's fused ones have wrong third derivatives or no second ones.
"""

from sim.networks.activations import ACTIVATIONS
from sim.networks.architecture import Architecture, build, takes_images
from sim.networks.layers import (
    Layer,
    last_linear,
    layer_of_parameter,
    load_parameters,
    parameter_vector,
    require_trained_whole,
)
from sim.networks.perceptron import mlp

__all__ = [
    "ACTIVATIONS",
    "Architecture",
    "Layer",
    "build",
    "last_linear",
    "layer_of_parameter",
    "load_parameters",
    "mlp",
    "parameter_vector",
    "require_trained_whole",
    "takes_images",
]
