"""One run of descent of a network on real CIFAR-10 images, with every loss and the curvature."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor, nn

from sim import (
    Architecture,
    Arithmetic,
    Batches,
    LossRule,
    OptimizerChoice,
    Record,
    RunInProgress,
    SharpnessProbe,
    SnapshotProbe,
    build,
    descend,
)
from sim.networks import last_linear, load_parameters, parameter_vector, takes_images
from theory.command_line import InputError, require_positive
from validate.cifar10 import CLASSES, Images, first_of_each_class, standardise
from validate.probes import FeatureProbe
from validate.step_probe import StepProbe


class Intervention(Protocol):
    """A change of the training data, a frozen dataclass of plain values, so that a run's configuration holds it."""

    @property
    def name(self) -> str:
        """Unique name, part of the run's: letters, digits, dots and hyphens."""
        ...

    def images(self, images: Images) -> Images:
        """As many images, with other pixels or labels."""
        ...

    def weights(self, images: Images) -> npt.NDArray[np.float32] | None:
        """(n,) weight of each example in the mean loss, 0 for one that is removed; None for all alike."""
        ...

    def loss(self, rule: LossRule) -> LossRule:
        """The rule of the examples' losses, given the run's."""
        ...

    def targets(self, labels: Tensor) -> Tensor:
        """(n,) what that rule is given for (n,) labels."""
        ...


@dataclass(frozen=True)
class NetworkConfig:
    """A network on CIFAR-10 images: what is trained, how, and what is measured meanwhile."""

    architecture: Architecture = field(default_factory=Architecture)
    """The network's kind and size."""
    optimizer: OptimizerChoice = field(default_factory=OptimizerChoice)
    """Rule of the steps."""
    loss: LossRule = field(default_factory=LossRule)
    """Rule of the examples' losses."""
    images_per_class: int = 200
    """The first so many images of each class are trained on, or all there are."""
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
    snapshot_every: int = 0
    """Steps between snapshots of the parameters; 0 for none."""
    probe_every: int = 0
    """Steps between probes of colours and features; 0 for none."""
    step_lengths: bool = False
    """Measure how far the measured steps go, and how far along the top eigenvector."""
    intervention: Intervention | None = None
    """Change of the training data; none when not given."""
    start_step: int = 0
    """Number of steps of another run after which the weights are handed to this one (see `run_network`)."""
    batches: Batches = field(default_factory=Batches)
    """Examples a step takes, and how many at once."""
    arithmetic: Arithmetic = field(default_factory=Arithmetic)
    """Number format and memory layout."""
    loss_dtype: Literal["float32", "float16"] = "float32"
    """Number format that the examples' losses are stored in."""

    def __post_init__(self) -> None:
        for name in ("lr", "steps", "measure_every", "images_per_class"):
            require_positive(f"--{name.replace('_', '-')}", getattr(self, name))
        for name in ("blocks_every", "snapshot_every", "probe_every", "start_step"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name.replace('_', '-')} is {getattr(self, name)}: give 0 or more")

    @property
    def name(self) -> str:
        """Name of the run's folder: kind, step size, seed, and every other field that has not its default."""
        parts = [self.architecture.kind, f"lr{_word(self.lr)}", f"seed{self.seed}"]
        for of_class in dataclasses.fields(self):
            value = getattr(self, of_class.name)
            if of_class.name not in ("lr", "seed"):
                parts += _differences(of_class.name, value, getattr(_DEFAULTS, of_class.name))
        return "-".join(parts)


def stored_network(plain: Mapping[str, Any]) -> NetworkConfig:
    """The configuration of a finished run without an intervention, from what is stored with it (`Run.config`).

    Raises:
        InputError: it is not that of such a run.
    """
    try:
        if plain.get("intervention") is not None:
            raise ValueError
        config: NetworkConfig = _filled(NetworkConfig(), {k: v for k, v in plain.items() if k != "device"})
    except (TypeError, AttributeError, ValueError):
        raise InputError(
            f"the configuration {dict(plain)} is not that of a network's run without an intervention: give another run"
        ) from None
    return config


