"""The sharpness is that of the mean loss: whatever the examples' order or chunks, and in proportion to the loss.

Each of the three takes its own path through the code: the sum over examples in another order, the operator that adds
chunks, the loss function times a constant.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from sim.curvature import HessianOperator, LinearOperator, MeanLoss, MeanLossHessian, top_eigenpairs
from sim.curvature.mean_loss import cross_entropy, leaves_at
from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import small_network

FACTOR = 3.0
TOLERANCE = 1e-5

_POSITIVE = "the sharpness is positive"
_CONVERGED = "the eigenvalues converged"
_ORDER = "relative change of the sharpness in another order of the examples"
_CHUNKS = "in chunks of which the last is smaller"
_SCALE = f"of the sharpness of {FACTOR:g} L over {FACTOR:g}"


def _measure(config: Configuration, *, mutilated: bool = False) -> Measurement:
    network = small_network(config)
    objective, n = network.objective, len(network.objective)
    order = torch.randperm(n, generator=network.generator())
    # The control: an example is left out, chunks' means are averaged whatever their sizes, half the examples scaled.
    chosen = order[1:] if mutilated else order
    size = n // 2 + 1
    weights = torch.cat([torch.full((m,), 0.5 / m, dtype=torch.float64) for m in (size, n - size)])
    scaled = torch.where(torch.arange(n) < n // 2, 1.0, FACTOR) if mutilated else torch.tensor(FACTOR)

    def times(outputs: Tensor, targets: Tensor) -> Tensor:
        return scaled.to(outputs) * cross_entropy(outputs, targets)

    parameters = leaves_at(network.parts(network.start))
    operators: dict[str, LinearOperator] = {
        "": _whole(objective, parameters),
        _ORDER: _whole(
            replace(objective, inputs=objective.inputs[chosen], targets=objective.targets[chosen]), parameters
        ),
        _SCALE: _whole(replace(objective, loss=times), parameters),
    }
    if objective.divisible:
        weighted = replace(objective, weights=weights) if mutilated else objective
        operators[_CHUNKS] = MeanLossHessian(weighted, parameters, chunk=size)
    pairs = {
        name: top_eigenpairs(operator, generator=network.generator(), tolerance=TOLERANCE)
        for name, operator in operators.items()
    }
    values = {name: float(found.values[0]) for name, found in pairs.items()}
    whole = values.pop("")
    values[_SCALE] /= FACTOR
    return Measurement(
        {name: abs(value / whole - 1) for name, value in values.items()},
        {_POSITIVE: whole > 0, _CONVERGED: all(found.converged for found in pairs.values())},
        {"sharpness": whole},
    )


def _whole(objective: MeanLoss, parameters: list[Tensor]) -> HessianOperator:
    return HessianOperator(objective.of_chunk(parameters, slice(0, len(objective))), parameters)


INVARIANCES = Relation(
    name="invariances",
    statement="The sharpness depends on no order and no chunks of the examples, and grows in proportion to the loss.",
    domain=Domain(multiples=(0.5, 0.5)),
    hypotheses=(_POSITIVE, _CONVERGED),
    bounds={_ORDER: Bound(high=1e-7), _CHUNKS: Bound(high=1e-7), _SCALE: Bound(high=1e-7)},
    control="an example left out; the chunks' means averaged whatever their sizes; half of the examples' losses scaled",
    measure=_measure,
    measure_control=lambda config: _measure(config, mutilated=True),
    optional=(_CHUNKS,),
)
