"""Multilayer perceptron."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from sim.networks.activations import activation_of
from theory.command_line import InputError


def mlp(sizes: Sequence[int], activation: str, seed: int) -> nn.Sequential:
    """Fully connected network with PyTorch's default initialisation, drawn on the CPU from `seed`.

    Args:
        sizes: number of units of each layer, input and output included.
        activation: relu, tanh or gelu, between the layers.
        seed: seed of the initial weights; the global random state is left as it was.

    Raises:
        InputError: fewer than two sizes, or an unknown activation.

    >>> len(mlp([4, 3, 2], "relu", seed=0))
    3
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise InputError(f"sizes of the network are {list(sizes)}: give at least two, each at least 1")
    between = activation_of(activation)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not those of GPUs, whose state stays
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out), between()]
    return nn.Sequential(*layers[:-1])
