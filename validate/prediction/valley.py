"""A network's bounce just before its onset, and the maps (3) and (4) of `theory.valley_map` that are measured there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from torch import Tensor

from sim.curvature import HessianOperator, MeanLoss, sharpness_gradient
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from theory.command_line import InputError
from theory.valley_map import Expansion, LineMap, ValleyMap, first_peak
from validate.cifar10 import Images
from validate.network_run import NetworkConfig, network_tensors, trained_network, training_images

MEMORY = 30
"""Steps over which the kernels are taken and map (3) is followed; on seeds 20 to 22 it peaks within 20."""
LINE_STEPS = 100
"""Steps within which map (4) has to peak; it ends where it does."""
REPLAYED = 1e-3
"""Largest difference between a run's loss and that of its steps taken again, over 1 + the loss."""


@dataclass(frozen=True)
class Bounce:
    """Where a network bounces, and across what.

    The unstable direction is that of the bounce, β = η(∇L_t − ∇L_{t−1})/4, as in an edge study
    (`validate.edge_study`); the displacement x along it is from the step's midpoint. The floor is at θ − xu and not at
    the midpoint, which lies half a step further down the valley too, so that the maps start where they say, at z = 0.

    Attributes:
        lr: step size η.
        loss: the mean loss, in float64.
        floor: (parameters,) the point θ − xu of the valley's floor, in float64.
        direction: (parameters,) u, of norm 1, in float64.
        x: the iterate's displacement.
    """

    lr: float
    loss: MeanLoss
    floor: Tensor
    direction: Tensor
    x: float

    def point(self, x: float) -> list[Tensor]:
        """The parameters floor + xu."""
        return unflatten(self.floor + x * self.direction, list(self.loss.network.parameters()))

    def across(self, v: Tensor) -> Tensor:
        """A vector less its part along u."""
        return v - torch.dot(v, self.direction) * self.direction

    def whole_loss(self, x: float) -> tuple[Tensor, list[Tensor]]:
        """The loss at floor + xu, with its graph, and the leaves that it is of."""
        leaves = leaves_at(self.point(x))
        return self.loss.of_chunk(leaves, slice(0, len(self.loss))), leaves


def find_bounce(config: NetworkConfig, base: xr.Dataset, step: int, images: Images, device: torch.device) -> Bounce:
    """The bounce at an iterate of a finished run, whose steps are taken again from its last snapshot before it.

    Args:
        config: the run: full-batch gradient descent on its images as they are.
        base: its data set, with `snapshot`.
        step: number of the step.
        images: what the run chose its images from.
        device: where.

    Raises:
        InputError: there is no snapshot before the step, or the steps taken again do not come to the run's loss, as on
            other images or with other batches of batch norm.
    """
    lr, snapshots = config.lr, base["snapshot_step"].values if "snapshot" in base else np.empty(0, np.int64)
    early = snapshots[snapshots < step]
    if not early.size:
        raise InputError(f"run {config.name} has no snapshot before step {step}: give snapshot_every")
    chosen = training_images(config, images)
    if len(chosen.labels) != base.sizes["example"]:
        raise InputError(
            f"run {config.name} was trained on {base.sizes['example']} images, and {len(chosen.labels)} are at hand: "
            "leave --valley out"
        )
    objective = MeanLoss(
        trained_network(config, base, device, at_step=int(early[-1])),
        *network_tensors(config.architecture, chosen, device),
        config.loss,
    )
    point, last, slope = _replay(objective, lr, step - int(early[-1]))
    with torch.no_grad():
        parameters = unflatten(point, list(objective.network.parameters()))
        here = float(objective.of_chunk(parameters, slice(0, len(objective))))
    there = float(base["loss"].isel(step=step).mean())
    if not abs(here - there) <= REPLAYED * (1 + abs(there)):
        raise InputError(
            f"run {config.name} has the loss {there:.4g} at step {step}, and its steps taken again {here:.4g}, as with "
            "batch norm in pieces: leave --valley out"
        )
    u = (slope - last).double()
    u /= u.norm()
    x = lr / 2 * float(torch.dot(u, slope.double()))
    return Bounce(lr, objective.in_float64(), point.double() - x * u, u, x)


def measure_valley(bounce: Bounce) -> ValleyMap:
    """Map (3) of the valley below the bounce."""

    def along(x: float) -> float:
        # ℓ'(x) = ⟨u, ∇L(floor + xu)⟩
        return float(torch.dot(bounce.direction, bounce.loss.gradient(bounce.point(x))))

    return ValleyMap(bounce.lr, along, *_kernels(bounce))


