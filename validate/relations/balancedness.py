"""In ReLU networks the balance of each hidden unit drifts as η under descent, and not at all under the flow.

A unit with incoming weights w, bias b and outgoing weights u computes u φ(⟨w, h⟩ + b), φ(z) = max(z, 0). Multiplying w
and b by κ > 0 and u by 1/κ changes nothing, so at κ = 1 the loss's derivative along it vanishes:

    ⟨∇_w L, w⟩ + b ∂_b L − ⟨∇_u L, u⟩ = 0.

Hence Q = ‖w‖² + b² − ‖u‖² is constant under the flow (Du, Hu & Lee 2018, without biases), and a step of descent changes
it by exactly η²(‖∇_w L‖² + (∂_b L)² − ‖∇_u L‖²): over a fixed time, by η times an integral that converges, so the drift
falls with slope 1 in η. The bias of the next layer has no part in Q. A convolution's channel is such a unit, since max
and mean pooling commute with κ.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import SmallNetwork, near_flow, small_network

STEPS = 8
"""At the configuration's step size; twice and four times as many at a half and a quarter of it."""

_IDENTITY = "error of η²(‖∇_w‖² + ∂_b² − ‖∇_u‖²) as a step's change of Q, relative to the largest change"
_SLOPE = "slope of log drift on log η"
VISIBLE = 1e8
"""Units of rounding of ‖w‖² + b² + ‖u‖² that a step must change Q by, so that 10⁻⁶ of the change can be seen."""
_MOVES = f"the changes of Q in a step stand out of rounding, {VISIBLE:.0e} times"


def balances(network: SmallNetwork, vector: Tensor) -> Tensor:
    """(hidden units,) ‖w‖² + b² − ‖u‖² of every hidden unit or channel, the vector being weights or a gradient."""
    incoming, outgoing = _terms(network, vector)
    return incoming - outgoing


def _terms(network: SmallNetwork, vector: Tensor) -> tuple[Tensor, Tensor]:
    """(hidden units,) ‖w‖² + b², and ‖u‖²."""
    parts = network.parts(vector)
    incoming = [w.flatten(1).square().sum(1) + b.square() for w, b in zip(parts[::2], parts[1::2], strict=True)]
    outgoing = [w.transpose(0, 1).flatten(1).square().sum(1) for w in parts[::2]]
    return torch.cat(incoming[:-1]), torch.cat(outgoing[1:])


def _measure(config: Configuration) -> Measurement:
    network = small_network(config)
    lr = 2 * config.multiple / near_flow(config).largest
    runs = [_drift(network, lr / halved, STEPS * halved) for halved in (1, 2, 4)]
    drifts, errors, changes = np.array(runs).T
    size = float(torch.add(*_terms(network, network.start)).max())
    return Measurement(
        {_IDENTITY: float((errors / changes).max()), _SLOPE: float(np.log2(drifts[1] / drifts[2]))},
        {_MOVES: bool(changes.min() >= VISIBLE * np.finfo(np.float64).eps * size)},
        {f"drift of Q at {name}": float(drift) for name, drift in zip(("η", "η/2", "η/4"), drifts, strict=True)},
    )


def _drift(network: SmallNetwork, lr: float, steps: int) -> tuple[float, float, float]:
    """Norm of all units' drifts over the steps, largest error of a step's predicted change, and largest change."""
    point = network.start
    first = last = balances(network, point)
    changes, errors = [], []
    for _ in range(steps):
        gradient = network.losses_and_gradient(point)[1]
        point = point - lr * gradient
        now = balances(network, point)
        # ΔQ = η²(‖∇_w‖² + ∂_b² − ‖∇_u‖²)
        errors.append(float((now - last - lr**2 * balances(network, gradient)).abs().max()))
        changes.append(float((now - last).abs().max()))
        last = now
    return float((last - first).norm()), max(errors), max(changes)


BALANCEDNESS = Relation(
    name="balancedness",
    statement=(
        "In ReLU networks a hidden unit's ‖w‖² + b² − ‖u‖² (incoming weights, bias, outgoing weights) changes by "
        "η²(‖∇_w L‖² + (∂_b L)² − ‖∇_u L‖²) a step, so over a fixed time it drifts in proportion to η."
    ),
    domain=Domain(multiples=(0.02, 0.2), kinds=("mlp", "vgg11"), activations=("relu",)),
    hypotheses=(_MOVES,),
    bounds={_IDENTITY: Bound(high=1e-6), _SLOPE: Bound(low=0.8, high=1.2)},
    control="tanh in ReLU's place, which is not homogeneous",
    measure=_measure,
    measure_control=lambda config: _measure(replace(config, activation="tanh")),
)