def _filled(default: Any, plain: Mapping[str, Any]) -> Any:
    """A dataclass instance with fields of its own from plain values, its dataclasses' from mappings."""

    def value(of_default: Any, of_plain: Any) -> Any:
        if dataclasses.is_dataclass(of_default):
            return _filled(of_default, of_plain)
        return tuple(of_plain) if isinstance(of_plain, list) else of_plain

    return replace(default, **{name: value(getattr(default, name), of_plain) for name, of_plain in plain.items()})


def run_network(
    config: NetworkConfig,
    images: Images,
    device: torch.device,
    *,
    run: RunInProgress | None = None,
    progress: bool = True,
    start: npt.NDArray[np.float32] | None = None,
) -> xr.Dataset:
    """Trains the network and measures it.

    The sharpness is that of the loss that is minimised: with an intervention's weights, of their weighted mean.

    Args:
        config: the run.
        images: what it is trained on, before the choice of `images_per_class` and the intervention.
        device: where.
        run: the run's folder, to record its steps in and go on from; all in memory when not given.
        progress: whether to show a progress bar.
        start: (parameters,) weights to begin with in place of the seed's, such as a snapshot of another run; its step
            there is `config.start_step`, 0 for a start that is the seed's.

    Returns:
        Data set with dimensions ``step``, ``example``, ``layer``, ``measured``, ``block_measured`` and ``parameter``:
        every example's loss at every step, the probe's measurements, and the last finite weights; ``buffer``: batch
        norm's running statistics with them, where the network has any; ``example_weight`` where an intervention gives
        any; ``step_along_top`` and ``step_length`` (step_measured), ``snapshot`` (snapshot_step, parameter) and
        ``colour_probability``, ``feature_norm`` (`validate.probes`) where the configuration asks for them. Steps count
        from this run's start. Attribute ``diverged_at`` is the first step with a loss that is not finite, −1 if there
        is none.

    Raises:
        InputError: `config.start_step` and `start` do not go together.
    """
    if (config.start_step > 0) != (start is not None):
        raise InputError(
            f"start_step is {config.start_step}: give the weights of that step of another run, and only then"
        )
    images = training_images(config, images)
    weights = None if config.intervention is None else config.intervention.weights(images)
    loss = config.loss
    if config.intervention is not None:
        images = config.intervention.images(images)
        loss = config.intervention.loss(config.loss)
    example_weights = None if weights is None else torch.from_numpy(weights).to(device)
    inputs, labels = network_tensors(config.architecture, images, device)
    targets = labels if config.intervention is None else config.intervention.targets(labels)
    network = build(config.architecture, IMAGE_SHAPE, len(CLASSES), config.seed).to(device)
    if start is not None:
        load_parameters(network, torch.from_numpy(start).to(device))
    record = Record() if run is None else run.record
    sharpness = SharpnessProbe(
        network,
        inputs,
        targets,
        config.lr,
        every=config.measure_every,
        blocks_every=config.blocks_every,
        midpoint=config.midpoint,
        seed=config.seed,
        loss=loss,
        example_weights=example_weights,
        batches=config.batches,
        record=record,
    )
    probes: list[Any] = [sharpness]
    coordinates: dict[str, Any] = {"layer": sharpness.layer_names}
    if config.step_lengths:
        probes.append(StepProbe(sharpness, record))
    if config.snapshot_every:
        probes.append(SnapshotProbe(sum(p.numel() for p in network.parameters()), config.snapshot_every, record))
    if config.probe_every:
        features = FeatureProbe(network, inputs, last_linear(network), config.probe_every, config.batches.chunk, record)
        probes.append(features)
        coordinates |= features.coordinates
    descent = descend(
        network,
        inputs,
        targets,
        lr=config.lr,
        steps=config.steps,
        optimizer=config.optimizer.factory(),
        loss=loss,
        example_weights=example_weights,
        batches=config.batches,
        arithmetic=config.arithmetic,
        probes=probes,
        record=record,
        checkpoints=None if run is None else run.checkpoints,
        loss_dtype=config.loss_dtype,
        description=config.name,
        progress=progress,
    )
    data = descent.data.assign_coords(coordinates)
    data["label"] = "example", images.labels
    if weights is not None:
        data["example_weight"] = "example", weights
    data["final_parameters"] = "parameter", parameter_vector(network).cpu().numpy()
    if buffers := list(network.buffers()):
        data["final_buffers"] = "buffer", torch.cat([b.reshape(-1).float() for b in buffers]).cpu().numpy()
    data.coords["step"] = np.arange(data.sizes["step"])
    diverged_at = -1 if descent.diverged_at is None else descent.diverged_at
    data.attrs = {"diverged_at": diverged_at, "lr": config.lr, "seed": config.seed}
    return data


