"""Probes of what a network has learnt to see: class probabilities on plain colours, and the size of its features.

Both are evaluated by a copy of the network in evaluation mode at the run's parameters and buffers; the run itself, its
mode and its running statistics are never touched.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sim.record import Record
from validate.cifar10 import CLASSES, Images, standardise

FLAT: Mapping[str, tuple[int, int, int]] = {
    "sky": (135, 206, 235),
    "blue": (40, 90, 180),
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
    "red": (200, 30, 30),
    "orange": (230, 140, 40),
    "yellow": (240, 220, 60),
    "grass": (86, 140, 50),
    "brown": (120, 85, 50),
}
"""Red, green and blue of flat images, 0 to 255. The choice of colours is ours."""

GRADIENTS: Mapping[str, tuple[str, str]] = {
    "sky over blue": ("sky", "blue"),
    "white over sky": ("white", "sky"),
    "sky over grass": ("sky", "grass"),
    "grass over brown": ("grass", "brown"),
    "black over white": ("black", "white"),
}
"""Images that pass evenly from the first colour in the top row to the second in the bottom row."""

COLOURS = (*FLAT, *GRADIENTS)


def colour_images() -> Images:
    """The flat and the graded images, in the order of `COLOURS`; their labels are 0 and mean nothing.

    >>> colour_images().pixels.shape[0] == len(COLOURS)
    True
    """
    down = np.linspace(0, 1, 32)[None, :, None]
    pairs = [(name, name) for name in FLAT] + list(GRADIENTS.values())
    tops, bottoms = (np.array([FLAT[pair[side]] for pair in pairs], dtype=float)[:, :, None, None] for side in (0, 1))
    pixels = np.broadcast_to(tops + (bottoms - tops) * down, (len(pairs), 3, 32, 32))
    return Images(np.rint(pixels).astype(np.uint8), np.zeros(len(pairs), np.uint8))


@dataclass
class FeatureProbe:
    """Colour probabilities and norms of the penultimate features at stated steps, as a probe of `sim.descend`.

    Columns of the record, all along ``probed`` (steps): ``colour_probability`` (probed, colour, class), the softmax of
    the outputs on each of `COLOURS`; ``feature_norm`` (probed, example), ‖h_i‖ of the input h of the last linear layer.

    Attributes:
        network: the network in training; its parameters are not read from it but handed over at each call.
        inputs: (n, …) all inputs, flat or as images, on the network's device.
        last: the last linear layer, a module of the network.
        every: steps between measurements.
        chunk: examples at once; all when not given.
        record: where the measurements go; in memory when not given.
    """

    network: nn.Module
    inputs: Tensor
    last: nn.Module
    every: int
    chunk: int | None = None
    record: Record = field(default_factory=Record)

    def __post_init__(self) -> None:
        name = next(name for name, module in self.network.named_modules() if module is self.last)
        self._eval = copy.deepcopy(self.network).eval()
        self._last = self._eval.get_submodule(name)
        colours = torch.from_numpy(standardise(colour_images())).to(self.inputs)
        self._colours = colours.reshape(len(colours), *self.inputs.shape[1:])
        self.record.declare("probed", ["probed"], dtype=np.int64)
        self.record.declare(
            "colour_probability", ["probed", "colour", "class"], [len(COLOURS), len(CLASSES)], np.float32
        )
        self.record.declare("feature_norm", ["probed", "example"], [len(self.inputs)], np.float32)

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Measures where the step is due."""
        if step % self.every:
            return
        self.record.append("probed", step)
        with torch.no_grad():
            names = [name for name, _ in self.network.named_parameters()]
            state = dict(zip(names, parameters, strict=True)) | dict(self.network.named_buffers())
            outputs = torch.func.functional_call(self._eval, state, (self._colours,))
            self.record.append("colour_probability", outputs.softmax(1))
            self.record.append("feature_norm", self._norms(state))

    @property
    def coordinates(self) -> dict[str, list[str]]:
        """Names of the colours and classes, for the data set."""
        return {"colour": list(COLOURS), "class": list(CLASSES)}

    def _norms(self, state: Mapping[str, Tensor]) -> npt.NDArray[np.float32]:
        norms: list[Tensor] = []

        def keep(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            norms.append(arguments[0].flatten(1).norm(dim=1))

        hook = self._last.register_forward_pre_hook(keep)
        try:
            for part in torch.split(self.inputs, self.chunk or len(self.inputs)):
                torch.func.functional_call(self._eval, dict(state), (part,))
        finally:
            hook.remove()
        return np.asarray(torch.cat(norms).float().cpu().numpy())
