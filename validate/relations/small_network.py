"""A configuration's network on its images as a function of one vector: losses, gradient, sharpness, in float64."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sim import build
from sim.curvature import Eigenpairs, HessianOperator, MeanLoss, layer_shares, top_eigenpairs
from sim.curvature.mean_loss import flatten, gradients, leaves_at, unflatten
from sim.networks import layer_of_parameter, parameter_vector
from validate.cifar10 import CLASSES, Images, load_embedded
from validate.network_run import IMAGE_SHAPE, network_inputs
from validate.relations.configuration import Configuration


@dataclass(frozen=True)
class SmallNetwork:
    """The mean loss as a function of the vector θ of all parameters.

    Attributes:
        objective: the loss over the configuration's images.
        start: (size,) the initial weights.
        seed: seed of the eigensolver's start vectors.
    """

    objective: MeanLoss
    start: Tensor
    seed: int

    @property
    def layers(self) -> list[str]:
        """Name of the layer of each parameter tensor."""
        return layer_of_parameter(self.objective.network)

    def parts(self, point: Tensor) -> list[Tensor]:
        """The vector in the shapes of the parameters."""
        return unflatten(point, list(self.objective.network.parameters()))

    def losses_and_gradient(self, point: Tensor) -> tuple[Tensor, Tensor]:
        """(n,) losses, and (size,) gradient of their mean."""
        leaves = leaves_at(self.parts(point))
        outputs = self.objective.outputs(leaves, slice(0, len(self.objective)))
        losses = self.objective.loss(outputs, self.objective.targets)
        return losses.detach(), flatten(gradients(losses.mean(), leaves))

    def hessian(self, point: Tensor) -> HessianOperator:
        """The Hessian of the mean loss."""
        leaves = leaves_at(self.parts(point))
        return HessianOperator(self.objective.of_chunk(leaves, slice(0, len(self.objective))), leaves)

    def top(self, point: Tensor, *, k: int = 1, start: Tensor | None = None, tolerance: float = 1e-2) -> Eigenpairs:
        """The largest eigenvalues there, from the vectors of an earlier solve where they are given."""
        hessian = self.hessian(point)
        return top_eigenpairs(hessian, generator=self.generator(), k=k, start=start, tolerance=tolerance)

    def generator(self) -> torch.Generator:
        """A fresh generator of the eigensolver's start vectors: every solve draws the same."""
        return torch.Generator().manual_seed(self.seed)

    def shares(self, vector: Tensor) -> np.ndarray:
        """(layers,) shares of a vector's squared norm."""
        return layer_shares(vector, [p.numel() for p in self.objective.network.parameters()], self.layers)


def small_network(config: Configuration) -> SmallNetwork:
    """The network and the images of a configuration; its step size plays no part."""
    images = _embedded()
    chosen = np.random.default_rng(config.subset).choice(len(images.labels), config.images, replace=False)
    images = Images(images.pixels[chosen], images.labels[chosen])
    network = build(config.architecture, IMAGE_SHAPE, len(CLASSES), config.seed).double()
    inputs = network_inputs(config.architecture, images).double()
    labels = torch.from_numpy(images.labels.astype(np.int64))
    return SmallNetwork(MeanLoss(network, inputs, labels), parameter_vector(network), config.seed)


_embedded = functools.cache(load_embedded)

NEAR_FLOW = 0.25
"""ηλ/2 of the near-flow run: every mode of the quadratic part decays on its own side, far from alternating."""

FLOW_STEPS, FLOW_EVERY = 64, 8
TRANSIENT = 16
"""Steps in which a network leaves its random start; the largest sharpness is looked for from there on."""
FLATTEST = 1e-3
"""Sharpness below which a step size grows no further."""
KICK = 1e-4
"""Part of the loss by which a branch starts up the valley's wall."""


@dataclass(frozen=True)
class NearFlow:
    """Descent with a step size that keeps ηλ/2 at a quarter, the stand-in for gradient flow.

    Attributes:
        sharpness: (m,) the sharpness, from the start on every `FLOW_EVERY` steps.
        shares: (m, layers) the top eigenvector's share in each layer.
        losses: (m,) mean loss.
        largest: the largest sharpness after the transient.
        sharpest: (size,) weights there.
        vectors: eigenvectors there, to start from.
        edge: its index among the measurements.
        converged: whether every measurement met its tolerance.
    """

    sharpness: np.ndarray
    shares: np.ndarray
    losses: np.ndarray
    largest: float
    sharpest: Tensor
    vectors: Tensor
    edge: int
    converged: bool


