"""The sharpness of a network's loss at the weights that it has, outside of a run."""

from __future__ import annotations

from torch import Tensor, nn

from sim import SharpnessProbe
from validate.network_run import NetworkConfig


def sharpness_probe(network: nn.Module, inputs: Tensor, labels: Tensor, config: NetworkConfig) -> SharpnessProbe:
    """A probe of a network's sharpness alone, on all examples alike, which goes on from its last eigenvector.

    Args:
        network: the network.
        inputs: (n, …) all inputs.
        labels: (n,) class indices.
        config: whose losses, chunks and seed are taken.
    """
    return SharpnessProbe(
        network,
        inputs,
        labels,
        config.lr,
        every=1,
        blocks_every=0,
        midpoint=False,
        seed=config.seed,
        loss=config.loss,
        batches=config.batches,
    )


def sharpness_now(probe: SharpnessProbe) -> float:
    """The sharpness at the weights that the probe's network has now."""
    parameters = [p.detach() for p in probe.network.parameters()]
    probe(0, parameters, parameters)  # without midpoints, gradients are not looked at
    return float(probe.record.dataset()["sharpness_iterate"].values[-1])
