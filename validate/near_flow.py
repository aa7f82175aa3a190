"""Step sizes by a network's own sharpness: the one at which gradient flow gets to 2/η after so many steps.

Networks of one kind differ in sharpness from seed to seed, and one step size then takes some of them across 2/η in
their first steps and others never. Along gradient flow the sharpness is a function λ(t) of time, and n steps of size η
take the time nη while they are below 2/η. So η(n), the step size that crosses after n steps, solves

    η λ(nη) = 2,   that is   t λ(t) = 2n   with   η = t/n.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
import xarray as xr
from torch import nn

from sim import build, descend
from sim.networks import load_parameters, parameter_vector
from sim.progress import progress_bar
from theory.command_line import InputError, require_positive
from validate.cifar10 import CLASSES, Images
from validate.network_run import IMAGE_SHAPE, NetworkConfig, network_tensors, training_images
from validate.sharpness_now import sharpness_now, sharpness_probe

RELATIVE = 0.5
"""ηλ/2 that the step size is set to: the top mode decays at once, and does not alternate."""
SHARPEST = 0.75
"""ηλ/2 at the end of a stretch above which it is taken back, and again with half the step size."""
GROWTH = 2.0
"""Times as large as the step size before that one may be."""
STRETCH = 10
"""Steps between measurements of the sharpness."""
LONGEST = 10
"""Times as many steps as those to the crossing after which the search gives up."""


@dataclass(frozen=True)
class NearFlowConfig:
    """A run of descent that stays near gradient flow, until t λ(t) = 2n."""

    network: NetworkConfig
    """The network, its images, its loss and its seed; `lr` is the first step size that is tried."""
    crossing: int = 150
    """Number n of steps after which the step size looked for is to cross 2/η."""

    def __post_init__(self) -> None:
        require_positive("--crossing", self.crossing)

    @classmethod
    def of(cls, network: NetworkConfig, crossing: int) -> NearFlowConfig:
        """That of a network which is to be trained on the same loss of the same images, in full batches."""
        names = ("architecture", "loss", "images_per_class", "lr", "seed", "arithmetic")
        same = {name: getattr(network, name) for name in names}
        return cls(NetworkConfig(**same, batches=replace(network.batches, size=None)), crossing)

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"near-flow-{self.network.name}-crossing{self.crossing}"


def near_flow(config: NearFlowConfig, images: Images, device: torch.device, *, progress: bool = True) -> xr.Dataset:
    """Follows the network's descent near gradient flow, and finds the step size.

    Args:
        config: the network, and the step of the crossing.
        images: what it is trained on, before the choice of `images_per_class`.
        device: where.
        progress: whether to show a progress bar, of t λ(t) up to 2n.

    Returns:
        ``time`` t and ``sharpness`` λ (measured), and ``loss`` (measured), the mean one step before, NaN at the start;
        attribute ``lr`` is the step size, to two digits, so that it does not hang on rounding.

    Raises:
        InputError: the sharpness is not finite at the start, or t λ(t) does not get to 2n in ten times n steps.
    """
    path = _Path(config.network, images, device)
    goal = 2 * config.crossing
    with progress_bar(range(goal), f"near-flow run for {config.network.name}", show=progress) as bar:
        while path.time * path.sharpness < goal:
            if path.steps >= LONGEST * config.crossing:
                raise InputError(
                    f"--crossing is {config.crossing}: {config.network.name} has t·λ = {path.time * path.sharpness:.3g}"
                    f" of {goal} after {path.steps} steps near gradient flow; give a smaller one, or --lr"
                )
            path.go_on()
            bar.update(min(int(path.time * path.sharpness), goal) - bar.n)
    time, sharpness = np.array(path.times), np.array(path.sharpnesses)
    data = xr.Dataset(
        {"time": ("measured", time), "sharpness": ("measured", sharpness), "loss": ("measured", path.losses)}
    )
    data.attrs = {"lr": step_size(time, sharpness, config.crossing)}
    return data


def step_size(time: np.ndarray, sharpness: np.ndarray, crossing: int) -> float:
    """The step size t/n at the first t with t λ(t) = 2n, between measurements by straight lines, to two digits.

    >>> step_size(np.array([0.0, 0.5, 2.0]), np.array([100.0, 100.0, 100.0]), 50)
    0.02
    """
    product = time * sharpness
    after = int(np.argmax(product >= 2 * crossing))
    # t λ = 2n
    part = (2 * crossing - product[after - 1]) / (product[after] - product[after - 1])
    at = time[after - 1] + part * (time[after] - time[after - 1])
    return float(f"{at / crossing:.2g}")


@dataclass
class _Path:
    """Descent in stretches, with the sharpness at the end of each."""

    config: NetworkConfig
    images: Images
    device: torch.device
    network: nn.Module = field(init=False)
    steps: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        config, chosen = self.config, training_images(self.config, self.images)
        self.network = build(config.architecture, IMAGE_SHAPE, len(CLASSES), config.seed).to(self.device)
        self.inputs, self.labels = network_tensors(config.architecture, chosen, self.device)
        self.probe = sharpness_probe(self.network, self.inputs, self.labels, config)
        self.times, self.sharpnesses, self.losses = [0.0], [self._measured()], [float("nan")]
        if not np.isfinite(self.sharpness):
            raise InputError(f"the sharpness of {config.name} is not finite at the start: give another seed or network")
        self.lr = self.config.lr / GROWTH

    @property
    def time(self) -> float:
        return self.times[-1]

    @property
    def sharpness(self) -> float:
        return self.sharpnesses[-1]

    def go_on(self) -> None:
        """One stretch, whose step size keeps ηλ/2 at a half as far as the growth of λ lets it."""
        before = parameter_vector(self.network)
        # ηλ/2 = RELATIVE
        wanted = 2 * RELATIVE / self.sharpness if self.sharpness > 0 else np.inf
        self.lr = min(GROWTH * self.lr, wanted)
        while not self._stretch():
            load_parameters(self.network, before)
            self.lr /= 2

    def _stretch(self) -> bool:
        """Takes the steps; false where they end too near 2/η, or nowhere."""
        self.steps += STRETCH
        descent = descend(
            self.network,
            self.inputs,
            self.labels,
            lr=self.lr,
            steps=STRETCH,
            loss=self.config.loss,
            batches=self.config.batches,
            arithmetic=self.config.arithmetic,
            progress=False,
        )
        sharpness = self._measured() if descent.diverged_at is None else float("nan")
        if not self.lr * sharpness / 2 <= SHARPEST:
            return False
        self.times.append(self.time + STRETCH * self.lr)
        self.sharpnesses.append(sharpness)
        self.losses.append(float(descent.losses[-1].mean()))
        return True

    def _measured(self) -> float:
        return sharpness_now(self.probe)
