"""Losses of single examples, and their mean with weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sim.curvature.mean_loss import NO_LABEL
from theory.command_line import InputError


@dataclass(frozen=True)
class LossRule:
    """Rule that gives every example's loss from the network's outputs z and its label y."""

    kind: Literal["cross_entropy", "squared"] = "cross_entropy"
    """cross_entropy: −Σ_c t_c log softmax(z)_c, in nats. squared: ½ Σ_c (z_c − t_c)², summed over the classes."""
    label_smoothing: float = 0.0
    """ε of the targets t = (1 − ε) one-hot(y) + ε / classes (Szegedy et al. 2016)."""

    divides: ClassVar[bool] = True
    """Whether it can be evaluated on some of the examples at a time."""

    def __post_init__(self) -> None:
        if self.kind not in ("cross_entropy", "squared"):
            raise InputError(f"loss is {self.kind}: give cross_entropy or squared")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label smoothing is {self.label_smoothing}: give a number from 0 to below 1")

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """(n,) losses from (n, classes) outputs and (n,) class indices.

        >>> LossRule("squared")(torch.tensor([[1.0, 2.0]]), torch.tensor([0]))
        tensor([2.])
        """
        if self.kind == "cross_entropy":
            smoothing = self.label_smoothing
            return F.cross_entropy(outputs, labels, reduction="none", label_smoothing=smoothing, ignore_index=NO_LABEL)
        # As autocast does for cross-entropy: losses and their mean are not rounded to a network's bfloat16.
        outputs = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        targets = F.one_hot(labels, outputs.shape[1]).to(outputs)
        targets = (1 - self.label_smoothing) * targets + self.label_smoothing / outputs.shape[1]
        return (outputs - targets).square().sum(1) / 2

    def floor(self, classes: int) -> float:
        """Least loss of an example, whatever the outputs: 0, but for cross-entropy with smoothed targets t.

            −Σ_c t_c ln t_c, at softmax(z) = t

        >>> round(LossRule(label_smoothing=0.1).floor(10), 4), LossRule("squared", 0.1).floor(10)
        (0.5003, 0.0)
        """
        if self.kind == "squared" or self.label_smoothing == 0:
            return 0.0
        other = self.label_smoothing / classes
        own = 1 - self.label_smoothing + other
        return -own * math.log(own) - (classes - 1) * other * math.log(other)