IMAGE_SHAPE = (3, 32, 32)


def training_images(config: NetworkConfig, images: Images) -> Images:
    """The images that a run chooses, before its intervention."""
    return first_of_each_class(images, config.images_per_class)


def network_inputs(architecture: Architecture, images: Images) -> Tensor:
    """(n, 3, 32, 32) standardised images, or (n, 3072) where the network takes them flat, on the CPU."""
    inputs = torch.from_numpy(standardise(images))
    return inputs if takes_images(architecture) else inputs.flatten(1)


def network_tensors(architecture: Architecture, images: Images, device: torch.device) -> tuple[Tensor, Tensor]:
    """The network's inputs and (n,) labels, resident on the device."""
    return network_inputs(architecture, images).to(device), torch.from_numpy(images.labels.astype(np.int64)).to(device)


def trained_network(
    config: NetworkConfig, data: xr.Dataset, device: torch.device, *, at_step: int | None = None
) -> nn.Module:
    """The network of a finished run.

    Args:
        config: the run.
        data: its data set.
        device: where.
        at_step: step of a snapshot, in training mode; the end when not given, in evaluation mode with batch norm's
            running statistics.

    Raises:
        InputError: there is no snapshot of that step.
    """
    network = build(config.architecture, IMAGE_SHAPE, len(CLASSES), config.seed).to(device)
    if at_step is not None:
        if "snapshot" not in data or at_step not in data["snapshot_step"].values:
            raise InputError(f"run {config.name} has no snapshot of step {at_step}: give one of its snapshot_step")
        load_parameters(network, torch.from_numpy(data["snapshot"].sel(snapshot_step=at_step).values).to(device))
        return network
    load_parameters(network, torch.from_numpy(data["final_parameters"].values).to(device))
    if buffers := list(network.buffers()):
        held = torch.from_numpy(data["final_buffers"].values).to(device)
        for buffer, part in zip(buffers, torch.split(held, [b.numel() for b in buffers]), strict=True):
            buffer.copy_(part.reshape(buffer.shape))
    return network.eval()


_DEFAULTS = NetworkConfig()

_SHORT = {
    "images_per_class": "images",
    "measure_every": "measure",
    "blocks_every": "blocks",
    "snapshot_every": "snapshots",
    "probe_every": "probes",
    "start_step": "from",
    "label_smoothing": "smooth",
    "loss_dtype": "losses",
}


def _differences(field_name: str, value: Any, default: Any) -> list[str]:
    """Words for what differs from the default: one for a plain value, one a field of a dataclass."""
    if value == default:
        return []
    if field_name == "intervention":
        return [value.name]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return [f"{_SHORT.get(field_name, field_name)}{_word(value)}"]
    words: list[str] = []
    for inner in dataclasses.fields(value):
        of_value, of_default = getattr(value, inner.name), getattr(default, inner.name)
        if inner.name != "kind":
            words += _differences(inner.name, of_value, of_default)
        elif field_name != "architecture" and of_value != of_default:  # an architecture's kind stands first in the name
            words.append(of_value)
    return words


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        return "x".join(map(_word, value)) or "none"
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)
