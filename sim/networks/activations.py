"""Activations by name."""

from __future__ import annotations

from torch import nn

from theory.command_line import InputError

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def activation_of(name: str) -> type[nn.Module]:
    """The class of activation of that name.

    Raises:
        InputError: there is none.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"activation is {name}: give one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]
