"""What a run came to, as one compares an intervention with none: onset, spikes, least loss, held-out accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr

from validate.cifar10 import Images
from validate.equal_loss import mean_losses
from validate.network_run import NetworkConfig, network_inputs, trained_network
from validate.windows import EARLIEST_CROSSING, reached_edge

SPIKE = 1.1
"""A spike begins where the mean loss comes to exceed its least value so far by this factor."""
EVALUATED_AT_ONCE = 1000


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        crossing: `validate.windows.reached_edge`: step at which the first stretch above 2/η begins that reaches step
            50 or begins after it; None where there is none.
        spikes: how often the mean loss comes to exceed its least value so far by a tenth.
        accuracy: share of held-out images that the final network labels right; NaN where none are held out.
        least_loss: least mean loss; NaN where no step has a finite one.
    """

    crossing: float | None
    spikes: int
    accuracy: float
    least_loss: float


def outcome(
    config: NetworkConfig,
    data: xr.Dataset,
    held: Images,
    device: torch.device,
    *,
    examples: npt.NDArray[np.bool_] | None = None,
    begin: int = 0,
    taken: int = 0,
) -> Outcome:
    """Onset, spikes, least loss and held-out accuracy of a finished run.

    Args:
        config: the run; its architecture alone is read, and, to build it, its seed.
        data: its data set.
        held: images that it never saw.
        device: where the network is evaluated.
        examples: (n,) those whose mean loss is looked at; all when not given. For runs that are compared, those that
            none of the interventions touches: the loss of one that is removed is free to do anything.
        begin: step from which spikes and the least loss are counted.
        taken: steps that another run took before this one's first: it is so much further than its own steps say.
    """
    mean = mean_losses(data, examples)[begin:]
    finite = mean[np.isfinite(mean)]
    return Outcome(
        crossing=reached_edge(data, max(EARLIEST_CROSSING - taken, 0)),
        spikes=spike_count(mean),
        accuracy=_accuracy(config, data, held, device),
        least_loss=float(finite.min()) if finite.size else float("nan"),
    )


def spike_count(mean: npt.NDArray[np.float64]) -> int:
    """How often a series comes to exceed its least value so far by a tenth.

    >>> spike_count(np.array([1.0, 0.9, 1.0, 1.2, 0.8, 0.7, 0.9]))
    2
    """
    above = mean > SPIKE * np.minimum.accumulate(mean)
    return int((above[1:] & ~above[:-1]).sum())


def _accuracy(config: NetworkConfig, data: xr.Dataset, held: Images, device: torch.device) -> float:
    if not held.labels.size:
        return float("nan")
    network = trained_network(config, data, device)
    inputs = network_inputs(config.architecture, held)
    with torch.no_grad():
        found = [network(part.to(device)).argmax(1).cpu() for part in torch.split(inputs, EVALUATED_AT_ONCE)]
    return float((torch.cat(found).numpy() == held.labels).mean())
