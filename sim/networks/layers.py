"""A network's layers, its last linear map, and its parameters as one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from theory.command_line import InputError


class Layer(nn.Module):
    """A module whose parameters count as those of one layer, such as a convolution with its normalisation."""


def layer_of_parameter(network: nn.Module) -> list[str]:
    """Name of the layer of each parameter, in the order of `network.parameters()`.

    The layer is the outermost `Layer` that holds the parameter, else the module that owns it.

    >>> from sim.networks import mlp
    >>> layer_of_parameter(mlp([4, 3, 2], "relu", seed=0))
    ['0', '0', '2', '2']
    """
    layers = [name for name, module in network.named_modules() if isinstance(module, Layer)]
    names = []
    for name, _ in network.named_parameters():
        holding = [layer for layer in layers if name.startswith(f"{layer}.")]
        names.append(min(holding, key=len) if holding else name.rpartition(".")[0])
    return names


def last_linear(network: nn.Module) -> nn.Linear:
    """The last linear map of the network: it gives the outputs, and its input are the penultimate features.

    Raises:
        InputError: the network has none.

    >>> from sim.networks import mlp
    >>> last_linear(mlp([4, 3, 2], "relu", seed=0))
    Linear(in_features=3, out_features=2, bias=True)
    """
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise InputError("the network has no linear layer: give one that ends in a linear map")
    return linear[-1]


def require_trained_whole(network: nn.Module) -> None:
    """Refuses a network with frozen parameters, where what is asked for is of all of them.

    Raises:
        InputError: as said.
    """
    if frozen := [name for name, parameter in network.named_parameters() if not parameter.requires_grad]:
        raise InputError(f"parameter {frozen[0]} is frozen, and all are moved and measured: give it requires_grad")


def parameter_vector(network: nn.Module) -> Tensor:
    """(parameters,) copy of all parameters as one flat vector, in the network's order."""
    return torch.cat([p.detach().reshape(-1) for p in network.parameters()])


def load_parameters(network: nn.Module, vector: Tensor) -> None:
    """Undoes `parameter_vector`, in place; buffers stay.

    Raises:
        InputError: the vector has another length.
    """
    parameters = list(network.parameters())
    sizes = [p.numel() for p in parameters]
    if vector.shape != (sum(sizes),):
        raise InputError(f"vector of parameters has shape {list(vector.shape)}: the network takes [{sum(sizes)}]")
    with torch.no_grad():
        for parameter, part in zip(parameters, torch.split(vector, sizes), strict=True):
            parameter.copy_(part.view(parameter.shape))
