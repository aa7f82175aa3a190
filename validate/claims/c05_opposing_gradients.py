"""C5: the groups' gradients are large, opposed, and lie along the unstable direction.

Measured on the groups' mean gradients in the edge study, along the direction of the bounce: the top eigenvector's where
one direction is unstable (`validate.claims.bounce`). Pilot (seeds 100–102): PILOT5
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.windows import Windows


def at_the_edge(edge: xr.Dataset, windows: Windows) -> xr.Dataset:
    """The measurements of a study from the crossing on, where there is a bounce to measure along."""
    kept = (edge["edge_measured"].values >= windows.crossing) & np.isfinite(edge["bounce_square"].values)
    return edge.isel(edge_measured=kept)


def _edge(evidence: NetworkEvidence, windows: Windows) -> xr.Dataset:
    return at_the_edge(evidence.runs["edge"], windows)


def _cosine(evidence: NetworkEvidence, windows: Windows) -> float:
    return float(np.median(_edge(evidence, windows)["group_cosine"].values))


def _random_cosine(evidence: NetworkEvidence, windows: Windows) -> float:
    return float(np.median(_edge(evidence, windows)["random_cosine"].sel(kind="any").values))


def _size(evidence: NetworkEvidence, windows: Windows) -> float:
    """Geometric mean of the two groups' gradient norms over the median norm of random groups of any labels."""
    edge = _edge(evidence, windows)
    own = np.exp(np.log(edge["group_gradient_norm"].values).mean(1))
    return float(np.median(own / _usual_norm(edge)))


def _random_size(evidence: NetworkEvidence, windows: Windows) -> float:
    """The largest of the random pairs with the same labels, in the same units."""
    edge = _edge(evidence, windows)
    drawn = np.exp(np.log(edge["random_gradient_norm"].sel(kind="same labels").values).mean(-1))
    return float(np.median(drawn.max(1) / _usual_norm(edge)))


def _usual_norm(edge: xr.Dataset) -> np.ndarray:
    return np.asarray(np.median(edge["random_gradient_norm"].sel(kind="any").values, axis=(1, 2)))


def _share(evidence: NetworkEvidence, windows: Windows) -> float:
    return float(np.median(_edge(evidence, windows)["group_bounce_share"].values))


def _random_share(evidence: NetworkEvidence, windows: Windows) -> float:
    return float(np.median(_edge(evidence, windows)["random_bounce_share"].sel(kind="any").values))


def _curvature(evidence: NetworkEvidence, windows: Windows) -> float:
    """Mean Rayleigh quotient of the two groups' Hessians along the bounce, over that of all examples."""
    edge = _edge(evidence, windows)
    return float(np.median(edge["group_curvature"].values.mean(-1) / edge["bounce_curvature"].values))


def _random_curvature(evidence: NetworkEvidence, windows: Windows) -> float:
    edge = _edge(evidence, windows)
    drawn = edge["random_curvature"].sel(kind="same labels").values.mean(-1)
    return float(np.median(drawn.max(1) / edge["bounce_curvature"].values))


NEEDS = ("base", "edge")

CLAIMS = (
    Claim(
        name="C5a",
        statement="Opposing gradients: the groups' mean gradients point against each other.",
        statistic="cosine of the groups' mean gradients, median from the crossing on",
        bound=Bound(high=-0.4),
        control="random groups of the same size (median)",
        measure=each_seed(_cosine),
        measure_control=each_seed(_random_cosine),
        figure="F7",
        needs=NEEDS,
    ),
    Claim(
        name="C5b",
        statement="Outsized gradients: the groups' mean gradients are far larger than other groups'.",
        statistic="norm of the groups' mean gradients over that of random groups, median from the crossing on",
        bound=Bound(low=2.5),
        control="random groups with the same labels (largest of the draws)",
        measure=each_seed(_size),
        measure_control=each_seed(_random_size),
        figure="F7",
        needs=NEEDS,
    ),
    Claim(
        name="C5c",
        statement="The direction between the groups' gradients is the unstable one.",
        statistic="|⟨g₊ − g₋, u⟩|/‖g₊ − g₋‖ with u along the bounce, median from the crossing on",
        bound=Bound(low=0.5),
        control="random groups of the same size (median)",
        measure=each_seed(_share),
        measure_control=each_seed(_random_share),
        figure="F7",
        needs=NEEDS,
    ),
    Claim(
        name="C5d",
        statement="The sharpness is the groups': their own curvature along the unstable direction is a multiple of it.",
        statistic="Rayleigh quotient of the groups' Hessian over that of all, median from the crossing on",
        bound=Bound(low=4.0),
        control="random groups with the same labels (largest of the draws)",
        measure=each_seed(_curvature),
        measure_control=each_seed(_random_curvature),
        figure="F7",
        needs=NEEDS,
    ),
)
