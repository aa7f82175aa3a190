"""Objectives whose curvature is known in closed form, shared by the curvature tests."""

from __future__ import annotations

import torch
from torch import nn

from sim.curvature import MeanLoss
from theory import Model, State


def two_layer_objective(model: Model, state: State) -> MeanLoss:
    """The two-layer network's population loss as a sum over examples: coordinate i is an example of weight λ_i.

    L = ½ Σ_i λ_i (c w_i − τ_i)², so example e_i with target τ_i has the output c w_i. Parameters in the order (w, c).
    """
    d = len(model.curvatures)
    network = nn.Sequential(nn.Linear(d, 1, bias=False), nn.Linear(1, 1, bias=False)).double()
    with torch.no_grad():
        network[0].weight.copy_(torch.from_numpy(state.first_layer)[None])
        network[1].weight.fill_(float(state.c))
    return MeanLoss(
        network,
        torch.eye(d, dtype=torch.float64),
        torch.from_numpy(model.target),
        loss=lambda z, y: 0.5 * (z[:, 0] - y) ** 2,
        weights=torch.from_numpy(model.curvatures.copy()),
    )
