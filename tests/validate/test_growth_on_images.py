"""The growth factor on small networks and real images: what a step does to a displacement along the top eigenvector."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from sim import descend, mlp
from sim.curvature import HessianOperator, MeanLoss, top_eigenpairs
from sim.curvature.mean_loss import flatten, leaves_at, unflatten
from validate.cifar10 import load_embedded, standardise

IMAGES = load_embedded()
EPSILON = 1e-7
STEPS = 3


def _trained(seed: int, width: int, activation: str, offset: int) -> tuple[MeanLoss, list[Tensor]]:
    """A network in float64 after some steps of small size on 60 images."""
    chosen = slice(offset, None, 33)
    inputs = torch.from_numpy(standardise(IMAGES)[chosen]).flatten(1).double()
    labels = torch.from_numpy(IMAGES.labels[chosen].astype(np.int64))
    network = mlp([3072, width, 10], activation, seed).double()
    descend(network, inputs, labels, lr=0.02, steps=25, progress=False)
    return MeanLoss(network, inputs, labels), list(network.parameters())


def _top(objective: MeanLoss, point: Tensor, like: list[Tensor]) -> tuple[float, Tensor]:
    leaves = leaves_at(unflatten(point, like))
    hessian = HessianOperator(objective.of_chunk(leaves, slice(0, len(objective))), leaves)
    pairs = top_eigenpairs(hessian, generator=torch.Generator().manual_seed(0), tolerance=1e-5)
    assume(pairs.converged)
    return float(pairs.values[0]), pairs.vectors[0]


def _losses(objective: MeanLoss, point: Tensor, like: list[Tensor]) -> Tensor:
    with torch.no_grad():
        network = objective.network
        nn.utils.vector_to_parameters(point, network.parameters())
        return objective.loss(network(objective.inputs), objective.targets)


@settings(max_examples=5)
@given(
    st.integers(0, 10**6),
    st.sampled_from([6, 12, 20]),
    st.sampled_from(["tanh", "gelu"]),
    st.integers(0, 32),
    st.floats(0.05, 1.3),
)
@example(seed=0, width=12, activation="tanh", offset=0, ratio=0.25)
@example(seed=0, width=12, activation="tanh", offset=0, ratio=0.8)
@example(seed=0, width=12, activation="tanh", offset=0, ratio=1.2)
def test_a_displacement_along_the_top_eigenvector_grows_by_its_factor(
    seed: int, width: int, activation: str, offset: int, ratio: float
) -> None:
    """x_{t+1} = (1 − ηλ_t) x_t with ηλ_0/2 = ratio, between two descents a hair apart, as long as v hardly turns."""
    objective, like = _trained(seed, width, activation, offset)
    point = flatten([p.detach() for p in like]).clone()
    sharpness, v = _top(objective, point, like)
    assume(sharpness > 0)
    lr, aside = 2 * ratio / sharpness, point + EPSILON * v
    expected, x, turned = EPSILON, EPSILON, 0.0
    swing = _losses(objective, aside, like) - _losses(objective, point, like)
    for _ in range(STEPS):
        here, top = _top(objective, point, like)
        turned = max(turned, 1 - float(torch.dot(top, v)) ** 2)
        assume(turned < 0.02)
        expected *= 1 - lr * here
        point, aside = (p - lr * objective.gradient(unflatten(p, like)) for p in (point, aside))
        last, x = x, float(torch.dot(aside - point, v))
        # What the turn of v and the change of the Hessian across it can add, in units of the displacement.
        slack = EPSILON * (0.02 + 6 * turned**0.5) * max(1.0, abs(1 - lr * sharpness)) ** STEPS
        assert abs(x - expected) <= slack
        moved = _losses(objective, aside, like) - _losses(objective, point, like)
        if abs(expected) > 2 * slack:
            # Below ηλ = 1 the displacement keeps its side; above, the examples trade places every step.
            side = 1.0 if lr * here < 1 else -1.0
            assert np.sign(x * last) == side
            assert np.sign(float(torch.dot(moved, swing))) == side
            # It grows where ηλ > 2 and nowhere else.
            if abs(abs(1 - lr * here) - 1) * abs(last) > 2 * slack:
                assert (abs(x) > abs(last)) == (lr * here > 2)
        swing = moved
