"""Which examples a step takes, and in which pieces they pass through the network."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from theory.command_line import InputError, require_positive


@dataclass(frozen=True)
class Batches:
    """All examples at every step, or minibatches in an order that depends on a seed and the step alone."""

    size: int | None = None
    """Examples a step; all when not given. Each epoch takes every example once, the last minibatch may be smaller."""
    chunk: int | None = None
    """Examples that pass through the network at once, to bound memory; the whole batch when not given."""
    seed: int = 0
    """Seed of the minibatches' order."""
    ghost: bool = False
    """Lets batch normalisation take its statistics from each chunk (a ghost batch) instead of the batch."""

    def __post_init__(self) -> None:
        for name in ("size", "chunk"):
            if (value := getattr(self, name)) is not None:
                require_positive(f"{name} of the batches", value)

    def of_step(self, step: int, count: int, device: torch.device) -> list[slice | Tensor]:
        """The chunks of a step's batch, as indices into the examples.

        Args:
            step: the step.
            count: number of examples.
            device: where indices are put.

        >>> Batches(chunk=3).of_step(0, 5, torch.device("cpu"))
        [slice(0, 3, None), slice(3, 5, None)]
        """
        if self.size is None or self.size >= count:
            chunk = self.chunk or count
            return [slice(begin, min(begin + chunk, count)) for begin in range(0, count, chunk)]
        epoch, batch = divmod(step, -(-count // self.size))
        order = _order(self.seed, epoch, count)[batch * self.size : (batch + 1) * self.size]
        return list(torch.split(order.to(device), self.chunk or self.size))

    def require_whole_batch_norm(self, network: nn.Module, count: int) -> None:
        """Refuses batch norm on batches cut into chunks that nobody declared, and on single examples.

        Raises:
            InputError: the statistics would be those of chunks, and `ghost` is off; or those of one example.
        """
        if not takes_batch_statistics(network):
            return
        batch = min(self.size or count, count)
        last = -(-count // batch) - 1  # minibatch of an epoch, which may be smaller
        parts = [part for step in (0, last) for part in self.of_step(step, count, torch.device("cpu"))]
        if count > 1 and any(examples_in([part]) == 1 for part in parts):
            raise InputError(
                f"{count} examples in batches of {batch} and chunks of {self.chunk or batch} leave one example alone, "
                "which batch normalisation takes no statistics from: give other sizes"
            )
        if self.chunk is not None and self.chunk < batch and not self.ghost:
            raise InputError(
                f"chunk of {self.chunk} examples cuts the batch that batch normalisation takes its statistics from: "
                "declare ghost batches or leave the chunk out"
            )


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    """The epoch's order, drawn on the CPU from the seed and the epoch: a resumed run has nothing to restore."""
    drawn_from = np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]
    return torch.randperm(count, generator=torch.Generator().manual_seed(int(drawn_from)))


def takes_batch_statistics(network: nn.Module) -> bool:
    """Whether the network normalises by statistics of the examples that pass through it at once."""
    norms = (m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return any(m.training or m.running_mean is None for m in norms)


def examples_in(parts: Sequence[slice | Tensor]) -> int:
    """Number of examples in a batch, given by its chunks; of each run where indices are (R, m)."""
    return sum(part.stop - part.start if isinstance(part, slice) else part.shape[-1] for part in parts)
