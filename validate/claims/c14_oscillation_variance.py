"""C14: the variance of the oscillation along the top eigenvector is 2⟨−∇L, ∇λ⟩/‖∇⊥λ‖².

Which constant? With x the displacement along v, the third derivative ∇³L(v, v) = ∇λ gives ∇L(θ + xv) = ∇L + λxv +
½x²∇λ, so a step changes λ by η(⟨∇λ, −∇L⟩ − ½x²‖∇λ‖²); it stays at 2/η on average where the mean of x² is
2⟨−∇L, ∇λ⟩/‖∇λ‖²: the factor is 2, `theory.reduced_map`'s rest_square = 2a/b. Along v itself the force ½x²∇λ is not
balanced by a change of λ but by a shift of x's mean of −½x²⟨∇λ, v⟩/λ, within a few steps, and with it goes ⟨∇L, v⟩ = 0;
what is left is ∇⊥λ = ∇λ − ⟨∇λ, v⟩v in both places. At a measured midpoint ⟨∇L, v⟩ is not exactly 0, so a is taken with
∇⊥λ, which makes no difference where it is. In the two-layer network it is T9: S = αc², ∇⊥S along c, 2a/b = D/(αc).

Judged where one direction is unstable; PILOT14
"""

from __future__ import annotations

import numpy as np

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.one_direction import alternating_displacement, stretches
from validate.windows import Windows


def variance_ratio(evidence: NetworkEvidence, windows: Windows) -> float:
    """Mean x² along the top eigenvector over the mean predicted, on the same stretches from the crossing on."""
    edge = evidence.runs["edge"]
    found = stretches(edge)
    kept = edge["edge_step"].values[found.first] >= windows.crossing
    if not kept.any():
        return float("nan")
    return float(found.square[kept].mean() / found.rest_square[kept].mean())


def _bulk_ratio(evidence: NetworkEvidence, windows: Windows) -> float:
    """The same with the variance along bulk eigenvectors held fixed (their median)."""
    edge = evidence.runs["edge"]
    found = stretches(edge)
    kept = edge["edge_step"].values[found.first] >= windows.crossing
    if not kept.any():
        return float("nan")
    slopes = edge["gradient_projection"].values[:, 1:]
    length = int(np.diff(edge["edge_measured"].values)[0])
    squares = [
        [np.mean(alternating_displacement(slopes[begin : begin + length, d], edge.attrs["lr"]) ** 2) for begin in first]
        for first in [found.first[kept]]
        for d in range(slopes.shape[1])
    ]
    return float(np.median(np.mean(squares, axis=1)) / found.rest_square[kept].mean())


CLAIMS = (
    Claim(
        name="C14",
        statement="Variance of the oscillation: x² = 2⟨−∇L, ∇λ⟩/‖∇⊥λ‖² along the top eigenvector.",
        statistic="measured over predicted mean x², from the crossing on, where one direction is unstable",
        bound=Bound(low=0.5, high=2.0),
        control="variance along bulk eigenvectors (their median)",
        measure=each_seed(variance_ratio),
        measure_control=each_seed(_bulk_ratio),
        figure="F16",
        needs=("base", "edge"),
    ),
)
