"""Losses of single examples, and their mean with weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from sim.curvature.mean_loss import NO_LABEL, ExampleLoss, cross_entropy
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


def require_labels(loss: ExampleLoss, labels: Tensor, outputs: Sequence[int]) -> None:
    """Refuses what a `LossRule` or `cross_entropy` takes no losses of, before torch fails without the labels' numbers.

    Other losses may take outputs and labels of any kind: they pass.

    Args:
        loss: the loss.
        labels: (n,) class indices of all examples, or (n, classes) probabilities, which cross-entropy takes.
        outputs: shape of some examples' outputs.

    Raises:
        InputError: outputs that are not one a class, or labels that are none of the classes.

    >>> require_labels(LossRule(), torch.tensor([0, 3]), (2, 3))
    Traceback (most recent call last):
    ...
    theory.command_line.InputError: labels go from 0 to 3: give class indices from 0 to 2, as the network has 3 outputs
    """
    if type(loss) is not LossRule and loss is not cross_entropy:
        return
    if len(outputs) != 2:
        raise InputError(
            f"outputs have shape {list(outputs)}: the loss takes (n, classes), give another loss or network"
        )
    squared = isinstance(loss, LossRule) and loss.kind == "squared"
    if not squared and labels.is_floating_point() and labels.shape[1:] == tuple(outputs[1:]):
        return
    if labels.ndim != 1 or labels.dtype not in ((torch.int64,) if squared else (torch.int64, torch.uint8)):
        kind = str(labels.dtype).removeprefix("torch.")
        raise InputError(
            f"labels are of type {kind} and shape {list(labels.shape)}: give (n,) class indices of type int64"
        )
    least, largest = int(labels.min()), int(labels.max())
    if least < 0 or largest >= outputs[1]:
        raise InputError(
            f"labels go from {least} to {largest}: give class indices from 0 to {outputs[1] - 1}, as the network has "
            f"{outputs[1]} outputs"
        )
