"""One run of full-batch gradient descent on real CIFAR-10 images, with every loss and the curvature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
import xarray as xr

from sim import Arithmetic, Batches, Record, RunInProgress, SharpnessProbe, descend, mlp
from theory.command_line import require_positive
from validate.cifar10 import CLASSES, Images, standardise


@dataclass(frozen=True)
class NetworkConfig:
    """A multilayer perceptron on the embedded CIFAR-10 images, full-batch gradient descent, cross-entropy."""

    hidden: tuple[int, ...] = (200, 200)
    """Units of each hidden layer."""
    activation: str = "relu"
    """relu, tanh or gelu."""
    lr: float = 0.05
    """Step size η."""
    steps: int = 420
    """Number of steps."""
    seed: int = 0
    """Seed of the initial weights."""
    measure_every: int = 10
    """Steps between measurements of the sharpness."""
    blocks_every: int = 50
    """Steps between measurements of the layers' blocks; 0 for none."""
    midpoint: bool = True
    """Measure at the midpoint of the step too."""
    batches: Batches = field(default_factory=Batches)
    """Examples a step takes, and how many at once."""
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    """Number format and memory layout."""
    loss_dtype: Literal["float32", "float16"] = "float32"
    """Number format that the examples' losses are stored in."""

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "measure_every"):
            require_positive(f"--{name.replace('_', '-')}", getattr(self, name))

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"mlp-lr{self.lr:g}-seed{self.seed}"


def run_network(
    config: NetworkConfig,
    images: Images,
    device: torch.device,
    *,
    run: RunInProgress | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Trains the network and measures it.

    Args:
        config: the run.
        images: what it is trained on.
        device: where.
        run: the run's folder, to record its steps in and go on from; all in memory when not given.
        progress: whether to show a progress bar.

    Returns:
        Data set with dimensions ``step``, ``example``, ``layer``, ``measured``, ``block_measured`` and ``parameter``:
        every example's loss at every step, the probe's measurements, and the last finite weights. Attribute
        ``diverged_at`` is the first step with a loss that is not finite, −1 if there is none.
    """
    inputs = torch.from_numpy(standardise(images)).flatten(1).to(device)
    labels = torch.from_numpy(images.labels.astype(np.int64)).to(device)
    network = mlp([inputs.shape[1], *config.hidden, len(CLASSES)], config.activation, config.seed).to(device)
    record = Record() if run is None else run.record
    probe = SharpnessProbe(
        network,
        inputs,
        labels,
        config.lr,
        every=config.measure_every,
        blocks_every=config.blocks_every,
        midpoint=config.midpoint,
        seed=config.seed,
        record=record,
    )
    descent = descend(
        network,
        inputs,
        labels,
        lr=config.lr,
        steps=config.steps,
        batches=config.batches,
        arithmetic=config.arithmetic,
        probes=[probe],
        record=record,
        checkpoints=None if run is None else run.checkpoints,
        loss_dtype=config.loss_dtype,
        description=config.name,
        progress=progress,
    )
    data = descent.data.assign_coords(layer=probe.layer_names)
    data["label"] = "example", images.labels
    weights = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    data["final_parameters"] = "parameter", weights.cpu().numpy()
    data.coords["step"] = np.arange(data.sizes["step"])
    data.attrs = {"diverged_at": -1 if descent.diverged_at is None else descent.diverged_at, "lr": config.lr}
    return data
