"""Architectures by name, scaled by width and depth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from sim.networks.activations import activation_of
from sim.networks.perceptron import mlp
from sim.networks.resnet import resnet18
from sim.networks.vgg import vgg11
from sim.networks.vision_transformer import vit
from theory.command_line import InputError

Kind = Literal["mlp", "vgg11", "vgg11_bn", "resnet18", "vit"]
KINDS: tuple[Kind, ...] = ("mlp", "vgg11", "vgg11_bn", "resnet18", "vit")

STRIDES: Mapping[str, tuple[int, ...]] = {"vgg11": (1, 2), "vgg11_bn": (1, 2), "resnet18": (1, 2, 4)}
"""Kind → the strides that its first convolution may have; 1 for the others."""


@dataclass(frozen=True)
class Architecture:
    """A network's kind and size."""

    kind: Kind = "mlp"
    """mlp: multilayer perceptron; vgg11, vgg11_bn: VGG-11 without and with batch norm; resnet18: ResNet-18 with batch
    norm; vit: vision transformer. The convolutional ones are in their form for 32 × 32 images."""
    hidden: tuple[int, ...] = field(default=(200, 200), metadata={"repeats": True})
    """Units of each hidden layer of the mlp."""
    activation: str = "relu"
    """relu, tanh or gelu."""
    width: float = 1.0
    """Multiplier of the channels, or of the vision transformer's features, of all but the mlp."""
    depth: int | None = None
    """Blocks of the vision transformer; 6 when not given."""
    patch: int = 4
    """Width of the vision transformer's patches; 8 makes a network of a quarter of the cost."""
    stride: int = 1
    """Stride of a convolutional network's first convolution; 2 makes a network of a quarter of the cost, 4 (of
    ResNet-18 alone) again a quarter of that."""

    def __post_init__(self) -> None:
        activation_of(self.activation)
        if self.kind not in KINDS:
            raise InputError(f"network is {self.kind}: give one of {', '.join(KINDS)}")
        if not 0 < self.width < math.inf:
            raise InputError(f"width is {self.width}: give a number above 0")
        if self.depth is not None and self.depth < 1:
            raise InputError(f"depth is {self.depth}: give at least 1 block")
        if self.kind == "mlp" and self.width != 1:
            raise InputError(f"width is {self.width}: the size of an mlp is given by its hidden units")
        if self.kind != "vit" and self.depth is not None:
            raise InputError(f"depth is {self.depth}: the depth of {self.kind} is fixed, leave it out")
        if self.patch < 1 or (self.patch != 4 and self.kind != "vit"):
            raise InputError(f"patch is {self.patch}: give at least 1 place, and only for vit another than 4")
        allowed = STRIDES.get(self.kind, (1,))
        if self.stride not in allowed:
            raise InputError(f"stride is {self.stride}: give one of {', '.join(map(str, allowed))} for {self.kind}")


def takes_images(architecture: Architecture) -> bool:
    """Whether inputs are (n, channels, height, width) images; the mlp takes them flat.

    >>> takes_images(Architecture("mlp"))
    False
    """
    return architecture.kind != "mlp"


def build(architecture: Architecture, image_shape: tuple[int, int, int], classes: int, seed: int) -> nn.Module:
    """The network with its initial weights, drawn on the CPU from `seed`; in training mode.

    Args:
        architecture: kind and size.
        image_shape: channels, height and width of an image. The mlp takes images flat.
        classes: number of outputs.
        seed: seed of the initial weights; the global random state is left as it was.

    Raises:
        InputError: the images are too small for the architecture, or do not divide into patches.

    >>> sum(p.numel() for p in build(Architecture("resnet18"), (3, 32, 32), 10, seed=0).parameters())
    11173962
    """
    channels, height, width = image_shape
    if architecture.kind == "mlp":
        return mlp([channels * height * width, *architecture.hidden, classes], architecture.activation, seed)
    activation = activation_of(architecture.activation)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # not those of GPUs, whose state stays
        if architecture.kind == "resnet18":
            return resnet18(
                channels, classes, width=architecture.width, activation=activation, stride=architecture.stride
            )
        if architecture.kind == "vit":
            if height % architecture.patch or width % architecture.patch:
                raise InputError(
                    f"images are {height} × {width}: a vision transformer of patches of {architecture.patch} takes "
                    "multiples of that"
                )
            return vit(
                image_shape,
                classes,
                width=architecture.width,
                depth=architecture.depth,
                patch=architecture.patch,
                activation=activation,
            )
        if not architecture.kind.startswith("vgg11"):
            raise NotImplementedError(f"{architecture.kind} is among KINDS, and nothing here builds it")
        if min(height, width) < 32:
            raise InputError(f"images are {height} × {width}: VGG-11 takes at least 32 × 32")
        return vgg11(
            channels,
            classes,
            width=architecture.width,
            activation=activation,
            batch_norm=architecture.kind == "vgg11_bn",
            stride=architecture.stride,
        )
