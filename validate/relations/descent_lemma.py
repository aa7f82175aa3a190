"""Below the threshold every step of gradient descent lowers the loss.

With Λ the largest curvature on the segment of a step, L(θ − η∇L) ≤ L(θ) − η ‖∇L‖² (1 − ηΛ/2). For Λ stands the larger
sharpness of the step's two ends; it needs a loss that is twice differentiable and bends little in between.

The gradient has little along the top eigenvector v, so the bound is loose: it would hold for a fraction of λ. What a
step of that part alone does, to leading order with equality, is judged beside it:

    L(θ) − L(θ − η⟨∇L, v⟩v) = η⟨∇L, v⟩²(1 − ηλ/2).
"""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import Path, branch, near_flow, small_network

STEPS = 12
HIGHEST = 0.9
"""Largest ηλ/2 of a judged step."""

_BELOW = f"ηλ/2 is at most {HIGHEST} at both ends of some step"
_CONVERGED = "the eigenvalues converged"
_DECREASE = "least decrease of the loss in a step, over η‖∇L‖²(1 − ηλ/2)"
_CURVATURE = "relative difference of the curvature that the first step's part along v meets from λ"


def _measure(config: Configuration, *, mutilated: bool = False) -> Measurement:
    path = branch(config, STEPS, every=1)
    largest = np.maximum(path.multiples[1:], path.multiples[:-1])
    judged = largest <= HIGHEST
    decrease = -np.diff(path.losses.mean(1)) / (path.lr * path.squares[:-1])
    ratios = decrease if mutilated else decrease / (1 - np.minimum(largest, HIGHEST))
    return Measurement(
        {
            _DECREASE: float(ratios[judged].min(initial=np.inf)),
            _CURVATURE: abs(_curvature_along(config, path) / (path.multiples[0] / (2 if mutilated else 1)) - 1),
        },
        {_BELOW: bool(judged.any()), _CONVERGED: path.converged and near_flow(config).converged},
        {"steps judged": float(judged.sum()), "largest ηλ/2 in them": float(largest[judged].max(initial=0))},
    )


def _curvature_along(config: Configuration, path: Path) -> float:
    """ηλ/2 by the decrease of the loss in the first step's part along the top eigenvector."""
    network, v = small_network(config), path.vectors[0]
    losses, gradient = network.losses_and_gradient(path.points[0])
    slope = float(gradient @ v)
    after = network.losses_and_gradient(path.points[0] - path.lr * slope * v)[0]
    return 1 - float(losses.mean() - after.mean()) / (path.lr * slope**2)


DESCENT_LEMMA = Relation(
    name="descent-lemma",
    statement=(
        "While ηλ < 2, every step lowers the loss by at least η‖∇L‖²(1 − ηλ/2), its part along the top eigenvector by "
        "as much as that."
    ),
    domain=Domain(multiples=(0.05, 0.95), activations=("tanh", "gelu"), kinds=("mlp", "resnet18", "vit")),
    hypotheses=(_BELOW, _CONVERGED),
    bounds={_DECREASE: Bound(low=1.0), _CURVATURE: Bound(high=0.25)},
    control="the decrease that the gradient alone promises, η‖∇L‖²; half of λ",
    measure=_measure,
    measure_control=lambda config: _measure(config, mutilated=True),
)
