"""The valley of map (3), `theory.valley_map`, as a network has it just before its onset, and the first spike in it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sim.curvature import HessianOperator, MeanLoss, sharpness_gradient
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from theory.command_line import InputError
from theory.valley_map import ValleyMap
from validate.cifar10 import Images
from validate.network_run import NetworkConfig, network_tensors, trained_network, training_images

MEMORY = 30
"""Steps over which the kernels are taken and the orbit is followed; on seeds 20 to 22 it peaks within 20."""


def measure_valley(
    config: NetworkConfig, base: xr.Dataset, step: int, images: Images, device: torch.device
) -> tuple[ValleyMap, float]:
    """The valley below an iterate of a finished run, measured in float64, and how far up its wall the iterate is.

    The run's steps are taken again from its last snapshot before the step. The unstable direction is that of the
    bounce, β = η(∇L_t − ∇L_{t−1})/4, as in an edge study (`validate.edge_study`); the displacement x along it is from
    the step's midpoint. The valley is taken at θ − xu and not at the midpoint, which lies half a step further down the
    valley too, so that map (3) starts where it says, at z = 0 and y = 0.

    Args:
        config: the run: full-batch gradient descent on its images as they are.
        base: its data set, with `snapshot`.
        step: number of the step.
        images: what the run chose its images from.
        device: where.

    Returns:
        The map, and the iterate's displacement x.

    Raises:
        InputError: there is no snapshot before the step.
    """
    lr, snapshots = config.lr, base["snapshot_step"].values if "snapshot" in base else np.empty(0, np.int64)
    early = snapshots[snapshots < step]
    if not early.size:
        raise InputError(f"run {config.name} has no snapshot before step {step}: give snapshot_every")
    chosen = training_images(config, images)
    objective = MeanLoss(
        trained_network(config, base, device, at_step=int(early[-1])),
        *network_tensors(config.architecture, chosen, device),
        config.loss,
    )
    like = list(objective.network.parameters())
    point, last, slope = _replay(objective, lr, step - int(early[-1]))
    u, exact = (slope - last).double(), objective.in_float64()
    u /= u.norm()
    x = lr / 2 * float(torch.dot(u, slope.double()))
    floor = point.double() - x * u
    drive, back_action = _kernels(exact, unflatten(floor, like), u, lr)

    def along(x: float) -> float:
        # ℓ'(x) = ⟨u, ∇L(floor + xu)⟩
        return float(torch.dot(u, exact.gradient(unflatten(floor + x * u, like))))

    return ValleyMap(lr, along, drive, back_action), x


def _replay(objective: MeanLoss, lr: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The iterate after so many steps, at least 1, the gradient one step before it, and the gradient there."""
    like = list(objective.network.parameters())
    point = flatten([p.detach() for p in like])
    slope = last = objective.gradient(like)
    for _ in range(steps):
        point = point - lr * slope
        last, slope = slope, objective.gradient(unflatten(point, like))
    return point, last, slope


def _kernels(objective: MeanLoss, point: Sequence[Tensor], u: Tensor, lr: float) -> tuple[np.ndarray, np.ndarray]:
    """a_j = −⟨g, (1 − ηH)ʲ G⟩ and c_j = ⟨g, (1 − ηH)ʲ g⟩ for j below `MEMORY`, with H, g and G across u."""
    leaves = leaves_at(point)
    hessian = HessianOperator(objective.of_chunk(leaves, slice(0, len(objective))), leaves)

    def across(v: Tensor) -> Tensor:
        return v - torch.dot(v, u) * u

    rise = across(sharpness_gradient(objective, u, point))
    sprung, slope = rise, across(hessian.gradient)
    drive, back_action = np.empty(MEMORY), np.empty(MEMORY)
    for j in range(MEMORY):
        drive[j], back_action[j] = -float(torch.dot(rise, slope)), float(torch.dot(rise, sprung))
        sprung, slope = (across(v - lr * hessian.matvec(v)) for v in (sprung, slope))
    return drive, back_action
