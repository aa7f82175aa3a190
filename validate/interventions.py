"""Interventions on some examples: the causal test of what opposing examples do to the sharpness and the bounce.

The examples are chosen from a base run (`choose_examples`): those that carry most of the loss changes at its edge, as
many at random with the same labels, as many of the highest loss before the edge. A run with an `Intervention` starts
from the seed's weights, or from a snapshot of the base run (`NetworkConfig.start_step`). `validate.treatments` lists
those that are compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from sim.losses import LossRule
from theory.command_line import InputError
from validate.cifar10 import CLASSES, Images
from validate.singular_directions import singular_directions
from validate.windows import Windows

Indices = npt.NDArray[np.int64]
Kind = Literal["remove", "down_weight", "clip", "relabel", "recolour"]

KINDS: dict[Kind, str] = {
    "remove": "weight 0 in the mean loss",
    "down_weight": "weight `amount` in the mean loss",
    "clip": "loss capped at `amount` nats: no gradient above it, and the capped loss is recorded",
    "relabel": "the commonest label among them, so that their shared feature no longer stands for several classes",
    "recolour": "mean colour moved the share `amount` of the way to that of all images",
}
DIRECTIONS = 3
"""Singular directions that say how much of the loss changes an example carries."""


@dataclass(frozen=True)
class Intervention:
    """What is done to some of the training examples; the others stay as they are."""

    kind: Kind
    """One of `KINDS`."""
    examples: tuple[int, ...]
    """Indices into the run's images."""
    amount: float = 0.0
    """Weight, cap or share; see `KINDS`."""
    chosen: str = "examples"
    """How they were chosen, a word for the run's name."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"intervention is {self.kind}: give one of {', '.join(KINDS)}")
        if not self.examples or len(set(self.examples)) < len(self.examples) or min(self.examples) < 0:
            raise InputError(
                f"examples of the intervention are {len(self.examples)}: give different indices, at least 1"
            )
        if not (0 <= self.amount < np.inf and (self.kind != "recolour" or self.amount <= 1)):
            raise InputError(f"amount of {self.kind} is {self.amount}: give {KINDS[self.kind]}, a share at most 1")

    @property
    def name(self) -> str:
        """Kind, choice, number and amount, and a digest of the examples: no two interventions share it."""
        digest = hashlib.sha256(np.array(self.examples, "<i8").tobytes()).hexdigest()[:8]
        kind = self.kind.replace("_", "")
        # Those of the three kinds have one even where it is 0, as in the names of finished runs.
        amount = f"-{self.amount!r}" if self.amount or self.kind in ("down_weight", "clip", "recolour") else ""
        return f"{kind}-{self.chosen}{len(self.examples)}{amount}-{digest}"

    def images(self, images: Images) -> Images:
        """As many images, the chosen ones with other pixels or labels."""
        chosen = self._index(len(images.labels))
        if self.kind == "relabel":
            labels = images.labels.copy()
            labels[chosen] = np.bincount(labels[chosen]).argmax()
            return Images(images.pixels, labels)
        if self.kind == "recolour":
            pixels = images.pixels.astype(np.float64)
            own = pixels[chosen].mean(axis=(2, 3), keepdims=True)
            shift = self.amount * (pixels.mean(axis=(0, 2, 3))[:, None, None] - own)
            pixels[chosen] = np.clip(np.rint(pixels[chosen] + shift), 0, 255)
            return Images(pixels.astype(np.uint8), images.labels)
        return images

    def weights(self, images: Images) -> npt.NDArray[np.float32] | None:
        """(n,) weight of each example in the mean loss; None for all alike."""
        if self.kind not in ("remove", "down_weight"):
            return None
        weights = np.ones(len(images.labels), np.float32)
        weights[self._index(len(weights))] = self.amount if self.kind == "down_weight" else 0.0
        return weights

    def loss(self, rule: LossRule) -> LossRule:
        """The rule of the examples' losses, with that of marked ones capped where they are clipped."""
        return CappedLoss(rule.kind, rule.label_smoothing, self.amount) if self.kind == "clip" else rule

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """(n,) what the loss is given for labels: those of clipped examples marked."""
        if self.kind != "clip":
            return labels
        marked = labels.clone()
        marked[torch.from_numpy(self._index(len(labels))).to(labels.device)] += len(CLASSES)
        return marked

    def _index(self, count: int) -> Indices:
        if max(self.examples) >= count:
            raise InputError(
                f"example {max(self.examples)} is not among the run's {count} images: give smaller indices"
            )
        return np.array(self.examples, dtype=np.int64)


@dataclass(frozen=True)
class CappedLoss(LossRule):
    """min(ℓ_i, cap) of marked examples, whose label has the number of classes added; so it serves any chunk of them."""

    cap: float = np.inf

    def __call__(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(n,) losses, capped where marked."""
        losses = super().__call__(outputs, labels % outputs.shape[1])
        return torch.where(labels < outputs.shape[1], losses, losses.clamp(max=self.cap))


def choose_examples(base: xr.Dataset, windows: Windows, count: int, seed: int) -> Mapping[str, Indices]:
    """Examples to intervene on, and the controls: as many by other rules.

    Args:
        base: the base run.
        windows: its windows.
        count: number of examples.
        seed: of the random choice.

    Returns:
        ``opposing``: the largest Σ_k σ_k² v_ki² over the leading singular directions of the loss changes in the
        selection window, the share of their energy that example i carries; ``random``: with the same labels, number by
        number; ``hardest``: the highest mean loss over the window before the crossing.

    Raises:
        InputError: there are fewer examples.
    """
    losses = base["loss"]
    if not 0 < count <= losses.sizes["example"]:
        raise InputError(f"number of examples is {count}: give one from 1 to {losses.sizes['example']}")
    found = singular_directions(losses[windows.select], count=DIRECTIONS)
    energy = (found.values[:, None] ** 2 * found.directions**2).sum(0)
    opposing = np.argsort(-energy, kind="stable")[:count]
    labels, rng = base["label"].values, np.random.default_rng(seed)
    wanted = np.bincount(labels[opposing])
    random = [rng.choice(np.flatnonzero(labels == label), n, replace=False) for label, n in enumerate(wanted) if n]
    hardest = np.argsort(-losses[windows.before].values.mean(0, dtype=np.float64), kind="stable")[:count]
    return {"opposing": opposing, "random": np.concatenate(random), "hardest": hardest}
