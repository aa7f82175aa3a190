"""C8: at the edge about half of the examples go up in loss at a typical step."""

from __future__ import annotations

from validate.claims.base import Bound, Claim, NetworkEvidence, each_seed
from validate.opposing_groups import loss_changes


def _share_rising(evidence: NetworkEvidence, window: slice) -> float:
    return float((loss_changes(evidence.run["loss"].values[window]) > 0).mean())


CLAIMS = (
    Claim(
        name="C8",
        statement="About half of the examples go up in loss at a step at the edge.",
        statistic="share of examples whose loss rises in a step, mean over 150 steps from the crossing",
        bound=Bound(low=0.4, high=0.6),
        control="before the crossing",
        measure=each_seed(lambda e, w: _share_rising(e, w.edge)),
        measure_control=each_seed(lambda e, w: _share_rising(e, w.before)),
        figure="F1",
        needs=("base",),
    ),
)
