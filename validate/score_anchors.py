"""Data sets that anchor the opposing-signal score, as interventions, which a run's configuration can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sim import LossRule
from validate.cifar10 import CLASSES, Images


@dataclass(frozen=True)
class GaussianSurrogate:
    """Gaussian images that have each class's mean and covariance over pixels, with the same labels.

        x = μ_class + Xᵀz/√m,  z ~ N(0, I_m),

    with X the (m, 3072) centred images of the class: no covariance matrix is formed. Rounding to whole numbers in
    0…255 clips some pixels and so lowers the variance a little.
    """

    seed: int = 0
    """Seed of the images."""

    @property
    def name(self) -> str:
        """Part of the run's name."""
        return f"gaussian{self.seed}"

    def images(self, images: Images) -> Images:
        """As many Gaussian images with the same labels."""
        rng = np.random.default_rng(self.seed)
        drawn = np.empty((len(images.labels), images.pixels[0].size))
        for label in range(len(CLASSES)):
            rows = np.flatnonzero(images.labels == label)
            if rows.size:
                own = images.pixels[rows].reshape(len(rows), -1).astype(np.float64)
                noise = rng.normal(size=(len(rows), len(rows))) / np.sqrt(len(rows))
                drawn[rows] = own.mean(0) + noise @ (own - own.mean(0))
        pixels = np.clip(np.rint(drawn), 0, 255).astype(np.uint8)
        return Images(pixels.reshape(images.pixels.shape), images.labels)

    def weights(self, images: Images) -> None:
        """All examples alike."""

    def loss(self, rule: LossRule) -> LossRule:
        """The run's own rule."""
        return rule

    def targets(self, labels: Tensor) -> Tensor:
        """The labels."""
        return labels


@dataclass(frozen=True)
class ShuffledLabels:
    """The same images with their labels permuted: as many of each class, and no relation left between the two."""

    seed: int = 0
    """Seed of the permutation."""

    @property
    def name(self) -> str:
        """Part of the run's name."""
        return f"shuffled{self.seed}"

    def images(self, images: Images) -> Images:
        """The same images with other labels."""
        return Images(images.pixels, np.random.default_rng(self.seed).permutation(images.labels))

    def weights(self, images: Images) -> None:
        """All examples alike."""

    def loss(self, rule: LossRule) -> LossRule:
        """The run's own rule."""
        return rule

    def targets(self, labels: Tensor) -> Tensor:
        """The labels."""
        return labels


DATA_SETS: Mapping[str, Callable[[int], GaussianSurrogate | ShuffledLabels | None]] = {
    "real": lambda seed: None,
    "gaussian": GaussianSurrogate,
    "shuffled": ShuffledLabels,
}
"""Word → the intervention that makes the data set with a seed; none for the images as they are."""
