"""A displacement x along the top eigenvector v of the Hessian grows by 1 − ηλ a step.

Two descents start a hair apart along v. With d their displacement, x = ⟨d, v⟩, y = ‖d − xv‖, q = ⟨v, Hv⟩ and
r = ‖Hv − qv‖, all at the step's start, d' = (I − ηH) d gives, but for what is of higher order in d,

    |x' − (1 − ηλ) x| ≤ η (λ − q) |x| + η r y:

what the turn of v takes from the prediction is known, and the error's bound goes along with the prediction.

The losses' displacement is then x times their slopes along v where the descent is now: not where it began, for behind
a kink of ReLU the slopes are others, and the Hessian too, while a small ηλ leaves the bound small.
"""

from __future__ import annotations

import torch

from sim.curvature import top_eigenpairs
from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import near_flow, small_network

EPSILON = 1e-6
STEPS = 4
FLOOR = 1e-4
"""Of the displacement: rounding, and orders above the first."""

_TURN = "v hardly turns: the error's bound stays below a quarter of the prediction"
_CONVERGED = "the eigenvalues converged"
_FACTOR = "error of the predicted displacement over its bound"
_LOSSES = "cosine of the losses' displacement with their slopes along v, times the predicted sign"


def _measure(config: Configuration, *, mutilated: bool = False) -> Measurement:
    network, flow = small_network(config), near_flow(config)
    lr, point = 2 * config.multiple / flow.largest, flow.sharpest
    pairs = network.top(point, k=2, start=flow.vectors, tolerance=1e-5)
    v, converged = pairs.vectors[0], pairs.converged
    sides = [point + EPSILON * v, point - EPSILON * v]
    x, y, expected, bound, error = 1.0, 0.0, 1.0, 0.0, 0.0
    for _ in range(STEPS):
        hessian = network.hessian(point)
        pairs = top_eigenpairs(hessian, generator=network.generator(), k=2, start=pairs.vectors, tolerance=1e-5)
        converged = converged and pairs.converged
        values, hv = pairs.values.tolist(), hessian.matvec(v)
        q, factor = float(v @ hv), 1 - lr * values[0]
        # |x' − (1 − ηλ) x| ≤ η (λ − q) |x| + η r y
        turned = lr * ((values[0] - q) * abs(x) + float((hv - q * v).norm()) * y)
        bound = abs(factor) * bound + turned + FLOOR * max(1.0, abs(factor))
        expected *= 1 - lr * values[1 if mutilated else 0]
        gradients = [network.losses_and_gradient(side)[1] for side in sides]
        point = point - lr * hessian.gradient
        sides = [side - lr * gradient for side, gradient in zip(sides, gradients, strict=True)]
        d = (sides[0] - sides[1]) / (2 * EPSILON)
        x = float(d @ v)
        y = float((d - x * v).norm())
        error = max(error, abs(x - expected) / bound)
    along = [point + EPSILON * v, point - EPSILON * v]
    displaced, slopes = (torch.sub(*(network.losses_and_gradient(at)[0] for at in pair)) for pair in (sides, along))
    displaced = displaced.flip(0) if mutilated else displaced
    cosine = float(torch.cosine_similarity(slopes, displaced, dim=0)) * (1 if expected > 0 else -1)
    return Measurement(
        {_FACTOR: error, _LOSSES: cosine},
        {_TURN: bound <= abs(expected) / 4, _CONVERGED: converged and flow.converged},
        {
            "displacement after the last step": x,
            "predicted": expected,
            "bound of its error": bound,
            "ηλ/2 in the last step": lr * values[0] / 2,
        },
    )


GROWTH_FACTOR = Relation(
    name="growth-factor",
    statement="A small displacement along the top eigenvector grows by 1 − ηλ a step, and each example's loss with it.",
    domain=Domain(multiples=(0.05, 1.3)),
    hypotheses=(_TURN, _CONVERGED),
    bounds={_FACTOR: Bound(high=1.0), _LOSSES: Bound(low=0.5)},
    control="the second eigenvalue in λ's place; the losses' displacement in reversed order of the examples",
    measure=_measure,
    measure_control=lambda config: _measure(config, mutilated=True),
)
