"""What a relation is examined on: a small network, some of the embedded images and a step size, as plain values."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sim import Architecture
from sim.networks import ACTIVATIONS
from theory.command_line import InputError, require_positive, require_seed
from validate.cifar10 import CLASSES, EMBEDDED_PER_CLASS

Kind = Literal["mlp", "vgg11", "resnet18", "vit"]
KINDS: tuple[Kind, ...] = ("mlp", "vgg11", "resnet18", "vit")
WIDTHS: Mapping[Kind, tuple[int, ...]] = {
    "mlp": (4, 8, 16, 32),
    "vgg11": (1, 2, 4),
    "resnet18": (1, 2),
    "vit": (8, 16),
}
DEPTHS: Mapping[Kind, tuple[int | None, ...]] = {
    "mlp": (1, 2, 3),
    "vgg11": (None,),
    "resnet18": (None,),
    "vit": (1, 2),
}
IMAGES: Mapping[Kind, tuple[int, ...]] = {
    "mlp": (12, 24, 48),
    "vgg11": (12, 20),
    "resnet18": (12, 20),
    "vit": (12, 20),
}
"""Sizes that examples are drawn from, the smallest first; none takes more than seconds."""

WIDEST = 1024
"""Relations are examined in float64, with whole Hessians' products: wider networks are for `validate claims`."""

_FULL_WIDTH = {"vgg11": 64, "resnet18": 64, "vit": 384}
_IMAGES = EMBEDDED_PER_CLASS * len(CLASSES)


@dataclass(frozen=True)
class Configuration:
    """One example: a network in float64, images, and a step size relative to the network's own sharpness."""

    kind: Kind = "mlp"
    """mlp, vgg11 (no batch norm), resnet18 (batch norm over the whole set, stride 2) or vit."""
    width: int = 8
    """Units of each hidden layer of the mlp; channels of the first stage of vgg11 and resnet18; features of the vit, a
    multiple of 8."""
    depth: int | None = None
    """Hidden layers of the mlp, blocks of the vit; 1 when not given. The others have none to give."""
    activation: str = "tanh"
    """tanh, gelu or relu."""
    seed: int = 0
    """Seed of the initial weights."""
    images: int = 24
    """Number of images."""
    subset: int = 0
    """Seed of the choice of images among the embedded ones."""
    multiple: float = 0.5
    """Step size η as a multiple of 2/λ, λ the largest sharpness of a near-flow run: ηλ/2."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"--kind is {self.kind}: give one of {', '.join(KINDS)}")
        if self.activation not in ACTIVATIONS:
            raise InputError(f"--activation is {self.activation}: give one of {', '.join(ACTIVATIONS)}")
        if not 1 <= self.width <= WIDEST or (self.kind == "vit" and self.width % 8):
            wanted = f"1 to {WIDEST}" + (", a multiple of 8 for the vit" if self.kind == "vit" else "")
            raise InputError(f"--width is {self.width}: give {wanted}")
        if self.depth is not None and (self.depth < 1 or DEPTHS[self.kind] == (None,)):
            wanted = (
                f"that of {self.kind} is fixed, leave it out" if DEPTHS[self.kind] == (None,) else "give at least 1"
            )
            raise InputError(f"--depth is {self.depth}: {wanted}")
        if not 3 <= self.images <= _IMAGES:  # two chunks of different sizes
            raise InputError(f"--images is {self.images}: give 3 to {_IMAGES}, the embedded images")
        for name in ("seed", "subset"):
            require_seed(f"--{name}", getattr(self, name))
        require_positive("--multiple", self.multiple)

    @property
    def architecture(self) -> Architecture:
        """The network's kind and size as `sim` takes them."""
        if self.kind == "mlp":
            return Architecture(hidden=(self.width,) * (self.depth or 1), activation=self.activation)
        return Architecture(
            self.kind,
            activation=self.activation,
            width=self.width / _FULL_WIDTH[self.kind],
            depth=(self.depth or 1) if self.kind == "vit" else None,
            stride=2 if self.kind == "resnet18" else 1,
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The options that give this configuration on the command line, all of them.

        >>> Configuration(multiple=0.25).words[-2:]
        ('--multiple', '0.25')
        """
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return tuple(word for name, value in values.items() if value is not None for word in (f"--{name}", f"{value}"))


def command_line(name: str, config: Configuration) -> str:
    """The command that examines a relation on that configuration.

    >>> command_line("interlacing", Configuration()).split(" --")[0]
    'python -m validate relation interlacing'
    """
    return shlex.join(["python", "-m", "validate", "relation", name, *config.words])
