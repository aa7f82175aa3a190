"""Below the threshold every step of gradient descent lowers the loss.

With Λ the largest curvature on the segment of a step, L(θ − η∇L) ≤ L(θ) − η ‖∇L‖² (1 − ηΛ/2). For Λ stands the larger
sharpness of the step's two ends; it needs a loss that is twice differentiable and bends little in between.
"""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import branch, near_flow

STEPS = 12
HIGHEST = 0.9
"""Largest ηλ/2 of a judged step."""

_BELOW = f"ηλ/2 is at most {HIGHEST} at both ends of some step"
_CONVERGED = "the eigenvalues converged"
_DECREASE = "least decrease of the loss in a step, over η‖∇L‖²(1 − ηλ/2)"


def _measure(config: Configuration, *, first_order: bool = False) -> Measurement:
    path = branch(config, STEPS, every=1)
    largest = np.maximum(path.multiples[1:], path.multiples[:-1])
    judged = largest <= HIGHEST
    decrease = -np.diff(path.losses.mean(1)) / (path.lr * path.squares[:-1])
    ratios = decrease if first_order else decrease / (1 - np.minimum(largest, HIGHEST))
    return Measurement(
        {_DECREASE: float(ratios[judged].min(initial=np.inf))},
        {_BELOW: bool(judged.any()), _CONVERGED: path.converged and near_flow(config).converged},
        {"steps judged": float(judged.sum()), "largest ηλ/2 in them": float(largest[judged].max(initial=0))},
    )


DESCENT_LEMMA = Relation(
    name="descent-lemma",
    statement="While ηλ < 2, every step lowers the loss by at least η‖∇L‖²(1 − ηλ/2).",
    domain=Domain(multiples=(0.05, 0.95), activations=("tanh", "gelu"), kinds=("mlp", "resnet18", "vit")),
    hypotheses=(_BELOW, _CONVERGED),
    bounds={_DECREASE: Bound(low=1.0)},
    control="the decrease that the gradient alone promises, η‖∇L‖²",
    measure=_measure,
    measure_control=lambda config: _measure(config, first_order=True),
)
