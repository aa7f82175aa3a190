"""While ηλ > 2, two groups trade places every step, in opposite phase.

The component x of the iterate along the top eigenvector v, taken from the valley's floor, is multiplied by 1 − ηλ < −1:
it alternates and grows. To first order an example's loss swings by its slope s_i = ⟨∇ℓ_i, v⟩ times x, so those with the
most positive and the most negative slopes move against each other. The groups are chosen by their slopes at the start,
before any of the steps on which they are judged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from theory.alternation import alternating_part
from validate.claims.base import Bound
from validate.opposing_groups import OpposingPair, group_gap
from validate.relations.base import Domain, Measurement, Relation
from validate.relations.configuration import Configuration
from validate.relations.small_network import Path, branch, near_flow, small_network

STEPS = 16
FEWEST = 7
"""Steps on end above the threshold: four alternating parts, each taken from five iterates."""
EPSILON = 1e-5
GENTLE = 0.25
"""ηλ/2 of the control: 1 − ηλ = ½."""

_ABOVE = f"for {FEWEST} steps on end from the start ηλ > 2, on the mean of two successive iterates"
_TURN = "and the top eigenvector of one of the two is the start's, ⟨v, v'⟩² ≥ ½"
_CONVERGED = "the eigenvalues converged"
_ALTERNATES = "share of steps at which the gap of the two groups changes sides"
_PHASE = "correlation of the two groups' alternating losses"


def _measure(config: Configuration, *, control: bool = False) -> Measurement:
    config = replace(config, multiple=GENTLE) if control else config
    path = branch(config, STEPS, every=1)
    # At the edge the sharpness differs on the two sides of the valley, and so does the eigenvector.
    above = (path.multiples[1:] + path.multiples[:-1]) / 2 > 1
    kept = (path.vectors @ path.vectors[0]).square().numpy()
    held = np.maximum(kept[1:], kept[:-1]) >= 0.5
    # The control is asked for neither: it looks at all steps.
    count = STEPS if control else _on_end(above & held)
    met = {_CONVERGED: path.converged and near_flow(config).converged}
    if not control:
        met = {_ABOVE: _on_end(above) >= FEWEST, _TURN: count >= FEWEST, **met}
    if count < FEWEST:
        return Measurement({}, met, {"steps looked at": float(count)})
    alternating = alternating_part(alternating_part(path.losses[: count + 1]))
    pair = _pair_by_slope(config, path, one_end=control)
    gap = group_gap(alternating, pair)
    groups = [alternating[:, side].mean(1) for side in (pair.positive, pair.negative)]
    return Measurement(
        {
            _ALTERNATES: float(np.mean(np.sign(gap[1:]) != np.sign(gap[:-1]))),
            _PHASE: float(np.corrcoef(groups[0], groups[1])[0, 1]),
        },
        met,
        {
            "steps looked at": float(count),
            "largest ηλ/2": float(path.multiples[:count].max()),
            "least ⟨v, v'⟩²": float(kept[:count].min()),
            "growth of the gap": float(abs(gap[-1] / gap[0])),
        },
    )


def _on_end(good: npt.NDArray[np.bool_]) -> int:
    """Number of true entries before the first that is not."""
    return len(good) if good.all() else int(np.argmin(good))


def _pair_by_slope(config: Configuration, path: Path, *, one_end: bool) -> OpposingPair:
    """The sixths of the examples with the largest and the smallest ⟨∇ℓ_i, v⟩; or both from the upper third."""
    network, v = small_network(config), path.vectors[0]
    # s_i = ⟨∇ℓ_i, v⟩ by a central difference
    ends = [network.losses_and_gradient(path.points[0] + sign * EPSILON * v)[0] for sign in (1, -1)]
    slopes = ((ends[0] - ends[1]) / (2 * EPSILON)).numpy()
    order, size = np.argsort(-slopes, kind="stable"), max(1, len(slopes) // 6)
    positive, negative = (order[: 2 * size : 2], order[1 : 2 * size : 2]) if one_end else (order[:size], order[-size:])
    return OpposingPair(positive, negative, float("nan"), float("nan"))


ALTERNATION = Relation(
    name="alternation",
    statement="While ηλ > 2, the groups of largest slope along the top eigenvector trade places every step.",
    domain=Domain(multiples=(1.1, 1.7), kinds=("mlp", "resnet18", "vit"), activations=("tanh", "gelu")),
    hypotheses=(_ABOVE, _TURN, _CONVERGED),
    bounds={_ALTERNATES: Bound(low=0.95), _PHASE: Bound(high=-0.7)},
    control=f"step size {GENTLE:g} · 2/λ, and both groups from one end of the slopes",
    measure=_measure,
    measure_control=lambda config: _measure(config, control=True),
)