def line_map(bounce: Bounce) -> LineMap:
    """Map (4) of the same; it measures the network where its orbit comes by, on the line floor + xu."""
    device = bounce.floor.device

    def expansion(x: float, z: npt.NDArray[np.float64]) -> Expansion:
        loss, leaves = bounce.whole_loss(x)
        hessian = HessianOperator(loss, leaves)
        product = hessian.matvec(torch.from_numpy(z).to(device))
        return Expansion(float(loss.detach()), hessian.gradient.cpu().numpy(), product.cpu().numpy())

    return LineMap(bounce.lr, bounce.direction.cpu().numpy(), expansion)


@dataclass(frozen=True)
class ValleyConfig:
    """Both maps' orbits from an iterate of a finished run."""

    network: NetworkConfig
    """The run: full-batch gradient descent on its images as they are, with snapshots."""
    step: int
    """Number of the step."""

    @property
    def name(self) -> str:
        """Name of the orbits' folder."""
        return f"valley-{self.network.name}-step{self.step}"


def follow_valley(config: ValleyConfig, base: xr.Dataset, images: Images, device: torch.device) -> xr.Dataset:
    """Follows maps (3) and (4) from the iterate.

    Args:
        config: the run and the step.
        base: the run's data set.
        images: what it chose its images from.
        device: where.

    Returns:
        ``valley_x`` (valley_step), the orbit of (3), infinite where it has diverged; ``line_x`` and ``line_loss``
        (line_step), that of (4) until its first peak is seen, and the losses that it tells.

    Raises:
        InputError: there is no snapshot before the step.
    """
    bounce = find_bounce(config.network, base, config.step, images, device)
    orbit = line_map(bounce).iterate(bounce.x, LINE_STEPS)
    return xr.Dataset(
        {
            "valley_x": ("valley_step", measure_valley(bounce).iterate(bounce.x)[0]),
            "line_x": ("line_step", orbit.x),
            "line_loss": ("line_step", orbit.loss),
        },
        attrs={"lr": bounce.lr, "seed": config.network.seed, "step": config.step},
    )


@dataclass(frozen=True)
class ToldSpike:
    """The first spike that the valley tells; NaN where an orbit does not peak.

    Attributes:
        valley_square: x² at the peak of map (3)'s orbit.
        square: x² at the peak of map (4)'s.
        steps: from the measurement to that peak.
        losses: the losses that map (4) tells at 0, 1, … steps from the measurement, up to one past the peak.
    """

    valley_square: float
    square: float
    steps: float
    losses: npt.NDArray[np.float64]


def told_spike(orbits: xr.Dataset) -> ToldSpike:
    """The spike in the orbits of `follow_valley`."""
    valley, line = (first_peak(orbits[name].values) for name in ("valley_x", "line_x"))
    valley_square = float("nan") if valley is None else valley.square
    if line is None:
        return ToldSpike(valley_square, float("nan"), float("nan"), np.empty(0))
    return ToldSpike(valley_square, line.square, float(line.step), orbits["line_loss"].values[: line.step + 2])


def _replay(objective: MeanLoss, lr: float, steps: int) -> tuple[Tensor, Tensor, Tensor]:
    """The iterate after so many steps, at least 1, the gradient one step before it, and the gradient there."""
    like = list(objective.network.parameters())
    point = flatten([p.detach() for p in like])
    slope = last = objective.gradient(like)
    for _ in range(steps):
        point = point - lr * slope
        last, slope = slope, objective.gradient(unflatten(point, like))
    return point, last, slope


def _kernels(bounce: Bounce) -> tuple[np.ndarray, np.ndarray]:
    """a_j = −⟨g, (1 − ηH)ʲ G⟩ and c_j = ⟨g, (1 − ηH)ʲ g⟩ for j below `MEMORY`, with H, g and G across u."""
    hessian = HessianOperator(*bounce.whole_loss(0.0))
    rise = bounce.across(sharpness_gradient(bounce.loss, bounce.direction, bounce.point(0.0)))
    sprung, slope = rise, bounce.across(hessian.gradient)
    drive, back_action = np.empty(MEMORY), np.empty(MEMORY)
    for j in range(MEMORY):
        drive[j], back_action[j] = -float(torch.dot(rise, slope)), float(torch.dot(rise, sprung))
        sprung, slope = (bounce.across(v - bounce.lr * hessian.matvec(v)) for v in (sprung, slope))
    return drive, back_action
