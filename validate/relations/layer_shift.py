"""From the start to the edge, the top eigenvector moves from the last layer to the first.

The edge of a step size 2/λ is where the near-flow run has its largest sharpness λ. The claim C9 was made for a
perceptron of two layers of 200 ReLU units on 2,000 images. At the size here it was found, on pilot draws, in the
transformer and the ResNet with every activation and in perceptrons with tanh; not in perceptrons with ReLU or GELU,
whose first layer has its largest share at the start, nor in VGG-11 with ReLU.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import near_flow

SHARPENING = 1.2

_SHARPENS = f"progressive sharpening: the largest sharpness is at least {SHARPENING} times the start's"
_CONVERGED = "the eigenvalues converged"
_RISE = "rise of log(first-layer share / last-layer share) from the start to the sharpest point"


def _measure(config: Configuration) -> Measurement:
    flow = near_flow(config)
    ratio = np.log(flow.shares[:, 0] / flow.shares[:, -1])
    return Measurement(
        {_RISE: float(ratio[flow.edge] - ratio[0])},
        {_SHARPENS: flow.largest >= SHARPENING * flow.sharpness[0], _CONVERGED: flow.converged},
        {
            "first-layer share at the start": float(flow.shares[0, 0]),
            "at the sharpest": float(flow.shares[flow.edge, 0]),
            "last-layer share at the start": float(flow.shares[0, -1]),
            "last-layer share at the sharpest": float(flow.shares[flow.edge, -1]),
            "largest sharpness over the start's": float(flow.largest / flow.sharpness[0]),
        },
    )


LAYER_SHIFT = Relation(
    name="layer-shift",
    statement="From the start to the edge the first layer's share of the top eigenvector rises relative to the last's.",
    domain=Domain(multiples=(0.5, 0.5), kinds=("mlp", "resnet18", "vit"), without=(("mlp", "gelu"), ("mlp", "relu"))),
    hypotheses=(_SHARPENS, _CONVERGED),
    bounds={_RISE: Bound(low=0.1)},
    control="a perceptron of one hidden layer of 16 ReLU units on the same images",
    measure=_measure,
    measure_control=lambda config: _measure(replace(config, kind="mlp", width=16, depth=1, activation="relu")),
)
