"""Full-batch gradient descent that keeps every example's loss at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sim.progress import progress_bar


class Probe(Protocol):
    """A read-only measurement, called with the parameters before each step is taken."""

    def __call__(self, step: int, parameters: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Looks at the parameters and the gradients of the mean loss; must change neither."""
        ...


@dataclass(frozen=True)
class Descent:
    """What a run of descent leaves behind.

    Attributes:
        losses: (steps, n) loss of each example at the start of each step, float32.
        diverged_at: first step with a loss that is not finite, None for a finite run. The network then holds the
            weights of the step before, and `losses` ends there.
    """

    losses: npt.NDArray[np.float32]
    diverged_at: int | None


def descend(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    lr: float,
    steps: int,
    probes: Sequence[Probe] = (),
    description: str = "descent",
    progress: bool = True,
) -> Descent:
    """Runs θ ← θ − η∇L(θ) on the mean cross-entropy over all examples, in place.

    Args:
        network: the network, on the inputs' device.
        inputs: (n, …) all inputs, resident on the device.
        labels: (n,) class indices.
        lr: step size η.
        steps: number of steps.
        probes: measurements called before each step is taken.
        description: words of the progress bar.
        progress: whether to show it.
    """
    parameters: list[Tensor] = list(network.parameters())
    previous = [p.detach().clone() for p in parameters]
    losses = np.empty((steps, len(inputs)), dtype=np.float32)
    with progress_bar(range(steps), description, show=progress) as bar:
        for step in bar:
            each = F.cross_entropy(network(inputs), labels, reduction="none")
            losses[step] = each.detach().cpu().numpy()
            if not np.isfinite(losses[step]).all():
                with torch.no_grad():
                    torch._foreach_copy_(parameters, previous)
                return Descent(losses[:step], step)
            gradients = torch.autograd.grad(each.mean(), parameters)
            for probe in probes:
                probe(step, parameters, gradients)
            with torch.no_grad():
                torch._foreach_copy_(previous, parameters)
                torch._foreach_add_(parameters, gradients, alpha=-lr)
            if step % 20 == 0:
                bar.set_postfix(loss=f"{losses[step].mean():.3f}", refresh=False)
    return Descent(losses, None)