def near_flow(config: Configuration) -> NearFlow:
    """The near-flow run of a configuration's network; those of the last configurations are kept."""
    return _near_flow(replace(config, multiple=1.0))


@functools.lru_cache(maxsize=4)
def _near_flow(config: Configuration) -> NearFlow:
    network = small_network(config)
    point, lr, vectors = network.start, 0.0, None
    rows, sharpest, converged = [], (-np.inf, point, point[None], 0), True
    for step in range(FLOW_STEPS + 1):
        losses, gradient = network.losses_and_gradient(point)
        if step % FLOW_EVERY == 0:
            pairs = network.top(point, start=vectors)
            value, vectors, converged = float(pairs.values[0]), pairs.vectors, converged and pairs.converged
            # 2 · ¼ / λ
            lr = 2 * NEAR_FLOW / max(value, FLATTEST)
            rows.append((value, network.shares(vectors[0]), float(losses.mean())))
            if value > sharpest[0] and step >= TRANSIENT:
                sharpest = value, point, vectors, step // FLOW_EVERY
        point = point - lr * gradient
    sharpness, shares, mean = (np.array(column) for column in zip(*rows, strict=True))
    return NearFlow(sharpness, shares, mean, *sharpest, converged)


@dataclass(frozen=True)
class Path:
    """Gradient descent, up to the last finite iterate.

    Attributes:
        lr: step size η, of the last step where it follows the sharpness.
        points: (steps + 1, size) iterates.
        losses: (steps + 1, n) every example's loss.
        squares: (steps + 1,) ‖∇L‖².
        multiples: (m,) ηλ/2 at the measured steps.
        vectors: (m, size) top eigenvectors there.
        converged: whether every measurement met its tolerance.
    """

    lr: float
    points: Tensor
    losses: np.ndarray
    squares: np.ndarray
    multiples: np.ndarray
    vectors: Tensor
    converged: bool


def descent(
    network: SmallNetwork,
    start: Tensor,
    steps: int,
    *,
    every: int,
    lr: float = 0.0,
    follow: float | None = None,
    vectors: Tensor | None = None,
) -> Path:
    """Takes so many steps from a point; every so many, the sharpness is measured, the last iterate's included.

    Args:
        network: the network.
        start: (size,) the first iterate.
        steps: number of steps.
        every: steps between measurements.
        lr: step size η.
        follow: ηλ/2 that the step size is set to at every measurement, in place of a constant one.
        vectors: eigenvectors to start from.
    """
    point, rows, multiples, tops, converged = start, [], [], [], True
    for step in range(steps + 1):
        losses, gradient = network.losses_and_gradient(point)
        if not torch.isfinite(losses).all():
            break
        rows.append((point, losses, gradient.square().sum()))
        if step % every == 0 or step == steps:
            pairs = network.top(point, start=vectors)
            sharpness, vectors, converged = float(pairs.values[0]), pairs.vectors, converged and pairs.converged
            lr = lr if follow is None else 2 * follow / max(sharpness, FLATTEST)
            multiples.append(lr * sharpness / 2)
            tops.append(vectors[0])
        point = point - lr * gradient
    points, losses, squares = (torch.stack(column) for column in zip(*rows, strict=True))
    return Path(lr, points, losses.numpy(), squares.numpy(), np.array(multiples), torch.stack(tops), converged)


def branch(config: Configuration, steps: int, *, every: int, follow: float | None = None) -> Path:
    """Descent at the configuration's step size from the point of the near-flow run where the sharpness is largest.

    There ηλ/2 is the configuration's multiple. The branch starts a little up the wall of the valley, along the top
    eigenvector v, so that an oscillation is under way from its first step.
    """
    network, flow = small_network(config), near_flow(config)
    # ½ λ κ² = KICK · L
    kick = (2 * KICK * float(flow.losses[flow.edge]) / max(flow.largest, FLATTEST)) ** 0.5
    start, lr = flow.sharpest + kick * flow.vectors[0], 2 * config.multiple / flow.largest
    return descent(network, start, steps, every=every, lr=lr, follow=follow, vectors=flow.vectors)
