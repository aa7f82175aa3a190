"""Sharpness of the loss of all examples, as they are, at weights that a treated run came to: a midpoint of its steps.

The sharpness of a treated run is that of the loss it is trained on, from which the examples that it lacks are missing
too: it would be smaller without them at any weights. Measured on the loss of all, at a step of equal loss, it says
whether training without them finds a flatter place. At a midpoint, as the base run's that it is compared with: a
treated run may be at its own edge there, where iterates of a perceptron with ReLU are sharper by a tenth and more (it
was measured at iterates until the evening of 29 November 2026).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from theory.command_line import InputError
from validate.cifar10 import Images
from validate.network_run import NetworkConfig, network_tensors, run_network, trained_network, training_images
from validate.sharpness_now import sharpness_now, sharpness_probe


@dataclass(frozen=True)
class WholeLossConfig:
    """A measurement on the loss of all examples, untreated, in the middle of a step of a treated run."""

    network: NetworkConfig
    """The treated run."""
    step: int
    """Number of its steps before the one in whose middle is measured; at least 1."""

    def __post_init__(self) -> None:
        if not 1 <= self.step <= self.network.steps:
            raise InputError(f"step is {self.step}: give one from 1 to {self.network.steps}")

    @property
    def name(self) -> str:
        """Name of the measurement's folder."""
        return f"whole-loss-{self.network.name}-mid{self.step}"


def measure_whole_loss(
    config: WholeLossConfig,
    images: Images,
    device: torch.device,
    *,
    start: npt.NDArray[np.float32] | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Takes the treated run's steps again, and measures at θ − ½η∇L, half-way to the next iterate.

    Args:
        config: the measurement.
        images: what the treated run was given.
        device: where.
        start: as in `run_network`.
        progress: whether to show a progress bar.

    Returns:
        ``sharpness``, the largest eigenvalue of the Hessian of the mean loss of all examples, untreated.
    """
    again = replace(
        config.network,
        steps=config.step + 1,
        measure_every=config.step,
        snapshot_every=config.step,
        blocks_every=0,
        midpoint=False,
    )
    run = run_network(again, images, device, start=start, progress=progress)
    network = trained_network(again, run, device, at_step=config.step)
    after = trained_network(again, run, device)
    with torch.no_grad():
        for here, there in zip(network.parameters(), after.parameters(), strict=True):
            here.lerp_(there, 0.5)
    inputs, labels = network_tensors(again.architecture, training_images(again, images), device)
    return xr.Dataset({"sharpness": sharpness_now(sharpness_probe(network, inputs, labels, again))})
