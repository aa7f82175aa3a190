"""C5: the groups' gradients are large, opposed, and lie along the unstable direction.

Measured on the groups' mean gradients in the edge study, along the direction of the bounce: the top eigenvector's where
one direction is unstable (`validate.claims.bounce`). Pilot (seeds 100–102, MLP): cosine −0.63, −0.55, −0.62 (random
0.05 to 0.09); norm 4.3, 4.2, 3.4 (1.7 to 2.1); share 0.80, 0.62, 0.83 (0.13 to 0.18);
curvature 8.1, 7.1, 6.5 (1.9 to 2.5).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.claims.bounce import stretches
from validate.windows import Windows


def _judged(edge: xr.Dataset, windows: Windows) -> npt.NDArray[np.bool_]:
    """Whether a measurement of the study is at a step that the groups were not chosen on."""
    return np.asarray(edge["edge_measured"].values >= windows.evaluate.start)


def _edge(evidence: NetworkEvidence, windows: Windows) -> xr.Dataset:
    """The measurements of the study at the steps that the groups were not chosen on."""
    edge = evidence.runs["edge"]
    return edge.isel(edge_measured=_judged(edge, windows))


def _standing(evidence: NetworkEvidence, windows: Windows) -> xr.Dataset:
    """Those of them where the oscillation stands: there is a direction of the bounce."""
    edge = evidence.runs["edge"]
    found = stretches(edge, windows)
    standing = found.measured[found.standing]
    return edge.isel(edge_measured=standing[_judged(edge, windows)[standing]])


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


def _median(values: npt.NDArray[np.floating]) -> float:
    """Median; NaN of nothing, where no oscillation stands."""
    return float(np.median(values)) if values.size else float("nan")


def _share(evidence: NetworkEvidence, windows: Windows) -> float:
    return _median(_standing(evidence, windows)["group_bounce_share"].values)


def _random_share(evidence: NetworkEvidence, windows: Windows) -> float:
    """The largest of the random pairs with the same labels: whole classes lie along the bounce too."""
    return _median(_standing(evidence, windows)["random_bounce_share"].sel(kind="same labels").values.max(1))


def _curvature(evidence: NetworkEvidence, windows: Windows) -> float:
    """Mean Rayleigh quotient of the two groups' Hessians along the bounce, over that of all examples."""
    edge = _standing(evidence, windows)
    return _median(edge["group_curvature"].values.mean(-1) / edge["bounce_curvature"].values)


def _random_curvature(evidence: NetworkEvidence, windows: Windows) -> float:
    edge = _standing(evidence, windows)
    drawn = edge["random_curvature"].sel(kind="same labels").values.mean(-1)
    return _median(drawn.max(1) / edge["bounce_curvature"].values)


NEEDS = ("base", "edge")

CLAIMS = (
    Claim(
        name="C5a",
        statement="Opposing gradients: the groups' mean gradients point against each other.",
        statistic="cosine of the groups' mean gradients, median over the steps not used to choose",
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
        statistic="norm of the groups' mean gradients over that of random groups, median over the same steps",
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
        statistic="|⟨g₊ − g₋, u⟩|/‖g₊ − g₋‖ with u along the bounce, median where it stands on these steps",
        bound=Bound(low=0.5),
        control="random groups with the same labels (largest of the draws)",
        measure=each_seed(_share),
        measure_control=each_seed(_random_share),
        figure="F7",
        needs=NEEDS,
    ),
    Claim(
        name="C5d",
        statement="The sharpness is the groups': their own curvature along the unstable direction is a multiple of it.",
        statistic="Rayleigh quotient of the groups' Hessian over that of all, median where it stands on these steps",
        bound=Bound(low=4.0),
        control="random groups with the same labels (largest of the draws)",
        measure=each_seed(_curvature),
        measure_control=each_seed(_random_curvature),
        figure="F7",
        needs=NEEDS,
    ),
)
