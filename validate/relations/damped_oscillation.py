"""While ηλ < 2, no oscillation is sustained.

On a quadratic, the component along an eigenvector of curvature λ is multiplied by 1 − ηλ a step. Where it alternates,
1 < ηλ < 2, it shrinks. What is left after many steps is the movement along the valley, which has no alternating part.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from theory.alternation import alternating_part
from validate.claims.base import Bound
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import branch, near_flow

STEPS, LATE = 32, 8
"""A component with |1 − ηλ| ≤ 0.8 shrinks to 10⁻³ in so many steps, of which the last few are judged."""
HIGHEST = 0.9
ABOVE = 1.2

_BELOW = f"ηλ/2 is at most {HIGHEST} at every second step"
_CONVERGED = "the eigenvalues converged"
_WEIGHTS = f"alternating share of the weights' movement in the last {LATE} steps"
_LOSSES = "alternating share of the losses' movement there"


def alternating_share(series: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """(steps − 4,) twice the alternating part's size over that of a step: 1 for a pure alternation, 0 for a drift.

    Args:
        series: (steps, size) a vector at each step. Its alternating part is taken with weights (1, 4, 6, 4, 1)/16, to
            which a drift adds only its fourth difference.

    >>> alternating_share([[1.0], [-1.0], [1.0], [-1.0], [1.0], [-1.0]])
    array([1., 1.])
    """
    table = np.asarray(series, dtype=np.float64)
    size = np.linalg.norm(alternating_part(alternating_part(table)), axis=1)
    steps = np.linalg.norm(np.diff(table, axis=0), axis=1)
    return np.asarray(2 * size / np.convolve(steps, np.ones(4) / 4, "valid"))


def _measure(config: Configuration, *, follow: float | None = None) -> Measurement:
    path = branch(config, STEPS, every=2, follow=follow)
    if len(path.points) < LATE + 5:  # it diverged
        return Measurement({_WEIGHTS: np.inf, _LOSSES: np.inf}, {_BELOW: False, _CONVERGED: True})
    weights, losses = alternating_share(path.points.numpy()), alternating_share(path.losses)
    return Measurement(
        {_WEIGHTS: float(np.median(weights[-LATE:])), _LOSSES: float(np.median(losses[-LATE:]))},
        {
            _BELOW: bool((path.multiples <= HIGHEST).all()),
            _CONVERGED: path.converged and near_flow(config).converged,
        },
        {"largest ηλ/2": float(path.multiples.max()), "alternating share at the start": float(weights[0])},
    )


DAMPED_OSCILLATION = Relation(
    name="damped-oscillation",
    statement="While ηλ stays below 2, no oscillation is sustained: what alternates dies out.",
    domain=Domain(multiples=(0.55, 0.9), kinds=("mlp", "resnet18", "vit"), activations=("tanh", "gelu")),
    hypotheses=(_BELOW, _CONVERGED),
    bounds={_WEIGHTS: Bound(high=0.05), _LOSSES: Bound(high=0.05)},
    control=f"a step size that follows the sharpness and keeps ηλ/2 at {ABOVE}",
    measure=_measure,
    measure_control=lambda config: _measure(config, follow=ABOVE),
)
