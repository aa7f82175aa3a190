"""Losses of a stack of networks on their examples: shared or own, in batches, in chunks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sim.batches import Batches
from sim.curvature.mean_loss import ExampleLoss, divides, require_loss_each
from sim.losses import require_labels
from sim.stacked_networks import StackedNetworks
from theory.command_line import InputError


@dataclass(frozen=True)
class StackedLosses:
    """The losses of a stack of networks, each on its examples.

    Attributes:
        stack: the networks.
        inputs: (R, n, in) inputs, expanded where the runs share them.
        labels: (R, n, …) labels, likewise.
        loss: (m, out) outputs and (m, …) labels to (m,) losses.
        batches: examples that each run's steps take.
        groups: (R, n) masks by name.
        shared: whether the runs share inputs and labels.
    """

    stack: StackedNetworks
    inputs: Tensor
    labels: Tensor
    loss: ExampleLoss
    batches: list[Batches]
    groups: dict[str, Tensor]
    shared: bool

    @classmethod
    def of(
        cls,
        stack: StackedNetworks,
        inputs: Tensor,
        labels: Tensor,
        loss: ExampleLoss,
        batches: Batches | Sequence[Batches],
        groups: Mapping[str, Tensor],
    ) -> StackedLosses:
        """Gives every run its inputs, labels, batches and groups, without copies.

        Raises:
            InputError: their shapes do not fit, the labels are none that the loss takes, or it needs all examples of a
                network at once.
        """
        if not divides(loss):
            raise InputError(
                "the loss needs all examples of a network at once, and a stack passes it those of all: "
                "train the networks one by one"
            )
        runs, shared = len(stack), inputs.ndim == 2
        maps = [m for m in stack.modules if isinstance(m, nn.Linear)]
        width = maps[0].in_features
        examples = inputs.shape[-2] if inputs.ndim in (2, 3) else 0
        lead = (examples,) if shared else (runs, examples)
        if not examples or inputs.shape != (*lead, width) or labels.shape[: len(lead)] != lead:
            raise InputError(
                f"inputs have shape {list(inputs.shape)}, labels {list(labels.shape)}: give {runs} networks inputs "
                f"(n, {width}) and labels (n, …), or ({runs}, n, {width}) and ({runs}, n, …)"
            )
        require_labels(loss, labels if shared else labels.flatten(0, 1), (examples, maps[-1].out_features))
        of_runs = [batches] * runs if isinstance(batches, Batches) else list(batches)
        if len(of_runs) != runs or len({(b.size, b.chunk) for b in of_runs}) != 1:
            raise InputError(f"{len(of_runs)} batches for {runs} runs: give one, or one a run, of one size")
        for name, mask in groups.items():
            if mask.shape not in ((examples,), (runs, examples)) or mask.dtype != torch.bool:
                raise InputError(f"group {name} has shape {list(mask.shape)}: give a mask ({examples},) or one a run")
        if shared:
            inputs, labels = inputs.expand(runs, *inputs.shape), labels.expand(runs, *labels.shape)
        masks = {name: mask.expand(runs, examples) for name, mask in groups.items()}
        return cls(stack, inputs, labels, loss, of_runs, masks, shared)

    def work(self, *, whole: bool = False) -> int:
        """Floating-point operations of one run's step: 2 an example and weight forward, 4 backward.

        Args:
            whole: of a pass over all examples instead, whatever a step takes.
        """
        n = self.inputs.shape[1]
        return 6 * self.stack.multiplications * (n if whole else min(self.batches[0].size or n, n))

    def some(self, runs: slice) -> StackedLosses:
        """Those of some of the runs; their parameters are copied."""
        groups = {name: mask[runs] for name, mask in self.groups.items()}
        return dataclasses.replace(
            self,
            stack=self.stack.some(runs),
            inputs=self.inputs[runs],
            labels=self.labels[runs],
            batches=self.batches[runs],
            groups=groups,
        )

    def of_step(self, step: int) -> list[slice | Tensor]:
        """The chunks of a step's batch: slices, or indices (m,) of all runs or (R, m)."""
        n, device = self.inputs.shape[1], self.inputs.device
        if all(batch == self.batches[0] for batch in self.batches):
            return self.batches[0].of_step(step, n, device)
        chunks = zip(*(batch.of_step(step, n, device) for batch in self.batches), strict=True)
        return [_stacked(chunk) for chunk in chunks]

    def losses(self, parameters: list[Tensor], part: slice | Tensor) -> Tensor:
        """(R, m) losses of a chunk's examples."""
        outputs = dataclasses.replace(self.stack, parameters=parameters).outputs(self._pick(self.inputs, part))
        labels = self._pick(self.labels, part)
        each = self.loss(outputs.flatten(0, 1), labels.flatten(0, 1))
        return require_loss_each(each, outputs.shape[0] * outputs.shape[1]).view(outputs.shape[:2])

    def place(self, losses: Tensor, each: Tensor, part: slice | Tensor) -> None:
        """Puts a chunk's losses into those (R, n) of all examples."""
        if isinstance(part, slice) or part.ndim == 1:
            losses[:, part] = each
        else:
            losses.scatter_(1, part, each)

    def _pick(self, of_examples: Tensor, part: slice | Tensor) -> Tensor:
        if isinstance(part, slice):
            return of_examples[:, part]
        if self.shared:
            picked = of_examples[0][part]
            return picked if part.ndim == 2 else picked.expand(len(of_examples), *picked.shape)
        if part.ndim == 1:
            return of_examples[:, part]
        return of_examples[torch.arange(len(part), device=part.device)[:, None], part]


def _stacked(parts: Sequence[slice | Tensor]) -> slice | Tensor:
    """The runs' chunks as one: slices are all the same."""
    indices = [part for part in parts if isinstance(part, Tensor)]
    return torch.stack(indices) if indices else parts[0]
